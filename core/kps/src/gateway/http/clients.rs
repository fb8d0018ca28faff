//! The clients that requests act through: one for each principal, kept a while for its next request.

use std::{collections::HashMap, sync::Arc};

use kps_proto::{Result, bus::Principal, topic::Pattern};
use parking_lot::Mutex;
use tokio::{
    sync::OnceCell,
    time::{Duration, Instant},
};

use super::Host;
use crate::{client::Client, events::ClientState, runtime};

/// Clients that are kept; what was used longest ago goes first.
const MOST: usize = 1024;

/// A client that nobody used for so long goes.
const IDLE: Duration = Duration::from_secs(60);

/// Everything that makes principals different.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Who {
    name: Option<String>,
    namespace: String,
    publish: Option<Vec<Pattern>>,
    subscribe: Option<Vec<Pattern>>,
}

impl Who {
    pub(super) fn of(principal: &Principal) -> Who {
        let Principal { name, namespace, publish, subscribe, is_server: _ } = principal.clone();
        Who { name, namespace, publish, subscribe }
    }
}

/// The clients there are.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Mutex<HashMap<Who, Kept>>>);

struct Kept {
    /// Filled by whoever comes first.
    client: Arc<OnceCell<Client>>,
    used: Instant,
}

impl Clients {
    /// The client that acts for `principal`.
    pub(super) async fn of(&self, host: &dyn Host, principal: &Principal) -> Result<Client> {
        let who = Who::of(principal);
        let cell = self.cell(&who);
        let client = cell.get_or_try_init(|| connect(host, principal)).await?;
        if client.state() != ClientState::Closed {
            return Ok(client.clone());
        }
        // It lost its connection; the next one takes its place.
        self.forget(&who, &cell);
        let cell = self.cell(&who);
        cell.get_or_try_init(|| connect(host, principal)).await.cloned()
    }

    fn cell(&self, who: &Who) -> Arc<OnceCell<Client>> {
        let mut all = self.0.lock();
        if all.is_empty() {
            self.sweep_later();
        }
        if all.len() >= MOST && !all.contains_key(who) {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(oldest) = oldest.map(|(who, _)| who.clone()) {
                all.remove(&oldest);
            }
        }
        let new = || Kept { client: Arc::default(), used: Instant::now() };
        let kept = all.entry(who.clone()).or_insert_with(new);
        kept.used = Instant::now();
        kept.client.clone()
    }

    fn forget(&self, who: &Who, cell: &Arc<OnceCell<Client>>) {
        let mut all = self.0.lock();
        if all.get(who).is_some_and(|kept| Arc::ptr_eq(&kept.client, cell)) {
            all.remove(who);
        }
    }

    /// Lets go of those that are idle, until none is left.
    fn sweep_later(&self) {
        let all = Arc::downgrade(&self.0);
        runtime::spawn(async move {
            loop {
                tokio::time::sleep(IDLE / 4).await;
                let Some(all) = all.upgrade() else { return };
                let mut all = all.lock();
                // One that works on something is kept by whoever waits for it.
                all.retain(|_, kept| kept.used.elapsed() < IDLE);
                if all.is_empty() {
                    return;
                }
            }
        });
    }
}

/// A new client, with an id that says where it comes from and that nobody else has.
pub(super) async fn connect(host: &dyn Host, principal: &Principal) -> Result<Client> {
    let id = match &principal.name {
        Some(name) => format!("http-{name}-{}", unguessable()),
        None => format!("http-{}", unguessable()),
    };
    host.connect(principal.clone(), id).await
}

/// Hexadecimal digits that nobody can guess.
pub(super) fn unguessable() -> String {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
