//! `kps sub`.

use std::{io::Write, time::SystemTime};

use clap::Args;
use kps_proto::{
    Result,
    message::Answer,
    message::Payload,
    options::{Overflow, StartAt, SubscribeOptions},
};

use super::{
    inbox::Inbox,
    io_error,
    link::{self, Link},
    payload,
};
use crate::{Bridge, Event, FlushHint};

/// Print the messages that match patterns, and ack them.
#[derive(Args)]
pub(super) struct Sub {
    /// Topics or patterns: `*` is one level, `>` the rest
    #[arg(required = true)]
    pattern: Vec<String>,
    /// Share the messages with the other members of this group
    #[arg(long)]
    group: Option<String>,
    /// Where to begin: new, last (each topic's retained message, or its newest in history), all, a cursor, or a time like 10m
    /// for ten minutes ago
    #[arg(long, value_parser = start, default_value = "new")]
    start: StartAt,
    /// The name under which the server keeps the progress; a message counts as done when it is printed
    #[arg(long, value_name = "NAME")]
    durable: Option<String>,
    /// What happens when the queue is full: block, drop_oldest, drop_newest, latest, disconnect,
    /// spill
    #[arg(long, value_parser = overflow, default_value = "block")]
    overflow: Overflow,
    /// Messages the queue holds; without it bytes alone bound it
    #[arg(long)]
    capacity: Option<u32>,
    /// End after so many messages
    #[arg(long)]
    count: Option<u64>,
    /// Print each message as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    link: Link,
}

fn overflow(name: &str) -> Result<Overflow, String> {
    Overflow::from_name(name).ok_or_else(|| {
        "expected block, drop_oldest, drop_newest, latest, disconnect or spill".into()
    })
}

fn start(text: &str) -> Result<StartAt, String> {
    let Ok(ago) = super::duration(text) else {
        return StartAt::parse(text).map_err(|error| error.message().to_owned());
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(StartAt::Time(u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(0)))
}

impl Sub {
    pub(super) fn run(self) -> Result<()> {
        let (bridge, mut inbox) = self.link.connect()?;
        let done = self.print(&bridge, &mut inbox);
        link::close(&bridge);
        done
    }

    fn print(&self, bridge: &Bridge, inbox: &mut Inbox) -> Result<()> {
        let options = SubscribeOptions {
            group: self.group.clone(),
            overflow: self.overflow,
            capacity: self.capacity,
            start: self.start.clone(),
            durable: self.durable.clone(),
            ..SubscribeOptions::default()
        };
        for pattern in &self.pattern {
            bridge.subscribe(&inbox.mailbox, pattern, options.clone())?;
        }
        let (mut confirmed, mut received) = (0, 0);
        let mut out = std::io::stdout().lock();
        while self.count.is_none_or(|count| received < count) {
            // Printed lines leave when nothing more is there at the moment.
            let next = match inbox.try_next() {
                Some(event) => Some(event),
                None => {
                    bridge.flush_now();
                    out.flush().map_err(io_error)?;
                    inbox.next(None)
                }
            };
            match next {
                None => break,
                Some(Event::Subscribed { .. }) => {
                    confirmed += 1;
                    if confirmed == self.pattern.len() {
                        eprintln!("kps: subscribed to {}", self.pattern.join(" "));
                    }
                }
                Some(
                    Event::SubscribeFailed { error, .. } | Event::SubscriptionClosed { error, .. },
                ) => {
                    return Err(error);
                }
                Some(Event::Message { sub, message, delivery, .. }) => {
                    received += 1;
                    let line = match self.json {
                        true => payload::object(&message).to_string(),
                        false => {
                            format!("{} {}", message.topic, payload::readable(&message.payload))
                        }
                    };
                    if writeln!(out, "{line}").is_err() {
                        // Whoever read the output, like `head`, has enough.
                        break;
                    }
                    if let Some(delivery) = delivery {
                        let null = Answer::Acked(Payload::json("null"));
                        bridge.answer(delivery, null, FlushHint::Later)?;
                    }
                    bridge.consumed(sub, 1, FlushHint::Later);
                }
                Some(Event::Gap { gap, .. }) => {
                    let count = gap.count.map_or("some".into(), |count| count.to_string());
                    eprintln!(
                        "kps: {count} messages on {} are missing: {}",
                        gap.topic,
                        gap.reason.as_str()
                    );
                }
                Some(Event::State { state, error, .. }) => {
                    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
                    eprintln!("kps: {state:?}{why}");
                }
                Some(_) => {}
            }
        }
        bridge.flush_now();
        out.flush().or(Ok(()))
    }
}
