//! Several at once: each for itself in the batches, all or nothing in a transaction.

use std::sync::Arc;

use super::{
    super::{Failure, Fields, Outcome, Value},
    Reply, Storage, answer, blocking, request,
};
use crate::store::values::{Answer, Condition, Job, Op, QUICK};

type Prepared = Result<Op, Failure>;

impl Storage {
    pub(super) fn save_many(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
    ) -> Result<Reply, Failure> {
        let items = request::batch(&mut fields, "items")?;
        fields.done()?;
        let options = &self.0.options;
        let op = |item| request::save_op(Fields::of(item)?, options);
        Ok(self.each(namespace, items.into_iter().map(op).collect()))
    }

    pub(super) fn delete_many(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
    ) -> Result<Reply, Failure> {
        let keys = request::batch(&mut fields, "keys")?;
        fields.done()?;
        let op = |key: Result<_, _>| key.map(|key| Op::Delete(key, Condition::default()));
        Ok(self.each(namespace, request::keys(keys, &self.0.options).map(op).collect()))
    }

    /// One job, one transaction; but each operation fails alone.
    fn each(&self, namespace: Arc<str>, prepared: Vec<Prepared>) -> Reply {
        #[cfg(feature = "cloud")]
        if let Some(work) = self.in_cloud(&namespace) {
            return super::cloud::later(async move { work.each(prepared).await });
        }
        let mut ops = Vec::with_capacity(prepared.len());
        let mut places = Vec::with_capacity(prepared.len());
        for one in prepared {
            places.push(one.map(|op| ops.push(op)));
        }
        let results = move |answer: Answer| -> Outcome {
            let mut done = answer.map_err(answer::failure)?.into_iter();
            let results = places.into_iter().map(|place| {
                let outcome = place.and_then(|()| match done.next() {
                    Some(one) => answer::done(one.map_err(answer::failure)?, ""),
                    None => Ok(Value::Null),
                });
                answer::envelope(outcome)
            });
            Ok(Value::map([("results", Value::List(results.collect()))]))
        };
        self.job(Job { namespace, ops, atomic: false }, results)
    }

    pub(super) fn get_many(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
    ) -> Result<Reply, Failure> {
        let list = request::batch(&mut fields, "keys")?;
        fields.done()?;
        let keys: Vec<_> = request::keys(list, &self.0.options).collect();
        #[cfg(feature = "cloud")]
        if let Some(work) = self.in_cloud(&namespace) {
            return Ok(super::cloud::later(async move { work.get_many(keys).await }));
        }
        let values = self.0.values.clone();
        let max = self.0.options.max_inline;
        // Many keys take as long as one large value.
        let quick = keys.len() <= 16;
        let get = move |room: u64| -> (Outcome, bool) {
            let (mut left, mut full) = (room, false);
            let mut results = Vec::with_capacity(keys.len());
            for key in &keys {
                let outcome = key.clone().and_then(|key| {
                    let (meta, content) =
                        values.get(&namespace, &key, left.min(max)).map_err(answer::failure)?;
                    left -= meta.size.min(left);
                    answer::value(&key, &meta, content)
                });
                full |= outcome.as_ref().is_err_and(|failure| failure.code() == "too_large");
                results.push(answer::envelope(outcome));
            }
            (Ok(Value::map([("results", Value::List(results))])), full)
        };
        if quick {
            let (outcome, full) = get(QUICK.min(max));
            if !full {
                return Ok(Reply::Now(outcome));
            }
        }
        Ok(blocking(move || get(max).0))
    }

    pub(super) fn transaction(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
    ) -> Result<Reply, Failure> {
        let operations = request::batch(&mut fields, "operations")?;
        fields.done()?;
        let mut ops = Vec::with_capacity(operations.len());
        let mut keys = Vec::with_capacity(operations.len());
        for (place, operation) in operations.into_iter().enumerate() {
            let op = request::transaction_op(operation, &self.0.options);
            let op = op.map_err(|failure| Failure {
                message: format!("operation {place}: {}", failure.message),
                field: failure.field.map(|field| format!("operations[{place}].{field}")),
                ..failure
            })?;
            keys.push(if let Op::Get(key) = &op { key.clone() } else { String::new() });
            ops.push(op);
        }
        #[cfg(feature = "cloud")]
        if let Some(work) = self.in_cloud(&namespace) {
            work.check_transaction(&ops)?;
        }
        let results = move |answer: Answer| -> Outcome {
            let done = answer.map_err(answer::failure)?;
            let results = done
                .into_iter()
                .zip(keys)
                .map(|(one, key)| answer::done(one.map_err(answer::failure)?, &key));
            Ok(Value::map([("results", Value::List(results.collect::<Result<_, _>>()?))]))
        };
        Ok(self.job(Job { namespace, ops, atomic: true }, results))
    }
}
