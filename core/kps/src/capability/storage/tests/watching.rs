use std::sync::mpsc;

use serde_json::json;

use super::{super::super::Callback, *};

fn watch(open: &Open, namespace: &str, prefix: &str) -> (String, mpsc::Receiver<Value>) {
    let (sender, receiver) = mpsc::channel();
    let callback = Callback::new(move |change| {
        // A test may be over.
        let _ = sender.send(change);
    });
    let payload = Value::map([("prefix", prefix.into()), ("callback", Value::Callback(callback))]);
    let answer = open.call_as(namespace, "watch", payload).unwrap();
    (text(&answer, "watch"), receiver)
}

fn told(receiver: &mpsc::Receiver<Value>) -> (String, String) {
    let change = receiver.recv().unwrap();
    (text(&change, "event"), text(&change, "key"))
}

fn pair(event: &str, key: &str) -> (String, String) {
    (event.into(), key.into())
}

#[test]
fn a_watch_hears_of_every_change_below_its_prefix_in_order() {
    for open in [Open::memory(), Open::on_disk()] {
        let (_, changes) = watch(&open, "", "a/");
        let (_, foreign) = watch(&open, "other", "");
        let saved = open.call("save", json!({"key": "a/1", "value": 1}));
        open.call("save", json!({"key": "b", "value": 1}));
        open.call("save", json!({"key": "a/2", "value": 1, "ttl": 1}));
        open.call("delete", json!({"key": "a/1"}));
        open.call("delete", json!({"key": "a/1"}));
        open.try_call(
            "transaction",
            json!({"operations": [{"op": "save", "key": "a/3", "value": 1}, {"op": "check", "key": "x", "if_match": "*"}]}),
        )
        .unwrap_err();
        open.pass(1000);
        open.sweep();
        let change = changes.recv().unwrap();
        assert_eq!(text(&change, "event"), "saved");
        for field in ["key", "etag", "size", "modified"] {
            assert_eq!(change.get(field), saved.get(field), "{field}");
        }
        assert_eq!(told(&changes), pair("saved", "a/2"));
        assert_eq!(told(&changes), pair("deleted", "a/1"));
        assert_eq!(told(&changes), pair("expired", "a/2"));
        open.storage.close();
        assert!(changes.recv_timeout(std::time::Duration::ZERO).is_err());
        assert!(foreign.recv_timeout(std::time::Duration::ZERO).is_err());
    }
}

#[test]
fn a_watch_ends_and_a_hook_of_the_program_hears_every_namespace() {
    let open = Open::memory();
    let (sender, heard) = mpsc::channel();
    open.storage.on_change(move |change| {
        let _ = sender.send((change.namespace.to_string(), change.key.clone()));
    });
    let (id, changes) = watch(&open, "", "");
    // Another namespace cannot end it.
    let answer = open.call_as("other", "unwatch", of(json!({ "watch": id }))).unwrap();
    assert_eq!(answer.get("unwatched"), Some(&false.into()));
    open.call("save", json!({"key": "k", "value": 1}));
    assert_eq!(told(&changes), pair("saved", "k"));
    assert_eq!(open.call("unwatch", json!({ "watch": id })).get("unwatched"), Some(&true.into()));
    open.call_as("other", "save", of(json!({"key": "l", "value": 1}))).unwrap();
    assert_eq!(heard.recv().unwrap(), pair("", "k"));
    assert_eq!(heard.recv().unwrap(), pair("other", "l"));
    assert!(changes.try_recv().is_err());
}

#[test]
fn a_watcher_may_call_the_storage_and_end_its_own_watch() {
    let open = std::sync::Arc::new(Open::memory());
    let (sender, done) = mpsc::channel();
    let inner = std::sync::Arc::downgrade(&open);
    let callback = Callback::new(move |change| {
        let open = inner.upgrade().unwrap();
        assert_eq!(open.value("k"), Ok(1.into()));
        open.call("unwatch", json!({"watch": "local-1"}));
        let _ = sender.send(change);
    });
    let payload = Value::map([("callback", Value::Callback(callback))]);
    open.call_as("", "watch", payload).unwrap();
    open.call("save", json!({"key": "k", "value": 1}));
    done.recv().unwrap();
    open.call("save", json!({"key": "k", "value": 1}));
    open.storage.close();
    assert!(done.try_recv().is_err());
}
