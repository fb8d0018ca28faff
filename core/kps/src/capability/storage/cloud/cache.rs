//! Values of the cloud that were read not long ago.

use std::{collections::HashMap, sync::Arc};

use crate::store::values::Content;

use super::remote::Held;

/// Bounded by bytes and age; the oldest go first.
pub(super) struct Cache {
    max_bytes: u64,
    max_age_ms: u64,
    bytes: u64,
    entries: HashMap<(Arc<str>, String), Cached>,
}

struct Cached {
    held: Held,
    content: Content,
    used_ms: u64,
}

impl Cache {
    pub(super) fn new(max_bytes: u64, max_age_ms: u64) -> Cache {
        Cache { max_bytes, max_age_ms, bytes: 0, entries: HashMap::new() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is there of the key, if it is not too old.
    pub(super) fn get(
        &mut self,
        namespace: &Arc<str>,
        key: &str,
        now: u64,
    ) -> Option<(Held, Content)> {
        self.remove_old(now);
        let cached = self.entries.get(&(namespace.clone(), key.to_owned()))?;
        Some((cached.held.clone(), cached.content.clone()))
    }

    pub(super) fn put(
        &mut self,
        namespace: Arc<str>,
        key: String,
        held: Held,
        content: Content,
        now: u64,
    ) {
        self.remove(&namespace, &key);
        let size = content.bytes.len() as u64;
        if size > self.max_bytes {
            return;
        }
        self.remove_old(now);
        while self.bytes + size > self.max_bytes {
            let oldest = self.entries.iter().min_by_key(|(_, cached)| cached.used_ms);
            let Some((namespace, key)) = oldest.map(|(place, _)| place.clone()) else { break };
            self.remove(&namespace, &key);
        }
        self.bytes += size;
        self.entries.insert((namespace, key), Cached { held, content, used_ms: now });
    }

    pub(super) fn remove(&mut self, namespace: &Arc<str>, key: &str) {
        if let Some(cached) = self.entries.remove(&(namespace.clone(), key.to_owned())) {
            self.bytes -= cached.content.bytes.len() as u64;
        }
    }

    fn remove_old(&mut self, now: u64) {
        let max_age = self.max_age_ms;
        let bytes = &mut self.bytes;
        self.entries.retain(|_, cached| {
            let young = now.saturating_sub(cached.used_ms) < max_age;
            if !young {
                *bytes -= cached.content.bytes.len() as u64;
            }
            young
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn content(size: usize) -> Content {
        Content { kind: 0, bytes: Bytes::from(vec![0; size]) }
    }

    fn held() -> Held {
        Held {
            id: "id".into(),
            etag: "1-1".into(),
            kind: 0,
            size: 1,
            modified_ms: 1,
            expires_ms: None,
            content_type: None,
        }
    }

    #[test]
    fn the_oldest_make_room_and_the_old_go() {
        let mut cache = Cache::new(100, 1000);
        let namespace: Arc<str> = "n".into();
        let put = |cache: &mut Cache, key: &str, size, now| {
            cache.put(namespace.clone(), key.into(), held(), content(size), now);
        };
        put(&mut cache, "a", 40, 0);
        put(&mut cache, "b", 40, 1);
        put(&mut cache, "c", 40, 2);
        put(&mut cache, "large", 101, 3);
        let found = |cache: &mut Cache, key: &str, now| cache.get(&namespace, key, now).is_some();
        let there = ["a", "b", "c", "large"].map(|key| found(&mut cache, key, 900));
        assert_eq!(there, [false, true, true, false]);
        assert_eq!(cache.bytes(), 80);
        assert!(!found(&mut cache, "b", 1001) && found(&mut cache, "c", 1001));
        cache.remove(&namespace, "c");
        assert_eq!(cache.bytes(), 0);
    }
}
