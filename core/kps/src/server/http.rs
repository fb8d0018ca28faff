//! The HTTP side of the listener: checks a request, and upgrades a path with a [`Door`] to a WebSocket.

use std::{convert::Infallible, future::ready, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tungstenite::handshake::derive_accept_key;

use kps_proto::{Error, ErrorKind, wire::v1::SUBPROTOCOL};

use super::gate::Gate;

/// Where the bus is.
pub(super) const PATH: &str = "/ws/bus";

/// Bytes of a request's head. A browser sends about 1 KiB, cookies aside.
const MAX_HEAD: usize = 16 << 10;

/// Header lines of a request.
const MAX_HEADERS: usize = 64;

type Reply = Response<Full<Bytes>>;

/// What a listener's requests meet.
#[derive(Default)]
pub(super) struct Site {
    pub(super) gate: Gate,
    pub(super) metrics: Option<Metrics>,
}

/// The page `/metrics`, for who shows this token.
pub(super) type Metrics = Box<dyn Fn(&str) -> kps_proto::Result<String> + Send + Sync>;

/// What a WebSocket will speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Native,
    KpsJson,
}

/// What is behind a path that takes WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Door {
    /// The bus.
    Bus,
}

impl Door {
    /// The door at this path.
    fn at(path: &str) -> Option<Door> {
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
}

/// A connection that became a WebSocket.
pub(super) struct Upgraded<I> {
    pub(super) io: I,
    /// What the client sent already.
    pub(super) read: Bytes,
    pub(super) introduction: Introduction,
}

/// Serves one connection until it is upgraded. An error if it was not, within `patience`; with why, if
/// that was because it may not.
///
/// One request per connection: that keeps slow and idle ones bounded by a single timeout.
pub(super) async fn serve<I>(
    io: I,
    site: Arc<Site>,
    local: Option<SocketAddr>,
    patience: Duration,
) -> Result<Upgraded<I>, Option<Error>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let accepted = Mutex::new(Err(None));
    let service = service_fn(|mut request: Request<hyper::body::Incoming>| {
        let (reply, heard) = respond(&site, &request, local);
        *accepted.lock() = match heard {
            Heard::Introduction(introduction) => {
                Ok((hyper::upgrade::on(&mut request), introduction))
            }
            Heard::Refused(error) => Err(Some(error)),
            Heard::Nothing => Err(None),
        };
        ready(Ok::<_, Infallible>(reply))
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    match tokio::time::timeout(patience, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request failed"),
        Err(_) => tracing::debug!("a request took too long"),
    }
    let (upgrade, introduction): (OnUpgrade, _) = accepted.into_inner()?;
    let upgraded = upgrade.await.map_err(|_| None)?;
    let parts = upgraded.downcast::<TokioIo<I>>().map_err(|_| None)?;
    Ok(Upgraded { io: parts.io.into_inner(), read: parts.read_buf, introduction })
}

/// What came of a request, beside its answer.
enum Heard {
    /// The connection becomes a WebSocket.
    Introduction(Introduction),
    /// Its sender may not come in.
    Refused(Error),
    Nothing,
}

/// The answer to a request, and what it said about itself if the connection is to be upgraded.
fn respond<B>(site: &Site, request: &Request<B>, local: Option<SocketAddr>) -> (Reply, Heard) {
    let headers = request.headers();
    let (Ok(host), Ok(origin)) = (sole(headers, header::HOST), sole(headers, header::ORIGIN))
    else {
        let sentence = "Host and Origin may come once each, in visible ASCII";
        let error = Error::new(ErrorKind::ForbiddenOrigin, sentence);
        return (plain(StatusCode::BAD_REQUEST, sentence), Heard::Refused(error));
    };
    if let Err(error) = site.gate.check(host.or(request.uri().host()), origin, local) {
        tracing::info!(%error, "refused a request");
        return (plain(StatusCode::FORBIDDEN, error.to_string()), Heard::Refused(error));
    }
    if let Some(door) = Door::at(request.uri().path()) {
        return match upgrade(request, door) {
            Ok((reply, introduction)) => (reply, Heard::Introduction(introduction)),
            Err(reply) => (*reply, Heard::Nothing),
        };
    }
    match request.uri().path() {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            (plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here"), Heard::Nothing)
        }
        "/" => {
            let sentence = concat!(
                "kps ",
                env!("CARGO_PKG_VERSION"),
                " listens here: connect a WebSocket to /ws/bus.",
            );
            (plain(StatusCode::OK, sentence), Heard::Nothing)
        }
        "/healthz" => (plain(StatusCode::OK, "ok"), Heard::Nothing),
        "/metrics" => (metrics(site, headers), Heard::Nothing),
        _ => {
            (plain(StatusCode::NOT_FOUND, "nothing is here; the bus is at /ws/bus"), Heard::Nothing)
        }
    }
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
    };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .expect("base64 is a valid header value");
    let mut reply = Response::new(Full::default());
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

fn plain(status: StatusCode, sentence: impl Into<String>) -> Reply {
    let mut reply = Response::new(Full::from(sentence.into() + "\n"));
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
/// of it that should not.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(request: &[u8]) {
    use tokio::io::AsyncWriteExt;
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("resources");
    }
    let site = Arc::new(Site::default());
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(request).await.expect("there is room for it");
            client.shutdown().await.expect("a pipe closes");
            if let Ok(upgraded) = serve(server, site, None, Duration::from_secs(1)).await {
                let introduction = upgraded.introduction;
                let head = String::from_utf8_lossy(request).to_lowercase();
                // Empty lines before a request are skipped (RFC 9112 §2.2).
                let head = head.trim_start_matches(['\r', '\n']);
                assert!(head.starts_with("get ") && head.contains("websocket"), "{introduction:?}");
                let mut origins = introduction.headers.iter().filter(|(name, _)| name == "origin");
                let foreign = origins.any(|(_, origin)| origin.contains("evil.example"));
                assert!(!foreign, "{introduction:?}");
                let query = introduction.path.split_once('?').map_or("", |(_, query)| query);
                let mut pairs = query.split('&');
                assert!(!pairs.any(|pair| pair.starts_with("token=")), "{introduction:?}");
            }
        });
    });
}
