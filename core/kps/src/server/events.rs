//! What a server tells its host, in the same mailboxes that its own client's events go to.

use std::sync::Arc;

use kps_proto::message::Payload;
use parking_lot::Mutex;

use crate::events::{ClientKey, Event, Item, MailboxRef};

/// The mailboxes that listen, and under which client's number.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<Vec<(MailboxRef, ClientKey)>>);

impl Listeners {
    pub(super) fn add(&self, mailbox: MailboxRef, key: ClientKey) {
        self.0.lock().push((mailbox, key));
    }

    pub(super) fn client_connected(&self, id: Arc<str>) {
        self.tell(|| Event::ClientConnected { id: id.clone() });
    }

    pub(super) fn client_disconnected(&self, id: Arc<str>) {
        self.tell(|| Event::ClientDisconnected { id: id.clone() });
    }

    pub(super) fn server_message(&self, from: Arc<str>, payload: Payload) {
        self.tell(|| Event::ServerMessage { from: from.clone(), payload: payload.clone() });
    }

    fn tell(&self, event: impl Fn() -> Event) {
        // Called outside the lock: a mailbox may wake its reader on this very thread.
        let listeners = self.0.lock().clone();
        for (mailbox, client) in listeners {
            mailbox.push(Item { client, event: event() });
        }
    }
}
