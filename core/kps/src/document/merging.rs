//! Operations of the capability `document` that only Yjs documents have, and what is answered about them.

use std::sync::Arc;

use bytes::Bytes;
use kps_proto::ErrorKind;

use super::{
    Inner,
    answer::{self, Cut},
    calls::{answered, author, lineage, version_of},
    desk::{self, Desk},
    engine::{Reject, Version},
    held::Held,
    shelf::Name,
    yjs::YjsDocument,
};
use crate::{
    capability::{self, Failure, Fields, Map, Outcome, Value},
    runtime,
};

/// An empty state vector: nothing is known.
const NOTHING: &[u8] = &[0];

impl Inner {
    pub(super) async fn call_update(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        client_id: &str,
    ) -> Outcome {
        // Whatever the document was before, updates merge.
        let (author, _) = (author(&mut fields, client_id)?, lineage(&mut fields)?);
        let op_id: Arc<str> = fields.text("op_id")?.into();
        let update = bytes(&mut fields, "update")?.ok_or_else(|| capability::missing("update"))?;
        fields.done()?;
        let merge = |desk: &mut Desk| vec![desk.update(&op_id, &author, &update, &self.options)];
        let told = self.change(name, 1, merge).await;
        let slot = self.open.lock().get(name).cloned();
        slot.iter().for_each(|slot| slot.tell_soon());
        Ok(answered(&told?))
    }

    pub(super) async fn call_sync(self: &Arc<Self>, name: &Name, mut fields: Fields) -> Outcome {
        let known = bytes(&mut fields, "state_vector")?;
        let of = fields.given("of").map(|value| version_of("of", value)).transpose()?;
        let offset = fields.count("offset")?.unwrap_or(0);
        fields.done()?;
        let slot = self.open(name, None).await?;
        let (id, most) = (name.1.clone(), self.most_of_state());
        // A large one takes a while to encode: not on the thread that serves everybody.
        let syncing = runtime::handle().spawn_blocking(move || {
            slot.with(|desk| {
                let mut map = Map::default();
                map.push("id", &*id);
                map.push("version", desk.document.version().to_string());
                match of {
                    Some(of) => push_part(&mut map, yjs(desk)?, of, offset, most)?,
                    None => push_missing(&mut map, yjs(desk)?, known.as_deref(), most)?,
                }
                Ok(map.into())
            })
        });
        syncing.await.unwrap_or_else(|error| {
            Err(Failure::new(ErrorKind::Internal, format!("it was not read: {error}")))
        })
    }
}

impl Inner {
    /// Bytes of state in one answer: as base64 they fit what a content may take.
    pub(super) fn most_of_state(&self) -> usize {
        self.options.part.saturating_mul(3)
    }
}

/// Adds what one with this state vector misses; or the first part of all of it, if it is much.
pub(super) fn push_missing(
    map: &mut Map,
    document: &mut YjsDocument,
    known: Option<&[u8]>,
    most: usize,
) -> Result<(), Failure> {
    let refused = |reject: Reject| Failure::field("state_vector", reject.message);
    let missing = document.missing(known.unwrap_or(NOTHING)).map_err(refused)?;
    if missing.len() <= most {
        map.push("update", missing);
        map.push("state_vector", Bytes::from(document.state_vector()));
        return Ok(());
    }
    // What is read in parts must not change meanwhile.
    if document.size() > 2 * document.base().len() {
        document.fold();
    }
    let of = document.oldest();
    push_part(map, document, of, 0, most)
}

fn push_part(
    map: &mut Map,
    document: &YjsDocument,
    of: Version,
    offset: u64,
    most: usize,
) -> Result<(), Failure> {
    if of != document.oldest() {
        let sentence = format!("the state of {of} is there no more; begin again");
        return Err(Failure::new(ErrorKind::NotFound, sentence).retryable());
    }
    let state = document.base();
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(state.len());
    let end = state.len().min(start + most);
    map.push("part", state.slice(start..end));
    map.push("of", of.to_string());
    map.push("offset", start);
    map.push("next", (end < state.len()).then_some(end));
    Ok(())
}

/// The answer of a read of one root.
pub(super) fn read_root(desk: &mut Desk, root: &str, cut: Cut) -> Outcome {
    let version = desk.document.version();
    let text = yjs(desk)?.text(root);
    let text = text.ok_or_else(|| {
        Failure::new(ErrorKind::NotFound, format!("the document has no root {root:?}"))
    })?;
    let snapshot = super::engine::Snapshot::Text(text);
    let document = &desk.document;
    Ok(answer::read(&desk.name().1, document.kind(), version, snapshot, cut))
}

/// The editors that are there, as presence.
pub(super) fn editors(desk: &Desk) -> Vec<Value> {
    let one = |(client, state): (u64, &Arc<str>)| {
        let state = Value::from_json(state.as_bytes()).unwrap_or_default();
        let client = desk::editor(client);
        Value::map([("client", client.clone().into()), ("author", client.into()), ("state", state)])
    };
    desk.peers.awareness.states().map(one).collect()
}

/// The Yjs document.
///
/// # Errors
/// It is another one.
pub(super) fn yjs(desk: &mut Desk) -> Result<&mut YjsDocument, Failure> {
    match &mut desk.document {
        Held::Yjs(document) => Ok(document),
        Held::Versioned(document) => {
            let kind = document.kind().as_str();
            let sentence = format!("the document is {kind}: only Yjs documents are synced");
            Err(Failure::new(ErrorKind::Conflict, sentence))
        }
    }
}

/// Bytes, or their base64.
pub(super) fn bytes(fields: &mut Fields, name: &str) -> Result<Option<Bytes>, Failure> {
    match fields.given(name) {
        None => Ok(None),
        Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
        Some(Value::Text(text)) => match super::yjs::from_base64(&text) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(Failure::field(name, format!("{name} is neither bytes nor base64"))),
        },
        Some(other) => Err(capability::wrong(name, &other, "bytes, or base64")),
    }
}
