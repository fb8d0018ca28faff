//! Large values in parts, each of which fits a message.

use std::sync::Arc;

use kps_proto::ErrorKind;

use super::{
    super::{Failure, Fields, Value, missing},
    Reply, Storage, answer, codec, request,
};
use crate::store::values::{CHUNK, MAX_PART, Op};

impl Storage {
    pub(super) fn upload(&self, namespace: Arc<str>, mut fields: Fields) -> Result<Reply, Failure> {
        let save = request::save(&mut fields, &self.0.options)?;
        fields.done()?;
        Ok(self.one(namespace, Op::Begin(save)))
    }

    pub(super) fn upload_part(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
    ) -> Result<Reply, Failure> {
        let upload = fields.text("upload")?;
        let number = fields.count("number")?.ok_or_else(|| missing("number"))?;
        let bytes = fields.bytes("bytes")?.ok_or_else(|| missing("bytes"))?;
        fields.done()?;
        if bytes.len() > MAX_PART {
            let sentence = format!("the part has {} bytes, the most are {MAX_PART}", bytes.len());
            return Err(request::too_large("bytes", sentence));
        }
        Ok(self.one(namespace, Op::Part(upload, number, bytes)))
    }

    pub(super) fn end_upload(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
        end: fn(String) -> Op,
    ) -> Result<Reply, Failure> {
        let upload = fields.text("upload")?;
        fields.done()?;
        Ok(self.one(namespace, end(upload)))
    }

    pub(super) fn get_part(&self, namespace: &str, mut fields: Fields) -> Result<Reply, Failure> {
        let key = request::key(&mut fields, &self.0.options)?;
        let offset = fields.count("offset")?.unwrap_or(0);
        let length = fields.count("length")?.unwrap_or(CHUNK as u64);
        let etag = fields.optional_text("etag")?;
        fields.done()?;
        if length == 0 || length > MAX_PART as u64 {
            let sentence = format!("length is {length}; it is from 1 to {MAX_PART}");
            return Err(Failure::field("length", sentence));
        }
        let part =
            self.0.values.get_part(namespace, &key, offset, length as usize, etag.as_deref())?;
        if part.meta.kind == codec::TAGGED {
            let sentence = format!("{key:?} is neither bytes nor text: read it with get");
            return Err(Failure::new(ErrorKind::Unsupported, sentence));
        }
        let end = offset.saturating_add(part.bytes.len() as u64);
        let mut map = answer::described(&key, &part.meta);
        map.push("kind", if part.meta.kind == codec::TEXT { "text" } else { "bytes" });
        map.push("offset", offset);
        map.push("done", end >= part.meta.size);
        map.push("bytes", Value::Bytes(part.bytes));
        Ok(map.into())
    }
}
