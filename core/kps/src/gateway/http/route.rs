//! What is at which path.

use hyper::Method;
use kps_proto::ErrorKind;

use super::{Fault, query};

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Ready,
    Description,
    Publish(String),
    Request(String),
    Dispatch(String),
    Events,
    /// A document's id, and what of it.
    Document(String, Part),
}

/// What of a document a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Itself,
    Operations,
    Undo,
    Versions,
    Compact,
    Close,
    Events,
    Presence,
}

impl Part {
    fn of(name: &str) -> Option<Part> {
        Some(match name {
            "operations" => Part::Operations,
            "undo" => Part::Undo,
            "versions" => Part::Versions,
            "compact" => Part::Compact,
            "close" => Part::Close,
            "events" => Part::Events,
            "presence" => Part::Presence,
            _ => return None,
        })
    }
}

impl Route {
    /// Where a path leads. A topic, an action and an id are one segment each, percent-encoded.
    pub(super) fn find(path: &str) -> Result<Route, Fault> {
        let nothing = || {
            let sentence =
                "nothing is here; /openapi.json says what is where, the bus is at /ws/bus";
            Fault::new(ErrorKind::NotFound, sentence)
        };
        match path {
            "/readyz" => return Ok(Route::Ready),
            "/openapi.json" => return Ok(Route::Description),
            "/v1/events" => return Ok(Route::Events),
            _ => {}
        }
        let rest = path.strip_prefix("/v1/").ok_or_else(nothing)?;
        let segments: Vec<&str> = rest.splitn(4, '/').collect();
        let name = |segment: &str| query::decode(segment, false).map_err(|_| unreadable());
        match *segments {
            ["publish", topic] => Ok(Route::Publish(name(topic)?)),
            ["request", topic] => Ok(Route::Request(name(topic)?)),
            ["dispatch", action] => Ok(Route::Dispatch(name(action)?)),
            ["documents", id] => Ok(Route::Document(name(id)?, Part::Itself)),
            ["documents", id, part] => {
                let part = Part::of(part).ok_or_else(nothing)?;
                Ok(Route::Document(name(id)?, part))
            }
            _ => Err(nothing()),
        }
    }

    /// How it may be asked for.
    pub(super) fn methods(&self) -> &'static [Method] {
        match self {
            Route::Ready | Route::Description => &[Method::GET, Method::HEAD],
            Route::Publish(_) | Route::Request(_) | Route::Dispatch(_) => &[Method::POST],
            Route::Events | Route::Document(_, Part::Events) => &[Method::GET],
            Route::Document(_, Part::Itself) => &[Method::GET, Method::HEAD, Method::PUT],
            Route::Document(_, Part::Versions) => &[Method::GET, Method::HEAD],
            Route::Document(..) => &[Method::POST],
        }
    }
}

fn unreadable() -> Fault {
    Fault::new(ErrorKind::InvalidArgument, "a name in the path is not UTF-8, percent-encoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_segments_that_may_be_encoded() {
        let route = |path| Route::find(path).ok();
        assert_eq!(route("/v1/publish/a.b"), Some(Route::Publish("a.b".into())));
        assert_eq!(route("/v1/publish/a%2Fb+c"), Some(Route::Publish("a/b+c".into())));
        let events = Route::Document("n/1".into(), Part::Events);
        assert_eq!(route("/v1/documents/n%2f1/events"), Some(events));
        for nothing in [
            "/v1/",
            "/v1/publish",
            "/v1/publish/a/b",
            "/v1/documents",
            "/v1/documents/a/b",
            "/v1/documents/a/events/c",
            "/v2/events",
            "/v1/publish/%ff",
        ] {
            assert_eq!(route(nothing), None, "{nothing}");
        }
    }
}
