//! Where a call goes: to this process, to the server, or to a client that offers the capability.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use kps_proto::ErrorKind;
use parking_lot::{Mutex, RwLock};

#[cfg(feature = "store")]
use super::relay::Relay;
use super::{
    Call, CallTarget, Caller, Cancel, Capability, DispatchOptions, Failure, Outcome, Response,
    Value, backoff,
    builtin::Builtins,
    deadline::{self, CancelOnDrop},
    listing,
    offer::Offer,
    progress::Progress,
    remote,
    repeats::Repeats,
    spread,
    watches::{self, Watches},
};
use crate::{
    client::{Client, Kept, WeakBridge},
    compute::Compute,
    document::Documents,
    events::ClientState,
    net::BoxFuture,
};

/// A client's way to capabilities: its own, the server's, and those that other clients offer.
#[derive(Clone)]
pub struct Router(pub(super) Arc<Core>);

pub(super) struct Core {
    client: OnceLock<WeakBridge>,
    pub(super) builtins: Arc<Builtins>,
    registered: RwLock<HashMap<Arc<str>, Arc<Registered>>>,
    ids: Ids,
    repeats: Repeats,
    pub(super) progress: Progress,
    /// The offer of what `kps.capabilities` asks for, made with the first shared capability.
    described: Mutex<Option<Offer>>,
    /// A client's watches of the server's storage.
    pub(super) watches: Watches,
    /// Who hears of changes of this server's storage.
    #[cfg(feature = "store")]
    pub(super) relay: Relay,
    /// What is to be sent before the client closes.
    unsent: Mutex<Vec<Weak<dyn Unsent>>>,
    /// Of the one that answers for the server: how many subscriptions a topic reaches.
    subscribers: OnceLock<Subscribers>,
}

/// Counts the subscriptions of a namespace that a topic reaches.
pub(crate) type Subscribers = Box<dyn Fn(&str) -> usize + Send + Sync>;

/// What a client has yet to send, beside its messages.
pub(crate) trait Unsent: Send + Sync {
    /// Resolves when it is sent, or never will be.
    fn sent(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

/// A capability under its name.
pub(super) struct Registered {
    pub(super) capability: Arc<dyn Capability>,
    pub(super) offer: Mutex<Option<Offer>>,
}

impl Registered {
    /// While it can still be called: what waits is given to others then, instead of hearing that it is gone.
    async fn end_offer(&self) {
        let offer = self.offer.lock().take();
        if let Some(offer) = offer {
            offer.end().await;
        }
    }
}

/// How to register a capability.
#[derive(Clone, Copy, Debug)]
pub struct RegisterOptions {
    /// Offer it to other clients over the bus.
    pub shared: bool,
    /// Calls of others that run at the same time; more wait at the server. 256.
    pub concurrency: usize,
}

impl Default for RegisterOptions {
    fn default() -> Self {
        RegisterOptions { shared: false, concurrency: 256 }
    }
}

/// Failures of one call in which another provider is asked at once, because the one that had it is gone.
const FAILOVERS: u32 = 3;

impl Client {
    /// This client's way to capabilities.
    pub fn capabilities(&self) -> Router {
        Router::of(self, || Builtins::of(self.bridge().options()))
    }

    /// Calls `capability.operation`; see [`Router::dispatch`].
    pub async fn dispatch(&self, action: &str, payload: impl Into<Value>) -> Response {
        self.capabilities().dispatch(action, payload.into(), DispatchOptions::default()).await
    }
}

impl Router {
    /// The router of `client`, with these built-in capabilities if it is made now.
    pub(crate) fn of(client: &Client, builtins: impl FnOnce() -> Builtins) -> Router {
        Router::sharing(client, || Arc::new(builtins()))
    }

    /// As [`of`](Self::of), with what other routers have too.
    pub(crate) fn sharing(client: &Client, builtins: impl FnOnce() -> Arc<Builtins>) -> Router {
        Router(client.bridge().annex(|| {
            Arc::new(Core {
                client: client.bridge().downgrade().into(),
                builtins: builtins(),
                registered: RwLock::default(),
                ids: Ids::default(),
                repeats: Repeats::default(),
                progress: Progress::default(),
                described: Mutex::default(),
                watches: Watches::default(),
                #[cfg(feature = "store")]
                relay: Relay::default(),
                unsent: Mutex::default(),
                subscribers: OnceLock::new(),
            })
        }))
    }

    /// Calls an operation and returns what became of it: a failed call is a [`Response`] too. Dropping
    /// the future cancels the call.
    ///
    /// ```
    /// use kps::capability::{DispatchOptions, Value};
    /// # async fn run() -> kps::Result<()> {
    /// let server = kps::Server::start(kps::ServerOptions::listen("mem://calls"))?;
    /// let client = kps::Client::connect(kps::ConnectOptions::new("mem://calls")).await?;
    /// let response = client.dispatch("kps.ping", Value::Null).await;
    /// assert!(response.is_ok(), "{response:?}");
    ///
    /// let response = client.dispatch("kqs.ping", Value::Null).await;
    /// assert_eq!(response.unwrap().unwrap_err().code(), "unknown_capability");
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn dispatch(
        &self,
        action: &str,
        payload: Value,
        options: DispatchOptions,
    ) -> impl Future<Output = Response> + Send + 'static {
        let core = self.0.clone();
        let action = action.to_owned();
        async move { core.dispatch(&action, payload, options).await }
    }

    /// Makes a capability callable under `name` in this process, and from others if it is shared.
    /// `kps`, `storage`, `compute`, `document` and `sync` are kps' own.
    ///
    /// # Errors
    /// `conflict` for a name that is taken; `invalid_payload` for one that is none; `closed`; what the
    /// capability's `init` gives; if shared, why the server did not take the offer.
    pub async fn register(
        &self,
        name: &str,
        capability: Arc<dyn Capability>,
        options: RegisterOptions,
    ) -> Result<(), Failure> {
        check_name(name)?;
        if self.0.client()?.state() == ClientState::Closed {
            return Err(closed());
        }
        if Builtins::has(name) {
            return Err(taken(name, "kps itself has a capability of this name"));
        }
        let registered =
            Arc::new(Registered { capability: capability.clone(), offer: Mutex::default() });
        {
            let mut all = self.0.registered.write();
            if all.contains_key(name) {
                return Err(taken(name, "unregister the other one first"));
            }
            all.insert(name.into(), registered.clone());
        }
        let result = async {
            capability.init().await?;
            if options.shared {
                let client = self.0.client()?;
                self.describe(&client).await?;
                let offer = Offer::calls(&self.0, &client, name, options.concurrency).await?;
                *registered.offer.lock() = Some(offer);
            }
            Ok(())
        }
        .await;
        if result.is_err() {
            self.0.registered.write().remove(name);
        }
        result
    }

    /// Takes a capability away; calls that run are ended.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn unregister(&self, name: &str) -> Result<(), Failure> {
        let missing = || {
            let sentence = format!("no capability {name:?} is registered here");
            Failure::new(ErrorKind::NotFound, sentence)
        };
        let registered = self.0.registered.read().get(name).cloned().ok_or_else(missing)?;
        registered.end_offer().await;
        // Somebody may have been faster.
        self.0.registered.write().remove(name).ok_or_else(missing)?;
        registered.capability.close().await;
        Ok(())
    }

    /// Opens what the client's options name and is opened by its first use otherwise: its
    /// [storage](crate::ConnectOptions::storage).
    ///
    /// # Errors
    /// As [`Storage::open`](super::storage::Storage::open).
    #[cfg(feature = "store")]
    pub async fn open(&self) -> Result<(), Failure> {
        let builtins = self.0.builtins.clone();
        if !builtins.has_own_storage() {
            return Ok(());
        }
        let opening = crate::runtime::handle().spawn_blocking(move || builtins.storage());
        let opened = opening.await.map_err(|error| {
            Failure::new(ErrorKind::StoreFailed, format!("the storage was not opened: {error}"))
        })?;
        opened.map(drop)
    }

    /// Has the client wait for it when it closes.
    pub(crate) fn wait_at_close(&self, unsent: Weak<dyn Unsent>) {
        let mut all = self.0.unsent.lock();
        if all.len() == all.capacity() {
            all.retain(|unsent| unsent.strong_count() > 0);
        }
        all.push(unsent);
    }

    /// Where this process' tasks run: for tasks that are functions of the program.
    ///
    /// # Errors
    /// `unavailable`: the system starts no threads.
    pub fn compute(&self) -> Result<Arc<Compute>, Failure> {
        self.0.builtins.compute()
    }

    /// The documents of the server whose own client this is, for callers in this process.
    pub(crate) async fn documents(&self) -> Result<Documents, Failure> {
        #[cfg(feature = "store")]
        self.0.builtins.open_storage().await?;
        self.0.builtins.documents(&self.0)
    }

    /// Has this client answer for the server: its built-in capabilities for calls to the server, and the
    /// list of them.
    pub(crate) async fn serve(
        &self,
        client: &Client,
        subscribers: Subscribers,
    ) -> Result<Vec<Offer>, Failure> {
        // Asked again after a failure it is the same.
        let _ = self.0.subscribers.set(subscribers);
        self.describe(client).await?;
        Ok(vec![Offer::server(&self.0, client).await?])
    }

    async fn describe(&self, client: &Client) -> Result<(), Failure> {
        if self.0.described.lock().is_some() {
            return Ok(());
        }
        let offer = Offer::descriptions(&self.0, client).await?;
        // Two at once may both have made one: the other ends here.
        let other = self.0.described.lock().replace(offer);
        drop(other);
        Ok(())
    }
}

impl Core {
    /// A call's id: unique, as long as it is compared with ids of this client alone.
    pub(super) fn new_id(&self) -> Arc<str> {
        self.ids.next()
    }

    pub(super) fn client(&self) -> Result<Client, Failure> {
        let client = self.client.get().and_then(WeakBridge::upgrade).map(Client::from);
        client.ok_or_else(closed)
    }

    pub(super) fn weak_client(&self) -> WeakBridge {
        self.client.get().expect("it is made with its client").clone()
    }

    /// Whether it answers for the server.
    pub(super) fn is_server(&self) -> bool {
        self.subscribers.get().is_some()
    }

    /// Subscriptions that `topic` reaches, as the one that answers for the server knows.
    #[cfg(feature = "store")]
    pub(super) fn count_subscribers(&self, topic: &str) -> usize {
        self.subscribers.get().map_or(0, |count| count(topic))
    }

    /// Every capability of this process' own, by name, and whether others may call it.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<dyn Capability>, bool)> {
        let registered = self.registered.read();
        let mut all: Vec<_> = registered
            .iter()
            .map(|(name, it)| (name.clone(), it.capability.clone(), it.offer.lock().is_some()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    async fn dispatch(
        self: Arc<Self>,
        action: &str,
        payload: Value,
        options: DispatchOptions,
    ) -> Response {
        let started = Instant::now();
        let id = self.new_id();
        let mut attempts = 0;
        let mut provider = None;
        let outcome = match action.split_once('.') {
            Some((capability, operation)) if !capability.is_empty() && !operation.is_empty() => {
                let to = Route { id: &id, action, capability, operation, options: &options };
                self.attempts(to, payload, started, &mut attempts, &mut provider).await
            }
            _ => Err(Failure::new(
                ErrorKind::UnknownCapability,
                format!("the action is {action:?}; it is written capability.operation"),
            )),
        };
        Response { id, outcome, duration: started.elapsed(), attempts, provider }
    }

    async fn attempts(
        self: &Arc<Self>,
        to: Route<'_>,
        mut payload: Value,
        started: Instant,
        attempts: &mut u32,
        provider: &mut Option<Arc<str>>,
    ) -> Outcome {
        let options = to.options;
        let deadline = started + options.timeout.min(FAR);
        let (mut retries, mut failovers) = (0, 0);
        loop {
            *attempts += 1;
            let may_repeat = retries < options.retry || failovers < FAILOVERS;
            let given = if may_repeat { payload.clone() } else { std::mem::take(&mut payload) };
            let (outcome, by) = self.attempt(to, given, *attempts, deadline).await;
            *provider = by;
            let failure = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.kind == ErrorKind::Timeout && Instant::now() >= deadline {
                return Err(failure);
            }
            if is_gone(&failure) && failovers < FAILOVERS && options.target.has_choice() {
                failovers += 1;
                continue;
            }
            let pause = backoff::pause(*attempts - failovers);
            if !failure.retry || retries == options.retry || Instant::now() + pause >= deadline {
                // Whoever was asked first is gone, and nobody else offers it.
                let is_lost = failure.kind == ErrorKind::UnknownCapability && failovers > 0;
                return Err(if is_lost || is_gone(&failure) {
                    remote::gone(to.capability)
                } else {
                    failure
                });
            }
            retries += 1;
            deadline::pause(pause).await;
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        to: Route<'_>,
        payload: Value,
        attempt: u32,
        deadline: Instant,
    ) -> (Outcome, Option<Arc<str>>) {
        let options = to.options;
        if watches::is_ours(&to, &payload) {
            return (watches::call(self, to, payload, attempt, deadline).await, None);
        }
        let is_local = matches!(options.target, CallTarget::Nearest | CallTarget::Local);
        let here = if is_local { self.find(to.capability) } else { None };
        let Some(here) = here else {
            if options.target == CallTarget::Local {
                return (Err(unknown(to.capability, "in this process")), None);
            }
            if spread::is_for_sharers(&to) {
                let work = spread::call(self, to, payload, attempt, deadline);
                let outcome = deadline::until(deadline, work).await;
                return (outcome.unwrap_or_else(|| Err(late(options.timeout))), None);
            }
            return remote::call(self, to, payload, attempt, deadline).await;
        };
        let work = async {
            let call = Call {
                id: to.id.clone(),
                operation: to.operation.into(),
                payload,
                caller: self.caller(),
                cancel: Cancel::default(),
                deadline: Some(deadline),
                attempt,
                progress: options.progress.clone(),
            };
            self.run(here?, to.action, call, options.idempotency_key.clone()).await
        };
        (deadline::until(deadline, work).await.unwrap_or_else(|| Err(late(options.timeout))), None)
    }

    /// Runs a call in this process. When the future is dropped, the work is told to stop.
    pub(super) async fn run(
        &self,
        capability: Arc<dyn Capability>,
        action: &str,
        call: Call,
        idempotency_key: Option<String>,
    ) -> Outcome {
        let _stop = CancelOnDrop(call.cancel.clone());
        match idempotency_key {
            None => capability.call(call).await,
            Some(key) => {
                // Who may do less is not told what was answered to who may do more.
                let Caller { namespace, grants, .. } = call.caller.clone();
                let key = (namespace, action.to_owned(), key, grants);
                let payload = call.payload.clone();
                self.repeats.once(key, &payload, || capability.call(call)).await
            }
        }
    }

    /// The capability of this name in this process.
    pub(super) fn find(
        self: &Arc<Self>,
        name: &str,
    ) -> Option<Result<Arc<dyn Capability>, Failure>> {
        if name == listing::NAME {
            return Some(Ok(Arc::new(listing::Listing(Arc::downgrade(self)))));
        }
        if let Some(registered) = self.registered.read().get(name) {
            return Some(Ok(registered.capability.clone()));
        }
        self.builtins.get(name, self)
    }

    fn caller(&self) -> Caller {
        Caller { namespace: self.namespace(), ..Caller::default() }
    }

    /// The namespace of this client.
    pub(super) fn namespace(&self) -> Arc<str> {
        let client = self.client.get().and_then(WeakBridge::upgrade);
        client
            .and_then(|client| client.options().namespace.as_deref().map(Arc::from))
            .unwrap_or_default()
    }
}

impl Kept for Core {
    fn close(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let unsent = std::mem::take(&mut *self.unsent.lock());
            for unsent in unsent.iter().filter_map(Weak::upgrade) {
                unsent.sent().await;
            }
            let all: Vec<_> = self.registered.read().values().cloned().collect();
            let described = self.described.lock().take();
            drop(described);
            for registered in &all {
                registered.end_offer().await;
            }
            self.registered.write().clear();
            self.watches.close().await;
            for registered in all {
                registered.capability.close().await;
            }
            self.builtins.close().await;
        })
    }
}

/// The ids of one client's calls: chance that two clients do not share, and a number.
struct Ids {
    prefix: String,
    last: AtomicU64,
}

impl Default for Ids {
    fn default() -> Self {
        // Without a source of chance ids are merely not unique among clients, which are told apart
        // wherever ids are compared.
        let prefix = getrandom::u64().unwrap_or_default();
        Ids { prefix: format!("{prefix:016x}"), last: AtomicU64::new(0) }
    }
}

impl Ids {
    fn next(&self) -> Arc<str> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{}{number:016x}", self.prefix).into()
    }
}

/// A call's way: what is asked for, of whom.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) id: &'a Arc<str>,
    pub(super) action: &'a str,
    pub(super) capability: &'a str,
    pub(super) operation: &'a str,
    pub(super) options: &'a DispatchOptions,
}

impl CallTarget {
    /// Whether somebody else may do what one provider did not.
    fn has_choice(&self) -> bool {
        matches!(self, CallTarget::Nearest | CallTarget::Any)
    }
}

/// No call waits longer: the clock has an end.
const FAR: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);

/// Longest name of a capability, in bytes.
const MAX_NAME: usize = 64;

fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain) {
        return Ok(());
    }
    let sentence = format!(
        "{name:?} is no capability's name: letters, digits, _ and -, at most {MAX_NAME} bytes"
    );
    Err(Failure::field("name", sentence))
}

fn taken(name: &str, what_to_do: &str) -> Failure {
    Failure::new(ErrorKind::Conflict, format!("the name {name:?} is taken: {what_to_do}"))
}

fn closed() -> Failure {
    Failure::new(ErrorKind::Closed, "the client is closed; connect a new one")
}

/// `unknown_capability`, and where it was looked for.
pub(super) fn unknown(capability: &str, place: &str) -> Failure {
    let sentence = format!(
        "nobody offers {capability:?} {place}; dispatch(\"kps.capabilities\") lists what there is"
    );
    Failure::new(ErrorKind::UnknownCapability, sentence)
}

/// The provider went away while it had the call.
fn is_gone(failure: &Failure) -> bool {
    failure.kind == ErrorKind::Disconnected
}

pub(super) fn late(timeout: std::time::Duration) -> Failure {
    let sentence =
        format!("no answer within {:.3} s; the work was told to stop", timeout.as_secs_f64());
    Failure::new(ErrorKind::Timeout, sentence).retryable()
}
