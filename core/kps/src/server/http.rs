//! The HTTP side of the listener: checks a request, and upgrades a path with a [`Door`] to a WebSocket.

use std::{
    convert::Infallible, future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tungstenite::handshake::derive_accept_key;

use kps_proto::{Error, ErrorKind, bus::Principal, wire::v1::SUBPROTOCOL};

use super::{cors, gate::Gate, patient::Patient};
use crate::gateway::{
    self,
    http::{Body, Gateway, Visitor},
};

/// Where the bus is.
pub(super) const PATH: &str = "/ws/bus";

/// Bytes of a request's head. A browser sends about 1 KiB, cookies aside.
const MAX_HEAD: usize = 16 << 10;

/// Header lines of a request.
const MAX_HEADERS: usize = 64;

/// How long answers may still take once the server closes.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) type Reply = Response<Body>;

/// What a listener's requests meet.
#[derive(Default)]
pub(super) struct Site {
    pub(super) gate: Gate,
    pub(super) gateway: Option<Arc<Gateway>>,
    pub(super) metrics: Option<Metrics>,
}

/// How patient a listener is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// With the head of a request, and between two of them.
    pub(super) head: Duration,
    /// With one who takes nothing of its answer.
    pub(super) stall: Duration,
}

/// Between whom a connection is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
}

/// The page `/metrics`, for who shows this token.
pub(super) type Metrics = Box<dyn Fn(&str) -> kps_proto::Result<String> + Send + Sync>;

/// What a WebSocket will speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Native,
    KpsJson,
    /// Yjs' own, at the document of this id.
    #[cfg(feature = "yjs")]
    Yjs(Arc<str>),
}

/// What is behind a path that takes WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Door {
    /// The bus.
    Bus,
    /// A Yjs document.
    #[cfg(feature = "yjs")]
    Yjs(Arc<str>),
}

impl Door {
    /// The door at this path.
    fn at(path: &str) -> Option<Door> {
        #[cfg(feature = "yjs")]
        if let Some(id) = path.strip_prefix(super::yjs::PREFIX) {
            return Some(Door::Yjs(percent_decode(id).into()));
        }
        (path == PATH).then_some(Door::Bus)
    }

    /// What is spoken behind it with one who offers these subprotocols, and the one to answer with.
    fn dialect(self, headers: &HeaderMap) -> Result<(Dialect, Option<&'static str>), &'static str> {
        let offers = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
        match self {
            Door::Bus if lists(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) => {
                Ok((Dialect::Native, Some(SUBPROTOCOL)))
            }
            Door::Bus if !offers => Ok((Dialect::KpsJson, None)),
            #[cfg(feature = "yjs")]
            Door::Yjs(id) if !offers => Ok((Dialect::Yjs(id), None)),
            #[cfg(feature = "yjs")]
            Door::Yjs(_) => Err("Yjs is spoken without a WebSocket subprotocol: offer none"),
            Door::Bus => Err("none of the WebSocket subprotocols offered is known here: \
                 offer kps.v1, or none for KPS JSON"),
        }
    }
}

/// What a request for an upgrade said about itself.
#[derive(Debug)]
pub(super) struct Introduction {
    pub(super) dialect: Dialect,
    /// From `Authorization: Bearer` or `?token=`; empty: none.
    pub(super) token: String,
    /// Path and query, the token left out.
    pub(super) path: String,
    /// Names in lower case, secrets left out.
    pub(super) headers: Vec<(String, String)>,
    /// It is the server's own client.
    pub(super) is_own: bool,
    /// Who it is, where somebody looked at that before.
    pub(super) principal: Option<Principal>,
}

/// A connection that became a WebSocket.
pub(super) struct Upgraded<I> {
    pub(super) io: I,
    /// What the client sent already.
    pub(super) read: Bytes,
    pub(super) introduction: Introduction,
}

/// Serves one connection until it is upgraded. An error if it was not; with why, if that was because it
/// may not. `stop`: the server closes.
pub(super) async fn serve<I>(
    io: I,
    site: Arc<Site>,
    ends: Ends,
    patience: Patience,
    stop: impl Future<Output = ()>,
) -> Result<Upgraded<I>, Option<Error>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let accepted = Mutex::new(Err(None));
    let io = Patient::new(io, patience.stall);
    let turn = io.turn();
    let service = service_fn(|mut request: Request<Incoming>| {
        turn.asked();
        let looked = look(&site, &request, ends.local);
        let upgrade =
            matches!(looked, Looked::Upgrade(..)).then(|| hyper::upgrade::on(&mut request));
        let (site, accepted, turn) = (&site, &accepted, &turn);
        async move {
            let reply = match looked {
                Looked::Upgrade(reply, introduction) => {
                    *accepted.lock() = upgrade.map(|upgrade| (upgrade, introduction)).ok_or(None);
                    *reply
                }
                Looked::Refused(reply, error) => {
                    *accepted.lock() = Err(error);
                    closing(*reply)
                }
                Looked::Answered(reply) => *reply,
                Looked::Gateway(gateway) => answer(site, &gateway, request, ends.remote).await,
            };
            Ok::<_, Infallible>(reply.map(|body| turn.answer(body)))
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let served = tokio::select! {
        served = &mut serving => Some(served),
        () = stop => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, &mut serving).await.ok()
        }
    };
    match served {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "a request failed"),
        None => tracing::debug!("a request was given up: the server closes"),
    }
    let (upgrade, introduction): (OnUpgrade, _) =
        std::mem::replace(&mut *accepted.lock(), Err(None))?;
    let upgraded = upgrade.await.map_err(|_| None)?;
    let parts = upgraded.downcast::<TokioIo<Patient<I>>>().map_err(|_| None)?;
    Ok(Upgraded { io: parts.io.into_inner().into_inner(), read: parts.read_buf, introduction })
}

/// What comes of a request.
enum Looked {
    /// The connection becomes a WebSocket.
    Upgrade(Box<Reply>, Introduction),
    /// The connection ends with this answer; with why, if its sender may not come in.
    Refused(Box<Reply>, Option<Error>),
    Answered(Box<Reply>),
    /// The gateway has the answer.
    Gateway(Arc<Gateway>),
}

/// Looks at a request's head, and answers what is answered at once.
fn look<B>(site: &Site, request: &Request<B>, local: Option<SocketAddr>) -> Looked {
    let headers = request.headers();
    let refused = |status, error: Error| {
        let reply = gateway::http::refusal(status, &error);
        Looked::Refused(Box::new(reply), Some(error))
    };
    let (Ok(host), Ok(origin)) = (sole(headers, header::HOST), sole(headers, header::ORIGIN))
    else {
        let sentence = "Host and Origin may come once each, in visible ASCII";
        return refused(StatusCode::BAD_REQUEST, Error::new(ErrorKind::ForbiddenOrigin, sentence));
    };
    if let Err(error) = site.gate.check(host.or(request.uri().host()), origin, local) {
        tracing::info!(%error, "refused a request");
        return refused(StatusCode::FORBIDDEN, error);
    }
    if let Some(door) = Door::at(request.uri().path()) {
        return match upgrade(request, door) {
            Ok((reply, introduction)) => Looked::Upgrade(Box::new(reply), introduction),
            Err(reply) => Looked::Refused(reply, None),
        };
    }
    if let Some(reply) = cors::preflight(&site.gate, request) {
        return Looked::Answered(Box::new(reply));
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let reply = match (request.uri().path(), &site.gateway) {
        ("/", _) if is_read => {
            let sentence = concat!(
                "kps ",
                env!("CARGO_PKG_VERSION"),
                " listens here: connect a WebSocket to /ws/bus, or see /openapi.json.",
            );
            plain(StatusCode::OK, sentence)
        }
        ("/healthz", _) if is_read => plain(StatusCode::OK, "ok"),
        ("/metrics", _) if is_read => metrics(site, headers),
        ("/" | "/healthz" | "/metrics", _) => {
            let mut reply = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
            reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            reply
        }
        (_, Some(gateway)) => return Looked::Gateway(gateway.clone()),
        (_, None) => plain(StatusCode::NOT_FOUND, "nothing is here; the bus is at /ws/bus"),
    };
    Looked::Answered(Box::new(reply))
}

async fn answer(
    site: &Site,
    gateway: &Arc<Gateway>,
    request: Request<Incoming>,
    remote: Option<SocketAddr>,
) -> Reply {
    let headers = request.headers();
    let (path, query_token) = split_token(request.uri().path(), request.uri().query());
    let token = bearer(headers).map(str::to_owned).or(query_token).unwrap_or_default();
    let visitor = Visitor { token, path, headers: public(headers), remote };
    let origin = cors::listed(&site.gate, headers);
    let mut reply = gateway.answer(request, visitor).await;
    if let Some(origin) = origin {
        cors::admit(origin, &mut reply);
    }
    reply
}

/// The connection ends with this answer.
fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn metrics(site: &Site, headers: &HeaderMap) -> Reply {
    let Some(metrics) = &site.metrics else {
        return plain(StatusCode::NOT_FOUND, "nothing is counted here");
    };
    match metrics(bearer(headers).unwrap_or_default()) {
        Ok(text) => plain(StatusCode::OK, text),
        Err(error) => plain(StatusCode::UNAUTHORIZED, error.to_string()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    text(headers, header::AUTHORIZATION)?.strip_prefix("Bearer ")
}

fn upgrade<B>(request: &Request<B>, door: Door) -> Result<(Reply, Introduction), Box<Reply>> {
    let headers = request.headers();
    let refuse = |sentence| Err(Box::new(plain(StatusCode::BAD_REQUEST, sentence)));
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return refuse("a WebSocket starts with a GET of HTTP/1.1");
    }
    if !lists(headers, header::CONNECTION, "upgrade")
        || !lists(headers, header::UPGRADE, "websocket")
    {
        let mut reply = plain(StatusCode::UPGRADE_REQUIRED, "the bus speaks WebSocket: upgrade");
        reply.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Err(Box::new(reply));
    }
    if text(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        let mut reply = plain(StatusCode::UPGRADE_REQUIRED, "the bus speaks WebSocket version 13");
        reply.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(reply));
    }
    // 16 bytes in base64.
    let key = match text(headers, header::SEC_WEBSOCKET_KEY) {
        Some(key) if key.len() == 24 && key.ends_with("==") => key,
        _ => return refuse("Sec-WebSocket-Key is missing or is not 16 bytes in base64"),
    };
    let (dialect, protocol) = match door.dialect(headers) {
        Ok(spoken) => spoken,
        Err(sentence) => return refuse(sentence),
    };
    let (path, query_token) = split_token(request.uri().path(), request.uri().query());
    let introduction = Introduction {
        dialect,
        token: bearer(headers).map(str::to_owned).or(query_token).unwrap_or_default(),
        path,
        headers: public(headers),
        is_own: false,
        principal: None,
    };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .expect("base64 is a valid header value");
    let mut reply = Response::new(Body::Whole(None));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = reply.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((reply, introduction))
}

pub(super) fn plain(status: StatusCode, sentence: impl Into<String>) -> Reply {
    let mut reply = Response::new(Body::from(Bytes::from(sentence.into() + "\n")));
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// The value of a header that decides who comes in. One that comes twice or cannot be read is not
/// taken for absent: somebody else may read it differently.
fn sole(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Ambiguous> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Ambiguous),
        (Some(_), Some(_)) => Err(Ambiguous),
    }
}

struct Ambiguous;

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether `wanted` is among the comma-separated values of all headers called `name`.
fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(wanted))
}

/// Browsers cannot set headers on a WebSocket, so a token may come in the query; it is taken out
/// before anything else sees the path.
fn split_token(path: &str, query: Option<&str>) -> (String, Option<String>) {
    let mut rest = path.to_owned();
    let mut token = None;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.strip_prefix("token=") {
            Some(value) => token = Some(percent_decode(value)),
            None => {
                rest.push(if rest.len() == path.len() { '?' } else { '&' });
                rest.push_str(pair);
            }
        }
    }
    (rest, token)
}

fn percent_decode(value: &str) -> String {
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (*first, tail) {
            (b'%', [high, low, tail @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.extend(hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low));
                rest = tail;
            }
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The headers a hook may see: all but secrets.
fn public(headers: &HeaderMap) -> Vec<(String, String)> {
    let secret = [header::AUTHORIZATION, header::COOKIE, header::SEC_WEBSOCKET_KEY];
    let visible = headers.iter().filter(|(name, _)| !secret.contains(name));
    visible
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// Hands `request` to the HTTP side as a connection that then closes; panics if a WebSocket comes
/// of it that should not, or if the server says that something is its own fault.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(request: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("resources");
        static SERVER: super::Server =
            super::Server::start(crate::ServerOptions::listen("mem://")).expect("resources");
        static SITE: Arc<Site> = SERVER.with(|server| {
            let host = super::host::Server::new(&server.0.hub);
            let gateway = Some(Arc::new(Gateway::new(Arc::new(host))));
            Arc::new(Site { gateway, ..Site::default() })
        });
    }
    let site = SITE.with(Arc::clone);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(request).await.expect("there is room for it");
            client.shutdown().await.expect("a pipe closes");
            let second = Duration::from_secs(1);
            let patience = Patience { head: second, stall: second };
            let stop = std::future::pending();
            let served = serve(server, site, Ends::default(), patience, stop).await;
            if let Ok(upgraded) = served {
                let introduction = upgraded.introduction;
                let head = String::from_utf8_lossy(request).to_lowercase();
                // Other requests may have come before the one that upgrades.
                assert!(head.contains("get ") && head.contains("websocket"), "{introduction:?}");
                let mut origins = introduction.headers.iter().filter(|(name, _)| name == "origin");
                let foreign = origins.any(|(_, origin)| origin.contains("evil.example"));
                assert!(!foreign, "{introduction:?}");
                let query = introduction.path.split_once('?').map_or("", |(_, query)| query);
                let mut pairs = query.split('&');
                assert!(!pairs.any(|pair| pair.starts_with("token=")), "{introduction:?}");
                return;
            }
            let mut answer = Vec::new();
            // It has ended.
            let _ = client.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(!answer.starts_with("HTTP/1.1 500"), "{answer}");
        });
    });
}
