//! Editing. Operations are numbered by JavaScript; what the server made of them follows under these numbers.

use std::sync::Arc;

use bytes::Bytes;
use kps::{
    ErrorKind,
    capability::{Callback, Failure, Value},
    document::{Document, Edit, Refused, Reject},
};
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use super::told;
use crate::{
    bridge::Bridge,
    complete::{Completion, Completions},
    error::Result,
};

#[napi]
impl Bridge {
    /// Edits: `edits` is one or a list. Returns the operation's id, or why nothing was done as JSON.
    #[napi]
    pub fn edit(
        &self,
        number: u32,
        operation: u32,
        edits: String,
        parts: Option<Vec<Uint8Array>>,
    ) -> Result<String> {
        let document = self.document(number)?;
        let edited = self
            .value(&edits, parts)
            .and_then(edits_of)
            .and_then(|edits| start(&document, &self.shared.completions, operation, edits));
        Ok(edited.map_or_else(|it| told::refused(&it), |op_id| op_id.to_string()))
    }

    /// Several operations, numbered from `first` on. Returns their ids as a list in JSON, or why nothing was done.
    #[napi]
    pub fn edit_batch(
        &self,
        number: u32,
        first: u32,
        operations: String,
        parts: Option<Vec<Uint8Array>>,
    ) -> Result<String> {
        let document = self.document(number)?;
        let all = self.value(&operations, parts).and_then(|value| match value {
            Value::List(list) => list.into_iter().map(edits_of).collect(),
            _ => Err(Failure::new(ErrorKind::InvalidArgument, "a batch is a list").into()),
        });
        let edited = all.and_then(|all: Vec<Vec<Edit>>| {
            document.check_batch(&all)?;
            let numbered = (first..).zip(all);
            let edited = numbered.map(|(operation, edits)| {
                start(&document, &self.shared.completions, operation, edits)
            });
            edited.collect::<std::result::Result<Vec<Arc<str>>, Refused>>()
        });
        Ok(match edited {
            Ok(op_ids) => serde_json::json!(op_ids).to_string(),
            Err(it) => told::refused(&it),
        })
    }

    /// Takes one's own last operations back; call `token` ends with the operation that did.
    #[napi]
    pub fn undo(&self, number: u32, token: u32, count: u32) -> Result<()> {
        let document = self.document(number)?;
        self.later(token, async move { told::edited(document.undo(count).await) });
        Ok(())
    }

    /// Call `token` ends when the server has everything that was edited here, or refused it.
    #[napi]
    pub fn flush_document(&self, number: u32, token: u32) -> Result<()> {
        let document = self.live(number)?;
        self.later(
            token,
            async move { document.flush().await.map_or_else(told::failure, told::ok) },
        );
        Ok(())
    }

    /// What JavaScript wrote; nothing in it can be called.
    pub(super) fn value(
        &self,
        text: &str,
        parts: Option<Vec<Uint8Array>>,
    ) -> std::result::Result<Value, Refused> {
        let parts = parts.map(|parts| parts.iter().map(|it| Bytes::copy_from_slice(it)).collect());
        let read = crate::calls::read(text.as_bytes(), parts, &|_| Callback::new(drop));
        read.map_err(|failure| Refused::from(Reject::from(failure)))
    }
}

fn start(
    document: &Document,
    completions: &Arc<Completions>,
    operation: u32,
    edits: Vec<Edit>,
) -> std::result::Result<Arc<str>, Refused> {
    let completions = completions.clone();
    document.edit_with(edits, move |result| {
        completions.push(Completion::Edited { operation, json: told::edited(result) });
    })
}

pub(super) fn edits_of(value: Value) -> std::result::Result<Vec<Edit>, Refused> {
    let edits = match value {
        Value::List(list) => list.into_iter().map(Edit::from_value).collect(),
        one => Edit::from_value(one).map(|edit| vec![edit]),
    };
    edits.map_err(Refused::from)
}
