//! `kps bench`: what a server and the way to it can do, seen from one process.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kps_proto::{
    Error, ErrorKind, Result,
    message::{Answer, ContentType, Payload},
    options::SubscribeOptions,
};

use super::{
    inbox::Inbox,
    interrupt,
    link::{self, Link},
};
use crate::{AckRequest, Bridge, Event, FlushHint, PublishOptions, Room, To};

/// Publishes between two looks at what came back.
const BURST: usize = 256;

/// Nothing arriving for so long means that something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Acks under way in the second ack measurement.
const IN_FLIGHT: usize = 64;

/// Measure throughput, ack round trip and fan-out against a server.
#[derive(Args)]
pub(super) struct Bench {
    /// Messages of the throughput measurement
    #[arg(long, default_value_t = 200_000)]
    messages: usize,
    /// Acks of each ack measurement
    #[arg(long, default_value_t = 5_000)]
    acks: usize,
    /// Connections of the fan-out measurement
    #[arg(long, default_value_t = 100)]
    subscribers: usize,
    /// Payload bytes (a JSON object)
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    link: Link,
}

/// One line of the result.
struct Line {
    name: &'static str,
    key: &'static str,
    value: f64,
    unit: &'static str,
}

impl Bench {
    pub(super) fn run(self) -> Result<()> {
        let payload = self.payload();
        let mut lines = Vec::new();
        self.throughput(&payload, &mut lines)?;
        self.acks(&payload, &mut lines)?;
        self.fan_out(&payload, &mut lines)?;
        if interrupt::was_interrupted() {
            return Ok(());
        }
        if self.json {
            let object: serde_json::Map<_, _> =
                lines.iter().map(|line| (line.key.to_owned(), line.value.into())).collect();
            println!("{}", serde_json::Value::from(object));
        } else {
            println!("{} · {} bytes of payload", self.link.url, payload.len());
            for Line { name, value, unit, .. } in &lines {
                println!("  {name:<28} {:>14} {unit}", grouped(*value));
            }
        }
        Ok(())
    }

    /// A JSON object of about the size asked for.
    fn payload(&self) -> Vec<u8> {
        let frame = r#"{"pad":""}"#.len();
        format!(r#"{{"pad":"{}"}}"#, "x".repeat(self.size.saturating_sub(frame))).into_bytes()
    }

    fn client(&self) -> Result<(Bridge, Inbox)> {
        Link { id: None, ..self.link.clone() }.connect()
    }

    fn bar(&self, name: &'static str, length: usize) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:12} {wide_bar} {pos}/{len} {per_sec}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(name);
        bar
    }

    fn throughput(&self, payload: &[u8], lines: &mut Vec<Line>) -> Result<()> {
        let (publisher, mut room) = self.client()?;
        let (subscriber, mut inbox) = self.client()?;
        let topic = topic_of(&subscriber);
        subscribe(&subscriber, &mut inbox, &topic)?;
        let bar = self.bar("throughput", self.messages);
        let started = Instant::now();
        let (mut sent, mut received) = (0, 0);
        while received < self.messages && !interrupt::was_interrupted() {
            while sent < self.messages && publisher.room() == Room::Free {
                let burst = BURST.min(self.messages - sent);
                for _ in 0..burst {
                    publish(&publisher, &room, &topic, payload, None)?;
                }
                publisher.flush_now();
                sent += burst;
                received += count_messages(&subscriber, &mut inbox)?;
                bar.set_position(received as u64);
            }
            // Nothing more fits, so something must come.
            if received < self.messages {
                match inbox.next(Some(PATIENCE)) {
                    Some(event) => received += count(&subscriber, event)?,
                    None => return stuck(&bar),
                }
                received += count_messages(&subscriber, &mut inbox)?;
                while room.try_next().is_some() {}
            }
            bar.set_position(received as u64);
        }
        let rate = self.messages as f64 / started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        lines.push(Line {
            name: "throughput",
            key: "messages_per_second",
            value: rate,
            unit: "messages/s",
        });
        [&publisher, &subscriber].into_iter().for_each(link::close);
        Ok(())
    }

    fn acks(&self, payload: &[u8], lines: &mut Vec<Line>) -> Result<()> {
        let (publisher, mut inbox) = self.client()?;
        let (answerer, mut questions) = self.client()?;
        let topic = topic_of(&answerer);
        subscribe(&answerer, &mut questions, &topic)?;
        // The answerer waits on a thread of its own, as another program would.
        let count = self.acks * 2;
        let answering = std::thread::spawn(move || {
            let mut left = count;
            while left > 0 && !interrupt::was_interrupted() {
                let Some(event) = questions.next(Some(PATIENCE)) else { break };
                if let Event::Message { sub, delivery: Some(delivery), .. } = event {
                    answerer.answer(
                        delivery,
                        Answer::Acked(Payload::json("null")),
                        FlushHint::Now,
                    )?;
                    answerer.consumed(sub, 1, FlushHint::Now);
                    left -= 1;
                }
            }
            link::close(&answerer);
            Ok::<_, Error>(())
        });
        let bar = self.bar("ack", self.acks);
        let mut trips = Vec::with_capacity(self.acks);
        for _ in 0..self.acks {
            let started = Instant::now();
            publish(&publisher, &inbox, &topic, payload, Some(PATIENCE))?;
            publisher.flush_now();
            if !wait_for_ack(&mut inbox)? {
                return stuck(&bar);
            }
            trips.push(started.elapsed());
            bar.inc(1);
        }
        bar.finish_and_clear();
        trips.sort_unstable();
        let micros = |trip: Duration| trip.as_secs_f64() * 1e6;
        let p99 = trips[trips.len() * 99 / 100];
        lines.push(Line {
            name: "ack, one in flight, p50",
            key: "ack_p50_us",
            value: micros(trips[trips.len() / 2]),
            unit: "µs",
        });
        lines.push(Line {
            name: "ack, one in flight, p99",
            key: "ack_p99_us",
            value: micros(p99),
            unit: "µs",
        });

        let bar = self.bar("ack, 64", self.acks);
        let started = Instant::now();
        let (mut sent, mut done) = (0, 0);
        while done < self.acks {
            while sent < self.acks && sent - done < IN_FLIGHT {
                publish(&publisher, &inbox, &topic, payload, Some(PATIENCE))?;
                sent += 1;
            }
            publisher.flush_now();
            if !wait_for_ack(&mut inbox)? {
                return stuck(&bar);
            }
            done += 1;
            bar.inc(1);
        }
        let rate = self.acks as f64 / started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        lines.push(Line {
            name: "ack, 64 in flight",
            key: "acks_per_second",
            value: rate,
            unit: "acks/s",
        });
        link::close(&publisher);
        answering
            .join()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the answerer failed")))
    }

    fn fan_out(&self, payload: &[u8], lines: &mut Vec<Line>) -> Result<()> {
        let (publisher, room) = self.client()?;
        let mut subscribers =
            (0..self.subscribers).map(|_| self.client()).collect::<Result<Vec<_>>>()?;
        let topic = topic_of(&publisher);
        for (subscriber, inbox) in &mut subscribers {
            subscribe(subscriber, inbox, &topic)?;
        }
        let each = (self.messages / self.subscribers.max(1)).max(1);
        let expected = each * self.subscribers;
        let bar = self.bar("fan-out", expected);
        let started = Instant::now();
        let (mut sent, mut received) = (0, 0);
        while received < expected && !interrupt::was_interrupted() {
            if sent < each && publisher.room() == Room::Free {
                publish(&publisher, &room, &topic, payload, None)?;
                publisher.flush_now();
                sent += 1;
            }
            let before = received;
            for (subscriber, inbox) in &mut subscribers {
                received += count_messages(subscriber, inbox)?;
            }
            if received == before && sent == each {
                let (subscriber, inbox) = &mut subscribers[0];
                if let Some(event) = inbox.next(Some(Duration::from_millis(1))) {
                    received += count(subscriber, event)?;
                }
                if started.elapsed() > PATIENCE * 4 {
                    return stuck(&bar);
                }
            }
            bar.set_position(received as u64);
        }
        let rate = expected as f64 / started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        lines.push(Line {
            name: "fan-out",
            key: "deliveries_per_second",
            value: rate,
            unit: "deliveries/s",
        });
        subscribers.iter().map(|(bridge, _)| bridge).for_each(link::close);
        link::close(&publisher);
        Ok(())
    }
}

fn topic_of(bridge: &Bridge) -> String {
    format!("bench.{}", bridge.id().unwrap_or_default())
}

fn subscribe(bridge: &Bridge, inbox: &mut Inbox, topic: &str) -> Result<()> {
    bridge.subscribe(&inbox.mailbox, topic, SubscribeOptions::default())?;
    loop {
        match inbox.next(Some(PATIENCE)) {
            Some(Event::Subscribed { .. }) => return Ok(()),
            Some(Event::SubscribeFailed { error, .. }) => return Err(error),
            Some(_) => {}
            None => return Err(Error::new(ErrorKind::Timeout, "the server did not subscribe us")),
        }
    }
}

fn publish(
    bridge: &Bridge,
    inbox: &Inbox,
    topic: &str,
    payload: &[u8],
    ack: Option<Duration>,
) -> Result<u64> {
    let options = PublishOptions {
        ack: ack.map(|timeout| AckRequest { timeout, request: false, target: inbox.target }),
        target: inbox.target,
        ..PublishOptions::default()
    };
    bridge.publish(To::Topic(topic), ContentType::Json, payload, options, FlushHint::Later)
}

/// Takes what is there; returns how many messages.
fn count_messages(bridge: &Bridge, inbox: &mut Inbox) -> Result<usize> {
    let mut messages = 0;
    while let Some(event) = inbox.try_next() {
        messages += count(bridge, event)?;
    }
    Ok(messages)
}

fn count(bridge: &Bridge, event: Event) -> Result<usize> {
    match event {
        Event::Message { sub, .. } => {
            bridge.consumed(sub, 1, FlushHint::Now);
            Ok(1)
        }
        Event::Gap { gap, .. } => Err(Error::new(
            ErrorKind::SlowConsumer,
            format!("{} messages were lost: {}", gap.count.unwrap_or(0), gap.reason.as_str()),
        )),
        Event::SubscriptionClosed { error, .. } => Err(error),
        _ => Ok(0),
    }
}

/// Waits until one ack is complete; false if that takes too long.
fn wait_for_ack(inbox: &mut Inbox) -> Result<bool> {
    loop {
        match inbox.next(Some(PATIENCE)) {
            Some(Event::AckDone { .. }) => return Ok(true),
            Some(Event::Row { row, .. }) => row.to_error().map_or(Ok(()), Err)?,
            Some(Event::PublishFailed { error, .. }) => return Err(error),
            Some(_) => {}
            None => return Ok(false),
        }
    }
}

fn stuck<T>(bar: &ProgressBar) -> Result<T> {
    bar.finish_and_clear();
    Err(match interrupt::was_interrupted() {
        true => Error::new(ErrorKind::Cancelled, "interrupted"),
        false => Error::new(ErrorKind::Timeout, "nothing arrives any more"),
    })
}

/// `1234567.8` as `1,234,568`.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
