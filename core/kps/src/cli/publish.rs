//! `kps pub`.

use std::{io::BufRead, time::Duration};

use clap::Args;
use kps_proto::{
    Error, ErrorKind, Result,
    message::{Extras, Offline},
};

use super::{
    duration,
    inbox::Inbox,
    interrupt, io_error,
    link::{self, Link},
    payload::Format,
};
use crate::{AckRequest, Bridge, Event, FlushHint, PublishOptions, Room, To};

/// Publish a message, or one per line of standard input.
#[derive(Args)]
pub(super) struct Pub {
    /// The topic
    topic: String,
    /// JSON or text; without it every line of standard input is a message
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
    /// TOPIC is a client's id
    #[arg(long)]
    to_id: bool,
    /// Wait for the recipients' answers and print them
    #[arg(long)]
    ack: bool,
    /// Keep the message as the topic's last value, for who subscribes later with --start last; empty data
    /// (with --text) removes it
    #[arg(long, conflicts_with = "to_id")]
    retain: bool,
    /// How long to wait for answers
    #[arg(long, value_parser = duration, default_value = "30s", value_name = "TIME")]
    timeout: Duration,
    /// A header, NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Only this client, or principal:NAME, may have it; may be repeated
    #[arg(long, value_name = "WHO")]
    to: Vec<String>,
    /// Have it written to no disk and quoted nowhere
    #[arg(long)]
    private: bool,
    /// What becomes of it where a party is offline: keep, drop or latest
    #[arg(long, value_parser = Offline::parse, default_value = "keep", value_name = "POLICY")]
    offline: Offline,
    /// Print answers as JSON objects
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    link: Link,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Pub {
    pub(super) fn run(self) -> Result<()> {
        let (bridge, mut inbox) = self.link.connect()?;
        let done = self.publish_all(&bridge, &mut inbox);
        link::close(&bridge);
        done
    }

    fn publish_all(&self, bridge: &Bridge, inbox: &mut Inbox) -> Result<()> {
        match &self.data {
            Some(data) => self.publish(bridge, inbox, data)?,
            None => {
                for line in std::io::stdin().lock().lines() {
                    self.publish(bridge, inbox, &line.map_err(io_error)?)?;
                    if interrupt::was_interrupted() {
                        break;
                    }
                }
            }
        }
        flush(bridge, inbox)
    }

    fn publish(&self, bridge: &Bridge, inbox: &mut Inbox, data: &str) -> Result<()> {
        let payload = self.format.payload(data);
        let extras = Extras {
            headers: self.header.clone(),
            to: (!self.to.is_empty()).then(|| self.to.clone()),
            private: self.private,
            offline: self.offline,
            ..Extras::default()
        };
        let options = PublishOptions {
            extras: (!extras.is_empty()).then_some(&extras),
            ack: self.ack.then_some(AckRequest {
                timeout: self.timeout,
                request: false,
                target: inbox.target,
            }),
            target: inbox.target,
            retain: self.retain,
            ..PublishOptions::default()
        };
        let to = if self.to_id { To::Client(&self.topic) } else { To::Topic(&self.topic) };
        let number =
            bridge.publish(to, payload.content_type, &payload.bytes, options, FlushHint::Now)?;
        if self.ack {
            return self.print_rows(inbox, number);
        }
        if bridge.room() != Room::Free {
            flush(bridge, inbox)?;
        }
        Ok(())
    }

    fn print_rows(&self, inbox: &mut Inbox, number: u64) -> Result<()> {
        let mut failed = 0;
        while let Some(event) = inbox.next(None) {
            match event {
                Event::Row { ack, row } if ack == number => {
                    failed += usize::from(!row.success());
                    let error = row.to_error().map(|error| error.to_string());
                    let millis = row.latency.as_secs_f64() * 1000.0;
                    if self.json {
                        let data = row.data.as_ref().map(super::payload::value);
                        println!(
                            "{}",
                            serde_json::json!({
                                "client_id": &*row.client_id, "status": row.status.as_str(),
                                "error": error, "data": data, "latency_ms": millis,
                            })
                        );
                    } else {
                        let data = row.data.as_ref().map(super::payload::readable);
                        let said = error.or(data).unwrap_or_default();
                        println!(
                            "{} {} in {millis:.2} ms {said}",
                            row.client_id,
                            row.status.as_str()
                        );
                    }
                }
                Event::AckDone { ack, .. } if ack == number => break,
                Event::PublishFailed { number: refused, error, .. } if refused == number => {
                    return Err(error);
                }
                _ => {}
            }
        }
        match failed {
            0 => Ok(()),
            count => Err(Error::new(ErrorKind::HandlerFailed, format!("{count} did not succeed"))),
        }
    }
}

/// Waits until the server has accepted everything; fails with the first refusal.
pub(super) fn flush(bridge: &Bridge, inbox: &mut Inbox) -> Result<()> {
    let token = bridge.flush_event(&inbox.mailbox);
    while let Some(event) = inbox.next(None) {
        match event {
            Event::Flushed { token: flushed, error } if flushed == token => {
                return error.map_or(Ok(()), Err);
            }
            Event::PublishFailed { error, .. } => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
