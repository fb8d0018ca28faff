//! Yjs documents in the room: as the others, and what only they have.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use yrs::{Doc, GetString, Text, Transact, Update, updates::decoder::Decode};

use super::*;

fn opening() -> serde_json::Value {
    json!({"id": "d", "kind": "yjs"})
}

/// An update that types `text`, by somebody new.
fn typed(text: &str) -> String {
    let doc = Doc::new();
    let root = doc.get_or_insert_text("text");
    let mut txn = doc.transact_mut();
    root.insert(&mut txn, 0, text);
    STANDARD.encode(txn.encode_update_v1())
}

async fn update(room: &Room, op_id: &str, update: &str) -> serde_json::Value {
    let payload = json!({"id": "d", "op_id": op_id, "update": update});
    room.ok("update", payload).await["results"][0].clone()
}

async fn text(room: &Room) -> String {
    let read = room.ok("read", json!({"id": "d", "root": "text"})).await;
    read["text"].as_str().unwrap().to_owned()
}

fn decoded(value: &serde_json::Value) -> Vec<u8> {
    STANDARD.decode(value["$bytes"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn updates_are_told_acknowledged_and_stored_as_operations_are() {
    let room = Room::new();
    let opened = room.ok("open", opening()).await;
    assert_eq!((&opened["kind"], &opened["version"]), (&json!("yjs"), &json!("W/\"0\"")));
    let result = update(&room, "a", &typed("hello")).await;
    assert_eq!(result["level"], "applied", "{result}");
    room.wait(10);
    room.documents.tick().await;
    let wanted =
        ["change 1", "ack a 1 applied", "ack a 1 checkpointed", "checkpoint 1 checkpointed"];
    assert_eq!(room.heard(), wanted);
    let again = update(&room, "a", &typed("other")).await;
    assert_eq!((&again["event"], &again["code"]), (&json!("rejected"), &json!("op_id_reused")));
    let room = room.again();
    room.ok("open", opening()).await;
    assert_eq!(text(&room).await, "hello");
    let read = room.ok("read", json!({"id": "d"})).await;
    assert_eq!((&read["kind"], &read["value"]), (&json!("yjs"), &json!({"text": "hello"})));
}

#[tokio::test]
async fn a_change_is_told_as_an_update_that_others_take() {
    let room = Room::new();
    room.ok("open", opening()).await;
    update(&room, "a", &typed("hello")).await;
    let told = room.told.lock()[0].to_json();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!((&told["event"], &told["op_id"]), (&json!("change"), &json!("a")));
    let bytes = STANDARD.decode(told["update"].as_str().unwrap()).unwrap();
    let doc = Doc::new();
    let root = doc.get_or_insert_text("text");
    doc.transact_mut().apply_update(Update::decode_v1(&bytes).unwrap()).unwrap();
    assert_eq!(root.get_string(&doc.transact()), "hello");
}

#[tokio::test]
async fn one_who_was_away_is_told_what_is_missing() {
    let room = Room::new();
    room.ok("open", opening()).await;
    update(&room, "a", &typed("hello")).await;
    let opened = room.ok("open", opening()).await;
    let known = decoded(&opened["state_vector"]);
    update(&room, "b", &typed("world")).await;
    let payload = json!({"id": "d", "state_vector": STANDARD.encode(known)});
    let missing = decoded(&room.ok("sync", payload).await["update"]);
    assert!(missing.len() < 40, "{missing:?}");
    let payload = json!({"id": "d", "state_vector": "AQ"});
    assert_eq!(room.code("sync", payload).await, "invalid_payload");
    let payload = json!({"id": "d", "kind": "yjs", "state_vector": "////"});
    assert_eq!(room.code("open", payload).await, "invalid_payload");
}

#[tokio::test]
async fn a_large_state_comes_in_parts() {
    let room = Room::new();
    room.ok("open", opening()).await;
    for op_id in ["a", "b", "c"] {
        let large = typed(&"x".repeat(300_000));
        assert_eq!(update(&room, op_id, &large).await["event"], "ack");
    }
    let mut answer = room.ok("open", opening()).await;
    let mut state = decoded(&answer["part"]);
    while let Some(next) = answer["next"].as_u64() {
        let payload = json!({"id": "d", "of": answer["of"], "offset": next});
        answer = room.ok("sync", payload).await;
        state.extend(decoded(&answer["part"]));
    }
    let doc = Doc::new();
    let root = doc.get_or_insert_text("text");
    doc.transact_mut().apply_update(Update::decode_v1(&state).unwrap()).unwrap();
    let vector = {
        use yrs::{ReadTxn, updates::encoder::Encode};
        STANDARD.encode(doc.transact().state_vector().encode_v1())
    };
    let rest = room.ok("sync", json!({"id": "d", "state_vector": vector})).await;
    let rest = Update::decode_v1(&decoded(&rest["update"])).unwrap();
    doc.transact_mut().apply_update(rest).unwrap();
    assert_eq!(root.get_string(&doc.transact()).len(), 900_000);
    assert_eq!(room.code("sync", json!({"id": "d", "of": "W/\"999\""})).await, "not_found");
}

#[tokio::test]
async fn each_kind_takes_what_is_its_own() {
    let room = Room::new();
    room.ok("open", opening()).await;
    let result = room.ok("edit", appending("a", "W/\"0\"")).await["results"][0].clone();
    assert_eq!((&result["event"], &result["code"]), (&json!("rejected"), &json!("wrong_kind")));
    assert_eq!(update(&room, "b", "AAAA").await["code"], "invalid_operation");
    assert_eq!(room.code("open", json!({"id": "d", "kind": "text"})).await, "conflict");
    room.ok("open", json!({"id": "t", "kind": "text"})).await;
    let payload = json!({"id": "t", "op_id": "c", "update": typed("x")});
    assert_eq!(room.ok("update", payload).await["results"][0]["code"], "wrong_kind");
    assert_eq!(room.code("sync", json!({"id": "t"})).await, "conflict");
    assert_eq!(room.code("read", json!({"id": "d", "root": "none"})).await, "not_found");
}

#[tokio::test]
async fn what_is_stored_is_never_overwritten_by_nothing() {
    let room = Room::new();
    room.ok("open", opening()).await;
    update(&room, "a", &typed("precious")).await;
    room.ok("close", json!({"id": "d"})).await;
    let room = room.again();
    room.fail(|faults| faults.load = Some(ErrorKind::StoreFailed));
    assert_eq!(room.code("open", opening()).await, "store_failed");
    room.fail(|faults| (faults.load, faults.hides) = (None, true));
    // The shelf says there is nothing: a new document is made, and what is there is not replaced by it.
    room.ok("open", opening()).await;
    let payload = json!({"id": "d", "op_id": "b", "update": typed("new")});
    assert_eq!(room.code("update", payload).await, "store_failed");
    room.fail(|faults| faults.hides = false);
    let room = room.again();
    room.ok("open", opening()).await;
    assert_eq!(text(&room).await, "precious");
}

#[tokio::test]
async fn segments_become_one_base_and_a_crash_loses_what_was_not_stored() {
    let room = Room::new();
    room.ok("open", opening()).await;
    for round in 0..70 {
        update(&room, &format!("{round}"), &typed("x")).await;
        room.wait(10);
        room.documents.tick().await;
    }
    update(&room, "lost", &typed("lost")).await;
    let name = ("".into(), "d".into());
    let stored = room.shelf.memory.load(&name).unwrap();
    assert!(stored.segments.len() < 64, "{}", stored.segments.len());
    let room = room.again();
    let opened = room.ok("open", opening()).await;
    assert_eq!(text(&room).await, "x".repeat(70));
    assert_eq!(opened["version"], "W/\"70\"");
    let result = update(&room, "next", &typed("y")).await;
    let version: Version = result["version"].as_str().unwrap().parse().unwrap();
    assert!(version > Version(71), "one that was told is not given again: {version}");
}
