//! What operations of the capability do.

use serde_json::json;

use super::*;

#[tokio::test]
async fn one_of_two_who_edit_the_same_version_gets_what_is_missing() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    let conflict = room.ok("edit", appending("b", "W/\"0\"")).await["results"][0].clone();
    assert_eq!(
        (&conflict["event"], &conflict["server_version"]),
        (&"conflict".into(), &"W/\"1\"".into())
    );
    let missing = &conflict["missing_ops"][0];
    assert_eq!((&missing["op_id"], &missing["splices"]), (&"a".into(), &json!([[0, 0, "a"]])));
    assert_eq!(room.text().await, "a");
}

#[tokio::test]
async fn behind_what_was_compacted_a_conflict_brings_the_content() {
    let room = Room::new();
    room.open().await;
    room.append_many(5).await;
    let compacted = room.ok("compact", json!({"id": "d", "keep": 2})).await;
    assert_eq!(
        (&compacted["oldest"], &compacted["version"]),
        (&"W/\"3\"".into(), &"W/\"5\"".into())
    );
    let stale = room.ok("edit", appending("x", "W/\"4\"")).await["results"][0].clone();
    assert_eq!(stale["missing_ops"].as_array().unwrap().len(), 1);
    let stale = room.ok("edit", appending("x", "W/\"1\"")).await["results"][0].clone();
    assert_eq!(
        (stale.get("missing_ops"), stale["text"].as_str().unwrap()),
        (None, &*room.text().await)
    );
    let gone = room.code("at", json!({"id": "d", "version": 1})).await;
    assert_eq!(gone, "not_found");
    let there = room.ok("at", json!({"id": "d", "version": "W/\"3\""})).await;
    assert!(room.text().await.starts_with(there["text"].as_str().unwrap()));
    // As stored.
    let text = room.text().await;
    let room = room.again();
    assert_eq!((&room.open().await["oldest"], room.text().await), (&"W/\"3\"".into(), text));
}

#[tokio::test]
async fn operations_of_a_batch_follow_one_another() {
    let room = Room::new();
    room.open().await;
    let append = |op_id: &str| json!({"op_id": op_id, "edit": {"type": "append", "text": op_id}});
    let mut first = append("a");
    first["base_version"] = "W/\"0\"".into();
    let beyond = json!({"op_id": "c", "edit": {"type": "insert", "position": 9, "text": "c"}});
    let batch = json!([first, append("b"), beyond, append("e")]);
    let asked = json!({"id": "d", "author": "bob", "operations": batch});
    let results = room.ok("edit_batch", asked.clone()).await["results"].clone();
    let codes: Vec<_> = results.as_array().unwrap().iter().map(|it| it["code"].as_str()).collect();
    assert_eq!(codes, [None, None, Some("position_out_of_range"), Some("skipped")]);
    assert_eq!((room.text().await.as_str(), &results[1]["author"]), ("ab", &"bob".into()));
    // The same again: what was applied is not applied again, and what was not may be.
    let results = room.ok("edit_batch", asked).await["results"].clone();
    assert_eq!((&results[0]["event"], &results[3]["code"]), (&"ack".into(), &"skipped".into()));
    assert_eq!(room.text().await, "ab");
}

#[tokio::test]
async fn a_batch_that_is_none_is_refused_as_a_call() {
    let room = Room::new();
    room.open().await;
    let one = json!({"op_id": "a", "base_version": 0, "edit": {"type": "append", "text": "a"}});
    for (operations, field) in [
        (json!([]), "operations"),
        (json!(vec![one.clone(); 257]), "operations"),
        (json!([{"op_id": "a", "edit": []}]), "operations[0].base_version"),
        (json!([one, {"edit": []}]), "operations[1].op_id"),
        (json!([one, {"op_id": "b", "edit": [], "more": 1}]), "operations[1].more"),
        (
            json!([one, {"op_id": "b", "edit": [], "base_version": "x"}]),
            "operations[1].base_version",
        ),
    ] {
        let failed = room.call("edit_batch", json!({"id": "d", "operations": operations})).await;
        let failure = failed.unwrap_err();
        assert_eq!((failure.code(), failure.field.as_deref()), ("invalid_payload", Some(field)));
    }
    assert_eq!((room.text().await.as_str(), room.heard().len()), ("", 0));
}

#[tokio::test]
async fn two_who_open_a_document_at_once_have_the_same_one() {
    let room = Room::new();
    let mut lineages = Vec::new();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let payload = Value::from_json(br#"{"id": "d", "kind": "text"}"#).unwrap();
        opening.spawn(room.documents.call("".into(), "ann", Grants::default(), "open", payload));
    }
    while let Some(opened) = opening.join_next().await {
        lineages.push(super::json(opened.unwrap().unwrap())["lineage"].to_string());
    }
    lineages.dedup();
    assert_eq!((lineages.len(), room.documents.count_open()), (1, 1));
}

#[tokio::test]
async fn documents_are_told_apart_by_namespace_and_kind() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    assert_eq!(room.code("open", json!({"id": "d", "kind": "json"})).await, "conflict");
    let payload = Value::from_json(br#"{"id": "d", "kind": "json"}"#).unwrap();
    let other = room
        .documents
        .call("other".into(), "ann", Grants::default(), "open", payload)
        .await
        .unwrap();
    assert_eq!(super::json(other)["value"], json!({}));
    assert_eq!(room.text().await, "a");
}

#[tokio::test]
async fn one_who_knows_a_version_is_told_what_came_since() {
    let room = Room::new();
    let opened = room.open().await;
    room.append_many(3).await;
    let knowing = |lineage: &serde_json::Value, known: serde_json::Value| json!({"id": "d", "kind": "text", "lineage": lineage, "known": known});
    let known = room.ok("open", knowing(&opened["lineage"], json!(["W/\"1\""]))).await;
    assert_eq!((known["missing_ops"].as_array().unwrap().len(), known.get("text")), (2, None));
    let known = room.ok("open", knowing(&opened["lineage"], json!([99, 1]))).await;
    assert_eq!((&known["since"], known.get("text").is_some()), (&"W/\"1\"".into(), true));
    // One who knows nothing of it is told what a crash would lose: it is the way back.
    let other = room.ok("open", knowing(&"other".into(), json!([1]))).await;
    let count = other["missing_ops"].as_array().unwrap().len();
    let text = room.text().await;
    assert_eq!((&other["since"], count, &other["text"]), (&"W/\"0\"".into(), 3, &text.into()));
    room.ok("close", json!({"id": "d"})).await;
    let stored = room.ok("open", json!({"id": "d", "kind": "text"})).await;
    assert_eq!((&stored["since"], &stored["missing_ops"]), (&"W/\"3\"".into(), &json!([])));
}

#[tokio::test]
async fn much_that_happened_is_told_in_parts_to_one_who_has_operations_of_its_own() {
    let limits = Arc::new(Limits { missing: 300, ..Limits::default() });
    let room = Room::with(DocumentOptions { limits, ..DocumentOptions::default() });
    let lineage = room.open().await["lineage"].clone();
    room.append_many(10).await;
    let whole = json!({"id": "d", "kind": "text", "lineage": lineage, "known": [0]});
    let mut asked = whole.clone();
    asked["in_parts"] = true.into();
    let (mut count, mut parts) = (0, 0);
    loop {
        let part = room.ok("open", asked.clone()).await;
        assert_eq!((part.get("text"), &part["since"]), (None, &asked_for(&asked)));
        (count, parts) = (count + part["missing_ops"].as_array().unwrap().len(), parts + 1);
        asked["known"] = json!([part["version"]]);
        if part.get("more").is_none() {
            break;
        }
    }
    assert_eq!((count, parts > 2, &asked["known"][0]), (10, true, &"W/\"10\"".into()));
    // One who has none is told the content.
    let content = room.ok("open", whole).await;
    assert_eq!((content.get("since"), content.get("more")), (None, None));
    assert_eq!(content["text"].as_str(), Some(&*room.text().await));
    // One who opens it is told a content, and all that happened to it since what is stored.
    let part = room.ok("open", json!({"id": "d", "kind": "text", "in_parts": true})).await;
    let missing = part["missing_ops"].as_array().unwrap();
    let letters: String = missing.iter().map(|it| it["op_id"].as_str().unwrap()).collect();
    assert_eq!((&part["more"], &part["since"]), (&true.into(), &"W/\"0\"".into()));
    assert_eq!((part["text"].as_str(), part["version"] == "W/\"10\""), (Some(&*letters), false));
}

fn asked_for(asked: &serde_json::Value) -> serde_json::Value {
    match &asked["known"][0] {
        serde_json::Value::Number(number) => format!("W/\"{number}\"").into(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn when_too_many_documents_are_open_those_that_are_stored_leave() {
    let options = DocumentOptions { most_open: 4, ..DocumentOptions::default() };
    let room = Room::with(options);
    let opening = |id: usize| json!({"id": format!("d{id}"), "kind": "text"});
    for id in 0..20 {
        room.ok("open", opening(id)).await;
        room.wait(1);
    }
    assert!(room.documents.count_open() <= 4);
    // Those that are not stay.
    for id in 0..4 {
        room.ok("open", opening(id)).await;
        let edit = json!({"type": "append", "text": "a"});
        let asked = json!({"id": format!("d{id}"), "op_id": "a", "base_version": 0, "edit": edit});
        room.ok("edit", asked).await;
    }
    let refused = room.call("open", opening(9)).await.unwrap_err();
    assert_eq!((refused.code(), refused.retry), ("quota_exceeded", true));
    assert_eq!(room.documents.count_open(), 4);
}

#[tokio::test]
async fn undo_takes_back_the_authors_own_last_operation() {
    let room = Room::new();
    room.open().await;
    room.append("mine ").await;
    let version = room.version().await;
    let mut theirs = appending("theirs", &version);
    theirs["author"] = "bob".into();
    room.ok("edit", theirs).await;
    let undone = room.ok("undo", json!({"id": "d", "op_id": "u"})).await;
    assert_eq!(
        (&undone["results"][0]["event"], room.text().await.as_str()),
        (&"ack".into(), "theirs")
    );
    let again = room.ok("undo", json!({"id": "d", "op_id": "u2"})).await;
    assert_eq!(again["results"][0]["code"], "nothing_to_undo");
}

#[tokio::test]
async fn ids_and_fields_that_are_none_are_refused() {
    let room = Room::new();
    for (operation, payload) in [
        ("open", json!({"id": "", "kind": "text"})),
        ("open", json!({"id": "x".repeat(257), "kind": "text"})),
        ("open", json!({"id": "a.*.b", "kind": "text"})),
        ("open", json!({"id": ">", "kind": "text"})),
        ("open", json!({"id": "a\nb", "kind": "text"})),
        ("open", json!({"id": "d"})),
        ("open", json!({"id": "d", "kind": "sheet"})),
        ("open", json!({"id": "d", "kind": "text", "more": 1})),
        ("open", json!({"id": "d", "kind": "text", "known": [-1]})),
        ("edit", json!({"id": "d", "op_id": "a", "edit": []})),
        ("edit", json!({"id": "d", "base_version": 0, "edit": []})),
        ("undo", json!({"id": "d", "op_id": "a", "count": 0})),
        ("versions", json!({"id": "d", "limit": 0})),
        ("at", json!({"id": "d"})),
        ("read", json!({"id": "d", "offset": -1})),
    ] {
        assert_eq!(
            room.code(operation, payload.clone()).await,
            "invalid_payload",
            "{operation} {payload}"
        );
    }
    assert_eq!(room.code("read", json!({"id": "d"})).await, "not_found");
    assert_eq!(room.code("forget", json!({"id": "d"})).await, "unknown_operation");
    assert_eq!(room.documents.count_open(), 0);
}
