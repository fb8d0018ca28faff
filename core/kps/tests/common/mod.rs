//! A host loop for tests: a thread that sleeps until its mailbox wakes it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake},
    thread::Thread,
    time::Duration,
};

use kps::{
    Bridge, ClientState, CloseReport, Event, FlushHint, HostMailbox, Item, MailboxRef,
    PublishOptions, Server, ServerOptions, SubId, Target, To,
    message::{ContentType, Message, Payload},
    options::SubscribeOptions,
};

/// Longer than anything that works takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn server() -> Server {
    server_at("127.0.0.1:0")
}

pub(crate) fn server_at(address: &str) -> Server {
    Server::start(ServerOptions::listen(address)).unwrap()
}

pub(crate) fn json(text: &str) -> Payload {
    Payload::json(text.to_owned())
}

pub(crate) fn publish(bridge: &Bridge, topic: &str, json: &str) -> u64 {
    let options = PublishOptions::default();
    bridge
        .publish(To::Topic(topic), ContentType::Json, json.as_bytes(), options, FlushHint::Later)
        .unwrap()
}

/// One host loop's end of a client.
pub(crate) struct Host {
    pub(crate) bridge: Bridge,
    pub(crate) target: Target,
    mailbox: MailboxRef,
    woken: mpsc::Receiver<()>,
    batch: Vec<Item>,
    events: VecDeque<Event>,
}

impl Host {
    pub(crate) fn new(bridge: &Bridge) -> Host {
        let (wake, woken) = mpsc::channel();
        let mailbox = Arc::new(HostMailbox::new(move || {
            // The test may be over.
            let _ = wake.send(());
        }));
        Host {
            bridge: bridge.clone(),
            target: bridge.attach(&mailbox),
            mailbox,
            woken,
            batch: Vec::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn mailbox(&self) -> &MailboxRef {
        &self.mailbox
    }

    pub(crate) fn subscribe(&mut self, pattern: &str) -> SubId {
        self.subscribe_with(pattern, SubscribeOptions::default())
    }

    pub(crate) fn subscribe_with(&mut self, pattern: &str, options: SubscribeOptions) -> SubId {
        let sub = self.bridge.subscribe(&self.mailbox, pattern, options).unwrap();
        self.until(|event| match event {
            Event::Subscribed { sub: s } if *s == sub => Some(()),
            Event::SubscribeFailed { error, .. } => panic!("{error}"),
            _ => None,
        });
        sub
    }

    pub(crate) fn message(&mut self, sub: SubId) -> Message {
        self.until(|event| match event {
            Event::Message { sub: s, message, .. } if *s == sub => Some(message.clone()),
            _ => None,
        })
    }

    pub(crate) fn delivery(&mut self, sub: SubId) -> (Message, u64) {
        self.until(|event| match event {
            Event::Message { sub: s, message, delivery: Some(delivery), .. } if *s == sub => {
                Some((message.clone(), *delivery))
            }
            _ => None,
        })
    }

    pub(crate) fn state(&mut self, wanted: ClientState) {
        self.until(|event| {
            matches!(event, Event::State { state, .. } if *state == wanted).then_some(())
        });
    }

    pub(crate) fn close(&mut self) -> CloseReport {
        block_on(self.bridge.close(PATIENCE))
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }

    /// Takes events, in their order, until `wanted` finds one; those before it are gone.
    pub(crate) fn until<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
            self.woken.recv_timeout(PATIENCE).expect("an event comes");
            self.take();
        }
    }

    /// What is there already.
    pub(crate) fn drained(&mut self) -> Vec<Event> {
        self.take();
        self.events.drain(..).collect()
    }

    fn take(&mut self) {
        self.mailbox.drain(64, &mut self.batch);
        self.events.extend(self.batch.drain(..).map(|item| {
            assert_eq!(item.client, self.bridge.key());
            item.event
        }));
    }
}

/// Polls on this thread, without any runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}
