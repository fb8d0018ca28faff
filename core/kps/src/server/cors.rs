//! What pages of other origins may do (CORS): those of origins that were allowed, and nobody else.

use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::{
    gate::Gate,
    http::{Reply, plain},
};

/// What a page may ask with.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-match, if-none-match, last-event-id");
/// What a page may see of an answer, beside what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, retry-after, www-authenticate");
/// Seconds for which a browser need not ask again.
const AGE: HeaderValue = HeaderValue::from_static("600");
const PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The origin that a request comes from, if it is one of those that were allowed by name.
pub(super) fn listed(gate: &Gate, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    gate.lists(origin.to_str().ok()?).then(|| origin.clone())
}

/// The answer to a browser that asks whether its page may ask.
pub(super) fn preflight<B>(gate: &Gate, request: &Request<B>) -> Option<Reply> {
    let headers = request.headers();
    let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() != Method::OPTIONS || !asks {
        return None;
    }
    let origin = listed(gate, headers)?;
    let mut reply = plain(StatusCode::OK, "");
    *reply.body_mut() = bytes::Bytes::new().into();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    admit(origin, &mut reply);
    let answer = reply.headers_mut();
    answer.remove(header::CONTENT_TYPE);
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, AGE);
    if headers.contains_key(PRIVATE) {
        answer.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
    }
    Some(reply)
}

/// Lets pages of this origin see an answer.
pub(super) fn admit(origin: HeaderValue, reply: &mut Reply) {
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}
