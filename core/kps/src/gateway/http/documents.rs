//! Live documents: each request is a call of the capability `document`, which answers in this process, so
//! that neither contents nor operations have to fit a message of the bus.

use std::{fmt, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Body as HttpBody,
    header::{self, HeaderValue},
};
use kps_proto::{
    ErrorKind,
    options::{Overflow, SubscribeOptions},
    topic::{DOCUMENTS, SERVER_CALLS},
};

use super::{
    Answer, Body, Fault, Visit, body,
    bus::json_of,
    events::{Form, Wish},
    route::Part,
    with,
};
use crate::{
    capability::{CallTarget, DispatchOptions, Fields, Map, Outcome, Value},
    document,
};

/// Bytes of a body. What is too much for a document is told as an event, not by the connection.
const LARGEST: usize = 32 << 20;

/// How long a document may take to be loaded or stored.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events that wait for a slow reader.
const EVENTS: u32 = 1000;

/// Who edits, where neither the request nor its token says.
const SOMEBODY: &str = "http";

impl Visit<'_> {
    pub(super) async fn document<B>(
        mut self,
        id: String,
        part: Part,
        request: Request<B>,
    ) -> Answer
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
                let body = self.json(request, LARGEST).await?;
                match part {
                    Part::Operations => document.operations(body).await,
                    Part::Undo => document.told("undo", object(body)?).await,
                    Part::Presence => {
                        document.of("presence", document.signed(object(body)?)).await?;
                        Ok(body::json(StatusCode::ACCEPTED, "{}"))
                    }
                    Part::Compact | Part::Close => {
                        let name = if part == Part::Compact { "compact" } else { "close" };
                        let described = document.of(name, object(body)?).await?;
                        document.whole(StatusCode::OK, described).await
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
    /// Calls an operation of the capability, which whoever asks must be allowed to.
    async fn of(&self, operation: &str, fields: Map) -> Outcome {
        self.visit.principal.check_publish(&format!("{SERVER_CALLS}document.{operation}"))?;
        let mut payload = Map::default();
        payload.push("id", self.id);
        fields.into_iter().for_each(|(name, value)| payload.push(name, value));
        let server = self.visit.gateway.host.server(&self.visit.principal.namespace)?;
        let options = DispatchOptions {
            timeout: PATIENCE,
            target: CallTarget::Local,
            ..DispatchOptions::default()
        };
        let action = format!("document.{operation}");
        server.capabilities().dispatch(&action, payload.into(), options).await.unwrap()
    }

    /// Opens it, or makes it.
    async fn put(&self, body: Value) -> Answer {
        let mut fields = Fields::of(body)?;
        let mut map = Map::default();
        map.push("kind", fields.text("kind")?);
        fields.done()?;
        let status = match self.of("read", Map::default()).await {
            Err(failure) if failure.kind == ErrorKind::NotFound => StatusCode::CREATED,
            _ => StatusCode::OK,
        };
        let described = self.of("open", map).await?;
        self.whole(status, described).await
    }

    async fn get(&self, version: Option<String>, headers: &HeaderMap) -> Answer {
        let mut map = Map::default();
        let described = match version {
            Some(version) => {
                map.push("version", version);
                self.of("at", map).await?
            }
            None => {
                let read = self.of("read", map).await?;
                let mut kind = Map::default();
                kind.push("kind", read.get("kind").cloned().unwrap_or_default());
                self.of("open", kind).await?
            }
        };
        let known = headers.get_all(header::IF_NONE_MATCH);
        let etag = version_of(&described);
        let is_known = known.iter().filter_map(|list| list.to_str().ok()).any(|list| {
            list.split(',').any(|one| matches!(one.trim(), "*") || Some(one.trim()) == etag)
        });
        if is_known {
            let mut response = Response::new(Body::Whole(None));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(tagged(response, etag));
        }
        self.whole(StatusCode::OK, described).await
    }

    /// Answers with a description, and with the content as a whole, if there is some.
    async fn whole(&self, status: StatusCode, described: Value) -> Answer {
        let etag = version_of(&described).map(str::to_owned);
        let Value::Map(mut map) = described else { return json_of(status, described).await };
        if map.get("part").is_some() {
            map = self.joined(map).await?;
        }
        Ok(tagged(json_of(status, map.into()).await?, etag.as_deref()))
    }

    /// Puts the parts of a content together.
    async fn joined(&self, mut map: Map) -> Result<Map, Fault> {
        let mut text = String::new();
        let mut take = |map: &mut Map| {
            if let Some(Value::Text(part)) = map.remove("part") {
                text.push_str(&part);
            }
            map.remove("offset");
            map.remove("next").filter(|next| *next != Value::Null)
        };
        let version = map.get("version").cloned().unwrap_or_default();
        let mut next = take(&mut map);
        while let Some(offset) = next {
            let mut asked = Map::default();
            asked.push("version", version.clone());
            asked.push("offset", offset);
            let Value::Map(mut more) = self.of("at", asked).await? else { break };
            next = take(&mut more);
        }
        match map.get("kind") {
            Some(Value::Text(kind)) if kind == "text" => map.push("text", text),
            _ => {
                let value = Value::from_json(text.as_bytes());
                let wrong = |error| Fault::new(ErrorKind::Internal, format!("the content: {error}"));
                map.push("value", value.map_err(wrong)?);
            }
        }
        Ok(map)
    }

    async fn operations(&self, body: Value) -> Answer {
        let body = object(body)?;
        let is_batch = body.get("operations").is_some();
        self.told(if is_batch { "edit_batch" } else { "edit" }, body).await
    }

    /// An operation, or several: what becomes of them is told as events alone.
    async fn told(&self, operation: &str, fields: Map) -> Answer {
        let answer = self.of(operation, self.signed(fields)).await?;
        let mut op_ids = Vec::new();
        if let Some(Value::List(results)) = answer.get("results") {
            op_ids.extend(results.iter().filter_map(|result| result.get("op_id").cloned()));
        }
        let mut map = Map::default();
        map.push("accepted", op_ids.len());
        map.push("op_ids", op_ids);
        json_of(StatusCode::ACCEPTED, map.into()).await
    }

    /// With an author.
    fn signed(&self, mut fields: Map) -> Map {
        if fields.get("author").is_none() {
            let name = self.visit.principal.name.as_deref();
            fields.push("author", name.unwrap_or(SOMEBODY));
        }
        fields
    }
}

/// The fields of a body; without a body none. The document is the one of the path.
fn object(body: Value) -> Result<Map, Fault> {
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
    let response =
        with(response, header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    match etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        Some(etag) => with(response, header::ETAG, etag),
        None => response,
    }
}
