use serde_json::json;

use super::*;

#[test]
fn an_expired_value_is_never_seen_again() {
    for open in [Open::memory(), Open::on_disk()] {
        let saved = open.call("save", json!({"key": "k", "value": 1, "ttl": 1.5}));
        assert_eq!(saved.get("expires"), Some(&Value::Float(1001.5)));
        open.pass(1499);
        assert_eq!(open.value("k"), Ok(1.into()));
        open.pass(1);
        assert_eq!(open.value("k"), Err("not_found"));
        assert_eq!(open.call("exists", json!({"key": "k"})), of(json!({"exists": false})));
        assert_eq!(list(&open.call("list", json!({})), "items"), []);
        let rows = open.call("query", json!({"sql": "SELECT * FROM entries"}));
        assert_eq!(list(&rows, "rows"), []);
        assert_eq!(open.call("delete", json!({"key": "k"})), of(json!({"deleted": false})));
        open.call("save", json!({"key": "k", "value": 2, "if_none_match": "*"}));
        open.pass(1_000_000);
        assert_eq!(open.value("k"), Ok(2.into()));
    }
}

#[test]
fn expired_values_are_removed_and_counted() {
    let open = Open::memory();
    for number in 0..600 {
        open.call("save", json!({"key": number.to_string(), "value": 1, "ttl": 1 + number % 3}));
    }
    open.call("save", json!({"key": "stays", "value": 1}));
    open.pass(2000);
    open.sweep();
    let stat = open.call("stat", json!({}));
    assert_eq!((int(&stat, "keys"), int(&stat, "expired")), (201, 400));
    open.pass(1000);
    open.sweep();
    let stat = open.call("stat", json!({}));
    assert_eq!((int(&stat, "keys"), int(&stat, "expired"), int(&stat, "bytes")), (1, 600, 7));
}

#[test]
fn a_new_value_does_not_inherit_the_time_to_live() {
    let open = Open::memory();
    open.call("save", json!({"key": "k", "value": 1, "ttl": 1}));
    open.call("save", json!({"key": "k", "value": 2}));
    open.pass(5000);
    open.sweep();
    assert_eq!(open.value("k"), Ok(2.into()));
}
