//! Editing, and what becomes of it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use kps_proto::ErrorKind;
use tokio::sync::oneshot;

use super::{Document, call, state};
use crate::{
    capability::{Failure, Value},
    document::engine::{Code, DocumentEvent, Edit, Level, Manners, Reject, Snapshot, Version},
    runtime,
};

/// What an operation takes on the wire besides its edits.
const ENVELOPE: usize = 4 << 10;

/// An operation that is in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The operation.
    pub op_id: Arc<str>,
    /// The version it made.
    pub version: Version,
    /// How safe it was when that was told.
    pub level: Level,
}

/// Why an operation is not in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What programs match on: `conflict`, a [`Code`], or one of kps' own codes.
    pub code: String,
    /// What happened and what to do.
    pub message: String,
    /// The server's event: of a conflict it has what was missed, `missing_ops` or the content.
    pub event: Option<Bytes>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refused {}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Refused { code: failure.code().into(), message: failure.message, event: None }
    }
}

impl From<Reject> for Refused {
    fn from(reject: Reject) -> Self {
        Refused { code: reject.code.to_string(), message: reject.message, event: None }
    }
}

/// One edit, or several that are done together.
pub trait IntoEdits {
    /// The list.
    fn into_edits(self) -> Vec<Edit>;
}

impl IntoEdits for Edit {
    fn into_edits(self) -> Vec<Edit> {
        vec![self]
    }
}

impl IntoEdits for Vec<Edit> {
    fn into_edits(self) -> Vec<Edit> {
        self
    }
}

/// An operation on its way; awaiting it gives what became of it, and may be left out.
#[derive(Debug)]
pub struct Editing {
    op_id: Arc<str>,
    outcome: oneshot::Receiver<Result<Edited, Refused>>,
}

impl Editing {
    /// The operation's id.
    pub fn op_id(&self) -> &Arc<str> {
        &self.op_id
    }
}

impl Future for Editing {
    type Output = Result<Edited, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.outcome).poll(cx);
        outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(state::closed().into())))
    }
}

impl Document {
    /// Edits the document, here at once; several edits are done together. What is returned says, when awaited,
    /// what the server made of it.
    ///
    /// # Errors
    /// Nothing was done if it does not fit the content as it is here: a [`Code`], `outbox_full` if too much
    /// waits for the server, `closed`.
    pub fn edit(&self, edits: impl IntoEdits) -> Result<Editing, Refused> {
        let (done, outcome) = oneshot::channel();
        // Nobody may wait for it.
        let done = move |result| drop(done.send(result));
        let op_id = self.edit_then(edits.into_edits(), Manners::default(), Box::new(done))?;
        Ok(Editing { op_id, outcome })
    }

    /// As [`edit`](Self::edit); `done` is called with what became of it, on the runtime's thread, where it must
    /// not block.
    ///
    /// # Errors
    /// As [`edit`](Self::edit).
    pub fn edit_with(
        &self,
        edits: Vec<Edit>,
        done: impl FnOnce(Result<Edited, Refused>) + Send + 'static,
    ) -> Result<Arc<str>, Refused> {
        self.edit_then(edits, Manners::default(), Box::new(done))
    }

    /// Several operations, one after the other: all of them fit, or none is done here.
    ///
    /// # Errors
    /// As [`edit`](Self::edit).
    pub fn edit_batch(&self, operations: Vec<Vec<Edit>>) -> Result<Vec<Editing>, Refused> {
        self.check_batch(&operations)?;
        operations.into_iter().map(|edits| self.edit(edits)).collect()
    }

    /// Whether [`edit_batch`](Self::edit_batch) would do all of it here.
    ///
    /// # Errors
    /// Why not.
    pub fn check_batch(&self, operations: &[Vec<Edit>]) -> Result<(), Refused> {
        Ok(self.shared().state.lock().replica.check(operations)?)
    }

    pub(super) fn edit_then(
        &self,
        edits: Vec<Edit>,
        manners: Manners,
        done: state::Waiter,
    ) -> Result<Arc<str>, Refused> {
        let shared = self.shared();
        self.check(&edits)?;
        let mut state = shared.state.lock();
        state.check_room()?;
        let op_id = shared.new_op_id();
        shared.edit(&mut state, op_id.clone(), edits, manners, done)?;
        drop(state);
        shared.wake.notify_one();
        Ok(op_id)
    }

    /// What could not even travel is refused here.
    fn check(&self, edits: &[Edit]) -> Result<(), Reject> {
        if edits.is_empty() {
            return Err(Reject::new(Code::Invalid, "an operation has one edit at least"));
        }
        let most = self.0.client.bridge().max_payload().saturating_sub(ENVELOPE);
        let bytes = crate::document::engine::weigh_edits(edits);
        if bytes > most {
            let sentence = format!("the operation has {bytes} bytes; a message has {most} at most");
            return Err(Reject::new(Code::OperationTooLarge, sentence));
        }
        Ok(())
    }

    /// Takes back one's own last `count` operations, 1 to 100, after everything edited here is at the server.
    /// What others wrote stays.
    ///
    /// # Errors
    /// `nothing_to_undo`, `undo_conflict`, `timeout`, `unavailable`, `closed`.
    pub async fn undo(&self, count: u32) -> Result<Edited, Refused> {
        let late = || Failure::new(ErrorKind::Timeout, "what was edited before is not sent yet");
        let flushed = runtime::timeout(self.shared().options.timeout, self.flush()).await;
        flushed.ok_or_else(late)??;
        let op_id = self.shared().new_op_id();
        let fields = [
            ("op_id", Value::from(&*op_id)),
            ("author", Value::from(&**self.author())),
            ("count", Value::from(count)),
        ];
        let answer = self.call("undo", fields).await?;
        let event = match answer.get("results") {
            Some(Value::List(results)) => results.first().and_then(call::plain::<DocumentEvent>),
            _ => None,
        };
        match event {
            Some(DocumentEvent::Ack { op_id, version, level, .. }) => {
                self.shared().until(|state| state.replica.version() >= version).await?;
                Ok(Edited { op_id, version, level })
            }
            Some(event @ DocumentEvent::Rejected { .. }) => {
                let json = event.to_json();
                let DocumentEvent::Rejected { code, message, .. } = event else { unreachable!() };
                Err(Refused { code, message, event: Some(json.into()) })
            }
            _ => Err(Failure::new(ErrorKind::Internal, "the server's answer is not known").into()),
        }
    }

    /// The content that a version had.
    ///
    /// # Errors
    /// `not_found` if it is not kept any more; `timeout`, `unavailable`.
    pub async fn at(&self, version: Version) -> Result<Snapshot, Failure> {
        self.shared().opening.read(version).await
    }

    /// The operations that are kept, the newest first: `{id, version, oldest, versions: [{version, op_id,
    /// author, time, undoes?}]}`. At most `limit`, 1 to 1,000, and only those before a version if one is given.
    ///
    /// # Errors
    /// `invalid_payload`, `timeout`, `unavailable`.
    pub async fn versions(&self, before: Option<Version>, limit: u32) -> Result<Value, Failure> {
        let before = before.map(|version| version.to_string());
        self.call("versions", [("before", before.into()), ("limit", limit.into())]).await
    }

    /// Has the server forget all operations but the last `keep`, not what they did. Their versions cannot be
    /// read any more.
    ///
    /// # Errors
    /// `store_failed`, `timeout`, `unavailable`.
    pub async fn compact(&self, keep: u32) -> Result<(), Failure> {
        self.call("compact", [("keep", keep.into())]).await.map(drop)
    }
}
