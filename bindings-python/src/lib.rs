//! The native half of the Python package `kps`: `kps._kps`.
//!
//! ```text
//! client  subscription  ack  receipt  message  server     what a program holds
//! handler  worker  dispatch                               from an event to a handler
//! calls                                                   of capabilities, and capabilities in Python
//! document                                                live documents
//! host  wake  wait  shared                                one event loop's end of the bridge
//! json  payload  values  arguments  errors                conversions
//! ```

mod ack;
mod arguments;
mod calls;
mod client;
mod context;
mod direct;
mod dispatch;
mod document;
mod errors;
mod exit;
mod handler;
mod host;
mod json;
mod ledger;
mod memory;
mod message;
mod payload;
mod receipt;
mod server;
mod shared;
mod subscription;
mod values;
mod wait;
mod wake;
mod worker;

use std::ffi::OsString;

use kps::ErrorKind;
use pyo3::prelude::*;

/// What `kps/_kps.pyi` describes.
#[pymodule]
#[pyo3(gil_used = true)]
mod _kps {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::{
        ack::Ack,
        calls::{CallContext, CallError, Response, StorageReader, StorageWriter},
        client::{Client, check_event},
        command_line,
        document::{EditReceipt, Live, LivePlain, LiveStream, LiveYjs},
        error_codes,
        exit::at_exit,
        json::{dumps, loads},
        message::Message,
        receipt::Receipt,
        server::{Broker, ConnectRequest},
        subscription::Subscription,
        values::{AckRow, CloseReport, Gap, Resumed, RowError},
    };

    /// The package's version.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::memory::give_back_when_quiet();
        Ok(())
    }
}

/// Runs the `kps` command; returns its exit code.
#[pyfunction]
fn command_line(py: Python<'_>, arguments: Vec<OsString>) -> i32 {
    py.detach(|| kps::cli::run(arguments.into_iter()))
}

/// Every code that an error can have.
#[pyfunction]
fn error_codes() -> Vec<&'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.code()).collect()
}
