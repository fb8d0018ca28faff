use std::time::Duration;

use kps_proto::{
    ErrorKind,
    message::{ContentType, Extras},
};
use rusqlite::Connection;

use super::*;
use crate::store::verify;

fn retained(open: &mut Open, topic: &str, payload: &str) -> Record {
    let mut record = open.record(topic, payload);
    open.next -= 1;
    record.position = 0;
    record
}

fn write(record: &Record) -> Write {
    Write::Retained(Box::new(record.clone()))
}

#[test]
fn the_last_value_of_each_topic_is_there_again() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    let old = retained(&mut open, "a", "old");
    let plain = Record { time_ms: 2_000_000, ..retained(&mut open, "a", "new") };
    let mut rich = retained(&mut open, "a", "");
    rich.namespace = "tenant".into();
    rich.position = 1;
    rich.maybe_duplicate = true;
    rich.payload = Payload { content_type: ContentType::Bytes, bytes: vec![0, 255, 7].into() };
    rich.expires_ms = Some(3_000_000);
    rich.extras = Some(Box::new(Extras {
        headers: vec![("name".into(), "value\n".into())],
        id: Some("my id".into()),
        ttl: Some(Duration::from_millis(1500)),
        ..Extras::default()
    }));
    let gone = retained(&mut open, "gone", "x");
    let message = open.record("a", "kept as well");
    open.commit(vec![record_of(&message), write(&old), write(&gone), write(&plain), write(&rich)]);
    open.commit(vec![Write::RetainedEnded("".into(), "gone".into())]);
    open.commit(vec![Write::RetainedEnded("".into(), "never was".into())]);
    open.store.close();

    let open = Open::new(Some(folder.path()), |options| options.epoch = 2);
    assert_eq!(open.recovered.retained, [rich, plain]);
    let verdict = verify(folder.path()).unwrap();
    assert_eq!((verdict.retained, verdict.findings), (2, vec![]));
}

#[test]
fn a_commit_says_how_many_changes_it_had() {
    let mut open = Open::new(None, |_| {});
    let value = retained(&mut open, "a", "1");
    let ended = Write::RetainedEnded("".into(), "a".into());
    open.store.write(vec![write(&value), write(&value), ended]);
    let said = open.events.recv().unwrap();
    assert_eq!(said, StoreEvent::Committed { position: 0, retained: 3 });
}

#[test]
fn damage_and_loss_are_noticed() {
    for damage in [
        "UPDATE retained SET payload = x'00'",
        "DELETE FROM retained WHERE topic = 'a'",
        "DELETE FROM retained_state",
        "UPDATE retained_state SET retained = retained + 1",
    ] {
        let folder = Folder::new();
        let mut open = Open::new(Some(folder.path()), |_| {});
        let (a, b) = (retained(&mut open, "a", "1"), retained(&mut open, "b", "2"));
        open.commit(vec![write(&a), write(&b)]);
        open.store.close();
        let connection = Connection::open(folder.path().join("kps.db")).unwrap();
        connection.execute_batch(damage).unwrap();
        connection.close().unwrap();
        assert!(!verify(folder.path()).unwrap().findings.is_empty(), "{damage}");
        let error = Open::try_new(Some(folder.path()), |options| options.epoch = 2).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::StoreCorrupt, "{damage}");
    }
}
