//! The command line, as the package's `kps` and `kps-test` run it.

use std::ffi::OsString;

use napi_derive::napi;

/// Runs the command line with `args` (the program's name first) and returns its exit code.
#[napi]
pub(crate) fn cli_main(args: Vec<String>) -> i32 {
    kps::cli::run(args.into_iter().map(OsString::from))
}
