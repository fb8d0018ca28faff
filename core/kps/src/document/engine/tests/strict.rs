//! A client that does not rebase.

use std::sync::Arc;

use super::super::*;

fn opened(document: &Document) -> Opened {
    Opened {
        kind: document.kind(),
        lineage: document.lineage().clone(),
        version: document.version(),
        checkpointed: Version(0),
        durable: false,
        since: None,
        snapshot: Some(document.snapshot()),
    }
}

fn apply(document: &mut Document, outgoing: &Outgoing, author: &str) -> Outcome {
    let (base_version, lineage) = outgoing.base.clone().unwrap();
    let operation = Operation {
        op_id: outgoing.op_id.clone(),
        author: author.into(),
        base_version,
        lineage: Some(lineage),
        edits: outgoing.edits.clone(),
    };
    document.apply(&operation, 1)
}

fn change(outcome: Outcome) -> DocumentEvent {
    let Outcome::Applied(previous, applied) = outcome else { panic!("{outcome:?}") };
    DocumentEvent::Change { id: "d".into(), previous, applied }
}

fn text(replica: &Replica) -> String {
    let Snapshot::Text(text) = replica.snapshot() else { panic!("it is text") };
    text
}

#[test]
fn nothing_is_written_past_what_others_did_first() {
    let mut document = Document::new(Kind::Text, "l".into(), Arc::default());
    let mut agent = Replica::new(opened(&document), 0);
    let mut other = Replica::new(opened(&document), 0);
    for (n, edit) in [Edit::append("agent"), Edit::insert(0, ">")].into_iter().enumerate() {
        agent.edit(format!("a{n}").into(), vec![edit], Manners::default()).unwrap();
    }
    other.edit("b".into(), vec![Edit::append("other ")], Manners::default()).unwrap();
    let faster = other.outgoing(1, usize::MAX);
    let told = change(apply(&mut document, &faster[0], "other"));
    // It hears of it before it sends.
    assert!(!agent.hear(told.clone()).contains(&News::OutOfStep));
    assert_eq!(text(&agent), "other >agent", "what it would be is in sight");
    let sent = agent.outgoing(10, usize::MAX);
    assert_eq!(sent[0].base.as_ref().unwrap().0, Version(0), "what it was made for");
    let outcome = apply(&mut document, &sent[0], "agent");
    let Outcome::Conflict { server_version, missing_ops, snapshot } = outcome else {
        panic!("{outcome:?}")
    };
    let news = agent.hear(DocumentEvent::Conflict {
        id: "d".into(),
        op_id: "a0".into(),
        author: "agent".into(),
        base_version: Version(0),
        server_version,
        missing_ops,
        snapshot,
    });
    let failed: Vec<&str> = news
        .iter()
        .filter_map(|news| match news {
            News::Failed { op_id, code, .. } if code == "conflict" => Some(&**op_id),
            _ => None,
        })
        .collect();
    // The second one was made with the first.
    assert_eq!(failed, ["a0", "a1"]);
    assert_eq!(text(&agent), "other ");
    agent.edit("a2".into(), vec![Edit::append("agent")], Manners::default()).unwrap();
    let sent = agent.outgoing(10, usize::MAX);
    agent.hear(change(apply(&mut document, &sent[0], "agent")));
    assert_eq!(text(&agent), "other agent");
    assert_eq!(document.snapshot(), agent.snapshot());
}

#[test]
fn a_mark_stays_behind_what_was_written_before_it() {
    let mut document = Document::new(Kind::Text, "l".into(), Arc::default());
    let mut agent = Replica::new(opened(&document), 9);
    let mut other = Replica::new(opened(&document), 9);
    agent.edit("a1".into(), vec![Edit::insert(0, "one")], Manners::default()).unwrap();
    let mark = agent.mark(3);
    let told = change(apply(&mut document, &agent.outgoing(1, usize::MAX)[0], "agent"));
    agent.hear(told.clone());
    other.hear(told);
    let sticks = Manners { sticks: true, rebases: None };
    agent.edit("a2".into(), vec![Edit::insert(agent.marked(mark), " two")], sticks).unwrap();
    agent.move_mark(mark, 7);
    for (op_id, edit) in [("b1", Edit::append("!")), ("b2", Edit::insert(0, "# "))] {
        other.edit(op_id.into(), vec![edit], Manners::default()).unwrap();
        let told = change(apply(&mut document, &other.outgoing(1, usize::MAX)[0], "other"));
        other.hear(told.clone());
        agent.hear(told);
    }
    assert_eq!((&*text(&agent), agent.marked(mark)), ("# one two!", 9));
}
