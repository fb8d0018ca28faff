//! The bus over HTTP: publish, request and dispatch, documents, and topics as server-sent events. The
//! manual's chapter [`http`](crate::manual::http) says what programs see of it; `openapi.json` describes
//! it for tools.
//!
//! Every request acts through a client of its principal in this process, so that permissions, limits and
//! meanings are those of the bus.

mod body;
mod bus;
mod clients;
mod documents;
mod events;
mod fault;
mod host;
mod operations;
mod query;
mod route;

use std::{net::SocketAddr, pin::pin, sync::Arc};

use bytes::Bytes;
use hyper::{
    Request, Response, StatusCode,
    body::Body as HttpBody,
    header::{self, HeaderValue},
};

use kps_proto::bus::Principal;

use self::{body::Bodies, clients::Clients, events::Streams, query::Query, route::Route};
pub(crate) use self::{
    body::Body,
    fault::{Fault, refusal},
    host::{Host, Settings},
};

/// A request's answer, or why there is none.
type Answer = Result<Response<Body>, Fault>;

/// What a request said about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitor {
    /// Empty: none.
    pub(crate) token: String,
    /// Path and query, the token left out.
    pub(crate) path: String,
    /// Names in lower case, secrets left out.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) remote: Option<SocketAddr>,
}

/// The HTTP side of a server.
pub(crate) struct Gateway {
    host: Arc<dyn Host>,
    bodies: Bodies,
    clients: Clients,
    streams: Arc<Streams>,
}

impl Gateway {
    pub(crate) fn new(host: Arc<dyn Host>) -> Gateway {
        let streams = Arc::new(Streams::new(host.settings().resume_window));
        Gateway { host, bodies: Bodies::default(), clients: Clients::default(), streams }
    }

    /// Answers a request that may come in.
    pub(crate) async fn answer<B>(
        self: &Arc<Self>,
        request: Request<B>,
        visitor: Visitor,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: std::fmt::Display>,
    {
        let (parts, rest) = request.into_parts();
        let mut rest = pin!(rest);
        let waits = parts.headers.contains_key(header::EXPECT);
        let request = Request::from_parts(parts, rest.as_mut());
        let answer = self.find(request, visitor).await.unwrap_or_else(Fault::into_response);
        // A connection ends with a body that nobody read: whoever asks again on it should know.
        match rest.is_end_stream() || (!waits && body::pass_over(rest).await) {
            true => answer,
            false => with(answer, header::CONNECTION, HeaderValue::from_static("close")),
        }
    }

    async fn find<B>(self: &Arc<Self>, request: Request<B>, visitor: Visitor) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: std::fmt::Display>,
    {
        let route = Route::find(request.uri().path())?;
        let allowed = route.methods();
        if !allowed.contains(request.method()) {
            return Err(Fault::method(request.method(), allowed));
        }
        match route {
            Route::Ready => {
                self.host.readiness()?;
                return Ok(body::plain(StatusCode::OK, "ready\n"));
            }
            Route::Description => return Ok(description()),
            _ => {}
        }
        let principal = self.host.admit(visitor).await.map_err(Fault::stranger)?;
        let visit = Visit {
            gateway: self,
            principal,
            query: Query::parse(request.uri().query().unwrap_or_default())?,
        };
        match route {
            Route::Publish(topic) => visit.publish(&topic, request).await,
            Route::Request(topic) => visit.request(&topic, request).await,
            Route::Dispatch(action) => visit.dispatch(&action, request).await,
            Route::Events => visit.events(request.headers()).await,
            Route::Document(id, part) => visit.document(id, part, request).await,
            Route::Ready | Route::Description => unreachable!("they are answered to everybody"),
        }
    }
}

/// A request of somebody who may come in.
struct Visit<'a> {
    gateway: &'a Arc<Gateway>,
    principal: Principal,
    query: Query,
}

fn description() -> Response<Body> {
    let text = include_str!("openapi.json").replace("{version}", env!("CARGO_PKG_VERSION"));
    body::json(StatusCode::OK, text)
}

/// Adds a header to an answer.
fn with(
    mut response: Response<Body>,
    name: header::HeaderName,
    value: HeaderValue,
) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}
