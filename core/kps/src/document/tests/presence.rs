//! Who is at a document.

use serde_json::json;

use super::*;

fn there(client: &str) -> serde_json::Value {
    json!({"id": "d", "client": client, "author": "Ann", "state": {"cursor": 3}})
}

impl Room {
    async fn here(&self, operation: &str, payload: serde_json::Value) -> Outcome {
        let payload = Value::from_json(payload.to_string().as_bytes()).unwrap();
        self.documents.call_here("".into(), "http", Grants::default(), operation, payload).await
    }

    async fn present(&self) -> Vec<String> {
        let opened = self.open().await;
        let clients = opened["presence"].as_array().unwrap().iter();
        clients.map(|it| it["client"].as_str().unwrap().to_owned()).collect()
    }

    fn told_of(&self) -> Vec<serde_json::Value> {
        let told = std::mem::take(&mut *self.told.lock());
        told.iter().map(|event| serde_json::from_slice(&event.to_json()).unwrap()).collect()
    }
}

#[tokio::test]
async fn everybody_is_told_who_comes_and_who_goes() {
    let room = Room::new();
    room.open().await;
    room.ok("presence", json!({"id": "d", "state": {"cursor": 3}})).await;
    room.ok("presence", json!({"id": "d", "state": {"cursor": 4}})).await;
    let told = |state: serde_json::Value| json!({"event": "presence", "id": "d", "client": "ann", "author": "ann", "state": state});
    let opened = room.open().await;
    assert_eq!(
        opened["presence"],
        json!([{"client": "ann", "author": "ann", "state": {"cursor": 4}}])
    );
    room.ok("presence", json!({"id": "d", "state": null})).await;
    room.ok("presence", json!({"id": "d", "state": null})).await;
    let expected = [told(json!({"cursor": 3})), told(json!({"cursor": 4})), told(json!(null))];
    assert_eq!(room.told_of(), expected, "who is gone does not go again");
    assert!(room.present().await.is_empty());
}

#[tokio::test]
async fn closing_a_document_ends_ones_presence() {
    let room = Room::new();
    room.open().await;
    room.ok("presence", there("a")).await;
    room.ok("presence", there("b")).await;
    room.here("presence", there("c")).await.unwrap();
    room.ok("close", json!({"id": "d"})).await;
    assert_eq!(room.present().await, ["c"]);
}

#[tokio::test]
async fn presence_ends_with_its_clients_session_unless_it_came_back() {
    let room = Room::new();
    room.open().await;
    room.ok("presence", there("a")).await;
    assert!(room.documents.absence("", "bob").is_none());
    let absence = room.documents.absence("other", "ann").unwrap();
    absence.ended();
    assert_eq!(room.present().await, ["a"], "it was another namespace's");
    let absence = room.documents.absence("", "ann").unwrap();
    room.wait(1);
    room.ok("presence", there("b")).await;
    absence.ended();
    assert_eq!(room.present().await, ["b"], "what came after is of another session");
    room.documents.absence("", "ann").unwrap().ended();
    assert!(room.present().await.is_empty());
    assert!(room.documents.absence("", "ann").is_none());
}

#[tokio::test]
async fn one_without_a_session_is_there_for_thirty_seconds_after_its_last_word() {
    let room = Room::new();
    room.open().await;
    room.here("presence", there("page")).await.unwrap();
    room.ok("presence", there("client")).await;
    room.wait(20);
    room.here("presence", there("page")).await.unwrap();
    room.wait(29);
    room.documents.tick().await;
    assert_eq!(room.present().await, ["client", "page"]);
    room.told_of();
    room.wait(1);
    room.documents.tick().await;
    assert_eq!(room.present().await, ["client"]);
    assert_eq!(room.told_of()[0]["state"], json!(null));
}

#[tokio::test]
async fn nobody_takes_anothers_name() {
    let room = Room::new();
    room.open().await;
    room.ok("presence", there("ann")).await;
    let refused = room.here("presence", there("ann")).await.unwrap_err();
    assert_eq!(refused.code(), "conflict");
    let mut gone = there("ann");
    gone["state"] = json!(null);
    room.here("presence", gone).await.unwrap();
    assert_eq!(room.present().await, ["ann"]);
}

#[tokio::test]
async fn there_are_bounds() {
    let room = Room::new();
    room.open().await;
    for n in 0..1000 {
        room.ok("presence", there(&format!("{n}"))).await;
    }
    let full = room.call("presence", there("one more")).await.unwrap_err();
    assert_eq!((full.code(), full.retry), ("limit_exceeded", true));
    room.ok("presence", there("7")).await;
    for (state, code) in [
        (json!({"a": "x".repeat(5000)}), "too_large"),
        (json!([1]), "invalid_payload"),
        (json!("x"), "invalid_payload"),
    ] {
        assert_eq!(room.code("presence", json!({"id": "d", "state": state})).await, code);
    }
    assert_eq!(room.code("presence", json!({"id": "d"})).await, "invalid_payload");
    assert_eq!(
        room.code("presence", json!({"id": "d", "client": "", "state": {}})).await,
        "invalid_payload"
    );
    assert_eq!(room.code("presence", json!({"id": "e", "state": {}})).await, "not_found");
    room.documents.absence("", "ann").unwrap().ended();
    assert!(room.present().await.is_empty());
    assert!(room.documents.0.presence.lock().is_empty());
}

#[tokio::test]
async fn whatever_is_wrong_with_an_operation_of_a_caller_here_is_told_as_an_event() {
    let room = Room::new();
    room.open().await;
    let append = |op_id: &str| json!({"op_id": op_id, "edit": {"type": "append", "text": op_id}});
    let based = |op_id: &str| {
        let mut one = append(op_id);
        one["base_version"] = 0.into();
        one
    };
    let paste = json!({"op_id": "paste", "base_version": 0, "edit": {"type": "append", "text": "x".repeat(20 << 20)}});
    for (mut operation, expected) in [
        (append("a"), "rejected a invalid_operation"),
        (json!({"op_id": "b", "base_version": "x", "edit": []}), "rejected b invalid_operation"),
        (json!({"op_id": "c", "base_version": 0}), "rejected c invalid_operation"),
        (
            json!({"op_id": "d", "base_version": 0, "edit": {"type": "move"}}),
            "rejected d invalid_operation",
        ),
        (
            json!({"op_id": "e", "base_version": 0, "edit": [], "more": 1}),
            "rejected e invalid_operation",
        ),
        (paste, "rejected paste operation_too_large"),
    ] {
        operation["id"] = "d".into();
        let receipt = super::json(room.here("operations", operation.clone()).await.unwrap());
        assert_eq!(receipt, json!({"accepted": 1, "op_ids": [operation["op_id"]]}));
        assert_eq!(room.heard(), [expected]);
    }
    let batch = json!({"id": "d", "author": "bob", "operations": [based("f"), append("g"), {"op_id": "h"}, append("i")]});
    room.here("operations", batch).await.unwrap();
    let told = ["change 1", "ack f 1 applied", "change 2", "ack g 2 applied"];
    let heard = room.heard();
    assert_eq!(heard[..4], told);
    assert_eq!(heard[4..], ["rejected h invalid_operation", "rejected i skipped"]);
    for wrong in [
        json!({"id": "d"}),
        json!({"id": "d", "op_id": 1}),
        json!({"id": "d", "operations": []}),
        json!({"id": "d", "operations": {}}),
        json!({"id": "d", "operations": [1]}),
        json!({"id": "d", "operations": [{}]}),
        json!({"id": "d", "operations": [based("j")], "more": 1}),
    ] {
        let failure = room.here("operations", wrong.clone()).await.unwrap_err();
        assert_eq!(failure.code(), "invalid_payload", "{wrong}");
    }
    assert_eq!(room.code("operations", json!({"id": "d"})).await, "unknown_operation");
    assert_eq!(room.text().await, "fg");
}

#[tokio::test]
async fn large_contents_are_whole_here_and_in_parts_of_one_version_elsewhere() {
    let room = Room::new();
    assert_eq!(room.open().await["created"], true);
    assert_eq!(room.open().await.get("created"), None);
    let text = "äbc".repeat(60_000);
    for (version, half) in [(0, 0), (1, 1)] {
        let edit = json!({"type": "append", "text": if half == 0 { &text } else { "" }});
        let asked = json!({"id": "d", "op_id": format!("{version}"), "base_version": version, "edit": edit});
        assert_eq!(room.ok("edit", asked).await["results"][0]["event"], "ack");
    }
    let whole = super::json(room.here("read", json!({"id": "d"})).await.unwrap());
    assert_eq!(whole["text"], text);
    let mut part = room.open().await;
    assert_eq!(part.get("text"), None);
    let version = part["version"].clone();
    let mut all = part["part"].as_str().unwrap().to_owned();
    let mut count = 1;
    while !part["next"].is_null() {
        room.append(&format!("more{count}")).await;
        assert_eq!(
            room.code("read", json!({"id": "d", "offset": part["next"]})).await,
            "invalid_payload"
        );
        part =
            room.ok("read", json!({"id": "d", "offset": part["next"], "version": version})).await;
        all.push_str(part["part"].as_str().unwrap());
        count += 1;
    }
    assert!(count > 1 && all == text, "{count}");
}
