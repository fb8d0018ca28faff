use serde_json::json;

use super::*;

fn versioned(versions: u32) -> Open {
    Open::with(StorageOptions { versions, ..StorageOptions::memory() })
}

#[test]
fn old_versions_are_kept_up_to_their_number_and_read_by_etag() {
    let open = versioned(2);
    let etags: Vec<_> = (0..5)
        .map(|value| text(&open.call("save", json!({"key": "k", "value": value})), "etag"))
        .collect();
    let answer = open.call("history", json!({"key": "k"}));
    let versions = list(&answer, "versions");
    let found: Vec<_> = versions.iter().map(|version| text(version, "etag")).collect();
    assert_eq!(found, [&*etags[4], &*etags[3], &*etags[2]]);
    assert_eq!(versions[0].get("current"), Some(&true.into()));
    for (value, code) in [(4, None), (3, None), (2, None), (1, Some("not_found"))] {
        let got = open.try_call("get", json!({"key": "k", "version": etags[value]}));
        match code {
            None => assert_eq!(got.unwrap().get("value"), Some(&(value as i64).into())),
            Some(code) => assert_eq!(got.unwrap_err().code(), code),
        }
    }
    assert_eq!(list(&open.call("history", json!({"key": "k", "limit": 2})), "versions").len(), 2);
    assert_eq!(int(&open.call("stat", json!({})), "bytes"), 3 * 3);
}

#[test]
fn a_deleted_key_keeps_its_versions_and_says_when_it_was_deleted() {
    let open = versioned(3);
    let etag = text(&open.call("save", json!({"key": "k", "value": "old"})), "etag");
    open.pass(1000);
    open.call("delete", json!({"key": "k"}));
    assert_eq!(open.value("k"), Err("not_found"));
    let answer = open.call("history", json!({"key": "k"}));
    let versions = list(&answer, "versions");
    assert_eq!(versions[0].get("deleted"), Some(&true.into()));
    assert_eq!(versions[0].get("modified"), Some(&Value::Float(1001.0)));
    assert_eq!(text(&versions[1], "etag"), etag);
    let got = open.call("get", json!({"key": "k", "version": etag}));
    assert_eq!(text(&got, "value"), "old");
    assert_eq!(open.refused("history", json!({"key": "never"})).0, "not_found");
}

#[test]
fn what_expires_takes_its_old_versions_with_it() {
    let open = versioned(3);
    let etag = text(&open.call("save", json!({"key": "k", "value": "old"})), "etag");
    open.call("save", json!({"key": "k", "value": "new", "ttl": 1}));
    open.pass(1000);
    open.sweep();
    assert_eq!(open.refused("history", json!({"key": "k"})).0, "not_found");
    assert_eq!(open.refused("get", json!({"key": "k", "version": etag})).0, "not_found");
    assert_eq!(int(&open.call("stat", json!({})), "bytes"), 0);
}

#[test]
fn old_versions_count_against_the_quota() {
    let options = StorageOptions { versions: 9, quota: Some(20), ..StorageOptions::memory() };
    let open = Open::with(options);
    open.call("save", json!({"key": "k", "value": "123456789"}));
    open.call("save", json!({"key": "k", "value": "123456789"}));
    let refused = open.refused("save", json!({"key": "k", "value": "1"}));
    assert_eq!(refused.0, "quota_exceeded");
}
