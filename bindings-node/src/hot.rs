//! The functions that run once per message, written against Node-API itself: a generated function
//! costs 400–600 ns a call, one of these 80 ns with a string of 128 bytes (measured on Node 20).
//!
//! Each gets a pointer to the environment's [`Shared`] as its data. It holds a reference of its
//! own, given back when JavaScript collects the function.

use std::{
    ffi::{CStr, CString, c_void},
    ptr::null_mut,
    rc::Rc,
};

use kps::{
    AckRequest, ErrorKind, FlushHint, PublishOptions, Room, SubId, To,
    message::{Answer, ContentType, HandlerError, Payload},
};
use napi::{Env, bindgen_prelude::Object, sys};

use crate::{
    batch,
    bridge::{Drained, Shared},
    calls, options,
};

/// A function as Node-API calls it.
pub(crate) type Raw =
    unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;

/// How a publish says where it goes and what it carries; `ts/publish.ts` has the same bits.
mod mode {
    pub(super) const CONTENT_TYPE: u32 = 0b11;
    pub(super) const CLIENT: u32 = 1 << 2;
    pub(super) const SERVER: u32 = 1 << 3;
    pub(super) const REQUEST: u32 = 1 << 4;
}

/// What an answer is beside a content type; `ts/publish.ts` has the same numbers.
mod answer {
    pub(super) const FAILED: u32 = 3;
    pub(super) const NO_HANDLER: u32 = 4;
}

/// An object with the hot functions.
pub(crate) fn functions(env: Env, shared: &Rc<Shared>) -> napi::Result<Object<'static>> {
    let own: [(&CStr, Raw); 6] = [
        (c"name", name),
        (c"publish", publish),
        (c"answer", answer_delivery),
        (c"consumed", consumed),
        (c"flush", flush),
        (c"drain", drain),
    ];
    let mut object = null_mut();
    // SAFETY: `env` is the environment of this call, and every pointer outlives its call. The data
    // pointer comes from `Rc::into_raw`; `release` gives it back once.
    unsafe {
        napi::check_status!(sys::napi_create_object(env.raw(), &mut object))?;
        for (name, callback) in own.into_iter().chain(calls::FUNCTIONS) {
            let data = Rc::into_raw(shared.clone()).cast_mut().cast::<c_void>();
            let mut function = null_mut();
            let created = sys::napi_create_function(
                env.raw(),
                name.as_ptr(),
                -1,
                Some(callback),
                data,
                &mut function,
            );
            if created != sys::Status::napi_ok {
                drop(Rc::from_raw(data.cast::<Shared>().cast_const()));
            }
            napi::check_status!(created)?;
            napi::check_status!(sys::napi_add_finalizer(
                env.raw(),
                function,
                data,
                Some(release),
                null_mut(),
                null_mut()
            ))?;
            napi::check_status!(sys::napi_set_named_property(
                env.raw(),
                object,
                name.as_ptr(),
                function
            ))?;
        }
    }
    Ok(Object::from_raw(env.raw(), object))
}

unsafe extern "C" fn release(_: sys::napi_env, data: *mut c_void, _: *mut c_void) {
    // SAFETY: `functions` made the pointer with `Rc::into_raw`, one for each finalizer.
    drop(unsafe { Rc::from_raw(data.cast::<Shared>().cast_const()) });
}

/// One call's arguments.
pub(crate) struct Call<'a, const N: usize> {
    pub(crate) env: sys::napi_env,
    pub(crate) args: [sys::napi_value; N],
    pub(crate) count: usize,
    pub(crate) shared: &'a Shared,
}

impl<'a, const N: usize> Call<'a, N> {
    /// # Safety
    /// `env` and `info` are those of a callback made by [`functions`].
    pub(crate) unsafe fn new(env: sys::napi_env, info: sys::napi_callback_info) -> Self {
        let (mut count, mut args, mut data) = (N, [null_mut(); N], null_mut());
        // SAFETY: the array has room for `count` values; the data pointer is the one given to
        // `napi_create_function`, alive as long as the function.
        unsafe {
            sys::napi_get_cb_info(env, info, &mut count, args.as_mut_ptr(), null_mut(), &mut data);
            Call { env, args, count: count.min(N), shared: &*data.cast::<Shared>() }
        }
    }

    /// Argument `at` as a number; 0 if it is none.
    pub(crate) fn int(&self, at: usize) -> u32 {
        let mut value = 0;
        // SAFETY: Node-API fills missing arguments with `undefined`.
        unsafe { sys::napi_get_value_uint32(self.env, self.args[at], &mut value) };
        value
    }

    /// Argument `at` as a number; 0 if it is none.
    pub(crate) fn float(&self, at: usize) -> f64 {
        let mut value = 0.0;
        // SAFETY: as in `int`.
        unsafe { sys::napi_get_value_double(self.env, self.args[at], &mut value) };
        value
    }

    /// Argument `at` as UTF-8 in `out`, replacing what it held; `false` if it is not a string.
    pub(crate) fn string(&self, at: usize, out: &mut Vec<u8>) -> bool {
        out.clear();
        loop {
            let mut written = 0;
            // SAFETY: Node-API writes at most `capacity` bytes, a final zero among them, and says
            // how many come before it.
            let status = unsafe {
                sys::napi_get_value_string_utf8(
                    self.env,
                    self.args[at],
                    out.as_mut_ptr().cast(),
                    out.capacity(),
                    &mut written,
                )
            };
            if status != sys::Status::napi_ok {
                return false;
            }
            // Truncation stops before a character that does not fit, which has up to 4 bytes.
            if written + 5 <= out.capacity() {
                // SAFETY: these bytes were just written.
                unsafe { out.set_len(written) };
                return true;
            }
            out.reserve(out.capacity() * 2 + 64);
        }
    }

    /// Argument `at` as the bytes of a buffer or view.
    ///
    /// # Safety
    /// Nothing may run JavaScript while the bytes are used.
    unsafe fn bytes(&self, at: usize) -> Option<&'a mut [u8]> {
        let (mut start, mut length) = (null_mut(), 0);
        // SAFETY: Node-API checks the kind of the value.
        let status =
            unsafe { sys::napi_get_buffer_info(self.env, self.args[at], &mut start, &mut length) };
        if status != sys::Status::napi_ok {
            return None;
        }
        if start.is_null() {
            return Some(&mut []);
        }
        // SAFETY: the view's memory, alive during this call.
        Some(unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>(), length) })
    }

    /// Argument `at`, bytes or text, in `out`; `false` if it is neither.
    fn payload(&self, at: usize, out: &mut Vec<u8>) -> bool {
        if self.string(at, out) {
            return true;
        }
        // SAFETY: the bytes are copied before anything else runs.
        let bytes = unsafe { self.bytes(at) };
        out.clear();
        out.extend_from_slice(bytes.as_deref().unwrap_or_default());
        bytes.is_some()
    }

    pub(crate) fn text(&self, at: usize) -> String {
        let mut out = Vec::with_capacity(64);
        self.string(at, &mut out);
        String::from_utf8(out).expect("Node-API writes valid UTF-8")
    }

    pub(crate) fn number(&self, value: f64) -> sys::napi_value {
        let mut result = null_mut();
        // SAFETY: a plain call.
        unsafe { sys::napi_create_double(self.env, value, &mut result) };
        result
    }

    /// Throws `error`; the value to return after it.
    pub(crate) fn throw(&self, error: &kps::Error) -> sys::napi_value {
        let message =
            CString::new(error.message().replace('\0', " ")).expect("zero bytes were replaced");
        let code = CString::new(error.code()).expect("codes have no zero bytes");
        // SAFETY: both are zero-terminated and copied by the call.
        unsafe { sys::napi_throw_error(self.env, code.as_ptr(), message.as_ptr()) };
        null_mut()
    }

    fn done(&self, result: kps::Result<()>) -> sys::napi_value {
        match result {
            Ok(()) => null_mut(),
            Err(error) => self.throw(&error),
        }
    }
}

/// `name(topic, again) -> number`: the number that `publish` calls it by. `again` forgets all before.
unsafe extern "C" fn name(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<2>::new(env, info) };
    let mut names = call.shared.names.borrow_mut();
    if call.int(1) == 1 {
        names.clear();
    }
    names.push(call.text(0).into_boxed_str());
    call.number((names.len() - 1) as f64)
}

/// `publish(client, mode, name, payload, timeout?, options?) -> number`, negative above the soft
/// bound. `timeout` (ms) wants an ack unless it is not a number; `options` is JSON.
unsafe extern "C" fn publish(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<6>::new(env, info) };
    match publish_now(&call) {
        Ok(number) => call.number(number),
        Err(error) => call.throw(&error),
    }
}

fn publish_now(call: &Call<'_, 6>) -> kps::Result<f64> {
    let mode = call.int(1);
    let names = call.shared.names.borrow();
    let name = &*names[call.int(2) as usize];
    let to = match mode {
        mode if mode & mode::CLIENT != 0 => To::Client(name),
        mode if mode & mode::SERVER != 0 => To::Server(name),
        _ => To::Topic(name),
    };
    let content_type = batch::content_type(mode & mode::CONTENT_TYPE).unwrap_or_default();
    let payload = &mut *call.shared.scratch.borrow_mut();
    if !call.payload(3, payload) {
        let message = "the payload is neither text nor bytes";
        return Err(kps::Error::new(kps::ErrorKind::InvalidPayload, message));
    }
    let timeout = if call.count > 4 { call.float(4) } else { f64::NAN };
    if timeout < 0.0 {
        let message = format!("the timeout is {timeout} ms; it is 0 or more");
        return Err(kps::Error::new(kps::ErrorKind::InvalidArgument, message));
    }
    let mut given = match call.count {
        6 => serde_json::from_str(&call.text(5))
            .map_err(|error| kps::Error::new(kps::ErrorKind::InvalidArgument, error.to_string()))?,
        _ => options::Publish::default(),
    };
    let extras = given.extras()?;
    let receipt = given.receipt()?;
    call.shared.with_client(call.int(0), |client| {
        let target = client.target;
        let ack = (!timeout.is_nan()).then(|| options::millis(timeout));
        let request = mode & mode::REQUEST != 0;
        let options = PublishOptions {
            extras: (!extras.is_empty()).then_some(&extras),
            receipt,
            target,
            ack: ack.map(|timeout| AckRequest { timeout, request, target }),
            retain: given.retain,
            ..PublishOptions::default()
        };
        let number = client.bridge.publish(to, content_type, payload, options, FlushHint::Later)?;
        let full = client.bridge.room() != Room::Free;
        Ok(if full { -(number as f64) } else { number as f64 })
    })
}

/// `answer(client, delivery, kind, payload | type, text, delay)`; `delay` in milliseconds, NaN: none.
unsafe extern "C" fn answer_delivery(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<6>::new(env, info) };
    let answer = match call.int(2) {
        answer::FAILED => {
            let error = HandlerError { kind: call.text(3), text: call.text(4) };
            match call.float(5) {
                delay if delay >= 0.0 => Answer::Retry(error, crate::options::millis(delay)),
                _ => Answer::Failed(error),
            }
        }
        answer::NO_HANDLER => Answer::NoHandler,
        number => {
            let content_type = batch::content_type(number).unwrap_or(ContentType::Json);
            let mut bytes = Vec::with_capacity(256);
            call.payload(3, &mut bytes);
            Answer::Acked(Payload { content_type, bytes: bytes.into() })
        }
    };
    let answered = call.shared.with_client(call.int(0), |client| {
        client.bridge.answer(call.float(1) as u64, answer, FlushHint::Later)
    });
    call.done(match answered {
        // Nobody waits for it any more, and no handler has to know.
        Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
        other => other,
    })
}

/// `consumed(client, sub, count)`.
unsafe extern "C" fn consumed(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<3>::new(env, info) };
    call.done(call.shared.with_client(call.int(0), |client| {
        client.bridge.consumed(SubId(call.int(1)), call.float(2) as u64, FlushHint::Later);
        Ok(())
    }))
}

/// `flush(client)`: sends what the tick left.
unsafe extern "C" fn flush(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<1>::new(env, info) };
    call.done(call.shared.with_client(call.int(0), |client| {
        client.bridge.flush_now();
        Ok(())
    }))
}

/// `drain(slab, head, tail, how, news) -> packed`: `how` has a bit for a fresh slab and one for calls only. Bits 0–16 the new tail, 17–26 the number of
/// records, then `more`, `ascii`, `renewed`. Appends to `news` the array of new names and the
/// array of large payloads, if there are any of either.
unsafe extern "C" fn drain(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: a callback of `functions`.
    let call = unsafe { Call::<5>::new(env, info) };
    // SAFETY: JavaScript does not run before the batch is written.
    let Some(slab) = (unsafe { call.bytes(0) }) else {
        return call.number(0.0);
    };
    let tail = (call.int(2) as usize).min(slab.len());
    let head = (call.int(1) as usize).min(tail);
    let how = call.int(3);
    let drained = call.shared.drain(slab, head, tail, how & 1 != 0, how & 2 != 0);
    if !drained.names.is_empty() || !drained.large.is_empty() {
        // SAFETY: `news` is an array, by the contract with `ts/slab.ts`.
        unsafe { tell_news(env, call.args[4], &drained) };
    }
    let bits = drained.tail
        | drained.count << 17
        | usize::from(drained.more) << 27
        | usize::from(drained.ascii) << 28
        | usize::from(drained.renewed) << 29;
    call.number(bits as f64)
}

/// # Safety
/// `news` is a JavaScript array.
unsafe fn tell_news(env: sys::napi_env, news: sys::napi_value, drained: &Drained) {
    // SAFETY: plain calls; the pointers are to live memory, and Node-API copies.
    unsafe {
        let (mut names, mut large) = (null_mut(), null_mut());
        sys::napi_create_array(env, &mut names);
        for (at, name) in drained.names.iter().enumerate() {
            let mut value = null_mut();
            let length = name.len() as isize;
            sys::napi_create_string_utf8(env, name.as_ptr().cast(), length, &mut value);
            sys::napi_set_element(env, names, at as u32, value);
        }
        sys::napi_create_array(env, &mut large);
        for (at, bytes) in drained.large.iter().enumerate() {
            let (mut value, mut copy) = (null_mut(), null_mut());
            let start = bytes.as_ptr().cast();
            sys::napi_create_buffer_copy(env, bytes.len(), start, &mut copy, &mut value);
            sys::napi_set_element(env, large, at as u32, value);
        }
        sys::napi_set_element(env, news, 0, names);
        sys::napi_set_element(env, news, 1, large);
    }
}
