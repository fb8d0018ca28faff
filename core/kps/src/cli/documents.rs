//! How `kps serve` keeps documents.

use std::{sync::Arc, time::Duration};

use clap::Args;

use super::{bytes, duration};
use crate::document::{DocumentOptions, Limits};

#[derive(Args)]
pub(super) struct Documents {
    /// A document that was changed is stored within this time
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME")]
    document_checkpoint_every: Duration,
    /// … or after so many operations
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    document_checkpoint_operations: usize,
    /// A document that nobody asks for so long leaves memory
    #[arg(long, value_parser = duration, default_value = "30m", value_name = "TIME")]
    document_idle: Duration,
    /// Largest document
    #[arg(long, value_parser = bytes, default_value = "4M", value_name = "BYTES")]
    document_max_size: usize,
    /// Largest operation on a document
    #[arg(long, value_parser = bytes, default_value = "256K", value_name = "BYTES")]
    document_max_operation: usize,
    /// Largest state of a Yjs document, what was deleted included, and largest update of one
    #[cfg(feature = "yjs")]
    #[arg(long, value_parser = bytes, default_value = "16M", value_name = "BYTES")]
    document_max_state: usize,
    /// Operations of each document that are kept, so that its versions can be read
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    document_history: usize,
    /// What all documents in memory take together
    #[arg(long, value_parser = bytes, default_value = "512M", value_name = "BYTES")]
    document_memory: usize,
}

impl Documents {
    pub(super) fn options(&self) -> DocumentOptions {
        let limits = Limits {
            document: self.document_max_size,
            operation: self.document_max_operation,
            history: self.document_history,
            #[cfg(feature = "yjs")]
            state: self.document_max_state,
            ..Limits::default()
        };
        DocumentOptions {
            limits: Arc::new(limits),
            checkpoint_every: self.document_checkpoint_every,
            checkpoint_operations: self.document_checkpoint_operations.max(1),
            idle: self.document_idle,
            memory: self.document_memory,
            ..DocumentOptions::default()
        }
    }
}
