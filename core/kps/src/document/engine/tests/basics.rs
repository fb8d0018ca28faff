use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;

fn document(kind: Kind) -> Document {
    Document::new(kind, "l".into(), Arc::default())
}

fn limited(limits: Limits) -> Document {
    Document::new(Kind::Text, "l".into(), Arc::new(limits))
}

fn operation(document: &Document, op_id: &str, author: &str, edits: Vec<Edit>) -> Operation {
    let base_version = document.version();
    Operation { op_id: op_id.into(), author: author.into(), base_version, lineage: None, edits }
}

fn edit(document: &mut Document, op_id: &str, edit: Edit) -> Result<Version, Code> {
    let operation = operation(document, op_id, "a", vec![edit]);
    outcome(document.apply(&operation, 1))
}

fn outcome(outcome: Outcome) -> Result<Version, Code> {
    match outcome {
        Outcome::Applied(_, applied) => Ok(applied.version),
        Outcome::Repeated(version) => Ok(version),
        Outcome::Rejected(reject) => Err(reject.code),
        Outcome::Conflict { .. } => panic!("a conflict"),
    }
}

fn text(document: &Document) -> String {
    match document.snapshot() {
        Snapshot::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

fn value(document: &Document) -> serde_json::Value {
    match document.snapshot() {
        Snapshot::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

fn merge(value: serde_json::Value) -> Edit {
    Edit::Merge { merge: value }
}

fn undo(document: &mut Document, op_id: &str, author: &str, count: usize) -> Result<Version, Code> {
    outcome(document.undo(&op_id.into(), &author.into(), count, 1))
}

#[test]
fn text_is_edited_by_code_points_and_by_what_is_there() {
    let mut it = document(Kind::Text);
    for (n, (what, expected)) in [
        (Edit::append("grüße 🦀 an alle"), "grüße 🦀 an alle"),
        (Edit::insert(8, "!"), "grüße 🦀 !an alle"),
        (Edit::delete(6, 1), "grüße  !an alle"),
        (Edit::replace(6, 2, "👩‍👩‍👧"), "grüße 👩‍👩‍👧an alle"),
        (Edit::insert_before("an", " "), "grüße 👩‍👩‍👧 an alle"),
        (Edit::insert_after("alle", "!"), "grüße 👩‍👩‍👧 an alle!"),
        (Edit::replace_text("grüße", "Grüße"), "Grüße 👩‍👩‍👧 an alle!"),
        (Edit::delete_text(" an alle!"), "Grüße 👩‍👩‍👧"),
    ]
    .into_iter()
    .enumerate()
    {
        let version = edit(&mut it, &n.to_string(), what).unwrap();
        assert_eq!((version, &*text(&it)), (Version(n as u64 + 1), expected));
    }
}

#[test]
fn what_cannot_be_done_is_rejected_with_a_code_and_changes_nothing() {
    let mut it = document(Kind::Text);
    edit(&mut it, "0", Edit::append("aaa b")).unwrap();
    for (what, code) in [
        (Edit::insert(7, "x"), Code::OutOfRange),
        (Edit::delete(6, 1), Code::OutOfRange),
        (Edit::delete(usize::MAX, usize::MAX), Code::OutOfRange),
        (Edit::replace(0, usize::MAX, "x"), Code::OutOfRange),
        (Edit::insert_after("x", "y"), Code::AnchorNotFound),
        (Edit::delete_text("aa"), Code::AnchorNotUnique),
        (Edit::delete_text(""), Code::Invalid),
        (merge(1.into()), Code::WrongKind),
        (Edit::append("x".repeat(300_000)), Code::OperationTooLarge),
    ] {
        // After an edit that could be done.
        let operation = operation(&it, "1", "a", vec![Edit::append("!"), what.clone()]);
        assert_eq!(outcome(it.apply(&operation, 1)), Err(code), "{what:?}");
        assert_eq!((&*text(&it), it.version()), ("aaa b", Version(1)));
    }
    let many = operation(&it, "1", "a", vec![Edit::append("x"); 1001]);
    assert_eq!(outcome(it.apply(&many, 1)), Err(Code::TooManyEdits));
    let none = operation(&it, "1", "a", vec![]);
    assert_eq!(outcome(it.apply(&none, 1)), Err(Code::Invalid));
    let nameless = operation(&it, "", "a", vec![Edit::append("x")]);
    assert_eq!(outcome(it.apply(&nameless, 1)), Err(Code::Invalid));
    let mut json = document(Kind::Json);
    assert_eq!(edit(&mut json, "0", Edit::append("x")), Err(Code::WrongKind));
}

#[test]
fn a_text_does_not_grow_over_its_limit() {
    let mut it = limited(Limits { document: 10, ..Limits::default() });
    edit(&mut it, "0", Edit::append("ü🦀")).unwrap();
    assert_eq!(edit(&mut it, "1", Edit::append("12345")), Err(Code::DocumentTooLarge));
    edit(&mut it, "2", Edit::append("1234")).unwrap();
    assert_eq!(text(&it), "ü🦀1234");
}

#[test]
fn a_stale_base_is_a_conflict_with_what_is_missing() {
    let mut it = document(Kind::Text);
    edit(&mut it, "0", Edit::append("one")).unwrap();
    let stale = operation(&it, "stale", "b", vec![Edit::append("!")]);
    edit(&mut it, "1", Edit::append(" two")).unwrap();
    edit(&mut it, "2", Edit::append(" three")).unwrap();
    let Outcome::Conflict { server_version, missing_ops: Some(missing), snapshot: None } =
        it.apply(&stale, 1)
    else {
        panic!()
    };
    assert_eq!(server_version, Version(3));
    assert_eq!(missing.iter().map(|it| &*it.op_id).collect::<Vec<_>>(), ["1", "2"]);
    // Versions that never were, and those of another document of the same name.
    for (base_version, lineage) in [(9, None), (3, Some("other".into()))] {
        let stale = Operation { base_version: Version(base_version), lineage, ..stale.clone() };
        let Outcome::Conflict { missing_ops: None, snapshot: Some(snapshot), .. } =
            it.apply(&stale, 1)
        else {
            panic!()
        };
        assert_eq!(snapshot, Snapshot::Text("one two three".into()));
    }
}

#[test]
fn an_operation_is_applied_once_however_often_it_is_sent() {
    let mut it = limited(Limits { history: 4, op_ids: 6, ..Limits::default() });
    let first = operation(&it, "first", "a", vec![Edit::append("1")]);
    assert_eq!(outcome(it.apply(&first, 1)), Ok(Version(1)));
    let other = Operation { edits: vec![Edit::append("2")], ..first.clone() };
    for n in 0..6 {
        assert_eq!(it.apply(&first, 1), Outcome::Repeated(Version(1)), "after {n}");
        // On top of another version it is still the same.
        let again = Operation { base_version: it.version(), ..first.clone() };
        assert_eq!(it.apply(&again, 1), Outcome::Repeated(Version(1)), "after {n}");
        assert_eq!(outcome(it.apply(&other, 1)), Err(Code::OpIdReused));
        edit(&mut it, &n.to_string(), Edit::append(".")).unwrap();
    }
    assert_eq!(text(&it), "1......");
}

#[test]
fn versions_are_read_until_they_are_folded() {
    let mut it = limited(Limits { history: 10, ..Limits::default() });
    for n in 0..25 {
        edit(&mut it, &n.to_string(), Edit::append("x")).unwrap();
    }
    for version in 0..=25 {
        let is_kept = version >= it.oldest().0;
        let length = match it.at(Version(version)) {
            Some(Snapshot::Text(text)) => Some(text.len() as u64),
            _ => None,
        };
        assert_eq!(length, is_kept.then_some(version));
    }
    assert!((10..25).contains(&it.oldest().0), "{}", it.oldest());
    assert_eq!(it.at(Version(26)), None);
}

#[test]
fn undo_takes_back_ones_own_last_operations_and_leaves_others() {
    let mut it = document(Kind::Text);
    let by = |it: &mut Document, op_id: &str, author: &str, edit: Edit| {
        let operation = operation(it, op_id, author, vec![edit]);
        outcome(it.apply(&operation, 1)).unwrap();
    };
    by(&mut it, "1", "ann", Edit::append("hello world"));
    by(&mut it, "2", "bob", Edit::insert(5, ","));
    by(&mut it, "3", "ann", Edit::replace_text("world", "there"));
    by(&mut it, "4", "bob", Edit::append("!"));
    assert_eq!(text(&it), "hello, there!");
    undo(&mut it, "u1", "ann", 1).unwrap();
    assert_eq!(text(&it), "hello, world!");
    // The same request again.
    undo(&mut it, "u1", "ann", 1).unwrap();
    assert_eq!(text(&it), "hello, world!");
    undo(&mut it, "u2", "ann", 1).unwrap();
    assert_eq!(text(&it), ",!");
    assert_eq!(undo(&mut it, "u3", "ann", 1), Err(Code::NothingToUndo));
    undo(&mut it, "u4", "bob", 5).unwrap();
    assert_eq!(text(&it), "");
}

#[test]
fn undo_of_json_tells_when_others_changed_the_same_place() {
    let mut it = document(Kind::Json);
    let by = |it: &mut Document, op_id: &str, author: &str, edit: Edit| {
        let operation = operation(it, op_id, author, vec![edit]);
        outcome(it.apply(&operation, 1)).unwrap();
    };
    by(&mut it, "1", "ann", merge(serde_json::json!({"a": 1})));
    by(&mut it, "2", "ann", merge(serde_json::json!({"a": 2, "b": 2})));
    by(&mut it, "3", "bob", merge(serde_json::json!({"c": 3})));
    undo(&mut it, "u1", "ann", 1).unwrap();
    assert_eq!(value(&it), serde_json::json!({"a": 1, "c": 3}));
    by(&mut it, "4", "bob", merge(serde_json::json!({"a": 4})));
    assert_eq!(undo(&mut it, "u2", "ann", 1), Err(Code::UndoConflict));
    assert_eq!(value(&it), serde_json::json!({"a": 4, "c": 3}));
}

#[test]
fn a_document_comes_back_as_it_was_stored() {
    let mut it = limited(Limits { history: 6, ..Limits::default() });
    let mut segments = Vec::new();
    for n in 0..20 {
        edit(&mut it, &n.to_string(), Edit::insert(n / 2, format!("{n}ü"))).unwrap();
    }
    let base = serde_json::to_vec(&it.saved_base()).unwrap();
    let middle = it.operations().nth(1).unwrap().version;
    for segment in [it.saved_since(it.oldest()), it.saved_since(middle)] {
        segments.push(serde_json::to_vec(&segment).unwrap());
    }
    let read = |at: usize| -> Segment { serde_json::from_slice(&segments[at]).unwrap() };
    let base = || -> Base { serde_json::from_slice(&base).unwrap() };
    let mut back = Document::restored(base(), vec![read(0)], Arc::default()).unwrap();
    assert_eq!((back.version(), text(&back)), (it.version(), text(&it)));
    assert!(back.operations().eq(it.operations()));
    // Also what was folded is applied once.
    let first = Operation {
        base_version: Version(0),
        ..operation(&it, "0", "a", vec![Edit::insert(0, "0ü")])
    };
    assert_eq!(back.apply(&first, 1), Outcome::Repeated(Version(1)));
    assert!(Document::restored(base(), vec![read(0), read(1)], Arc::default()).is_err());
}

#[test]
fn versions_told_before_a_crash_are_not_given_again() {
    let mut it = document(Kind::Text);
    edit(&mut it, "0", Edit::append("x")).unwrap();
    it.reserve(Version(100));
    assert_eq!(it.version(), Version(1));
    assert_eq!(edit(&mut it, "1", Edit::append("y")), Ok(Version(101)));
    assert_eq!(it.at(Version(1)), Some(Snapshot::Text("x".into())));
    assert_eq!(it.at(Version(50)), None);
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let number = || prop_oneof![4 => 0..12usize, 1 => any::<usize>()];
    let words = || "[a-c]{0,2}";
    prop_oneof![
        (number(), words()).prop_map(|(at, text)| Edit::insert(at, text)),
        (number(), number()).prop_map(|(at, length)| Edit::delete(at, length)),
        (number(), number(), "[ü🦀]{0,3}").prop_map(|(at, n, text)| Edit::replace(at, n, text)),
        (words(), words()).prop_map(|(anchor, text)| Edit::insert_after(anchor, text)),
        (words(), words()).prop_map(|(anchor, text)| Edit::replace_text(anchor, text)),
        words().prop_map(Edit::append),
        Just(merge(serde_json::json!({"a": null}))),
    ]
}

proptest! {
    #[test]
    fn whatever_is_asked_for_a_rejected_operation_changes_nothing(
        operations in prop::collection::vec(
            (prop::collection::vec(any_edit(), 0..4), 0..3u64, 0..12u32), 0..40),
    ) {
        let mut it = limited(Limits { history: 7, document: 40, ..Limits::default() });
        for (edits, behind, name) in operations {
            let (before, version) = (text(&it), it.version());
            let mut operation = operation(&it, &format!("o{name}"), "a", edits);
            operation.base_version = Version(version.0.saturating_sub(behind));
            match it.apply(&operation, 1) {
                Outcome::Applied(previous, _) => prop_assert_eq!(previous, version),
                _ => prop_assert_eq!((text(&it), it.version()), (before, version)),
            }
            prop_assert!(text(&it).len() <= 40);
            for kept in it.operations() {
                prop_assert!(it.at(kept.version).is_some());
            }
        }
    }

    #[test]
    fn who_undoes_everything_alone_gets_back_to_the_start(
        edits in prop::collection::vec(any_edit(), 1..12), steps in prop::collection::vec(1..4usize, 1..12),
    ) {
        let mut it = document(Kind::Text);
        edit(&mut it, "start", Edit::append("start")).unwrap();
        // The start is somebody else's.
        let mut done = Vec::new();
        for (n, what) in edits.into_iter().enumerate() {
            done.push(text(&it));
            let operation = operation(&it, &format!("o{n}"), "b", vec![what]);
            if outcome(it.apply(&operation, 1)).is_err() {
                done.pop();
            }
        }
        for (n, count) in steps.into_iter().enumerate() {
            let expected = (0..count).filter_map(|_| done.pop()).last();
            let undone = undo(&mut it, &format!("u{n}"), "b", count);
            match expected {
                Some(expected) => {
                    prop_assert!(undone.is_ok());
                    prop_assert_eq!(text(&it), expected);
                }
                None => prop_assert_eq!(undone, Err(Code::NothingToUndo)),
            }
        }
    }

    #[test]
    fn an_undo_keeps_what_others_wrote(
        steps in prop::collection::vec((any::<bool>(), 0..40usize), 1..30), count in 1..30usize,
    ) {
        let mut it = document(Kind::Text);
        let mut others = 0;
        for (n, (own, at)) in steps.into_iter().enumerate() {
            let length = text(&it).chars().count();
            let (author, letter) = if own { ("a", "a") } else { ("b", "b") };
            others += usize::from(!own);
            let operation =
                operation(&it, &n.to_string(), author, vec![Edit::insert(at % (length + 1), letter)]);
            outcome(it.apply(&operation, 1)).unwrap();
        }
        let own = text(&it).matches('a').count();
        if undo(&mut it, "u", "a", count).is_ok() {
            prop_assert_eq!(text(&it).matches('a').count(), own.saturating_sub(count));
        }
        prop_assert_eq!(text(&it).matches('b').count(), others);
    }
}
