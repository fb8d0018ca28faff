//! Counts and times as JavaScript reads them.

use std::time::Duration;

use kps::proto::session::{Counts, Ledger, Moment};
use serde_json::{Value, json};

/// One subscription's counts, or the sum of several.
pub(crate) fn counts(counts: &Counts) -> Value {
    json!({
        "accepted": counts.accepted(),
        "delivered": counts.delivered,
        "dropped": counts.dropped_total(),
        "expired": counts.expired,
        "cancelled": counts.cancelled,
        "pending": counts.pending,
    })
}

/// A client's counts.
pub(crate) fn client(ledger: &Ledger) -> Value {
    let published = &ledger.published;
    json!({
        "published": published.total,
        "accepted": published.accepted,
        "refused": published.failed,
        "dropped": published.dropped,
        "pending": published.pending,
        "abandoned": published.abandoned,
        "subscriptions": counts(&ledger.totals),
    })
}

/// What happened, each with how long ago.
pub(crate) fn timeline(moments: &[(Duration, Moment)]) -> Value {
    moments
        .iter()
        .map(|(ago, moment)| {
            json!({
                "ago": ago.as_secs_f64() * 1000.0,
                "event": moment.what,
                "detail": moment.detail,
            })
        })
        .collect()
}
