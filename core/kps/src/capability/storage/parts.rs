//! Large values in parts, each of which fits a message.

use std::sync::Arc;

use super::{
    super::{Failure, Fields, missing},
    Reply, Storage, answer, request,
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

    pub(super) fn get_part(
        &self,
        namespace: Arc<str>,
        mut fields: Fields,
    ) -> Result<Reply, Failure> {
        let key = request::key(&mut fields, &self.0.options)?;
        let offset = fields.count("offset")?.unwrap_or(0);
        let length = fields.count("length")?.unwrap_or(CHUNK as u64);
        let etag = fields.optional_text("etag")?;
        fields.done()?;
        if length == 0 || length > MAX_PART as u64 {
            let sentence = format!("length is {length}; it is from 1 to {MAX_PART}");
            return Err(Failure::field("length", sentence));
        }
        #[cfg(feature = "cloud")]
        if let Some(work) = self.in_cloud(&namespace)
            && work.is_elsewhere(&key)
        {
            return Ok(super::cloud::later(async move {
                work.get_part(&key, offset, length, etag.as_deref()).await
            }));
        }
        let part =
            self.0.values.get_part(&namespace, &key, offset, length as usize, etag.as_deref())?;
        let map = answer::described(&key, &part.meta);
        Ok(Reply::Now(answer::part(&key, map, &part.meta, offset, part.bytes)))
    }
}
