//! Publish, request, dispatch.

use std::{fmt, future::Future, time::Duration};

use bytes::Bytes;
use hyper::{HeaderMap, Request, Response, StatusCode, body::Body as HttpBody, header};
use kps_proto::{
    ErrorKind,
    message::{ContentType, Extras, Offline, Payload, ReceiptLevel},
};

use super::{
    Answer, Body, Fault, Visit,
    body::{self, Read},
};
use crate::{
    capability::{Builtins, CallTarget, DispatchOptions, Value},
    client::Client,
    events::To,
    runtime,
};

/// How long an answer is awaited, unless the request says.
const REQUEST: Duration = Duration::from_secs(30);
const DISPATCH: Duration = Duration::from_secs(5);

/// A longer body is taken apart on another thread than the one that serves everybody.
const LONG: usize = 256 << 10;

impl Visit<'_> {
    pub(super) async fn client(&self) -> Result<Client, Fault> {
        let Self { gateway, principal, .. } = self;
        Ok(gateway.clients.of(&*gateway.host, principal).await?)
    }

    pub(super) async fn read<B>(&self, request: Request<B>, limit: usize) -> Result<Read, Fault>
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        let patience = self.gateway.host.settings().patience;
        let (head, body) = request.into_parts();
        self.gateway.bodies.read(&head.headers, body, limit, patience).await
    }

    /// The body as a payload of the type that the request says.
    async fn payload<B>(&self, request: Request<B>) -> Result<Payload, Fault>
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        let kind = content_type(request.headers())?;
        let read = self.read(request, self.gateway.host.settings().payload).await?;
        check(kind, read.bytes).await
    }

    pub(super) async fn publish<B>(mut self, topic: &str, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        let extras = self.extras()?;
        let level = match self.query.text("receipt")?.as_deref() {
            None | Some("accepted") => ReceiptLevel::Accepted,
            Some("stored") => ReceiptLevel::Stored,
            Some(other) => {
                let sentence = format!("receipt is {other:?}; it is accepted or stored");
                return Err(Fault::argument("receipt", sentence));
            }
        };
        let retain = self.query.flag("retain")?;
        let timeout = self.query.seconds("timeout")?.unwrap_or(REQUEST);
        self.query.done()?;
        let payload = self.payload(request).await?;
        let client = self.client().await?;
        let receipt = match retain {
            true => client.publish_retained_with(topic, payload, &extras, Some(level)),
            false => client.publish_with(To::Topic(topic), payload, &extras, Some(level)),
        }?;
        let id = receipt.id();
        let level = within(timeout, receipt.into_future()).await??;
        let answer = serde_json::json!({ "id": id, "level": level.as_str() });
        Ok(body::json(StatusCode::ACCEPTED, answer.to_string()))
    }

    pub(super) async fn request<B>(mut self, topic: &str, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        let extras = self.extras()?;
        let timeout = self.query.seconds("timeout")?.unwrap_or(REQUEST);
        self.query.done()?;
        let payload = self.payload(request).await?;
        let client = self.client().await?;
        let answer = client.request_with(topic, payload, timeout, &extras).await?;
        Ok(as_body(answer))
    }

    pub(super) async fn dispatch<B>(mut self, action: &str, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        let timeout = self.query.seconds("timeout")?.unwrap_or(DISPATCH);
        let target = self.query.text("target")?;
        let idempotency_key = self.query.text("idempotency_key")?;
        self.query.done()?;
        // The client of a request has nothing of its own that could be meant.
        let target = match target.as_deref() {
            Some("local") => {
                let sentence =
                    "there is nothing local to a request: say server, any, or a client's id";
                return Err(Fault::argument("target", sentence));
            }
            Some(target) => CallTarget::parse(target),
            None if is_servers(action) => CallTarget::Server,
            None => CallTarget::Any,
        };
        let payload = self.json(request, self.gateway.host.settings().payload).await?;
        let options =
            DispatchOptions { timeout, target, idempotency_key, ..DispatchOptions::default() };
        let router = self.client().await?.capabilities();
        let answer = router.dispatch(action, payload, options).await.unwrap()?;
        json_of(StatusCode::OK, answer).await
    }

    /// The body as a value; without a body `null`.
    pub(super) async fn json<B>(&self, request: Request<B>, limit: usize) -> Result<Value, Fault>
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        if content_type(request.headers())? != ContentType::Json {
            return Err(Fault::content_type(
                "the body is JSON: say Content-Type: application/json",
            ));
        }
        let read = self.read(request, limit).await?;
        if read.bytes.is_empty() {
            return Ok(Value::Null);
        }
        let value = apart(read.bytes.len(), move || Value::from_json(&read.bytes)).await?;
        value.map_err(|error| Fault::new(ErrorKind::InvalidPayload, no_json(&error)))
    }

    /// What a publish may say beside its payload.
    fn extras(&mut self) -> Result<Extras, Fault> {
        let mut extras = Extras {
            id: self.query.text("id")?,
            ttl: self.query.seconds("ttl")?,
            private: self.query.flag("private")?,
            ..Extras::default()
        };
        let to = self.query.all("to");
        extras.to = (!to.is_empty()).then_some(to);
        if let Some(offline) = self.query.text("offline")? {
            extras.offline = Offline::parse(&offline)?;
        }
        for header in self.query.all("header") {
            let Some((name, value)) = header.split_once(':') else {
                let sentence = format!("header is {header:?}; it is a name, a colon and a value");
                return Err(Fault::argument("header", sentence));
            };
            extras.headers.push((name.trim().into(), value.trim().into()));
        }
        Ok(extras)
    }
}

/// Whether a call is for one of kps' own capabilities, which the server has.
fn is_servers(action: &str) -> bool {
    action.split_once('.').is_some_and(|(capability, _)| Builtins::has(capability))
}

async fn within<T>(timeout: Duration, work: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout(timeout, work).await.map_err(|_| {
        Fault::new(ErrorKind::Timeout, "the server has not taken the message yet; it may still")
    })
}

/// The type of payload that a request's body is. curl says `x-www-form-urlencoded` of whatever it is given.
fn content_type(headers: &HeaderMap) -> Result<ContentType, Fault> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(ContentType::Json) };
    let full = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let kind = full.split(';').next().unwrap_or_default().trim();
    match kind {
        "" | "application/json" | "application/x-www-form-urlencoded" => Ok(ContentType::Json),
        "application/octet-stream" => Ok(ContentType::Bytes),
        _ if kind.ends_with("+json") => Ok(ContentType::Json),
        _ if kind.starts_with("text/") => Ok(ContentType::Text),
        _ => Err(Fault::content_type(format!(
            "a payload is application/json, text/plain or application/octet-stream, not {kind:?}"
        ))),
    }
}

/// A payload that is what it says.
async fn check(content_type: ContentType, bytes: Bytes) -> Result<Payload, Fault> {
    let payload = Payload { content_type, bytes: bytes.clone() };
    let is_good = apart(bytes.len(), move || match content_type {
        // An empty payload takes a retained message away.
        _ if bytes.is_empty() => Ok(()),
        ContentType::Json => serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
            .map(drop)
            .map_err(|error| no_json(&error)),
        ContentType::Text => std::str::from_utf8(&bytes)
            .map(drop)
            .map_err(|error| format!("the body is no UTF-8: {error}")),
        ContentType::Bytes => Ok(()),
    });
    is_good.await?.map_err(|sentence| Fault::new(ErrorKind::InvalidPayload, sentence))?;
    Ok(payload)
}

fn no_json(error: &impl fmt::Display) -> String {
    format!(
        "the body is no JSON: {error}; if it is not meant to be, say Content-Type: text/plain or \
         application/octet-stream"
    )
}

/// Does the work, elsewhere if it is for so many bytes that others would wait.
async fn apart<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    if bytes < LONG {
        return Ok(work());
    }
    runtime::handle()
        .spawn_blocking(work)
        .await
        .map_err(|error| Fault::new(ErrorKind::Internal, format!("the body was not read: {error}")))
}

/// A payload as it is.
fn as_body(payload: Payload) -> Response<Body> {
    let kind = match payload.content_type {
        ContentType::Json => "application/json",
        ContentType::Text => "text/plain; charset=utf-8",
        ContentType::Bytes => "application/octet-stream",
    };
    body::typed(StatusCode::OK, kind, payload.bytes)
}

/// A value as JSON.
pub(super) async fn json_of(status: StatusCode, value: Value) -> Answer {
    let text = apart(value.weight(), move || value.to_json()).await?;
    let text = text.map_err(|error| Fault::new(ErrorKind::Internal, error))?;
    Ok(body::json(status, text))
}
