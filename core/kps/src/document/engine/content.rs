//! What a document holds.

use ropey::Rope;
use serde::{Deserialize, Serialize};

use super::{
    edit::{Edit, Place, Range},
    json::{Json, JsonChange, too_large},
    operation::Change,
    reject::{Code, Reject},
    splice::Splice,
};

/// What a document is made of; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Unicode text.
    Text,
    /// JSON.
    Json,
    /// A Yjs document: what is changed offline merges.
    Yjs,
}

impl Kind {
    /// Its name in every language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Json => "json",
            Kind::Yjs => "yjs",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Kind> {
        [Kind::Text, Kind::Json, Kind::Yjs].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A document's content, as it travels: `{"text": "…"}` or `{"value": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Snapshot {
    /// Of a text.
    Text(String),
    /// Of JSON.
    Value(serde_json::Value),
}

/// A document's content. Copies are cheap.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Text(Rope),
    Json(Json),
}

impl Content {
    pub(super) fn empty(kind: Kind) -> Content {
        match kind {
            // A Yjs document has an engine of its own.
            Kind::Text | Kind::Yjs => Content::Text(Rope::new()),
            Kind::Json => Content::Json(Json::new(serde_json::json!({}))),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Content::Text(_) => Kind::Text,
            Content::Json(_) => Kind::Json,
        }
    }

    /// Bytes, as limits count them.
    pub(super) fn size(&self) -> usize {
        match self {
            Content::Text(text) => text.len_bytes(),
            Content::Json(json) => json.size(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        match self {
            Content::Text(text) => Snapshot::Text(text.to_string()),
            Content::Json(json) => Snapshot::Value(json.value().clone()),
        }
    }

    /// What `edits` do to it, one after the other; nothing is done yet.
    pub(super) fn resolve(&self, edits: &[Edit]) -> Result<Change, Reject> {
        match self {
            Content::Text(text) => {
                let mut text = text.clone();
                let mut splices = Vec::with_capacity(edits.len());
                for edit in edits {
                    let splice = resolve(edit, &text)?;
                    if !splice.apply(&mut text) {
                        return Err(out_of_range(&splice, &text));
                    }
                    splices.push(splice);
                }
                Ok(Change::Splices(splices))
            }
            Content::Json(_) => {
                let change = |edit: &Edit| match edit {
                    Edit::Patch { patch } => Ok(JsonChange::Patch(patch.clone())),
                    Edit::Merge { merge } => Ok(JsonChange::Merge(merge.clone())),
                    _ => Err(wrong_kind("a JSON document is changed by patch and merge")),
                };
                Ok(Change::Changes(edits.iter().map(change).collect::<Result<_, _>>()?))
            }
        }
    }

    /// Does all of it or nothing.
    pub(super) fn apply(&mut self, change: &Change, most: usize) -> Result<(), Reject> {
        match (self, change) {
            (Content::Text(text), Change::Splices(splices)) => {
                let mut copy = text.clone();
                for splice in splices {
                    if !splice.apply(&mut copy) {
                        return Err(out_of_range(splice, &copy));
                    }
                }
                let size = copy.len_bytes();
                if size > most && size > text.len_bytes() {
                    return Err(too_large(size, most));
                }
                *text = copy;
                Ok(())
            }
            (Content::Json(json), Change::Changes(changes)) => json.apply(changes, most),
            _ => Err(wrong_kind("the change is one of another kind of document")),
        }
    }
}

impl From<Snapshot> for Content {
    fn from(snapshot: Snapshot) -> Content {
        match snapshot {
            Snapshot::Text(text) => Content::Text(Rope::from_str(&text)),
            Snapshot::Value(value) => Content::Json(Json::new(value)),
        }
    }
}

fn resolve(edit: &Edit, text: &Rope) -> Result<Splice, Reject> {
    let splice = |(at, delete): (usize, usize), insert: &str| Splice {
        at,
        delete,
        insert: insert.to_owned(),
    };
    Ok(match edit {
        Edit::Insert { place, text: inserted } => {
            let at = match place {
                Place::At { position } => *position,
                Place::Before { before } => find(text, before)?.0,
                Place::After { after } => {
                    let (at, length) = find(text, after)?;
                    at + length
                }
            };
            splice((at, 0), inserted)
        }
        Edit::Delete { range } => splice(resolve_range(range, text)?, ""),
        Edit::Replace { range, text: inserted } => splice(resolve_range(range, text)?, inserted),
        Edit::Append { text: inserted } => splice((text.len_chars(), 0), inserted),
        Edit::Patch { .. } | Edit::Merge { .. } => {
            let sentence = "a text document is changed by insert, delete, replace and append";
            return Err(wrong_kind(sentence));
        }
    })
}

fn resolve_range(range: &Range, text: &Rope) -> Result<(usize, usize), Reject> {
    match range {
        Range::At { position, length } => Ok((*position, *length)),
        Range::Anchor { anchor } => find(text, anchor),
    }
}

/// Where the one occurrence of `anchor` begins, and how long it is, in code points.
fn find(text: &Rope, anchor: &str) -> Result<(usize, usize), Reject> {
    if anchor.is_empty() {
        return Err(Reject::new(Code::Invalid, "an anchor is empty: it would be everywhere"));
    }
    let all = text.to_string();
    let Some(at) = all.find(anchor) else {
        let sentence = format!("the text {:?} is not in the document", short(anchor));
        return Err(Reject::new(Code::AnchorNotFound, sentence));
    };
    let next = at + anchor.chars().next().map_or(1, char::len_utf8);
    if all[next..].contains(anchor) {
        let sentence = format!(
            "the text {:?} is in the document more than once: take more of what is around it",
            short(anchor)
        );
        return Err(Reject::new(Code::AnchorNotUnique, sentence));
    }
    Ok((text.byte_to_char(at), anchor.chars().count()))
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cold]
fn wrong_kind(sentence: &str) -> Reject {
    Reject::new(Code::WrongKind, sentence)
}

#[cold]
fn out_of_range(splice: &Splice, text: &Rope) -> Reject {
    let sentence = format!(
        "the text has {} code points; {} of them from {} on are not there",
        text.len_chars(),
        splice.delete,
        splice.at
    );
    Reject::new(Code::OutOfRange, sentence)
}
