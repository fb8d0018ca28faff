use std::time::Duration;

use kps_proto::history::{HistoryRule, ReadFrom, Write};

use super::*;
use crate::store::verify;

fn rule(pattern: &str) -> HistoryRule {
    let pattern = Pattern::parse(pattern).unwrap();
    HistoryRule { pattern, max_age: None, max_count: None, max_bytes: None }
}

fn positions(page: &Page) -> Vec<u64> {
    page.records.iter().map(|record| record.position).collect()
}

#[test]
fn the_oldest_of_all_topics_of_a_rule_go_first() {
    let mut open = Open::new(None, |options| {
        let limited = HistoryRule { max_count: Some(3), ..rule("a.*") };
        options.rules = vec![limited, HistoryRule { max_bytes: Some(10), ..rule("b") }];
    });
    for topic in ["a.1", "b", "a.2", "other", "a.1", "b", "a.1", "a.3", "b", "b"] {
        open.add(topic, "1234");
    }
    let page = open.read(">", ReadFrom::After(0));
    assert_eq!(positions(&page), [4, 5, 7, 8, 9, 10]);
    assert!(page.removed);
    assert!(!open.read(">", ReadFrom::After(6)).removed);
    assert!(open.read("a.2", ReadFrom::After(2)).removed);
    assert!(!open.read("a.2", ReadFrom::After(3)).removed);
    assert!(!open.read("other", ReadFrom::After(0)).removed);
    assert!(!open.read("a.3", ReadFrom::After(0)).removed);
}

#[test]
fn the_first_rule_that_matches_holds() {
    let mut open = Open::new(None, |options| {
        options.rules = vec![rule("a.keep"), HistoryRule { max_count: Some(0), ..rule(">") }];
    });
    open.add("a.keep", "1");
    open.add("a.drop", "2");
    assert_eq!(positions(&open.read(">", ReadFrom::After(0))), [1]);
    assert_eq!(positions(&open.read(">", ReadFrom::Last)), [1]);
}

#[test]
fn messages_go_when_they_become_too_old() {
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let time = clock.clone();
    let mut open = Open::new(None, |options| {
        options.rules = vec![HistoryRule { max_age: Some(Duration::from_secs(10)), ..rule(">") }];
        options.now = Arc::new(move || time.load(Ordering::Relaxed));
        options.steady = options.now.clone();
    });
    for _ in 0..3 {
        // Accepted one millisecond apart from 1,000,001 on.
        open.add("a", "x");
    }
    clock.store(1_010_001, Ordering::Relaxed);
    open.commit(vec![]);
    assert_eq!(positions(&open.read("a", ReadFrom::After(0))), [1, 2, 3]);
    clock.store(1_010_003, Ordering::Relaxed);
    open.commit(vec![]);
    assert_eq!(positions(&open.read("a", ReadFrom::After(0))), [3]);
}

#[test]
fn messages_go_without_anything_being_written() {
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let time = clock.clone();
    let mut open = Open::new(None, |options| {
        options.rules = vec![HistoryRule { max_age: Some(Duration::from_millis(1)), ..rule(">") }];
        options.now = Arc::new(move || time.load(Ordering::Relaxed));
        options.steady = options.now.clone();
    });
    open.add("a", "x");
    clock.store(2_000_000, Ordering::Relaxed);
    // The store looks every second.
    while !open.read("a", ReadFrom::After(0)).removed {
        std::thread::yield_now();
    }
}

#[test]
fn other_limits_hold_when_a_store_is_opened_again() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    let writes = (0..5000).map(|n| record_of(&open.record(["a", "b"][n % 2], "x"))).collect();
    open.commit(writes);
    drop(open);
    let mut open = Open::new(Some(folder.path()), |options| {
        options.rules = vec![HistoryRule { max_count: Some(10), ..rule("a") }];
    });
    // Writing goes on while there is much to remove; each turn removes a slice.
    for _ in 0..3 {
        open.add("b", "x");
    }
    let page = open.read("a", ReadFrom::After(0));
    assert_eq!(positions(&page), (4981..5000).step_by(2).collect::<Vec<_>>());
    assert_eq!(open.read("b", ReadFrom::Last).records[0].position, 5003);
    drop(open);
    assert_eq!(verify(folder.path()).unwrap().findings, [""; 0]);
    // Without a rule what there is stays.
    let open = Open::new(Some(folder.path()), |_| {});
    open.commit(vec![]);
    assert_eq!(positions(&open.read("a", ReadFrom::After(0))).len(), 10);
}

#[test]
fn positions_go_on_when_everything_was_removed() {
    let folder = Folder::new();
    let adjust = |options: &mut StoreOptions| {
        options.rules = vec![HistoryRule { max_count: Some(0), ..rule(">") }];
    };
    let mut open = Open::new(Some(folder.path()), adjust);
    open.add("a", "x");
    open.add("b", "x");
    drop(open);
    assert_eq!(verify(folder.path()).unwrap().findings, [""; 0]);
    let open = Open::new(Some(folder.path()), adjust);
    assert_eq!(open.recovered.position, 2);
    let page = open.read(">", ReadFrom::After(0));
    assert_eq!((page.records.len(), page.through, page.removed), (0, 2, true));
}

#[test]
fn very_many_topics_without_messages_are_forgotten() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |options| {
        options.rules = vec![HistoryRule { max_count: Some(1), ..rule("many.>") }];
    });
    let writes: Vec<Write> =
        (0..18_000).map(|n| record_of(&open.record(&format!("many.{n}"), "x"))).collect();
    open.commit(writes);
    for pattern in ["many.*", "many.0", "unknown"] {
        let page = open.read(pattern, ReadFrom::After(0));
        assert!(page.removed, "a topic of this name may have been forgotten");
        assert!(!open.read(pattern, ReadFrom::After(18_000)).removed);
    }
    assert!(open.read("many.17000", ReadFrom::After(17_000)).removed);
    assert!(!open.read("many.17000", ReadFrom::After(17_001)).removed);
    // One that was forgotten begins anew.
    open.add("many.0", "x");
    assert_eq!(positions(&open.read("many.0", ReadFrom::After(0))), [18_001]);
    drop(open);
    let verdict = verify(folder.path()).unwrap();
    assert_eq!(verdict.findings, [""; 0]);
    assert_eq!((verdict.messages, verdict.topics), (1, 16_385));
    assert_eq!(Open::new(Some(folder.path()), |_| {}).recovered.position, 18_001);
}

#[test]
fn nothing_is_left_of_what_was_removed() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let mut open = Open::new(Some(folder.path()), |options| {
        options.rules = vec![HistoryRule { max_count: Some(10), ..rule(">") }];
        let clock = clock.clone();
        options.now = Arc::new(move || clock.load(Ordering::Relaxed));
        options.steady = options.now.clone();
    });
    for round in 0..40 {
        let mut writes = Vec::new();
        for n in 0..250 {
            let mut record = open.record("a", "x");
            record.time_ms = 1_000_000 * (round + 1) + n;
            let name = format!("{round}");
            record.sender = Arc::new(Sender { id: name.clone(), origin: name });
            writes.push(record_of(&record));
        }
        open.commit(writes);
    }
    drop(open);
    let connection = rusqlite::Connection::open(folder.file()).unwrap();
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("messages"), count("senders")), (10, 1));
    assert!(count("times") < 20, "marks of removed messages go, if not at once");
}
