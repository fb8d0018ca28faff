//! What one KPS JSON connection and the bus call by different names.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use kps_proto::{
    Error, ErrorKind, Result,
    bus::{Output, Published},
    message::{AckRow, RowStatus},
    wire::{
        frame::Reference,
        kps_json::{Json, Reply, direct_topic},
    },
};

use super::{egress::Egress, kps_json::put};

/// Finished acks whose status can still be asked for, and the rows they may hold together.
const FINISHED: usize = 64;
const FINISHED_ROWS: usize = 1024;

type Status = Vec<(Arc<str>, bool)>;

/// What a publish is answered with.
#[derive(Debug)]
pub(super) enum Wanted {
    /// `published` with this topic.
    Published(String),
    /// `ack_response` with this id.
    Ack(String),
    /// Nothing.
    Nothing,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) client_id: Arc<str>,
    subscriptions: HashMap<Arc<str>, u32>,
    topics: HashMap<u32, Arc<str>>,
    last_sub: u32,
    last_publish: u64,
    last_answer: u64,
    /// The highest delivery number handed out.
    last_delivery: u64,
    /// Publishes not accepted yet, oldest first.
    unaccepted: VecDeque<(u64, Wanted)>,
    acks: HashMap<u64, Ack>,
    ack_numbers: HashMap<String, u64>,
    finished: VecDeque<(String, Status)>,
    finished_rows: usize,
}

#[derive(Debug)]
struct Ack {
    id: String,
    clients: Vec<Arc<str>>,
    rows: Vec<AckRow>,
}

impl Dialogue {
    pub(super) fn new(client_id: Arc<str>) -> Self {
        Dialogue {
            client_id,
            subscriptions: HashMap::new(),
            topics: HashMap::new(),
            last_sub: 0,
            last_publish: 0,
            last_answer: 0,
            last_delivery: 0,
            unaccepted: VecDeque::new(),
            acks: HashMap::new(),
            ack_numbers: HashMap::new(),
            finished: VecDeque::new(),
            finished_rows: 0,
        }
    }

    /// The number of the subscription to `topic`, the existing one if there is one.
    pub(super) fn subscribe(&mut self, topic: &str) -> u32 {
        if let Some(sub) = self.subscriptions.get(topic) {
            return *sub;
        }
        self.last_sub += 1;
        let topic: Arc<str> = topic.into();
        self.subscriptions.insert(topic.clone(), self.last_sub);
        self.topics.insert(self.last_sub, topic);
        self.last_sub
    }

    pub(super) fn subscription(&self, topic: &str) -> Option<u32> {
        self.subscriptions.get(topic).copied()
    }

    /// A publish' number. Fails when its ack id is in use.
    pub(super) fn publish(&mut self, wanted: Wanted) -> Result<u64> {
        let number = self.last_publish + 1;
        if let Wanted::Ack(id) = &wanted {
            if self.ack_numbers.contains_key(id) {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "the ack id is in use by an unfinished ack; choose another",
                ));
            }
            self.ack_numbers.insert(id.clone(), number);
            let ack = Ack { id: id.clone(), clients: Vec::new(), rows: Vec::new() };
            self.acks.insert(number, ack);
        }
        self.last_publish = number;
        self.unaccepted.push_back((number, wanted));
        Ok(number)
    }

    /// The answer's number and the delivery it is for; `None` for an id that never was one.
    pub(super) fn answer(&mut self, ack_id: &str) -> Option<(u64, u64)> {
        let delivery = ack_id.parse().ok().filter(|delivery| *delivery <= self.last_delivery)?;
        self.last_answer += 1;
        Some((self.last_answer, delivery))
    }

    pub(super) fn ack_number(&self, ack_id: &str) -> Option<u64> {
        self.ack_numbers.get(ack_id).copied()
    }

    /// The publisher stops waiting; the rows that still come are nobody's.
    pub(super) fn cancel(&mut self, ack_id: &str) -> Option<u64> {
        let number = self.ack_numbers.remove(ack_id)?;
        self.acks.remove(&number);
        Some(number)
    }

    /// How an ack ended that was not long ago.
    pub(super) fn finished(&self, ack_id: &str) -> Option<&[(Arc<str>, bool)]> {
        let mut newest_first = self.finished.iter().rev();
        newest_first.find(|(id, _)| id == ack_id).map(|(_, status)| &**status)
    }

    /// Says what the bus has for this connection.
    pub(super) fn encode(&mut self, output: &Output, egress: &mut Egress) {
        match output {
            Output::Deliver { sub, published, delivery } => {
                self.deliver(*sub, published, *delivery, egress);
            }
            Output::Accepted { published, .. } => self.accepted(*published, egress),
            Output::Subscribed { sub, .. } => {
                if let Some(topic) = self.topics.get(sub) {
                    put(&Reply::Subscribed { topic }, egress);
                }
            }
            Output::Unsubscribed { sub } => {
                if let Some(topic) = self.forget(*sub) {
                    put(&Reply::Unsubscribed { topic: &topic }, egress);
                }
            }
            Output::Recipients { number, clients } => {
                if let Some(ack) = self.acks.get_mut(number) {
                    ack.clients.clone_from(clients);
                    self.respond_if_complete(*number, egress);
                }
            }
            Output::Row { number, recipient, status, latency, error, data } => {
                if let Some(ack) = self.acks.get_mut(number)
                    && let Some(client_id) = ack.clients.get(*recipient as usize)
                {
                    ack.rows.push(AckRow {
                        client_id: client_id.clone(),
                        status: *status,
                        error: error.clone(),
                        data: data.clone(),
                        latency: *latency,
                    });
                    self.respond_if_complete(*number, egress);
                }
            }
            Output::Gap { gap, .. } => {
                let count = gap.count.map_or("some".to_owned(), |count| count.to_string());
                let sentence = format!("{count} messages are missing: {}", gap.reason.as_str());
                let error = Error::new(ErrorKind::SlowConsumer, sentence);
                put(&Reply::Error { error: &error, topic: &gap.topic, ack_id: "" }, egress);
            }
            Output::Error { reference, error } => self.refused(*reference, error, egress),
            Output::Close(error) => put(&Reply::Error { error, topic: "", ack_id: "" }, egress),
            // KPS JSON has no words for these.
            Output::Stored { .. } | Output::Cancel { .. } | Output::Resumed { .. } => {}
        }
    }

    fn deliver(
        &mut self,
        sub: u32,
        published: &Arc<Published>,
        delivery: Option<u64>,
        egress: &mut Egress,
    ) {
        let (topic, from) = (&*published.topic, &*published.sender.id);
        if sub != 0 && delivery.is_none() {
            // The same text for every recipient: checked and written once.
            return egress.put_text(published, |egress| {
                put(&Reply::Publish { topic, from, data: &json(published) }, egress);
            });
        }
        let data = &json(published);
        match (sub, delivery) {
            (_, None) => put(&Reply::DirectMessage { from, data }, egress),
            (sub, Some(delivery)) => {
                self.last_delivery = self.last_delivery.max(delivery);
                let ack_id = &*delivery.to_string();
                let direct;
                let topic = match sub {
                    0 => {
                        direct = direct_topic(&self.client_id, delivery);
                        &*direct
                    }
                    _ => topic,
                };
                put(&Reply::PublishAck { topic, from, ack_id, data }, egress);
            }
        }
    }

    fn accepted(&mut self, published: u64, egress: &mut Egress) {
        while let Some((number, _)) = self.unaccepted.front() {
            if *number > published {
                break;
            }
            if let Some((_, Wanted::Published(topic))) = self.unaccepted.pop_front() {
                put(&Reply::Published { topic: &topic }, egress);
            }
        }
    }

    fn refused(&mut self, reference: Reference, error: &Error, egress: &mut Egress) {
        match reference {
            Reference::Subscription(sub) => {
                let topic = self.forget(sub).unwrap_or_default();
                put(&Reply::Error { error, topic: &topic, ack_id: "" }, egress);
            }
            Reference::Publish(number) => {
                let place = self.unaccepted.iter().position(|(other, _)| *other == number);
                let wanted = place.and_then(|place| self.unaccepted.remove(place));
                match wanted.map(|(_, wanted)| wanted) {
                    Some(Wanted::Published(topic)) => {
                        put(&Reply::Error { error, topic: &topic, ack_id: "" }, egress);
                    }
                    Some(Wanted::Ack(id)) => {
                        self.cancel(&id);
                        put(&Reply::Error { error, topic: "", ack_id: &id }, egress);
                    }
                    // A direct message to nobody is silent in KPS.
                    _ if error.kind() == ErrorKind::NotFound => {}
                    _ => put(&Reply::Error { error, topic: "", ack_id: "" }, egress),
                }
            }
            Reference::Connection | Reference::Delivery(_) => {
                put(&Reply::Error { error, topic: "", ack_id: "" }, egress);
            }
        }
    }

    fn forget(&mut self, sub: u32) -> Option<Arc<str>> {
        let topic = self.topics.remove(&sub)?;
        self.subscriptions.remove(&topic);
        Some(topic)
    }

    fn respond_if_complete(&mut self, number: u64, egress: &mut Egress) {
        if self.acks[&number].rows.len() < self.acks[&number].clients.len() {
            return;
        }
        let ack = self.acks.remove(&number).expect("looked up above");
        self.ack_numbers.remove(&ack.id);
        put(&Reply::AckResponse { ack_id: &ack.id, rows: &ack.rows }, egress);
        let answered = |row: &AckRow| matches!(row.status, RowStatus::Acked | RowStatus::Failed);
        let status: Status =
            ack.rows.iter().map(|row| (row.client_id.clone(), answered(row))).collect();
        self.finished_rows += status.len();
        self.finished.push_back((ack.id, status));
        while self.finished.len() > FINISHED || self.finished_rows > FINISHED_ROWS {
            let Some((_, status)) = self.finished.pop_front() else { break };
            self.finished_rows -= status.len();
        }
    }
}

fn json(published: &Published) -> Json<'_> {
    Json::of_bytes(published.payload.content_type, &published.payload.bytes)
}
