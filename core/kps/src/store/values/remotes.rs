//! Which keys the cloud has a value of, as far as is known here.

use std::sync::Arc;

use kps_proto::ErrorKind;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    engine::Engine,
    row::{Row, find},
    types::{ChangeKind, Condition, Done, Etag, Stop, refused},
};
use crate::store::{
    fault::Result,
    schema::{int, signed},
};

/// What is known of a value in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// It is the key's value; else the value is here, and the cloud may have an older one.
    pub(crate) current: bool,
    pub(crate) etag: String,
    pub(crate) size: u64,
    pub(crate) modified_ms: u64,
}

/// What is known of the key's value in the cloud.
pub(super) fn find_remote(
    connection: &Connection,
    namespace: i64,
    key: &str,
) -> Result<Option<Remote>> {
    const SQL: &str =
        "SELECT current, etag, size, modified_ms FROM remotes WHERE namespace = ? AND key = ?";
    let mut statement = connection.prepare_cached(SQL)?;
    let found = statement.query_row(params![namespace, key], |row| {
        Ok(Remote {
            current: row.get(0)?,
            etag: row.get(1)?,
            size: int(row, 2)?,
            modified_ms: int(row, 3)?,
        })
    });
    Ok(found.optional()?)
}

impl Engine {
    /// The cloud has the key's value now. What was here is removed, if it is still `expected`.
    pub(super) fn adopt(
        &mut self,
        namespace: &Arc<str>,
        key: &str,
        remote: &Remote,
        expected: Option<Etag>,
    ) -> std::result::Result<Done, Stop> {
        let id = self.book.change(namespace).id;
        let found = find(&self.connection, id, key)?;
        if let (Some(expected), Some(found)) = (expected, &found)
            && found.etag() != expected
        {
            let sentence = format!("{key:?} has changed: its ETag is {}", found.etag());
            return Err(refused(ErrorKind::Conflict, sentence));
        }
        if let Some(found) = found {
            self.book.next_version(namespace);
            self.free(found.content)?;
            self.connection
                .prepare_cached("DELETE FROM items WHERE id = ?")?
                .execute([found.id])?;
            let tally = self.book.change(namespace);
            tally.keys -= 1;
            tally.bytes = tally.bytes.saturating_sub(found.cost(key));
        }
        self.put_remote(id, key, remote)?;
        // What moves is the same value: it was told when it was saved.
        if expected.is_none()
            && let Some(etag) = Etag::parse(&remote.etag)
        {
            let Remote { size, modified_ms, .. } = *remote;
            self.note(namespace, key, ChangeKind::Saved, etag, size, modified_ms);
        }
        Ok(Done::Checked)
    }

    /// The cloud may have a value of the key, or has none any more.
    pub(super) fn note_remote(
        &mut self,
        namespace: &Arc<str>,
        key: &str,
        remote: Option<&Remote>,
    ) -> std::result::Result<Done, Stop> {
        let id = self.book.change(namespace).id;
        match remote {
            Some(remote) => self.put_remote(id, key, remote)?,
            None => {
                let before = find_remote(&self.connection, id, key)?;
                const SQL: &str = "DELETE FROM remotes WHERE namespace = ? AND key = ?";
                self.connection.prepare_cached(SQL)?.execute(params![id, key])?;
                if let Some(before) = before.filter(|before| before.current)
                    && let Some(etag) = Etag::parse(&before.etag)
                {
                    let now = (self.now)();
                    self.note(namespace, key, ChangeKind::Deleted, etag, before.size, now);
                }
            }
        }
        Ok(Done::Checked)
    }

    /// That a condition holds for the value here, or for the one that is known to be in the cloud.
    pub(super) fn check_condition(
        &self,
        condition: &Condition,
        namespace: &str,
        key: &str,
        found: Option<&Row>,
    ) -> std::result::Result<(), Stop> {
        let mut etag = found.map(Row::etag);
        if etag.is_none()
            && self.has_remotes
            && let Some(tally) = self.book.get(namespace)
        {
            let remote = find_remote(&self.connection, tally.id, key)?;
            let remote = remote.filter(|remote| remote.current);
            etag = remote.and_then(|remote| Etag::parse(&remote.etag));
        }
        condition.check(key, etag)
    }

    /// There is a newer value here.
    pub(super) fn outdate_remote(&self, namespace: i64, key: &str) -> Result<()> {
        if self.has_remotes {
            const SQL: &str = "UPDATE remotes SET current = 0 WHERE namespace = ? AND key = ?";
            self.connection.prepare_cached(SQL)?.execute(params![namespace, key])?;
        }
        Ok(())
    }

    fn put_remote(&mut self, namespace: i64, key: &str, remote: &Remote) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO remotes VALUES (?, ?, ?, ?, ?, ?)";
        self.connection.prepare_cached(SQL)?.execute(params![
            namespace,
            key,
            remote.current,
            remote.etag,
            signed(remote.size),
            signed(remote.modified_ms)
        ])?;
        self.has_remotes = true;
        self.effects.wrote = true;
        Ok(())
    }
}
