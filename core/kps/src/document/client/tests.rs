mod link;
#[cfg(feature = "yjs")]
mod yjs;

use std::time::Duration;

use self::link::Proxy;
use super::{super::engine::Edit, *};
use crate::{Client, ConnectOptions, Server, ServerOptions};

const PATIENCE: Duration = Duration::from_secs(20);

async fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

async fn client(server: &Server, id: &str) -> Client {
    let id = Some(id.to_owned());
    Client::connect(ConnectOptions { id, ..ConnectOptions::new(server.url()) }).await.unwrap()
}

async fn open(client: &Client, id: &str) -> Document {
    client.open_document(id, OpenDocument::default()).await.unwrap()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("in time") })
}

/// Waits until `document` reads so.
async fn reads(document: &Document, text: &str) {
    document
        .shared()
        .until(|state| state.replica.snapshot() == Snapshot::Text(text.into()))
        .await
        .unwrap();
}

#[test]
fn what_one_edits_all_see_and_hear_in_the_same_bytes() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let (ann, bob) = (open(&ann, "a.b").await, open(&bob, "a.b").await);
        let own = server.client().unwrap();
        let own = open(&own, "a.b").await;
        let mut heard: Vec<DocumentEvents> = [&ann, &bob, &own].map(|it| it.events()).into();

        let edited = ann.edit(Edit::append("one")).unwrap();
        assert_eq!(ann.text().as_deref(), Some("one"));
        let edited = edited.await.unwrap();
        assert_eq!((edited.version, ann.version()), (Version(1), Version(1)));
        reads(&bob, "one").await;
        reads(&own, "one").await;
        own.edit(Edit::insert(0, "zero ")).unwrap().await.unwrap();
        reads(&bob, "zero one").await;

        let mut all = Vec::new();
        for events in &mut heard {
            let mut told = Vec::new();
            while told.len() < 4 {
                told.push(events.next().await.unwrap());
            }
            let names: Vec<&str> = told.iter().map(|told| &*told.event).collect();
            assert_eq!(names, ["change", "ack", "change", "ack"]);
            all.push(told.into_iter().map(|told| told.json).collect::<Vec<_>>());
        }
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0], all[2]);
    });
}

#[test]
fn who_does_not_rebase_hears_what_it_missed_and_edits_again() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let options = OpenDocument { rebase: false, ..OpenDocument::default() };
        let ann = ann.open_document("d", options).await.unwrap();
        let bob = open(&bob, "d").await;
        // Both for the first version; Bob's is there first as soon as his ack is.
        let faster = bob.edit(Edit::append("bob")).unwrap();
        let slower = [Edit::append("ann"), Edit::insert(3, "!")]
            .map(|edit| ann.edit(edit).unwrap_or_else(|refused| panic!("{refused}")));
        faster.await.unwrap();
        let [first, second] = slower;
        let outcomes = (first.await, second.await);
        if let (Err(first), Err(second)) = outcomes {
            assert_eq!((&*first.code, &*second.code), ("conflict", "conflict"));
            let event: serde_json::Value = serde_json::from_slice(&first.event.unwrap()).unwrap();
            assert_eq!(event["missing_ops"][0]["author"], "bob");
            reads(&ann, "bob").await;
        }
        ann.edit(Edit::append(" and ann")).unwrap().await.unwrap();
        assert!(ann.text().unwrap().ends_with(" and ann"));
    });
}

#[test]
fn what_does_not_fit_is_refused_here_and_nothing_is_done() {
    run(async {
        let server = server().await;
        let ann = client(&server, "ann").await;
        let document = open(&ann, "d").await;
        let code = |edit: Edit| document.edit(edit).unwrap_err().code;
        assert_eq!(code(Edit::insert(7, "x")), "position_out_of_range");
        assert_eq!(code(Edit::replace_text("x", "y")), "anchor_not_found");
        assert_eq!(code(Edit::append("x".repeat(20 << 20))), "operation_too_large");
        assert_eq!(code(Edit::Merge { merge: serde_json::json!({}) }), "wrong_kind");
        // The server's limits are the server's to tell.
        let refused =
            document.edit(Edit::append("x".repeat(300 << 10))).unwrap().await.unwrap_err();
        assert_eq!(refused.code, "operation_too_large");
        assert_eq!(document.text().as_deref(), Some(""));
        let batch = vec![vec![Edit::append("x")], vec![Edit::insert(7, "x")]];
        assert_eq!(document.edit_batch(batch).unwrap_err().code, "position_out_of_range");
        assert_eq!(document.text().as_deref(), Some(""));
    });
}

#[test]
fn undo_versions_and_what_a_version_had() {
    run(async {
        let server = server().await;
        let ann = client(&server, "ann").await;
        let document = open(&ann, "d").await;
        document.edit(Edit::append("one")).unwrap();
        let two = document.edit(Edit::append(" two")).unwrap().await.unwrap();
        let undone = document.undo(1).await.unwrap();
        assert_eq!(document.text().as_deref(), Some("one"));
        assert!(undone.version > two.version);
        let text = Snapshot::Text("one two".into());
        assert_eq!(document.at(two.version).await.unwrap(), text);
        let versions = document.versions(None, 2).await.unwrap();
        let crate::capability::Value::List(list) = versions.get("versions").unwrap() else {
            panic!("{versions:?}")
        };
        assert_eq!(list.len(), 2);
        document.undo(1).await.unwrap();
        assert_eq!(document.undo(1).await.unwrap_err().code, "nothing_to_undo");
        document.compact(0).await.unwrap();
        let gone = document.at(two.version).await.unwrap_err();
        assert_eq!(gone.code(), "not_found");
    });
}

#[test]
fn large_content_comes_in_parts() {
    run(async {
        let server = server().await;
        let ann = client(&server, "ann").await;
        let document = open(&ann, "d").await;
        let text = "äöü🦀".repeat(10_000);
        for _ in 0..5 {
            document.edit(Edit::append(&*text)).unwrap();
        }
        document.flush().await.unwrap();
        let bob = client(&server, "bob").await;
        assert_eq!(open(&bob, "d").await.text(), Some(text.repeat(5)));
        let json = ann.open_document("j", OpenDocument::new(Kind::Json)).await.unwrap();
        for n in 0..5 {
            let merge = serde_json::json!({ n.to_string(): text });
            json.edit(Edit::Merge { merge }).unwrap();
        }
        json.flush().await.unwrap();
        let again = bob.open_document("j", OpenDocument::new(Kind::Json)).await.unwrap();
        assert_eq!(again.value(), json.value());
    });
}

#[test]
fn a_stream_among_writers_gets_its_text_in_in_one_piece() {
    run(async {
        let server = server().await;
        let agent = client(&server, "agent").await;
        let story = open(&agent, "story").await;
        let mut writers = Vec::new();
        for n in 0..10 {
            let document = open(&client(&server, &format!("w{n}")).await, "story").await;
            writers.push(tokio::spawn(async move {
                for n in 0..20 {
                    document.edit(Edit::append(".")).unwrap();
                    document.edit(Edit::insert(n / 2, ",")).unwrap().await.unwrap();
                }
            }));
        }
        let stream = story.stream(StreamOptions {
            flush_every: Duration::from_millis(1),
            ..StreamOptions::default()
        });
        let stream = stream.unwrap();
        let mut whole = String::new();
        for n in 0..200 {
            let token = format!("<{n}>");
            stream.write(&token).unwrap();
            whole.push_str(&token);
            tokio::task::yield_now().await;
        }
        stream.close().await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        let text = story.at(story.version()).await.unwrap();
        let Snapshot::Text(text) = text else { panic!() };
        assert!(text.contains(&whole), "{text}");
    });
}

#[test]
fn a_client_that_closes_sends_what_was_edited_first() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let (notes, seen) = (open(&ann, "d").await, open(&bob, "d").await);
        for n in 0..100 {
            notes.edit(Edit::append(format!("{n} "))).unwrap();
        }
        ann.close().await;
        reads(&seen, &notes.text().unwrap()).await;
        notes.shared().until(|_| false).await.unwrap_err();
        let refused = notes.edit(Edit::append("late")).unwrap_err();
        assert_eq!(refused.code, "closed");
    });
}

#[test]
fn who_is_there_is_told_until_it_leaves() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let (ann, bob) = (open(&ann, "d").await, open(&bob, "d").await);
        ann.edit(Edit::append("text")).unwrap().await.unwrap();
        reads(&bob, "text").await;
        ann.set_presence_json(br#"{"cursor": 4}"#).unwrap();
        bob.shared().until(|state| state.presence.count() == 1).await.unwrap();
        bob.edit(Edit::insert(0, "> ")).unwrap();
        assert_eq!(bob.presence()[0].state["cursor"], 6);
        // One who comes later is told too.
        let eve = open(&client(&server, "eve").await, "d").await;
        assert_eq!(&*eve.presence()[0].client, "ann");
        ann.close().await;
        eve.shared().until(|state| state.presence.count() == 0).await.unwrap();
    });
}

#[test]
fn a_listener_that_is_far_behind_has_a_gap() {
    run(async {
        let server = server().await;
        let document = open(&client(&server, "ann").await, "d").await;
        let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let log = heard.clone();
        let _listening = document.listen(move |told| log.lock().push(told));
        let large = ("change".into(), bytes::Bytes::from(vec![b' '; 1 << 20]));
        for _ in 0..20 {
            document.shared().listeners.tell("d", std::slice::from_ref(&large));
        }
        let first = std::mem::take(&mut *heard.lock());
        assert_eq!(first.len(), 15);
        drop(first);
        document.shared().listeners.tell("d", &[large]);
        let after = heard.lock();
        let names: Vec<&str> = after.iter().map(|told| &*told.event).collect();
        assert_eq!(names, ["gap", "change"]);
        assert_eq!(after[0].value()["count"], 5);
    });
}

#[test]
fn cursors_move_with_what_is_edited() {
    let mut presence = presence::Presence::default();
    let heard = serde_json::json!({
        "client": "bob", "author": "bob", "state": {"cursor": 5, "selection": [2, 5], "version": "W/\"1\""},
    });
    presence.hear(serde_json::from_value(heard).unwrap(), Version(1));
    let change = |version, at, delete, insert: &str| crate::document::engine::Applied {
        op_id: "o".into(),
        author: "a".into(),
        version: Version(version),
        time: 0,
        undoes: Vec::new(),
        change: crate::document::Change::Splices(vec![crate::document::Splice {
            at,
            delete,
            insert: insert.into(),
        }]),
    };
    presence.changed(&change(1, 0, 0, "known"));
    presence.changed(&change(2, 0, 0, "xx"));
    presence.changed(&change(3, 5, 1, ""));
    assert_eq!(
        presence.state_of("bob"),
        serde_json::json!({
            "cursor": 6, "selection": [4, 6], "version": "W/\"3\""
        })
    );
    // One that is late is moved over what it did not know of.
    let late = serde_json::json!({
        "client": "eve", "author": "eve", "state": {"cursor": 5, "version": "W/\"1\""},
    });
    presence.hear(serde_json::from_value(late).unwrap(), Version(3));
    assert_eq!(presence.state_of("eve")["cursor"], 6);
}

#[test]
fn a_lost_connection_loses_no_edit() {
    run(async {
        let server = server().await;
        let proxy = Proxy::start(server.address()).await;
        let url = format!("ws://{}", proxy.address);
        let ann = Client::connect(ConnectOptions::new(url)).await.unwrap();
        let (ann, bob) = (open(&ann, "d").await, open(&client(&server, "bob").await, "d").await);
        ann.edit(Edit::append("one")).unwrap().await.unwrap();
        let mut events = ann.events();
        proxy.cut();
        bob.edit(Edit::append(" bob")).unwrap().await.unwrap();
        let edited = ann.edit(Edit::insert(3, " two")).unwrap();
        assert_eq!(ann.unsynced().len(), 1);
        edited.await.unwrap();
        let text = ann.text().unwrap();
        assert!(["one bob two", "one two bob"].contains(&&*text), "{text}");
        reads(&bob, &text).await;
        assert!(ann.is_connected() && ann.unsynced().is_empty());
        // That there was a pause is told.
        while let Some(told) = events.next().await {
            if ["resumed", "gap"].contains(&&*told.event) {
                break;
            }
        }
    });
}

#[cfg(feature = "store")]
#[test]
fn what_a_restarted_client_did_not_get_rid_of_is_sent_then() {
    run(async {
        let name = format!("kps-drafts-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let server = server().await;
        let proxy = Proxy::start(server.address()).await;
        let bob = open(&client(&server, "bob").await, "d").await;
        let ann = || ConnectOptions {
            id: Some("ann".into()),
            outbox: Some(folder.join("outbox")),
            ..ConnectOptions::new(format!("ws://{}", proxy.address))
        };
        let first = Client::connect(ann()).await.unwrap();
        let document = open(&first, "d").await;
        document.edit(Edit::append("one")).unwrap().await.unwrap();
        proxy.hold();
        document.edit(Edit::append(" two")).unwrap();
        document.edit(Edit::insert(0, "zero ")).unwrap();
        assert_eq!(document.close_within(Duration::from_millis(1)).await.len(), 2);
        first.close_within(Duration::from_millis(1)).await;
        drop((document, first));
        bob.edit(Edit::insert(3, "!")).unwrap().await.unwrap();
        proxy.go_on();

        let again = Client::connect(ann()).await.unwrap();
        let document = open(&again, "d").await;
        assert_eq!(document.text().as_deref(), Some("zero one! two"));
        document.flush().await.unwrap();
        reads(&bob, "zero one! two").await;
        assert!(document.unsynced().is_empty());
        again.close().await;
        // Nothing is left to send.
        let third = Client::connect(ann()).await.unwrap();
        let document = open(&third, "d").await;
        assert!(document.unsynced().is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    });
}
