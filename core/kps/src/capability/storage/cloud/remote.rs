//! The database in the cloud: what is asked of it, statement by statement.

use std::time::Duration;

use bytes::Bytes;
use kps_proto::{Error, ErrorKind, Result};
use libsql::{Builder, Connection, Database, Row, params};

/// The tables, made if they are missing.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS kps_values (namespace TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL, \
     etag TEXT NOT NULL, kind INTEGER NOT NULL, size INTEGER NOT NULL, modified_ms INTEGER NOT NULL, \
     expires_ms INTEGER, content_type TEXT, PRIMARY KEY (namespace, key)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS kps_chunks (id TEXT NOT NULL, number INTEGER NOT NULL, form INTEGER NOT NULL, \
     bytes BLOB NOT NULL, PRIMARY KEY (id, number)) WITHOUT ROWID",
];

/// How long the cloud may take for one statement.
const PATIENCE: Duration = Duration::from_secs(10);

/// Chunks that no value has are removed when they are a day old: their writer is gone.
const ORPHANS: &str =
    "DELETE FROM kps_chunks WHERE id < ? AND id NOT IN (SELECT id FROM kps_values)";
const DAY: u64 = 86_400_000;

/// A value in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Where its chunks are; new for every save.
    pub(super) id: String,
    pub(super) etag: String,
    pub(super) kind: u8,
    pub(super) size: u64,
    pub(super) modified_ms: u64,
    pub(super) expires_ms: Option<u64>,
    pub(super) content_type: Option<String>,
}

const HELD: &str = "id, etag, kind, size, modified_ms, expires_ms, content_type";

impl Held {
    fn read(row: &Row, from: i32) -> libsql::Result<Held> {
        Ok(Held {
            id: row.get(from)?,
            etag: row.get(from + 1)?,
            kind: row.get::<u32>(from + 2)? as u8,
            size: row.get(from + 3)?,
            modified_ms: row.get(from + 4)?,
            expires_ms: row.get(from + 5)?,
            content_type: row.get(from + 6)?,
        })
    }
}

/// A new value's id: in the order of time.
pub(super) fn new_id(now: u64) -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("no random numbers: {error}")))?;
    Ok(format!("{now:012x}{:016x}", u64::from_le_bytes(random)))
}

/// The database.
pub(super) struct RemoteDatabase {
    database: Database,
}

impl RemoteDatabase {
    /// Does not connect yet.
    pub(super) async fn new(url: &str, token: &str) -> Result<RemoteDatabase> {
        let built = Builder::new_remote(url.to_owned(), token.to_owned()).build().await;
        Ok(RemoteDatabase { database: built.map_err(|error| tell(&error))? })
    }

    async fn run<T>(&self, work: impl AsyncFnOnce(Connection) -> libsql::Result<T>) -> Result<T> {
        let connection = self.database.connect().map_err(|error| tell(&error))?;
        match tokio::time::timeout(PATIENCE, work(connection)).await {
            Ok(done) => done.map_err(|error| tell(&error)),
            Err(_) => Err(unavailable("it does not answer")),
        }
    }

    /// Connects and makes the tables.
    pub(super) async fn prepare(&self, now: u64) -> Result<()> {
        self.run(async |connection| {
            for table in TABLES {
                connection.execute(table, ()).await?;
            }
            let old = format!("{:012x}", now.saturating_sub(DAY));
            connection.execute(ORPHANS, [old]).await.map(|_| ())
        })
        .await
    }

    /// The key's value.
    pub(super) async fn find(&self, namespace: &str, key: &str) -> Result<Option<Held>> {
        self.run(async |connection| {
            let sql = format!("SELECT {HELD} FROM kps_values WHERE namespace = ? AND key = ?");
            let mut rows = connection.query(&sql, params![namespace, key]).await?;
            rows.next().await?.map(|row| Held::read(&row, 0)).transpose()
        })
        .await
    }

    /// Keys and their values, in the order of their bytes, from `start` on or behind it.
    pub(super) async fn list(
        &self,
        namespace: &str,
        start: &str,
        behind: bool,
        limit: usize,
    ) -> Result<Vec<(String, Held)>> {
        self.run(async |connection| {
            let sql = format!(
                "SELECT key, {HELD} FROM kps_values WHERE namespace = ? AND key {} ? ORDER BY key LIMIT ?",
                if behind { ">" } else { ">=" }
            );
            let mut rows = connection.query(&sql, params![namespace, start, limit as u64]).await?;
            let mut found = Vec::new();
            while let Some(row) = rows.next().await? {
                found.push((row.get(0)?, Held::read(&row, 1)?));
            }
            Ok(found)
        })
        .await
    }

    pub(super) async fn put_chunk(
        &self,
        id: &str,
        number: u64,
        form: u8,
        bytes: Vec<u8>,
    ) -> Result<()> {
        self.run(async |connection| {
            let sql = "INSERT OR REPLACE INTO kps_chunks VALUES (?, ?, ?, ?)";
            connection.execute(sql, params![id, number, u32::from(form), bytes]).await.map(|_| ())
        })
        .await
    }

    pub(super) async fn chunk(&self, id: &str, number: u64) -> Result<Option<(u8, Bytes)>> {
        self.run(async |connection| {
            let sql = "SELECT form, bytes FROM kps_chunks WHERE id = ? AND number = ?";
            let mut rows = connection.query(sql, params![id, number]).await?;
            let chunk = |row: Row| Ok((row.get::<u32>(0)? as u8, row.get::<Vec<u8>>(1)?.into()));
            rows.next().await?.map(chunk).transpose()
        })
        .await
    }

    /// Makes what was put the key's value; the chunks of the old one go.
    pub(super) async fn set(&self, namespace: &str, key: &str, held: &Held) -> Result<()> {
        let before = self.find(namespace, key).await?;
        self.run(async |connection| {
            let sql = "INSERT INTO kps_values VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
                ON CONFLICT (namespace, key) DO UPDATE SET id = excluded.id, etag = excluded.etag, \
                kind = excluded.kind, size = excluded.size, modified_ms = excluded.modified_ms, \
                expires_ms = excluded.expires_ms, content_type = excluded.content_type";
            let Held { id, etag, kind, size, modified_ms, expires_ms, content_type } = held.clone();
            let row = params![
                namespace,
                key,
                id,
                etag,
                u32::from(kind),
                size,
                modified_ms,
                expires_ms.map(u64::cast_signed),
                content_type
            ];
            connection.execute(sql, row).await.map(|_| ())
        })
        .await?;
        if let Some(before) = before.filter(|before| before.id != held.id) {
            // What stays is found when it is a day old.
            let _ = self.drop_chunks(&before.id).await;
        }
        Ok(())
    }

    /// Removes the key's value, and only this one.
    pub(super) async fn remove(&self, namespace: &str, key: &str, held: &Held) -> Result<bool> {
        let removed = self
            .run(async |connection| {
                let sql = "DELETE FROM kps_values WHERE namespace = ? AND key = ? AND id = ?";
                connection.execute(sql, params![namespace, key, held.id.clone()]).await
            })
            .await?;
        // As above.
        let _ = self.drop_chunks(&held.id).await;
        Ok(removed > 0)
    }

    pub(super) async fn drop_chunks(&self, id: &str) -> Result<()> {
        self.run(async |connection| {
            connection.execute("DELETE FROM kps_chunks WHERE id = ?", [id]).await.map(|_| ())
        })
        .await
    }
}

fn unavailable(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the cloud cannot be used: {why}"))
}

fn tell(error: &libsql::Error) -> Error {
    let text = error.to_string();
    match text.contains("status=401") || text.contains("status=403") {
        true => Error::new(ErrorKind::Unauthorized, format!("the cloud refuses the token: {text}")),
        false => unavailable(&text),
    }
}
