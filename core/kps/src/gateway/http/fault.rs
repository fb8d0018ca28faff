//! Why a request is refused: the codes of the bus, and the status that goes with each.

use hyper::{
    Method, Response, StatusCode,
    header::{self, HeaderValue},
};
use kps_proto::{Error, ErrorKind};

use super::body::{self, Body};
use crate::capability::{Failure, Value};

/// A refusal, with its status.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    failure: Box<Failure>,
    allow: Option<String>,
}

/// The status that a kind of error is told with.
pub(super) fn status(kind: ErrorKind) -> StatusCode {
    use ErrorKind as K;
    match kind {
        K::InvalidTopic
        | K::InvalidArgument
        | K::InvalidPayload
        | K::Protocol
        | K::NotRegistered => StatusCode::BAD_REQUEST,
        K::Unauthorized | K::ForbiddenOrigin | K::ForbiddenAddress => StatusCode::FORBIDDEN,
        K::NotFound | K::UnknownCapability | K::UnknownOperation => StatusCode::NOT_FOUND,
        K::UnknownAction => StatusCode::METHOD_NOT_ALLOWED,
        K::IdInUse | K::Replaced | K::ReceiptUnavailable | K::WouldDeadlock | K::Conflict => {
            StatusCode::CONFLICT
        }
        K::PayloadTooLarge | K::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        K::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        K::Unsupported => StatusCode::NOT_IMPLEMENTED,
        K::HandlerFailed | K::Disconnected | K::ConnectFailed => StatusCode::BAD_GATEWAY,
        K::NoResponders
        | K::Unavailable
        | K::NotConnected
        | K::Closed
        | K::Cancelled
        | K::OutboxFull
        | K::SlowConsumer
        | K::SessionLost
        | K::StoreFailed => StatusCode::SERVICE_UNAVAILABLE,
        K::Timeout => StatusCode::GATEWAY_TIMEOUT,
        K::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Fault {
        Failure::new(kind, message).into()
    }

    /// `invalid_argument` because of this parameter.
    pub(super) fn argument(name: &str, message: impl Into<String>) -> Fault {
        let failure = Failure::new(ErrorKind::InvalidArgument, message);
        Failure { field: Some(name.into()), ..failure }.into()
    }

    /// Because of this field of the body.
    pub(super) fn of(mut self, field: &str) -> Fault {
        self.failure.field = Some(field.into());
        self
    }

    /// The body is of a type that is not understood here.
    pub(super) fn content_type(message: impl Into<String>) -> Fault {
        Fault {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ..Fault::new(ErrorKind::Unsupported, message)
        }
    }

    /// Nobody knows who this is.
    pub(super) fn stranger(error: Error) -> Fault {
        let fault = Fault::from(error);
        match fault.failure.kind {
            ErrorKind::Unauthorized => Fault { status: StatusCode::UNAUTHORIZED, ..fault },
            _ => fault,
        }
    }

    /// The path does something else.
    pub(super) fn method(method: &Method, allowed: &[Method]) -> Fault {
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let allow = names.join(", ");
        let sentence = format!("{method} is not answered here; ask with {allow}");
        Fault { allow: Some(allow), ..Fault::new(ErrorKind::UnknownAction, sentence) }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let Fault { status, failure, allow } = self;
        let error = Value::map([("error", failure.into_value())]);
        let text = error.to_json().unwrap_or_default();
        let mut response = body::json(status, text);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

/// An error as an answer with this status.
pub(crate) fn refusal(status: StatusCode, error: &Error) -> Response<Body> {
    Fault { status, ..Fault::from(error.clone()) }.into_response()
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault { status: status(failure.kind), failure: Box::new(failure), allow: None }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Failure::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_as_an_error() {
        for kind in ErrorKind::ALL {
            let status = status(*kind);
            assert!(status.is_client_error() || status.is_server_error(), "{kind}");
        }
    }

    #[test]
    fn a_wrong_token_and_a_missing_permission_are_told_apart() {
        let error = Error::new(ErrorKind::Unauthorized, "no");
        let response = Fault::stranger(error.clone()).into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
        assert_eq!(Fault::from(error).into_response().status(), StatusCode::FORBIDDEN);
    }
}
