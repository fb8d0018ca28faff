//! The face for host loops against a server in the same process, over `ws://` and `mem://`.

mod common;

use std::time::Duration;

use common::{Host, json, publish, server};
use kps::{
    AckRequest, Bridge, ClientState, ConnectOptions, ErrorKind, Event, FlushHint, PublishOptions,
    SubId, To,
    message::{Answer, ContentType, Payload, ReceiptLevel},
    options::SubscribeOptions,
};

#[test]
fn what_is_published_reaches_the_subscriber_over_each_transport() {
    let server = server();
    for bridge in [
        Bridge::start(ConnectOptions::new(server.url())).unwrap(),
        server.connect(ConnectOptions::default()).unwrap(),
    ] {
        let mut host = Host::new(&bridge);
        let sub = host.subscribe("a.*");
        for n in 0..1000 {
            publish(&bridge, "a.b", &n.to_string());
        }
        bridge.flush_now();
        for n in 0..1000 {
            let message = host.message(sub);
            assert_eq!(
                (&*message.topic, &*message.payload.bytes),
                ("a.b", n.to_string().as_bytes())
            );
            bridge.consumed(sub, 1, FlushHint::Later);
        }
        let report = host.close();
        assert!(report.abandoned.is_empty(), "{report:?}");
        assert_eq!(bridge.state(), ClientState::Closed);
    }
}

#[test]
fn an_ack_has_a_row_for_each_recipient() {
    let server = server();
    let publisher = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let subscriber = Bridge::start(ConnectOptions {
        id: Some("worker".into()),
        ..ConnectOptions::new(server.url())
    })
    .unwrap();
    let (mut publishers, mut subscribers) = (Host::new(&publisher), Host::new(&subscriber));
    let sub = subscribers.subscribe("jobs");
    let ack =
        AckRequest { timeout: Duration::from_secs(5), request: false, target: publishers.target };
    let options = PublishOptions { ack: Some(ack), ..PublishOptions::default() };
    let number = publisher
        .publish(To::Topic("jobs"), ContentType::Json, b"1", options, FlushHint::Now)
        .unwrap();
    let (message, delivery) = subscribers.delivery(sub);
    assert_eq!(message.number, number);
    subscriber.answer(delivery, Answer::Acked(json("42")), FlushHint::Now).unwrap();
    publishers.until(|event| match event {
        Event::Recipients { ack, clients } if *ack == number => {
            assert_eq!(clients.iter().map(|id| &**id).collect::<Vec<_>>(), ["worker"]);
            Some(())
        }
        _ => None,
    });
    publishers.until(|event| match event {
        Event::Row { ack, row } if *ack == number => {
            assert_eq!(row.data, Some(json("42")));
            Some(())
        }
        _ => None,
    });
    publishers.until(|event| {
        matches!(event, Event::AckDone { ack, error: None } if *ack == number).then_some(())
    });
}

#[test]
fn a_request_is_answered_once_or_says_why_not() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let mut host = Host::new(&bridge);
    let request = |host: &Host| {
        let timeout = Duration::from_secs(5);
        let ack = AckRequest { timeout, request: true, target: host.target };
        let options = PublishOptions { ack: Some(ack), ..PublishOptions::default() };
        bridge.publish(To::Topic("ask"), ContentType::Json, b"1", options, FlushHint::Now).unwrap()
    };
    let outcome = |host: &mut Host, number| {
        host.until(|event| match event {
            Event::RequestDone { ack, result } if *ack == number => Some(result.clone()),
            _ => None,
        })
    };
    let number = request(&host);
    assert_eq!(outcome(&mut host, number).unwrap_err().kind(), ErrorKind::NoResponders);
    let sub = host.subscribe("ask");
    let number = request(&host);
    let (_, delivery) = host.delivery(sub);
    bridge.answer(delivery, Answer::Acked(json("\"yes\"")), FlushHint::Now).unwrap();
    assert_eq!(outcome(&mut host, number).unwrap().data, Some(json("\"yes\"")));
}

#[test]
fn receipts_and_flushes_are_told_once() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let mut host = Host::new(&bridge);
    let number = publish(&bridge, "t", "1");
    if !bridge.watch(number, ReceiptLevel::Accepted, host.target).unwrap() {
        host.until(|event| {
            matches!(event, Event::Receipt { number: n, .. } if *n == number).then_some(())
        });
    }
    assert!(bridge.watch(number, ReceiptLevel::Accepted, host.target).unwrap());
    publish(&bridge, "t", "2");
    let token = bridge.flush_event(host.mailbox());
    host.until(|event| {
        matches!(event, Event::Flushed { token: t, error: None } if *t == token).then_some(())
    });
    let token = bridge.flush_event(host.mailbox());
    host.until(|event| {
        matches!(event, Event::Flushed { token: t, error: None } if *t == token).then_some(())
    });
}

#[test]
fn a_server_that_comes_back_is_found_again_and_subscriptions_go_on() {
    let first = server();
    let address = first.address();
    let bridge = Bridge::start(ConnectOptions {
        reconnect_min: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(20),
        ..ConnectOptions::new(first.url())
    })
    .unwrap();
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    host.wait(first.close(Duration::from_secs(1)));
    drop(first);
    host.state(ClientState::Reconnecting);
    publish(&bridge, "t", "\"meanwhile\"");
    let _second = common::server_at(&address);
    host.state(ClientState::Connected);
    let gap = host.until(|event| match event {
        Event::Gap { sub: s, gap } if *s == sub => Some(gap.clone()),
        Event::Message { .. } => panic!("the gap comes before the messages"),
        _ => None,
    });
    assert_eq!(gap.count, None);
    publish(&bridge, "t", "\"after\"");
    bridge.flush_now();
    // What waited in the outbox was sent before the subscription was made again, or after it.
    let first = host.message(sub);
    if &*first.payload.bytes != b"\"after\"" {
        assert_eq!(&*host.message(sub).payload.bytes, b"\"after\"");
    }
}

#[test]
fn a_wrong_url_a_dead_port_and_a_foreign_server_are_told_apart() {
    let wrong = Bridge::start(ConnectOptions::new("http://127.0.0.1")).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidArgument);
    // Bound, so that nobody else takes the port, but not listening.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let options = |url: String| ConnectOptions {
        timeout: Duration::from_millis(300),
        ..ConnectOptions::new(url)
    };
    let dead = Bridge::start(options(format!("ws://127.0.0.1:{port}"))).unwrap();
    let error = common::block_on(dead.ready()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error}");
    let server = server();
    let lost = Bridge::start(options(format!("{}/nowhere", server.url()))).unwrap();
    let error = common::block_on(lost.ready()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error}");
    assert!(error.message().contains("404"), "{error}");
}

#[test]
fn without_a_server_a_close_says_what_it_abandoned() {
    let bridge = Bridge::start(ConnectOptions::new("mem://nobody")).unwrap();
    let number = publish(&bridge, "t", "1");
    let report = common::block_on(bridge.close(Duration::from_millis(20)));
    assert_eq!(report.abandoned, [bridge.message_id(number)]);
    let error = bridge
        .publish(To::Topic("t"), ContentType::Json, b"1", PublishOptions::default(), FlushHint::Now)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_mailbox_that_is_gone_ends_its_subscriptions() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let mut stays = Host::new(&bridge);
    let mut goes = Host::new(&bridge);
    goes.subscribe("t");
    assert_eq!(server.count_subscribers("t"), 1);
    let ack = AckRequest { timeout: Duration::from_secs(5), request: false, target: stays.target };
    goes.mailbox().close();
    let options = PublishOptions { ack: Some(ack), ..PublishOptions::default() };
    bridge.publish(To::Topic("t"), ContentType::Json, b"1", options, FlushHint::Now).unwrap();
    let status = stays.until(|event| match event {
        Event::Row { row, .. } => Some(row.status),
        _ => None,
    });
    assert_eq!(status, kps::message::RowStatus::NoHandler);
    // Its message could not be handed over: the server has forgotten the subscription, or will
    // have when it has read what it was sent before this answer.
    let token = bridge.flush_event(stays.mailbox());
    stays.until(|event| {
        matches!(event, Event::Flushed { token: t, .. } if *t == token).then_some(())
    });
    stays.subscribe("other");
    assert_eq!(server.count_subscribers("t"), 0);
}

#[test]
fn a_loop_that_ends_answers_what_it_had_with_no_handler() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let (mut stays, mut goes) = (Host::new(&bridge), Host::new(&bridge));
    let sub = goes.subscribe("t");
    let ack = AckRequest { timeout: Duration::from_secs(5), request: false, target: stays.target };
    let options = PublishOptions { ack: Some(ack), ..PublishOptions::default() };
    bridge.publish(To::Topic("t"), ContentType::Json, b"1", options, FlushHint::Now).unwrap();
    goes.delivery(sub);
    bridge.detach(goes.mailbox());
    let status = stays.until(|event| match event {
        Event::Row { row, .. } => Some(row.status),
        _ => None,
    });
    assert_eq!(status, kps::message::RowStatus::NoHandler);
}

#[test]
fn direct_messages_come_to_one_mailbox() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions {
        id: Some("me".into()),
        ..ConnectOptions::new(server.url())
    })
    .unwrap();
    let mut first = Host::new(&bridge);
    let mut second = Host::new(&bridge);
    let send = |text: &str| {
        let options = PublishOptions::default();
        let to = To::Client("me");
        bridge.publish(to, ContentType::Text, text.as_bytes(), options, FlushHint::Now).unwrap();
    };
    send("one");
    assert_eq!(first.message(SubId::DIRECT).payload, Payload::text("one"));
    bridge.direct_to(second.mailbox());
    send("two");
    assert_eq!(second.message(SubId::DIRECT).payload, Payload::text("two"));
    assert!(first.drained().iter().all(|event| !matches!(event, Event::Message { .. })));
}

#[test]
fn a_host_that_breaks_its_promise_to_flush_is_helped() {
    let server = server();
    let bridge = Bridge::start(ConnectOptions::new(server.url())).unwrap();
    let mut host = Host::new(&bridge);
    let sub = host.subscribe("t");
    for n in 0..20 {
        let options = PublishOptions::default();
        let payload = n.to_string();
        bridge
            .publish(
                To::Topic("t"),
                ContentType::Json,
                payload.as_bytes(),
                options,
                FlushHint::Later,
            )
            .unwrap();
    }
    for n in 0..20 {
        assert_eq!(&*host.message(sub).payload.bytes, n.to_string().as_bytes());
    }
    let options = SubscribeOptions::default();
    assert_eq!(
        bridge.subscribe(host.mailbox(), "", options).unwrap_err().kind(),
        ErrorKind::InvalidTopic
    );
}
