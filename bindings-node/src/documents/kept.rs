//! How a server keeps documents.

use std::sync::Arc;

use kps::document::DocumentOptions;
use serde::Deserialize;

use crate::options::{millis, set};

/// `Server.start`'s options for documents.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    document_checkpoint_every: Option<f64>,
    document_checkpoint_operations: Option<usize>,
    document_idle: Option<f64>,
    document_max_size: Option<usize>,
    document_max_operation: Option<usize>,
    document_history: Option<usize>,
    document_memory: Option<usize>,
}

impl Kept {
    pub(crate) fn apply(self, options: &mut DocumentOptions) {
        set(&mut options.checkpoint_every, self.document_checkpoint_every.map(millis));
        let operations = self.document_checkpoint_operations.map(|count| count.max(1));
        set(&mut options.checkpoint_operations, operations);
        set(&mut options.idle, self.document_idle.map(millis));
        set(&mut options.memory, self.document_memory);
        let limits = Arc::make_mut(&mut options.limits);
        set(&mut limits.document, self.document_max_size);
        set(&mut limits.operation, self.document_max_operation);
        set(&mut limits.history, self.document_history);
    }
}
