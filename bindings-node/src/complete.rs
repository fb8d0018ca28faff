//! What ended, was asked or is to be called, on its way to JavaScript.

use std::{
    cell::Cell,
    collections::VecDeque,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use kps::document::Told;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    batch::failure,
    calls::{Called, Function, Written},
};

/// One thing that JavaScript is told outside of a client's events.
pub(crate) enum Completion {
    /// A call of the native module ended: `{"ok": …}` or `{"error": {"code", "message"}}`.
    Ended { token: u32, json: Bytes },
    /// The server that JavaScript calls `server` asks who may connect.
    Asked { server: u32, question: u32, json: Bytes },
    /// A dispatched call has its response.
    Answered { token: u32, response: Written },
    /// An operation of one of JavaScript's capabilities is called.
    Called(Box<Called>),
    /// Nobody waits for that call any more; `late`: its deadline came.
    Aborted { call: u32, late: bool },
    /// One of JavaScript's functions is called. `lost`: calls that it was too slow for.
    Function { function: Arc<Function>, value: Written, weight: usize, lost: u32 },
    /// Nobody will call this function any more.
    Released { function: u32 },
    /// Nobody will call this capability any more.
    Forgotten { provider: u32 },
    /// An operation on a document is done, or refused.
    Edited { operation: u32, json: Bytes },
    /// Something happened to a document that JavaScript listens to.
    Happened { document: u32, told: Told },
}

/// What was not yet told.
pub(crate) struct Completions {
    waiting: Mutex<VecDeque<Completion>>,
    wake: Box<dyn Fn() + Send + Sync>,
    ended: AtomicBool,
}

thread_local! {
    /// Whose own thread this is while its JavaScript is inside a function that looks for news afterwards.
    static HERE: Cell<*const Completions> = const { Cell::new(ptr::null()) };
    /// Whether there are news.
    static NEWS: Cell<bool> = const { Cell::new(false) };
}

impl Completions {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Completions {
            waiting: Mutex::default(),
            wake: Box::new(wake),
            ended: AtomicBool::new(false),
        })
    }

    /// The call with this number ended.
    pub(crate) fn end(&self, token: u32, result: kps::Result<Value>) {
        let told = match result {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": failure(&error) }),
        };
        self.push(Completion::Ended { token, json: Bytes::from(told.to_string()) });
    }

    /// The server that JavaScript calls `server` asks `question`.
    pub(crate) fn ask(&self, server: u32, question: u32, told: &Value) {
        let json = Bytes::from(told.to_string());
        self.push(Completion::Asked { server, question, json });
    }

    pub(crate) fn next(&self) -> Option<Completion> {
        self.waiting.lock().pop_front()
    }

    /// Puts back what found no room.
    pub(crate) fn again(&self, completion: Completion) {
        self.waiting.lock().push_front(completion);
    }

    pub(crate) fn push(&self, completion: Completion) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        self.waiting.lock().push_back(completion);
        if ptr::eq(HERE.get(), self) {
            NEWS.set(true);
        } else {
            (self.wake)();
        }
    }

    /// Does `work` on the environment's own thread. What is pushed meanwhile there wakes nobody; whether something
    /// was is returned: who called looks for it.
    pub(crate) fn here<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        struct Reset(*const Completions);
        impl Drop for Reset {
            fn drop(&mut self) {
                HERE.set(self.0);
            }
        }
        NEWS.set(false);
        let _reset = Reset(HERE.replace(self));
        let result = work();
        (result, NEWS.replace(false))
    }

    /// Has JavaScript look soon.
    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    /// JavaScript is told nothing any more.
    pub(crate) fn close(&self) {
        self.ended.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        drop(waiting);
    }
}
