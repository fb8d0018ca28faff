//! Whatever bytes a listener gets for requests, it answers or closes, and never by its own fault; and only what is
//! asked from an allowed host and origin becomes a WebSocket.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|request: &[u8]| kps::server::fuzz_upgrade(request));
