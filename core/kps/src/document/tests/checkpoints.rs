//! When documents are stored, and what is told of it.

use super::*;

#[tokio::test]
async fn a_document_is_stored_after_ten_seconds() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    room.append("b").await;
    room.wait(9);
    room.documents.tick().await;
    assert_eq!(
        room.heard(),
        ["change 1", "ack a 1 applied", "change 2", "ack b 2 applied"],
        "it is not time yet"
    );
    room.wait(1);
    room.documents.tick().await;
    let stored = ["ack a 1 checkpointed", "ack b 2 checkpointed", "checkpoint 2 checkpointed"];
    assert_eq!(room.heard(), stored);
    let writes = room.writes();
    room.wait(100);
    room.documents.tick().await;
    assert_eq!(room.writes(), writes, "nothing has changed");
    assert_eq!(room.open().await["checkpointed"], "W/\"2\"");
}

#[tokio::test]
async fn a_document_is_stored_after_fifty_operations() {
    let room = Room::new();
    room.open().await;
    room.append_many(49).await;
    room.documents.tick().await;
    assert!(!room.heard().iter().any(|it| it.contains("checkpoint")));
    room.append_many(1).await;
    room.documents.tick().await;
    let heard = room.heard();
    let stored = heard.iter().filter(|it| it.ends_with("checkpointed")).count();
    assert_eq!((stored, heard.last().unwrap().as_str()), (51, "checkpoint 50 checkpointed"));
}

#[tokio::test]
async fn never_are_more_than_fifty_operations_applied_and_not_stored() {
    let room = Room::new();
    room.open().await;
    room.append("first").await;
    for batch in 0..3 {
        let one = |n: usize| {
            let op_id = format!("{batch}.{n}");
            serde_json::json!({"op_id": op_id, "edit": {"type": "append", "text": op_id}})
        };
        let mut operations: Vec<_> = (0..120).map(one).collect();
        operations[0]["base_version"] = room.version().await.into();
        room.ok("edit_batch", serde_json::json!({"id": "d", "operations": operations})).await;
    }
    let (mut waiting, mut all) = (0, 0);
    for event in room.heard() {
        waiting += usize::from(event.ends_with(" applied"));
        waiting -= usize::from(event.starts_with("ack") && event.ends_with(" checkpointed"));
        all += usize::from(event.ends_with(" applied"));
        assert!(waiting <= 50, "{waiting} would be lost");
    }
    assert_eq!(all, 361);
    // While the store fails it goes on in memory.
    room.fail(|it| it.write = Some(ErrorKind::StoreFailed));
    room.append_many(120).await;
}

#[tokio::test]
async fn closing_stores_a_document_at_once() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    let closed = room.ok("close", serde_json::json!({"id": "d"})).await;
    assert_eq!(
        (&closed["checkpointed"], &closed["version"]),
        (&"W/\"1\"".into(), &"W/\"1\"".into())
    );
    room.append("b").await;
    room.documents.close().await;
    assert_eq!(room.heard().last().unwrap(), "checkpoint 2 checkpointed");
    assert_eq!(
        room.code("open", serde_json::json!({"id": "d", "kind": "text"})).await,
        "unavailable"
    );
    let room = room.again();
    room.open().await;
    assert_eq!((room.text().await.as_str(), room.version().await.as_str()), ("ab", "W/\"2\""));
    room.append("c").await;
    assert_eq!(room.version().await, "W/\"3\"", "it was closed well: no version is skipped");
}

#[tokio::test]
async fn an_applied_operation_that_is_sent_again_is_told_how_safe_it_is() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    let again = room.append("a").await;
    assert_eq!((&again["event"], &again["level"]), (&"ack".into(), &"applied".into()));
    room.ok("close", serde_json::json!({"id": "d"})).await;
    let again = room.append("a").await;
    assert_eq!((&again["version"], &again["level"]), (&"W/\"1\"".into(), &"checkpointed".into()));
    // After a restart as well.
    let room = room.again();
    let again = room.append("a").await;
    assert_eq!((&again["version"], &again["level"]), (&"W/\"1\"".into(), &"checkpointed".into()));
    assert_eq!(room.text().await, "a");
}

#[tokio::test]
async fn a_document_leaves_memory_after_thirty_idle_minutes_and_comes_back() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    room.wait(29 * 60);
    room.documents.tick().await;
    assert_eq!(room.documents.count_open(), 1);
    room.wait(60);
    room.documents.tick().await;
    assert_eq!(room.documents.count_open(), 0);
    assert_eq!(room.text().await, "a");
    room.append("b").await;
    assert_eq!((room.text().await.as_str(), room.version().await.as_str()), ("ab", "W/\"2\""));
}

#[tokio::test]
async fn a_version_that_was_told_before_a_crash_is_not_given_again() {
    let mut room = Room::new();
    room.open().await;
    room.append("a").await;
    room.documents.0.store_all(room.slots()).await;
    let mut last = room.version().await.parse::<Version>().unwrap();
    for round in 0..5 {
        for n in 0..3 {
            let ack = room.append(&format!("lost{round}.{n}")).await;
            let version: Version = ack["version"].as_str().unwrap().parse().unwrap();
            assert!(version > last, "{version} after {last}");
            last = version;
        }
        room = room.again();
        room.open().await;
        assert_eq!(room.text().await, "a", "what was not stored is lost");
        assert_eq!(room.version().await, "W/\"1\"");
    }
}

#[tokio::test]
async fn what_is_stored_in_many_parts_is_read_as_it_was() {
    let room = Room::new();
    room.open().await;
    for n in 0..200 {
        room.append(&format!("{n},")).await;
        room.documents.0.store_all(room.slots()).await;
    }
    let text = room.text().await;
    let room = room.again();
    room.open().await;
    assert_eq!(room.text().await, text);
    let versions = room.ok("versions", serde_json::json!({"id": "d", "limit": 1000})).await;
    assert_eq!(versions["versions"].as_array().unwrap().len(), 200);
    let stored = room.shelf.load(&("".into(), "d".into())).unwrap();
    assert!(stored.segments.len() <= 64, "{} parts", stored.segments.len());
}

#[tokio::test]
async fn in_memory_nothing_is_said_to_be_stored() {
    let documents = Documents::in_memory(DocumentOptions::default());
    let call = |operation: &'static str, payload: serde_json::Value| {
        let payload = Value::from_json(payload.to_string().as_bytes()).unwrap();
        documents.call("".into(), "ann", Grants::default(), operation, payload)
    };
    call("open", serde_json::json!({"id": "d", "kind": "text"})).await.unwrap();
    call("edit", appending("a", "W/\"0\"")).await.unwrap();
    let closed = json(call("close", serde_json::json!({"id": "d"})).await.unwrap());
    assert_eq!(closed["durable"], false);
    let again = json(call("edit", appending("a", "W/\"0\"")).await.unwrap());
    assert_eq!(again["results"][0]["level"], "applied");
}
