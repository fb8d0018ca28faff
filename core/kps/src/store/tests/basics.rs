use std::{sync::Arc, time::Duration};

use kps_proto::{
    ErrorKind,
    history::{KeptSession, Progress, ReadFrom, Write},
    message::{ContentType, Extras, Offline, Payload, Sender},
};

use super::*;
use crate::store::StoreReader;

#[test]
fn what_was_written_comes_back_whole() {
    let folder = Folder::new();
    for dir in [None, Some(folder.path())] {
        let mut open = Open::new(dir, |_| {});
        let plain = open.record("a.b", "plain");
        let mut rich = open.record("a.c", "");
        rich.namespace = "tenant".into();
        rich.sender = Arc::new(Sender { id: "bob".into(), origin: "elsewhere".into() });
        rich.maybe_duplicate = true;
        rich.payload = Payload { content_type: ContentType::Bytes, bytes: vec![0, 255, 7].into() };
        rich.expires_ms = Some(u64::MAX);
        rich.extras = Some(Box::new(Extras {
            headers: vec![("name".into(), "value\0".into()), (String::new(), "\n".into())],
            id: Some("my id".into()),
            ttl: Some(Duration::from_millis(1500)),
            to: Some(vec!["bob".into(), "principal:alice\n\\".into(), String::new()]),
            private: true,
            offline: Offline::Latest,
        }));
        open.commit(vec![record_of(&plain), record_of(&rich)]);
        let page = open.read(">", ReadFrom::After(0));
        assert_eq!((page.records, page.through), (vec![plain], 2));
        let mut tenant = query(">", ReadFrom::After(0));
        tenant.namespace = "tenant".into();
        assert_eq!(open.store.read_now(&tenant).unwrap().records, [rich]);
    }
}

#[test]
fn a_store_that_is_opened_again_continues() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    assert_eq!(open.recovered.epochs, [(1, 0)]);
    let first = open.add("a", "one");
    open.store.close();

    let mut open = Open::new(Some(folder.path()), |options| options.epoch = 5);
    assert_eq!(open.recovered.position, 1);
    assert_eq!(open.recovered.epochs, [(1, 1), (5, 0)]);
    let second = open.add("a", "two");
    assert_eq!((second.position, second.epoch), (2, 5));
    assert_eq!(open.read("a", ReadFrom::After(0)).records, [first, second]);
    drop(open);

    // The clock was set back.
    let open = Open::new(Some(folder.path()), |options| options.epoch = 3);
    assert_eq!(open.recovered.epoch, 6);
    assert_eq!(open.recovered.epochs, [(1, 1), (5, 2), (6, 0)]);
}

#[test]
fn dropping_the_last_handle_writes_what_is_queued() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    for _ in 0..100 {
        let record = open.record("a", "x");
        open.store.clone().write(vec![record_of(&record)]);
    }
    drop(open);
    assert!(!folder.path().join("kps.db-wal").exists(), "the log was moved into the database");
    assert_eq!(Open::new(Some(folder.path()), |_| {}).recovered.position, 100);
}

#[test]
fn a_closed_store_refuses_reads_and_ignores_writes() {
    let folder = Folder::new();
    for dir in [None, Some(folder.path())] {
        let mut open = Open::new(dir, |_| {});
        open.add("a", "x");
        let store = open.store.clone();
        open.store.close();
        store.write(vec![]);
        let error = store.read_now(&query("a", ReadFrom::After(0))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[test]
fn handles_may_be_dropped_by_callbacks() {
    for dir in [None, Some(Folder::new())] {
        let open = Open::new(dir.as_ref().map(Folder::path), |_| {});
        let Open { store, events, .. } = open;
        let handle = store.clone();
        store.read(query("a", ReadFrom::After(0)), move |page| {
            page.unwrap();
            drop(handle);
        });
        drop(store);
        // The writer's end drops the sender.
        while events.recv().is_ok() {}
    }
}

#[test]
fn positions_that_do_not_follow_stop_the_writing() {
    let mut open = Open::new(None, |_| {});
    let good = open.record("a", "1");
    let mut gap = open.record("a", "2");
    gap.position += 1;
    let late = open.record("a", "3");
    open.store.write(vec![record_of(&good)]);
    open.store.write(vec![record_of(&gap)]);
    open.store.write(vec![record_of(&late)]);
    assert_eq!(open.events.recv().unwrap(), StoreEvent::Committed { position: 1, retained: 0 });
    let StoreEvent::Failed(error) = open.events.recv().unwrap() else { panic!() };
    assert_eq!(error.kind(), ErrorKind::StoreFailed);
    assert_eq!(open.read("a", ReadFrom::After(0)).records, [good]);
}

#[test]
fn a_message_of_another_epoch_stops_the_writing() {
    let mut open = Open::new(None, |_| {});
    let mut record = open.record("a", "1");
    record.epoch += 1;
    open.store.write(vec![record_of(&record)]);
    assert!(matches!(open.events.recv().unwrap(), StoreEvent::Failed(_)));
}

#[test]
fn one_process_writes_and_others_read_beside_it() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    let error = Open::try_new(Some(folder.path()), |_| {}).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreFailed);
    assert!(error.message().contains("in use by another process"), "{error}");

    let mut reader = StoreReader::open(folder.path()).unwrap();
    let first = open.add("a", "1");
    assert_eq!(reader.read(&query(">", ReadFrom::After(0))).unwrap().records, [first]);
    let second = open.add("b", "2");
    assert_eq!(reader.read(&query(">", ReadFrom::After(1))).unwrap().records, [second]);
    open.store.close();
    assert_eq!(reader.read(&query(">", ReadFrom::After(0))).unwrap().records.len(), 2);
    Open::new(Some(folder.path()), |_| {});
}

#[test]
fn a_reader_needs_a_store() {
    let folder = Folder::new();
    let error = StoreReader::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreFailed);
    assert!(!folder.file().exists());
}

fn session(origin: &str, published: u64) -> KeptSession {
    KeptSession { origin: origin.into(), published }
}

#[test]
fn sessions_are_kept_for_their_window_before_the_last_commit() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let adjust = |options: &mut StoreOptions| {
        let clock = clock.clone();
        options.now = Arc::new(move || clock.load(Ordering::Relaxed));
        options.steady = options.now.clone();
    };
    let open = Open::new(Some(folder.path()), adjust);
    open.commit(vec![Write::Session(session("old", 1)), Write::Session(session("ended", 1))]);
    clock.fetch_add(20_000, Ordering::Relaxed);
    open.commit(vec![Write::Session(session("new", 1)), Write::SessionEnded("ended".into())]);
    clock.fetch_add(20_000, Ordering::Relaxed);
    open.commit(vec![Write::Session(session("new", 2))]);
    drop(open);
    // The broker was down for a day: its clients could not do anything in the meantime.
    clock.fetch_add(86_400_000, Ordering::Relaxed);
    for _ in 0..2 {
        let open = Open::new(Some(folder.path()), adjust);
        assert_eq!(open.recovered.sessions, [session("new", 2)]);
    }
}

#[test]
fn durable_subscriptions_are_kept_until_they_end() {
    let folder = Folder::new();
    let progress = |name: &str, done| Progress {
        namespace: "n".into(),
        name: name.into(),
        pattern: "a.>".into(),
        done,
        beyond: vec![done + 2, done + 5],
        attempts: vec![(done + 1, 3), (done + 3, u32::MAX)],
    };
    let open = Open::new(Some(folder.path()), |_| {});
    open.commit(vec![Write::Progress(progress("x", 1)), Write::Progress(progress("y", 1))]);
    open.commit(vec![
        Write::DurableEnded("n".into(), "x".into()),
        Write::Progress(progress("y", 2)),
        Write::Progress(progress("y", 3)),
        Write::DurableEnded("n".into(), "never was".into()),
    ]);
    drop(open);
    let open = Open::new(Some(folder.path()), |_| {});
    assert_eq!(open.recovered.progress, [progress("y", 3)]);
}

#[test]
fn ids_are_recovered_for_their_window() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let adjust = |options: &mut StoreOptions| {
        let clock = clock.clone();
        options.now = Arc::new(move || clock.load(Ordering::Relaxed));
        options.steady = options.now.clone();
        options.duplicate_window = Duration::from_secs(10);
    };
    let mut open = Open::new(Some(folder.path()), adjust);
    for id in ["one", "two", "three"] {
        let mut record = open.record("a", id);
        record.time_ms = clock.fetch_add(6_000, Ordering::Relaxed);
        record.extras = Some(Box::new(Extras { id: Some(id.into()), ..Extras::default() }));
        open.commit(vec![record_of(&record)]);
    }
    // The last commit was at 1,018,000.
    drop(open);
    let open = Open::new(Some(folder.path()), adjust);
    assert_eq!(open.recovered.ids, [("".into(), "three".into(), 1_012_000)]);
}

#[test]
fn the_window_of_ids_does_not_pass_while_the_store_is_closed() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let adjust = |options: &mut StoreOptions| {
        let clock = clock.clone();
        options.now = Arc::new(move || clock.load(Ordering::Relaxed));
        options.steady = options.now.clone();
        options.duplicate_window = Duration::from_secs(10);
    };
    let with_id = |open: &mut Open, id: &str| {
        let mut record = open.record("a", id);
        record.time_ms = clock.load(Ordering::Relaxed);
        record.extras = Some(Box::new(Extras { id: Some(id.into()), ..Extras::default() }));
        open.commit(vec![record_of(&record)]);
    };
    let mut open = Open::new(Some(folder.path()), adjust);
    open.commit(vec![Write::Session(session("o", 1))]);
    with_id(&mut open, "one");
    drop(open);
    // An hour later, be it that of a broker that was away or of a clock that was set.
    clock.fetch_add(3_600_000, Ordering::Relaxed);
    let mut open = Open::new(Some(folder.path()), adjust);
    with_id(&mut open, "two");
    drop(open);
    let open = Open::new(Some(folder.path()), adjust);
    let known: Vec<_> = open.recovered.ids.iter().map(|(_, id, _)| id.as_str()).collect();
    assert_eq!(known, ["one", "two"]);
    assert_eq!(open.recovered.sessions, [session("o", 1)], "nor that of sessions");
    drop(open);
    clock.fetch_sub(7_200_000, Ordering::Relaxed);
    let open = Open::new(Some(folder.path()), adjust);
    assert_eq!(open.recovered.ids.len(), 2, "nor when the clock is set back");
}

#[test]
fn setting_the_clock_of_a_running_store_ends_no_window() {
    for hour in [3_600_000_i64, -3_600_000] {
        let folder = Folder::new();
        let wall = Arc::new(AtomicU64::new(10_000_000));
        let steady = Arc::new(AtomicU64::new(10_000_000));
        let adjust = |options: &mut StoreOptions| {
            let (wall, steady) = (wall.clone(), steady.clone());
            options.now = Arc::new(move || wall.load(Ordering::Relaxed));
            options.steady = Arc::new(move || steady.load(Ordering::Relaxed));
        };
        let mut open = Open::new(Some(folder.path()), adjust);
        let mut record = open.record("a", "x");
        record.time_ms = steady.load(Ordering::Relaxed);
        record.extras = Some(Box::new(Extras { id: Some("one".into()), ..Extras::default() }));
        open.commit(vec![Write::Session(session("o", 1)), record_of(&record)]);
        wall.fetch_add(hour.cast_unsigned(), Ordering::Relaxed);
        steady.fetch_add(10, Ordering::Relaxed);
        let record = open.record("a", "y");
        open.commit(vec![record_of(&record)]);
        drop(open);
        // The next run begins at the time that was set.
        steady.store(wall.load(Ordering::Relaxed), Ordering::Relaxed);
        let open = Open::new(Some(folder.path()), adjust);
        assert_eq!(open.recovered.ids.len(), 1, "{hour}");
        assert_eq!(open.recovered.sessions, [session("o", 1)], "{hour}");
    }
}
