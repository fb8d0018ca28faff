//! A Yjs document as JSON, for those who do not speak Yjs.

use serde_json::{Map as JsonMap, Number as JsonNumber, Value as Plain};
use yrs::{
    Any, Array, ArrayRef, GetString, Map, MapRef, Number, Out, ReadTxn, TextRef, XmlFragmentRef,
    branch::BranchPtr,
};

/// Types within each other that are shown; what is deeper is `null`.
const MAX_DEPTH: usize = 100;

/// All roots, by their names.
pub(super) fn roots(txn: &impl ReadTxn) -> Plain {
    let mut roots: Vec<_> = txn.root_refs().collect();
    roots.sort_by_key(|(name, _)| *name);
    let shown = roots.into_iter().map(|(name, root)| (name.to_owned(), show(root, txn, MAX_DEPTH)));
    Plain::Object(shown.collect())
}

/// The text of one root; `None`: there is none of this name.
pub(super) fn text(txn: &impl ReadTxn, root: &str) -> Option<String> {
    Some(txn.get_text(root)?.get_string(txn))
}

fn show(out: Out, txn: &impl ReadTxn, depth: usize) -> Plain {
    let Some(depth) = depth.checked_sub(1) else { return Plain::Null };
    match out {
        Out::Any(any) => plain(&any),
        Out::YText(text) => text.get_string(txn).into(),
        Out::YArray(array) => list(&array, txn, depth),
        Out::YMap(map) => object(&map, txn, depth),
        Out::YXmlElement(xml) => xml.get_string(txn).into(),
        Out::YXmlFragment(xml) => xml.get_string(txn).into(),
        Out::YXmlText(xml) => xml.get_string(txn).into(),
        Out::YDoc(document) => document.guid().to_string().into(),
        Out::UndefinedRef(branch) => guess(branch, txn, depth),
    }
}

/// A root of which nobody said here what it is: programs say that, documents do not.
fn guess(branch: BranchPtr, txn: &impl ReadTxn, depth: usize) -> Plain {
    let (map, array) = (MapRef::from(branch), ArrayRef::from(branch));
    if array.len(txn) == 0 && map.len(txn) > 0 {
        return object(&map, txn, depth);
    }
    let is_xml =
        |out: &Out| matches!(out, Out::YXmlElement(_) | Out::YXmlText(_) | Out::YXmlFragment(_));
    let text = TextRef::from(branch).get_string(txn);
    match array.get(txn, 0) {
        Some(first) if is_xml(&first) => XmlFragmentRef::from(branch).get_string(txn).into(),
        Some(_) if text.is_empty() => list(&array, txn, depth),
        _ => text.into(),
    }
}

fn list(array: &ArrayRef, txn: &impl ReadTxn, depth: usize) -> Plain {
    array.iter(txn).map(|item| show(item, txn, depth)).collect()
}

fn object(map: &MapRef, txn: &impl ReadTxn, depth: usize) -> Plain {
    let mut shown: Vec<_> =
        map.iter(txn).map(|(key, item)| (key.to_owned(), show(item, txn, depth))).collect();
    shown.sort_by(|(one, _), (other, _)| one.cmp(other));
    Plain::Object(shown.into_iter().collect::<JsonMap<_, _>>())
}

/// Values were looked through before: they are not deep.
fn plain(any: &Any) -> Plain {
    match any {
        Any::Null | Any::Undefined => Plain::Null,
        Any::Bool(value) => (*value).into(),
        Any::Number(Number::Int(value)) => (*value).into(),
        Any::Number(Number::Float(value)) => {
            JsonNumber::from_f64(*value).map_or(Plain::Null, Plain::Number)
        }
        Any::String(text) => (**text).into(),
        Any::Buffer(bytes) => serde_json::json!({ "$bytes": super::base64(bytes) }),
        Any::Array(list) => list.iter().map(plain).collect(),
        Any::Map(map) => {
            let mut shown: Vec<_> =
                map.iter().map(|(key, item)| (key.clone(), plain(item))).collect();
            shown.sort_by(|(one, _), (other, _)| one.cmp(other));
            Plain::Object(shown.into_iter().collect())
        }
    }
}
