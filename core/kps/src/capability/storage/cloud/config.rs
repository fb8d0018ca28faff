//! `storage.configure_cloud`.

use std::sync::Arc;

use kps_proto::ErrorKind;
use parking_lot::Mutex;

use super::{
    super::{
        super::{Call, Failure, Fields, Value},
        Reply, Storage,
    },
    Cache, Cloud, Configured, RemoteDatabase, later,
};

/// Bytes that the cache holds, and for how long: unless told.
const CACHE: (u64, f64) = (64 << 20, 60.0);

impl Cloud {
    fn set(&self, configured: Option<Configured>) {
        *self.0.write() = configured.map(Arc::new);
    }
}

impl Configured {
    /// What `stat` says of it.
    pub(in super::super) fn stat(&self) -> Value {
        Value::map([
            ("url", (&*self.url).into()),
            ("max_local_size", self.max_local_size.into()),
            ("cached", self.cache.lock().bytes().into()),
        ])
    }
}

impl Storage {
    pub(in super::super) fn configure_cloud(
        &self,
        call: &Call,
        mut fields: Fields,
    ) -> Result<Reply, Failure> {
        if call.caller.client_id.is_some() {
            let sentence = "only the program that opened the storage configures its cloud";
            return Err(Failure::new(ErrorKind::Unauthorized, sentence));
        }
        let url = fields.optional_text("url")?;
        let token = fields.optional_text("auth_token")?.unwrap_or_default();
        let max_local_size =
            fields.count("max_local_size")?.unwrap_or(self.0.options.max_local_size);
        let cache_size = fields.count("cache_size")?.unwrap_or(CACHE.0);
        let cache_age = fields.number("cache_age")?.unwrap_or(CACHE.1).clamp(0.0, 1e9);
        fields.done()?;
        let Some(url) = url else {
            self.0.cloud.set(None);
            return Ok(Value::map([("configured", false.into())]).into());
        };
        check_url(&url)?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::field(
                "auth_token",
                "auth_token has characters that no token has",
            ));
        }
        let inner = self.0.clone();
        Ok(later(async move {
            let database = RemoteDatabase::new(&url, &token).await?;
            let prepared = database.prepare(inner.values.now()).await;
            let reachable = match prepared {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::Unavailable => false,
                Err(error) => return Err(error.into()),
            };
            let cache = Mutex::new(Cache::new(cache_size, (cache_age * 1000.0) as u64));
            inner.cloud.set(Some(Configured {
                url,
                max_local_size,
                database,
                cache,
                locks: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            }));
            Ok(Value::map([("configured", true.into()), ("reachable", reachable.into())]))
        }))
    }
}

fn check_url(url: &str) -> Result<(), Failure> {
    let rest =
        ["libsql://", "https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\');
    match rest {
        Some(rest) if !rest.is_empty() && url.len() <= 2048 && rest.bytes().all(plain) => Ok(()),
        _ => Err(Failure::field(
            "url",
            "url is not the URL of a libSQL database: libsql://…, https://… or http://…",
        )),
    }
}
