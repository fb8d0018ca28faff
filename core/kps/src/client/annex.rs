//! What a room above keeps with a client, for as long as the client lives in this process.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use crate::net::BoxFuture;

/// What may be kept with a client.
pub(crate) trait Kept: Any + Send + Sync {
    /// The client is about to close.
    fn close(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

#[derive(Default)]
pub(super) struct Annex(OnceLock<Pair>);

struct Pair {
    kept: Arc<dyn Any + Send + Sync>,
    closing: Arc<dyn Kept>,
}

impl Annex {
    /// What is kept, made at the first call. There is one kind of it.
    pub(super) fn get<T: Kept>(&self, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let pair = self.0.get_or_init(|| {
            let made = make();
            Pair { kept: made.clone(), closing: made }
        });
        pair.kept.clone().downcast().expect("one room alone keeps something")
    }

    pub(super) async fn close(&self) {
        if let Some(pair) = self.0.get() {
            pair.closing.clone().close().await;
        }
    }
}
