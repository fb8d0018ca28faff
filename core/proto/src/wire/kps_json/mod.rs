//! KPS JSON: what KPS programs speak when they offer no WebSocket subprotocol.
//!
//! One text frame holds one JSON object, or an array of them. [`actions`] reads what a client
//! sends, [`encode`] writes what a server sends. A payload is never decoded on its way: `data`
//! stays the JSON text that the client wrote.
//!
//! Payloads that are not JSON travel in `data` as strings: text as it is, bytes in base64 (RFC
//! 4648, with padding). A KPS JSON client has no way to tell them from JSON strings.

mod action;
mod base64;
mod reply;

pub use action::{Action, Actions, Refusal, actions};
pub use reply::{Json, Reply, direct_topic, encode};

/// How deep arrays and objects may lie within each other, the action's own object included.
/// 128: where serde_json stops, so that whoever decodes `data` can.
pub const MAX_DEPTH: usize = 128;

/// How many objects one frame may hold. A refused one costs its sender three bytes and the server
/// a reply of about a hundred.
pub const MAX_OBJECTS: usize = 4096;

/// Whether arrays and objects of `json` lie deeper than `limit` within each other. What it says of
/// text that is not JSON means nothing.
fn deeper_than(limit: usize, json: &str) -> bool {
    // Few brackets cannot be deep; counting them is many times faster than following strings.
    let opening = json.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    opening > limit && depth(json) > limit
}

fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => _ = bytes.next(),
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
