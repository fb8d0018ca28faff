//! Large values that come in parts: they become the value all at once, or never.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use kps_proto::ErrorKind;

use super::{
    chunks,
    engine::Engine,
    seal,
    types::{Done, Save, Stop, refused},
    write::New,
};

/// An upload that got nothing for so long is removed: an hour, in milliseconds.
pub(super) const PATIENCE: u64 = 3_600_000;

/// Uploads under way at once, of all namespaces.
const MAX_UPLOADS: usize = 1024;

/// Uploads by token; they end with the process.
#[derive(Default)]
pub(super) struct Uploads(HashMap<String, Upload>);

struct Upload {
    namespace: Arc<str>,
    save: Save,
    content: i64,
    hasher: blake3::Hasher,
    size: u64,
    /// The number of the next part.
    next: u64,
    /// The hash of the last part, by which one that is sent again is known.
    last: Option<blake3::Hash>,
    touched_ms: u64,
}

/// Uploads are binary.
const BYTES: u8 = 0;

impl Uploads {
    /// Forgets an upload; the content whose chunks are to be removed.
    pub(super) fn remove(&mut self, token: &str) -> Option<i64> {
        self.0.remove(token).map(|upload| upload.content)
    }

    /// Forgets those that got nothing for an hour.
    pub(super) fn remove_abandoned(&mut self, now: u64) -> Vec<i64> {
        let old = self.0.extract_if(|_, upload| upload.touched_ms.saturating_add(PATIENCE) <= now);
        old.map(|(_, upload)| upload.content).collect()
    }

    /// When the next one is to be forgotten.
    pub(super) fn next_abandoned(&self) -> Option<u64> {
        self.0.values().map(|upload| upload.touched_ms.saturating_add(PATIENCE)).min()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Engine {
    pub(super) fn begin_upload(&mut self, namespace: &Arc<str>, save: &Save) -> Result<Done, Stop> {
        if self.uploads.0.len() >= MAX_UPLOADS {
            let sentence = format!("{MAX_UPLOADS} uploads are under way; end one first");
            return Err(refused(ErrorKind::LimitExceeded, sentence));
        }
        // What cannot succeed fails before its first part.
        self.check_quota(namespace, &save.key, 0, None)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| refused(ErrorKind::Internal, format!("no random numbers: {error}")))?;
        let token = format!("{:032x}", u128::from_le_bytes(random));
        let content = self.next_content();
        chunks::begin(&self.connection, content, false)?;
        let upload = Upload {
            namespace: namespace.clone(),
            save: save.clone(),
            content,
            hasher: self.seal.hasher(BYTES),
            size: 0,
            next: 0,
            last: None,
            touched_ms: (self.now)(),
        };
        self.soonest = self.soonest.min(upload.touched_ms.saturating_add(PATIENCE));
        self.uploads.0.insert(token.clone(), upload);
        self.touch(&token);
        Ok(Done::Begun(token))
    }

    pub(super) fn add_part(
        &mut self,
        namespace: &Arc<str>,
        token: &str,
        number: u64,
        bytes: &Bytes,
    ) -> Result<Done, Stop> {
        let now = (self.now)();
        let upload = self.uploads.0.get_mut(token).filter(|upload| upload.namespace == *namespace);
        let upload = upload.ok_or_else(lost)?;
        upload.touched_ms = now;
        let hash = blake3::hash(bytes);
        // Sent again, because its answer was lost.
        if number + 1 == upload.next && upload.last == Some(hash) {
            return Ok(Done::Added(upload.size));
        }
        if number != upload.next {
            let sentence = format!("part {number} was sent, part {} is next", upload.next);
            return Err(refused(ErrorKind::Conflict, sentence));
        }
        if number >= chunks::MAX_CHUNKS {
            let sentence =
                format!("an upload has {} parts at most: send larger ones", chunks::MAX_CHUNKS);
            return Err(refused(ErrorKind::TooLarge, sentence));
        }
        let (content, start, key) = (upload.content, upload.size, upload.save.key.clone());
        let size = start + bytes.len() as u64;
        self.check_size(&key, size)?;
        self.check_quota(namespace, &key, size, None)?;
        if !bytes.is_empty() {
            chunks::write(&self.connection, &self.seal, content, start, bytes)?;
        }
        if let Some(upload) = self.uploads.0.get_mut(token) {
            upload.hasher.update(bytes);
            upload.size = size;
            upload.next += 1;
            upload.last = Some(hash);
        }
        self.touch(token);
        Ok(Done::Added(size))
    }

    pub(super) fn finish_upload(
        &mut self,
        namespace: &Arc<str>,
        token: &str,
    ) -> Result<Done, Stop> {
        let upload = self.uploads.0.get(token).filter(|upload| upload.namespace == *namespace);
        let upload = upload.ok_or_else(lost)?;
        let hash = seal::short(&upload.hasher.finalize());
        let new = New::Uploaded(BYTES, upload.content, hash, upload.size);
        let save = upload.save.clone();
        let done = self.put(namespace, &save, &new);
        match &done {
            Ok(_) => {
                self.uploads.remove(token);
            }
            // It stays refused: its room is better used.
            Err(Stop::Refused(_)) => {
                self.garbage.extend(self.uploads.remove(token));
            }
            Err(Stop::Trouble(_)) => self.touch(token),
        }
        done
    }

    pub(super) fn abandon_upload(
        &mut self,
        namespace: &Arc<str>,
        token: &str,
    ) -> Result<Done, Stop> {
        let own = self.uploads.0.get(token).is_some_and(|upload| upload.namespace == *namespace);
        if own {
            self.garbage.extend(self.uploads.remove(token));
        }
        Ok(Done::Abandoned(own))
    }

    fn touch(&mut self, token: &str) {
        self.effects.wrote = true;
        self.effects.uploads.push(token.to_owned());
    }
}

fn lost() -> Stop {
    refused(
        ErrorKind::NotFound,
        "there is no such upload: it was ended, got nothing for an hour, or the storage was opened \
         anew; begin again",
    )
}
