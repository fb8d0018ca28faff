//! `kps history`, `kps replay` and `kps verify`: what a server keeps, read from its data folder.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Args;
use kps_proto::{
    Error, ErrorKind, Result,
    history::{Query, ReadFrom, Record},
    message::Message,
    topic::Pattern,
};

use super::{
    duration,
    inbox::Inbox,
    interrupt, io_error,
    link::{self, Link},
    payload, publish,
};
use crate::{
    Bridge, FlushHint, PublishOptions, Room, To,
    store::{
        StoreReader, ValuesVerdict, Verdict, database_file, values::values_file, verify,
        verify_values,
    },
};

/// Messages of one page.
const PAGE: usize = 1024;
const PAGE_BYTES: usize = 4 << 20;

/// Which messages of which folder.
#[derive(Args)]
struct Selection {
    /// A topic or pattern
    #[arg(value_parser = Pattern::parse, default_value = ">")]
    topic: Pattern,
    /// The server's data folder; the server may be running
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to begin: all, last (the newest message of each topic), or a time like 10m for ten minutes
    /// ago
    #[arg(long, value_parser = from, default_value = "all")]
    from: ReadFrom,
    /// The namespace whose topics these are
    #[arg(long, default_value = "")]
    namespace: String,
    /// End after so many messages
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
}

fn from(text: &str) -> Result<ReadFrom, String> {
    match text {
        "all" => Ok(ReadFrom::After(0)),
        "last" => Ok(ReadFrom::Last),
        _ => {
            let ago = duration(text).map_err(|_| "expected all, last, or a time like 10m")?;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let then = now.saturating_sub(ago).as_millis();
            Ok(ReadFrom::Time(u64::try_from(then).unwrap_or(0)))
        }
    }
}

impl Selection {
    /// Calls `each` with every message, until it says that it is enough.
    fn read(&self, mut each: impl FnMut(Record) -> Result<bool>) -> Result<()> {
        let mut reader = StoreReader::open(&self.data)?;
        let mut query = Query {
            namespace: self.namespace.clone(),
            pattern: self.topic.clone(),
            from: self.from,
            max_count: PAGE,
            max_bytes: PAGE_BYTES,
        };
        let mut left = self.count.unwrap_or(u64::MAX);
        loop {
            let page = reader.read(&query)?;
            for record in page.records {
                if left == 0 || interrupt::was_interrupted() || !each(record)? {
                    return Ok(());
                }
                left -= 1;
            }
            if !page.more {
                return Ok(());
            }
            query.from = ReadFrom::After(page.through);
        }
    }
}

/// Print messages that a server keeps.
#[derive(Args)]
pub(super) struct History {
    #[command(flatten)]
    selection: Selection,
    /// Print each message as a JSON object
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        self.selection.read(|record| {
            let message = message(record);
            let line = if self.json { object(&message).to_string() } else { line(&message) };
            // Whoever read the output, like `head`, has enough.
            Ok(writeln!(out, "{line}").is_ok())
        })?;
        out.flush().or(Ok(()))
    }
}

/// What is kept of a message, with what subscribers are not told.
fn object(message: &Message) -> serde_json::Value {
    let mut object = payload::object(message);
    if let Some(extras) = message.extras.as_deref() {
        object["to"] = serde_json::json!(extras.to);
        object["private"] = extras.private.into();
        object["offline"] = extras.offline.as_str().into();
        if extras.private {
            // Nothing but its place is kept.
            for unknown in ["data", "content_type", "id", "sender"] {
                object[unknown] = serde_json::Value::Null;
            }
        }
    }
    object
}

fn line(message: &Message) -> String {
    let extras = message.extras.as_deref();
    let data = match extras.is_some_and(|extras| extras.private) {
        true => "(private)".to_owned(),
        false => payload::readable(&message.payload),
    };
    match extras.and_then(|extras| extras.to.as_ref()) {
        Some(to) => format!("{} {data} (to {})", message.topic, to.join(", ")),
        None => format!("{} {data}", message.topic),
    }
}

/// A kept message as a subscriber would have received it.
fn message(record: Record) -> Message {
    Message {
        topic: record.topic,
        payload: record.payload,
        sender: record.sender,
        number: record.number,
        seq: record.seq,
        epoch: record.epoch,
        time_ms: record.time_ms,
        attempt: 1,
        maybe_duplicate: record.maybe_duplicate,
        retained: false,
        extras: record.extras,
        cursor: None,
    }
}

/// Publish messages that a server keeps once more, in their order and at their pace.
#[derive(Args)]
pub(super) struct Replay {
    #[command(flatten)]
    selection: Selection,
    /// How many times as fast as they came; 0: as fast as possible
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    speed: f64,
    /// Put this and a dot before each topic
    #[arg(long, value_name = "TOPIC")]
    prefix: Option<String>,
    #[command(flatten)]
    link: Link,
}

impl Replay {
    pub(super) fn run(self) -> Result<()> {
        if !self.speed.is_finite() || self.speed < 0.0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("--speed is {}; it is a number from 0", self.speed),
            ));
        }
        let (bridge, mut inbox) = self.link.connect()?;
        let done = self.publish_all(&bridge, &mut inbox);
        link::close(&bridge);
        let count = done?;
        eprintln!("kps: {count} messages published");
        Ok(())
    }

    fn publish_all(&self, bridge: &Bridge, inbox: &mut Inbox) -> Result<u64> {
        let (mut count, mut last) = (0, None);
        self.selection.read(|record| {
            if record.extras.as_ref().is_some_and(|extras| extras.private) {
                // There is nothing to publish.
                return Ok(true);
            }
            let before = last.replace(record.time_ms).unwrap_or(record.time_ms);
            let pause = Duration::from_millis(record.time_ms.saturating_sub(before));
            if self.speed > 0.0 && !pause.is_zero() {
                bridge.flush_now();
                let pause = pause.as_secs_f64() / self.speed;
                interrupt::sleep(Duration::try_from_secs_f64(pause).unwrap_or(Duration::MAX));
            }
            let topic = match &self.prefix {
                Some(prefix) => format!("{prefix}.{}", record.topic),
                None => record.topic.to_string(),
            };
            // Under its old id it would count as a repeat of itself.
            let mut extras = record.extras.as_deref().cloned().unwrap_or_default();
            extras.id = None;
            let options = PublishOptions {
                extras: (!extras.is_empty()).then_some(&extras),
                target: inbox.target,
                ..PublishOptions::default()
            };
            let (content_type, bytes) = (record.payload.content_type, &record.payload.bytes);
            bridge.publish(To::Topic(&topic), content_type, bytes, options, FlushHint::Later)?;
            count += 1;
            if bridge.room() != Room::Free {
                publish::flush(bridge, inbox)?;
            }
            Ok(true)
        })?;
        publish::flush(bridge, inbox)?;
        Ok(count)
    }
}

/// Check a data folder: every page, every checksum, and whether what belongs together agrees; in a storage's values, too.
#[derive(Args)]
pub(super) struct Verify {
    /// The server's data folder, or the file of a storage; who has it may be running
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// The store and the values, of which there may be one alone.
    fn look(&self) -> Result<(Option<Verdict>, Option<ValuesVerdict>)> {
        if self.data.is_file() {
            return Ok((None, Some(verify_values(&self.data)?)));
        }
        let file = values_file(&self.data);
        let values = file.exists().then(|| verify_values(&file)).transpose()?;
        // What only a storage uses has no messages.
        let is_bare = values.is_some() && !database_file(&self.data).exists();
        let found = (!is_bare).then(|| verify(&self.data)).transpose()?;
        Ok((found, values))
    }

    pub(super) fn run(self) -> Result<()> {
        let (found, values) = self.look()?;
        let mut findings = Vec::new();
        if self.json {
            let mut all = serde_json::json!({});
            if let Some(found) = &found {
                all = serde_json::json!({
                    "messages": found.messages, "bytes": found.bytes, "topics": found.topics,
                    "epochs": found.epochs, "sessions": found.sessions, "durables": found.durables,
                    "retained": found.retained, "position": found.position,
                    "oldest_ms": found.oldest_ms, "newest_ms": found.newest_ms,
                });
            }
            if let Some(values) = &values {
                all["values"] = serde_json::json!({
                    "namespaces": values.namespaces, "keys": values.keys, "versions": values.versions,
                    "bytes": values.bytes, "encrypted": values.encrypted,
                });
            }
            findings.extend(found.into_iter().flat_map(|found| found.findings));
            findings.extend(values.into_iter().flat_map(|values| values.findings));
            all["findings"] = findings.clone().into();
            writeln!(std::io::stdout(), "{all}").map_err(io_error)?;
        } else {
            if let Some(found) = found {
                println!(
                    "{} messages ({} bytes) on {} topics, {} retained, {} durable subscriptions, {} starts",
                    found.messages,
                    found.bytes,
                    found.topics,
                    found.retained,
                    found.durables,
                    found.epochs
                );
                findings = found.findings;
            }
            if let Some(values) = values {
                println!(
                    "{} keys ({} bytes) in {} namespaces, {} old versions{}",
                    values.keys,
                    values.bytes,
                    values.namespaces,
                    values.versions,
                    if values.encrypted { ", encrypted" } else { "" }
                );
                findings.extend(values.findings);
            }
            for finding in &findings {
                println!("{finding}");
            }
        }
        match findings.len() {
            0 => Ok(()),
            count => Err(Error::new(
                ErrorKind::StoreCorrupt,
                format!("{count} findings in {}; restore it from a copy", self.data.display()),
            )),
        }
    }
}
