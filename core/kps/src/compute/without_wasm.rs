//! Builds without WebAssembly have no modules.

use kps_proto::ErrorKind;

use super::{Compute, capability::Begun};
use crate::capability::{Call, Failure};

impl Compute {
    pub(super) fn load(&self, _: Call) -> Begun {
        let sentence = "this build of kps runs no WebAssembly: its feature `wasm` is off";
        Err(Failure::new(ErrorKind::Unsupported, sentence))
    }
}
