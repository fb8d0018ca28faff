//! What was edited is kept in the client's outbox on disk, if it has one, until the server has it for good:
//! another process, with the same client id or author, sends it when it opens the document.

use std::sync::Arc;

use super::{
    opening::Known,
    state::{Shared, State, Waiter},
};
use crate::{
    capability::{Failure, Unsent},
    client::{Client, WeakBridge},
    document::engine::{Draft, Edit, Manners, Version},
    net::BoxFuture,
};

/// What is kept of a document.
#[derive(Default)]
pub(super) struct Drafts {
    /// `None`: nothing is kept, now and later.
    pub(super) claim: Option<Claim>,
    pub(super) all: Vec<Draft>,
}

/// That what is kept of a document is one's own. Whoever opens it next has it when this is dropped.
pub(super) struct Claim {
    key: String,
    client: WeakBridge,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(client) = self.client.upgrade() {
            client.unclaim_drafts(&self.key);
        }
    }
}

impl Drafts {
    /// What is kept for this author, unless somebody else in this process has it.
    pub(super) fn claim(client: &Client, id: &str, author: &str) -> Drafts {
        let key = format!("{author}\n{id}");
        let Some(kept) = client.bridge().claim_drafts(&key) else { return Drafts::default() };
        // What cannot be read is not one of ours.
        let all = kept.iter().filter_map(|text| serde_json::from_slice(text).ok()).collect();
        Drafts { claim: Some(Claim { key, client: client.bridge().downgrade() }), all }
    }

    /// What the server is to begin with: what the first of them was made for.
    pub(super) fn known(&self) -> Option<Known> {
        let lineage = &self.all.last()?.lineage;
        let first = self.all.iter().find(|draft| draft.lineage == *lineage)?;
        // Whoever says it knows a version that no document has is told the content.
        let versions = vec![Version::NEVER, first.base];
        Some(Known { lineage: lineage.clone(), versions, has_own: true })
    }
}

impl Shared {
    /// Edits, and keeps the operation.
    pub(super) fn edit(
        &self,
        state: &mut State,
        op_id: Arc<str>,
        edits: Vec<Edit>,
        manners: Manners,
        waiter: Waiter,
    ) -> Result<(), super::Refused> {
        state.edit(op_id.clone(), edits, manners, waiter)?;
        if let Some(Claim { key, client }) = &*self.claim.lock()
            && let (Some(client), Some(draft)) = (client.upgrade(), state.replica.draft())
        {
            let text = serde_json::to_vec(&draft).unwrap_or_default();
            if let Err(error) = client.keep_draft(key, &op_id, text.into()) {
                state.take_back(&op_id);
                return Err(Failure::from(error).into());
            }
        }
        Ok(())
    }

    /// The server has them for good.
    pub(super) fn forget(&self, done: &[Arc<str>]) {
        if let Some(Claim { client, .. }) = &*self.claim.lock()
            && let Some(client) = client.upgrade()
        {
            done.iter().for_each(|op_id| client.forget_draft(op_id));
        }
    }
}

impl Unsent for Shared {
    fn sent(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Why it is over is told elsewhere.
            let _ = self.until(|state| state.replica.count_pending() == 0).await;
        })
    }
}
