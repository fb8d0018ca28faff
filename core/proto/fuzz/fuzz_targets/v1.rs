//! Any bytes end in frames or one protocol error, and what was read is written back to the same.
#![no_main]

use bytes::BytesMut;
use kps_proto::{
    ErrorKind,
    wire::{Frames, encode, frame::Frame},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut items = Frames::new(bytes);
    let mut frames = Vec::new();
    for item in items.by_ref() {
        match item {
            Ok(frame) => frames.push(frame),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Protocol),
        }
    }
    assert!(items.next().is_none());
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| encode(frame, &mut out));
    let again: Vec<Frame<'_>> = Frames::new(&out).collect::<Result<_, _>>().expect("our own bytes");
    assert_eq!(again, frames);
});
