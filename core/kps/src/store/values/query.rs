//! SQL for whoever wants to look at values in another way: read-only, one namespace, within limits.
//!
//! What is seen is one view, `entries`. It stands on an inner view whose name is random, and only that one
//! may read the tables: a query that does not know the name cannot reach them.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use kps_proto::{Error, ErrorKind, Result};
use rusqlite::{
    Connection, OpenFlags, Statement, ToSql,
    functions::FunctionFlags,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    types::{Value as Sql, ValueRef},
};

use super::seal::{KIND, Place, Seal};
use crate::store::fault::File;

/// SQLite's instructions between two looks at the clock.
const STEPS: i32 = 10_000;

/// Bytes of any text or blob that a query makes.
const MAX_LENGTH: i32 = 16 << 20;

/// Values in memory are copied for a query, so that nobody waits for it: so many bytes of pages at most.
const MAX_COPY: i64 = 64 << 20;

/// How much of it is cached, in KiB, negative.
const CACHE_KIB: i32 = -4096;

/// Turns a value's kind and bytes into JSON; `None`: there is no JSON for it.
pub(crate) type Render = fn(u8, &[u8]) -> Option<String>;

/// A query and its limits.
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) parameters: Parameters,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) until: Instant,
    /// Nobody waits any more.
    pub(crate) cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
    pub(crate) render: Render,
}

/// What stands for `?` or for `:name`.
pub(crate) enum Parameters {
    List(Vec<Sql>),
    Named(Vec<(String, Sql)>),
}

/// What a query found.
#[derive(Debug, PartialEq)]
pub(crate) struct Queried {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Sql>>,
    /// There is more, beyond the limits.
    pub(crate) truncated: bool,
}

/// Queries a file on a connection of its own.
pub(super) fn on_file(
    path: &Path,
    file: &File,
    scope: Scope<'_>,
    query: &Query,
) -> Result<Queried> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags);
    let mut connection = connection.map_err(|error| file.tell(error.into()))?;
    on_connection(&mut connection, file, scope, query)
}

/// A copy of what is in memory, to be queried.
pub(super) fn copy(connection: &mut Connection, file: &File) -> Result<Connection> {
    let mut copied = || {
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        if pages * size > MAX_COPY {
            return Ok(None);
        }
        let data = connection.serialize("main")?;
        let mut copy = Connection::open_in_memory()?;
        copy.deserialize_read_exact("main", &data[..], data.len(), true)?;
        Ok(Some(copy))
    };
    let copied = copied().map_err(|error: rusqlite::Error| file.tell(error.into()))?;
    copied.ok_or_else(|| {
        let sentence = format!(
            "a storage in memory can be queried up to {MAX_COPY} bytes: give it a file, or use list"
        );
        Error::new(ErrorKind::TooLarge, sentence)
    })
}

/// Whose values are seen, and when.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) seal: &'a Arc<Seal>,
    pub(super) namespace: i64,
    pub(super) now: u64,
}

/// Queries on a connection that is used for nothing else.
pub(super) fn on_connection(
    connection: &mut Connection,
    file: &File,
    scope: Scope<'_>,
    query: &Query,
) -> Result<Queried> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("no random numbers: {error}")))?;
    let name = format!("scope_{:032x}", u128::from_le_bytes(random));
    let set_up = || {
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        // What is encrypted is not sorted in files that are not.
        let temporary = if scope.seal.is_encrypted() { "MEMORY" } else { "FILE" };
        connection.pragma_update(None, "temp_store", temporary)?;
        connection.pragma_update(None, "cache_size", CACHE_KIB)?;
        define(connection, scope.seal, query.render)?;
        connection.execute_batch(&views(&name, scope.namespace, scope.now))
    };
    set_up().map_err(|error: rusqlite::Error| file.tell(error.into()))?;
    guarded(connection, file, &name, query)
}

fn views(scope: &str, namespace: i64, now: u64) -> String {
    format!(
        "CREATE TEMP VIEW {scope} AS SELECT key, size, printf('%x-%016x', version, hash) AS etag, \
         modified_ms / 1000.0 AS modified, expires_ms / 1000.0 AS expires, content_type, \
         CASE WHEN content IS NULL THEN kps_json(namespace, key, version, form, value) END AS json \
         FROM main.items WHERE namespace = {namespace} AND (expires_ms IS NULL OR expires_ms > {now}); \
         CREATE TEMP VIEW entries AS SELECT * FROM temp.{scope}; \
         PRAGMA query_only = ON"
    )
}

/// The function that makes JSON of a row's value.
fn define(connection: &Connection, seal: &Arc<Seal>, render: Render) -> rusqlite::Result<()> {
    let seal = seal.clone();
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    // Views are no trusted schema.
    let flags = flags | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("kps_json", 5, flags, move |context| {
        let (namespace, form): (i64, u8) = (context.get(0)?, context.get(3)?);
        let key = context.get_raw(1).as_str()?;
        let version = context.get::<i64>(2)?.cast_unsigned();
        let kept = context.get_raw(4).as_blob()?;
        let opened = seal.open(&Place::Row(namespace, key, version), form, kept);
        Ok(opened.ok().and_then(|bytes| render(form & KIND, &bytes)))
    })
}

fn guarded(
    connection: &mut Connection,
    file: &File,
    scope: &str,
    query: &Query,
) -> Result<Queried> {
    let told = |error: rusqlite::Error| file.tell(error.into());
    let (until, cancelled) = (query.until, query.cancelled.clone());
    let over = move || Instant::now() >= until || cancelled();
    connection.progress_handler(STEPS, Some(over.clone())).map_err(told)?;
    let name = scope.to_owned();
    connection
        .authorizer(Some(move |context: AuthContext<'_>| allow(&context, &name)))
        .map_err(told)?;
    let found = run(connection, query);
    found.map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) if (query.cancelled)() => {
            Error::new(ErrorKind::Cancelled, "the query was cancelled")
        }
        Some(rusqlite::ErrorCode::OperationInterrupted) if over() => Error::new(
            ErrorKind::Timeout,
            "the query took too long: ask for less, or give it a longer timeout",
        ),
        _ => sentence(&error, file),
    })
}

/// What a query that came from outside may do.
fn allow(context: &AuthContext<'_>, scope: &str) -> Authorization {
    let allowed = match context.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Read { table_name, .. } => {
            table_name == "entries"
                || table_name == scope
                // A subquery's or a common table expression's own column.
                || table_name.is_empty()
                || (table_name == "items" && context.accessor == Some(scope))
                || (matches!(table_name, "json_each" | "json_tree"))
        }
        AuthAction::Function { function_name } => {
            !matches!(function_name, "load_extension" | "fts3_tokenizer")
                && (function_name != "kps_json" || context.accessor == Some(scope))
        }
        _ => false,
    };
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

fn run(connection: &Connection, query: &Query) -> rusqlite::Result<Queried> {
    let mut statement = connection.prepare(&query.sql)?;
    if statement.column_count() == 0 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    bind(&mut statement, &query.parameters)?;
    let columns: Vec<String> = statement.column_names().map(Into::into).collect();
    let mut found = Queried { columns, rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if found.rows.len() == query.rows {
            found.truncated = true;
            break;
        }
        let mut cells = Vec::with_capacity(found.columns.len());
        for column in 0..found.columns.len() {
            let cell = row.get_ref(column)?;
            bytes += 16
                + match cell {
                    ValueRef::Text(text) => text.len(),
                    ValueRef::Blob(blob) => blob.len(),
                    _ => 0,
                };
            cells.push(cell.try_into()?);
        }
        if bytes > query.bytes {
            found.truncated = true;
            break;
        }
        found.rows.push(cells);
    }
    Ok(found)
}

fn bind(statement: &mut Statement<'_>, parameters: &Parameters) -> rusqlite::Result<()> {
    let wanted = statement.parameter_count();
    match parameters {
        Parameters::List(list) => {
            if list.len() != wanted {
                return Err(rusqlite::Error::InvalidParameterCount(list.len(), wanted));
            }
            for (place, value) in list.iter().enumerate() {
                statement.raw_bind_parameter(place + 1, value)?;
            }
        }
        Parameters::Named(named) => {
            let mut bound = 0;
            for (name, value) in named {
                let place = [":", "@", "$"].iter().find_map(|sigil| {
                    statement.parameter_index(&format!("{sigil}{name}")).ok().flatten()
                });
                let Some(place) = place else {
                    return Err(rusqlite::Error::InvalidParameterName(name.clone()));
                };
                statement.raw_bind_parameter(place, value as &dyn ToSql)?;
                bound += 1;
            }
            if bound != wanted {
                return Err(rusqlite::Error::InvalidParameterCount(bound, wanted));
            }
        }
    }
    Ok(())
}

/// Why SQLite does not like the query; everything else is the file's trouble.
fn sentence(error: &rusqlite::Error, file: &File) -> Error {
    use rusqlite::ErrorCode as Code;
    let invalid = |what: String| Error::new(ErrorKind::InvalidPayload, what);
    match error {
        rusqlite::Error::InvalidParameterCount(given, wanted) => {
            invalid(format!("the query has {wanted} parameters, and {given} were given"))
        }
        rusqlite::Error::InvalidParameterName(name) => {
            invalid(format!("the query has no parameter :{name}"))
        }
        rusqlite::Error::SqlInputError { .. } | rusqlite::Error::InvalidQuery => {
            invalid(format!("the query is wrong: {error}"))
        }
        rusqlite::Error::MultipleStatement => {
            invalid("the query is more than one statement".into())
        }
        _ => match error.sqlite_error_code() {
            Some(Code::AuthorizationForStatementDenied | Code::ReadOnly) => invalid(format!(
                "queries only read, and only the view entries(key, size, etag, modified, expires, \
                 content_type, json): {error}"
            )),
            Some(Code::Unknown | Code::TooBig | Code::TypeMismatch | Code::ParameterOutOfRange) => {
                invalid(format!("the query is wrong: {error}"))
            }
            _ => file.tell(match error {
                rusqlite::Error::SqliteFailure(code, message) => {
                    rusqlite::Error::SqliteFailure(*code, message.clone()).into()
                }
                other => crate::store::fault::Trouble::Failed(format!("{file}: {other}")),
            }),
        },
    }
}
