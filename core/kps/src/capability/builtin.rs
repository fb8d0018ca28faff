//! kps' own capabilities, each made when it is first called.

use std::sync::Arc;

use super::{Capability, Failure, listing, router::Core};

/// The names that programs cannot take.
const NAMES: [&str; 4] = [listing::NAME, "storage", "compute", "sync"];

/// What a process' own capabilities keep.
#[derive(Default)]
pub(crate) struct Builtins {}

impl Builtins {
    /// Whether the name is one of kps' own.
    pub(crate) fn has(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// The capability of this name, or why it could not begin.
    pub(super) fn get(
        &self,
        _name: &str,
        _core: &Arc<Core>,
    ) -> Option<Result<Arc<dyn Capability>, Failure>> {
        None
    }

    /// All of them that can be listed.
    pub(super) fn all(&self, core: &Arc<Core>) -> Vec<(&'static str, Arc<dyn Capability>)> {
        NAMES.into_iter().filter_map(|name| Some((name, self.get(name, core)?.ok()?))).collect()
    }

    pub(super) async fn close(&self) {}
}
