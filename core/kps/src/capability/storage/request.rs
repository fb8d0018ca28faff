//! What operations are given: payloads become the engine's [`Op`]s.

use kps_proto::ErrorKind;

use super::{
    super::{Failure, Fields, Value, missing},
    codec,
};
use crate::store::values::{Condition, Op, Save, StorageOptions};

/// Bytes of a content type at most.
const MAX_CONTENT_TYPE: usize = 255;

/// Items of a batch, operations of a transaction at most.
pub(super) const MAX_BATCH: usize = 1000;

/// A key that may be.
pub(super) fn key(fields: &mut Fields, options: &StorageOptions) -> Result<String, Failure> {
    check_key(fields.text("key")?, "key", options)
}

pub(super) fn check_key(
    key: String,
    field: &str,
    options: &StorageOptions,
) -> Result<String, Failure> {
    if key.is_empty() {
        return Err(Failure::field(field, "the key is empty"));
    }
    if key.len() > options.max_key {
        let sentence = format!("the key has {} bytes, the most are {}", key.len(), options.max_key);
        return Err(too_large(field, sentence));
    }
    Ok(key)
}

/// `too_large` because of this field.
pub(super) fn too_large(field: &str, sentence: String) -> Failure {
    Failure { field: Some(field.into()), ..Failure::new(ErrorKind::TooLarge, sentence) }
}

/// The fields of `save` and `upload` but for the value.
pub(super) fn save(fields: &mut Fields, options: &StorageOptions) -> Result<Save, Failure> {
    let key = key(fields, options)?;
    let ttl_ms = fields.seconds("ttl")?.map(|ttl| (ttl.as_millis() as u64).max(1));
    let content_type = fields.optional_text("content_type")?;
    if content_type.as_ref().is_some_and(|name| name.len() > MAX_CONTENT_TYPE) {
        let sentence = format!("the content type has more than {MAX_CONTENT_TYPE} bytes");
        return Err(too_large("content_type", sentence));
    }
    Ok(Save { key, ttl_ms, content_type, condition: condition(fields)? })
}

/// `if_match` and `if_none_match`.
pub(super) fn condition(fields: &mut Fields) -> Result<Condition, Failure> {
    let if_match = fields.optional_text("if_match")?;
    let absent = match fields.optional_text("if_none_match")? {
        None => false,
        Some(star) if star == "*" => true,
        Some(other) => {
            let sentence = format!("if_none_match is {other:?}; here it is \"*\"");
            return Err(Failure::field("if_none_match", sentence));
        }
    };
    if absent && if_match.is_some() {
        let sentence = "if_match and if_none_match exclude each other: give one";
        return Err(Failure::field("if_none_match", sentence));
    }
    Ok(Condition { if_match, absent })
}

/// `save`, of a call or in a batch.
pub(super) fn save_op(mut fields: Fields, options: &StorageOptions) -> Result<Op, Failure> {
    let save = save(&mut fields, options)?;
    let value = fields.value("value")?;
    fields.done()?;
    let content = codec::encode(value)?;
    let size = content.bytes.len() as u64;
    if size > options.max_value {
        let sentence = format!("the value has {size} bytes, the most are {}", options.max_value);
        return Err(too_large("value", sentence));
    }
    if content.kind == codec::TAGGED && size > options.max_inline {
        let sentence = format!(
            "the value has {size} bytes, and only bytes and text may have more than {}, because only \
             they can be read in parts",
            options.max_inline
        );
        return Err(too_large("value", sentence));
    }
    Ok(Op::Save(save, content))
}

/// `delete`, of a call or in a transaction.
pub(super) fn delete_op(mut fields: Fields, options: &StorageOptions) -> Result<Op, Failure> {
    let key = key(&mut fields, options)?;
    let if_match = fields.optional_text("if_match")?;
    fields.done()?;
    Ok(Op::Delete(key, Condition { if_match, absent: false }))
}

/// One operation of a transaction.
pub(super) fn transaction_op(value: Value, options: &StorageOptions) -> Result<Op, Failure> {
    let mut fields = Fields::of(value)?;
    match &*fields.text("op")? {
        "save" => save_op(fields, options),
        "delete" => delete_op(fields, options),
        "check" => {
            let key = key(&mut fields, options)?;
            let condition = condition(&mut fields)?;
            fields.done()?;
            if condition == Condition::default() {
                return Err(missing("if_match"));
            }
            Ok(Op::Check(key, condition))
        }
        "get" => {
            let key = key(&mut fields, options)?;
            fields.done()?;
            Ok(Op::Get(key))
        }
        other => {
            let sentence = format!("op is {other:?}; it is save, delete, check or get");
            Err(Failure::field("op", sentence))
        }
    }
}

/// A list that is not longer than a batch may be.
pub(super) fn batch(fields: &mut Fields, name: &str) -> Result<Vec<Value>, Failure> {
    let list = fields.list(name)?;
    if list.len() > MAX_BATCH {
        let sentence = format!("{name} has {} members, the most are {MAX_BATCH}", list.len());
        return Err(too_large(name, sentence));
    }
    Ok(list)
}

/// The limit of a page.
pub(super) fn limit(fields: &mut Fields, usual: u64, most: u64) -> Result<usize, Failure> {
    match fields.count("limit")? {
        Some(limit) if limit == 0 || limit > most => {
            let sentence = format!("limit is {limit}; it is from 1 to {most}");
            Err(Failure::field("limit", sentence))
        }
        limit => Ok(limit.unwrap_or(usual) as usize),
    }
}

/// Keys of a batch; each stands for itself.
pub(super) fn keys(
    list: Vec<Value>,
    options: &StorageOptions,
) -> impl Iterator<Item = Result<String, Failure>> {
    list.into_iter().map(|value| match value {
        Value::Text(key) => check_key(key, "keys", options),
        other => Err(super::super::wrong("keys", &other, "a list of strings")),
    })
}
