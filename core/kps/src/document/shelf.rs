//! Where documents are stored.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use kps_proto::ErrorKind;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::engine::Version;
use crate::{capability::Failure, net::BoxFuture};

/// A document's name: its namespace and its id.
pub(super) type Name = (Arc<str>, Arc<str>);

/// What is stored of a document.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) base: Option<Bytes>,
    /// What the base is known by.
    pub(super) mark: Option<String>,
    /// By the version of the first operation.
    pub(super) segments: BTreeMap<Version, Bytes>,
    pub(super) run: Option<Run>,
}

/// The versions that were given since the document was opened last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// They are above this one.
    pub(super) start: Version,
    /// It was closed, and everything stored.
    pub(super) closed: bool,
}

/// One thing to store, wholly or not at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Writing {
    /// A new base; the one there is must be the one known by `mark`.
    pub(super) base: Option<Bytes>,
    /// The base that must be there; `None`: none may be.
    pub(super) mark: Option<String>,
    pub(super) segment: Option<(Version, Bytes)>,
    /// Segments that go.
    pub(super) gone: Vec<Version>,
    pub(super) run: Option<Run>,
}

/// Keeps documents.
pub(super) trait Shelf: Send + Sync {
    /// Whether it outlives the process.
    fn is_durable(&self) -> bool;

    /// What is stored; empty if there is nothing. It may block.
    ///
    /// Errors: what cannot be read is an error, never nothing.
    fn load(&self, name: &Name) -> Result<Stored, Failure>;

    /// Stores it; says what the base is known by now.
    fn write(
        &self,
        name: &Name,
        writing: Writing,
    ) -> BoxFuture<'static, Result<Option<String>, Failure>>;
}

/// Keeps them in memory.
#[derive(Debug)]
pub(super) struct Memory {
    all: Mutex<All>,
    /// Bytes of all of them, at most.
    most: usize,
}

#[derive(Debug, Default)]
struct All {
    stored: HashMap<Name, Stored>,
    bytes: usize,
    marks: u64,
}

impl Memory {
    pub(super) fn new(most: usize) -> Memory {
        Memory { all: Mutex::default(), most }
    }

    fn store(&self, name: &Name, writing: Writing) -> Result<Option<String>, Failure> {
        let mut all = self.all.lock();
        let all = &mut *all;
        let stored = all.stored.get(name).cloned().unwrap_or_default();
        let has_content = writing.base.is_some() || writing.segment.is_some();
        if has_content && stored.mark != writing.mark {
            return Err(Failure::new(ErrorKind::Conflict, "somebody else stored the document"));
        }
        let mut new = stored.clone();
        if let Some(base) = writing.base {
            all.marks += 1;
            (new.base, new.mark) = (Some(base), Some(all.marks.to_string()));
        }
        writing.gone.iter().for_each(|version| drop(new.segments.remove(version)));
        new.segments.extend(writing.segment);
        new.run = writing.run.or(new.run);
        let (before, after) = (stored.weight(), new.weight());
        let bytes = (all.bytes + after).saturating_sub(before);
        if bytes > self.most && after > before {
            let sentence = format!("documents have {} bytes; the limit is {}", bytes, self.most);
            return Err(Failure::new(ErrorKind::QuotaExceeded, sentence));
        }
        all.bytes = bytes;
        let mark = new.mark.clone();
        all.stored.insert(name.clone(), new);
        Ok(mark)
    }
}

impl Stored {
    /// Bytes it takes, about.
    fn weight(&self) -> usize {
        const EACH: usize = 512;
        let base = self.base.as_ref().map_or(0, Bytes::len);
        EACH + base + self.segments.values().map(|bytes| EACH + bytes.len()).sum::<usize>()
    }
}

impl Shelf for Memory {
    fn is_durable(&self) -> bool {
        false
    }

    fn load(&self, name: &Name) -> Result<Stored, Failure> {
        Ok(self.all.lock().stored.get(name).cloned().unwrap_or_default())
    }

    fn write(
        &self,
        name: &Name,
        writing: Writing,
    ) -> BoxFuture<'static, Result<Option<String>, Failure>> {
        Box::pin(std::future::ready(self.store(name, writing)))
    }
}

#[cfg(feature = "store")]
pub(super) use self::values::InValues;

/// Documents among a storage's values, in a namespace that programs do not reach.
#[cfg(feature = "store")]
mod values {
    use kps_proto::Error;

    use super::*;
    use crate::store::values::{Condition, Content, Done, Job, Op, Save, Submitted, Values};

    /// Keys of a page.
    const PAGE: usize = 500;
    /// Values are bytes.
    const BYTES: u8 = 0;

    pub(in super::super) struct InValues {
        pub(in super::super) values: Arc<Values>,
        pub(in super::super) durable: bool,
    }

    fn base_key(id: &str) -> String {
        format!("base\n{id}")
    }

    fn run_key(id: &str) -> String {
        format!("run\n{id}")
    }

    fn segment_key(id: &str, version: Version) -> String {
        format!("segment\n{id}\n{:016x}", version.0)
    }

    fn namespace((namespace, _): &Name) -> Arc<str> {
        format!("kps.documents/{namespace}").into()
    }

    fn save(key: String, bytes: Bytes, condition: Condition) -> Op {
        Op::Save(Save { key, condition, ..Save::default() }, Content { kind: BYTES, bytes })
    }

    impl InValues {
        fn get(&self, namespace: &str, key: &str) -> Result<Option<(String, Bytes)>, Failure> {
            match self.values.get(namespace, key, u64::MAX) {
                Ok((meta, content)) => Ok(Some((meta.etag.to_string(), content.bytes))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }

    impl Shelf for InValues {
        fn is_durable(&self) -> bool {
            self.durable
        }

        fn load(&self, name: &Name) -> Result<Stored, Failure> {
            let (namespace, id) = (namespace(name), &name.1);
            let mut stored = Stored::default();
            if let Some((mark, base)) = self.get(&namespace, &base_key(id))? {
                (stored.mark, stored.base) = (Some(mark), Some(base));
            }
            if let Some((_, run)) = self.get(&namespace, &run_key(id))? {
                stored.run = Some(serde_json::from_slice(&run).map_err(|error| {
                    let sentence = format!("what is stored of the document is damaged: {error}");
                    Failure::new(ErrorKind::StoreCorrupt, sentence)
                })?);
            }
            let prefix = format!("segment\n{id}\n");
            let mut after: Option<String> = None;
            loop {
                let page = self.values.list(&namespace, &prefix, after.as_deref(), PAGE)?;
                for (key, _) in &page.items {
                    let version = u64::from_str_radix(&key[prefix.len()..], 16);
                    let found = self.get(&namespace, key)?;
                    if let (Ok(version), Some((_, bytes))) = (version, found) {
                        stored.segments.insert(Version(version), bytes);
                    }
                }
                match page.items.last() {
                    Some((key, _)) if page.more => after = Some(key.clone()),
                    _ => return Ok(stored),
                }
            }
        }

        fn write(
            &self,
            name: &Name,
            writing: Writing,
        ) -> BoxFuture<'static, Result<Option<String>, Failure>> {
            let id = &name.1;
            let condition = Condition { absent: writing.mark.is_none(), if_match: writing.mark };
            let mark = condition.if_match.clone();
            let (has_base, has_segments) =
                (writing.base.is_some(), writing.segment.is_some() || !writing.gone.is_empty());
            let mut ops = Vec::new();
            match writing.base {
                Some(base) => ops.push(save(base_key(id), base, condition)),
                None if has_segments => ops.push(Op::Check(base_key(id), condition)),
                None => {}
            }
            let gone =
                |version: Version| Op::Delete(segment_key(id, version), Condition::default());
            ops.extend(writing.gone.into_iter().map(gone));
            if let Some((version, bytes)) = writing.segment {
                ops.push(save(segment_key(id, version), bytes, Condition::default()));
            }
            if let Some(run) = writing.run {
                let run = serde_json::to_vec(&run).unwrap_or_default();
                ops.push(save(run_key(id), run.into(), Condition::default()));
            }
            let job = Job { namespace: namespace(name), ops, atomic: true };
            let submitted = self.values.submit(job);
            Box::pin(async move {
                let lost = || Error::new(ErrorKind::Closed, "the storage was closed meanwhile");
                let answer = match submitted {
                    Submitted::Ready(answer) => answer,
                    Submitted::Later(answer) => answer.await.unwrap_or_else(|_| Err(lost())),
                };
                let done: Vec<Done> = answer?.into_iter().collect::<Result<_, _>>()?;
                match done.into_iter().next() {
                    Some(Done::Saved(_, meta)) if has_base => Ok(Some(meta.etag.to_string())),
                    _ => Ok(mark),
                }
            })
        }
    }
}
