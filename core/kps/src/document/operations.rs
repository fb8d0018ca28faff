//! Operations of a caller that hears of them on the document's topic alone: whatever is wrong with one of
//! them is told there.

use std::sync::Arc;

use super::{
    Inner,
    calls::{self, Asked, Read},
    engine::{Code, Limits, Reject},
    shelf::Name,
};
use crate::capability::{Failure, Fields, Map, Outcome, Value, wrong};

impl Inner {
    /// One operation, or several as `operations`. The answer says that they were read, and no more.
    pub(super) async fn call_operations(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        client_id: &str,
    ) -> Outcome {
        let author = calls::author(&mut fields, client_id)?;
        let lineage = calls::lineage(&mut fields)?;
        let limits = &self.options.limits;
        let mut batch = match fields.given("operations") {
            None => vec![asked(fields, limits)?],
            Some(Value::List(list)) if list.is_empty() || list.len() > limits.batch => {
                let (count, most) = (list.len(), limits.batch);
                let sentence = format!("operations are {count}; they are 1 to {most}");
                return Err(Failure::field("operations", sentence));
            }
            Some(Value::List(list)) => {
                fields.done()?;
                let each = |operation| Fields::of(operation).and_then(|it| asked(it, limits));
                list.into_iter().map(each).collect::<Result<_, _>>()?
            }
            Some(other) => return Err(wrong("operations", &other, "a list of operations")),
        };
        if let Some(first) = batch.first_mut().filter(|it| it.base.is_none() && it.edits.is_ok()) {
            let sentence = "the field \"base_version\" is missing";
            first.edits = Err(Reject::new(Code::Invalid, sentence));
        }
        let op_ids: Vec<Value> = batch.iter().map(|asked| (&*asked.op_id).into()).collect();
        self.edit(name, author, lineage, batch).await?;
        let mut answer = Map::default();
        answer.push("accepted", op_ids.len());
        answer.push("op_ids", op_ids);
        Ok(answer.into())
    }
}

/// An operation; what is wrong with it is part of it, so that it is told of the operation.
fn asked(mut fields: Fields, limits: &Limits) -> Result<Asked, Failure> {
    let op_id = fields.text("op_id")?.into();
    let mut base = None;
    let mut read = || -> Read {
        let given = fields.given("base_version");
        base = given.map(|value| calls::version_of("base_version", value)).transpose()?;
        let edits = calls::edits(fields.value("edit")?, limits)?;
        Ok(edits)
    };
    let edits = read();
    let edits = edits.and_then(|edits| fields.done().map(|()| edits).map_err(Reject::from));
    Ok(Asked { op_id, base, edits })
}
