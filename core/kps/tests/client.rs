//! The Rust face: what DESIGN's table of methods promises, as a Rust program calls it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::{collections::HashMap, time::Duration};

use kps::{
    Client, ClientState, ConnectOptions, ErrorKind, Event, Json, Received, Server, ServerOptions,
    To,
    message::{Extras, Payload, ReceiptLevel, RowStatus},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn server() -> Server {
    Server::start(ServerOptions::listen("127.0.0.1:0")).unwrap()
}

async fn client(server: &Server, id: &str) -> Client {
    let options = ConnectOptions { id: Some(id.into()), ..ConnectOptions::new(server.url()) };
    Client::connect(options).await.unwrap()
}

#[tokio::test]
async fn messages_carry_what_the_publisher_gave_them() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut subscription = b.subscribe("x.>").await.unwrap();
    let extras = Extras {
        headers: vec![("k".into(), "v".into())],
        id: Some("mine".into()),
        ttl: Some(PATIENCE),
        ..Extras::default()
    };
    let receipt =
        a.publish_with(To::Topic("x.y"), "text", &extras, Some(ReceiptLevel::Accepted)).unwrap();
    assert_eq!(receipt.id(), "mine");
    assert_eq!(receipt.await.unwrap(), ReceiptLevel::Accepted);
    let second = a.publish("x.z", vec![0u8, 1]).unwrap();
    let message = subscription.message().await.unwrap();
    assert_eq!((&*message.topic, &message.payload), ("x.y", &Payload::text("text")));
    assert_eq!((message.id(), message.headers()), ("mine".into(), &*extras.headers));
    assert_eq!(message.sender.id, "a");
    let message = subscription.message().await.unwrap();
    assert_eq!((message.id(), &message.payload), (second.id(), &Payload::bytes(vec![0u8, 1])));
    assert_eq!(second.await.unwrap(), ReceiptLevel::Queued);
    subscription.unsubscribe().await;
    assert_eq!(server.count_subscribers("x.y"), 0);
}

#[tokio::test]
async fn an_ack_tells_rows_as_they_come_and_all_together() {
    let server = server();
    let (a, b, c) =
        (client(&server, "a").await, client(&server, "b").await, client(&server, "c").await);
    let mut good = b.subscribe("t").await.unwrap();
    let mut bad = c.subscribe("t").await.unwrap();
    let mut ack = a.publish_with_ack("t", Json(1), PATIENCE).unwrap();
    good.message().await.unwrap().respond(Json("done")).unwrap();
    let first = ack.wait_any().await.unwrap().unwrap();
    assert_eq!((&*first.client_id, first.success()), ("b", true));
    assert_eq!(ack.status(), HashMap::from([("b".into(), true), ("c".into(), false)]));
    assert!(!ack.is_complete());
    bad.message().await.unwrap().fail("Oops", "broken").unwrap();
    let rows = ack.wait().await.unwrap();
    assert_eq!(rows["b"].data, Some(Payload::json("\"done\"")));
    assert_eq!(rows["c"].status, RowStatus::Failed);
    assert_eq!(rows["c"].error.as_ref().unwrap().kind, "Oops");
    let mut ids = Vec::new();
    while let Some(row) = ack.next().await.unwrap() {
        ids.push(row.client_id.to_string());
    }
    assert_eq!(ids, ["b", "c"]);
    let empty = a.publish_with_ack("nobody", (), PATIENCE).unwrap();
    assert!(empty.wait().await.unwrap().is_empty());
    assert_eq!(empty.wait_any().await.unwrap(), None);
}

#[tokio::test]
async fn asking_for_the_next_message_acks_the_one_before() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut subscription = b.subscribe("t").await.unwrap();
    let ack = a.publish_with_ack("t", (), PATIENCE).unwrap();
    subscription.message().await.unwrap();
    a.publish("t", ()).unwrap();
    subscription.message().await.unwrap();
    assert_eq!(ack.wait().await.unwrap()["b"].status, RowStatus::Acked);
    let ack = a.publish_with_ack("t", (), PATIENCE).unwrap();
    a.flush().await.unwrap();
    drop(subscription);
    assert_eq!(ack.wait().await.unwrap()["b"].status, RowStatus::NoHandler);
}

#[tokio::test]
async fn a_cancelled_ack_ends_its_open_rows() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut subscription = b.subscribe("t").await.unwrap();
    let ack = a.publish_with_ack("t", (), PATIENCE).unwrap();
    let message = subscription.message().await.unwrap();
    while ack.status().is_empty() {
        a.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    ack.cancel();
    assert_eq!(ack.wait().await.unwrap()["b"].status, RowStatus::Cancelled);
    drop(message);
}

#[tokio::test]
async fn requests_are_answered_by_handlers_that_overlap() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let subscription = b.subscribe("double").await.unwrap();
    // Each handler waits until all four run: only with overlap can they end.
    let together = tokio::sync::Barrier::new(4);
    let serving = subscription.serve(4, async |message| {
        together.wait().await;
        message.json::<u64>().map(|n| Json(n * 2))
    });
    let asking = async {
        let asked = |n: u64| a.request("double", Json(n), PATIENCE);
        let (w, x, y, z) = tokio::join!(asked(1), asked(2), asked(3), asked(4));
        for (n, answer) in [w, x, y, z].into_iter().enumerate() {
            let twice = (2 * (n + 1)).to_string();
            assert_eq!(answer.unwrap(), Payload::json(twice));
        }
        let error = a.request("nobody", (), PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoResponders);
        b.close().await;
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn a_request_fails_when_nobody_can_answer_any_more_or_in_time() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut subscription = b.subscribe("t").await.unwrap();
    let refusing = async { subscription.message().await.unwrap().fail("E", "no").unwrap() };
    let (answer, ()) = tokio::join!(a.request("t", (), PATIENCE), refusing);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::HandlerFailed);
    let answer = a.request("t", (), Duration::from_millis(30)).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
    let (answer, _) = tokio::join!(a.request("t", (), PATIENCE), async {
        subscription.message().await.unwrap();
        b.close_within(Duration::ZERO).await
    });
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_dropped_request_is_cancelled_and_its_late_answer_goes_to_nobody() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let mut subscription = b.subscribe("t").await.unwrap();
    let message = tokio::select! {
        message = subscription.message() => message.unwrap(),
        _ = a.request("t", Json(1), PATIENCE) => panic!("nobody answered yet"),
    };
    a.flush().await.unwrap();
    // The next request gets its own answer, not the late one.
    let _ = message.respond(Json("late"));
    let answering = async {
        let message = subscription.message().await.unwrap();
        message.respond(Json("mine")).unwrap();
    };
    let (answer, ()) = tokio::join!(a.request("t", Json(2), PATIENCE), answering);
    assert_eq!(answer.unwrap(), Payload::json("\"mine\""));
}

#[tokio::test]
async fn a_cancelled_request_stops_its_handler() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let subscription = b.subscribe("t").await.unwrap();
    let (started, stopped) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    struct Stopping<'a>(&'a tokio::sync::Notify);
    impl Drop for Stopping<'_> {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let serving = subscription.serve(1, async |_| {
        let _stopping = Stopping(&stopped);
        started.notify_one();
        std::future::pending::<kps::Result<()>>().await
    });
    let cancelling = async {
        tokio::select! {
            _ = a.request("t", (), PATIENCE) => panic!("nobody answers"),
            () = started.notified() => {}
        }
        stopped.notified().await;
    };
    tokio::select! {
        () = serving => panic!("the subscription stays open"),
        () = cancelling => {}
    }
    // With the whole server loop gone, so is the subscription.
    assert_eq!(a.request("t", (), PATIENCE).await.unwrap_err().kind(), ErrorKind::NoResponders);
}

#[tokio::test]
async fn direct_messages_and_their_acks() {
    let server = server();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    let ack = a.publish_to_id_with_ack("b", (), PATIENCE).unwrap();
    assert_eq!(ack.wait().await.unwrap()["b"].status, RowStatus::NoHandler);
    let mut direct = b.direct();
    a.publish_to_id("b", "hello").unwrap();
    assert_eq!(direct.message().await.unwrap().payload, Payload::text("hello"));
    b.close().await;
    assert!(matches!(direct.next().await, Some(Received::Closed(_))));
    assert!(direct.next().await.is_none());
}

#[tokio::test]
async fn news_tell_of_the_connection_and_its_end() {
    let server = server();
    let options = ConnectOptions { wait: false, ..ConnectOptions::new(server.url()) };
    let client = Client::connect(options).await.unwrap();
    let mut news = client.events();
    client.bridge().ready().await.unwrap();
    assert_eq!(client.state(), ClientState::Connected);
    let report = client.close().await;
    assert!(report.abandoned.is_empty());
    let mut states = Vec::new();
    while let Some(event) = news.next().await {
        if let Event::State { state, .. } = event {
            states.push(state);
        }
    }
    assert_eq!(states.last(), Some(&ClientState::Closed));
    assert_eq!(client.publish("t", ()).unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn above_the_soft_bound_receipts_wait_and_at_the_hard_bound_publish_fails() {
    let options = ConnectOptions {
        wait: false,
        outbox_soft: 1_000,
        outbox_hard: 2_000,
        ..ConnectOptions::new("mem://later")
    };
    let client = Client::connect(options).await.unwrap();
    let full = loop {
        if let Err(error) = client.publish("t", "0123456789".repeat(10)) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::OutboxFull);
    let late = client.clone();
    let waiting = tokio::spawn(async move {
        late.flush().await.unwrap();
        late.publish("t", ()).unwrap().await
    });
    let server = Server::start(ServerOptions::listen("mem://later")).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), ReceiptLevel::Queued);
    let ledger = client.ledger().published;
    assert_eq!((ledger.failed, ledger.abandoned), (0, 0));
    client.close().await;
    drop(server);
}
