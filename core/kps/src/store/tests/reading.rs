use kps_proto::history::ReadFrom;

use super::*;

fn topics(page: &Page) -> Vec<&str> {
    page.records.iter().map(|record| &*record.topic).collect()
}

#[test]
fn patterns_choose_topics() {
    let mut open = Open::new(None, |_| {});
    for topic in ["a", "a.b", "a.c", "b.b", "a.b.c", "ab", "a-b", "a.bc"] {
        open.add(topic, "x");
    }
    let read = |pattern: &str| {
        let page = open.read(pattern, ReadFrom::After(0));
        assert_eq!((page.through, page.more, page.removed), (8, false, false));
        topics(&page).join(" ")
    };
    assert_eq!(read("a"), "a");
    assert_eq!(read("a.*"), "a.b a.c a.bc");
    assert_eq!(read("a.>"), "a.b a.c a.b.c a.bc");
    assert_eq!(read("*.b"), "a.b b.b");
    assert_eq!(read(">"), "a a.b a.c b.b a.b.c ab a-b a.bc");
    assert_eq!(read("a.b.c.d"), "");
    assert_eq!(read("*.*.*"), "a.b.c");
}

#[test]
fn pages_follow_one_another() {
    let mut open = Open::new(None, |_| {});
    for place in 0..10 {
        open.add(["a", "b", "c"][place % 3], "1234");
    }
    // a is at 1, 4, 7 and 10.
    let mut query = query("a", ReadFrom::After(0));
    query.max_count = 2;
    let page = open.store.read_now(&query).unwrap();
    assert_eq!((topics(&page), page.through, page.more), (vec!["a", "a"], 4, true));
    query.from = ReadFrom::After(4);
    let page = open.store.read_now(&query).unwrap();
    assert_eq!((topics(&page), page.through, page.more), (vec!["a", "a"], 10, false));
    query.pattern = Pattern::parse("*").unwrap();
    (query.max_count, query.max_bytes, query.from) = (100, 9, ReadFrom::After(2));
    let page = open.store.read_now(&query).unwrap();
    assert_eq!((topics(&page), page.through, page.more), (vec!["c", "a"], 4, true));
    query.max_bytes = 0;
    let page = open.store.read_now(&query).unwrap();
    assert_eq!((topics(&page), page.through, page.more), (vec!["c"], 3, true));
}

#[test]
fn a_page_without_more_reaches_the_last_commit() {
    let mut open = Open::new(None, |_| {});
    open.add("a", "x");
    open.add("b", "x");
    let page = open.read("a", ReadFrom::After(0));
    assert_eq!((page.through, page.more), (2, false));
    let page = open.read("a", ReadFrom::After(100));
    assert_eq!((page.through, page.more, page.records.len()), (2, false, 0));
    let page = open.read("unknown", ReadFrom::After(0));
    assert_eq!((page.through, page.removed), (2, false));
}

#[test]
fn a_few_of_very_many_topics_are_found_by_the_index() {
    let mut open = Open::new(None, |_| {});
    let mut writes = Vec::new();
    for place in 0..20_000 {
        let record = if place % 4000 == 3999 {
            open.record(&format!("rare.{}", place % 3), "x")
        } else {
            open.record(&format!("common.{}", place % 7), "x")
        };
        writes.push(record_of(&record));
    }
    open.commit(writes);
    let page = open.read("rare.*", ReadFrom::After(0));
    let positions: Vec<_> = page.records.iter().map(|record| record.position).collect();
    assert_eq!(positions, [4000, 8000, 12_000, 16_000, 20_000]);
    assert_eq!((page.through, page.more), (20_000, false));
    let mut query = query("rare.*", ReadFrom::After(4000));
    query.max_count = 2;
    let page = open.store.read_now(&query).unwrap();
    assert_eq!((page.records.len(), page.through, page.more), (2, 12_000, true));
}

#[test]
fn the_last_of_each_topic_comes_by_position() {
    let mut open = Open::new(None, |_| {});
    for topic in ["a.b", "a.a", "b", "a.b"] {
        open.add(topic, "x");
    }
    let page = open.read("a.*", ReadFrom::Last);
    assert_eq!((topics(&page), page.through, page.more), (vec!["a.a", "a.b"], 4, false));
    let mut query = query(">", ReadFrom::Last);
    query.max_count = 2;
    let page = open.store.read_now(&query).unwrap();
    assert_eq!((topics(&page), page.through, page.more), (vec!["a.a", "b"], 3, true));
}

#[test]
fn a_time_finds_the_first_message_accepted_then() {
    let mut open = Open::new(None, |_| {});
    // The clock was set back in between.
    let times = [5000, 5000, 7000, 9000, 6000, 6500, 9500, 12_000];
    let mut writes = Vec::new();
    for (place, time) in times.into_iter().enumerate() {
        let mut record = open.record(["a", "b"][place % 2], "x");
        record.time_ms = time;
        writes.push(record_of(&record));
    }
    open.commit(writes);
    let first = |pattern: &str, time| {
        let page = open.read(pattern, ReadFrom::Time(time));
        assert_eq!(page.through, 8);
        page.records.iter().map(|record| record.position).collect::<Vec<_>>()
    };
    assert_eq!(first(">", 0), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(first(">", 5000), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(first(">", 5001), [3, 4, 5, 6, 7, 8]);
    assert_eq!(first(">", 7001), [4, 5, 6, 7, 8]);
    assert_eq!(first("b", 5001), [4, 6, 8]);
    assert_eq!(first("a", 7001), [7]);
    assert_eq!(first(">", 12_000), [8]);
    assert_eq!(first(">", 12_001), [0; 0]);
    assert_eq!(first(">", u64::MAX), [0; 0]);
}

#[test]
fn reads_beside_a_busy_writer_see_whole_commits() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    let (batches, size) = (200, 10);
    for _ in 0..batches {
        let writes = (0..size).map(|_| record_of(&open.record("a", "x"))).collect();
        open.store.write(writes);
    }
    let mut seen = 0;
    while seen < batches * size {
        let page = open.read(">", ReadFrom::After(seen));
        assert_eq!(page.through % size, 0);
        assert!(page.records.iter().map(|record| record.position).eq(seen + 1..=page.through));
        seen = page.through;
    }
}
