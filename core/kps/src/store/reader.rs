//! Reads beside the writer, on a connection of its own.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use kps_proto::{
    Result,
    history::{Page, Query},
};
use rusqlite::Connection;

use super::{
    catalogue::Catalogue,
    database_file,
    fault::{self, File, Trouble, corrupt},
    mark::Marked,
    queue::Queue,
    read::{Plan, SenderCache},
    schema::{STORE, State},
    writer::Done,
};

/// How long a read looks for a moment between two commits. It takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store's history, read beside the process that writes it (or without one).
#[derive(Debug)]
pub struct StoreReader {
    connection: Connection,
    path: PathBuf,
    catalogue: Catalogue,
    senders: SenderCache,
}

impl StoreReader {
    /// Opens the store in `dir`, which must exist.
    pub fn open(dir: &Path) -> Result<StoreReader> {
        let path = database_file(dir);
        let connection = STORE.open_reader(&path)?;
        Ok(StoreReader {
            connection,
            path,
            catalogue: Catalogue::default(),
            senders: SenderCache::default(),
        })
    }

    /// The next messages, as last committed.
    pub fn read(&mut self, query: &Query) -> Result<Page> {
        let page = self.page(query);
        page.map_err(|trouble| File::Path(self.path.clone()).tell(trouble))
    }

    fn page(&mut self, query: &Query) -> fault::Result<Page> {
        let marked = Marked::read(&self.path);
        // Ends with the page, and so does its view of the file.
        let transaction = self.connection.unchecked_transaction()?;
        let state = State::load(&transaction)?;
        marked.check(&transaction, state.map_or(0, |state| state.commits))?;
        let state = present(state)?;
        if state != self.catalogue.state {
            self.catalogue = Catalogue::load(&transaction, state)?;
        }
        Plan::new(&self.catalogue, query).run(&transaction, &mut self.senders)
    }
}

/// The connection on which this process reads beside its own writer.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
    file: File,
    catalogue: Arc<RwLock<Catalogue>>,
    senders: SenderCache,
}

impl Reader {
    pub(super) fn open(path: &Path, catalogue: Arc<RwLock<Catalogue>>) -> Result<Reader> {
        Ok(Reader {
            connection: STORE.open_reader(path)?,
            file: File::Path(path.into()),
            catalogue,
            senders: SenderCache::default(),
        })
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, queue: Arc<Queue<(Query, Done)>>) {
        loop {
            let taken = queue.take(None, |_| false);
            for (query, done) in taken.jobs {
                let page = self.page(&query);
                done(page.map_err(|trouble| self.file.tell(trouble)));
            }
            if taken.closed {
                return;
            }
        }
    }

    fn page(&mut self, query: &Query) -> fault::Result<Page> {
        let since = Instant::now();
        loop {
            let transaction = self.connection.unchecked_transaction()?;
            {
                // The lock is taken first: what is seen of the file then is at least as new.
                let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
                let state = present(State::load(&transaction)?)?;
                if state == catalogue.state {
                    let plan = Plan::new(&catalogue, query);
                    drop(catalogue);
                    return plan.run(&transaction, &mut self.senders);
                }
            }
            // The writer has committed and is about to say so.
            drop(transaction);
            if since.elapsed() > PATIENCE {
                return Err(Trouble::Failed(format!(
                    "{} was changed by another program; let only kps write it",
                    self.file
                )));
            }
            thread::yield_now();
        }
    }
}

fn present(state: Option<State>) -> fault::Result<State> {
    match state {
        Some(state) => Ok(state),
        None => corrupt("the row of `state` is missing"),
    }
}
