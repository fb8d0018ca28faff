//! An edit of a new document that its server lost before anybody had edited it.

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
