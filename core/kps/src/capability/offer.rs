//! Answering calls that come over the bus.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use kps_proto::{
    ErrorKind,
    bus::Grants,
    message::{Message, Payload},
    options::{Overflow, SubscribeOptions},
    topic::{CALLS, SERVER_CALLS},
};
use tokio::task::JoinHandle;

#[cfg(feature = "store")]
use super::relay;
use super::{
    Call, Caller, Cancel, Failure, Outcome, Request, Response, Value, deadline, listing,
    router::{Core, late},
};
use crate::{
    client::{Client, Delivered, Subscription},
    net::BoxFuture,
    runtime,
};

/// The group of those who offer the same.
const GROUP: &str = "kps";
/// Calls that wait for one provider; one more is refused at once.
const WAITING: u32 = 65_536;
/// The pause before an offer that the server ended is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// Calls answered until this is dropped.
pub(crate) struct Offer(Option<JoinHandle<()>>);

impl Offer {
    /// Others may call the registered capability `name`, so many at the same time.
    pub(super) async fn calls(
        core: &Arc<Core>,
        client: &Client,
        name: &str,
        concurrency: usize,
    ) -> Result<Offer, Failure> {
        let pattern = format!("{CALLS}{name}.>");
        Offer::answer(core, client, pattern, concurrency, true, called).await
    }

    /// Clients may call this server's own capabilities.
    pub(super) async fn server(core: &Arc<Core>, client: &Client) -> Result<Offer, Failure> {
        Offer::answer(core, client, format!("{SERVER_CALLS}>"), 1024, true, called).await
    }

    /// Whoever asks is told what is offered here.
    pub(super) async fn descriptions(core: &Arc<Core>, client: &Client) -> Result<Offer, Failure> {
        let pattern = listing::DESCRIBE.to_owned();
        Offer::answer(core, client, pattern, 64, false, asked).await
    }

    async fn answer(
        core: &Arc<Core>,
        client: &Client,
        pattern: String,
        concurrency: usize,
        grouped: bool,
        answer: fn(Arc<Core>, Message) -> BoxFuture<'static, Payload>,
    ) -> Result<Offer, Failure> {
        let options = SubscribeOptions {
            group: grouped.then(|| GROUP.to_owned()),
            // Nobody else waits because a provider is slow.
            overflow: Overflow::DropNewest,
            capacity: Some(WAITING),
            ..SubscribeOptions::default()
        };
        let mut subscription = client.subscribe_with(&pattern, options.clone()).await?;
        let (core, client) = (Arc::downgrade(core), client.clone());
        Ok(Offer(Some(runtime::spawn(async move {
            loop {
                serve(subscription, &core, concurrency, answer).await;
                // It ends with the client, or because the server ended it.
                loop {
                    if client.state() == crate::ClientState::Closed || core.strong_count() == 0 {
                        return;
                    }
                    tokio::time::sleep(AGAIN).await;
                    if let Ok(again) = client.subscribe_with(&pattern, options.clone()).await {
                        subscription = again;
                        break;
                    }
                }
            }
        }))))
    }

    /// Ends it; calls under way are cancelled, and their callers told.
    pub(crate) async fn end(mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            // An error says that it was ended: that is what was wanted.
            let _ = task.await;
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn serve(
    subscription: Subscription,
    core: &Weak<Core>,
    concurrency: usize,
    answer: fn(Arc<Core>, Message) -> BoxFuture<'static, Payload>,
) {
    let handle = |delivered: Delivered| {
        let core = core.upgrade();
        async move {
            match core {
                Some(core) => Ok(answer(core, delivered.into_message()).await),
                None => Err("the client is closed"),
            }
        }
    };
    subscription.by_answers().serve(concurrency, handle).await;
}

/// Somebody asks what is offered here.
fn asked(core: Arc<Core>, _message: Message) -> BoxFuture<'static, Payload> {
    Box::pin(async move {
        let own = core.client().ok().and_then(|client| client.id()).unwrap_or_default();
        let mut all = listing::described(&core, &own, false);
        if core.is_server() {
            #[cfg(feature = "store")]
            // Without it the others are listed.
            let _ = core.builtins.open_storage().await;
            all.extend(listing::of_server(&core));
        }
        let text = Value::List(all).to_json().unwrap_or_default();
        Payload::json(text)
    })
}

/// Somebody calls an operation.
fn called(core: Arc<Core>, message: Message) -> BoxFuture<'static, Payload> {
    Box::pin(async move {
        let started = Instant::now();
        let (id, attempts, outcome) = match read(&message) {
            Err(failure) => (Arc::from(""), 1, Err(failure)),
            Ok((action, request)) => {
                (request.id.clone(), request.attempt, run(&core, &message, action, request).await)
            }
        };
        let duration = started.elapsed();
        let response = Response { id, outcome, duration, attempts, provider: None };
        encode(response, core.client().map_or(usize::MAX, |client| client.bridge().max_payload()))
    })
}

/// What the topic and the payload say. The topic decides what is called: that is what permissions are for.
fn read(message: &Message) -> Result<(String, Request), Failure> {
    let topic = &*message.topic;
    let action = topic.strip_prefix(CALLS).or_else(|| topic.strip_prefix(SERVER_CALLS));
    let value = Value::from_json(&message.payload.bytes).map_err(|error| {
        Failure::new(ErrorKind::InvalidPayload, format!("no envelope: {error}"))
    })?;
    Ok((action.unwrap_or_default().to_owned(), Request::from_value(value)?))
}

async fn run(core: &Arc<Core>, message: &Message, action: String, request: Request) -> Outcome {
    let (name, operation) = action.split_once('.').unwrap_or((&action, ""));
    #[cfg(feature = "store")]
    if matches!(name, "storage" | "document") {
        core.builtins.open_storage().await?;
    }
    let Some(capability) = core.find(name) else {
        return Err(super::router::unknown(name, "here any more"));
    };
    let deadline = Instant::now() + request.timeout;
    let progress = request.progress.and_then(|topic| {
        super::progress::teller(core, topic, message.sender.id.to_string(), request.id.clone())
    });
    let call = Call {
        id: request.id,
        operation: operation.into(),
        payload: request.payload,
        caller: Caller {
            client_id: Some((*message.sender.id).into()),
            namespace: core.namespace(),
            grants: Grants::from_headers(message.headers()),
        },
        cancel: Cancel::default(),
        deadline: Some(deadline),
        attempt: request.attempt,
        progress,
    };
    let work = async {
        #[cfg(feature = "store")]
        if core.is_server() && name == "storage" {
            match operation {
                "watch" => return relay::watch(core, call),
                "unwatch" => return Err(relay::unwatch()),
                _ => {}
            }
        }
        core.run(capability?, &action, call, request.idempotency_key).await
    };
    deadline::until(deadline, work).await.unwrap_or_else(|| Err(late(request.timeout)))
}

fn encode(response: Response, limit: usize) -> Payload {
    let fits = |text: &Vec<u8>| text.len() <= limit;
    let failed = |response: &Response, failure: Failure| {
        let response = Response { outcome: Err(failure), ..response.clone() };
        response.into_value().to_json().unwrap_or_default()
    };
    match response.clone().into_value().to_json() {
        Ok(text) if fits(&text) => Payload::json(text),
        Ok(text) => {
            let sentence = format!(
                "the answer has {} bytes; the server's limit is {limit}: ask for less at a time",
                text.len()
            );
            Payload::json(failed(&response, Failure::new(ErrorKind::TooLarge, sentence)))
        }
        Err(error) => {
            let sentence = format!("the operation's answer cannot travel: {error}");
            Payload::json(failed(&response, Failure::new(ErrorKind::Internal, sentence)))
        }
    }
}
