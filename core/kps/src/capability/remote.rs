//! Calls that go over the bus.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kps_proto::{
    Error, ErrorKind,
    message::{Extras, Payload, RowStatus},
    topic::{CALLS, SERVER_CALLS},
};

use super::{
    CallTarget, Failure, Outcome, Request, Response, Value,
    router::{Core, Route, late, unknown},
};
use crate::{client::Client, events::ClientState};

/// Added to the time that the bus waits, so that the deadline here comes first and says what it is.
const GRACE: Duration = Duration::from_millis(50);

/// How the bus says of a provider that it ended its offer with the call unanswered.
const LEFT: &str = RowStatus::NoHandler.as_str();

/// Asks a provider; also says which one answered.
pub(super) async fn call(
    core: &Arc<Core>,
    to: Route<'_>,
    payload: Value,
    attempt: u32,
    deadline: Instant,
) -> (Outcome, Option<Arc<str>>) {
    let client = match core.client() {
        Ok(client) => client,
        Err(failure) => return (Err(failure), None),
    };
    let mut provider = None;
    let work = ask(core, &client, to, payload, attempt, deadline, &mut provider);
    let outcome = super::deadline::until(deadline, work).await;
    let outcome = outcome.unwrap_or_else(|| Err(missed(&client, to)));
    (outcome, provider)
}

/// Why there is no answer at the deadline.
pub(super) fn missed(client: &Client, to: Route<'_>) -> Failure {
    match client.state() {
        ClientState::Connected => late(to.options.timeout),
        _ => Failure::new(
            ErrorKind::Unavailable,
            "there was no connection to the server in the time given",
        )
        .retryable(),
    }
}

async fn ask(
    core: &Arc<Core>,
    client: &Client,
    to: Route<'_>,
    payload: Value,
    attempt: u32,
    deadline: Instant,
    provider: &mut Option<Arc<str>>,
) -> Outcome {
    let options = to.options;
    let listening = match &options.progress {
        Some(callback) => Some(core.progress.listen(client, to.id, callback.clone()).await?),
        None => None,
    };
    let timeout = deadline.saturating_duration_since(Instant::now());
    let request = Request {
        id: to.id.clone(),
        action: to.action.to_owned(),
        payload,
        timeout,
        attempt,
        idempotency_key: options.idempotency_key.clone(),
        progress: listening.as_ref().map(|listening| listening.topic.clone()),
    };
    let text = request.into_value().to_json();
    let text = text.map_err(|error| Failure::new(ErrorKind::InvalidPayload, error))?;
    let prefix = if options.target == CallTarget::Server { SERVER_CALLS } else { CALLS };
    let topic = format!("{prefix}{}.{}", to.capability, to.operation);
    let recipient = match &options.target {
        CallTarget::Client(id) => Some(vec![id.clone()]),
        _ => None,
    };
    let extras = Extras { to: recipient, ..Extras::default() };
    let row = client.request_row_with(&topic, Payload::json(text), timeout + GRACE, &extras).await;
    let row = row.map_err(|error| refused(error, to))?;
    *provider = Some(row.client_id.clone());
    let answer = row.data.unwrap_or_else(|| Payload::json("null"));
    let value = Value::from_json(&answer.bytes).and_then(|value| match value.get("status") {
        Some(_) => Ok(value),
        None => Err("it has no status".into()),
    });
    let value = value.map_err(|error| {
        let sentence =
            format!("{} answered with something else than an envelope: {error}", row.client_id);
        Failure::new(ErrorKind::Internal, sentence)
    })?;
    Response::outcome_of(value)
}

/// Why the bus gave no answer, as those who call see it.
fn refused(error: Error, to: Route<'_>) -> Failure {
    let capability = to.capability;
    match (error.kind(), &to.options.target) {
        (ErrorKind::NoResponders, CallTarget::Server) => {
            let sentence =
                "this server has no capabilities of its own: it is older than this client";
            Failure::new(ErrorKind::Unavailable, sentence)
        }
        (ErrorKind::NoResponders, CallTarget::Client(id)) => Failure::new(
            ErrorKind::Unavailable,
            format!("client {id:?} does not offer {capability:?}, or is not connected"),
        )
        .retryable(),
        // A provider that closes has no use any more for the calls that waited for it.
        (ErrorKind::NoResponders, _) if error.message().ends_with(LEFT) => {
            Failure { kind: ErrorKind::Disconnected, ..gone(capability) }
        }
        (ErrorKind::NoResponders, _) => unknown(capability, "on this bus"),
        // The router asks the next one, if there is a choice.
        // A provider that is about to close drops what it was doing: its handler failed.
        (
            ErrorKind::Disconnected | ErrorKind::HandlerFailed,
            CallTarget::Nearest | CallTarget::Any,
        ) => Failure { kind: ErrorKind::Disconnected, ..gone(capability) },
        (ErrorKind::Disconnected | ErrorKind::HandlerFailed | ErrorKind::SlowConsumer, _) => {
            let failure = gone(capability);
            Failure { message: format!("{} ({})", failure.message, error.message()), ..failure }
        }
        (ErrorKind::PayloadTooLarge, _) => Failure::new(ErrorKind::TooLarge, error.message()),
        (ErrorKind::InvalidTopic, _) => Failure::new(ErrorKind::UnknownOperation, error.message()),
        (ErrorKind::Timeout, _) => late(to.options.timeout),
        (ErrorKind::NotConnected | ErrorKind::SessionLost | ErrorKind::OutboxFull, _) => {
            Failure::new(ErrorKind::Unavailable, error.message()).retryable()
        }
        _ => Failure::from(error),
    }
}

/// `unavailable`: who had the call went away.
pub(super) fn gone(capability: &str) -> Failure {
    let sentence = format!(
        "the provider of {capability:?} went away with the call: it may have done it, or not"
    );
    Failure::new(ErrorKind::Unavailable, sentence).retryable()
}
