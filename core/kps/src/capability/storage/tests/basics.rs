use num_bigint::BigInt;
use serde_json::json;

use super::{super::super::Callback, *};

#[test]
fn what_is_saved_is_got_with_what_is_known_of_it() {
    let open = Open::memory();
    let saved = open.call("save", json!({"key": "a", "value": {"n": 1, "f": 1.0}}));
    assert_eq!(text(&saved, "location"), "local");
    assert_eq!(saved.get("modified"), Some(&Value::Float(1000.0)));
    let got = open.call("get", json!({"key": "a"}));
    assert_eq!(got.get("value"), Some(&of(json!({"n": 1, "f": 1.0}))));
    for field in ["key", "etag", "size", "modified", "location"] {
        assert_eq!(got.get(field), saved.get(field), "{field}");
    }
    assert_eq!(got.get("expires"), None);
}

#[test]
fn values_of_every_kind_come_back_exactly() {
    let open = Open::memory();
    let values = [
        Value::Null,
        true.into(),
        i64::MIN.into(),
        Value::big(BigInt::from(u64::MAX) * 7),
        1.0.into(),
        "".into(),
        "text \0 and more".into(),
        bytes::Bytes::from_static(b"\0\xff").into(),
        Value::List(vec![bytes::Bytes::from_static(b"x").into(), 2.into()]),
    ];
    for value in values {
        let payload = Value::map([("key", "k".into()), ("value", value.clone())]);
        open.call_as("", "save", payload).unwrap();
        assert_eq!(open.value("k"), Ok(value));
    }
}

#[test]
fn a_function_cannot_be_saved() {
    let open = Open::memory();
    let function = Value::Callback(Callback::new(|_| {}));
    let payload = Value::map([("key", "k".into()), ("value", Value::List(vec![function]))]);
    let failure = open.call_as("", "save", payload).unwrap_err();
    assert_eq!((failure.code(), failure.field.as_deref()), ("invalid_payload", Some("value")));
    assert_eq!(open.value("k"), Err("not_found"));
}

#[test]
fn what_is_wrong_is_refused_by_the_name_of_its_field() {
    let open = Open::memory();
    let long = "k".repeat(1025);
    for (operation, payload, code, field) in [
        ("save", json!({"value": 1}), "invalid_payload", "key"),
        ("save", json!({"key": "k"}), "invalid_payload", "value"),
        ("save", json!({"key": 1, "value": 1}), "invalid_payload", "key"),
        ("save", json!({"key": "", "value": 1}), "invalid_payload", "key"),
        ("save", json!({"key": long, "value": 1}), "too_large", "key"),
        ("save", json!({"key": "k", "value": 1, "ttl": -1}), "invalid_payload", "ttl"),
        ("save", json!({"key": "k", "value": 1, "TTL": 1}), "invalid_payload", "TTL"),
        (
            "save",
            json!({"key": "k", "value": 1, "if_none_match": "x"}),
            "invalid_payload",
            "if_none_match",
        ),
        ("get", json!({"key": long}), "too_large", "key"),
        ("get", json!({"key": "k", "version": "x"}), "invalid_payload", "version"),
        ("list", json!({"limit": 0}), "invalid_payload", "limit"),
        ("list", json!({"limit": 1001}), "invalid_payload", "limit"),
        ("watch", json!({}), "invalid_payload", "callback"),
        ("get", json!([]), "invalid_payload", ""),
        ("fetch", json!({}), "unknown_operation", ""),
        ("history", json!({"key": "k"}), "unsupported", ""),
    ] {
        assert_eq!(
            open.refused(operation, payload.clone()),
            (code, field.into()),
            "{operation} {payload}"
        );
    }
    assert_eq!(int(&open.call("stat", json!({})), "keys"), 0);
    open.call("save", json!({"key": "k".repeat(1024), "value": 1}));
}

#[test]
fn a_value_over_the_limit_is_refused_and_the_old_one_stays() {
    let open = Open::with(StorageOptions { max_value: 10, ..StorageOptions::memory() });
    open.call("save", json!({"key": "k", "value": "0123456789"}));
    let refused = open.refused("save", json!({"key": "k", "value": "0123456789a"}));
    assert_eq!(refused, ("too_large", "value".into()));
    assert_eq!(open.value("k"), Ok("0123456789".into()));
}

#[test]
fn conditions_hold_or_nothing_changes() {
    let open = Open::memory();
    let save = |value: i64, more: serde_json::Value| {
        let mut payload = json!({"key": "k", "value": value});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        open.try_call("save", payload)
    };
    let code = |outcome: Outcome| outcome.unwrap_err().code();
    assert_eq!(code(save(1, json!({"if_match": "*"}))), "conflict");
    let first = text(&save(1, json!({"if_none_match": "*"})).unwrap(), "etag");
    let failure = save(2, json!({"if_none_match": "*"})).unwrap_err();
    assert_eq!(failure.code(), "conflict");
    assert!(failure.message.contains(&first), "{failure}");
    let second = text(&save(2, json!({"if_match": first})).unwrap(), "etag");
    assert_ne!(first, second);
    assert_eq!(code(save(3, json!({"if_match": first}))), "conflict");
    assert_eq!(open.value("k"), Ok(2.into()));
    assert_eq!(open.refused("delete", json!({"key": "k", "if_match": first})).0, "conflict");
    assert_eq!(open.value("k"), Ok(2.into()));
    // An ETag does not come again with its content.
    let again = text(&save(1, json!({})).unwrap(), "etag");
    assert_ne!(first, again);
    open.call("delete", json!({"key": "k", "if_match": again}));
    assert_eq!(open.value("k"), Err("not_found"));
}

#[test]
fn a_reader_that_has_the_value_is_not_sent_it_again() {
    let open = Open::memory();
    let etag = text(&open.call("save", json!({"key": "k", "value": 1})), "etag");
    let got = open.call("get", json!({"key": "k", "if_none_match": etag}));
    assert_eq!(got.get("not_modified"), Some(&true.into()));
    assert_eq!(got.get("value"), None);
    let got = open.call("get", json!({"key": "k", "if_none_match": "another"}));
    assert_eq!(got.get("value"), Some(&1.into()));
}

#[test]
fn exists_and_delete_say_what_there_was() {
    let open = Open::memory();
    assert_eq!(open.call("exists", json!({"key": "k"})), of(json!({"exists": false})));
    assert_eq!(open.call("delete", json!({"key": "k"})), of(json!({"deleted": false})));
    open.call("save", json!({"key": "k", "value": "four"}));
    let exists = open.call("exists", json!({"key": "k"}));
    assert_eq!(exists.get("exists"), Some(&true.into()));
    assert_eq!(int(&exists, "size"), 4);
    assert_eq!(open.call("delete", json!({"key": "k"})), of(json!({"deleted": true})));
    assert_eq!(open.call("exists", json!({"key": "k"})), of(json!({"exists": false})));
}

#[test]
fn a_namespace_sees_its_own_keys_alone() {
    let open = Open::with(StorageOptions { quota: Some(10), ..StorageOptions::memory() });
    let call = |namespace, operation, json| open.call_as(namespace, operation, of(json));
    for namespace in ["a", "b"] {
        let value = format!("of {namespace}");
        call(namespace, "save", json!({"key": "k", "value": value})).unwrap();
    }
    for namespace in ["a", "b"] {
        let got = call(namespace, "get", json!({"key": "k"})).unwrap();
        assert_eq!(text(&got, "value"), format!("of {namespace}"));
        assert_eq!(list(&call(namespace, "list", json!({})).unwrap(), "items").len(), 1);
        // The quota is each one's own.
        let failure = call(namespace, "save", json!({"key": "l", "value": "12345"})).unwrap_err();
        assert_eq!(failure.code(), "quota_exceeded");
    }
    assert_eq!(call("c", "get", json!({"key": "k"})).unwrap_err().code(), "not_found");
    call("a", "delete", json!({"key": "k"})).unwrap();
    assert_eq!(call("b", "exists", json!({"key": "k"})).unwrap().get("exists"), Some(&true.into()));
    call("a", "save", json!({"key": "l", "value": "123456789"})).unwrap();
    assert_eq!(int(&call("a", "stat", json!({})).unwrap(), "bytes"), 10);
    // What is replaced makes room.
    call("a", "save", json!({"key": "l", "value": "abcdefghi"})).unwrap();
}

#[test]
fn keys_are_listed_in_the_order_of_their_bytes_and_prefixes_are_literal() {
    let open = Open::memory();
    let mut keys = vec![
        "a",
        "a%",
        "a_",
        "ab",
        "aé",
        "a\u{10ffff}",
        "a\u{10ffff}b",
        "b",
        "A",
        "a/1",
        "a/10",
        "a/2",
    ];
    for key in &keys {
        open.call("save", json!({"key": key, "value": 1}));
    }
    keys.sort();
    let listed = |payload| -> Vec<String> {
        list(&open.call("list", payload), "items").iter().map(|item| text(item, "key")).collect()
    };
    assert_eq!(listed(json!({})), keys);
    assert_eq!(listed(json!({"prefix": "a%"})), ["a%"]);
    assert_eq!(listed(json!({"prefix": "a_"})), ["a_"]);
    assert_eq!(listed(json!({"prefix": "a/"})), ["a/1", "a/10", "a/2"]);
    assert_eq!(listed(json!({"prefix": "a\u{10ffff}"})), ["a\u{10ffff}", "a\u{10ffff}b"]);
    assert_eq!(listed(json!({"prefix": "x"})), [""; 0]);
}

#[test]
fn pages_of_a_list_are_stable_under_changes() {
    let open = Open::memory();
    for number in (0..100).step_by(2) {
        open.call("save", json!({"key": format!("k{number:02}"), "value": number}));
    }
    let (mut found, mut cursor) = (Vec::new(), serde_json::Value::Null);
    let mut page = 0;
    loop {
        let answer = open.call("list", json!({"prefix": "k", "limit": 7, "cursor": cursor}));
        found.extend(list(&answer, "items").iter().map(|item| text(item, "key")));
        // What comes and goes meanwhile moves nothing else.
        open.call("save", json!({"key": format!("k{page:02}x"), "value": 0}));
        open.call("delete", json!({"key": found.last().unwrap()}));
        page += 1;
        match answer.get("cursor") {
            Some(Value::Text(next)) => cursor = json!(next),
            end => {
                assert_eq!(end, Some(&Value::Null));
                break;
            }
        }
    }
    let even: Vec<_> = found.iter().filter(|key| !key.ends_with('x')).cloned().collect();
    assert_eq!(even, (0..100).step_by(2).map(|n| format!("k{n:02}")).collect::<Vec<_>>());
    assert!(found.is_sorted());
}

#[test]
fn a_closed_storage_says_so() {
    let open = Open::memory();
    open.call("save", json!({"key": "k", "value": 1}));
    open.storage.close();
    for (operation, payload) in [
        ("save", json!({"key": "k", "value": 1})),
        ("get", json!({"key": "k"})),
        ("stat", json!({})),
        ("query", json!({"sql": "SELECT 1"})),
    ] {
        assert_eq!(open.refused(operation, payload).0, "closed", "{operation}");
    }
}

#[test]
fn every_operation_is_described() {
    let names: Vec<_> =
        Open::memory().storage.operations().into_iter().map(|operation| operation.name).collect();
    assert_eq!(names, super::super::operations::NAMES);
}
