//! A client's documents: what is edited here is in sight at once, goes to the server by itself, and is moved
//! over what others do meanwhile.

mod call;
pub(in crate::document) mod courtesy;
mod drafts;
mod driver;
mod edits;
mod opening;
mod presence;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod told;
#[cfg(feature = "yjs")]
mod yjs;
#[cfg(feature = "yjs")]
mod yjs_driver;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use kps_proto::{options::SubscribeOptions, topic::DOCUMENTS};

#[cfg(feature = "yjs")]
pub use self::yjs::YjsDocument;
use self::{
    drafts::Drafts,
    driver::Driver,
    opening::Opening,
    state::{Shared, State},
};
pub use self::{
    edits::{Edited, Editing, IntoEdits, Refused},
    presence::Present,
    stream::{DocumentStream, Start, StreamOptions},
    told::{DocumentEvents, Listening, Told},
};
use super::engine::{Kind, Snapshot, Version};
use crate::{capability::Failure, client::Client, events::ClientState, runtime};

/// How long a document that is dropped without `close` goes on sending in the background.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a document is opened.
#[derive(Clone, Debug)]
pub struct OpenDocument {
    /// What it is made of; one that there is already is of this kind. Text.
    pub kind: Kind,
    /// Who edits; `None`: the client's id.
    pub author: Option<String>,
    /// Whether an edit that others were faster than is moved over theirs and sent again. If not, it fails with
    /// `conflict`, and what it missed.
    pub rebase: bool,
    /// How often one edit is sent again at most. 100.
    pub rebases: u32,
    /// How long opening it may take, and each question to the server. 5 s.
    pub timeout: Duration,
}

impl Default for OpenDocument {
    fn default() -> Self {
        OpenDocument {
            kind: Kind::Text,
            author: None,
            rebase: true,
            rebases: 100,
            timeout: Duration::from_secs(5),
        }
    }
}

impl OpenDocument {
    /// The defaults, for this kind of document.
    pub fn new(kind: Kind) -> Self {
        OpenDocument { kind, ..OpenDocument::default() }
    }
}

impl Client {
    /// Opens a document, or makes it if there is none.
    ///
    /// ```
    /// use kps::document::{Edit, OpenDocument};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = kps::Server::start(kps::ServerOptions::listen("127.0.0.1:0"))?;
    /// let client = kps::Client::connect(kps::ConnectOptions::new(server.url())).await?;
    ///
    /// let notes = client.open_document("notes", OpenDocument::default()).await?;
    /// let edited = notes.edit(Edit::append("Hello"))?;
    /// assert_eq!(notes.text().as_deref(), Some("Hello"));
    /// // The server has it too.
    /// let edited = edited.await?;
    /// assert_eq!(edited.version, notes.version());
    /// notes.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// `timeout` and `unavailable` without a server; `conflict` if it is of another kind; `unauthorized`; what
    /// keeps the server from reading it, `store_failed`, `store_corrupt`: it is never empty then.
    pub async fn open_document(
        &self,
        id: &str,
        options: OpenDocument,
    ) -> Result<Document, Failure> {
        super::calls::check_id(id)?;
        let timeout = options.timeout;
        let opening = self.open_within(id, options);
        let late =
            || Failure::new(kps_proto::ErrorKind::Timeout, "the server did not answer in time");
        runtime::timeout(timeout, opening).await.unwrap_or_else(|| Err(late().retryable()))
    }

    async fn open_within(&self, id: &str, options: OpenDocument) -> Result<Document, Failure> {
        if options.kind == Kind::Yjs {
            return Err(Failure::field("kind", "a Yjs document is opened by open_yjs"));
        }
        // What happens from now on waits there: nothing is between it and what is opened.
        let topic = format!("{DOCUMENTS}{id}");
        let subscription = self.subscribe_with(&topic, SubscribeOptions::default()).await?;
        let opening = Opening::new(self, id, &options);
        let author = options.author.clone().or_else(|| self.id()).unwrap_or_default();
        let kept = Drafts::claim(self, id, &author);
        let way = opening.ask(kept.known()).await?;
        let shared = Arc::new(Shared::new(id, author, options, opening, way, kept));
        let unsent: Weak<Shared> = Arc::downgrade(&shared);
        shared.opening.router.wait_at_close(unsent);
        runtime::spawn(Driver::new(shared.clone(), subscription).run());
        Ok(Document(Arc::new(Handle { shared, client: self.clone() })))
    }
}

/// An open document. Clones are handles of the same one; it is left when the last is dropped.
///
/// What is edited is in [`text`](Self::text) or [`value`](Self::value) at once, also without a connection, and
/// goes to the server in this order. What others do comes in by itself, and every event of the document as
/// [`events`](Self::events).
#[derive(Clone)]
pub struct Document(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    client: Client,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.leave(FAREWELL);
    }
}

impl Document {
    /// Its name.
    pub fn id(&self) -> &Arc<str> {
        &self.shared().id
    }

    /// What it is made of.
    pub fn kind(&self) -> Kind {
        self.shared().options.kind
    }

    /// Who edits through this handle.
    pub fn author(&self) -> &Arc<str> {
        &self.shared().author
    }

    /// The text, with what was edited here; `None` if it is JSON.
    pub fn text(&self) -> Option<String> {
        match self.snapshot() {
            Snapshot::Text(text) => Some(text),
            Snapshot::Value(_) => None,
        }
    }

    /// The JSON, with what was edited here; `None` if it is text.
    pub fn value(&self) -> Option<serde_json::Value> {
        match self.snapshot() {
            Snapshot::Text(_) => None,
            Snapshot::Value(value) => Some(value),
        }
    }

    /// The content, with what was edited here.
    pub fn snapshot(&self) -> Snapshot {
        self.shared().state.lock().replica.snapshot()
    }

    /// The server's version, as far as it was heard of.
    pub fn version(&self) -> Version {
        self.shared().state.lock().replica.version()
    }

    /// Up to which version everything is in the server's store.
    pub fn checkpointed(&self) -> Version {
        self.shared().state.lock().replica.checkpointed()
    }

    /// Whether there is a connection, and everything that happened so far is here.
    pub fn is_connected(&self) -> bool {
        self.0.client.state() == ClientState::Connected && self.shared().state.lock().is_in_step()
    }

    /// Own operations that a crash of the server now would lose, oldest first: they are sent again then.
    pub fn unsynced(&self) -> Vec<Arc<str>> {
        self.shared().state.lock().replica.unsynced()
    }

    /// Waits until the server has everything that was edited here, or refused it.
    ///
    /// # Errors
    /// `closed`, or what else ended the document.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.shared().until(|state| state.replica.count_pending() == 0).await
    }

    /// Leaves it within 5 s; see [`close_within`](Self::close_within).
    pub async fn close(&self) -> Vec<Arc<str>> {
        self.close_within(FAREWELL).await
    }

    /// Sends what is not sent, waits for the acks, has the server store it, and leaves. Returns the operations
    /// that a crash of the server now would lose.
    pub async fn close_within(&self, timeout: Duration) -> Vec<Arc<str>> {
        let shared = self.shared();
        shared.set_presence(None);
        let closing = async {
            // Its last presence goes before.
            let is_sent = |it: &State| it.replica.count_pending() == 0 && !it.presence.is_due;
            shared.until(is_sent).await?;
            let stored = self.call("close", []).await?;
            let version = call::version(&stored, "checkpointed").unwrap_or_default();
            shared.stored(version);
            Ok::<_, Failure>(())
        };
        if let Some(Err(failure)) = runtime::timeout(timeout, closing).await {
            tracing::debug!(%failure, id = %shared.id, "closing a document");
        }
        let unsynced = self.unsynced();
        shared.end(state::closed());
        unsynced
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("id", self.id()).finish_non_exhaustive()
    }
}
