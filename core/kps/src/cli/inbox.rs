//! A mailbox for a program that waits: the command line.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::interrupt;
use crate::{Bridge, Event, HostMailbox, Item, MailboxRef, Target, runtime};

/// Events taken from the mailbox at once.
const BATCH: usize = 1024;

pub(super) struct Inbox {
    pub(super) mailbox: MailboxRef,
    pub(super) target: Target,
    woken: Arc<Notify>,
    items: VecDeque<Item>,
}

impl Inbox {
    /// The inbox of `bridge`.
    pub(super) fn new(bridge: &Bridge) -> Self {
        let woken = Arc::new(Notify::new());
        let wake = woken.clone();
        let mailbox = Arc::new(HostMailbox::new(move || wake.notify_one()));
        let target = bridge.attach(&mailbox);
        Inbox { mailbox, target, woken, items: VecDeque::new() }
    }

    /// The next event if one is there.
    pub(super) fn try_next(&mut self) -> Option<Event> {
        if self.items.is_empty() {
            let mut items = Vec::new();
            self.mailbox.drain(BATCH, &mut items);
            self.items.extend(items);
        }
        self.items.pop_front().map(|item| item.event)
    }

    /// The next event; `None` at Ctrl-C, or after `timeout`.
    pub(super) fn next(&mut self, timeout: Option<Duration>) -> Option<Event> {
        if let Some(event) = self.try_next() {
            return Some(event);
        }
        runtime::handle().block_on(async {
            let woken = async {
                loop {
                    if let Some(event) = self.try_next() {
                        return event;
                    }
                    self.woken.notified().await;
                }
            };
            let timeout = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = woken => Some(event),
                () = interrupt::interrupted() => None,
                () = timeout => None,
            }
        })
    }
}
