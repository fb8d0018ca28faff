//! Random operations, against a map that does the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use super::{super::Durability, *};
use crate::store::tests::noise;

/// The value and when it expires.
type Model = BTreeMap<String, (Bytes, Option<u64>)>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 += 1;
        noise(self.0) % limit
    }

    fn key(&mut self) -> String {
        let number = self.below(12);
        "k".repeat(1 + number as usize / 4) + &number.to_string()
    }

    fn value(&mut self) -> Bytes {
        let length = match self.below(12) {
            0 => 262_144 + self.below(700_000),
            1 => 0,
            _ => self.below(2000),
        };
        Bytes::from(vec![self.below(256) as u8; length as usize])
    }
}

fn run(seed: u64, reopen: &dyn Fn() -> Open, on_disk: bool) {
    let mut random = Random(seed << 32);
    let mut open = reopen();
    let mut model = Model::new();
    let mut now = START;
    for _ in 0..120 {
        model.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now));
        match random.below(12) {
            0..=4 => {
                let (key, value) = (random.key(), random.value());
                let ttl = (random.below(3) == 0).then(|| 1 + random.below(20));
                let absent = random.below(4) == 0;
                let payload = Value::map([
                    ("key", (&*key).into()),
                    ("value", value.clone().into()),
                    ("ttl", ttl.map(|ttl| ttl as f64 / 1000.0).into()),
                    ("if_none_match", absent.then_some("*").into()),
                ]);
                let saved = open.call_as("", "save", payload);
                assert_eq!(saved.is_ok(), !absent || !model.contains_key(&key), "{key}: {saved:?}");
                if saved.is_ok() {
                    model.insert(key, (value, ttl.map(|ttl| now + ttl)));
                }
            }
            5 | 6 => {
                let key = random.key();
                let deleted = open.call("delete", json!({ "key": key }));
                assert_eq!(deleted.get("deleted"), Some(&model.remove(&key).is_some().into()));
            }
            7 => {
                let (one, two, three) = (random.key(), random.key(), random.key());
                let operations = json!({"operations": [
                    {"op": "save", "key": one, "value": "in a transaction"},
                    {"op": "delete", "key": two},
                    {"op": "check", "key": three, "if_match": "*"},
                ]});
                let mut after = model.clone();
                after.insert(one, (Bytes::from_static(b"in a transaction"), None));
                after.remove(&two);
                let fits = after.contains_key(&three);
                assert_eq!(open.try_call("transaction", operations).is_ok(), fits);
                if fits {
                    model = after;
                }
            }
            8 => {
                let upload = text(&open.call("upload", json!({"key": "kk5"})), "upload");
                let value = random.value();
                for (number, part) in value.chunks(300_000).enumerate() {
                    let payload = Value::map([
                        ("upload", (&*upload).into()),
                        ("number", number.into()),
                        ("bytes", Bytes::copy_from_slice(part).into()),
                    ]);
                    open.call_as("", "upload_part", payload).unwrap();
                }
                match random.below(3) {
                    0 => open.call("upload_cancel", json!({ "upload": upload })),
                    _ => {
                        model.insert("kk5".into(), (value, None));
                        open.call("upload_done", json!({ "upload": upload }))
                    }
                };
            }
            9 | 10 => {
                let passed = random.below(8);
                now += passed;
                open.pass(passed);
            }
            _ if on_disk && random.below(2) == 0 => {
                drop(open);
                open = reopen();
                open.pass(now - START);
            }
            _ => open.sweep(),
        }
    }
    model.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now));
    compare(&open, &model);
}

fn compare(open: &Open, model: &Model) {
    let listed: Vec<_> = list(&open.call("list", json!({})), "items")
        .iter()
        .map(|item| (text(item, "key"), int(item, "size")))
        .collect();
    let expected: Vec<_> =
        model.iter().map(|(key, (value, _))| (key.clone(), value.len() as i64)).collect();
    assert_eq!(listed, expected);
    for (key, (value, _)) in model {
        let found = match open.value(key).unwrap() {
            Value::Text(text) => Bytes::from(text),
            Value::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert!(found == *value, "{key}");
    }
    open.sweep();
    let stat = open.call("stat", json!({}));
    let bytes: usize = model.iter().map(|(key, (value, _))| key.len() + value.len()).sum();
    assert_eq!((int(&stat, "keys"), int(&stat, "bytes")), (model.len() as i64, bytes as i64));
    for key in model.keys() {
        open.call("delete", json!({ "key": key }));
    }
    open.sweep();
    assert_eq!(open.storage.0.values.count_chunks(), 0);
}

#[test]
fn a_storage_in_memory_does_what_a_map_does() {
    for seed in 0..12 {
        run(seed, &Open::memory, false);
    }
}

#[test]
fn a_storage_on_disk_does_what_a_map_does_also_when_it_is_opened_again() {
    for seed in 100..106 {
        let folder = Folder::new();
        let durability = if seed % 2 == 0 { Durability::Full } else { Durability::Normal };
        let options = || StorageOptions {
            durability,
            compress: seed % 3 == 0,
            key: (seed % 3 == 1).then_some(super::super::Key::Bytes([1; 32])),
            ..StorageOptions::at(folder.path())
        };
        run(seed, &|| Open::with(options()), true);
    }
}
