use std::collections::BTreeMap;

use proptest::prelude::*;
use yrs::{
    Array, ArrayPrelim, GetString, Map, MapPrelim, MapRef, OffsetKind, Options, Text, TextRef,
    Update, WriteTxn, XmlElementPrelim, XmlFragment,
};

use super::{lib0::put_int, *};

mod together;

/// Somebody's document, and the updates it made.
struct Editor {
    doc: Doc,
    text: TextRef,
}

impl Editor {
    fn new(client: u64) -> Editor {
        let options = Options { client_id: yrs::ClientID::new(client), ..Options::default() };
        let doc = Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..options });
        let text = doc.get_or_insert_text("text");
        Editor { doc, text }
    }

    fn insert(&self, at: u32, text: &str) -> Vec<u8> {
        let mut txn = self.doc.transact_mut();
        self.text.insert(&mut txn, at, text);
        txn.encode_update_v1()
    }

    fn delete(&self, at: u32, count: u32) -> Vec<u8> {
        let mut txn = self.doc.transact_mut();
        self.text.remove_range(&mut txn, at, count);
        txn.encode_update_v1()
    }

    fn take(&self, update: &[u8]) {
        let update = Update::decode_v1(update).unwrap();
        self.doc.transact_mut().apply_update(update).unwrap();
    }

    fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    fn state(&self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(&StateVector::default())
    }
}

fn empty() -> YjsDocument {
    with(Limits::default())
}

fn with(limits: Limits) -> YjsDocument {
    YjsDocument::new("one".into(), Arc::new(limits))
}

fn apply(document: &mut YjsDocument, update: &[u8]) -> Outcome {
    document.merge(&"op".into(), &"ann".into(), update, 0)
}

#[track_caller]
fn applied(document: &mut YjsDocument, update: &[u8]) -> Bytes {
    match apply(document, update) {
        Outcome::Applied(_, Applied { change: Change::Update(effect), .. }) => effect,
        other => panic!("{other:?}"),
    }
}

fn code(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied(..) => "applied",
        Outcome::Repeated(_) => "repeated",
        Outcome::Conflict { .. } => "conflict",
        Outcome::Rejected(reject) => reject.code.as_str(),
    }
}

fn saved(document: &YjsDocument, limits: Limits) -> Result<YjsDocument, String> {
    let split = Head::split(&document.saved_base().into()).expect("it is a Yjs document's");
    let segment = document.saved_since(document.oldest());
    let segments: BTreeMap<_, Bytes> =
        segment.into_iter().map(|(first, bytes)| (first, bytes.into())).collect();
    YjsDocument::restored(split, &segments, Arc::new(limits))
}

#[test]
fn what_two_did_at_the_same_place_is_the_same_everywhere() {
    let (ann, bob, mut document) = (Editor::new(1), Editor::new(2), empty());
    let first = ann.insert(0, "héllo");
    applied(&mut document, &first);
    bob.take(&first);
    let (one, other) = (ann.insert(0, "ann "), bob.insert(0, "bob "));
    ann.take(&applied(&mut document, &other));
    bob.take(&applied(&mut document, &one));
    assert_eq!(ann.text(), bob.text());
    assert_eq!(document.text("text"), Some(ann.text()));
    assert_eq!(document.value(), serde_json::json!({"text": ann.text()}));
    assert_eq!(document.version(), Version(3));
}

#[test]
fn an_update_that_comes_again_changes_nothing() {
    let (ann, mut document) = (Editor::new(1), empty());
    let update = ann.insert(0, "a");
    applied(&mut document, &update);
    assert_eq!(apply(&mut document, &update), Outcome::Repeated(Version(1)));
    let op_id: Arc<str> = "one".into();
    let second = ann.insert(1, "b");
    let outcome = document.apply(&op_id, &"ann".into(), &second, 0);
    assert_eq!(code(&outcome), "applied");
    let outcome = document.apply(&op_id, &"ann".into(), &second, 0);
    assert_eq!(outcome, Outcome::Repeated(Version(2)));
    let outcome = document.apply(&op_id, &"ann".into(), &update, 0);
    assert_eq!(code(&outcome), "op_id_reused");
    assert_eq!(document.text("text").as_deref(), Some("ab"));
}

#[test]
fn an_update_waits_for_the_one_before_it() {
    let (ann, mut document) = (Editor::new(1), empty());
    let (first, second) = (ann.insert(0, "a"), ann.insert(1, "b"));
    applied(&mut document, &second);
    assert_eq!(document.text("text").as_deref().unwrap_or(""), "");
    // What waits is stored as well.
    let mut document = saved(&document, Limits::default()).unwrap();
    let effect = applied(&mut document, &first);
    assert_eq!(document.text("text").as_deref(), Some("ab"));
    let bob = Editor::new(2);
    bob.take(&effect);
    assert_eq!(bob.text(), "ab", "both are told");
    assert_eq!(document.pending, 0);
}

#[test]
fn what_waits_too_long_is_forgotten_and_nothing_else() {
    let (ann, bob, mut document) = (Editor::new(1), Editor::new(2), empty());
    applied(&mut document, &bob.insert(0, "kept"));
    ann.insert(0, "lost");
    let mut at = 4;
    while document.pending <= MAX_PENDING / 2 {
        let piece = "x".repeat(100_000);
        applied(&mut document, &ann.insert(at, &piece));
        at += 100_000;
    }
    for _ in 0..10 {
        apply(&mut document, &ann.insert(at, &"x".repeat(100_000)));
        at += 100_000;
    }
    assert!(document.size() < MAX_PENDING + (300 << 10), "{}", document.size());
    assert_eq!(document.text("text").as_deref(), Some("kept"));
    // Who has them sends all again.
    applied(&mut document, &ann.state());
    assert_eq!(document.text("text").map(|text| text.len()), Some(4 + at as usize));
}

#[test]
fn one_who_was_away_gets_what_it_misses() {
    let (ann, bob, mut document) = (Editor::new(1), Editor::new(2), empty());
    let first = ann.insert(0, "one");
    applied(&mut document, &first);
    bob.take(&first);
    applied(&mut document, &ann.insert(3, " two"));
    applied(&mut document, &ann.delete(0, 1));
    let known = bob.doc.transact().state_vector().encode_v1();
    let missing = document.missing(&known).unwrap();
    bob.take(&missing);
    assert_eq!(bob.text(), "ne two");
    assert!(document.missing(&[9]).is_err());
    assert!(document.missing(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err(), "4 billion clients");
}

#[test]
fn it_is_stored_as_a_state_and_updates() {
    let (ann, mut document) = (Editor::new(1), empty());
    document.reserve(Version(10));
    for at in 0..20 {
        applied(&mut document, &ann.insert(at, "x"));
    }
    document.fold();
    assert_eq!(document.oldest(), Version(30));
    for at in 20..25 {
        applied(&mut document, &ann.insert(at, "y"));
    }
    let again = saved(&document, Limits::default()).unwrap();
    assert_eq!(again.text("text"), document.text("text"));
    assert_eq!((again.version(), again.oldest()), (Version(35), Version(30)));
    assert_eq!(again.lineage(), document.lineage());
    let (first, _) = document.saved_since(Version(32)).unwrap();
    assert_eq!(first, Version(33));
    assert!(document.saved_since(Version(35)).is_none());
}

#[test]
fn what_is_stored_and_damaged_is_an_error() {
    let (ann, mut document) = (Editor::new(1), empty());
    applied(&mut document, &ann.insert(0, "some text"));
    let (first, segment) = document.saved_since(Version(0)).unwrap();
    let base = || Head::split(&document.saved_base().into()).unwrap();
    let limits = || Arc::new(Limits::default());
    let with = |segment: Vec<u8>| BTreeMap::from([(first, Bytes::from(segment))]);
    assert!(YjsDocument::restored(base(), &with(segment.clone()), limits()).is_ok());
    let cut = segment[..segment.len() - 1].to_vec();
    assert!(YjsDocument::restored(base(), &with(cut), limits()).is_err());
    let twice = [segment.clone(), segment].concat();
    assert!(YjsDocument::restored(base(), &with(twice), limits()).is_err());
    let newer = document.saved_base();
    let newer = String::from_utf8_lossy(&newer).replace("\"format\":1", "\"format\":2");
    let newer = Head::split(&newer.into_bytes().into()).unwrap();
    assert!(YjsDocument::restored(newer, &BTreeMap::new(), limits()).is_err());
}

#[test]
fn a_full_document_takes_deletions_and_then_more() {
    let (ann, mut document) = (Editor::new(1), with(Limits { state: 1000, ..Limits::default() }));
    applied(&mut document, &ann.insert(0, &"x".repeat(900)));
    let more = ann.insert(900, &"y".repeat(200));
    assert_eq!(code(&apply(&mut document, &more)), "document_too_large");
    let large = Editor::new(2).insert(0, &"z".repeat(1001));
    assert_eq!(code(&apply(&mut document, &large)), "operation_too_large");
    assert_eq!(document.text("text").unwrap().len(), 900);
    applied(&mut document, &ann.delete(0, 500));
    applied(&mut document, &more);
    assert_eq!(document.text("text").unwrap().len(), 600);
}

#[test]
fn many_updates_become_one_state() {
    let (ann, mut document) = (Editor::new(1), empty());
    for at in 0..=MANY_UPDATES as u32 {
        applied(&mut document, &ann.insert(at, "x"));
    }
    assert!(document.log.is_empty() && document.size() < 20_000, "{}", document.size());
    assert_eq!(document.text("text").unwrap().len(), MANY_UPDATES + 1);
}

#[test]
fn every_root_is_shown_as_what_it_looks_like() {
    let doc = Doc::with_client_id(1);
    let update = {
        let mut txn = doc.transact_mut();
        txn.get_or_insert_text("text").insert(&mut txn, 0, "a");
        let map = txn.get_or_insert_map("map");
        map.insert(&mut txn, "n", 1);
        map.insert(&mut txn, "list", ArrayPrelim::from([1.5, 2.0]));
        let list = txn.get_or_insert_array("list");
        list.insert(&mut txn, 0, "item");
        let xml = txn.get_or_insert_xml_fragment("xml");
        xml.insert(&mut txn, 0, XmlElementPrelim::empty("p"));
        txn.encode_update_v1()
    };
    let mut document = empty();
    applied(&mut document, &update);
    let wanted = serde_json::json!({
        "list": ["item"], "map": {"list": [1.5, 2.0], "n": 1}, "text": "a", "xml": "<p></p>",
    });
    assert_eq!(document.value(), wanted);
    assert_eq!(document.text("nothing"), None);
}

/// Maps in maps, so deep.
fn deep(levels: usize) -> (Doc, Vec<u8>) {
    let doc = Doc::with_client_id(1);
    let mut txn = doc.transact_mut();
    let mut map: MapRef = txn.get_or_insert_map("map");
    for _ in 0..levels {
        map = map.insert(&mut txn, "k", MapPrelim::default());
    }
    let update = txn.encode_update_v1();
    drop(txn);
    (doc, update)
}

#[test]
fn types_that_are_deep_in_each_other_cost_no_stack() {
    let (doc, update) = deep(20_000);
    let mut document = empty();
    applied(&mut document, &update);
    assert!(document.value()["map"]["k"]["k"].is_object());
    // This thread would have no stack for it.
    let delete = guard::run(20_000, || {
        let mut txn = doc.transact_mut();
        let map = txn.get_or_insert_map("map");
        map.remove(&mut txn, "k");
        txn.commit();
        txn.encode_update_v1()
    });
    applied(&mut document, &delete.unwrap());
    assert_eq!(document.value(), serde_json::json!({"map": ""}));
    document.fold();
    assert!(saved(&document, Limits::default()).is_ok());
}

#[test]
fn more_types_than_may_be_are_refused() {
    let mut update = vec![1];
    put_int(&mut update, MAX_TYPES as u64 + 1);
    // Client 7 from clock 0: arrays in the root "r".
    update.extend([7, 0]);
    update.extend([7, 1, 1, b'r', 0].repeat(MAX_TYPES + 1));
    update.push(0);
    assert_eq!(code(&apply(&mut empty(), &update)), "document_too_large");
}

#[test]
fn a_panic_is_caught_on_any_stack() {
    assert!(guard::run(0, || panic!("on purpose")).is_err());
    assert!(guard::run(10_000, || panic!("on purpose")).is_err());
    assert_eq!(guard::run(10_000, || 1).unwrap(), 1);
}

/// Everything that may stand in an update, from two clients.
fn sample() -> Vec<u8> {
    let (ann, bob) = (Editor::new(3), Editor::new(5));
    let mut document = empty();
    for update in [
        ann.insert(0, "héllo wörld 🙂"),
        bob.insert(0, "bob"),
        ann.delete(2, 3),
        ann.insert(1, "x"),
    ] {
        applied(&mut document, &update);
        ann.take(&update);
        bob.take(&update);
    }
    let mut txn = bob.doc.transact_mut();
    let map = txn.get_or_insert_map("map");
    map.insert(&mut txn, "key", ArrayPrelim::from(["a", "b"]));
    map.insert(&mut txn, "key", true);
    let list = txn.get_or_insert_array("list");
    list.insert(&mut txn, 0, MapPrelim::from([("a", 1), ("b", 2)]));
    list.insert(&mut txn, 1, yrs::Any::from_json(r#"{"x":[1,2.5,null]}"#).unwrap());
    bob.text.format(&mut txn, 0, 2, [("bold".into(), true.into())].into());
    drop(txn);
    bob.state()
}

#[test]
fn the_sample_is_taken() {
    let mut document = empty();
    applied(&mut document, &sample());
    assert!(document.text("text").unwrap().contains("bob"));
}

/// Whatever came of it, the document goes on: it is read and stored, and others' updates are taken. Forged
/// updates may leave what is in another order for each; who forges under one's name spoils one's text.
fn goes_on(document: &mut YjsDocument) {
    // Its number has more bytes than a mutation changes: nothing is forged under it by chance.
    let editor = Editor::new(7_777_777_777_777);
    document.value();
    applied(document, &editor.insert(0, "after"));
    assert!(document.text("text").unwrap().contains("after"));
    document.fold();
    let again = saved(document, Limits::default()).unwrap();
    assert!(again.text("text").unwrap().contains("after"));
    assert!(!document.is_broken);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut document = empty();
        apply(&mut document, &bytes);
        let _ = document.missing(&bytes);
        goes_on(&mut document);
    }

    #[test]
    fn mutated_updates_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
        rounds in 1..4usize,
    ) {
        let mut document = empty();
        let mut bytes = sample();
        for _ in 0..rounds {
            for (place, byte, how) in &changes {
                let place = place.index(bytes.len());
                match how {
                    0 => bytes[place] = *byte,
                    1 => bytes[place] = bytes[place].wrapping_add(byte % 3),
                    2 => bytes.insert(place, *byte),
                    _ => drop(bytes.remove(place)),
                }
            }
            apply(&mut document, &bytes);
        }
        apply(&mut document, &sample());
        goes_on(&mut document);
    }
}
