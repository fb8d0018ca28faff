use serde_json::json;

use super::*;

fn codes(answer: &Value) -> Vec<String> {
    let code = |result: &Value| match result.get("error") {
        Some(error) => text(error, "code"),
        None => text(result, "status"),
    };
    list(answer, "results").iter().map(code).collect()
}

#[test]
fn items_of_a_batch_fail_alone() {
    let folder = Folder::new();
    let open = Open::at(&folder);
    let answer = open.call(
        "save_many",
        json!({"items": [
            {"key": "a", "value": 1},
            {"key": "", "value": 2},
            {"key": "a", "value": 3, "if_none_match": "*"},
            {"key": "b", "value": 4, "ttl": 5},
            7,
        ]}),
    );
    assert_eq!(codes(&answer), ["ok", "invalid_payload", "conflict", "ok", "invalid_payload"]);
    let answer = open.call("get_many", json!({"keys": ["b", "x", "a"]}));
    assert_eq!(codes(&answer), ["ok", "not_found", "ok"]);
    let values: Vec<_> = list(&answer, "results")
        .iter()
        .map(|result| result.get("data").and_then(|data| data.get("value")).cloned())
        .collect();
    assert_eq!(values, [Some(4.into()), None, Some(1.into())]);
    let answer = open.call("delete_many", json!({"keys": ["b", "x"]}));
    assert_eq!(codes(&answer), ["ok", "ok"]);
    assert_eq!(open.value("b"), Err("not_found"));
    assert_eq!(open.value("a"), Ok(1.into()));
}

#[test]
fn batches_are_bounded() {
    let open = Open::with(StorageOptions { max_inline: 100, ..StorageOptions::memory() });
    let keys: Vec<_> = (0..1001).map(|n| n.to_string()).collect();
    assert_eq!(open.refused("delete_many", json!({"keys": keys})), ("too_large", "keys".into()));
    for key in ["a", "b", "c"] {
        open.call("save", json!({"key": key, "value": "v".repeat(40)}));
    }
    // What does not fit any more is to be asked for again.
    let answer = open.call("get_many", json!({"keys": ["a", "b", "c"]}));
    assert_eq!(codes(&answer), ["ok", "ok", "too_large"]);
}

#[test]
fn a_transaction_is_all_or_nothing() {
    for open in [Open::memory(), Open::on_disk()] {
        let etag = text(&open.call("save", json!({"key": "a", "value": 1})), "etag");
        let transaction =
            |operations| open.try_call("transaction", json!({ "operations": operations }));
        let answer = transaction(json!([
            {"op": "check", "key": "a", "if_match": etag},
            {"op": "save", "key": "b", "value": 2},
            {"op": "get", "key": "b"},
            {"op": "delete", "key": "a"},
        ]))
        .unwrap();
        let results = list(&answer, "results");
        assert_eq!(results[2].get("value"), Some(&2.into()));
        assert_eq!(results[3].get("deleted"), Some(&true.into()));
        let before = open.call("stat", json!({}));
        let failure = transaction(json!([
            {"op": "save", "key": "c", "value": 1},
            {"op": "save", "key": "b", "value": "much longer"},
            {"op": "delete", "key": "b"},
            {"op": "check", "key": "a", "if_match": etag},
        ]))
        .unwrap_err();
        assert_eq!(failure.code(), "conflict");
        assert!(failure.message.starts_with("operation 3: "), "{failure}");
        assert_eq!(open.call("stat", json!({})), before);
        assert_eq!(open.value("b"), Ok(2.into()));
        assert_eq!(open.value("c"), Err("not_found"));
        let failure = transaction(json!([{"op": "check", "key": "a"}])).unwrap_err();
        assert_eq!(failure.field.as_deref(), Some("operations[0].if_match"));
        // The next version is one that was not given out.
        open.call("save", json!({"key": "d", "value": 1}));
    }
}

#[test]
fn a_transaction_that_fails_leaves_no_new_namespace() {
    let open = Open::memory();
    let operations = of(json!({"operations": [
        {"op": "save", "key": "k", "value": 1},
        {"op": "check", "key": "k", "if_none_match": "*"},
    ]}));
    open.call_as("new", "transaction", operations).unwrap_err();
    for namespace in ["other", "new"] {
        open.call_as(namespace, "save", of(json!({"key": "k", "value": namespace}))).unwrap();
        let got = open.call_as(namespace, "get", of(json!({"key": "k"}))).unwrap();
        assert_eq!(text(&got, "value"), namespace);
    }
}
