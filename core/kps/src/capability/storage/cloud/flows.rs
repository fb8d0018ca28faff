//! What each operation does on both sides.

use bytes::{Bytes, BytesMut};
use kps_proto::{Error, ErrorKind};

use super::{
    super::{
        super::{Failure, Map, Outcome, Value},
        answer, codec,
    },
    Held, Looked, Work, is_trouble, remote,
};
use crate::store::values::{self, Condition, Content, Done, Etag, Meta, Op, Remote, Save};

/// Bytes of a chunk in the cloud: short enough that live messages do not wait for it.
const CHUNK: usize = 256 << 10;

/// Where a value's bytes come from.
enum Source<'a> {
    Memory(&'a Bytes),
    /// The value here, with this ETag.
    Here(Etag),
}

impl Work {
    /// `save`: small values here, large ones in the cloud, and the other way round if that fails.
    pub(in super::super) async fn save_value(&self, mut save: Save, content: Content) -> Outcome {
        let key = save.key.clone();
        let _guard = self.lock(&key).await;
        self.check_condition(&mut save).await?;
        if content.bytes.len() as u64 > self.cloud.max_local_size {
            return match self.save_there(&save, &content).await {
                Ok(held) => Ok(held.described(&key).into()),
                Err(Refused::Condition(failure)) => Err(failure),
                Err(Refused::Cloud(error)) => {
                    let done = self.commit(Op::Save(save, content)).await;
                    let mut map = saved(done.map_err(answer::failure)?)?;
                    let warning = format!("it belongs into the cloud: {}", error.message());
                    map.push("warning", warning);
                    Ok(map.into())
                }
            };
        }
        match self.commit(Op::Save(save.clone(), content.clone())).await {
            Ok(done) => {
                self.clear_cloud(&key).await;
                Ok(saved(done)?.into())
            }
            Err(error) if is_trouble(&error) => match self.save_there(&save, &content).await {
                Ok(held) => {
                    let mut map = held.described(&key);
                    map.push("warning", format!("it belongs here: {}", error.message()));
                    Ok(map.into())
                }
                Err(_) => Err(error.into()),
            },
            Err(error) => Err(answer::failure(error)),
        }
    }

    /// A condition on a value that is not known here is for the cloud to answer.
    async fn check_condition(&self, save: &mut Save) -> Result<(), Failure> {
        if save.condition == Condition::default() {
            return Ok(());
        }
        let known = self.values.stat(&self.namespace, &save.key).ok().flatten().is_some()
            || self.values.remote(&self.namespace, &save.key).ok().flatten().is_some();
        if known {
            return Ok(());
        }
        let held = self.look(&save.key).await?;
        if let Some(error) = held.lost {
            return Err(answer::failure(error));
        }
        let etag = held.held.map(|held| held.etag);
        save.condition.conflict(&save.key, etag).map_err(answer::failure)?;
        save.condition = Condition::default();
        Ok(())
    }

    /// Into the cloud, from memory; what is here goes.
    async fn save_there(&self, save: &Save, content: &Content) -> Result<Held, Refused> {
        let key = &*save.key;
        let local = self.values.stat(&self.namespace, key).ok().flatten();
        let record = self.values.remote(&self.namespace, key).ok().flatten();
        let known = record.filter(|record| record.current).map(|record| record.etag);
        let etag = local.as_ref().map(|meta| meta.etag.to_string()).or(known);
        let conflict = save.condition.conflict(key, etag);
        conflict.map_err(|error| Refused::Condition(error.into()))?;
        let now = self.values.now();
        let hash = self.hash(content).await.map_err(Refused::Cloud)?;
        let meta = Meta {
            etag: Etag { version: now, hash },
            kind: content.kind,
            size: content.bytes.len() as u64,
            modified_ms: now,
            expires_ms: save.ttl_ms.map(|ttl| now.saturating_add(ttl)),
            content_type: save.content_type.clone(),
        };
        if local.is_some() {
            self.expect(key, &meta).await;
        }
        let held =
            self.put(key, &meta, Source::Memory(&content.bytes)).await.map_err(Refused::Cloud)?;
        // If the file fails, the next to look finds the newer value in the cloud.
        let _ = self.commit(Op::Adopt(key.to_owned(), held.remote(true), None)).await;
        Ok(held)
    }

    /// A value of which there may be a newer one in the cloud in a moment: whoever looks then asks there too.
    async fn expect(&self, key: &str, meta: &Meta) {
        let Meta { etag, size, modified_ms, .. } = meta;
        let (etag, size, modified_ms) = (etag.to_string(), *size, *modified_ms);
        // If this fails, so will all that follows.
        let _ = self.note(key, Some(Remote { current: false, etag, size, modified_ms })).await;
    }

    /// Moves a value from here into the cloud, where it belongs.
    pub(super) async fn move_there(&self, key: &str, mut map: Map, meta: &Meta) -> Map {
        let _guard = self.lock(key).await;
        self.expect(key, meta).await;
        match self.put(key, meta, Source::Here(meta.etag)).await {
            Ok(held) => {
                let adopted = self
                    .commit(Op::Adopt(key.to_owned(), held.remote(true), Some(meta.etag)))
                    .await;
                if adopted.is_ok() {
                    map.remove("location");
                    map.push("location", "cloud");
                }
            }
            Err(error) => {
                let warning = format!("it belongs into the cloud: {}", error.message());
                map.push("warning", warning);
            }
        }
        map
    }

    /// Writes a value into the cloud, chunk by chunk.
    async fn put(&self, key: &str, meta: &Meta, source: Source<'_>) -> Result<Held, Error> {
        let held = Held {
            id: remote::new_id(self.values.now())?,
            etag: meta.etag.to_string(),
            kind: meta.kind,
            size: meta.size,
            modified_ms: meta.modified_ms,
            expires_ms: meta.expires_ms,
            content_type: meta.content_type.clone(),
        };
        self.cloud.cache.lock().remove(&self.namespace, key);
        let put = async {
            for (number, start) in (0..meta.size).step_by(CHUNK).enumerate() {
                let number = number as u64;
                let bytes = match &source {
                    Source::Memory(bytes) => {
                        let start = start as usize;
                        bytes.slice(start..bytes.len().min(start + CHUNK))
                    }
                    Source::Here(etag) => {
                        let etag = etag.to_string();
                        let part =
                            self.values.get_part(&self.namespace, key, start, CHUNK, Some(&etag));
                        part?.bytes
                    }
                };
                let (form, kept) = self.values.seal_chunk(&held.id, number, &bytes)?;
                self.cloud.database.put_chunk(&held.id, number, form, kept).await?;
            }
            self.cloud.database.set(&self.namespace, key, &held).await
        };
        match put.await {
            Ok(()) => Ok(held),
            Err(error) => {
                // What stays is found when it is a day old.
                let _ = self.cloud.database.drop_chunks(&held.id).await;
                Err(error)
            }
        }
    }

    /// The key's value is here: what the cloud has of it goes.
    pub(super) async fn clear_cloud(&self, key: &str) {
        let Ok(Some(_)) = self.values.remote(&self.namespace, key) else { return };
        self.cloud.cache.lock().remove(&self.namespace, key);
        // What cannot be removed is older, and known to be there.
        if let Ok(held) = self.cloud.database.find(&self.namespace, key).await {
            let gone = match held {
                Some(held) => self.cloud.database.remove(&self.namespace, key, &held).await.is_ok(),
                None => true,
            };
            if gone {
                let _ = self.note(key, None).await;
            }
        }
    }

    /// `get`, for a key whose value may be in the cloud.
    pub(in super::super) async fn get_value(
        &self,
        key: &str,
        known: Option<&str>,
        room: u64,
    ) -> Outcome {
        let looked = self.look(key).await?;
        if let Some(held) = looked.held.as_ref().filter(|_| looked.is_in_cloud()) {
            let mut map = held.described(key);
            looked.mark(&mut map);
            if known.is_some_and(|known| known == "*" || known == held.etag) {
                map.push("not_modified", true);
                return Ok(map.into());
            }
            if held.size > room {
                let sentence = format!(
                    "the value of {key:?} has {} bytes, and at most {room} are returned at once: read \
                     it in parts with get_part, or as a stream",
                    held.size
                );
                return Err(Failure::new(ErrorKind::TooLarge, sentence));
            }
            let content = self.fetch(key, held).await.map_err(answer::failure)?;
            map.push("value", codec::decode(content)?);
            return Ok(map.into());
        }
        if let Some(meta) = &looked.local {
            let mut map = answer::described(key, meta);
            looked.mark(&mut map);
            if known.is_some_and(|known| known == "*" || known == meta.etag.to_string()) {
                map.push("not_modified", true);
                return Ok(map.into());
            }
            let (_, content) = self
                .values
                .get_version(&self.namespace, key, meta.etag, room)
                .map_err(answer::failure)?;
            map.push("value", codec::decode(content)?);
            return Ok(map.into());
        }
        let Some(lost) = looked.lost else { return Err(missing(key)) };
        let cached = self.cloud.cache.lock().get(&self.namespace, key, self.values.now());
        let Some((held, content)) = cached else { return Err(answer::failure(lost)) };
        let mut map = held.described(key);
        map.push("possibly_stale", true);
        map.push("warning", lost.message());
        map.push("value", codec::decode(content)?);
        Ok(map.into())
    }

    /// The bytes of a value in the cloud.
    async fn fetch(&self, key: &str, held: &Held) -> Result<Content, Error> {
        let cached = self.cloud.cache.lock().get(&self.namespace, key, self.values.now());
        if let Some((cached, content)) = cached
            && cached == *held
        {
            return Ok(content);
        }
        let mut bytes = BytesMut::with_capacity(held.size as usize);
        for number in 0..held.size.div_ceil(CHUNK as u64) {
            bytes.extend_from_slice(&self.chunk(held, number).await?);
        }
        let content = Content { kind: held.kind, bytes: bytes.freeze() };
        let hash = self.hash(&content).await?;
        if Etag::parse(&held.etag).is_none_or(|etag| etag.hash != hash) {
            let sentence =
                format!("the value of {key:?} in the cloud is not the one that was saved");
            return Err(Error::new(ErrorKind::StoreCorrupt, sentence));
        }
        let (key, now) = (key.to_owned(), self.values.now());
        let mut cache = self.cloud.cache.lock();
        cache.put(self.namespace.clone(), key, held.clone(), content.clone(), now);
        Ok(content)
    }

    /// What an ETag says of a content. Large ones take a while: not on the thread of live messages.
    async fn hash(&self, content: &Content) -> Result<u64, Error> {
        let (values, content) = (self.values.clone(), content.clone());
        let hashing = crate::runtime::handle().spawn_blocking(move || {
            values::short(&values.hasher(content.kind).update(&content.bytes).finalize())
        });
        hashing.await.map_err(|error| Error::new(ErrorKind::Internal, format!("hashing: {error}")))
    }

    async fn chunk(&self, held: &Held, number: u64) -> Result<Bytes, Error> {
        match self.cloud.database.chunk(&held.id, number).await? {
            Some((form, kept)) => self.values.open_chunk(&held.id, number, form, &kept),
            // It was replaced after it was looked up.
            None => {
                Err(Error::new(ErrorKind::Unavailable, "the value was replaced; read it again"))
            }
        }
    }

    /// `get_part`, for a key whose value may be in the cloud.
    pub(in super::super) async fn get_part(
        &self,
        key: &str,
        offset: u64,
        length: u64,
        etag: Option<&str>,
    ) -> Outcome {
        let looked = self.look(key).await?;
        let Some(held) = looked.held.as_ref().filter(|_| looked.is_in_cloud()) else {
            if looked.local.is_none() {
                return Err(looked.lost.map_or_else(|| missing(key), answer::failure));
            }
            let part = self.values.get_part(&self.namespace, key, offset, length as usize, etag)?;
            let mut map = answer::described(key, &part.meta);
            looked.mark(&mut map);
            return answer::part(key, map, &part.meta, offset, part.bytes);
        };
        if let Some(wanted) = etag.filter(|etag| *etag != held.etag) {
            let sentence = format!("{key:?} has changed: its ETag is {}, not {wanted}", held.etag);
            return Err(Failure::new(ErrorKind::Conflict, sentence));
        }
        let end = offset.saturating_add(length).min(held.size);
        let mut bytes = BytesMut::new();
        let mut at = offset;
        while at < end {
            let number = at / CHUNK as u64;
            let start = number * CHUNK as u64;
            let chunk = self.chunk(held, number).await.map_err(answer::failure)?;
            let from = (at - start) as usize;
            let to = ((end - start) as usize).min(chunk.len());
            if from >= to {
                let sentence = format!("a chunk of {key:?} in the cloud is too short");
                return Err(Failure::new(ErrorKind::StoreCorrupt, sentence));
            }
            bytes.extend_from_slice(&chunk[from..to]);
            at += (to - from) as u64;
        }
        let mut map = held.described(key);
        looked.mark(&mut map);
        answer::part(key, map, &held.meta(), offset, bytes.freeze())
    }

    /// `exists`, for a key whose value may be in the cloud.
    pub(in super::super) async fn exists(&self, key: &str) -> Outcome {
        let looked = self.look(key).await?;
        let mut map = Map::default();
        let cloud = looked.held.as_ref().filter(|_| looked.is_in_cloud()).map(Held::meta);
        match cloud.as_ref().or(looked.local.as_ref()) {
            Some(meta) => {
                map.push("exists", true);
                map.push("etag", meta.etag.to_string());
                map.push("size", meta.size);
            }
            None => match self.known(key, &looked)? {
                Some(remote) => {
                    map.push("exists", true);
                    map.push("etag", remote.etag);
                    map.push("size", remote.size);
                }
                None => map.push("exists", false),
            },
        }
        looked.mark(&mut map);
        Ok(map.into())
    }

    /// What was known of a value in a cloud that cannot be asked; without that nothing can be said.
    fn known(&self, key: &str, looked: &Looked) -> Result<Option<Remote>, Failure> {
        let Some(lost) = &looked.lost else { return Ok(None) };
        match self.values.remote(&self.namespace, key)? {
            Some(remote) if remote.current => Ok(Some(remote)),
            _ => Err(answer::failure(lost.clone())),
        }
    }

    /// `delete`, for a key whose value may be in the cloud.
    pub(in super::super) async fn delete_value(&self, key: &str, condition: Condition) -> Outcome {
        let _guard = self.lock(key).await;
        let looked = self.look(key).await?;
        if let Some(lost) = looked.lost {
            // It would come back.
            return Err(answer::failure(lost));
        }
        let etag = match &looked.held {
            Some(held) if looked.is_in_cloud() => Some(held.etag.clone()),
            _ => looked.local.as_ref().map(|meta| meta.etag.to_string()),
        };
        condition.conflict(key, etag.clone()).map_err(answer::failure)?;
        self.cloud.cache.lock().remove(&self.namespace, key);
        if let Some(held) = &looked.held {
            let removed = self.cloud.database.remove(&self.namespace, key, held).await;
            removed.map_err(answer::failure)?;
        }
        if looked.local.is_some() {
            let gone = self.commit(Op::Delete(key.to_owned(), Condition::default())).await;
            gone.map_err(answer::failure)?;
        }
        if self.values.remote(&self.namespace, key)?.is_some() {
            self.note(key, None).await.map_err(answer::failure)?;
        }
        Ok(Value::map([("deleted", etag.is_some().into())]))
    }
}

/// Why a value did not go into the cloud.
enum Refused {
    Condition(Failure),
    Cloud(Error),
}

fn saved(done: Done) -> Result<Map, Failure> {
    match answer::done(done, "")? {
        Value::Map(map) => Ok(map),
        _ => Ok(Map::default()),
    }
}

fn missing(key: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("there is no key {key:?}"))
}
