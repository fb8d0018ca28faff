//! The store behind a bus with history: writes go in by batches, and what it has committed or read comes
//! back as turns of the bus.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use kps_proto::{
    Error, ErrorKind, Result,
    bus::{DEAD_LETTERS, HistoryConfig, Reader},
    history::{HistoryRule, Page, Query, Recovered, Write},
    topic::Pattern,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{hub::Hub, options::ServerOptions};
use crate::{
    events::ServerEvent,
    store::{AuditLimits, AuditRow, Store, StoreEvent, StoreOptions},
};

/// Bytes and messages that a rule holds in memory, unless it says less.
const MEMORY: u64 = 256 << 20;
const MEMORY_COUNT: u64 = 1 << 20;

pub(super) struct Keeper {
    store: Store,
    rules: Arc<[HistoryRule]>,
    news: Arc<News>,
    /// For whoever runs the keeper.
    pages: Mutex<Option<mpsc::UnboundedReceiver<Answer>>>,
    answers: mpsc::UnboundedSender<Answer>,
}

type Answer = (Reader, Result<Page>);

/// What the store's threads have said.
#[derive(Default)]
struct News {
    committed: AtomicU64,
    /// Changes of retained messages.
    retained: AtomicU64,
    failed: Mutex<Option<Error>>,
    changed: Notify,
    /// The bus knows it.
    told: Notify,
}

impl Keeper {
    /// Opens the store that `options` ask for, if they do; with what the bus is to know of it.
    pub(super) fn open(
        options: &ServerOptions,
        epoch: u64,
    ) -> Result<Option<(Keeper, HistoryConfig)>> {
        if options.audit.is_some() && options.data.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "an audit log is kept in a folder; say in which (--data DIR)",
            ));
        }
        if options.history.is_empty() && options.data.is_none() {
            return Ok(None);
        }
        let rules = rules(options)?;
        let news = Arc::new(News::default());
        let tell = news.clone();
        let (store, recovered) = Store::open(
            StoreOptions {
                rules: rules.to_vec(),
                duplicate_window: options.duplicate_window,
                // What a publisher sends again is known for as long as what has an id of its own.
                resume_window: options.timings.resume_window.max(options.duplicate_window),
                epoch,
                audit: options.audit.map_or_else(AuditLimits::default, |audit| AuditLimits {
                    max_count: audit.max_count,
                    max_age: audit.max_age,
                }),
                ..StoreOptions::new(options.data.clone())
            },
            move |event| tell.hear(event),
        )?;
        news.committed.store(recovered.position, Ordering::Relaxed);
        let (answers, pages) = mpsc::unbounded_channel();
        let pages = Mutex::new(Some(pages));
        let keeper = Keeper { store, rules: rules.clone(), news, pages, answers };
        if options.history.is_empty() {
            // Of a store that keeps no topic's history the bus is to know the retained messages alone.
            let Recovered { epoch, retained, .. } = recovered;
            let recovered = Recovered { epoch, retained, ..Recovered::default() };
            let history = HistoryConfig { on_disk: true, recovered, ..HistoryConfig::default() };
            return Ok(Some((keeper, history)));
        }
        let history = HistoryConfig {
            rules,
            on_disk: options.data.is_some(),
            duplicate_window: options.duplicate_window,
            recovered,
        };
        Ok(Some((keeper, history)))
    }

    pub(super) fn patterns(&self) -> Vec<&str> {
        self.rules.iter().map(|rule| rule.pattern.as_str()).collect()
    }

    pub(super) fn write(&self, writes: Vec<Write>) {
        self.store.write(writes);
    }

    /// Keeps an event in the audit log.
    pub(super) fn audit(&self, event: &ServerEvent) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.store.audit(AuditRow {
            time_ms: u64::try_from(now.as_millis()).unwrap_or(0),
            event: event.name().to_owned(),
            client_id: event.client_id().map(str::to_owned),
            detail: event.json().to_string(),
        });
    }

    pub(super) fn read(&self, reader: Reader, query: Query) {
        let answers = self.answers.clone();
        self.store.read(query, move |page| {
            // Nobody listens when the server is gone.
            let _ = answers.send((reader, page));
        });
    }

    /// Brings what the store says to the bus, until the server is gone.
    pub(super) async fn run(hub: &Arc<Hub>) {
        let Some(keeper) = hub.keeper() else { return };
        let Some(mut pages) = keeper.pages.lock().take() else { return };
        let (news, hub) = (keeper.news.clone(), Arc::downgrade(hub));
        loop {
            tokio::select! {
                () = news.changed.notified() => {
                    let Some(hub) = hub.upgrade() else { return };
                    let committed = news.committed.load(Ordering::Acquire);
                    let retained = news.retained.load(Ordering::Acquire);
                    let failed = news.failed.lock().take();
                    hub.turn(|bus, now| {
                        bus.stored(now, committed);
                        bus.retained_stored(now, retained);
                        if let Some(error) = &failed {
                            tracing::error!(%error, "the store failed");
                            bus.store_failed(now, error.clone());
                        }
                    });
                    if let Some(error) = failed {
                        hub.tell(ServerEvent::StoreFailed { error });
                    }
                    news.told.notify_waiters();
                }
                answer = pages.recv() => {
                    let (Some(hub), Some((reader, page))) = (hub.upgrade(), answer) else { return };
                    hub.turn(|bus, now| bus.take_page(now, reader, page));
                }
            }
        }
    }

    /// Waits until everything accepted is committed and its publishers were told so.
    pub(super) async fn flush(hub: &Hub) {
        let Some(keeper) = hub.keeper() else { return };
        loop {
            let told = keeper.news.told.notified();
            if hub.with_bus(|bus, _| bus.uncommitted()) == 0 {
                return;
            }
            told.await;
        }
    }

    /// Writes what is left and closes the file.
    pub(super) async fn close(hub: &Hub) {
        let Some(keeper) = hub.keeper() else { return };
        let store = keeper.store.clone();
        // It waits for the disk.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

impl News {
    fn hear(&self, event: StoreEvent) {
        match event {
            StoreEvent::Committed { position, retained } => {
                self.committed.fetch_max(position, Ordering::Release);
                self.retained.fetch_max(retained, Ordering::Release);
            }
            StoreEvent::Failed(error) => *self.failed.lock() = Some(error),
        }
        self.changed.notify_one();
    }
}

/// The rules of `options`, bounded if they are kept in memory, and one for dead letters; none where no
/// topic has history and a data folder keeps retained messages alone.
fn rules(options: &ServerOptions) -> Result<Arc<[HistoryRule]>> {
    let mut rules = options.history.clone();
    if rules.is_empty() {
        return Ok(rules.into());
    }
    rules.push(HistoryRule::new(Pattern::parse(&format!("{DEAD_LETTERS}>"))?));
    if options.data.is_none() {
        for rule in &mut rules {
            rule.max_bytes = Some(rule.max_bytes.map_or(MEMORY, |bytes| bytes.min(MEMORY)));
            rule.max_count =
                Some(rule.max_count.map_or(MEMORY_COUNT, |count| count.min(MEMORY_COUNT)));
        }
    }
    Ok(rules.into())
}
