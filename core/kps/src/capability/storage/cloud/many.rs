//! Lists, batches and transactions, when there is a cloud.

use kps_proto::ErrorKind;

use super::{
    super::{
        super::{Failure, Outcome, Value},
        answer,
    },
    Held, Work,
};
use crate::store::values::{Condition, Job, Meta, Op, Submitted};

impl Work {
    /// `list`: the keys of both sides.
    pub(in super::super) async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Outcome {
        let local = self.values.list(&self.namespace, prefix, after, limit)?;
        let (start, behind) = match after {
            Some(after) if after >= prefix => (after, true),
            _ => (prefix, false),
        };
        let found = self.cloud.database.list(&self.namespace, start, behind, limit + 1).await;
        let (mut cloud, lost) = match found {
            Ok(found) => (found, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let full = cloud.len() > limit;
        cloud.truncate(limit);
        // Behind the last key of a side that has more, that side is not known.
        let ends = [
            local.items.last().filter(|_| local.more).map(|(key, _)| key.clone()),
            cloud.last().filter(|_| full).map(|(key, _)| key.clone()),
        ];
        let end = ends.into_iter().flatten().min();
        let now = self.values.now();
        let mut merged: std::collections::BTreeMap<String, (Meta, &str)> =
            local.items.into_iter().map(|(key, meta)| (key, (meta, "local"))).collect();
        for (key, held) in cloud {
            let expired = held.expires_ms.is_some_and(|expires| expires <= now);
            let older = |meta: &Meta| held.modified_ms <= meta.modified_ms;
            let known = merged.get(&key).is_some_and(|(meta, _)| older(meta));
            if key.starts_with(prefix) && !expired && !known {
                merged.insert(key, (Held::meta(&held), "cloud"));
            }
        }
        let mut more = end.is_some();
        let mut items = Vec::new();
        let mut last = None;
        for (key, (meta, location)) in merged {
            if items.len() == limit || end.as_ref().is_some_and(|end| key > *end) {
                more = true;
                break;
            }
            let mut map = answer::listed(&key, &meta);
            map.push("location", location);
            items.push(map.into());
            last = Some(key);
        }
        // A page may be empty because all of it expired: the next begins behind it.
        let cursor = if items.len() < limit { end.or(last) } else { last };
        let mut map = super::super::super::Map::default();
        map.push("items", Value::List(items));
        map.push("cursor", cursor.filter(|_| more));
        if let Some(error) = lost {
            map.push("possibly_stale", true);
            map.push("warning", error.message());
        }
        Ok(map.into())
    }

    /// A batch that writes: what stays here in one transaction, the rest one by one.
    pub(in super::super) async fn each(&self, ops: Vec<Result<Op, Failure>>) -> Outcome {
        let (mut here, mut outcomes) = (Vec::new(), Vec::with_capacity(ops.len()));
        for op in ops {
            match op {
                Err(failure) => outcomes.push(Some(Err(failure))),
                Ok(op) if self.stays_here(&op) => {
                    here.push(op);
                    outcomes.push(None);
                }
                Ok(op) => outcomes.push(Some(self.one(op).await)),
            }
        }
        let job = Job { namespace: self.namespace.clone(), ops: here, atomic: false };
        let answer = match self.values.submit(job) {
            Submitted::Ready(answer) => answer,
            Submitted::Later(answer) => answer.await.unwrap_or_else(|_| Err(super::closed())),
        };
        let mut done = answer.map_err(answer::failure)?.into_iter();
        let results = outcomes.into_iter().map(|outcome| {
            answer::envelope(outcome.unwrap_or_else(|| match done.next() {
                Some(one) => answer::done(one.map_err(answer::failure)?, ""),
                None => Ok(Value::Null),
            }))
        });
        Ok(Value::map([("results", Value::List(results.collect()))]))
    }

    fn stays_here(&self, op: &Op) -> bool {
        let is_here = |key: &str| !self.is_elsewhere(key);
        let unknown = |key: &str| matches!(self.values.remote(&self.namespace, key), Ok(None));
        match op {
            Op::Save(save, content) => {
                content.bytes.len() as u64 <= self.cloud.max_local_size
                    && unknown(&save.key)
                    && (save.condition == Condition::default() || is_here(&save.key))
            }
            Op::Delete(key, _) => is_here(key),
            _ => true,
        }
    }

    /// One operation that writes.
    pub(in super::super) async fn one(&self, op: Op) -> Outcome {
        match op {
            Op::Save(save, content) => self.save_value(save, content).await,
            Op::Delete(key, condition) if self.is_elsewhere(&key) => {
                self.delete_value(&key, condition).await
            }
            Op::Finish(upload) => {
                let done = self.commit(Op::Finish(upload)).await.map_err(answer::failure)?;
                let crate::store::values::Done::Saved(key, meta) = done else {
                    return answer::done(done, "");
                };
                let map = answer::described(&key, &meta);
                if meta.size > self.cloud.max_local_size {
                    return Ok(self.move_there(&key, map, &meta).await.into());
                }
                self.clear_cloud(&key).await;
                Ok(map.into())
            }
            op => {
                let done = self.commit(op).await.map_err(answer::failure)?;
                answer::done(done, "")
            }
        }
    }

    /// `get_many`.
    pub(in super::super) async fn get_many(&self, keys: Vec<Result<String, Failure>>) -> Outcome {
        let mut left = self.max_inline;
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            let outcome = match key {
                Ok(key) => self.get_value(&key, None, left).await,
                Err(failure) => Err(failure),
            };
            if let Ok(value) = &outcome
                && let Some(Value::Int(size)) = value.get("size")
            {
                left = left.saturating_sub(size.unsigned_abs());
            }
            results.push(answer::envelope(outcome));
        }
        Ok(Value::map([("results", Value::List(results))]))
    }

    /// A transaction stays on one side: here.
    pub(in super::super) fn check_transaction(&self, ops: &[Op]) -> Result<(), Failure> {
        for (place, op) in ops.iter().enumerate() {
            let (Op::Save(crate::store::values::Save { key, .. }, _)
            | Op::Delete(key, _)
            | Op::Check(key, _)
            | Op::Get(key)) = op
            else {
                continue;
            };
            if self.values.remote(&self.namespace, key)?.is_some_and(|remote| remote.current) {
                let sentence = format!(
                    "operation {place}: {key:?} is in the cloud, and a transaction stays on one side"
                );
                let field = Some(format!("operations[{place}].key"));
                return Err(Failure { field, ..Failure::new(ErrorKind::Unsupported, sentence) });
            }
        }
        Ok(())
    }
}
