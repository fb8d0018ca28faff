//! A shelf that fails.

use kps_proto::ErrorKind::{StoreCorrupt, StoreFailed};

use super::*;

fn name() -> Name {
    ("".into(), "d".into())
}

#[tokio::test]
async fn what_cannot_be_loaded_is_an_error_and_never_an_empty_document() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    room.documents.close().await;
    let room = room.again();
    room.fail(|it| it.load = Some(StoreFailed));
    let opening = serde_json::json!({"id": "d", "kind": "text"});
    assert_eq!(room.code("open", opening.clone()).await, "store_failed");
    assert_eq!(room.code("edit", appending("b", "W/\"1\"")).await, "store_failed");
    assert_eq!(room.documents.count_open(), 0);
    room.fail(|it| it.load = None);
    assert_eq!((room.open().await["text"].as_str(), room.heard().len()), (Some("a"), 0));
}

#[tokio::test]
async fn what_is_damaged_is_an_error_and_stays_as_it_is() {
    let segment = "{\"operations\":[]}";
    let base = "{\"format\":1,\"kind\":\"text\",\"lineage\":\"l\",\"version\":\"1\",\"text\":\"a\",\"op_ids\":[]}";
    for (base, segments) in [
        (Some("{"), vec![]),
        (None, vec![segment]),
        (Some(&*base.replace(":1,", ":2,")), vec![]),
        (Some(&*base.replace("\"text\",", "\"json\",")), vec![]),
        (Some(base), vec!["{}"]),
    ] {
        let room = Room::new();
        let mark = None;
        for (n, segment) in segments.iter().enumerate() {
            let segment = Some((Version(n as u64 + 2), segment.as_bytes().to_vec().into()));
            let writing = Writing { segment, mark: mark.clone(), ..Writing::default() };
            room.shelf.memory.write(&name(), writing).await.unwrap();
        }
        let base = base.map(|base| base.as_bytes().to_vec().into());
        if base.is_some() {
            let writing = Writing { base, mark, ..Writing::default() };
            room.shelf.memory.write(&name(), writing).await.unwrap();
        }
        let before = format!("{:?}", room.shelf.load(&name()).unwrap());
        let opening = serde_json::json!({"id": "d", "kind": "text"});
        assert_eq!(room.code("open", opening).await, StoreCorrupt.code(), "{before}");
        assert_eq!(format!("{:?}", room.shelf.load(&name()).unwrap()), before);
        assert_eq!(room.documents.count_open(), 0);
    }
}

#[tokio::test]
async fn an_empty_state_never_overwrites_a_checkpoint() {
    let room = Room::new();
    room.open().await;
    room.append("precious").await;
    room.documents.close().await;
    let room = room.again();
    room.fail(|it| it.hides = true);
    assert_eq!(room.open().await["text"], "");
    let refused = room.call("edit", appending("b", "W/\"0\"")).await.unwrap_err();
    assert_eq!((refused.code(), refused.retry), ("store_failed", true));
    assert!(room.heard().is_empty());
    room.fail(|it| it.hides = false);
    assert_eq!(room.open().await["text"], "precious");
    room.append("!").await;
    assert_eq!(room.text().await, "precious!");
}

#[tokio::test]
async fn what_somebody_else_stored_meanwhile_is_not_overwritten() {
    let (one, clock) = (Room::new(), 10);
    one.open().await;
    one.append("a").await;
    let other = Room::on(one.shelf.clone(), one.clock.clone(), DocumentOptions::default());
    // As if it had another lineage: it is another document of this name.
    let mut stored = one.shelf.load(&name()).unwrap();
    let base = String::from_utf8(stored.base.take().unwrap().to_vec()).unwrap();
    let lineage = one.open().await["lineage"].as_str().unwrap().to_owned();
    let base = Some(base.replace(&lineage, "other").into_bytes().into());
    let writing = Writing { base, mark: stored.mark, ..Writing::default() };
    one.shelf.memory.write(&name(), writing).await.unwrap();
    for _ in 0..5 {
        one.wait(clock);
        one.documents.tick().await;
    }
    assert_eq!(one.heard()[2..], ["store_failed conflict"]);
    assert_eq!(other.open().await["lineage"], "other");
}

#[tokio::test]
async fn a_new_document_is_the_same_one_after_a_crash_before_its_first_checkpoint() {
    let room = Room::new();
    let lineage = room.open().await["lineage"].clone();
    room.append("lost").await;
    let room = room.again();
    let again = room.open().await;
    assert_eq!((&again["lineage"], &again["text"]), (&lineage, &"".into()));
    let ack = room.append("b").await;
    assert_ne!(ack["version"], "W/\"1\"", "it was told");
}

#[tokio::test]
async fn while_the_store_fails_documents_stay_in_memory_and_it_is_tried_again() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    room.heard();
    room.fail(|it| it.write = Some(StoreFailed));
    room.wait(10);
    let before = room.writes();
    let mut tried = Vec::new();
    for second in 0..100 {
        let writes = room.writes();
        room.documents.tick().await;
        if room.writes() > writes {
            tried.push(second);
        }
        room.wait(1);
    }
    assert_eq!(tried, [0, 1, 3, 7, 15, 31, 61, 91], "pauses double up to 30 s");
    assert_eq!(room.writes(), before + tried.len());
    assert_eq!(room.heard(), ["store_failed store_failed"], "it is said once");
    assert_eq!(room.open().await["store_failed"], "store_failed");
    // It is edited all the same, and does not leave.
    room.append("b").await;
    room.wait(40 * 60);
    room.documents.tick().await;
    assert_eq!((room.documents.count_open(), room.text().await.as_str()), (1, "ab"));
    room.fail(|it| it.write = None);
    room.wait(30);
    room.documents.tick().await;
    let healed = ["ack a 1 checkpointed", "ack b 2 checkpointed", "checkpoint 2 checkpointed"];
    assert_eq!(room.heard()[2..], healed);
    assert_eq!(room.open().await.get("store_failed"), None);
    assert_eq!(room.again().open().await["text"], "ab");
}

#[tokio::test]
async fn a_write_of_which_nobody_knows_whether_it_was_done_is_done_again() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    room.fail(|it| it.lies = true);
    assert_eq!(room.code("close", serde_json::json!({"id": "d"})).await, "store_failed");
    room.fail(|it| it.lies = false);
    room.append("b").await;
    for _ in 0..3 {
        room.wait(60);
        room.documents.tick().await;
    }
    assert_eq!(room.heard().last().unwrap(), "checkpoint 2 checkpointed");
    assert_eq!(room.again().open().await["text"], "ab");
}

#[tokio::test]
async fn nothing_is_applied_before_it_is_stored_that_versions_may_be_lost() {
    let room = Room::new();
    room.open().await;
    room.fail(|it| it.write = Some(StoreFailed));
    assert_eq!(room.code("edit", appending("a", "W/\"0\"")).await, "store_failed");
    assert_eq!((room.text().await.as_str(), room.heard().len()), ("", 0));
    room.fail(|it| it.write = None);
    room.append("a").await;
    assert_eq!(room.text().await, "a");
}

#[tokio::test]
async fn too_many_operations_that_wait_are_refused_until_they_are_stored() {
    let limits = Arc::new(Limits { pending: 5, ..Limits::default() });
    let room = Room::with(DocumentOptions { limits, ..DocumentOptions::default() });
    room.open().await;
    room.append_many(5).await;
    room.fail(|it| it.write = Some(StoreFailed));
    let refused = room.append("x").await;
    assert_eq!(
        (&refused["event"], &refused["code"]),
        (&"rejected".into(), &"too_many_pending".into())
    );
    room.fail(|it| it.write = None);
    room.wait(10);
    room.documents.tick().await;
    assert_eq!(room.append("x").await["event"], "ack");
}

#[tokio::test]
async fn one_who_goes_while_a_document_is_stored_does_not_keep_it_from_being_stored() {
    let room = Room::new();
    room.open().await;
    room.append("a").await;
    room.shelf.is_open.send_replace(false);
    let closing = room.call("close", serde_json::json!({"id": "d"}));
    let gone = tokio::time::timeout(Duration::from_millis(20), closing).await;
    assert!(gone.is_err(), "the shelf waits");
    room.shelf.is_open.send_replace(true);
    room.append("b").await;
    room.ok("close", serde_json::json!({"id": "d"})).await;
    let room = room.again();
    assert_eq!((room.open().await["text"].as_str(), room.heard().len()), (Some("ab"), 0));
}

#[tokio::test]
async fn an_operation_for_a_document_that_is_closing_is_applied_or_refused_and_never_lost() {
    for goes in [false, true] {
        let room = Room::new();
        room.open().await;
        room.append("a").await;
        room.shelf.is_open.send_replace(false);
        let closing = async {
            match goes {
                true => room.documents.close().await,
                false => drop(room.call("close", serde_json::json!({"id": "d"})).await),
            }
        };
        let opening = async {
            tokio::task::yield_now().await;
            room.shelf.is_open.send_replace(true);
        };
        let edit = room.call("edit", appending("b", "W/\"1\""));
        let ((), edited, ()) = tokio::join!(closing, edit, opening);
        let is_applied = edited.is_ok();
        if let Err(failure) = edited {
            assert_eq!((failure.code(), failure.retry), ("unavailable", true));
        }
        room.documents.close().await;
        let expected = if is_applied { "ab" } else { "a" };
        assert_eq!(room.again().open().await["text"], expected);
    }
}

#[tokio::test]
async fn documents_in_memory_have_a_limit() {
    let memory = Memory::new(10_000);
    let big = || Some(vec![b'x'; 6_000].into());
    let writing = || Writing { base: big(), ..Writing::default() };
    memory.write(&name(), writing()).await.unwrap();
    let other = ("".into(), "e".into());
    let refused = memory.write(&other, writing()).await.unwrap_err();
    assert_eq!(refused.code(), "quota_exceeded");
    assert!(memory.load(&other).unwrap().base.is_none());
}
