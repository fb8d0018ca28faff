//! Documents of every kind: what all of them can.

use std::{sync::Arc, time::Duration};

use kps::{
    Client,
    capability::Failure,
    document::{Document, Kind, Listening, OpenDocument, Present, Told, Version, YjsDocument},
};
use serde_json::{Map, Value, json};

/// An open document.
#[derive(Clone)]
pub(super) enum Live {
    Plain(Document),
    Yjs(YjsDocument),
}

macro_rules! either {
    ($live:expr, $document:ident => $what:expr) => {
        match $live {
            Live::Plain($document) => $what,
            Live::Yjs($document) => $what,
        }
    };
}

impl Live {
    pub(super) async fn open(
        client: &Client,
        id: &str,
        options: OpenDocument,
    ) -> Result<Live, Failure> {
        match options.kind {
            Kind::Yjs => client.open_yjs(id, options).await.map(Live::Yjs),
            Kind::Text | Kind::Json => client.open_document(id, options).await.map(Live::Plain),
        }
    }

    /// What never changes of it.
    pub(super) fn about(&self) -> Value {
        let kind = match self {
            Live::Plain(document) => document.kind(),
            Live::Yjs(_) => Kind::Yjs,
        };
        either!(self, it => json!({ "id": it.id(), "kind": kind.as_str(), "author": it.author() }))
    }

    pub(super) fn version(&self) -> Version {
        either!(self, document => document.version())
    }

    pub(super) fn checkpointed(&self) -> Version {
        either!(self, document => document.checkpointed())
    }

    pub(super) fn is_connected(&self) -> bool {
        either!(self, document => document.is_connected())
    }

    pub(super) fn unsynced(&self) -> Vec<Arc<str>> {
        either!(self, document => document.unsynced())
    }

    pub(super) fn presence(&self) -> Vec<Present> {
        either!(self, document => document.presence())
    }

    pub(super) fn set_presence(&self, state: Option<Map<String, Value>>) {
        either!(self, document => document.set_presence(state));
    }

    pub(super) fn listen(&self, tell: impl Fn(Told) + Send + Sync + 'static) -> Listening {
        either!(self, document => document.listen(tell))
    }

    pub(super) async fn flush(&self) -> Result<(), Failure> {
        either!(self, document => document.flush().await)
    }

    pub(super) async fn close_within(&self, timeout: Duration) -> Vec<Arc<str>> {
        either!(self, document => document.close_within(timeout).await)
    }
}
