//! What a server lost: a new document before anybody had edited it, and what was applied and not stored.

use std::sync::Arc;

use super::super::*;

fn opened(lineage: &str, version: u64, text: &str) -> Opened {
    Opened {
        kind: Kind::Text,
        lineage: lineage.into(),
        version: Version(version),
        checkpointed: Version(0),
        durable: true,
        since: None,
        snapshot: Some(Snapshot::Text(text.into())),
    }
}

fn writer(rebases: u32) -> Replica {
    let mut replica = Replica::new(opened("one", 0, ""), rebases);
    for (n, edit) in [Edit::insert(0, "ours"), Edit::insert(2, "-")].into_iter().enumerate() {
        replica.edit(format!("{n}").into(), vec![edit], Manners::default()).unwrap();
    }
    // Nobody knows whether it came there.
    assert_eq!(replica.outgoing(10, usize::MAX).len(), 2);
    replica
}

#[test]
fn it_comes_after_what_others_wrote_since() {
    let mut replica = writer(10);
    assert_eq!(replica.reopened(opened("two", 3, "theirs ")), []);
    assert_eq!(replica.snapshot(), Snapshot::Text("theirs ou-rs".into()));
    let sent = replica.outgoing(10, usize::MAX);
    let base: (Version, Arc<str>) = (Version(3), "two".into());
    assert_eq!(sent[0].base, Some(base));
    assert_eq!(sent[0].edits, [Edit::insert(7, "ours")]);
    assert_eq!(sent[1].edits, [Edit::insert(9, "-")]);
}

#[test]
fn who_does_not_rebase_sends_it_as_it_was_made() {
    let mut replica = writer(0);
    replica.reopened(opened("two", 3, "theirs "));
    let base: (Version, Arc<str>) = (Version(0), "one".into());
    assert_eq!(replica.outgoing(10, usize::MAX)[0].base, Some(base));
}

#[test]
fn what_a_later_run_of_the_server_stores_is_not_what_an_earlier_one_lost() {
    let mut replica = writer(10);
    let change = |version, previous, op_id: &str, splice| DocumentEvent::Change {
        id: "d".into(),
        previous: Version(previous),
        applied: Applied {
            op_id: op_id.into(),
            author: "us".into(),
            version: Version(version),
            time: 1,
            undoes: Vec::new(),
            change: Change::Splices(vec![splice]),
        },
    };
    let splice = Splice { at: 0, delete: 0, insert: "ours".into() };
    replica.hear(change(1, 0, "0", splice.clone()));
    // The server is killed, and there again: this comes before the document is opened again.
    let theirs = DocumentEvent::Checkpoint {
        id: "d".into(),
        version: Version(100_050),
        level: Level::Checkpointed,
    };
    assert_eq!(replica.hear(theirs), [News::OutOfStep]);
    assert_eq!(replica.unsynced().len(), 2, "both are to be sent again");
}

fn heard_change(
    version: u64,
    previous: u64,
    op_id: &str,
    splice: (usize, usize, String),
) -> DocumentEvent {
    DocumentEvent::Change {
        id: "d".into(),
        previous: Version(previous),
        applied: applied(version, op_id, splice),
    }
}

fn applied(version: u64, op_id: &str, splice: (usize, usize, String)) -> Applied {
    Applied {
        op_id: op_id.into(),
        author: "us".into(),
        version: Version(version),
        time: 1,
        undoes: Vec::new(),
        change: Change::Splices(vec![splice.into()]),
    }
}

/// d1 became version 6 and is in what d2 was made for; the server does not know version 5 any more.
#[test]
fn draft_after_one_that_the_server_has_stays_where_it_was() {
    let mut first = Replica::new(opened("one", 5, "abc"), 10);
    first.edit("d1".into(), vec![Edit::insert(0, "XYZ")], Manners::default()).unwrap();
    let d1 = first.draft().unwrap();
    first.outgoing(10, usize::MAX);
    first.hear(heard_change(6, 5, "d1", (0, 0, "XYZ".into())));
    first.edit("d2".into(), vec![Edit::insert(4, "!")], Manners::default()).unwrap();
    let d2 = first.draft().unwrap();
    assert_eq!(first.snapshot(), Snapshot::Text("XYZa!bc".into()));

    let known = Opened {
        since: Some((Version(6), Vec::new())),
        checkpointed: Version(6),
        ..opened("one", 6, "XYZabc")
    };
    let (mut second, _) = Replica::with_drafts(known, 10, vec![d1, d2]);
    second.freshen();
    assert_eq!(second.outgoing(10, usize::MAX).len(), 1);
    let (id, op_id, author) = ("d".into(), "d1".into(), "us".into());
    second.hear(DocumentEvent::Ack {
        id,
        op_id,
        author,
        version: Version(6),
        level: Level::Checkpointed,
    });
    assert_eq!(second.snapshot(), Snapshot::Text("XYZa!bc".into()));
}

/// d2 was made with d1, after d1 had been moved over what others did; d1 is refused.
#[test]
fn draft_made_with_one_that_is_refused_is_not_put_elsewhere() {
    let mut first = Replica::new(opened("one", 5, "abc"), 10);
    first.edit("d1".into(), vec![Edit::insert(0, "X")], Manners::default()).unwrap();
    let d1 = first.draft().unwrap();
    first.hear(heard_change(6, 5, "other", (3, 0, "def".into())));
    first.edit("d2".into(), vec![Edit::insert(2, "!")], Manners::default()).unwrap();
    let d2 = first.draft().unwrap();
    assert_eq!(first.snapshot(), Snapshot::Text("Xa!bcdef".into()));

    let known = Opened {
        since: Some((Version(6), Vec::new())),
        checkpointed: Version(6),
        ..opened("one", 6, "abcdef")
    };
    let (mut second, _) = Replica::with_drafts(known, 10, vec![d1, d2]);
    assert_eq!(second.outgoing(10, usize::MAX).len(), 1);
    let (id, op_id, author) = ("d".into(), "d1".into(), "us".into());
    second.hear(DocumentEvent::Conflict {
        id,
        op_id,
        author,
        base_version: Version(5),
        server_version: Version(6),
        missing_ops: None,
        snapshot: None,
    });
    assert_eq!(second.snapshot(), Snapshot::Text("a!bcdef".into()));
}

/// d1 is stored, and kept by nobody.
#[test]
fn draft_made_with_one_that_is_stored_stays_behind_it() {
    let mut first = Replica::new(opened("one", 5, "abc"), 10);
    first.edit("d1".into(), vec![Edit::insert(0, "XYZ")], Manners::default()).unwrap();
    first.edit("d2".into(), vec![Edit::insert(4, "!")], Manners::default()).unwrap();
    let d2 = first.draft().unwrap();
    assert_eq!(first.snapshot(), Snapshot::Text("XYZa!bc".into()));

    let stored = vec![applied(6, "d1", (0, 0, "XYZ".into()))];
    let known = Opened { since: Some((Version(5), stored)), ..opened("one", 6, "XYZabc") };
    let (second, _) = Replica::with_drafts(known, 10, vec![d2]);
    assert_eq!(second.snapshot(), Snapshot::Text("XYZa!bc".into()));
}

#[test]
fn who_does_not_rebase_is_told_of_what_came_before_after_a_crash() {
    let mut replica = Replica::new(opened("one", 0, ""), 0);
    replica.edit("1".into(), vec![Edit::insert(0, "a")], Manners::default()).unwrap();
    replica.outgoing(10, usize::MAX);
    replica.hear(heard_change(1, 0, "1", (0, 0, "a".into())));
    replica.edit("2".into(), vec![Edit::insert(1, "b")], Manners::default()).unwrap();
    let theirs = vec![applied(1001, "theirs", (0, 0, "theirs ".into()))];
    let again = Opened { since: Some((Version(0), theirs)), ..opened("one", 1001, "theirs ") };
    replica.reopened(again);
    // Of the first one it was told that it is applied: it is sent again, moved. The second is sent as it was made.
    let base = |version| Some((Version(version), Arc::from("one")));
    let sent = replica.outgoing(10, usize::MAX);
    assert_eq!((sent.len(), &*sent[0].op_id, &sent[0].base), (1, "1", &base(1001)));
    assert_eq!(sent[0].edits, [Edit::insert(7, "a")]);
    replica.hear(heard_change(1002, 1001, "1", (7, 0, "a".into())));
    let sent = replica.outgoing(10, usize::MAX);
    assert_eq!((sent.len(), &*sent[0].op_id, &sent[0].base), (1, "2", &base(0)));
}

/// Drafts of a document that had this name come first, made for a higher version.
#[test]
fn draft_of_another_lineage_does_not_use_up_the_way() {
    let mut old = Replica::new(opened("old", 500, "old"), 10);
    old.edit("o".into(), vec![Edit::insert(0, "o")], Manners::default()).unwrap();
    let o = old.draft().unwrap();
    let mut first = Replica::new(opened("one", 5, "abc"), 10);
    first.edit("d".into(), vec![Edit::insert(3, "!")], Manners::default()).unwrap();
    let d = first.draft().unwrap();
    let theirs = vec![applied(6, "theirs", (0, 0, "X".into()))];
    let known = Opened { since: Some((Version(5), theirs)), ..opened("one", 6, "Xabc") };
    let (mut second, _) = Replica::with_drafts(known, 10, vec![o, d]);
    second.outgoing(10, usize::MAX);
    let (id, op_id, author) = ("d".into(), "o".into(), "us".into());
    second.hear(DocumentEvent::Conflict {
        id,
        op_id,
        author,
        base_version: Version(500),
        server_version: Version(6),
        missing_ops: None,
        snapshot: None,
    });
    let sent = second.outgoing(10, usize::MAX);
    assert_eq!(sent[0].base, Some((Version(6), "one".into())));
    assert_eq!(second.snapshot(), Snapshot::Text("Xabc!".into()));
}

/// A stream wrote "ab" and others around it; the server lost all of that.
#[test]
fn a_mark_stays_behind_its_text_after_a_crash() {
    let mut replica = Replica::new(opened("one", 0, ""), 10);
    replica.edit("s1".into(), vec![Edit::insert(0, "ab")], Manners::default()).unwrap();
    let mark = replica.mark(2);
    replica.outgoing(10, usize::MAX);
    replica.hear(heard_change(1, 0, "s1", (0, 0, "ab".into())));
    replica.hear(heard_change(2, 1, "x", (0, 0, "X".into())));
    replica.hear(heard_change(3, 2, "y", (3, 0, "Y".into())));
    assert_eq!(replica.snapshot(), Snapshot::Text("XabY".into()));
    assert_eq!(replica.marked(mark), 3);
    replica.reopened(Opened { since: Some((Version(0), Vec::new())), ..opened("one", 0, "") });
    assert_eq!(replica.snapshot(), Snapshot::Text("ab".into()));
    assert_eq!(replica.marked(mark), 2);
}

#[test]
fn append_without_rebase_is_in_conflict_after_a_gap_without_a_way() {
    let mut replica = Replica::new(opened("one", 1, "a"), 0);
    replica.edit("1".into(), vec![Edit::append("b")], Manners::default()).unwrap();
    replica.reopened(opened("one", 9, "something else "));
    let base: (Version, Arc<str>) = (Version(9), "one".into());
    assert_ne!(
        replica.outgoing(10, usize::MAX)[0].base,
        Some(base),
        "applied to what it never saw"
    );
}
