//! `kps verify` knows a storage's file.

use std::fs;

use serde_json::json;

use super::{
    super::{Key, StorageOptions},
    Folder, Open,
};
use crate::store::{values::values_file, verify_values};

/// A file with small, large, old and deleted values in two namespaces.
fn sample(key: Option<Key>) -> Folder {
    let folder = Folder::new();
    let open = Open::with(StorageOptions { versions: 2, key, ..StorageOptions::at(folder.path()) });
    for n in 0..50 {
        open.call(
            "save",
            json!({"key": format!("k{n}"), "value": {"n": n, "text": "x".repeat(n * 7)}}),
        );
    }
    for n in 0..3 {
        open.call("save", json!({"key": "large", "value": format!("{n}").repeat(700_000)}));
    }
    open.call("delete", json!({"key": "k7"}));
    let save = super::of(json!({"key": "k", "value": 1}));
    open.call_as("other", "save", save).unwrap();
    open.storage.close();
    folder
}

#[test]
fn a_sound_file_has_no_findings() {
    for key in [None, Some(Key::Bytes([7; 32]))] {
        let encrypted = key.is_some();
        let folder = sample(key);
        let verdict = verify_values(&values_file(folder.path())).unwrap();
        assert_eq!(verdict.findings, Vec::<String>::new());
        assert_eq!((verdict.namespaces, verdict.keys, verdict.encrypted), (2, 51, encrypted));
        assert!(verdict.versions >= 3 && verdict.bytes > 2_100_000, "{verdict:?}");
    }
}

#[test]
fn a_file_in_use_is_verified_too() {
    let folder = Folder::new();
    let open = Open::at(&folder);
    open.call("save", json!({"key": "k", "value": "x".repeat(600_000)}));
    let token = super::text(&open.call("upload", json!({"key": "k"})), "upload");
    open.call("upload_part", json!({"upload": token, "number": 0, "bytes": "half of it"}));
    let verdict = verify_values(&values_file(folder.path())).unwrap();
    assert_eq!((verdict.keys, verdict.findings), (1, Vec::new()));
}

#[test]
fn damage_anywhere_is_found() {
    let folder = sample(None);
    let file = values_file(folder.path());
    let whole = fs::read(&file).unwrap();
    let sound = verify_values(&file).unwrap();
    let (mut found, mut harmless) = (0, 0);
    // Every page, in several places.
    for place in (4096..whole.len()).step_by(9973) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(&file, &damaged).unwrap();
        match verify_values(&file) {
            Ok(verdict) if verdict.findings.is_empty() => {
                // A byte that nobody uses.
                assert_eq!(verdict, sound, "byte {place}");
                harmless += 1;
            }
            _ => found += 1,
        }
    }
    assert!(found > 10 * harmless, "{found} found, {harmless} harmless");
}

#[test]
fn what_was_changed_with_other_tools_is_found() {
    let cases = [
        ("DELETE FROM items WHERE key = 'k3'", "keys with"),
        ("UPDATE items SET size = size + 1 WHERE key = 'k3'", "\"k3\" does not have its checksum"),
        ("UPDATE items SET value = x'00' WHERE key = 'k3'", "\"k3\" does not have its checksum"),
        ("DELETE FROM chunks WHERE start = 0", "do not follow each other"),
        ("DELETE FROM chunks WHERE start > 0", "\"large\" does not have its 700000 bytes"),
        ("UPDATE chunks SET bytes = x'00' WHERE start = 0", "does not have its checksum"),
        ("DELETE FROM versions WHERE key = 'large'", "no value has the content"),
        ("DELETE FROM namespaces WHERE name = 'other'", "is missing"),
        ("UPDATE namespaces SET keys = 1", "does not have its checksum"),
        ("DELETE FROM namespaces", "commits from"),
    ];
    let folder = sample(None);
    let file = values_file(folder.path());
    let whole = fs::read(&file).unwrap();
    for (sql, finding) in cases {
        fs::write(&file, &whole).unwrap();
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute(sql, []).unwrap();
        connection.close().unwrap();
        let findings = verify_values(&file).unwrap().findings;
        assert!(findings.iter().any(|one| one.contains(finding)), "{sql}: {findings:?}");
    }
}
