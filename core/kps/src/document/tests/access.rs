//! Who may read a document, and who may change it.

use kps_proto::{bus::Principal, topic::Pattern};
use serde_json::json;

use super::*;

/// Who may read what `subscribe` matches, and change what `publish` does.
fn grants(publish: &str, subscribe: &str) -> Grants {
    let patterns = |text: &str| Some(vec![Pattern::parse(text).unwrap()]);
    let (publish, subscribe) = (patterns(publish), patterns(subscribe));
    Grants::of(&Principal { publish, subscribe, ..Principal::default() })
}

fn reader() -> Grants {
    grants("kps.server.document.>", "kps.document.d")
}

fn writer() -> Grants {
    grants("kps.document.d", "kps.document.d")
}

impl Room {
    async fn as_one_who(
        &self,
        may: &Grants,
        operation: &str,
        payload: serde_json::Value,
    ) -> Outcome {
        let payload = Value::from_json(payload.to_string().as_bytes()).unwrap();
        self.documents.call("".into(), "eve", may.clone(), operation, payload).await
    }

    async fn code_of(&self, may: &Grants, operation: &str, payload: serde_json::Value) -> String {
        let outcome = self.as_one_who(may, operation, payload).await;
        outcome.as_ref().map_or_else(Failure::code, |_| "ok").to_owned()
    }
}

/// Every operation there is, with what makes it succeed after `open` and an edit `a`.
fn all() -> Vec<(&'static str, serde_json::Value, bool)> {
    let edit = json!({"type": "append", "text": "x"});
    vec![
        ("open", json!({"id": "d", "kind": "text"}), true),
        ("read", json!({"id": "d"}), true),
        ("at", json!({"id": "d", "version": 0}), true),
        ("versions", json!({"id": "d"}), true),
        ("presence", json!({"id": "d", "state": {"cursor": 1}}), true),
        ("close", json!({"id": "d"}), true),
        ("edit", json!({"id": "d", "op_id": "b", "base_version": 1, "edit": edit}), false),
        (
            "edit_batch",
            json!({"id": "d", "operations": [{"op_id": "c", "base_version": 1, "edit": edit}]}),
            false,
        ),
        ("undo", json!({"id": "d", "op_id": "u"}), false),
        ("compact", json!({"id": "d"}), false),
        #[cfg(feature = "yjs")]
        ("sync", json!({"id": "d"}), true),
        #[cfg(feature = "yjs")]
        ("update", json!({"id": "d", "op_id": "y", "update": ""}), false),
    ]
}

#[tokio::test]
async fn every_operation_needs_its_permission_for_its_document() {
    let known: Vec<String> = Documents::describe().iter().map(|it| it.name.to_string()).collect();
    assert_eq!(known.len(), all().len(), "{known:?}");
    for (operation, payload, only_reads) in all() {
        let room = Room::new();
        room.open().await;
        room.append("a").await;
        let other = grants("kps.document.other", "kps.document.other");
        assert_eq!(room.code_of(&other, operation, payload.clone()).await, "unauthorized");
        // Who may not read is not told what it missed.
        let blind = grants("kps.document.d", "kps.document.other");
        assert_eq!(room.code_of(&blind, operation, payload.clone()).await, "unauthorized");
        let as_reader = room.code_of(&reader(), operation, payload.clone()).await;
        assert_eq!(as_reader == "unauthorized", !only_reads, "{operation}: {as_reader}");
        assert_eq!(room.text().await, "a", "{operation}");
        let as_writer = room.code_of(&writer(), operation, payload).await;
        assert_ne!(as_writer, "unauthorized", "{operation}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_permission_and_nothing_of_what_is_there() {
    let room = Room::new();
    let other = grants("kps.document.other", "kps.document.other");
    let nowhere = room.as_one_who(&other, "read", json!({"id": "d"})).await.unwrap_err();
    room.open().await;
    let there = room.as_one_who(&other, "read", json!({"id": "d"})).await.unwrap_err();
    assert_eq!(nowhere.message, there.message);
    assert!(there.message.contains("subscribe to \"kps.document.d\""), "{}", there.message);
    let compact = room.as_one_who(&reader(), "compact", json!({"id": "d"})).await.unwrap_err();
    assert!(compact.message.contains("publish to \"kps.document.d\""), "{}", compact.message);
}

#[tokio::test]
async fn a_reader_opens_what_is_there_and_makes_nothing() {
    let room = Room::new();
    let opening = json!({"id": "d", "kind": "text"});
    let missing = room.as_one_who(&reader(), "open", opening.clone()).await.unwrap_err();
    assert_eq!(missing.code(), "unauthorized");
    assert!(missing.message.contains("there is no document"), "{}", missing.message);
    assert!(missing.message.contains("publish to \"kps.document.d\""), "{}", missing.message);
    assert_eq!(room.code("read", json!({"id": "d"})).await, "not_found", "it was made");
    let made = room.as_one_who(&writer(), "open", opening.clone()).await.unwrap();
    assert_eq!(made.get("created"), Some(&Value::Bool(true)));
    assert_eq!(room.code_of(&reader(), "open", opening).await, "ok");
    assert_eq!(
        room.code_of(&reader(), "open", json!({"id": "d", "kind": "json"})).await,
        "conflict"
    );
}

#[cfg(feature = "yjs")]
#[tokio::test]
async fn an_editor_that_may_only_read_gets_a_place_where_there_is_a_document() {
    let room = Room::new();
    let sit = async |may: &Grants, may_update| {
        let seat = room.documents.sit("".into(), "d", "eve".into(), may, may_update).await;
        seat.map_err(|failure| failure.code().to_owned())
    };
    assert_eq!(sit(&reader(), true).await.err(), Some("not_found".into()));
    room.ok("open", json!({"id": "d", "kind": "yjs"})).await;
    let other = grants("kps.document.other", "kps.document.other");
    assert_eq!(sit(&other, true).await.err(), Some("unauthorized".into()));
    // An update of one character, with the header of a sync message.
    let doc = yrs::Doc::new();
    let update = {
        use yrs::{Text, Transact};
        let root = doc.get_or_insert_text("text");
        let mut txn = doc.transact_mut();
        root.insert(&mut txn, 0, "x");
        txn.encode_update_v1()
    };
    let mut message = vec![0, 2, u8::try_from(update.len()).unwrap()];
    message.extend(update);
    for (may, may_update) in [(reader(), true), (writer(), false)] {
        let seat = sit(&may, may_update).await.unwrap();
        assert_eq!(seat.take(&message).await.unwrap_err().code, 4403);
    }
    let seat = sit(&writer(), true).await.unwrap();
    seat.take(&message).await.unwrap();
    let read = room.ok("read", json!({"id": "d", "root": "text"})).await;
    assert_eq!(read["text"], "x");
}
