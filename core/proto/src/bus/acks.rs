//! Acks: a table with one row per recipient, frozen at publish time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use slotmap::SlotMap;
use smallvec::{SmallVec, smallvec};

use super::{
    Bus, MAX_CONTROLS, Output, Published, Relay,
    publish::AckRequest,
    state::{AckKey, Awaited, PortId, SessionKey, SubKey, Timer},
};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{HandlerError, Payload, RowStatus},
    options::MAX_RETRY_DELAY,
    wire::frame::{AnswerFrame, Reference},
};

/// Entries a table may keep room for when it is empty.
const WORTH_SHRINKING: usize = 4096;

/// An ack with rows still open.
#[derive(Debug)]
pub(super) struct AckEntry {
    publisher: SessionKey,
    number: u64,
    started: Time,
    deadline: Time,
    rows: SmallVec<[Row; 1]>,
    open: usize,
}

/// One recipient. Its subscriptions' answers fold into one.
#[derive(Debug)]
struct Row {
    client: SessionKey,
    /// Deliveries not answered yet.
    awaited: SmallVec<[u64; 1]>,
    folded: Option<Folded>,
    done: bool,
}

#[derive(Debug)]
struct Folded {
    status: RowStatus,
    error: Option<HandlerError>,
    /// From the oldest subscription that acked.
    data: Option<Payload>,
    oldest: u32,
}

/// The more a status says, the later it stands: failed if any failed, acked if one did.
fn weight(status: RowStatus) -> u8 {
    match status {
        RowStatus::NoHandler => 0,
        RowStatus::Acked => 1,
        RowStatus::Dropped => 2,
        _ => 3,
    }
}

/// How a delivery ended.
struct Outcome {
    status: RowStatus,
    error: Option<HandlerError>,
    data: Option<Payload>,
    /// When a durable is to hand it out again.
    retry: Option<Duration>,
}

impl Bus {
    /// Freezes the recipients of `published`, tells the publisher, and enqueues to all targets.
    pub(super) fn open_ack(
        &mut self,
        now: Time,
        publisher: SessionKey,
        request: AckRequest,
        published: &Arc<Published>,
        targets: &[SubKey],
        room: bool,
    ) {
        let deadline = now + request.timeout;
        let number = published.number;
        let key = self.acks.insert(AckEntry {
            publisher,
            number,
            started: now,
            deadline,
            rows: SmallVec::new(),
            open: 0,
        });
        let mut deliveries: SmallVec<[Option<u64>; 8]> = SmallVec::with_capacity(targets.len());
        let mut clients = Vec::with_capacity(targets.len());
        for sub in targets {
            let client = self.subscriptions[*sub].session;
            let session = &mut self.sessions[client];
            if session.port.is_none() {
                // Not connected: it gets the message when it resumes, and has no row.
                deliveries.push(None);
                continue;
            }
            let delivery = session.next_delivery;
            session.next_delivery += 1;
            let rows = &mut self.acks[key].rows;
            // A fan-out with acks to very many clients is rare; one client with several matching
            // subscriptions has them next to each other or nearly so.
            let place = match rows.iter().rposition(|row| row.client == client) {
                Some(place) => {
                    rows[place].awaited.push(delivery);
                    place
                }
                None => {
                    clients.push(session.id.clone());
                    rows.push(Row {
                        client,
                        awaited: smallvec![delivery],
                        folded: None,
                        done: false,
                    });
                    rows.len() - 1
                }
            };
            let row = u32::try_from(place).expect("fewer rows than subscriptions, which are u32");
            session.deliveries.insert(delivery, Awaited::Row { ack: key, row, sub: *sub });
            deliveries.push(Some(delivery));
        }
        let entry = &mut self.acks[key];
        entry.open = entry.rows.len();
        let nobody = entry.rows.is_empty();
        if nobody {
            self.acks.remove(key);
        } else {
            self.sessions[publisher].acks.insert(number, key);
            self.timers.insert((deadline, Timer::Ack(key)));
        }
        self.report(now, publisher, Output::Recipients { number, clients }, nobody);
        for (sub, delivery) in targets.iter().zip(deliveries) {
            self.enqueue(now, *sub, published.clone(), delivery, room);
        }
    }

    pub(super) fn report_no_recipients(&mut self, now: Time, publisher: SessionKey, number: u64) {
        self.report(now, publisher, Output::Recipients { number, clients: Vec::new() }, true);
    }

    /// A report to a publisher; it reaches it in this session, over whatever connection.
    fn report(&mut self, now: Time, key: SessionKey, report: Output, at_once: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.reports.push(report) > self.config.limits.queue_bytes {
            let error = Error::new(
                ErrorKind::SlowConsumer,
                "the client does not read the reports to its own publishes",
            );
            self.ending.push((key, Some(error)));
        }
        if let Some(port) = session.port {
            if at_once {
                self.mark_ready(port);
            } else {
                self.say_later(now, port);
            }
        }
    }

    /// The publish will not be accepted.
    pub(super) fn refuse(&mut self, key: SessionKey, number: u64, error: Error) {
        let report = Output::Error { reference: Reference::Publish(number), error };
        self.report(Time::ZERO, key, report, true);
    }

    /// What `relay` stands for could not be passed on; its publisher is told, though its publish
    /// may long be accepted.
    pub fn refuse_relay(&mut self, relay: Relay, error: Error) {
        self.refuse(relay.publisher, relay.number, error);
    }

    pub(super) fn answer(
        &mut self,
        now: Time,
        port: PortId,
        key: SessionKey,
        answer: &AnswerFrame<'_>,
    ) -> Result<()> {
        let session = &mut self.sessions[key];
        if answer.number <= session.answered {
            return Ok(());
        }
        if answer.number != session.answered + 1 {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "answer {} came after {}; answers are numbered without holes",
                    answer.number, session.answered
                ),
            ));
        }
        session.answered = answer.number;
        self.say_later(now, port);
        if answer.more {
            // Streamed answers were not offered in WELCOME; their last part is the answer.
            return Ok(());
        }
        let limit = self.config.limits.payload;
        let oversized = answer.data.is_some_and(|(_, data)| data.len() > limit);
        let (status, error, data) = match answer.status {
            RowStatus::Acked if oversized => (
                RowStatus::Failed,
                Some(HandlerError {
                    kind: ErrorKind::PayloadTooLarge.code().into(),
                    text: format!("the answer is over the limit of {limit} bytes"),
                }),
                None,
            ),
            RowStatus::Acked => (RowStatus::Acked, None, answer.data),
            RowStatus::NoHandler => (RowStatus::NoHandler, None, None),
            _ => (RowStatus::Failed, Some(handler_error(answer.error)), None),
        };
        let data = data.map(|(content_type, bytes)| Payload {
            content_type,
            bytes: Bytes::copy_from_slice(bytes),
        });
        let retry =
            answer.retry_delay_ms.map(|delay| Duration::from_millis(delay).min(MAX_RETRY_DELAY));
        self.fold(now, key, answer.delivery, Outcome { status, error, data, retry });
        Ok(())
    }

    /// A delivery ended without an answer.
    pub(super) fn settle_delivery(
        &mut self,
        now: Time,
        client: SessionKey,
        delivery: u64,
        status: RowStatus,
    ) {
        let outcome = Outcome { status, error: None, data: None, retry: None };
        self.fold(now, client, delivery, outcome);
    }

    fn fold(&mut self, now: Time, client: SessionKey, delivery: u64, outcome: Outcome) {
        let Outcome { status, error, data, retry } = outcome;
        // Unknown: answered already, timed out, cancelled, or made up.
        let deliveries = &mut self.sessions[client].deliveries;
        let Some(awaited) = deliveries.remove(&delivery) else { return };
        shrink(deliveries);
        let (ack, row_number, sub) = match awaited {
            Awaited::Row { ack, row, sub } => (ack, row, sub),
            Awaited::Progress { durable, position, sub } => {
                return self.settle_progress(now, (durable, position, sub), status, error, retry);
            }
        };
        let number = self.subscriptions.get(sub).map_or(u32::MAX, |sub| sub.number);
        let Some(entry) = self.acks.get_mut(ack) else { return };
        let row = &mut entry.rows[row_number as usize];
        row.awaited.retain(|other| *other != delivery);
        let new = Folded { status, error, data, oldest: number };
        row.folded = Some(match row.folded.take() {
            None => new,
            Some(old) => match weight(new.status).cmp(&weight(old.status)) {
                std::cmp::Ordering::Greater => new,
                std::cmp::Ordering::Equal if new.oldest < old.oldest => new,
                _ => old,
            },
        });
        if row.awaited.is_empty() {
            let folded = row.folded.take().expect("set above");
            self.finish_row(now, ack, row_number, folded.status, folded.error, folded.data);
        }
    }

    fn finish_row(
        &mut self,
        now: Time,
        key: AckKey,
        recipient: u32,
        status: RowStatus,
        error: Option<HandlerError>,
        data: Option<Payload>,
    ) {
        let Some(entry) = self.acks.get_mut(key) else { return };
        let row = &mut entry.rows[recipient as usize];
        if std::mem::replace(&mut row.done, true) {
            return;
        }
        for delivery in row.awaited.drain(..) {
            if let Some(session) = self.sessions.get_mut(row.client) {
                session.deliveries.remove(&delivery);
                shrink(&mut session.deliveries);
            }
        }
        let latency: Duration = now.since(entry.started);
        let (publisher, number) = (entry.publisher, entry.number);
        entry.open -= 1;
        if entry.open == 0 {
            self.timers.remove(&(entry.deadline, Timer::Ack(key)));
            self.remove_ack(key, publisher, number);
        }
        let row = Output::Row { number, recipient, status, latency, error, data };
        self.report(now, publisher, row, true);
    }

    fn remove_ack(&mut self, key: AckKey, publisher: SessionKey, number: u64) {
        self.acks.remove(key);
        if self.acks.is_empty() && self.acks.capacity() > WORTH_SHRINKING {
            // No key of the old map is left anywhere: not in timers, sessions or deliveries.
            self.acks = SlotMap::with_key();
        }
        if let Some(session) = self.sessions.get_mut(publisher) {
            session.acks.remove(&number);
            shrink(&mut session.acks);
        }
    }

    /// Ends every open row of an ack with `status`; with `cancel`, handlers at work are told.
    fn finish_ack(&mut self, now: Time, key: AckKey, status: RowStatus, cancel: bool) {
        let Some(entry) = self.acks.get(key) else { return };
        for place in 0..entry.rows.len() {
            let Some(row) = self.acks.get(key).map(|entry| &entry.rows[place]) else { return };
            if row.done {
                continue;
            }
            if cancel {
                let (client, awaited) = (row.client, row.awaited.clone());
                for delivery in awaited {
                    self.cancel_delivery(client, delivery);
                }
            }
            let recipient = u32::try_from(place).expect("rows are counted in u32");
            self.finish_row(now, key, recipient, status, None, None);
        }
    }

    fn cancel_delivery(&mut self, client: SessionKey, delivery: u64) {
        let Some(port) = self.sessions.get(client).and_then(|session| session.port) else {
            return;
        };
        let controls = &mut self.ports[port].controls;
        // One that does not read is not helped by more to read.
        if controls.len() < MAX_CONTROLS {
            controls.push_back(Output::Cancel { delivery });
            self.mark_ready(port);
        }
    }

    pub(super) fn cancel_ack(&mut self, now: Time, key: SessionKey, number: u64) {
        if let Some(ack) = self.sessions[key].acks.get(&number).copied() {
            self.finish_ack(now, ack, RowStatus::Cancelled, true);
        }
    }

    pub(super) fn ack_timed_out(&mut self, now: Time, key: AckKey) {
        self.finish_ack(now, key, RowStatus::Timeout, true);
    }

    /// The publisher is gone for good.
    pub(super) fn drop_ack(&mut self, now: Time, key: AckKey) {
        self.finish_ack(now, key, RowStatus::Cancelled, true);
    }

    /// Which recipients of an unfinished ack have acked so far; `None` if there is no such ack.
    pub fn ack_status(&self, port: PortId, number: u64) -> Option<Vec<(Arc<str>, bool)>> {
        let session = self.sessions.get(self.ports.get(port)?.session)?;
        let entry = self.acks.get(*session.acks.get(&number)?)?;
        let rows = entry.rows.iter().filter_map(|row| {
            let client = self.sessions.get(row.client)?;
            Some((client.id.clone(), row.done))
        });
        Some(rows.collect())
    }
}

/// A million acks that timed out must not leave their tables' memory behind.
fn shrink<T>(map: &mut HashMap<u64, T>) {
    if map.is_empty() && map.capacity() > WORTH_SHRINKING {
        *map = HashMap::default();
    }
}

fn handler_error(error: Option<(&str, &str)>) -> HandlerError {
    let (kind, text) = error.unwrap_or(("", "the handler failed"));
    HandlerError { kind: kind.to_owned(), text: text.to_owned() }
}
