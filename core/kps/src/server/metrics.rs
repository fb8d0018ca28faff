//! `/metrics`: what the server counts, as Prometheus reads it.

use std::{fmt::Write, sync::Weak};

use kps_proto::{Error, ErrorKind, Result};

use super::hub::Hub;

/// The page, for who may connect: on a server with tokens, who shows one.
pub(super) fn page(hub: &Weak<Hub>, token: &str) -> Result<String> {
    let Some(hub) = hub.upgrade() else {
        return Err(Error::new(ErrorKind::Closed, "the server is closed"));
    };
    hub.tokens.principal(token)?;
    let (ledger, memory, uncommitted, retained) = hub.with_bus(|bus, now| {
        let retained = bus.retained(now);
        (bus.ledger(), bus.memory(), bus.uncommitted(), retained)
    });
    let mut page = String::new();
    for (name, kind, value, help) in [
        ("accepted_total", "counter", ledger.accepted, "messages routed to a subscription"),
        ("delivered_total", "counter", ledger.delivered, "of those: handled by their client"),
        ("dropped_total", "counter", ledger.dropped, "dropped by a policy or with their client"),
        ("expired_total", "counter", ledger.expired, "not worth delivering any more"),
        ("cancelled_total", "counter", ledger.cancelled, "queued when their client unsubscribed"),
        ("pending", "gauge", ledger.pending, "queued or on their way"),
        (
            "unaccounted_total",
            "counter",
            ledger.unaccounted().unsigned_abs(),
            "accepted and in no other column; always 0",
        ),
        ("clients", "gauge", hub.count_clients("") as u64, "connected, the server's own left out"),
        ("memory_bytes", "gauge", memory as u64, "of all messages that wait or are retained"),
        ("retained_messages", "gauge", retained as u64, "topics with a retained message"),
        ("uncommitted", "gauge", uncommitted, "messages that the store has not committed yet"),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "# HELP kps_{name} {help}\n# TYPE kps_{name} {kind}\nkps_{name} {value}"
        );
    }
    Ok(page.trim_end().to_owned())
}
