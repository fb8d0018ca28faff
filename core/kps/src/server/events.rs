//! What a server tells: its host, in the same mailboxes that its own client's events go to; whoever
//! follows [`Server::events`](super::Server::events); its timeline; and the audit log.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kps_proto::{clock::Time, message::Payload, session::Moment};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::{
    events::{ClientKey, Event, Item, MailboxRef, Place, ServerEvent},
    runtime,
};

/// Events that a timeline keeps.
const TIMELINE: usize = 256;

/// Events that may wait for one listener.
const WAITING: usize = 4096;

/// All who hear what happens at a server.
#[derive(Debug)]
pub(super) struct Listeners {
    mailboxes: Mutex<Vec<Arc<Listener>>>,
    streams: broadcast::Sender<Arc<ServerEvent>>,
    timeline: Mutex<VecDeque<(Time, Arc<ServerEvent>)>>,
    started: Mutex<Option<Arc<ServerEvent>>>,
    /// The host asked for messages as well.
    messages: AtomicBool,
}

/// A host's mailbox, and under which client's number it listens.
#[derive(Debug)]
struct Listener {
    mailbox: MailboxRef,
    client: ClientKey,
    waiting: Arc<AtomicUsize>,
    dropped: AtomicU64,
}

impl Default for Listeners {
    fn default() -> Self {
        Listeners {
            mailboxes: Mutex::default(),
            streams: broadcast::Sender::new(WAITING),
            timeline: Mutex::default(),
            started: Mutex::default(),
            messages: AtomicBool::new(false),
        }
    }
}

impl Listeners {
    /// From now on `mailbox` hears everything, and first that the server has started.
    pub(super) fn add(&self, mailbox: MailboxRef, client: ClientKey) {
        let (waiting, dropped) = (Arc::default(), AtomicU64::new(0));
        let listener = Arc::new(Listener { mailbox, client, waiting, dropped });
        self.mailboxes.lock().push(listener.clone());
        if let Some(started) = &*self.started.lock() {
            listener.tell(started);
        }
    }

    /// A stream of what happens from now on.
    pub(super) fn follow(&self) -> ServerEvents {
        ServerEvents(self.streams.subscribe())
    }

    /// Something happened. Not to be called under a lock: a mailbox may wake its reader on this very
    /// thread.
    pub(super) fn tell(&self, event: ServerEvent) {
        let event = Arc::new(event);
        if !event.is_message() {
            self.remember(&event);
        } else if !self.hears_messages() {
            return;
        }
        let listeners = self.mailboxes.lock().clone();
        listeners.iter().for_each(|listener| listener.tell(&event));
        // An error: nobody follows.
        let _ = self.streams.send(event);
    }

    pub(super) fn hear_messages(&self, on: bool) {
        self.messages.store(on, Ordering::Relaxed);
    }

    pub(super) fn hears_messages(&self) -> bool {
        self.messages.load(Ordering::Relaxed)
    }

    fn remember(&self, event: &Arc<ServerEvent>) {
        if let ServerEvent::NodeStarted { .. } = **event {
            *self.started.lock() = Some(event.clone());
        }
        let mut timeline = self.timeline.lock();
        if timeline.len() == TIMELINE {
            timeline.pop_front();
        }
        timeline.push_back((runtime::now(), event.clone()));
    }

    pub(super) fn timeline(&self) -> Vec<(Duration, Moment)> {
        let now = runtime::now();
        let moment = |(at, event): &(Time, Arc<ServerEvent>)| {
            let moment = Moment { at: *at, what: event.name(), detail: event.detail() };
            (now.since(*at), moment)
        };
        self.timeline.lock().iter().map(moment).collect()
    }

    pub(super) fn server_message(&self, from: Arc<str>, payload: Payload) {
        for listener in self.mailboxes.lock().clone() {
            let event = Event::ServerMessage { from: from.clone(), payload: payload.clone() };
            listener.push(event);
        }
    }
}

impl Listener {
    /// Puts `event` into the mailbox, unless too many wait there: then they are counted.
    fn tell(&self, event: &Arc<ServerEvent>) {
        let Some(place) = Place::take(&self.waiting, WAITING) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let count = self.dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let event = Arc::new(ServerEvent::EventsDropped { count });
            self.push(Event::Server { event, place: place.clone() });
        }
        self.push(Event::Server { event: event.clone(), place });
    }

    fn push(&self, event: Event) {
        self.mailbox.push(Item { client: self.client, event });
    }
}

/// What happens at a server, as a stream.
#[derive(Debug)]
pub struct ServerEvents(broadcast::Receiver<Arc<ServerEvent>>);

impl ServerEvents {
    /// The next event; `None` once the server is gone. Whoever is 4,096 events late misses the oldest
    /// and hears how many: [`ServerEvent::EventsDropped`].
    pub async fn next(&mut self) -> Option<Arc<ServerEvent>> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                Some(Arc::new(ServerEvent::EventsDropped { count }))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::HostMailbox;

    fn closed(count: u64) -> ServerEvent {
        ServerEvent::EventsDropped { count }
    }

    fn number(item: Item) -> u64 {
        match item.event {
            Event::Server { event, .. } => match *event {
                ServerEvent::EventsDropped { count } => count,
                _ => panic!("nothing else was told"),
            },
            _ => panic!("nothing else was told"),
        }
    }

    #[test]
    fn a_host_that_does_not_read_is_told_how_much_it_missed() {
        let listeners = Listeners::default();
        let mailbox = Arc::new(HostMailbox::new(|| {}));
        listeners.add(mailbox.clone(), ClientKey(1));
        for _ in 0..WAITING + 10 {
            listeners.tell(closed(0));
        }
        let mut items = Vec::new();
        mailbox.drain(usize::MAX, &mut items);
        assert_eq!(items.len(), WAITING);
        items.clear();
        listeners.tell(closed(0));
        mailbox.drain(usize::MAX, &mut items);
        let told: Vec<u64> = items.into_iter().map(number).collect();
        assert_eq!(told, [10, 0]);
    }

    #[test]
    fn the_timeline_keeps_the_last_events() {
        let listeners = Listeners::default();
        for count in 0..300 {
            listeners.tell(closed(count));
        }
        let timeline = listeners.timeline();
        assert_eq!(timeline.len(), TIMELINE);
        assert_eq!(timeline[0].1.detail, "count=44");
    }
}
