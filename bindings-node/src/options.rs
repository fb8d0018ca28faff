//! Options as the face in `ts/` writes them: JSON, times in milliseconds.

use std::{path::PathBuf, time::Duration};

use kps::{
    ConnectOptions, Error, ErrorKind, Result,
    capability::{
        Value,
        storage::{Spelling, StorageOptions},
    },
    message::{Extras, Offline, ReceiptLevel},
    net::{Ca, TlsOptions},
    options::{OutboxOverflow, Overflow, Redelivery, StartAt, SubscribeOptions},
};
use serde::Deserialize;

/// `connect`'s.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Connect {
    url: String,
    id: Option<String>,
    token: Option<String>,
    namespace: Option<String>,
    timeout: Option<f64>,
    wait: Option<bool>,
    reconnect: Option<bool>,
    reconnect_min: Option<f64>,
    reconnect_max: Option<f64>,
    outbox: Option<PathBuf>,
    outbox_soft: Option<usize>,
    outbox_hard: Option<usize>,
    outbox_overflow: Option<String>,
    storage: Option<serde_json::Value>,
    ca: Option<String>,
}

impl TryFrom<Connect> for ConnectOptions {
    type Error = Error;

    fn try_from(given: Connect) -> Result<Self> {
        let mut options = ConnectOptions::new(given.url);
        options.agent = concat!("kps-node/", env!("CARGO_PKG_VERSION")).into();
        options.id = given.id;
        options.token = given.token;
        options.namespace = given.namespace;
        options.tls = TlsOptions { ca: given.ca.map(authority), ..TlsOptions::default() };
        set(&mut options.timeout, given.timeout.map(millis));
        set(&mut options.wait, given.wait);
        set(&mut options.reconnect, given.reconnect);
        set(&mut options.reconnect_min, given.reconnect_min.map(millis));
        set(&mut options.reconnect_max, given.reconnect_max.map(millis));
        options.outbox = given.outbox;
        set(&mut options.outbox_soft, given.outbox_soft);
        set(&mut options.outbox_hard, given.outbox_hard);
        if let Some(name) = given.outbox_overflow {
            options.outbox_overflow = OutboxOverflow::from_name(&name).ok_or_else(|| {
                let message =
                    format!("outboxOverflow is {name:?}; it is one of refuse, drop_oldest");
                Error::new(ErrorKind::InvalidArgument, message)
            })?;
        }
        options.storage = given.storage.as_ref().map(storage).transpose()?;
        Ok(options)
    }
}

/// A storage's: a path, or an object.
pub(crate) fn storage(given: &serde_json::Value) -> Result<StorageOptions> {
    let given = Value::from_json(given.to_string().as_bytes()).map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, format!("storage cannot be read: {error}"))
    })?;
    StorageOptions::read(given, Spelling::Camel)
}

/// `subscribe`'s.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscribe {
    group: Option<String>,
    overflow: Option<String>,
    capacity: Option<u32>,
    start: Option<Start>,
    durable: Option<String>,
    ack_wait: Option<f64>,
    retry_delay: Option<f64>,
    max_attempts: Option<u32>,
}

/// A word or a cursor, or milliseconds since the Unix epoch.
#[derive(Deserialize)]
#[serde(untagged)]
enum Start {
    Text(String),
    Time(f64),
}

impl TryFrom<Subscribe> for SubscribeOptions {
    type Error = kps::Error;

    fn try_from(given: Subscribe) -> kps::Result<Self> {
        let overflow = match given.overflow {
            None => Overflow::default(),
            Some(name) => Overflow::from_name(&name).ok_or_else(|| {
                let message = format!("overflow is {name:?}; it is one of block, drop_oldest, drop_newest, latest, disconnect, spill");
                kps::Error::new(kps::ErrorKind::InvalidArgument, message)
            })?,
        };
        let start = match given.start {
            None => StartAt::New,
            Some(Start::Text(text)) => StartAt::parse(&text)?,
            Some(Start::Time(ms)) if ms >= 0.0 => StartAt::Time(ms as u64),
            Some(Start::Time(ms)) => {
                let message = format!("start is {ms}, which is no time since the Unix epoch");
                return Err(kps::Error::new(kps::ErrorKind::InvalidArgument, message));
            }
        };
        let mut redelivery = Redelivery::default();
        set(&mut redelivery.ack_wait, given.ack_wait.map(millis));
        set(&mut redelivery.retry_delay, given.retry_delay.map(millis));
        set(&mut redelivery.max_attempts, given.max_attempts);
        Ok(SubscribeOptions {
            group: given.group,
            overflow,
            capacity: given.capacity,
            start,
            durable: given.durable,
            redelivery,
        })
    }
}

/// What a publish has beside topic and payload, when it has more than an ack's timeout.
#[derive(Default, Deserialize)]
pub(crate) struct Publish {
    #[serde(default)]
    headers: Vec<(String, String)>,
    id: Option<String>,
    ttl: Option<f64>,
    receipt: Option<String>,
    #[serde(default)]
    pub(crate) retain: bool,
    to: Option<Vec<String>>,
    private: Option<bool>,
    offline: Option<String>,
}

impl Publish {
    /// The parts that travel.
    pub(crate) fn extras(&mut self) -> kps::Result<Extras> {
        Ok(Extras {
            headers: std::mem::take(&mut self.headers),
            id: self.id.take(),
            ttl: self.ttl.map(millis),
            to: self.to.take(),
            private: self.private.unwrap_or(false),
            offline: match &self.offline {
                Some(name) => Offline::parse(name)?,
                None => Offline::Keep,
            },
        })
    }

    /// The receipt level asked for.
    pub(crate) fn receipt(&self) -> kps::Result<Option<ReceiptLevel>> {
        self.receipt.as_deref().map(receipt_level).transpose()
    }
}

/// The level that every language spells so.
pub(crate) fn receipt_level(name: &str) -> kps::Result<ReceiptLevel> {
    use ReceiptLevel::{Accepted, Queued, QueuedOnDisk, Replicated, Stored};
    [Queued, QueuedOnDisk, Accepted, Stored, Replicated]
        .into_iter()
        .find(|level| level.as_str() == name)
        .ok_or_else(|| {
            let message = format!("receipt is {name:?}; it is one of queued, queued_on_disk, accepted, stored, replicated");
            kps::Error::new(kps::ErrorKind::InvalidArgument, message)
        })
}

/// `ms` milliseconds. What is no length of time counts as none, what is too long as the longest.
pub(crate) fn millis(ms: f64) -> Duration {
    if ms.is_nan() || ms <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX)
}

/// Certificate text if it looks like that, else a file.
fn authority(ca: String) -> Ca {
    if ca.contains("-----BEGIN") { Ca::Pem(ca.into_bytes()) } else { Ca::File(PathBuf::from(ca)) }
}

/// Replaces the default if something is given.
pub(crate) fn set<T>(slot: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *slot = value;
    }
}
