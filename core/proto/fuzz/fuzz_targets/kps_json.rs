//! Any text ends in actions and refusals, and whatever a client sends as payload makes a frame
//! that is JSON.
#![no_main]

use bytes::BytesMut;
use kps_proto::{
    message::Payload,
    wire::kps_json::{Action, Json, Reply, actions, encode},
};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for action in actions(text) {
            match action {
                Ok(Action::Publish { topic, data, .. }) => check(&topic, &data.into()),
                Ok(Action::PublishToId { to, data, .. }) => check(&to, &data.into()),
                Ok(Action::ServerToServer { publish: Some((topic, data)), .. }) => {
                    check(&topic, &data.into());
                }
                _ => {}
            }
        }
    }
    let bytes = bytes.to_vec();
    for payload in [Payload::json(bytes.clone()), Payload::bytes(bytes)] {
        check("a", &Json::of(&payload));
    }
});

fn check(topic: &str, data: &Json<'_>) {
    let mut out = BytesMut::new();
    encode(&Reply::Publish { topic, from: "b", data }, &mut out);
    let fields: std::collections::HashMap<String, &RawValue> =
        serde_json::from_slice(&out).expect("a frame is JSON");
    assert_eq!(fields.len(), 3 + usize::from(!topic.is_empty()));
}
