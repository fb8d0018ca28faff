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
