//! Every event's name, once for all languages: what `client.on` and `server.on` know, what a timeline
//! and the audit log say.

use kps_proto::{Error, ErrorKind, Result};

/// An event that a host may ask for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its name in every language.
    pub name: &'static str,
    /// What its handlers are called with, in order.
    pub arguments: &'static [&'static str],
    /// What it tells.
    pub about: &'static str,
}

const fn word(name: &'static str, arguments: &'static [&'static str], about: &'static str) -> Word {
    Word { name, arguments, about }
}

/// What a client tells.
pub const CLIENT: &[Word] = &[
    word("state", &["state"], "the connection's state changed"),
    word("connection_opened", &["resumed"], "the handshake is done; whether the session goes on"),
    word("connection_closed", &["error"], "the connection is lost and is being made again"),
    word("closed", &["error"], "the client is over, for good"),
    word("goaway", &["reason"], "the server is about to close the connection"),
    word("message_published", &["message_id"], "the server accepted a message of this client"),
    word("publish_failed", &["message_id", "error"], "the server refused one, or it was abandoned"),
    word("message_received", &["message"], "every message that this client receives"),
    word(
        "message_to_id",
        &["message"],
        "one sent to this client's id; an ack gets what is returned",
    ),
    word("gap", &["gap", "subscription"], "messages are missing in a subscription's stream"),
    word("resumed", &["resumed", "subscription"], "after a reconnect it goes on without loss"),
    word("subscription_closed", &["error", "subscription"], "the server closed it"),
    word("backpressure", &["on"], "the outbox rose above its soft bound, or fell below it again"),
    word("outbox_flushed", &["count"], "what had waited for the connection is accepted or refused"),
    word("handler_error", &["error", "message"], "a handler of messages raised"),
    word(
        "error",
        &["error"],
        "the server reported what concerns nothing else, or a handler raised \
        and nobody listens for that",
    ),
];

/// What a server tells. Where a client has an event of the same name, a server tells its own, of all
/// its clients; beside these it tells what its own client does.
pub const SERVER: &[Word] = &[
    word("node_started", &["address"], "it listens"),
    word("node_stopping", &[], "it takes no more connections and says goodbye"),
    word(
        "connection_opened",
        &["client_id", "name", "remote", "protocol", "resumed"],
        "a client's handshake is done; `name` is whom its token stands for",
    ),
    word("connection_closed", &["client_id", "reason"], "its connection ended"),
    word("client_connected", &["client_id"], "a client's session began"),
    word("client_disconnected", &["client_id"], "it is over: said goodbye, or did not come back"),
    word("subscription_opened", &["client_id", "topic"], "a client subscribed"),
    word("subscription_closed", &["client_id", "topic"], "a subscription ended"),
    word(
        "message_published",
        &["client_id", "topic", "message_id", "size"],
        "a message was accepted; `size` in bytes",
    ),
    word(
        "backpressure",
        &["client_id", "topic", "on"],
        "publishers wait for a subscription's room",
    ),
    word(
        "messages_dropped",
        &["client_id", "topic", "count", "reason"],
        "a subscription lost messages: the sum of a second",
    ),
    word("dead_lettered", &["durable", "topic", "message_id", "error"], "a durable gave one up"),
    word("store_failed", &["error"], "nothing more is stored until the server is started again"),
    word("error", &["error", "client_id", "remote"], "a connection was refused or broke the rules"),
    word("events_dropped", &["count"], "so many events came while nobody took them"),
];

/// Whether a client knows this event.
///
/// # Errors
/// `invalid_argument`, with the names there are.
pub fn check_client(name: &str) -> Result<()> {
    check(name, &[CLIENT])
}

/// Whether a server knows this event.
///
/// # Errors
/// `invalid_argument`, with the names there are.
pub fn check_server(name: &str) -> Result<()> {
    check(name, &[SERVER, CLIENT])
}

/// Whether a server's handlers of this event hear what the server tells, not what its own client does.
pub fn is_servers(name: &str) -> bool {
    SERVER.iter().any(|word| word.name == name)
}

fn check(name: &str, lists: &[&[Word]]) -> Result<()> {
    let words = || lists.iter().copied().flatten();
    if words().any(|word| word.name == name) {
        return Ok(());
    }
    let mut known: Vec<&str> = Vec::new();
    for word in words() {
        if !known.contains(&word.name) {
            known.push(word.name);
        }
    }
    let known = known.join(", ");
    let sentence = format!("no event is called {name:?}; there are {known}");
    Err(Error::new(ErrorKind::InvalidArgument, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_those_there_are() {
        let error = check_client("node_started").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("connection_opened"), "{error}");
        assert!(check_server("node_started").is_ok() && check_server("gap").is_ok());
    }

    #[test]
    fn the_manual_has_every_event_with_its_arguments() {
        let page = include_str!("../manual/events.rs");
        for word in CLIENT.iter().chain(SERVER) {
            let arguments: Vec<_> =
                word.arguments.iter().map(|argument| format!("`{argument}`")).collect();
            let arguments = if arguments.is_empty() { "—".into() } else { arguments.join(", ") };
            let row = format!("| `{}` | {arguments} | {} |", word.name, word.about);
            assert!(page.contains(&row), "{row}");
        }
    }
}
