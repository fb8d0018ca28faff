//! Who may read a document, and who may change it.

use std::sync::Arc;

use kps_proto::{ErrorKind, bus::Grants};

use super::{Inner, shelf::Name};
use crate::capability::Failure;

/// What one does who only reads. Everything else changes the document.
const READING: &[&str] = &["open", "read", "at", "versions", "close", "presence", "sync"];

impl Inner {
    /// Whether somebody with these grants may call the operation of this document. Opening it makes it where there is
    /// none, which is for those who may change it: others open what is there.
    pub(super) async fn check_may(
        self: &Arc<Self>,
        name: &Name,
        grants: &Grants,
        operation: &str,
    ) -> Result<(), Failure> {
        // An answer to who changes a document tells what happened to it.
        grants.check_read(&name.1)?;
        match grants.check_change(&name.1) {
            Ok(()) => Ok(()),
            Err(denied) if !READING.contains(&operation) => Err(denied.into()),
            Err(denied) if operation == "open" => match self.open(name, None).await {
                Err(failure) if failure.kind == ErrorKind::NotFound => {
                    let sentence =
                        format!("there is no document {:?}, and {}", name.1, denied.message());
                    // Not what others take for something that passes.
                    Err(Failure::new(ErrorKind::Unauthorized, sentence))
                }
                opened => opened.map(drop),
            },
            Err(_) => Ok(()),
        }
    }
}
