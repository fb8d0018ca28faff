//! A client's Yjs documents: edits are in sight at once, also without a connection, and merge.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kps_proto::{ErrorKind, options::SubscribeOptions, topic::DOCUMENTS};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value as Plain};
use tokio::sync::{Notify, watch};

use super::{
    FAREWELL, Listening, OpenDocument, Present, Refused, Told, call,
    driver::is_passing,
    presence::Presence,
    state::{Phase, closed},
    told::{Listeners, Telling, telling},
    yjs_driver::Driver,
};
use crate::{
    capability::{Failure, Router, Value},
    client::Client,
    document::{
        engine::{Edit, Kind, Version},
        yjs::replica::Replica,
    },
    runtime,
};

/// Updates that wait for the server.
const MOST: usize = 100_000;

/// The root that is edited unless another one is named.
const ROOT: &str = "text";

pub(super) struct Shared {
    pub(super) id: Arc<str>,
    pub(super) author: Arc<str>,
    pub(super) router: Router,
    pub(super) timeout: Duration,
    pub(super) state: Mutex<State>,
    pub(super) listeners: Listeners,
    /// The driver is to look what there is to do.
    pub(super) wake: Notify,
    /// Counts what happened, for those who wait for something.
    progress: watch::Sender<u64>,
    op_ids: (String, AtomicU64),
}

pub(super) struct State {
    pub(super) replica: Replica,
    pub(super) presence: Presence,
    pub(super) phase: Phase,
    /// What the server has is not all here.
    pub(super) is_lost: bool,
}

impl Shared {
    pub(super) fn new_op_id(&self) -> Arc<str> {
        let (prefix, last) = &self.op_ids;
        format!("{prefix}-{}", last.fetch_add(1, Ordering::Relaxed) + 1).into()
    }

    /// Changes the state, and tells what came of it.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Telling>) -> T) -> T {
        let mut told = Vec::new();
        let result = change(&mut self.state.lock(), &mut told);
        self.listeners.tell(&self.id, &told);
        self.progress.send_modify(|count| *count += 1);
        result
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) -> Result<(), Failure> {
        let mut progress = self.progress.subscribe();
        loop {
            {
                let state = self.state.lock();
                if let Phase::Over(failure) = &state.phase {
                    return Err(failure.clone());
                }
                if is_so(&state) {
                    return Ok(());
                }
            }
            // Its sender is right here.
            let _ = progress.changed().await;
        }
    }

    pub(super) fn end(&self, why: Failure) {
        self.with(|state, told| {
            if matches!(state.phase, Phase::Over(_)) {
                return;
            }
            #[derive(Serialize)]
            struct Closed<'a> {
                code: &'a str,
                message: &'a str,
            }
            let closed = Closed { code: why.code(), message: &why.message };
            told.push(telling("closed", &self.id, closed));
            state.phase = Phase::Over(why);
        });
        self.wake.notify_one();
    }

    fn leave(&self, within: Duration) {
        let mut state = self.state.lock();
        state.presence.set_own(None);
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Leaving(runtime::instant(runtime::now() + within));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Asks the server for what is missing here, and keeps what is missing there.
    pub(super) async fn sync(&self) -> Result<(), Failure> {
        let known = Bytes::from(self.state.lock().replica.state_vector());
        let fields = [("kind", Value::from(Kind::Yjs.as_str())), ("state_vector", known.into())];
        let mut answer = self.call("open", fields).await?;
        let presence = answer.get("presence").and_then(call::plain).unwrap_or_default();
        let (version, checkpointed) =
            (version(&answer, "version")?, version(&answer, "checkpointed")?);
        if bytes(&answer, "part").is_some() {
            self.take_parts(&answer).await?;
            let known = Bytes::from(self.state.lock().replica.state_vector());
            answer = self.call("sync", [("state_vector", known.into())]).await?;
        }
        let (Some(update), Some(theirs)) =
            (bytes(&answer, "update"), bytes(&answer, "state_vector"))
        else {
            // It grew meanwhile.
            return Err(Failure::new(ErrorKind::Unavailable, "the document is large").retryable());
        };
        self.with(|state, told| {
            self.take(state, &update, told);
            let opened = state.replica.opened(version, checkpointed, &theirs);
            state.presence.opened(presence, version);
            state.is_lost = false;
            opened.map_err(|reject| Failure::new(ErrorKind::Internal, reject.message))
        })
    }

    async fn take_parts(&self, first: &Value) -> Result<(), Failure> {
        let of = first.get("of").cloned().ok_or_else(unreadable)?;
        let mut state = bytes(first, "part").ok_or_else(unreadable)?.to_vec();
        let mut next = first.get("next").cloned();
        while let Some(offset @ Value::Int(_)) = next {
            let answer = self.call("sync", [("of", of.clone()), ("offset", offset)]).await?;
            let part = bytes(&answer, "part").filter(|part| !part.is_empty());
            state.extend_from_slice(&part.ok_or_else(unreadable)?);
            next = answer.get("next").cloned();
        }
        self.with(|open, told| self.take(open, &state, told));
        Ok(())
    }

    /// Takes an update that the server told.
    pub(super) fn take(&self, state: &mut State, update: &[u8], told: &mut Vec<Telling>) {
        match state.replica.merge(update) {
            Ok(Some(effect)) => told.push(updated(&self.id, &effect, "server")),
            Ok(None) => {}
            Err(reject) => {
                tracing::warn!(id = %self.id, message = reject.message, "an update of the server");
                state.is_lost = true;
            }
        }
    }

    pub(super) async fn call(
        &self,
        operation: &str,
        fields: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Value, Failure> {
        call::call(&self.router, operation, &self.id, fields, self.timeout).await
    }
}

/// What is told of an update, whoever made it.
fn updated(id: &str, update: &[u8], origin: &'static str) -> Telling {
    #[derive(Serialize)]
    struct Updated {
        origin: &'static str,
        update: String,
    }
    telling("update", id, Updated { origin, update: crate::document::yjs::base64(update) })
}

fn unreadable() -> Failure {
    let sentence = "the server's answer is not known: it may be built without yjs";
    Failure::new(ErrorKind::Unsupported, sentence)
}

fn bytes(answer: &Value, name: &str) -> Option<Bytes> {
    match answer.get(name) {
        Some(Value::Bytes(bytes)) => Some(bytes.clone()),
        _ => None,
    }
}

fn version(answer: &Value, name: &str) -> Result<Version, Failure> {
    call::version(answer, name).ok_or_else(unreadable)
}

impl Client {
    /// Opens a Yjs document, or makes it if there is none: what is edited here, also without a connection,
    /// merges with what others do, in other clients of the bus and in Yjs editors at `/yjs/{id}`.
    ///
    /// ```
    /// use kps::document::{Edit, OpenDocument};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = kps::Server::start(kps::ServerOptions::listen("127.0.0.1:0"))?;
    /// let client = kps::Client::connect(kps::ConnectOptions::new(server.url())).await?;
    ///
    /// let page = client.open_yjs("page", OpenDocument::default()).await?;
    /// page.edit("text", Edit::append("Hello"))?;
    /// assert_eq!(page.text("text"), "Hello");
    /// // The server has it too.
    /// page.flush().await?;
    /// page.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`open_document`](Self::open_document); `unsupported` if the server has no Yjs documents.
    pub async fn open_yjs(&self, id: &str, options: OpenDocument) -> Result<YjsDocument, Failure> {
        crate::document::check_id(id)?;
        let timeout = options.timeout;
        let late = || Failure::new(ErrorKind::Timeout, "the server did not answer in time");
        let opening = self.open_yjs_within(id, options);
        runtime::timeout(timeout, opening).await.unwrap_or_else(|| Err(late().retryable()))
    }

    async fn open_yjs_within(
        &self,
        id: &str,
        options: OpenDocument,
    ) -> Result<YjsDocument, Failure> {
        // What happens from now on waits there: nothing is between it and what is opened.
        let topic = format!("{DOCUMENTS}{id}");
        let subscription = self.subscribe_with(&topic, SubscribeOptions::default()).await?;
        let author: Arc<str> = options.author.or_else(|| self.id()).unwrap_or_default().into();
        let state = State {
            replica: Replica::new(author.clone()),
            presence: Presence::default(),
            phase: Phase::Open,
            is_lost: true,
        };
        let prefix = format!("{:016x}", getrandom::u64().unwrap_or_default());
        let shared = Arc::new(Shared {
            id: id.into(),
            author,
            router: self.capabilities(),
            timeout: options.timeout,
            state: Mutex::new(state),
            listeners: Listeners::default(),
            wake: Notify::new(),
            progress: watch::Sender::new(0),
            op_ids: (prefix, AtomicU64::new(0)),
        });
        loop {
            match shared.sync().await {
                Ok(()) => break,
                // It was folded while it was read.
                Err(failure) if failure.kind == ErrorKind::NotFound || failure.retry => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(failure) => return Err(failure),
            }
        }
        runtime::spawn(Driver::new(shared.clone(), subscription).run());
        Ok(YjsDocument(Arc::new(Handle { shared, client: self.clone() })))
    }
}

/// An open Yjs document. Clones are handles of the same one; it is left when the last is dropped.
#[derive(Clone)]
pub struct YjsDocument(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    client: Client,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.leave(FAREWELL);
    }
}

impl YjsDocument {
    /// Its name.
    pub fn id(&self) -> &Arc<str> {
        &self.0.shared.id
    }

    /// Who edits through this handle.
    pub fn author(&self) -> &Arc<str> {
        &self.0.shared.author
    }

    /// The text of a root; empty if there is none.
    pub fn text(&self, root: &str) -> String {
        self.0.shared.state.lock().replica.text(root)
    }

    /// All roots as JSON.
    pub fn value(&self) -> Plain {
        self.0.shared.state.lock().replica.value()
    }

    /// All of it, or what one with this state vector misses, as an update in version 1 of Yjs' encoding.
    ///
    /// # Errors
    /// `invalid_argument`: it is no state vector.
    pub fn state(&self, state_vector: Option<&[u8]>) -> Result<Bytes, Failure> {
        let missing = self.0.shared.state.lock().replica.missing(state_vector);
        missing.map_err(|reject| Failure::new(ErrorKind::InvalidArgument, reject.message))
    }

    /// What it has of whom, as Yjs encodes it.
    pub fn state_vector(&self) -> Vec<u8> {
        self.0.shared.state.lock().replica.state_vector()
    }

    /// Takes an update that the program has from elsewhere, such as a Yjs document of its own: it goes to the
    /// server and to others.
    ///
    /// # Errors
    /// `invalid_operation` if it is none; `outbox_full`; `closed`.
    pub fn apply_update(&self, update: &[u8]) -> Result<(), Refused> {
        self.change(|shared, state, told| {
            if let Some(effect) = state.replica.apply(update)? {
                told.push(updated(&shared.id, &effect, "program"));
            }
            Ok(())
        })
    }

    /// Edits the text of a root, here at once; several edits are done together.
    ///
    /// # Errors
    /// As [`Document::edit`](super::Document::edit).
    pub fn edit(&self, root: &str, edits: impl super::IntoEdits) -> Result<(), Refused> {
        let edits: Vec<Edit> = edits.into_edits();
        self.change(|shared, state, told| {
            let update = state.replica.edit(root, &edits)?;
            told.push(updated(&shared.id, &update, "client"));
            Ok(())
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&Shared, &mut State, &mut Vec<Telling>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let shared = &self.0.shared;
        shared.with(|state, told| {
            if let Phase::Over(failure) = &state.phase {
                return Err(failure.clone().into());
            }
            if state.replica.count_pending() >= MOST {
                let sentence = format!("{MOST} updates wait for the server; wait for some of them");
                return Err(Failure::new(ErrorKind::OutboxFull, sentence).into());
            }
            change(shared, state, told)
        })?;
        shared.wake.notify_one();
        Ok(())
    }

    /// The server's version, as far as it was heard of.
    pub fn version(&self) -> Version {
        self.0.shared.state.lock().replica.version()
    }

    /// Up to which version everything is in the server's store.
    pub fn checkpointed(&self) -> Version {
        self.0.shared.state.lock().replica.checkpointed()
    }

    /// Whether there is a connection, and everything that happened so far is here.
    pub fn is_connected(&self) -> bool {
        let is_there = self.0.client.state() == crate::events::ClientState::Connected;
        let state = self.0.shared.state.lock();
        is_there && !state.is_lost && matches!(state.phase, Phase::Open)
    }

    /// Own operations that a crash of the server now would lose, oldest first: they are sent again then.
    pub fn unsynced(&self) -> Vec<Arc<str>> {
        self.0.shared.state.lock().replica.unsynced()
    }

    /// Calls `tell` with everything that happens from now on; see
    /// [`Document::listen`](super::Document::listen). `update` tells what changed, as `{origin, update}`:
    /// `server`, `client` (an edit of this handle) or `program`, and the update in base64.
    pub fn listen(&self, tell: impl Fn(Told) + Send + Sync + 'static) -> Listening {
        self.0.shared.listeners.add(tell)
    }

    /// Tells everybody at the document about this client; `None`: it is not there any more. Yjs editors see it
    /// in their awareness.
    pub fn set_presence(&self, state: Option<Map<String, Plain>>) {
        self.0.shared.state.lock().presence.set_own(state);
        self.0.shared.wake.notify_one();
    }

    /// As [`set_presence`](Self::set_presence), of the JSON of an object.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set_presence_json(&self, state: &[u8]) -> Result<(), String> {
        let state = serde_json::from_slice(state).map_err(|error| error.to_string())?;
        self.set_presence(Some(state));
        Ok(())
    }

    /// Everybody else who is at the document and told so; a Yjs editor is the client `yjs:` and its number.
    pub fn presence(&self) -> Vec<Present> {
        let own = self.0.client.id();
        self.0.shared.state.lock().presence.others(own.as_deref())
    }

    /// Waits until the server has everything that was done here, or refused it.
    ///
    /// # Errors
    /// `closed`, or what else ended the document.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.0.shared.until(|state| !state.is_lost && state.replica.count_pending() == 0).await
    }

    /// Leaves it within 5 s; see [`close_within`](Self::close_within).
    pub async fn close(&self) -> Vec<Arc<str>> {
        self.close_within(FAREWELL).await
    }

    /// Sends what is not sent, has the server store it, and leaves. Returns the operations that a crash of the
    /// server now would lose.
    pub async fn close_within(&self, timeout: Duration) -> Vec<Arc<str>> {
        let shared = &self.0.shared;
        self.set_presence(None);
        let closing = async {
            let is_sent =
                |it: &State| !it.is_lost && it.replica.count_pending() == 0 && !it.presence.is_due;
            shared.until(is_sent).await?;
            let stored = shared.call("close", []).await?;
            let stored = version(&stored, "checkpointed")?;
            shared.with(|state, _| state.replica.stored(stored));
            Ok::<_, Failure>(())
        };
        if let Some(Err(failure)) = runtime::timeout(timeout, closing).await {
            tracing::debug!(%failure, id = %shared.id, "closing a document");
        }
        let unsynced = self.unsynced();
        shared.end(closed());
        unsynced
    }

    /// The root that is edited unless another one is named: `text`.
    pub const ROOT: &'static str = ROOT;
}

impl fmt::Debug for YjsDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("YjsDocument").field("id", self.id()).finish_non_exhaustive()
    }
}

/// Whether it may be better the next time.
pub(super) fn is_worth_trying(failure: &Failure) -> bool {
    failure.kind == ErrorKind::NotFound || is_passing(failure)
}
