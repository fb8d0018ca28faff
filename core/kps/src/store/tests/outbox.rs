use std::time::Duration;

use kps_proto::{
    ErrorKind,
    message::{Extras, Offline},
};

use super::{super::outbox::*, *};

struct Outbox {
    outbox: OutboxFile,
    kept: Vec<Kept>,
    events: mpsc::Receiver<OutboxEvent>,
}

fn open(path: &Path) -> Outbox {
    let (sender, events) = mpsc::channel();
    let tell = move |event| {
        let _ = sender.send(event);
    };
    let (outbox, kept) = OutboxFile::open(path, tell).unwrap();
    Outbox { outbox, kept, events }
}

fn message(place: u64) -> Kept {
    Kept {
        place,
        destination: Destination::Topic("a".into()),
        retain: false,
        payload: Payload::json(format!("{place}").into_bytes()),
        extras: None,
        expires_ms: None,
        published_ms: place,
    }
}

#[test]
fn what_is_not_done_is_there_again() {
    let folder = Folder::new();
    let path = folder.path().join("outbox");
    let first = open(&path);
    assert_eq!(first.kept, []);
    let messages = [
        message(1),
        Kept { destination: Destination::Client("c".into()), expires_ms: Some(5), ..message(2) },
        Kept {
            destination: Destination::Server("ws://x".into()),
            payload: Payload::bytes(vec![0, 255]),
            extras: Some(Box::new(Extras {
                headers: vec![("a".into(), "b".into())],
                id: Some("id".into()),
                ttl: Some(Duration::from_millis(7)),
                to: Some(vec!["one".into()]),
                offline: Offline::Latest,
                ..Extras::default()
            })),
            ..message(9)
        },
        message(10),
    ];
    for message in &messages {
        first.outbox.push(message.clone());
    }
    first.outbox.done(10);
    first.outbox.close();
    let second = open(&path);
    assert_eq!(second.kept, messages[..3]);
    second.outbox.done(2);
    second.outbox.push(message(11));
    drop(second);
    let places: Vec<_> = open(&path).kept.iter().map(|kept| kept.place).collect();
    assert_eq!(places, [1, 9, 11]);
}

#[test]
fn commits_are_told_up_to_a_place() {
    let folder = Folder::new();
    let open = open(&folder.path().join("outbox"));
    for place in 1..=100 {
        open.outbox.push(message(place));
        open.outbox.done(place);
    }
    let mut last = 0;
    while last < 100 {
        let OutboxEvent::Committed { place } = open.events.recv().unwrap() else { panic!() };
        assert!(place > last);
        last = place;
    }
}

#[test]
fn one_process_has_the_outbox() {
    let folder = Folder::new();
    let path = folder.path().join("outbox");
    let first = open(&path);
    let error = OutboxFile::open(&path, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreFailed);
    assert!(error.message().contains("in use by another process"), "{error}");
    drop(first);
    open(&path);
}

#[test]
fn a_place_that_does_not_follow_stops_the_writing() {
    let folder = Folder::new();
    let path = folder.path().join("outbox");
    let first = open(&path);
    first.outbox.push(message(5));
    first.outbox.push(message(5));
    first.outbox.push(message(6));
    assert_eq!(first.events.recv().unwrap(), OutboxEvent::Committed { place: 5 });
    let OutboxEvent::Failed(error) = first.events.recv().unwrap() else { panic!() };
    assert_eq!(error.kind(), ErrorKind::StoreFailed);
    drop(first);
    assert_eq!(open(&path).kept, [message(5)]);
}

#[test]
fn a_store_is_no_outbox() {
    let folder = Folder::new();
    drop(Open::new(Some(folder.path()), |_| {}));
    let error = OutboxFile::open(&folder.file(), |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreCorrupt);
}

#[test]
fn a_large_outbox_that_was_emptied_becomes_small() {
    let folder = Folder::new();
    let path = folder.path().join("outbox");
    let first = open(&path);
    for place in 1..=100 {
        let payload = Payload::bytes(vec![0; 100_000]);
        first.outbox.push(Kept { payload, ..message(place) });
    }
    drop(first);
    let second = open(&path);
    assert_eq!(second.kept.len(), 100);
    (1..=100).for_each(|place| second.outbox.done(place));
    drop(second);
    assert!(std::fs::metadata(&path).unwrap().len() > 5_000_000);
    assert_eq!(open(&path).kept, []);
    assert!(std::fs::metadata(&path).unwrap().len() < 100_000);
}
