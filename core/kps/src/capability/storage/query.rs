//! `storage.query`: from a payload to SQL and back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kps_proto::{Error, ErrorKind};
use rusqlite::types::Value as Sql;

use super::{
    super::{Call, Failure, Fields, Outcome, Value, wrong},
    answer::failure,
    codec, request,
};
use crate::store::values::{Parameters, Queried, Query, Values};

/// Rows of an answer: usually, and at most.
const ROWS: (u64, u64) = (1000, 10_000);

/// Bytes of an answer at most.
const BYTES: usize = 8 << 20;

/// How long a query runs at most, whatever its caller's deadline.
const LONGEST: Duration = Duration::from_secs(30);

/// Bytes of SQL at most.
const MAX_SQL: usize = 64 << 10;

/// Queries that run or wait at once.
const MAX_QUERIES: usize = 16;

/// Counts the queries under way.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<AtomicUsize>);

struct Slot(Running);

impl Running {
    fn enter(&self) -> Result<Slot, Failure> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MAX_QUERIES {
            self.0.fetch_sub(1, Ordering::Relaxed);
            let sentence = format!("{MAX_QUERIES} queries are running; try again soon");
            return Err(Failure::new(ErrorKind::Unavailable, sentence).retryable());
        }
        Ok(Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads the payload; what is returned does the work, and blocks.
pub(super) fn prepare(
    call: &Call,
    mut fields: Fields,
    values: Arc<Values>,
    running: &Running,
) -> Result<impl FnOnce() -> Outcome + Send + 'static, Failure> {
    let sql = fields.text("sql")?;
    if sql.len() > MAX_SQL {
        let sentence = format!("the query has {} bytes, the most are {MAX_SQL}", sql.len());
        return Err(request::too_large("sql", sentence));
    }
    let parameters = match fields.given("parameters") {
        None => Parameters::List(Vec::new()),
        Some(Value::List(list)) => {
            Parameters::List(list.into_iter().map(parameter).collect::<Result<_, _>>()?)
        }
        Some(Value::Map(map)) => Parameters::Named(
            map.into_iter()
                .map(|(name, value)| Ok((name, parameter(value)?)))
                .collect::<Result<_, Failure>>()?,
        ),
        Some(other) => return Err(wrong("parameters", &other, "a list or an object")),
    };
    let rows = request::limit(&mut fields, ROWS.0, ROWS.1)?;
    fields.done()?;
    let slot = running.enter()?;
    let longest = Instant::now() + LONGEST;
    let cancel = call.cancel.clone();
    let query = Query {
        sql,
        parameters,
        rows,
        bytes: BYTES,
        until: call.deadline.map_or(longest, |deadline| deadline.min(longest)),
        cancelled: Arc::new(move || cancel.is_cancelled()),
        render: codec::render,
    };
    let is_callers_deadline = query.until < longest;
    let namespace = call.caller.namespace.clone();
    Ok(move || {
        let _slot = slot;
        let found = values.query(&namespace, &query);
        found.map(told).map_err(|error| in_sql(&error, is_callers_deadline))
    })
}

fn in_sql(error: &Error, is_callers_deadline: bool) -> Failure {
    let failure = failure(error.clone());
    match failure.kind {
        ErrorKind::InvalidPayload => Failure { field: Some("sql".into()), ..failure },
        // As the router says of calls that are late; one that took as long as any may would again.
        ErrorKind::Timeout if is_callers_deadline => failure.retryable(),
        _ => failure,
    }
}

fn parameter(value: Value) -> Result<Sql, Failure> {
    Ok(match value {
        Value::Null => Sql::Null,
        Value::Bool(flag) => Sql::Integer(flag.into()),
        Value::Int(number) => Sql::Integer(number),
        Value::Float(number) => Sql::Real(number),
        Value::Text(text) => Sql::Text(text),
        Value::Bytes(bytes) => Sql::Blob(bytes.into()),
        other => return Err(wrong("parameters", &other, "null, a number, a string or bytes each")),
    })
}

fn told(found: Queried) -> Value {
    let cell = |cell| match cell {
        Sql::Null => Value::Null,
        Sql::Integer(number) => Value::Int(number),
        Sql::Real(number) => Value::Float(number),
        Sql::Text(text) => Value::Text(text),
        Sql::Blob(blob) => Value::Bytes(blob.into()),
    };
    let row = |row: Vec<Sql>| Value::List(row.into_iter().map(cell).collect());
    Value::map([
        ("columns", found.columns.into_iter().map(Value::Text).collect::<Vec<_>>().into()),
        ("rows", found.rows.into_iter().map(row).collect::<Vec<_>>().into()),
        ("truncated", found.truncated.into()),
    ])
}
