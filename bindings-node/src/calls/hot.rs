//! What runs once per call, as in [`crate::hot`]. What a function here does may give JavaScript something else to do at
//! once; it looks for that by itself, so nobody wakes its loop.

use std::{
    ffi::CStr,
    mem,
    ptr::{null, null_mut},
    sync::Arc,
};

use bytes::Bytes;
use kps::{
    ErrorKind,
    capability::{CallTarget, Callback, DispatchOptions, Failure, Response, Task, Value, promptly},
};
use napi::sys;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{Function, value::Written};
use crate::{
    bridge::Shared,
    complete::Completion,
    hot::{Call, Raw},
    options::{millis, set},
};

/// The functions by their names.
pub(crate) const FUNCTIONS: [(&CStr, Raw); 6] = [
    (c"dispatch", dispatch),
    (c"cancel", cancel),
    (c"answered", answered),
    (c"progress", progress),
    (c"callFunction", call_function),
    (c"dropFunction", drop_function),
];

/// `dispatch`'s options beside the timeout.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    retry: Option<u32>,
    target: Option<String>,
    idempotency_key: Option<String>,
    /// The number of the function that is told of progress.
    progress: Option<u32>,
    #[serde(default)]
    may_cancel: bool,
}

/// What became of a call before `dispatch` returns.
enum Slot {
    Running,
    Done(Response),
    Later,
}

/// `dispatch(client, token, action, payload, timeout, parts?, options?)`: the response if it is there at once, as text
/// or as an array of text and its parts; else 0, or 1 if there is something to look for. The response follows then
/// under `token`.
unsafe extern "C" fn dispatch(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<7>::new(env, info) };
    let completions = call.shared.completions.clone();
    let (response, has_news) = completions.here(|| dispatch_now(&call));
    match response {
        Ok(None) => call.number(f64::from(u8::from(has_news))),
        Ok(Some(response)) => {
            if has_news {
                completions.wake();
            }
            let written = call.shared.host.write(&response.into_value());
            // SAFETY: a callback's environment.
            unsafe { give(env, &written) }
        }
        Err(error) => call.throw(&error),
    }
}

fn dispatch_now(call: &Call<'_, 7>) -> kps::Result<Option<Response>> {
    let shared = call.shared;
    let router = shared.with_client(call.int(0), |client| Ok(client.router()))?;
    let (token, action) = (call.int(1), call.text(2));
    let mut options =
        DispatchOptions { timeout: millis(call.float(4)), ..DispatchOptions::default() };
    let mut given = Options::default();
    if call.count > 6 {
        given = serde_json::from_str(&call.text(6))
            .map_err(|error| kps::Error::new(ErrorKind::InvalidArgument, error.to_string()))?;
    }
    set(&mut options.retry, given.retry);
    set(&mut options.target, given.target.as_deref().map(CallTarget::parse));
    options.idempotency_key = given.idempotency_key;
    options.progress = given.progress.map(|number| Function::callback(&shared.host, number));
    let payload = match value(call, 3, 5) {
        Ok(payload) => payload,
        Err(failure) => return Ok(Some(Response::refused(failure))),
    };

    let slot = Arc::new(Mutex::new(Slot::Running));
    let (filled, host) = (slot.clone(), shared.host.clone());
    let done = move |response: Response| {
        let mut slot = filled.lock();
        if let Slot::Running = *slot {
            *slot = Slot::Done(response);
            return;
        }
        drop(slot);
        let response = host.write(&response.into_value());
        host.completions.push(Completion::Answered { token, response });
    };
    let task = Task::start(router.dispatch(&action, payload, options), done);
    let slot = mem::replace(&mut *slot.lock(), Slot::Later);
    if let Slot::Done(response) = slot {
        return Ok(Some(response));
    }
    if given.may_cancel {
        shared.tasks.borrow_mut().insert(token, task);
    }
    Ok(None)
}

/// `cancel(token) -> has news`: ends a call that was dispatched with `mayCancel`.
unsafe extern "C" fn cancel(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<1>::new(env, info) };
    let task = call.shared.tasks.borrow_mut().remove(&call.int(0));
    inside(&call, || {
        if let Some(task) = task {
            task.cancel();
        }
    })
}

/// `answered(call, is ok, value or failure, parts?) -> has news`.
unsafe extern "C" fn answered(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<4>::new(env, info) };
    inside(&call, || {
        let waiting = call.shared.host.waiting.lock().remove(&call.int(0));
        let Some(waiting) = waiting else { return };
        let outcome = match (call.int(1), value(&call, 2, 3)) {
            (1, Ok(value)) => Ok(value),
            (_, Ok(failure)) => Err(Failure::from_value(failure)),
            (_, Err(Failure { message, .. })) => {
                let sentence = format!("what the operation returned cannot travel: {message}");
                Err(Failure::new(ErrorKind::Internal, sentence))
            }
        };
        // Its caller may have gone meanwhile. If it is here, it goes on right now.
        promptly(|| drop(waiting.answer.send(outcome)));
    })
}

/// `progress(call, value, parts?) -> has news`.
unsafe extern "C" fn progress(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<3>::new(env, info) };
    inside(&call, || {
        let waiting = call.shared.host.waiting.lock();
        let progress = waiting.get(&call.int(0)).and_then(|waiting| waiting.progress.clone());
        drop(waiting);
        tell(&call, progress);
    })
}

/// `callFunction(number, value, parts?) -> has news`: calls a function that a capability was given.
unsafe extern "C" fn call_function(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<3>::new(env, info) };
    inside(&call, || {
        let function = call.shared.host.functions.lock().get(&call.int(0)).cloned();
        tell(&call, function);
    })
}

/// `dropFunction(number) -> has news`: JavaScript will not call it any more.
unsafe extern "C" fn drop_function(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<1>::new(env, info) };
    inside(&call, || {
        let function = call.shared.host.functions.lock().remove(&call.int(0));
        drop(function);
    })
}

fn tell(call: &Call<'_, 3>, function: Option<Callback>) {
    let Some(function) = function else { return };
    // JavaScript wrote it well.
    if let Ok(value) = value(call, 1, 2) {
        promptly(|| function.call(value));
    }
}

/// Does `work`; whether there is something to look for.
fn inside<const N: usize>(call: &Call<'_, N>, work: impl FnOnce()) -> sys::napi_value {
    let ((), has_news) = call.shared.completions.here(work);
    call.number(f64::from(u8::from(has_news)))
}

/// The value written in the argument `at`, with what the argument `parts` holds.
fn value<const N: usize>(call: &Call<'_, N>, at: usize, parts: usize) -> Result<Value, Failure> {
    let shared: &Shared = call.shared;
    let text = &mut *shared.scratch.borrow_mut();
    call.string(at, text);
    let parts = call.parts(parts);
    let value = shared.host.read(text, parts);
    // A long one is not kept.
    const KEPT: usize = 1 << 20;
    if text.capacity() > KEPT {
        *text = Vec::with_capacity(4096);
    }
    value
}

impl<const N: usize> Call<'_, N> {
    /// Argument `at` as an array of buffers; `None` if it is none.
    fn parts(&self, at: usize) -> Option<Vec<Bytes>> {
        let mut count = 0;
        // SAFETY: Node-API checks the kinds of values, and the bytes are copied before anything else runs.
        unsafe {
            if sys::napi_get_array_length(self.env, self.args[at], &mut count)
                != sys::Status::napi_ok
            {
                return None;
            }
            let part = |index| {
                let mut value = null_mut();
                sys::napi_get_element(self.env, self.args[at], index, &mut value);
                let (mut start, mut length) = (null_mut(), 0);
                let status = sys::napi_get_buffer_info(self.env, value, &mut start, &mut length);
                if status != sys::Status::napi_ok || start.is_null() {
                    return Bytes::new();
                }
                let bytes = std::slice::from_raw_parts(start.cast::<u8>(), length);
                Bytes::copy_from_slice(bytes)
            };
            Some((0..count).map(part).collect())
        }
    }
}

/// The text, or an array of the text and its parts.
///
/// # Safety
/// `env` is that of a callback that runs.
unsafe fn give(env: sys::napi_env, written: &Written) -> sys::napi_value {
    // SAFETY: plain calls; the pointers are to live memory, and Node-API copies.
    unsafe {
        let (json, mut text) = (&written.json, null_mut());
        let (start, length) = (json.as_ptr().cast(), json.len() as isize);
        if json.is_ascii() {
            sys::napi_create_string_latin1(env, start, length, &mut text);
        } else {
            sys::napi_create_string_utf8(env, start, length, &mut text);
        }
        if !written.special {
            return text;
        }
        let mut all = null_mut();
        sys::napi_create_array(env, &mut all);
        sys::napi_set_element(env, all, 0, text);
        for (at, part) in written.parts.iter().enumerate() {
            let (mut value, mut copy) = (null_mut(), null_mut());
            let start = if part.is_empty() { null() } else { part.as_ptr().cast() };
            sys::napi_create_buffer_copy(env, part.len(), start, &mut copy, &mut value);
            sys::napi_set_element(env, all, at as u32 + 1, value);
        }
        all
    }
}
