//! What may be published, and how it is asked for.

use std::time::Duration;

use super::{event::Target, policies};
use crate::{
    error::{Error, ErrorKind, Result},
    message::{Extras, MAX_AUDIENCE, Offline, PRINCIPAL, ReceiptLevel},
    options::Limits,
    wire::frame::{Extensions, Publish, features},
};

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// To the subscribers of this topic.
    Topic(&'a str),
    /// To the client with this id.
    Client(&'a str),
    /// To another server, by address.
    Server(&'a str),
}

/// What `publish` may be told beside destination and payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishOptions<'a> {
    /// Headers, id, time to live.
    pub extras: Option<&'a Extras>,
    /// Report this level to `target`, as [`Session::watch`](super::Session::watch) does.
    pub receipt: Option<ReceiptLevel>,
    /// Where the receipt goes.
    pub target: Target,
    /// Ask the recipients for an answer.
    pub ack: Option<AckRequest>,
    /// An earlier process may have sent it.
    pub maybe_duplicate: bool,
    /// The topic's retained message from now on; with an empty payload the topic has none any more.
    pub retain: bool,
}

/// How an acknowledged publish is followed.
#[derive(Clone, Copy, Debug)]
pub struct AckRequest {
    /// How long rows are awaited, from now.
    pub timeout: Duration,
    /// A request: not handed over after its timeout, and told by [`Event::RequestDone`] alone.
    ///
    /// [`Event::RequestDone`]: super::Event::RequestDone
    pub request: bool,
    /// Where recipients and rows, or the outcome, go.
    pub target: Target,
}

/// What a server must know for every message to mean there what it means here.
pub(super) const NEEDED: u64 = features::RETAINED | features::POLICIES;

/// Whether a server with these features takes `publish` as it is meant.
pub(super) fn check_fits(publish: &Publish<'_>, max_payload: usize, features: u64) -> Result<()> {
    check_payload(publish.payload.len(), max_payload)?;
    let Some(extensions) = &publish.extensions else { return Ok(()) };
    if extensions.retained && features & features::RETAINED == 0 {
        return Err(cannot_retain());
    }
    let has_policy =
        extensions.to.is_some() || extensions.private || extensions.offline != Offline::Keep;
    if has_policy && features & features::POLICIES == 0 {
        return Err(policies::unsupported());
    }
    Ok(())
}

#[cold]
pub(super) fn cannot_retain() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this server does not retain messages: update it, or publish without retain",
    )
}

/// The payload against the limit the server named.
#[inline]
pub(super) fn check_payload(length: usize, limit: usize) -> Result<()> {
    if length <= limit { Ok(()) } else { Err(too_large(length, limit)) }
}

#[cold]
fn too_large(length: usize, limit: usize) -> Error {
    Error::new(
        ErrorKind::PayloadTooLarge,
        format!(
            "the payload is {length} bytes; the limit is {limit}: send less, or raise the server's limit"
        ),
    )
}

/// A client id or address to publish to.
pub(super) fn check_id(what: &str, id: &str) -> Result<()> {
    let limit = Limits::default().id;
    if !id.is_empty() && id.len() <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{what} is {} bytes long; it must have 1 to {limit}", id.len()),
    ))
}

pub(super) fn check_extras(extras: &Extras, destination: Destination<'_>) -> Result<()> {
    if let Some(id) = &extras.id {
        check_id("the message's id", id)?;
    }
    if let Some(to) = &extras.to {
        check_audience(to, destination)?;
    }
    if extras.private && matches!(destination, Destination::Server(_)) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "a private message stays with this server; it cannot be passed on to another one",
        ));
    }
    let bytes: usize = extras.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let limit = Limits::default().headers;
    if bytes > limit {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "the headers are {bytes} bytes; the limit is {limit}: send less, or use the payload"
            ),
        ));
    }
    if extras.headers.iter().any(|(name, _)| name.is_empty()) {
        return Err(Error::new(ErrorKind::InvalidArgument, "a header's name must not be empty"));
    }
    Ok(())
}

fn check_audience(to: &[String], destination: Destination<'_>) -> Result<()> {
    let limit = Limits::default().id;
    let wrong =
        |entry: &&String| entry.is_empty() || entry.len() > limit || entry.as_str() == PRINCIPAL;
    let problem = match destination {
        _ if to.is_empty() => "names nobody; name a client or principal, or leave it out".into(),
        _ if to.len() > MAX_AUDIENCE => {
            format!("names {}; the limit is {MAX_AUDIENCE}: use a topic of their own", to.len())
        }
        Destination::Topic(_) => match to.iter().find(wrong) {
            None => return Ok(()),
            Some(entry) => format!(
                "has an entry of {} bytes; it is a client's id or {PRINCIPAL}NAME, of 1 to {limit}",
                entry.len()
            ),
        },
        Destination::Client(_) | Destination::Server(_) => {
            "chooses among a topic's subscribers; this message has one recipient already".into()
        }
    };
    Err(Error::new(ErrorKind::InvalidArgument, format!("`to` {problem}")))
}

/// What travels of the options as extensions; `None` for most messages.
#[inline]
pub(super) fn extensions<'a>(options: &PublishOptions<'a>) -> Option<Box<Extensions<'a>>> {
    let PublishOptions { extras, ack, retain, .. } = options;
    if extras.is_none_or(Extras::is_empty) && ack.is_none() && !retain {
        return None;
    }
    let mut extensions = Extensions {
        ack_timeout_ms: ack.map(|ack| millis(ack.timeout)),
        retained: *retain,
        ..Extensions::default()
    };
    if let Some(extras) = extras {
        extensions.headers =
            extras.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        extensions.id = extras.id.as_deref();
        extensions.ttl_ms = extras.ttl.map(millis);
        extensions.to = extras.to.as_ref().map(|to| to.iter().map(|entry| &**entry).collect());
        extensions.private = extras.private;
        extensions.offline = extras.offline;
    }
    Some(Box::new(extensions))
}

/// Whole milliseconds, rounded up so that something short is not nothing; saturates.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
