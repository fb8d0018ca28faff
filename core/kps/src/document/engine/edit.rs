//! Edits as they are asked for.

use json_patch::Patch;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    json,
    reject::{Code, Reject},
};
use crate::capability::{Fields, Value};

/// One edit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Edit {
    /// Puts text somewhere.
    Insert {
        /// Where.
        #[serde(flatten)]
        place: Place,
        /// What.
        text: String,
    },
    /// Removes text.
    Delete {
        /// Which.
        #[serde(flatten)]
        range: Range,
    },
    /// Puts text in the place of another one.
    Replace {
        /// Which is replaced.
        #[serde(flatten)]
        range: Range,
        /// By what.
        text: String,
    },
    /// Puts text at the end.
    Append {
        /// What.
        text: String,
    },
    /// Changes JSON as RFC 6902 says.
    Patch {
        /// The operations.
        patch: Patch,
    },
    /// Changes JSON as RFC 7396 says.
    Merge {
        /// The patch.
        merge: serde_json::Value,
    },
}

/// Where text is inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// Before the code point with this number, from 0.
    At {
        /// The number.
        position: usize,
    },
    /// Before a text that is there once.
    Before {
        /// The text.
        before: String,
    },
    /// After a text that is there once.
    After {
        /// The text.
        after: String,
    },
}

/// Which text is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Range {
    /// So many code points from here on.
    At {
        /// The number of the first, from 0.
        position: usize,
        /// How many.
        length: usize,
    },
    /// A text that is there once.
    Anchor {
        /// The text.
        anchor: String,
    },
}

impl Edit {
    /// `text` before the code point `position`.
    pub fn insert(position: usize, text: impl Into<String>) -> Edit {
        Edit::Insert { place: Place::At { position }, text: text.into() }
    }

    /// `text` before the one occurrence of `anchor`.
    pub fn insert_before(anchor: impl Into<String>, text: impl Into<String>) -> Edit {
        Edit::Insert { place: Place::Before { before: anchor.into() }, text: text.into() }
    }

    /// `text` after the one occurrence of `anchor`.
    pub fn insert_after(anchor: impl Into<String>, text: impl Into<String>) -> Edit {
        Edit::Insert { place: Place::After { after: anchor.into() }, text: text.into() }
    }

    /// Removes `length` code points from `position` on.
    pub fn delete(position: usize, length: usize) -> Edit {
        Edit::Delete { range: Range::At { position, length } }
    }

    /// Removes the one occurrence of `anchor`.
    pub fn delete_text(anchor: impl Into<String>) -> Edit {
        Edit::Delete { range: Range::Anchor { anchor: anchor.into() } }
    }

    /// `text` in the place of `length` code points from `position` on.
    pub fn replace(position: usize, length: usize, text: impl Into<String>) -> Edit {
        Edit::Replace { range: Range::At { position, length }, text: text.into() }
    }

    /// `text` in the place of the one occurrence of `anchor`.
    pub fn replace_text(anchor: impl Into<String>, text: impl Into<String>) -> Edit {
        Edit::Replace { range: Range::Anchor { anchor: anchor.into() }, text: text.into() }
    }

    /// `text` at the end.
    pub fn append(text: impl Into<String>) -> Edit {
        Edit::Append { text: text.into() }
    }

    /// Reads an edit as programs write it, see [the manual](crate::manual::document).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_value(value: Value) -> Result<Edit, Reject> {
        let mut fields = Fields::of(value)?;
        let kind = fields.text("type")?;
        let edit = match &*kind {
            "insert" => Edit::Insert { place: place(&mut fields)?, text: fields.text("text")? },
            "delete" => Edit::Delete { range: range(&mut fields)? },
            "replace" => Edit::Replace { range: range(&mut fields)?, text: fields.text("text")? },
            "append" => Edit::Append { text: fields.text("text")? },
            "patch" => Edit::Patch { patch: patch(fields.value("patch")?)? },
            "merge" => Edit::Merge { merge: json::plain(fields.value("merge")?)? },
            other => {
                let sentence = format!(
                    "an edit has the type {other:?}; there are insert, delete, replace, append, patch, merge"
                );
                return Err(Reject::new(Code::Invalid, sentence));
            }
        };
        fields.done()?;
        Ok(edit)
    }

    /// As [`from_value`](Self::from_value) reads it.
    pub fn to_value(&self) -> Value {
        let plain = serde_json::to_value(self).unwrap_or_default();
        json::value(plain)
    }

    /// Whether it says where by a number, which others' edits move.
    pub(super) fn is_positional(&self) -> bool {
        match self {
            Edit::Insert { place, .. } => matches!(place, Place::At { .. }),
            Edit::Delete { range } | Edit::Replace { range, .. } => {
                matches!(range, Range::At { .. })
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Edit {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Edit, D::Error> {
        let plain = serde_json::Value::deserialize(input)?;
        Edit::from_value(json::value(plain)).map_err(|reject| de::Error::custom(reject.message))
    }
}

fn place(fields: &mut Fields) -> Result<Place, Reject> {
    let position = position(fields, "position")?;
    let (before, after) = (fields.optional_text("before")?, fields.optional_text("after")?);
    match (position, before, after) {
        (Some(position), None, None) => Ok(Place::At { position }),
        (None, Some(before), None) => Ok(Place::Before { before }),
        (None, None, Some(after)) => Ok(Place::After { after }),
        _ => Err(Reject::new(Code::Invalid, "say one of position, before and after")),
    }
}

fn range(fields: &mut Fields) -> Result<Range, Reject> {
    let (start, length) = (position(fields, "position")?, position(fields, "length")?);
    match (start, length, fields.optional_text("anchor")?) {
        (Some(position), Some(length), None) => Ok(Range::At { position, length }),
        (None, None, Some(anchor)) => Ok(Range::Anchor { anchor }),
        _ => Err(Reject::new(Code::Invalid, "say position and length, or anchor")),
    }
}

fn position(fields: &mut Fields, name: &str) -> Result<Option<usize>, Reject> {
    Ok(fields.count(name)?.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
}

fn patch(value: Value) -> Result<Patch, Reject> {
    serde_json::from_value(json::plain(value)?).map_err(|error| {
        let sentence = format!("patch is no JSON Patch (RFC 6902): {error}");
        Reject::new(Code::Invalid, sentence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_read_as_they_are_written() {
        let patch = r#"[{"op":"add","path":"/a","value":1}]"#;
        for edit in [
            Edit::insert(3, "x"),
            Edit::insert_before("a", "x"),
            Edit::insert_after("a", "x"),
            Edit::delete(3, 4),
            Edit::delete_text("a"),
            Edit::replace(3, 4, "x"),
            Edit::replace_text("a", "x"),
            Edit::append("x"),
            Edit::Patch { patch: serde_json::from_str(patch).unwrap() },
            Edit::Merge { merge: serde_json::json!({"a": null}) },
        ] {
            assert_eq!(Edit::from_value(edit.to_value()).unwrap(), edit);
        }
    }

    #[test]
    fn what_is_no_edit_is_refused_with_a_reason() {
        for text in [
            "1",
            "{}",
            r#"{"type":"move"}"#,
            r#"{"type":"insert","text":"x"}"#,
            r#"{"type":"insert","text":"x","position":-1}"#,
            r#"{"type":"insert","text":"x","position":1,"before":"a"}"#,
            r#"{"type":"insert","position":1}"#,
            r#"{"type":"delete","position":1}"#,
            r#"{"type":"append","text":"x","at":1}"#,
            r#"{"type":"patch","patch":{"op":"add"}}"#,
            r#"{"type":"patch","patch":[{"op":"steal","path":""}]}"#,
            r#"{"type":"patch"}"#,
        ] {
            let value = Value::from_json(text.as_bytes()).unwrap();
            assert_eq!(Edit::from_value(value).unwrap_err().code, Code::Invalid, "{text}");
        }
    }
}
