//! Live documents.
