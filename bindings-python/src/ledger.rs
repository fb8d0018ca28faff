//! Counts and times as plain dicts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kps::proto::session::{Counts, Ledger, Moment};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

/// One subscription's counts, or the sum of several.
pub(crate) fn counts<'py>(py: Python<'py>, counts: &Counts) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("accepted", counts.accepted())?;
    dict.set_item("delivered", counts.delivered)?;
    dict.set_item("dropped", counts.dropped_total())?;
    dict.set_item("expired", counts.expired)?;
    dict.set_item("cancelled", counts.cancelled)?;
    dict.set_item("pending", counts.pending)?;
    Ok(dict)
}

/// A client's counts.
pub(crate) fn client<'py>(py: Python<'py>, ledger: &Ledger) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("published", ledger.published.total)?;
    dict.set_item("accepted", ledger.published.accepted)?;
    dict.set_item("refused", ledger.published.failed)?;
    dict.set_item("dropped", ledger.published.dropped)?;
    dict.set_item("pending", ledger.published.pending)?;
    dict.set_item("abandoned", ledger.published.abandoned)?;
    dict.set_item("subscriptions", counts(py, &ledger.totals)?)?;
    Ok(dict)
}

/// What happened, with its time in seconds since the Unix epoch.
pub(crate) fn timeline<'py>(
    py: Python<'py>,
    moments: &[(Duration, Moment)],
) -> PyResult<Bound<'py, PyList>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let entries = PyList::empty(py);
    for (ago, moment) in moments {
        let entry = PyDict::new(py);
        entry.set_item("time", now.saturating_sub(*ago).as_secs_f64())?;
        entry.set_item("event", moment.what)?;
        entry.set_item("detail", &moment.detail)?;
        entries.append(entry)?;
    }
    Ok(entries)
}
