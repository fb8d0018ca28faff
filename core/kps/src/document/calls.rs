//! The operations of the capability `document`, as the server answers them.

use std::sync::{Arc, atomic::Ordering};

use kps_proto::{ErrorKind, bus::Grants};

use super::{
    Answering, Documents, Inner, Slot,
    answer::{self, Cut},
    desk::Desk,
    engine::{Code, DocumentEvent, Edit, Kind, Limits, Operation, Reject, Snapshot, Version},
    shelf::Name,
};
use crate::{
    capability::{self, Failure, Fields, Map, Outcome, Value, unknown_operation},
    runtime,
};

/// Longest id, in bytes.
const MAX_ID: usize = 256;
/// Operations that one undo takes back.
const MAX_UNDO: u64 = 100;
/// Versions in one answer.
const MAX_VERSIONS: u64 = 1000;
/// Versions that one who opens may say it knows.
const MAX_KNOWN: usize = 8;

#[rustfmt::skip]
const NAMES: &[&str] = &[
    "open", "edit", "edit_batch", "undo", "read", "at", "versions", "compact", "close", "presence",
    #[cfg(feature = "yjs")] "update",
    #[cfg(feature = "yjs")] "sync",
];
/// For callers in this process alone.
const OPERATIONS: &str = "operations";

/// An operation that was read, or why it is none.
pub(super) type Read = Result<Vec<Edit>, Reject>;

/// Who calls.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) id: Arc<str>,
    /// It is in this process, and has no session.
    pub(super) is_here: bool,
    pub(super) grants: Grants,
}

/// One of a batch.
pub(super) struct Asked {
    pub(super) op_id: Arc<str>,
    /// `None`: the version that the one before it made.
    pub(super) base: Option<Version>,
    pub(super) edits: Read,
}

impl Documents {
    /// Answers a client's call.
    pub(crate) fn call(
        &self,
        namespace: Arc<str>,
        client_id: &str,
        grants: Grants,
        operation: &str,
        payload: Value,
    ) -> Answering {
        self.answer(namespace, Caller::client(client_id, grants), operation, payload)
    }

    /// Answers a caller in this process that has no session, and to whom no message's size is a limit: it is
    /// told whole contents, is present for a while only, and may ask for `operations`.
    pub(crate) fn call_here(
        &self,
        namespace: Arc<str>,
        client_id: &str,
        grants: Grants,
        operation: &str,
        payload: Value,
    ) -> Answering {
        let caller = Caller { is_here: true, ..Caller::client(client_id, grants) };
        self.answer(namespace, caller, operation, payload)
    }

    fn answer(
        &self,
        namespace: Arc<str>,
        caller: Caller,
        operation: &str,
        payload: Value,
    ) -> Answering {
        let is_ours = |name: &str| NAMES.contains(&name) || (name == OPERATIONS && caller.is_here);
        if !is_ours(operation) {
            let failure = unknown_operation(operation, NAMES);
            return Box::pin(std::future::ready(Err(failure)));
        }
        let (inner, operation) = (self.0.clone(), operation.to_owned());
        Box::pin(async move {
            let mut fields = Fields::of(payload)?;
            let id = fields.text("id")?;
            check_id(&id)?;
            let name: Name = (namespace, id.into());
            inner.check_may(&name, &caller.grants, &operation).await?;
            match &*operation {
                "open" => inner.call_open(&name, fields, &caller).await,
                "edit" => inner.call_edit(&name, fields, &caller.id).await,
                "edit_batch" => inner.call_batch(&name, fields, &caller.id).await,
                OPERATIONS => inner.call_operations(&name, fields, &caller.id).await,
                "undo" => inner.call_undo(&name, fields, &caller.id).await,
                "read" => inner.call_read(&name, fields, false, &caller).await,
                "at" => inner.call_read(&name, fields, true, &caller).await,
                "versions" => inner.call_versions(&name, fields).await,
                "compact" => inner.call_compact(&name, fields).await,
                "presence" => inner.call_presence(&name, fields, &caller).await,
                #[cfg(feature = "yjs")]
                "update" => inner.call_update(&name, fields, &caller.id).await,
                #[cfg(feature = "yjs")]
                "sync" => inner.call_sync(&name, fields).await,
                _ => {
                    fields.done()?;
                    let slot = inner.open(&name, None).await?;
                    inner.leave(&name, &caller.id);
                    inner.store(&slot, true).await?;
                    slot.with(|desk| Ok(answer::described(desk).into()))
                }
            }
        })
    }
}

impl Caller {
    fn client(id: &str, grants: Grants) -> Caller {
        Caller { id: id.into(), is_here: false, grants }
    }

    /// How its answers are cut.
    fn cut(&self, most: usize, offset: Option<usize>) -> Cut {
        if self.is_here { Cut::Whole } else { Cut::Part(most, offset) }
    }
}

impl Slot {
    pub(super) fn with<T>(
        &self,
        look: impl FnOnce(&mut Desk) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut desk = self.desk.lock();
        let desk = desk.as_mut().ok_or_else(|| {
            Failure::new(ErrorKind::Unavailable, "the document was closed meanwhile").retryable()
        })?;
        look(desk)
    }
}

impl Inner {
    async fn call_open(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        caller: &Caller,
    ) -> Outcome {
        let kind = fields.text("kind")?;
        let kind = Kind::parse(&kind).ok_or_else(|| {
            Failure::field("kind", format!("kind is {kind:?}; there are text, json and yjs"))
        })?;
        let lineage = fields.optional_text("lineage")?;
        let known = match fields.given("known") {
            None => Vec::new(),
            Some(Value::List(list)) => list
                .into_iter()
                .take(MAX_KNOWN)
                .map(|it| version_of("known", it))
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(capability::wrong("known", &other, "a list of versions")),
        };
        let in_parts = fields.flag("in_parts")?;
        #[cfg(feature = "yjs")]
        let state_vector = super::merging::bytes(&mut fields, "state_vector")?;
        fields.done()?;
        let slot = self.open(name, Some(kind)).await?;
        slot.with(|desk| {
            // One in this process that has no session looks at it, and will not have to find its way back.
            let stored = (desk.is_durable() && !caller.is_here).then(|| desk.stored());
            let told = desk.document.introduce(lineage.as_deref(), &known, in_parts, stored);
            let mut map = answer::described_at(desk, told.version);
            if slot.is_new.swap(false, Ordering::Relaxed) {
                map.push("created", true);
            }
            #[cfg_attr(not(feature = "yjs"), allow(unused_mut))]
            let mut present = self.present(name);
            #[cfg(feature = "yjs")]
            present.extend(super::merging::editors(desk));
            map.push("presence", present);
            #[cfg(feature = "yjs")]
            if let super::held::Held::Yjs(document) = &mut desk.document {
                if caller.is_here {
                    let content = Snapshot::Value(document.value());
                    answer::push_content(&mut map, content, Cut::Whole);
                }
                let most = self.most_of_state();
                super::merging::push_missing(&mut map, document, state_vector.as_deref(), most)?;
                return Ok(map.into());
            }
            if let Some((from, missing)) = &told.since {
                map.push("since", from.to_string());
                map.push("missing_ops", answer::operations(missing));
            }
            if told.more {
                map.push("more", true);
            }
            if told.needs_content
                && let Some(content) = desk.document.at(told.version)
            {
                answer::push_content(&mut map, content, caller.cut(self.options.part, None));
            }
            Ok(map.into())
        })
    }

    async fn call_edit(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        client_id: &str,
    ) -> Outcome {
        let (author, lineage) = (author(&mut fields, client_id)?, lineage(&mut fields)?);
        let asked = asked(&mut fields, &self.options.limits)?;
        if asked.base.is_none() {
            return Err(capability::missing("base_version"));
        }
        fields.done()?;
        self.edit(name, author, lineage, vec![asked]).await
    }

    async fn call_batch(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        client_id: &str,
    ) -> Outcome {
        let (author, lineage) = (author(&mut fields, client_id)?, lineage(&mut fields)?);
        let list = fields.list("operations")?;
        fields.done()?;
        let most = self.options.limits.batch;
        if list.is_empty() || list.len() > most {
            let sentence = format!("operations are {}; they are 1 to {most}", list.len());
            return Err(Failure::field("operations", sentence));
        }
        let mut batch = Vec::with_capacity(list.len());
        for (place, operation) in list.into_iter().enumerate() {
            let asked = Fields::of(operation).and_then(|mut fields| {
                let asked = asked(&mut fields, &self.options.limits)?;
                fields.done()?;
                Ok(asked)
            });
            batch.push(asked.map_err(|failure| Failure {
                message: format!("operation {place}: {}", failure.message),
                field: failure.field.map(|field| format!("operations[{place}].{field}")),
                ..failure
            })?);
        }
        if batch[0].base.is_none() {
            return Err(capability::missing("operations[0].base_version"));
        }
        self.edit(name, author, lineage, batch).await
    }

    pub(super) async fn edit(
        self: &Arc<Self>,
        name: &Name,
        author: Arc<str>,
        lineage: Option<Arc<str>>,
        batch: Vec<Asked>,
    ) -> Outcome {
        let mut before = None;
        let mut results = Vec::with_capacity(batch.len());
        // No more at once than may be lost.
        for piece in batch.chunks(self.options.checkpoint_operations.max(1)) {
            let told = self.change(name, piece.len(), |desk| {
                let each = |asked: &Asked| {
                    let event = self.apply(desk, asked, (&author, &lineage), before);
                    before = match &event {
                        DocumentEvent::Ack { version, .. } => Some(*version),
                        _ => None,
                    };
                    event
                };
                piece.iter().map(each).collect()
            });
            results.extend(told.await?);
        }
        Ok(answered(&results))
    }

    /// Applies one of a batch; `before` is the version that the one before it made.
    fn apply(
        &self,
        desk: &mut Desk,
        asked: &Asked,
        (author, lineage): (&Arc<str>, &Option<Arc<str>>),
        before: Option<Version>,
    ) -> DocumentEvent {
        let Asked { op_id, base, edits } = asked;
        match (edits, base.or(before)) {
            (Err(reject), _) => desk.reject(op_id, author, reject.clone()),
            (Ok(_), None) => {
                let sentence = "the operation before it in its batch was not applied";
                desk.reject(op_id, author, Reject::new(Code::Skipped, sentence))
            }
            (Ok(edits), Some(base_version)) => {
                // One that was applied long ago is no base for what follows it in its batch.
                let operation = Operation {
                    op_id: op_id.clone(),
                    author: author.clone(),
                    base_version,
                    lineage: lineage.clone(),
                    edits: edits.clone(),
                };
                desk.apply(&operation, &self.options)
            }
        }
    }

    async fn call_undo(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        client_id: &str,
    ) -> Outcome {
        let author = author(&mut fields, client_id)?;
        let op_id: Arc<str> = fields.text("op_id")?.into();
        let count = fields.count("count")?.unwrap_or(1);
        fields.done()?;
        if !(1..=MAX_UNDO).contains(&count) {
            let sentence = format!("count is {count}; it is 1 to {MAX_UNDO}");
            return Err(Failure::field("count", sentence));
        }
        let undo =
            |desk: &mut Desk| vec![desk.undo(&op_id, &author, count as usize, &self.options)];
        Ok(answered(&self.change(name, 1, undo).await?))
    }

    /// Makes so many changes of a document, after it is stored that this begins.
    pub(super) async fn change(
        self: &Arc<Self>,
        name: &Name,
        count: usize,
        change: impl FnOnce(&mut Desk) -> Vec<DocumentEvent>,
    ) -> Result<Vec<DocumentEvent>, Failure> {
        let slot = self.open(name, None).await?;
        let mut change = Some(change);
        let results = loop {
            self.announce(&slot).await?;
            let (results, is_crowded) = slot.with(|desk| {
                // Under the lock: what is applied now is stored by whoever closes.
                self.check_open()?;
                let is_crowded = desk.is_crowded(count, &self.options);
                // It may have been closed between the two.
                let change = change.take_if(|_| desk.is_announced && !is_crowded);
                Ok((change.map(|change| change(desk)), is_crowded))
            })?;
            if let Some(results) = results {
                break results;
            }
            if is_crowded {
                // Why not is told, and then it goes on in memory.
                let _ = self.store(&slot, false).await;
            }
        };
        self.store_soon(&slot);
        Ok(results)
    }

    async fn call_read(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        at: bool,
        caller: &Caller,
    ) -> Outcome {
        let version = match fields.given("version") {
            None if at => return Err(capability::missing("version")),
            None => None,
            Some(value) => Some(version_of("version", value)?),
        };
        let offset = fields.count("offset")?;
        let offset = offset.map(|offset| usize::try_from(offset).unwrap_or(usize::MAX / 2));
        let root = if at { None } else { fields.optional_text("root")? };
        fields.done()?;
        if version.is_none() && offset.is_some_and(|offset| offset > 0) {
            let sentence =
                "offset goes with the version that the first part had: all are to be of one";
            return Err(Failure::field("version", sentence));
        }
        let slot = self.open(name, None).await?;
        let (id, cut) = (name.1.clone(), caller.cut(self.options.part, offset));
        // An old version is made again, a large one copied: not on the thread that serves everybody.
        let reading = runtime::handle().spawn_blocking(move || {
            slot.with(|desk| {
                #[cfg(feature = "yjs")]
                if let Some(root) = root {
                    return super::merging::read_root(desk, &root, cut);
                }
                #[cfg(not(feature = "yjs"))]
                drop(root);
                let document = &desk.document;
                let version = version.unwrap_or(document.version());
                let snapshot: Option<Snapshot> = document.at(version);
                let snapshot = snapshot.ok_or_else(|| {
                    let sentence = format!(
                        "version {version} is not known (any more); versions from {} on are",
                        document.oldest()
                    );
                    Failure::new(ErrorKind::NotFound, sentence)
                })?;
                Ok(answer::read(&id, document.kind(), version, snapshot, cut))
            })
        });
        reading.await.unwrap_or_else(|error| {
            Err(Failure::new(ErrorKind::Internal, format!("it was not read: {error}")))
        })
    }

    async fn call_versions(self: &Arc<Self>, name: &Name, mut fields: Fields) -> Outcome {
        let before = fields.given("before").map(|value| version_of("before", value)).transpose()?;
        let limit = fields.count("limit")?.unwrap_or(100);
        fields.done()?;
        if !(1..=MAX_VERSIONS).contains(&limit) {
            let sentence = format!("limit is {limit}; it is 1 to {MAX_VERSIONS}");
            return Err(Failure::field("limit", sentence));
        }
        let slot = self.open(name, None).await?;
        slot.with(|desk| {
            let document = &desk.document;
            let kept = document.operations();
            let kept = kept.filter(|it| before.is_none_or(|before| it.version < before));
            let versions: Vec<Value> = kept.take(limit as usize).map(answer::version).collect();
            let mut map = Map::default();
            map.push("id", &*name.1);
            map.push("version", document.version().to_string());
            map.push("oldest", document.oldest().to_string());
            map.push("versions", versions);
            Ok(map.into())
        })
    }

    async fn call_compact(self: &Arc<Self>, name: &Name, mut fields: Fields) -> Outcome {
        let keep = fields.count("keep")?.unwrap_or(0);
        fields.done()?;
        let slot = self.open(name, None).await?;
        self.store(&slot, false).await?;
        slot.with(|desk| {
            let keep = usize::try_from(keep).unwrap_or(usize::MAX);
            desk.compact(keep, &self.options);
            Ok(())
        })?;
        self.store(&slot, false).await?;
        slot.with(|desk| Ok(answer::described(desk).into()))
    }
}

fn asked(fields: &mut Fields, limits: &Limits) -> Result<Asked, Failure> {
    let op_id = fields.text("op_id")?.into();
    let base = fields.given("base_version");
    let base = base.map(|value| version_of("base_version", value)).transpose()?;
    let edits = edits(fields.value("edit")?, limits);
    Ok(Asked { op_id, base, edits })
}

/// What is answered who asked for changes.
pub(super) fn answered(results: &[DocumentEvent]) -> Value {
    let results: Vec<Value> = results.iter().map(answer::event).collect();
    Value::map([("accepted", results.len().into()), ("results", results.into())])
}

/// What is asked for as `edit`.
pub(super) fn edits(value: Value, limits: &Limits) -> Read {
    // Escaped it is longer still: nobody has to read all of it.
    let bytes = letters(&value);
    if bytes > limits.operation {
        let sentence = format!("an operation has {bytes} bytes; the limit is {}", limits.operation);
        return Err(Reject::new(Code::OperationTooLarge, sentence));
    }
    match value {
        Value::List(list) if list.len() > limits.edits => {
            let (count, most) = (list.len(), limits.edits);
            let sentence = format!("an operation has {count} edits; the limit is {most}");
            Err(Reject::new(Code::TooManyEdits, sentence))
        }
        Value::List(list) => list.into_iter().map(Edit::from_value).collect(),
        one => Edit::from_value(one).map(|edit| vec![edit]),
    }
}

/// Bytes of all texts in it.
fn letters(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.iter().map(letters).sum(),
        Value::Map(map) => map.iter().map(|(name, value)| name.len() + letters(value)).sum(),
        _ => 0,
    }
}

pub(super) fn author(fields: &mut Fields, client_id: &str) -> Result<Arc<str>, Failure> {
    Ok(fields.optional_text("author")?.map_or_else(|| client_id.into(), Into::into))
}

pub(super) fn lineage(fields: &mut Fields) -> Result<Option<Arc<str>>, Failure> {
    Ok(fields.optional_text("lineage")?.map(Into::into))
}

/// A version: its ETag, or its number.
pub(super) fn version_of(field: &str, value: Value) -> Result<Version, Failure> {
    let version = match &value {
        Value::Text(text) => text.parse().ok(),
        Value::Int(number) => u64::try_from(*number).ok().map(Version),
        _ => None,
    };
    version.ok_or_else(|| {
        Failure::field(field, format!("{field} is no version: they are written W/\"17\""))
    })
}

pub(crate) fn check_id(id: &str) -> Result<(), Failure> {
    if id.is_empty() || id.len() > MAX_ID {
        let sentence = format!("id has {} bytes; it has 1 to {MAX_ID}", id.len());
        return Err(Failure::field("id", sentence));
    }
    let is_wild = id.split('.').any(|level| level == "*" || level == ">");
    if is_wild || id.chars().any(char::is_control) {
        let sentence = "an id has no control characters, and no level that is * or >";
        return Err(Failure::field("id", sentence));
    }
    Ok(())
}
