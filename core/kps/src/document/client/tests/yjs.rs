//! Yjs documents over sockets.

use serde_json::json;

use super::*;

fn append(text: &str) -> Edit {
    serde_json::from_value(json!({"type": "append", "text": text})).unwrap()
}

async fn open_yjs(client: &Client) -> YjsDocument {
    client.open_yjs("page", OpenDocument::default()).await.unwrap()
}

async fn has(document: &YjsDocument, all: &[&str]) {
    while !all.iter().all(|it| document.text("text").contains(it)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn what_is_edited_is_in_sight_at_once_and_comes_to_all() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let (ann, bob) = (open_yjs(&ann).await, open_yjs(&bob).await);
        let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let told = heard.clone();
        let _listening = bob.listen(move |it| told.lock().push((it.event.clone(), it.value())));
        ann.edit("text", append("grüße 🙂")).unwrap();
        assert_eq!(ann.text("text"), "grüße 🙂");
        has(&bob, &["grüße 🙂"]).await;
        bob.edit("text", Edit::insert(0, "> ")).unwrap();
        has(&ann, &["> grüße 🙂"]).await;
        assert_eq!(ann.value(), json!({"text": "> grüße 🙂"}));
        ann.flush().await.unwrap();
        bob.flush().await.unwrap();
        let heard = std::mem::take(&mut *heard.lock());
        let updates: Vec<_> = heard.iter().filter(|(event, _)| &**event == "update").collect();
        assert_eq!(updates[0].1["origin"], "server");
        assert_eq!(updates[1].1["origin"], "client");
        assert!(heard.iter().any(|(event, _)| &**event == "change"));
        assert!(ann.edit("text", Edit::insert(100, "x")).is_err());
        ann.close().await;
        assert!(ann.edit("text", append("late")).is_err());
    });
}

#[test]
fn what_each_did_without_a_connection_merges() {
    run(async {
        let server = server().await;
        let proxy = Proxy::start(server.address()).await;
        let options = ConnectOptions::new(format!("ws://{}/ws/bus", proxy.address));
        let away = Client::connect(ConnectOptions { id: Some("away".into()), ..options });
        let (away, here) = (away.await.unwrap(), client(&server, "here").await);
        let (away, here) = (open_yjs(&away).await, open_yjs(&here).await);
        here.edit("text", append("common ")).unwrap();
        has(&away, &["common "]).await;
        proxy.hold();
        proxy.cut();
        for number in 0..10 {
            away.edit("text", append(&format!("<away {number}>"))).unwrap();
            here.edit("text", Edit::insert(0, format!("<here {number}>"))).unwrap();
        }
        assert!(away.text("text").ends_with("<away 9>"));
        proxy.go_on();
        let all = ["<away 0>", "<away 9>", "<here 0>", "<here 9>", "common "];
        has(&away, &all).await;
        has(&here, &all).await;
        away.flush().await.unwrap();
        assert_eq!(away.text("text"), here.text("text"));
    });
}

#[test]
fn a_document_of_the_program_is_bound_by_updates() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let (ann, bob) = (open_yjs(&ann).await, open_yjs(&bob).await);
        ann.edit("text", append("one")).unwrap();
        use yrs::{GetString, Text, Transact, updates::decoder::Decode};
        let doc = yrs::Doc::new();
        let text = doc.get_or_insert_text("text");
        let state = yrs::Update::decode_v1(&ann.state(None).unwrap()).unwrap();
        doc.transact_mut().apply_update(state).unwrap();
        let update = {
            let mut txn = doc.transact_mut();
            text.insert(&mut txn, 3, " two");
            txn.encode_update_v1()
        };
        assert_eq!(text.get_string(&doc.transact()), "one two");
        ann.apply_update(&update).unwrap();
        has(&bob, &["one two"]).await;
        let missing = bob.state(Some(&ann.state_vector())).unwrap();
        assert_eq!(&missing[..], yrs::Update::EMPTY_V1, "it has all of it");
        let refused = ann.apply_update(&[1, 2, 3]).unwrap_err();
        assert_eq!(refused.code, "invalid_operation");
        assert!(ann.state(Some(&[9])).is_err());
    });
}

#[test]
fn who_is_there_is_told() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let (ann, bob) = (open_yjs(&ann).await, open_yjs(&bob).await);
        let state = json!({"name": "Ann"}).as_object().cloned();
        ann.set_presence(state.clone());
        while bob.presence().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(bob.presence()[0].state, state.unwrap());
        ann.close().await;
        while !bob.presence().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn each_kind_is_opened_by_its_own() {
    run(async {
        let server = server().await;
        let ann = client(&server, "ann").await;
        open(&ann, "plain").await;
        let failure = ann.open_yjs("plain", OpenDocument::default()).await.unwrap_err();
        assert_eq!(failure.kind, kps_proto::ErrorKind::Conflict);
        let failure = ann.open_document("page", OpenDocument::new(Kind::Yjs)).await.unwrap_err();
        assert_eq!(failure.kind, kps_proto::ErrorKind::InvalidPayload);
    });
}

#[test]
fn a_large_document_is_opened_in_parts() {
    run(async {
        let server = server().await;
        let (ann, bob) = (client(&server, "ann").await, client(&server, "bob").await);
        let ann = open_yjs(&ann).await;
        for number in 0..8 {
            ann.edit("text", append(&format!("{number}{}", "x".repeat(200_000)))).unwrap();
            ann.flush().await.unwrap();
        }
        let bob = open_yjs(&bob).await;
        assert_eq!(bob.text("text"), ann.text("text"));
    });
}
