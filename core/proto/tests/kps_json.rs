//! KPS JSON as existing clients write and read it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use kps_proto::{
    Error, ErrorKind,
    message::{AckRow, HandlerError, Payload, RowStatus},
    wire::kps_json::{
        Action, Json, MAX_DEPTH, MAX_OBJECTS, Refusal, Reply, actions, direct_topic, encode,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};

/// The only action in `text`.
fn one(text: &str) -> Result<Action<'_>, Refusal<'_>> {
    let mut actions = actions(text);
    let first = actions.next().unwrap();
    assert!(actions.next().is_none());
    first
}

fn refused(text: &str) -> Refusal<'_> {
    one(text).unwrap_err()
}

fn encoded(reply: Reply<'_>) -> String {
    let mut out = BytesMut::new();
    encode(&reply, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn every_action_that_clients_send_is_read() {
    let cases = [
        (r#"{"action":"ping","from":"a"}"#, r#"Ping { from: "a" }"#),
        (r#"{"action":"ping"}"#, r#"Ping { from: "" }"#),
        (r#"{"action":"subscribe","topic":"t","from":"a"}"#, r#"Subscribe { topic: "t" }"#),
        (r#"{"action":"unsubscribe","topic":"t"}"#, r#"Unsubscribe { topic: "t" }"#),
        (
            r#"{"action":"publish","topic":"t","data":{"a": [1]},"from":"a"}"#,
            r#"Publish { topic: "t", data: RawValue({"a": [1]}), ack_id: None }"#,
        ),
        (
            r#"{"action":"publish_with_ack","topic":"t","data":1e400,"ack_id":"client_ack_a_1"}"#,
            r#"Publish { topic: "t", data: RawValue(1e400), ack_id: Some("client_ack_a_1") }"#,
        ),
        (
            r#"{"action":"direct_message","to":"b","data":"x"}"#,
            r#"PublishToId { to: "b", data: RawValue("x"), ack_id: None }"#,
        ),
        (
            r#"{"action":"publish_to_id_with_ack","to":"b","data":true,"ack_id":"1"}"#,
            r#"PublishToId { to: "b", data: RawValue(true), ack_id: Some("1") }"#,
        ),
        (
            r#"{"action":"publish_to_server","to":"h:1","data":0,"status":{"is_secure":true}}"#,
            r#"PublishToServer { to: "h:1", data: RawValue(0), secure: true }"#,
        ),
        (
            r#"{"action":"publish_to_server","to":"h:1","data":0}"#,
            r#"PublishToServer { to: "h:1", data: RawValue(0), secure: false }"#,
        ),
        (
            r#"{"action":"ack","ack_id":"1","data":{"ack_id":"1","client_id":"b","success":true}}"#,
            r#"Ack { ack_id: "1", success: true, error: "" }"#,
        ),
        (
            r#"{"action":"ack","data":{"ack_id":"1","success":false,"error":"no"}}"#,
            r#"Ack { ack_id: "1", success: false, error: "no" }"#,
        ),
        (r#"{"action":"get_ack_status","ack_id":"1"}"#, r#"GetAckStatus { ack_id: "1" }"#),
        (r#"{"action":"cancel_ack","ack_id":"1"}"#, r#"CancelAck { ack_id: "1" }"#),
        (
            r#"{"action":"server-to-server","to":"h","data":{"topic":"t","data":7}}"#,
            r#"ServerToServer { to: "h", data: RawValue({"topic":"t","data":7}), publish: Some(("t", RawValue(7))) }"#,
        ),
        (
            r#"{"action":"server-to-server","data":["t",7]}"#,
            r#"ServerToServer { to: "", data: RawValue(["t",7]), publish: None }"#,
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(format!("{:?}", one(text).unwrap()), expected);
    }
}

#[test]
fn no_data_and_null_are_the_same() {
    for text in [
        r#"{"action":"publish","topic":"t"}"#,
        r#" {"topic":"t", "data" : null ,"to":null,"action":"publish","unknown":[{}]} "#,
    ] {
        let Action::Publish { data, .. } = one(text).unwrap() else { panic!("not a publish") };
        assert_eq!(data.get(), "null");
    }
}

#[test]
fn escapes_in_strings_are_resolved_but_not_in_data() {
    let text = r#"{"action":"publish","topic":"\u00e9\"","data":"\u00e9\ud800"}"#;
    let Action::Publish { topic, data, .. } = one(text).unwrap() else { panic!("not a publish") };
    assert_eq!(topic, "é\"");
    assert_eq!(data.get(), r#""\u00e9\ud800""#);
}

#[test]
fn a_refusal_names_what_is_known() {
    let refusal = refused(r#"{"action":"publish_with_ack","ack_id":"7","data":1}"#);
    assert_eq!(refusal.error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(refusal.error.message(), "publish_with_ack needs `topic`");
    assert_eq!(refusal.ack_id, "7");

    let refusal = refused(r#"{"action":"explode","topic":"t"}"#);
    assert_eq!(refusal.error.kind(), ErrorKind::UnknownAction);
    assert_eq!(refusal.topic, "t");
}

#[test]
fn what_is_no_action_is_refused_by_its_kind() {
    let cases = [
        ("", ErrorKind::Protocol),
        ("{", ErrorKind::Protocol),
        ("[{}", ErrorKind::Protocol),
        (r#"{"action":"ping"} {}"#, ErrorKind::Protocol),
        (r#"{"action":"subscribe","topic":"\ud800"}"#, ErrorKind::Protocol),
        ("7", ErrorKind::InvalidArgument),
        ("[7]", ErrorKind::InvalidArgument),
        (r#"[["ping"]]"#, ErrorKind::InvalidArgument),
        (r#"{"action":"subscribe","topic":5}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"subscribe","topic":""}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"direct_message","data":1}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"ack","data":{"success":true}}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"ack","ack_id":"1"}"#, ErrorKind::InvalidArgument),
        (r#"{"action":"ack","ack_id":"1","data":["1",true]}"#, ErrorKind::InvalidArgument),
        ("{}", ErrorKind::UnknownAction),
        ("[{}]", ErrorKind::UnknownAction),
    ];
    for (text, kind) in cases {
        assert_eq!(refused(text).error.kind(), kind, "{text}");
    }
}

#[test]
fn a_refused_object_does_not_keep_its_neighbours_from_being_handled() {
    let text =
        r#"[{"action":"ping","from":"a"}, {"action":"?"}, 5, {"action":"subscribe","topic":"t"}]"#;
    let actions: Vec<_> = actions(text).collect();
    assert!(matches!(&actions[0], Ok(Action::Ping { .. })));
    assert!(
        matches!(&actions[1], Err(refusal) if refusal.error.kind() == ErrorKind::UnknownAction)
    );
    assert!(actions[2].is_err());
    assert!(matches!(&actions[3], Ok(Action::Subscribe { .. })));
    assert_eq!(actions.len(), 4);
}

#[test]
fn an_empty_array_is_a_frame_without_actions() {
    assert_eq!(actions("[]").count(), 0);
}

#[test]
fn depth_is_bounded_whatever_holds_it() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"action":"publish","topic":"t","data":{open}{close}}}"#)
    };
    assert!(one(&nested(MAX_DEPTH - 1)).is_ok());
    assert!(one(&format!("[{}]", nested(MAX_DEPTH - 1))).is_ok());
    assert_eq!(refused(&nested(MAX_DEPTH)).error.kind(), ErrorKind::LimitExceeded);
    for text in ["[".repeat(1 << 20), r#"{"a":"#.repeat(1 << 18), nested(1 << 20)] {
        assert_eq!(refused(&text).error.kind(), ErrorKind::LimitExceeded);
    }
    let brackets_in_strings =
        format!(r#"{{"action":"publish","topic":"t","data":"{}"}}"#, "\\\"[".repeat(1000));
    assert!(one(&brackets_in_strings).is_ok());
}

#[test]
fn a_frame_of_too_many_objects_is_refused_whole() {
    let array = |count: usize| format!("[{}]", vec![r#"{"action":"ping"}"#; count].join(","));
    assert_eq!(actions(&array(MAX_OBJECTS)).filter(Result::is_ok).count(), MAX_OBJECTS);
    assert_eq!(refused(&array(MAX_OBJECTS + 1)).error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn replies_read_as_clients_expect() {
    let payload = Payload::json(&br#"{"a":1}"#[..]);
    let data = &Json::of(&payload);
    let error = &Error::new(ErrorKind::NotRegistered, "client not registered; send `ping` first");
    let cases = [
        (Reply::Pong { id: "a\"b" }, r#"{"action":"pong","id":"a\"b"}"#),
        (Reply::Subscribed { topic: "t" }, r#"{"action":"subscribed","topic":"t"}"#),
        (Reply::Unsubscribed { topic: "t" }, r#"{"action":"unsubscribed","topic":"t"}"#),
        (Reply::Published { topic: "t" }, r#"{"action":"published","topic":"t"}"#),
        (
            Reply::AckStatus { ack_id: "1", status: &[("b", true), ("c", false)] },
            r#"{"action":"ack_status","ack_id":"1","status":{"b":true,"c":false}}"#,
        ),
        (Reply::AckCancelled { ack_id: "1" }, r#"{"action":"ack_cancelled","ack_id":"1"}"#),
        (Reply::ServerMessageSent { to: "h:1" }, r#"{"action":"server_message_sent","to":"h:1"}"#),
        (
            Reply::Publish { topic: "t", from: "b", data },
            r#"{"action":"publish","topic":"t","data":{"a":1},"from":"b"}"#,
        ),
        (
            Reply::PublishAck { topic: &direct_topic("b", 7), from: "", ack_id: "9", data },
            r#"{"action":"publish_ack","topic":"__direct_b_7","data":{"a":1},"ack_id":"9"}"#,
        ),
        (
            Reply::DirectMessage { from: "b", data },
            r#"{"action":"direct_message","data":{"a":1},"from":"b"}"#,
        ),
        (Reply::Ping { from: "s" }, r#"{"action":"ping","from":"s"}"#),
        (
            Reply::ServerToServer { to: "h:1", data },
            r#"{"action":"server-to-server","to":"h:1","data":{"a":1}}"#,
        ),
        (
            Reply::Error { error, topic: "t", ack_id: "" },
            r#"{"action":"error","error":"not_registered: client not registered; send `ping` first","topic":"t"}"#,
        ),
    ];
    for (reply, expected) in cases {
        assert_eq!(encoded(reply), expected);
    }
}

#[test]
fn an_ack_response_holds_every_row() {
    let row = |client_id: &str, status, error| AckRow {
        client_id: Arc::from(client_id),
        status,
        error,
        data: None,
        latency: Duration::ZERO,
    };
    let error = HandlerError { kind: "ValueError".into(), text: "no".into() };
    let rows = [
        row("b", RowStatus::Acked, None),
        row("c", RowStatus::Failed, Some(error)),
        row("d", RowStatus::Timeout, None),
    ];
    assert_eq!(
        encoded(Reply::AckResponse { ack_id: "1", rows: &rows }),
        concat!(
            r#"{"action":"ack_response","ack_id":"1","responses":{"#,
            r#""b":{"ack_id":"1","client_id":"b","success":true},"#,
            r#""c":{"ack_id":"1","client_id":"c","success":false,"error":"ValueError: no"},"#,
            r#""d":{"ack_id":"1","client_id":"d","success":false,"error":"d did not answer: timeout"}}}"#,
        )
    );
    assert_eq!(
        encoded(Reply::AckResponse { ack_id: "1", rows: &[] }),
        r#"{"action":"ack_response","ack_id":"1","responses":{}}"#
    );
}

#[test]
fn payloads_that_are_not_json_travel_as_strings() {
    let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    let cases = [
        (Payload::text("a\"b\n"), r#""a\"b\n""#.to_owned()),
        (Payload::bytes(&[0xff, 0][..]), r#""/wA=""#.to_owned()),
        (Payload::json(&br#"1,"action":"ping""#[..]), r#""1,\"action\":\"ping\"""#.to_owned()),
        (Payload::json(&b""[..]), r#""""#.to_owned()),
        (Payload::json(&[b'"', 0xff, b'"'][..]), r#""Iv8i""#.to_owned()),
        (Payload::json(deep.clone()), format!("\"{deep}\"")),
        (Payload::json(deep[1..deep.len() - 1].to_owned()), deep[1..deep.len() - 1].to_owned()),
    ];
    for (payload, expected) in cases {
        assert_eq!(Json::of(&payload).as_str(), expected);
    }
}

proptest! {
    #[test]
    fn any_text_ends_in_actions_and_refusals(text in any::<String>()) {
        actions(&text).for_each(drop);
    }

    #[test]
    fn any_pieces_of_actions_end_in_actions_and_refusals(pieces in vec(piece(), 0..30)) {
        actions(&pieces.concat()).for_each(drop);
    }

    #[test]
    fn any_payload_makes_a_frame_that_is_json(
        content_type in 0..3_u8,
        bytes in prop_oneof![
            vec(any::<u8>(), 0..50),
            vec(piece(), 0..10).prop_map(|pieces| pieces.concat().into_bytes()),
        ],
        from in any::<String>(),
    ) {
        let payload = Payload {
            content_type: kps_proto::message::ContentType::from_number(content_type).unwrap(),
            bytes: bytes.into(),
        };
        let frame = encoded(Reply::DirectMessage { from: &from, data: &Json::of(&payload) });
        let value: serde_json::Value = serde_json::from_str(&frame).unwrap();
        prop_assert_eq!(value["action"].as_str(), Some("direct_message"));
        prop_assert_eq!(value["from"].as_str().unwrap_or_default(), from);
    }
}

fn piece() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "null",
            "1",
            "\"action\":",
            "\"publish\"",
            "\"ack\"",
            "\"topic\":\"t\"",
            "\"data\":",
            "\"ack_id\":\"1\"",
            " ",
        ][..],
    )
}
