//! Live documents: each request is a call of the capability `document`, made in this process, so that
//! neither contents nor operations have to fit a message of the bus.

use std::fmt;

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Body as HttpBody,
    header::{self, HeaderValue},
};
use kps_proto::{
    ErrorKind,
    bus::Grants,
    options::{Overflow, SubscribeOptions},
    topic::{DOCUMENTS, SERVER_CALLS},
};

use super::{
    Answer, Body, Fault, Visit,
    bus::json_of,
    events::{Form, Wish},
    operations,
    route::Part,
    with,
};
use crate::{
    capability::{Map, Outcome, Value},
    document::{self, Kind, Version},
};

/// Bytes of a body. What is too much for a document is told as an event, not by the connection.
const LARGEST: usize = 32 << 20;

/// Events that wait for a slow reader.
const EVENTS: u32 = 1000;

/// Who edits, where neither the request nor its token says.
const SOMEBODY: &str = "http";

impl Visit<'_> {
    pub(super) async fn document<B>(mut self, id: String, part: Part, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: fmt::Display>,
    {
        document::check_id(&id)?;
        if part == Part::Events {
            let options = SubscribeOptions {
                overflow: Overflow::DropOldest,
                capacity: Some(EVENTS),
                ..SubscribeOptions::default()
            };
            let topics = vec![format!("{DOCUMENTS}{id}")];
            let wish = Wish { topics, options, form: Form::Document };
            return self.stream(request.headers(), wish).await;
        }
        let document = Call { visit: &self, id: &id };
        match part {
            Part::Itself if *request.method() == Method::PUT => {
                self.query.done()?;
                let body = self.json(request, LARGEST).await?;
                document.put(body).await
            }
            Part::Itself => {
                let version = self.query.text("version")?;
                self.query.done()?;
                let document = Call { visit: &self, id: &id };
                document.get(version, request.headers()).await
            }
            Part::Versions => {
                let before = self.query.text("before")?;
                let limit = self.query.parsed::<u32>("limit", "a number")?;
                self.query.done()?;
                let document = Call { visit: &self, id: &id };
                let mut map = Map::default();
                if let Some(before) = before {
                    map.push("before", before);
                }
                if let Some(limit) = limit {
                    map.push("limit", limit);
                }
                json_of(StatusCode::OK, document.of("versions", map).await?).await
            }
            _ => {
                self.query.done()?;
                let is_edit = part == Part::Operations;
                let base = if is_edit { operations::base(request.headers())? } else { None };
                let body = self.json(request, LARGEST).await?;
                match part {
                    Part::Operations => document.operations(operations::read(body, base)?).await,
                    Part::Undo => document.undo(object(body)?).await,
                    Part::Presence => {
                        let present = document.of("presence", object(body)?).await?;
                        json_of(StatusCode::ACCEPTED, present).await
                    }
                    Part::Compact | Part::Close => {
                        let name = if part == Part::Compact { "compact" } else { "close" };
                        described(StatusCode::OK, document.of(name, object(body)?).await?).await
                    }
                    Part::Itself | Part::Versions | Part::Events => {
                        unreachable!("they were answered above")
                    }
                }
            }
        }
    }
}

/// A document, and who does something with it.
struct Call<'a> {
    visit: &'a Visit<'a>,
    id: &'a str,
}

impl Call<'_> {
    /// Calls an operation of the capability.
    async fn of(&self, operation: &str, fields: Map) -> Outcome {
        self.here(operation, operation, fields).await
    }

    /// Calls an operation that whoever asks may if it may call `permission` on the bus.
    async fn here(&self, permission: &str, operation: &str, fields: Map) -> Outcome {
        let principal = &self.visit.principal;
        principal.check_publish(&format!("{SERVER_CALLS}document.{permission}"))?;
        let mut payload = Map::default();
        payload.push("id", self.id);
        fields.into_iter().for_each(|(name, value)| payload.push(name, value));
        let caller = principal.name.as_deref().unwrap_or(SOMEBODY);
        let namespace = &principal.namespace;
        let documents = self.visit.gateway.host.documents(namespace).await?;
        let (space, grants) = (namespace.as_str().into(), Grants::of(principal));
        documents.call_here(space, caller, grants, operation, payload.into()).await
    }

    /// Opens it, or makes it. Who had it open says what it knows, and is told what it missed.
    async fn put(&self, body: Value) -> Answer {
        let opened = self.of("open", object(body)?).await?;
        let status = match opened.get("created") {
            Some(Value::Bool(true)) => StatusCode::CREATED,
            _ => StatusCode::OK,
        };
        described(status, opened).await
    }

    async fn get(&self, version: Option<String>, headers: &HeaderMap) -> Answer {
        if let Some(version) = version {
            let mut map = Map::default();
            map.push("version", version);
            let read = self.of("at", map).await?;
            return match version_of(&read) {
                Some(etag) if is_known(headers, etag) => Ok(not_modified(etag)),
                _ => described(StatusCode::OK, read).await,
            };
        }
        let (kind, newest) = self.glance().await?;
        let etag = newest.to_string();
        if is_known(headers, &etag) {
            return Ok(not_modified(&etag));
        }
        // Who opens it is told more than who reads it, and it is there: it will not be made.
        let mut map = Map::default();
        map.push("kind", kind.as_str());
        described(StatusCode::OK, self.here("read", "open", map).await?).await
    }

    /// What it is, without a copy of its content.
    async fn glance(&self) -> Result<(Kind, Version), Fault> {
        let principal = &self.visit.principal;
        principal.check_publish(&format!("{SERVER_CALLS}document.read"))?;
        let namespace = &principal.namespace;
        let documents = self.visit.gateway.host.documents(namespace).await?;
        let grants = Grants::of(principal);
        Ok(documents.glance(namespace.as_str().into(), self.id, &grants).await?)
    }

    /// An operation, or several: what becomes of them is told as events alone.
    async fn operations(&self, fields: Map) -> Answer {
        let permission = match fields.get("operations") {
            Some(_) => "edit_batch",
            None => "edit",
        };
        json_of(StatusCode::ACCEPTED, self.here(permission, "operations", fields).await?).await
    }

    async fn undo(&self, fields: Map) -> Answer {
        let op_id = fields.get("op_id").cloned().unwrap_or_default();
        self.of("undo", fields).await?;
        let accepted = Value::map([("accepted", 1.into()), ("op_ids", vec![op_id].into())]);
        json_of(StatusCode::ACCEPTED, accepted).await
    }
}

/// Whether `If-None-Match` names this version.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    known
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|one| matches!(one.trim(), one if one == "*" || one == etag))
}

fn not_modified(etag: &str) -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tagged(response, Some(etag))
}

/// Answers with what is known of a document, and its content if that is there.
async fn described(status: StatusCode, known: Value) -> Answer {
    let etag = version_of(&known).map(str::to_owned);
    Ok(tagged(json_of(status, known).await?, etag.as_deref()))
}

/// The fields of a body; without a body none. The document is the one of the path.
pub(super) fn object(body: Value) -> Result<Map, Fault> {
    match body {
        Value::Null => Ok(Map::default()),
        Value::Map(map) if map.get("id").is_none() => Ok(map),
        Value::Map(_) => Err(Fault::argument("id", "the document's id is in the path alone")),
        other => {
            let sentence = format!("the body is {}; it is an object", other.kind());
            Err(Fault::new(ErrorKind::InvalidPayload, sentence))
        }
    }
}

fn version_of(described: &Value) -> Option<&str> {
    match described.get("version") {
        Some(Value::Text(version)) => Some(version),
        _ => None,
    }
}

/// With the version as ETag.
fn tagged(response: Response<Body>, etag: Option<&str>) -> Response<Body> {
    let response = with(response, header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    match etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        Some(etag) => with(response, header::ETAG, etag),
        None => response,
    }
}
