//! Calls with an idempotency key are done once: who calls again gets the first call's answer.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use kps_proto::{ErrorKind, bus::Grants};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{Failure, Outcome, Value};

/// How long an answer is remembered.
const MEMORY: Duration = Duration::from_secs(600);
/// So many answers are remembered, and so many bytes of them.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;

/// Namespace, action, key, and what the caller may do.
type Key = (Arc<str>, String, String, Grants);

/// The answers remembered. Failures are not: the next call tries again.
#[derive(Default)]
pub(super) struct Repeats(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    calls: HashMap<Key, Arc<Slot>>,
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

struct Slot {
    payload: u64,
    weight: usize,
    answer: OnceCell<Value>,
}

impl Repeats {
    /// The answer of the first call with this key, which `run` makes if this is the first.
    pub(super) async fn once<F: Future<Output = Outcome>>(
        &self,
        key: Key,
        payload: &Value,
        run: impl FnOnce() -> F,
    ) -> Outcome {
        let slot = self.slot(key, payload)?;
        // Whoever waits goes on if the first one is dropped before its end.
        slot.answer.get_or_try_init(run).await.cloned()
    }

    fn slot(&self, key: Key, payload: &Value) -> Result<Arc<Slot>, Failure> {
        // One that cannot leave this process is not compared.
        let digest = payload.to_json().map_or(0, |text| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        });
        let mut remembered = self.0.lock();
        let now = Instant::now();
        remembered.forget(now);
        if let Some(slot) = remembered.calls.get(&key) {
            if slot.payload == digest {
                return Ok(slot.clone());
            }
            let sentence = format!(
                "the idempotency key {:?} was used for another payload of {}; use a new key",
                key.2, key.1
            );
            return Err(Failure::new(ErrorKind::Conflict, sentence));
        }
        let weight = payload.weight();
        let slot = Arc::new(Slot { payload: digest, weight, answer: OnceCell::new() });
        remembered.bytes += weight;
        remembered.order.push_back((now, key.clone()));
        remembered.calls.insert(key, slot.clone());
        Ok(slot)
    }
}

impl Remembered {
    /// Forgets what is too old or too much.
    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front()
            && (now.duration_since(*since) > MEMORY
                || self.order.len() >= MOST
                || self.bytes > MOST_BYTES)
        {
            let (_, key) = self.order.pop_front().expect("there is a first");
            if let Some(slot) = self.calls.remove(&key) {
                self.bytes -= slot.weight;
            }
        }
    }
}
