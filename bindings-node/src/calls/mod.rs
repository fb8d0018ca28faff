//! Calls of capabilities: from JavaScript, and to capabilities written in JavaScript.

mod hot;
mod provider;
mod register;
mod stream;
mod task;
mod value;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use kps::capability::{Callback, Failure, Outcome, Value};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use self::{
    hot::FUNCTIONS,
    provider::Called,
    stream::Stream,
    value::{Written, read},
};
use crate::complete::{Completion, Completions};

/// What one environment's calls share, on any thread.
pub(crate) struct Host {
    completions: Arc<Completions>,
    /// Calls that JavaScript has, by their numbers.
    waiting: Mutex<HashMap<u32, Waiting>>,
    /// Functions that JavaScript may call.
    functions: Mutex<HashMap<u32, Callback>>,
    last: AtomicU32,
    ended: AtomicBool,
}

/// A call that JavaScript has.
struct Waiting {
    answer: oneshot::Sender<Outcome>,
    progress: Option<Callback>,
}

impl Host {
    pub(crate) fn new(completions: &Arc<Completions>) -> Arc<Self> {
        Arc::new(Host {
            completions: completions.clone(),
            waiting: Mutex::default(),
            functions: Mutex::default(),
            last: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// The environment ends: whoever waits for it is told, and nobody calls it any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.completions.close();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let functions = std::mem::take(&mut *self.functions.lock());
        drop((waiting, functions));
    }

    /// Whether nobody waits for what `completion` calls.
    pub(crate) fn is_stale(&self, completion: &Completion) -> bool {
        match completion {
            Completion::Called(called) => !self.waiting.lock().contains_key(&called.number),
            _ => false,
        }
    }

    fn number(&self) -> u32 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// `value` as JavaScript reads it.
    fn write(&self, value: &Value) -> Written {
        Written::new(value, &|function| {
            let number = self.number();
            self.functions.lock().insert(number, function.clone());
            number
        })
    }

    /// What JavaScript wrote.
    fn read(self: &Arc<Self>, text: &[u8], parts: Option<Vec<Bytes>>) -> Result<Value, Failure> {
        value::read(text, parts, &|number| Function::callback(self, number))
    }
}

/// One of JavaScript's functions, as long as somebody may call it.
pub(crate) struct Function {
    host: Arc<Host>,
    pub(crate) number: u32,
    /// Calls that JavaScript was not told of yet, and their bytes.
    calls: AtomicU32,
    bytes: AtomicUsize,
    lost: AtomicU32,
}

impl Function {
    /// Calls that may wait for JavaScript, and bytes of them; more are lost, and it is told so.
    const CALLS: u32 = 65_536;
    const BYTES: usize = 64 << 20;

    fn callback(host: &Arc<Host>, number: u32) -> Callback {
        let function = Arc::new(Function {
            host: host.clone(),
            number,
            calls: AtomicU32::new(0),
            bytes: AtomicUsize::new(0),
            lost: AtomicU32::new(0),
        });
        Callback::new(move |value| Function::call(&function, &value))
    }

    fn call(function: &Arc<Function>, value: &Value) {
        let weight = value.weight();
        let calls = function.calls.fetch_add(1, Ordering::Relaxed);
        let bytes = function.bytes.fetch_add(weight, Ordering::Relaxed);
        if calls > 0 && (calls >= Self::CALLS || bytes + weight > Self::BYTES) {
            function.taken(weight);
            function.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = function.lost.swap(0, Ordering::Relaxed);
        let (function, value) = (function.clone(), function.host.write(value));
        let completions = function.host.completions.clone();
        completions.push(Completion::Function { function, value, weight, lost });
    }

    /// JavaScript has one of the calls.
    pub(crate) fn taken(&self, weight: usize) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.host.completions.push(Completion::Released { function: self.number });
    }
}
