//! `kps audit`: what happened at a server, read from its data folder.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Args;
use kps_proto::Result;
use serde_json::Value;

use super::{duration, interrupt};
use crate::{
    events::vocabulary,
    store::{AuditEntry, AuditQuery, read_audit},
};

/// Rows read at once.
const PAGE: u64 = 1024;

/// Print what happened at a server that was started with --audit.
#[derive(Args)]
pub(super) struct Audit {
    /// The server's data folder; the server may be running
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Begin so long ago, like 10m
    #[arg(long, value_parser = duration, value_name = "TIME")]
    from: Option<Duration>,
    /// Only events of this name, like connection_opened
    #[arg(long, value_parser = kind, value_name = "EVENT")]
    kind: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// Print each event as a JSON object
    #[arg(long)]
    json: bool,
}

fn kind(name: &str) -> Result<String, String> {
    if vocabulary::is_servers(name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = vocabulary::SERVER.iter().map(|word| word.name).collect();
    Err(format!("the events are {}", names.join(", ")))
}

impl Audit {
    pub(super) fn run(self) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let from = self.from.map_or(0, |ago| now.saturating_sub(ago).as_millis());
        let mut query = AuditQuery {
            after: 0,
            from_ms: u64::try_from(from).unwrap_or(0),
            event: self.kind.clone(),
            max_count: PAGE,
        };
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut out = std::io::stdout().lock();
        loop {
            let page = read_audit(&self.data, &query)?;
            let Some(last) = page.last() else { break };
            query.after = last.id;
            for entry in page {
                // Whoever read the output, like `head`, has enough.
                if left == 0
                    || interrupt::was_interrupted()
                    || self.print(&mut out, &entry).is_err()
                {
                    return Ok(());
                }
                left -= 1;
            }
        }
        out.flush().or(Ok(()))
    }

    fn print(&self, out: &mut impl Write, entry: &AuditEntry) -> std::io::Result<()> {
        let AuditEntry { id, time, row } = entry;
        let detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
        if self.json {
            let line = serde_json::json!({
                "id": id, "time": time, "event": row.event, "detail": detail,
            });
            return writeln!(out, "{line}");
        }
        let field = |(name, value): (&String, &Value)| match value.as_str() {
            Some(text) => format!(" {name}={text}"),
            None => format!(" {name}={value}"),
        };
        let fields: String = detail.as_object().into_iter().flatten().map(field).collect();
        writeln!(out, "{time} {}{fields}", row.event)
    }
}
