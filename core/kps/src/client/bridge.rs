//! The face for host loops: synchronous, non-blocking, callable from any thread; everything that
//! takes time is told as an [`Event`](crate::Event) in a mailbox.

use std::time::Duration;

use kps_proto::{
    Result,
    message::{Answer, ContentType, ReceiptLevel},
    options::SubscribeOptions,
};

use super::ConnectOptions;
use crate::events::{
    AckRequest, ClientKey, ClientState, MailboxRef, PublishOptions, Room, SubId, Target,
};

/// Where a publish goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// To a topic's subscribers.
    Topic(&'a str),
    /// To the client with this id.
    Client(&'a str),
    /// To another server, by address.
    Server(&'a str),
}

/// Whether the caller will call [`Bridge::flush_now`] soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushHint {
    /// It will not: send as soon as possible.
    Now,
    /// It will, at the end of its loop's tick.
    Later,
}

/// What became of what was published, when a client closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Messages accepted by the broker during the close.
    pub flushed: u64,
    /// Messages kept on disk for the next start.
    pub kept: u64,
    /// Ids of the messages given up.
    pub abandoned: Vec<String>,
}

/// A cheap handle of a client.
#[derive(Clone, Debug)]
pub struct Bridge(());

#[allow(unused_variables)]
impl Bridge {
    /// Starts connecting and returns at once.
    pub fn start(options: ConnectOptions) -> Result<Bridge> {
        unimplemented!()
    }
    /// Waits for the first handshake, at most [`ConnectOptions::timeout`].
    pub async fn ready(&self) -> Result<()> {
        unimplemented!()
    }
    /// This client's number in mailbox items.
    pub fn key(&self) -> ClientKey {
        unimplemented!()
    }
    /// Makes `mailbox` known: events of this client may name it, and those that belong to nobody in
    /// particular (state, room, refused publishes) go to every attached mailbox. Cheap to repeat.
    pub fn attach(&self, mailbox: &MailboxRef) -> Target {
        unimplemented!()
    }
    /// Forgets it (its loop ended): its subscriptions end.
    pub fn detach(&self, mailbox: &MailboxRef) {
        unimplemented!()
    }
    /// `Event::Subscribed` or `Event::SubscribeFailed` follows in `mailbox`.
    pub fn subscribe(
        &self,
        mailbox: &MailboxRef,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<SubId> {
        unimplemented!()
    }
    /// `Event::Unsubscribed` follows.
    pub fn unsubscribe(&self, sub: SubId) -> Result<()> {
        unimplemented!()
    }
    /// `count` more messages of `sub` were handed to the handler and are done with.
    pub fn consumed(&self, sub: SubId, count: u64, hint: FlushHint) {
        unimplemented!()
    }
    /// The answer to a message with `delivery`.
    pub fn answer(&self, delivery: u64, answer: Answer, hint: FlushHint) -> Result<()> {
        unimplemented!()
    }
    /// Encodes, queues, and (as `hint` says) sends. Returns the publish number.
    pub fn publish(
        &self,
        to: To<'_>,
        content_type: ContentType,
        payload: &[u8],
        options: PublishOptions<'_>,
        hint: FlushHint,
    ) -> Result<u64> {
        unimplemented!()
    }
    /// `Event::Receipt` (or `PublishFailed`) follows for publish `number`, at once if it is reached already.
    pub fn watch(&self, number: u64, level: ReceiptLevel, target: Target) {
        unimplemented!()
    }
    /// Stops waiting for the rows of publish `number`.
    pub fn cancel_ack(&self, number: u64) {
        unimplemented!()
    }
    /// The id of the message with this publish number (without a publisher-given id).
    pub fn message_id(&self, number: u64) -> String {
        unimplemented!()
    }
    /// Sends what `FlushHint::Later` left waiting.
    pub fn flush_now(&self) {
        unimplemented!()
    }
    /// `Event::Flushed` with the returned token follows in `mailbox` when everything published so far was accepted or refused.
    pub fn flush_event(&self, mailbox: &MailboxRef) -> u64 {
        unimplemented!()
    }
    /// Waits until everything published so far was accepted or refused.
    pub async fn flush(&self) -> Result<()> {
        unimplemented!()
    }
    /// Flushes, says goodbye, and reports; returns within `timeout`.
    pub async fn close(&self, timeout: Duration) -> CloseReport {
        unimplemented!()
    }
    /// How full the outbox is.
    pub fn room(&self) -> Room {
        unimplemented!()
    }
    /// The connection's state.
    pub fn state(&self) -> ClientState {
        unimplemented!()
    }
    /// The id; `None` before the first handshake if the server makes it.
    pub fn id(&self) -> Option<String> {
        unimplemented!()
    }
}
