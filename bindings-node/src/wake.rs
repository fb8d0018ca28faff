//! Waking the environment's loop from any thread, once per batch.
//!
//! A libuv async handle of our own. Node-API's threadsafe functions are built on the same, but hold
//! a lock while they wake, on which the woken thread then waits: two more context switches per batch.

use std::{ffi::c_void, ptr::null_mut, sync::Arc};

use napi::{Env, bindgen_prelude::Function, sys};
use parking_lot::RwLock;

/// libuv's number for the kind of handle, part of its ABI since 1.0.
const UV_ASYNC: i32 = 1;

/// An opaque `uv_async_t` or `uv_handle_t`.
#[repr(C)]
struct Handle {
    data: *mut c_void,
}

// Exported by every Node.
unsafe extern "C" {
    fn uv_handle_size(kind: i32) -> usize;
    fn uv_async_init(
        event_loop: *mut sys::uv_loop_s,
        handle: *mut Handle,
        woken: unsafe extern "C" fn(*mut Handle),
    ) -> i32;
    fn uv_async_send(handle: *mut Handle) -> i32;
    fn uv_unref(handle: *mut Handle);
    fn uv_close(handle: *mut Handle, closed: unsafe extern "C" fn(*mut Handle));
}

/// Wakes one environment's loop. Does not keep its process alive.
#[derive(Clone)]
pub(crate) struct Wake(Arc<RwLock<Open>>);

/// The handle, until the environment ends. The lock is taken for writing only then.
struct Open(*mut Handle);

// SAFETY: libuv lets any thread call `uv_async_send`; everything else happens on the loop's own.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

/// What the loop's own thread needs to call JavaScript.
struct Target {
    env: sys::napi_env,
    callback: sys::napi_ref,
    cleanup: sys::napi_async_cleanup_hook_handle,
    wake: Wake,
    ended: Box<dyn Fn()>,
}

impl Wake {
    /// `callback` is called on the environment's thread after one or more wakes. `ended` is called
    /// when the environment ends.
    pub(crate) fn new(
        env: Env,
        callback: &Function<'_, (), ()>,
        ended: impl Fn() + 'static,
    ) -> napi::Result<Wake> {
        let (mut event_loop, mut reference) = (null_mut(), null_mut());
        // SAFETY: plain calls with live pointers. The handle is allocated with the size that libuv
        // asks for, and freed when libuv has closed it.
        unsafe {
            napi::check_status!(sys::napi_get_uv_event_loop(env.raw(), &mut event_loop))?;
            let callback = napi::JsValue::raw(callback);
            napi::check_status!(sys::napi_create_reference(
                env.raw(),
                callback,
                1,
                &mut reference
            ))?;
            let handle = allocate();
            let wake = Wake(Arc::new(RwLock::new(Open(handle))));
            if uv_async_init(event_loop, handle, woken) != 0 {
                free(handle);
                return Err(napi::Error::from_reason("the event loop takes no more handles"));
            }
            uv_unref(handle);
            let target = Box::into_raw(Box::new(Target {
                env: env.raw(),
                callback: reference,
                cleanup: null_mut(),
                wake: wake.clone(),
                ended: Box::new(ended),
            }));
            (*handle).data = target.cast();
            napi::check_status!(sys::napi_add_async_cleanup_hook(
                env.raw(),
                Some(end),
                handle.cast(),
                &raw mut (*target).cleanup
            ))?;
            Ok(wake)
        }
    }

    /// Has the callback called soon. Several calls may become one.
    pub(crate) fn call(&self) {
        let open = self.0.read();
        if !open.0.is_null() {
            // SAFETY: the handle is open while the lock is held and it is not null.
            unsafe { uv_async_send(open.0) };
        }
    }
}

/// On the loop's thread: calls JavaScript.
unsafe extern "C" fn woken(handle: *mut Handle) {
    // SAFETY: `Wake::new` set the data before the first wake; `closed` frees it after the last.
    // Node-API's calls get values of the scope opened here.
    unsafe {
        let target = &*(*handle).data.cast::<Target>();
        let env = target.env;
        let (mut scope, mut callback, mut global) = (null_mut(), null_mut(), null_mut());
        if sys::napi_open_handle_scope(env, &mut scope) != sys::Status::napi_ok {
            return;
        }
        sys::napi_get_reference_value(env, target.callback, &mut callback);
        sys::napi_get_global(env, &mut global);
        let none = std::ptr::null();
        let status =
            sys::napi_make_callback(env, null_mut(), global, callback, 0, none, null_mut());
        if status == sys::Status::napi_pending_exception {
            let mut exception = null_mut();
            sys::napi_get_and_clear_last_exception(env, &mut exception);
            sys::napi_fatal_exception(env, exception);
        }
        sys::napi_close_handle_scope(env, scope);
    }
}

/// On the loop's thread: the environment ends.
unsafe extern "C" fn end(_: sys::napi_async_cleanup_hook_handle, handle: *mut c_void) {
    let handle = handle.cast::<Handle>();
    // SAFETY: called once, with the handle that `Wake::new` made; from here on no thread sends.
    unsafe {
        let target = &*(*handle).data.cast::<Target>();
        target.wake.0.write().0 = null_mut();
        (target.ended)();
        uv_close(handle, closed);
    }
}

/// On the loop's thread: libuv is done with the handle.
unsafe extern "C" fn closed(handle: *mut Handle) {
    // SAFETY: both were leaked by `Wake::new` and are not used any more.
    unsafe {
        let target = Box::from_raw((*handle).data.cast::<Target>());
        free(handle);
        sys::napi_delete_reference(target.env, target.callback);
        // Tells Node that the environment may go.
        sys::napi_remove_async_cleanup_hook(target.cleanup);
    }
}

fn layout() -> std::alloc::Layout {
    // SAFETY: a plain call.
    let size = unsafe { uv_handle_size(UV_ASYNC) };
    std::alloc::Layout::from_size_align(size, 16).expect("libuv's handles are small")
}

unsafe fn allocate() -> *mut Handle {
    // SAFETY: the size is not zero.
    let handle = unsafe { std::alloc::alloc_zeroed(layout()) };
    assert!(!handle.is_null(), "there is memory for one handle");
    handle.cast()
}

unsafe fn free(handle: *mut Handle) {
    // SAFETY: it came from `allocate`.
    unsafe { std::alloc::dealloc(handle.cast(), layout()) };
}
