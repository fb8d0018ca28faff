//! Removes what nobody can see any more, some at a time.

use kps_proto::Error;
use rusqlite::params;

use super::{
    chunks,
    engine::Engine,
    row::{COLUMNS, Row},
    schema::columns,
};
use crate::store::{
    fault,
    schema::{int, signed},
};

/// Expired values removed in one transaction.
const EXPIRED: u32 = 256;

impl Engine {
    /// One transaction's worth of removing; whether there is more.
    pub(super) fn sweep(&mut self) -> Result<bool, Error> {
        let now = (self.now)();
        let abandoned = self.uploads.remove_abandoned(now);
        self.garbage.extend(abandoned);
        let mut more = self.transaction(|engine| engine.remove_expired(now))?;
        if let Some(&content) = self.garbage.last() {
            let emptied = self.transaction(|engine| {
                engine.effects.wrote = true;
                chunks::remove_some(&engine.connection, content)
            })?;
            if emptied {
                self.garbage.pop();
            }
            more |= !self.garbage.is_empty();
        }
        if !more {
            self.plan().map_err(|trouble| self.file.tell(trouble))?;
        }
        Ok(more)
    }

    /// Whether there is something to remove now.
    pub(super) fn is_due(&self) -> bool {
        !self.garbage.is_empty() || self.soonest <= (self.now)()
    }

    /// Looks up when something is to be removed.
    pub(super) fn plan(&mut self) -> fault::Result<()> {
        let sql = "SELECT min(expires_ms) FROM items WHERE expires_ms IS NOT NULL";
        let expiry: Option<i64> =
            self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        let expiry = expiry.map(i64::cast_unsigned);
        let soonest = expiry.into_iter().chain(self.uploads.next_abandoned()).min();
        self.soonest = soonest.unwrap_or(u64::MAX);
        Ok(())
    }

    fn remove_expired(&mut self, now: u64) -> fault::Result<bool> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            ", key, namespace FROM items WHERE expires_ms IS NOT NULL AND expires_ms <= ? \
             ORDER BY expires_ms LIMIT ?"
        );
        let mut expired = Vec::new();
        {
            let mut statement = self.connection.prepare_cached(SQL)?;
            let mut rows = statement.query(params![signed(now), EXPIRED])?;
            while let Some(row) = rows.next()? {
                let (key, namespace) = (row.get::<_, String>(COLUMNS)?, int(row, COLUMNS + 1)?);
                let namespace = namespace.cast_signed();
                let found = Row::read(row, namespace, &key)?;
                match self.book.name(namespace) {
                    Some(name) => expired.push((name, key, found)),
                    None => return fault::corrupt(format!("the namespace {namespace} is missing")),
                }
            }
        }
        for (namespace, key, row) in &expired {
            self.expire(namespace, key, row)?;
        }
        Ok(expired.len() == EXPIRED as usize)
    }
}
