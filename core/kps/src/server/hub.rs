//! The bus with its connections: every turn locks the bus once, and what became ready leaves at
//! once, by whichever task caused it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use kps_proto::{
    Error, Result,
    bus::{Bus, BusConfig, Notice, Output, PortId},
    clock::Time,
    history::Write,
};
use parking_lot::{Mutex, MutexGuard};
use slotmap::SecondaryMap;
use tokio::sync::Notify;

use super::{
    calls::Calls, connection::Connection, egress::Egress, events::Listeners, keeper::Keeper,
    options::ServerOptions, relay,
};
use crate::{
    auth::{OnConnect, Tokens},
    capability::Builtins,
    document::DocumentOptions,
    events::ServerEvent,
    runtime,
};

/// Bytes pulled for one connection at once, and so about what it may have unsent beyond the
/// bus' bounded queues.
const PULL: usize = 256 << 10;

/// How long the clock sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Characters of an error that are told to the host.
const ERROR_TEXT: usize = 500;

pub(super) struct Hub {
    pub(super) options: ServerOptions,
    pub(super) tokens: Tokens,
    /// The hook of the options, until the host sets another one.
    pub(super) on_connect: Mutex<Option<OnConnect>>,
    pub(super) listeners: Listeners,
    pub(super) calls: Calls,
    /// Keeps what topics with history hold.
    keeper: Option<Keeper>,
    start: Instant,
    generation: u32,
    state: Mutex<State>,
    work: Mutex<Work>,
    /// When the clock wakes next, microseconds.
    armed: AtomicU64,
    rearm: Notify,
    /// Sockets open, registered or not.
    sockets: AtomicUsize,
    /// The ids of this process' own clients.
    locals: Mutex<Vec<(String, Arc<str>)>>,
    /// It was told that the server is about to stop.
    stopping: AtomicBool,
    closing: AtomicBool,
    /// Says that `closing` was set.
    pub(super) stop: Notify,
    /// Says that `sockets` became 0.
    empty: Notify,
}

/// What the lock guards.
struct State {
    bus: Bus,
    links: SecondaryMap<PortId, Arc<Connection>>,
}

/// What turns share so that none allocates. Only the server's thread takes it.
#[derive(Default)]
struct Work {
    ports: Vec<PortId>,
    outputs: Vec<Output>,
    batches: Vec<Batch>,
    notices: Vec<Notice>,
    writes: Vec<Write>,
    egress: Egress,
}

struct Batch {
    link: Arc<Connection>,
    count: usize,
    more: bool,
}

impl Hub {
    pub(super) fn new(options: ServerOptions) -> Result<Arc<Hub>> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(0);
        let (keeper, history) = Keeper::open(&options, wall_ms)?.unzip();
        let history = history.unwrap_or_default();
        let bus = Bus::new(BusConfig {
            limits: options.limits.clone(),
            timings: options.timings.clone(),
            forbid_block: options.forbid_block,
            epoch: history.recovered.epoch.max(wall_ms),
            time_base_ms: wall_ms,
            history,
        });
        let builtins = builtins(&options)?.with_documents(documents(&options));
        let hub = Arc::new(Hub {
            keeper,
            tokens: Tokens::new(options.tokens.clone()),
            on_connect: Mutex::new(options.on_connect.clone()),
            options,
            listeners: Listeners::default(),
            calls: Calls::new(builtins),
            start: Instant::now(),
            generation: runtime::generation(),
            state: Mutex::new(State { bus, links: SecondaryMap::new() }),
            work: Mutex::default(),
            armed: AtomicU64::new(u64::MAX),
            rearm: Notify::new(),
            sockets: AtomicUsize::new(0),
            locals: Mutex::default(),
            stopping: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            stop: Notify::new(),
            empty: Notify::new(),
        });
        hub.observe_messages();
        Ok(hub)
    }

    /// The bus' clock.
    pub(super) fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Looks at the bus without giving it anything to do.
    pub(super) fn with_bus<R>(&self, look: impl FnOnce(&mut Bus, Time) -> R) -> R {
        look(&mut self.state.lock().bus, self.now())
    }

    /// Whether this is the process that started the server. In a forked child nobody would ever
    /// release the locks that were held when it was forked.
    pub(super) fn is_here(&self) -> bool {
        self.generation == runtime::generation()
    }

    /// Looks at the bus; in a forked child at nothing.
    pub(super) fn if_here<R: Default>(&self, look: impl FnOnce(&mut Bus) -> R) -> R {
        if self.is_here() { self.with_bus(|bus, _| look(bus)) } else { R::default() }
    }

    /// Lets `act` work on the bus and sends what it made ready. On the server's thread only.
    pub(super) fn turn<R>(self: &Arc<Self>, act: impl FnOnce(&mut Bus, Time) -> R) -> R {
        let now = self.now();
        let work = self.work.lock();
        let mut state = self.state.lock();
        let result = act(&mut state.bus, now);
        self.settle(work, state, now);
        result
    }

    /// Sends what earlier calls of [`Hub::with_bus`] made ready.
    pub(super) fn send_ready(self: &Arc<Self>) {
        self.turn(|_, _| ());
    }

    fn settle(
        self: &Arc<Self>,
        mut work: MutexGuard<'_, Work>,
        mut state: MutexGuard<'_, State>,
        now: Time,
    ) {
        let Work { ports, outputs, batches, notices, writes, egress } = &mut *work;
        let State { bus, links } = &mut *state;
        bus.take_ready(ports);
        for port in ports.drain(..) {
            let Some(link) = links.get(port) else { continue };
            if link.is_paused() && !bus.is_paused(port) {
                link.resume_reading();
            }
            if link.accepts() {
                let before = outputs.len();
                let more = bus.pull(now, port, PULL, outputs);
                batches.push(Batch { link: link.clone(), count: outputs.len() - before, more });
            } else {
                link.set_hungry();
            }
        }
        notices.extend(bus.take_notices());
        bus.take_writes(writes);
        let deadline = bus.deadline();
        drop(state);
        if let Some(keeper) = &self.keeper
            && !writes.is_empty()
        {
            keeper.write(std::mem::take(writes));
        }
        let mut outputs = outputs.drain(..);
        for batch in batches.drain(..) {
            let outputs = outputs.by_ref().take(batch.count);
            batch.link.send(now, outputs, batch.more, egress);
        }
        drop(outputs);
        egress.end_turn();
        let notices = std::mem::take(notices);
        drop(work);
        if let Some(deadline) = deadline {
            self.wake_clock_by(deadline);
        }
        for notice in notices {
            self.notice(notice);
        }
    }

    /// Sends to `link` what the bus has for it, as long as its socket takes it. For the
    /// connection's own task.
    pub(super) fn pump(&self, port: PortId, link: &Connection) -> bool {
        let mut work = self.work.lock();
        let Work { outputs, egress, .. } = &mut *work;
        let now = self.now();
        let more = self.state.lock().bus.pull(now, port, PULL, outputs);
        link.send(now, outputs.drain(..), more, egress);
        egress.end_turn();
        more
    }

    /// Lends the buffers to a connection that has something of its own to say.
    pub(super) fn with_egress<R>(&self, write: impl FnOnce(&mut Egress) -> R) -> R {
        write(&mut self.work.lock().egress)
    }

    /// Makes a connection reachable.
    pub(super) fn link(&self, port: PortId, link: Arc<Connection>) {
        self.state.lock().links.insert(port, link);
    }

    /// Forgets a connection; with `keep` its session may be resumed.
    pub(super) fn unlink(self: &Arc<Self>, port: PortId, keep: bool) {
        self.state.lock().links.remove(port);
        self.turn(|bus, now| bus.detach(now, port, keep));
    }

    pub(super) fn links(&self) -> Vec<Arc<Connection>> {
        self.state.lock().links.values().cloned().collect()
    }

    fn notice(self: &Arc<Self>, notice: Notice) {
        match notice {
            Notice::Connected { port, namespace, client_id } => {
                if self.state.lock().links.get(port).is_some_and(|link| link.is_local()) {
                    self.locals.lock().push((namespace, client_id));
                } else {
                    self.tell(ServerEvent::ClientConnected { client_id });
                }
            }
            Notice::Disconnected { namespace, client_id } => {
                self.calls.session_ended(&namespace, &client_id);
                let is_local = {
                    let mut locals = self.locals.lock();
                    let place = locals
                        .iter()
                        .position(|(space, id)| *space == namespace && *id == client_id);
                    place.map(|place| locals.swap_remove(place)).is_some()
                };
                if !is_local {
                    self.tell(ServerEvent::ClientDisconnected { client_id });
                }
            }
            Notice::Read { reader, query } => {
                if let Some(keeper) = &self.keeper {
                    keeper.read(reader, query);
                }
            }
            Notice::PublishToServer { relay, address, payload } => {
                let hub = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = relay::send(&hub, &address, false, &payload).await {
                        hub.turn(|bus, _| bus.refuse_relay(relay, error));
                    }
                });
            }
            other => {
                if let Some(event) = ServerEvent::of(other) {
                    self.tell(event);
                }
            }
        }
    }

    /// Something happened. Not to be called under a lock.
    pub(super) fn tell(&self, event: ServerEvent) {
        if let (Some(keeper), Some(audit)) = (&self.keeper, &self.options.audit)
            && audit.keeps(&event)
        {
            keeper.audit(&event);
        }
        self.listeners.tell(event);
    }

    /// Whether the host hears of every message.
    pub(super) fn tell_messages(&self, on: bool) {
        self.listeners.hear_messages(on);
        self.observe_messages();
    }

    fn observe_messages(&self) {
        let audited = self.options.audit.is_some_and(|audit| audit.messages);
        self.if_here(|bus| bus.observe_messages(audited || self.listeners.hears_messages()));
    }

    /// A connection was refused, or broke the rules.
    pub(super) fn tell_error(
        &self,
        error: &Error,
        client_id: Option<Arc<str>>,
        remote: Option<SocketAddr>,
    ) {
        // What a peer said may be in it, at any length.
        let text: String = error.message().chars().take(ERROR_TEXT).collect();
        let error = Error::new(error.kind(), text);
        let remote = remote.map(|remote| remote.to_string().into());
        self.tell(ServerEvent::Error { error, client_id, remote });
    }

    /// The patterns of topics with history.
    pub(super) fn kept_patterns(&self) -> Vec<&str> {
        self.keeper.as_ref().map_or_else(Vec::new, Keeper::patterns)
    }

    pub(super) fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// Connected clients of a namespace, this process' own left out.
    pub(super) fn count_clients(&self, namespace: &str) -> usize {
        self.if_here(|bus| {
            let locals = self.locals.lock();
            let locals = locals.iter().filter(|(space, _)| space == namespace).count();
            bus.count_clients(namespace).saturating_sub(locals)
        })
    }

    /// Counts a socket until the guard is dropped; `None` if there are too many.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admission> {
        let before = self.sockets.fetch_add(1, Ordering::Relaxed);
        let admission = Admission(self.clone());
        (before < self.options.max_connections && !self.is_closing()).then_some(admission)
    }

    /// Waits until the last socket is closed.
    pub(super) async fn wait_until_empty(&self) {
        loop {
            let empty = self.empty.notified();
            if self.sockets() == 0 {
                return;
            }
            empty.await;
        }
    }

    fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Notes that the server is about to stop; true the first time.
    pub(super) fn note_stopping(&self) -> bool {
        !self.stopping.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits until the server closes.
    pub(super) async fn stopped(&self) {
        let stop = self.stop.notified();
        if !self.is_closing() {
            stop.await;
        }
    }

    /// Takes no more connections and tells those there are.
    pub(super) fn start_closing(self: &Arc<Self>) {
        if !self.closing.swap(true, Ordering::Relaxed) {
            self.stop.notify_waiters();
            for link in self.links() {
                link.close_for_shutdown(self);
            }
        }
    }

    fn wake_clock_by(&self, deadline: Time) {
        // Only ever earlier: the clock looks again by itself whenever it wakes.
        let before = self.armed.fetch_min(deadline.as_micros(), Ordering::Relaxed);
        if deadline.as_micros() < before {
            self.rearm.notify_one();
        }
    }

    /// Drives what is due by time: the bus' timers and heartbeats. Ends when the server closes.
    pub(super) async fn run_clock(self: Arc<Self>) {
        let timings = &self.options.timings;
        let sweep = (timings.heartbeat / 4).min(Duration::from_secs(1));
        let mut next_sweep = self.now() + sweep;
        while !(self.is_closing() && self.sockets() == 0) {
            let due = self.with_bus(|bus, _| bus.deadline());
            let has_links = !self.state.lock().links.is_empty();
            let due = due.into_iter().chain(has_links.then_some(next_sweep)).min();
            self.armed.store(due.map_or(u64::MAX, Time::as_micros), Ordering::Relaxed);
            let sleep = due.map_or(IDLE, |due| due.since(self.now()));
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.rearm.notified() => continue,
                () = self.empty.notified() => continue,
            }
            let now = self.now();
            if self.with_bus(|bus, _| bus.deadline().is_some_and(|due| due <= now)) {
                self.turn(|bus, now| bus.tick(now));
            }
            if now >= next_sweep {
                next_sweep = now + sweep;
                for link in self.links() {
                    link.check_heartbeat(&self, now, sweep);
                }
            }
        }
    }

    /// Tells the clock that there may be heartbeats to check.
    pub(super) fn wake_clock(&self) {
        self.rearm.notify_one();
    }
}

/// How documents are kept: what is told of them must fit this server's payloads, escaped as it is in JSON.
fn documents(options: &ServerOptions) -> DocumentOptions {
    let mut documents = options.documents.clone();
    documents.part = documents.part.min((options.limits.payload / 8).max(1));
    let mut limits = (*documents.limits).clone();
    limits.missing = limits.missing.min(options.limits.payload / 8);
    documents.limits = Arc::new(limits);
    documents
}

/// What answers calls to the server. A storage that was described is opened now: what is wrong with it is told at once.
#[cfg(feature = "store")]
fn builtins(options: &ServerOptions) -> Result<Builtins> {
    use crate::{
        capability::{Failure, storage::StorageOptions},
        store::values::values_file,
    };

    let folder = options.data.as_deref().map(values_file);
    let Some(storage) = &options.storage else {
        return Ok(match folder {
            Some(file) => Builtins::with_storage(StorageOptions::at(file)),
            None => Builtins::default(),
        });
    };
    let path = storage.path.clone().or(folder);
    let builtins = Builtins::with_storage(StorageOptions { path, ..storage.clone() });
    builtins.storage().map_err(Failure::into_error)?;
    Ok(builtins)
}

#[cfg(not(feature = "store"))]
fn builtins(_options: &ServerOptions) -> Result<Builtins> {
    Ok(Builtins::default())
}

/// One open socket.
pub(super) struct Admission(Arc<Hub>);

impl Drop for Admission {
    fn drop(&mut self) {
        if self.0.sockets.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}
