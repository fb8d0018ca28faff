//! The ends of calls that take time, on their way to the promises that JavaScript keeps by number.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::batch::failure;

/// The end of one call, or a question.
pub(crate) struct Completion {
    /// The number JavaScript gave the call, or the server that asks.
    pub(crate) token: u32,
    /// A question's number, to decide it by.
    pub(crate) question: Option<u32>,
    /// A call's end: `{"ok": …}` or `{"error": {"code", "message"}}`. A question: who asks to be let in.
    pub(crate) json: Bytes,
}

/// What ended or was asked, and was not yet told.
pub(crate) struct Completions {
    waiting: Mutex<VecDeque<Completion>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Completions {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Completions { waiting: Mutex::default(), wake: Box::new(wake) })
    }

    /// The call with this number ended.
    pub(crate) fn end(&self, token: u32, result: kps::Result<Value>) {
        let told = match result {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": failure(&error) }),
        };
        self.push(Completion { token, question: None, json: Bytes::from(told.to_string()) });
    }

    /// The server that JavaScript calls `server` asks `question`.
    pub(crate) fn ask(&self, server: u32, question: u32, told: &Value) {
        let json = Bytes::from(told.to_string());
        self.push(Completion { token: server, question: Some(question), json });
    }

    pub(crate) fn next(&self) -> Option<Completion> {
        self.waiting.lock().pop_front()
    }

    /// Puts back what found no room.
    pub(crate) fn again(&self, completion: Completion) {
        self.waiting.lock().push_front(completion);
    }

    fn push(&self, completion: Completion) {
        self.waiting.lock().push_back(completion);
        (self.wake)();
    }
}
