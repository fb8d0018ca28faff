//! Saving and deleting, within a transaction.

use std::sync::Arc;

use kps_proto::ErrorKind;
use rusqlite::params;

use super::{
    chunks,
    engine::Engine,
    read,
    row::{DELETED, Row, find},
    seal::{self, Place},
    types::{Change, ChangeKind, Condition, Content, Done, Etag, Save, Stop, refused},
};
use crate::store::{
    checksum::Checksum,
    fault,
    schema::{int, signed},
};

/// A value's new bytes.
pub(super) enum New<'a> {
    /// Here they are.
    Whole(&'a Content),
    /// They are written: what they are, their content, their hash, how many.
    Uploaded(u8, i64, u64, u64),
}

impl Engine {
    pub(super) fn save(
        &mut self,
        namespace: &Arc<str>,
        save: &Save,
        content: &Content,
    ) -> Result<Done, Stop> {
        self.put(namespace, save, &New::Whole(content))
    }

    /// Makes `new` the key's value.
    pub(super) fn put(
        &mut self,
        namespace: &Arc<str>,
        save: &Save,
        new: &New<'_>,
    ) -> Result<Done, Stop> {
        let key = &*save.key;
        let now = (self.now)();
        let found = self.current(namespace, key, now)?;
        self.check_condition(&save.condition, namespace, key, found.as_ref())?;
        let size = match new {
            New::Whole(content) => content.bytes.len() as u64,
            New::Uploaded(.., size) => *size,
        };
        self.check_size(key, size)?;
        self.check_quota(namespace, key, size, found.as_ref())?;

        let (id, version) = self.book.next_version(namespace);
        let mut row = Row {
            id: found.as_ref().map_or(0, |found| found.id),
            version,
            hash: 0,
            form: 0,
            size,
            modified_ms: now,
            expires_ms: save.ttl_ms.map(|ttl| now.saturating_add(ttl)),
            content_type: save.content_type.clone(),
            content: None,
            crc: 0,
        };
        if let Some(found) = &found {
            self.retire(namespace, id, key, found)?;
        }
        let seal = self.seal.clone();
        let mut value = None;
        match new {
            New::Uploaded(kind, content, hash, _) => {
                chunks::set_live(&self.connection, *content, true)?;
                (row.form, row.content, row.hash) = (*kind, Some(*content), *hash);
            }
            New::Whole(Content { kind, bytes }) => {
                let hash = seal.hasher(*kind).update(bytes).finalize();
                (row.form, row.hash) = (*kind, seal::short(&hash));
                if bytes.len() > chunks::INLINE {
                    let content = self.next_content();
                    chunks::write_all(&self.connection, &seal, content, bytes)?;
                    row.content = Some(content);
                } else {
                    let (form, kept) = seal.seal(&Place::Row(id, key, version), *kind, bytes)?;
                    (row.form, row.crc) = (form, crc(&kept));
                    value = Some(kept);
                }
            }
        }
        row.write(&self.connection, id, key, value.as_deref())?;
        self.outdate_remote(id, key)?;
        self.soonest = self.soonest.min(row.expires_ms.unwrap_or(u64::MAX));
        let tally = self.book.change(namespace);
        tally.bytes += row.cost(key);
        tally.keys += u64::from(found.is_none());
        self.note(namespace, key, ChangeKind::Saved, row.etag(), size, now);
        Ok(Done::Saved(save.key.clone(), row.meta()))
    }

    pub(super) fn delete(
        &mut self,
        namespace: &Arc<str>,
        key: &str,
        condition: &Condition,
    ) -> Result<Done, Stop> {
        let now = (self.now)();
        let found = self.current(namespace, key, now)?;
        condition.check(key, found.as_ref().map(Row::etag))?;
        let Some(found) = found else { return Ok(Done::Deleted(false)) };
        let (id, version) = self.book.next_version(namespace);
        self.retire(namespace, id, key, &found)?;
        self.remove_row(found.id)?;
        self.book.change(namespace).keys -= 1;
        if self.rules.versions > 0 {
            self.note_deletion(id, key, version, now)?;
        }
        self.note(namespace, key, ChangeKind::Deleted, found.etag(), found.size, now);
        Ok(Done::Deleted(true))
    }

    pub(super) fn check(
        &mut self,
        namespace: &Arc<str>,
        key: &str,
        condition: &Condition,
    ) -> Result<Done, Stop> {
        let found = self.current(namespace, key, (self.now)())?;
        self.check_condition(condition, namespace, key, found.as_ref())?;
        Ok(Done::Checked)
    }

    pub(super) fn get(&mut self, namespace: &Arc<str>, key: &str) -> Result<Done, Stop> {
        let Some(tally) = self.book.get(namespace) else { return Err(read::missing(key)) };
        let most = chunks::MAX_PART as u64;
        let (meta, content) =
            read::get(&self.connection, &self.seal, tally.id, key, (self.now)(), most)?;
        Ok(Done::Got(meta, content))
    }

    /// The key's row; one that has expired is removed instead.
    fn current(&mut self, namespace: &Arc<str>, key: &str, now: u64) -> fault::Result<Option<Row>> {
        let Some(tally) = self.book.get(namespace) else { return Ok(None) };
        match find(&self.connection, tally.id, key)? {
            Some(row) if row.is_expired(now) => {
                self.expire(namespace, key, &row)?;
                Ok(None)
            }
            found => Ok(found),
        }
    }

    /// Removes a value whose time is over, and the key's old versions with it.
    pub(super) fn expire(
        &mut self,
        namespace: &Arc<str>,
        key: &str,
        row: &Row,
    ) -> fault::Result<()> {
        let (id, _) = self.book.next_version(namespace);
        self.free(row.content)?;
        self.remove_row(row.id)?;
        let tally = self.book.change(namespace);
        tally.keys -= 1;
        tally.bytes = tally.bytes.saturating_sub(row.cost(key));
        self.prune(namespace, id, key, 0)?;
        self.effects.expired += 1;
        self.note(namespace, key, ChangeKind::Expired, row.etag(), row.size, (self.now)());
        Ok(())
    }

    /// What `row` holds is not the key's value any more.
    fn retire(&mut self, namespace: &Arc<str>, id: i64, key: &str, row: &Row) -> fault::Result<()> {
        if self.rules.versions > 0 {
            const SQL: &str = "INSERT INTO versions SELECT NULL, namespace, key, version, hash, form, \
                size, modified_ms, expires_ms, content_type, content, value, crc, checksum \
                FROM items WHERE id = ?";
            self.connection.prepare_cached(SQL)?.execute([row.id])?;
            self.has_versions = true;
        } else {
            self.free(row.content)?;
            let tally = self.book.change(namespace);
            tally.bytes = tally.bytes.saturating_sub(row.cost(key));
        }
        self.prune(namespace, id, key, self.rules.versions)
    }

    /// Removes the key's old versions beyond the newest `keep`.
    fn prune(&mut self, namespace: &Arc<str>, id: i64, key: &str, keep: u32) -> fault::Result<()> {
        if !self.has_versions {
            return Ok(());
        }
        const SQL: &str = "SELECT id, size, content, form FROM versions \
            WHERE namespace = ? AND key = ? ORDER BY version DESC LIMIT -1 OFFSET ?";
        let mut old = Vec::new();
        {
            let mut statement = self.connection.prepare_cached(SQL)?;
            let mut rows = statement.query(params![id, key, keep])?;
            while let Some(row) = rows.next()? {
                let cost = if row.get::<_, u8>(3)? == DELETED {
                    0
                } else {
                    int(row, 1)? + key.len() as u64
                };
                old.push((row.get::<_, i64>(0)?, cost, row.get(2)?));
            }
        }
        for (row, cost, content) in old {
            self.connection.prepare_cached("DELETE FROM versions WHERE id = ?")?.execute([row])?;
            self.free(content)?;
            let tally = self.book.change(namespace);
            tally.bytes = tally.bytes.saturating_sub(cost);
        }
        Ok(())
    }

    /// A row among the old versions that says when the key was deleted.
    fn note_deletion(&self, id: i64, key: &str, version: u64, now: u64) -> fault::Result<()> {
        let row = Row {
            id: 0,
            version,
            hash: 0,
            form: DELETED,
            size: 0,
            modified_ms: now,
            expires_ms: None,
            content_type: None,
            content: None,
            crc: 0,
        };
        const SQL: &str =
            "INSERT INTO versions VALUES (NULL, ?, ?, ?, 0, ?, 0, ?, NULL, NULL, NULL, NULL, 0, ?)";
        let checksum = row.checksum(id, key);
        let values = params![id, key, signed(version), DELETED, signed(now), checksum];
        self.connection.prepare_cached(SQL)?.execute(values)?;
        Ok(())
    }

    fn remove_row(&self, id: i64) -> fault::Result<()> {
        self.connection.prepare_cached("DELETE FROM items WHERE id = ?")?.execute([id])?;
        Ok(())
    }

    /// The chunks are removed later, some at a time.
    pub(super) fn free(&mut self, content: Option<i64>) -> fault::Result<()> {
        if let Some(content) = content {
            chunks::set_live(&self.connection, content, false)?;
            self.effects.freed.push(content);
            self.effects.wrote = true;
        }
        Ok(())
    }

    pub(super) fn next_content(&mut self) -> i64 {
        self.last_content += 1;
        self.last_content
    }

    pub(super) fn check_size(&self, key: &str, size: u64) -> Result<(), Stop> {
        let max = self.rules.max_value;
        if size > max {
            let sentence = format!("the value of {key:?} has {size} bytes, the most are {max}");
            return Err(refused(ErrorKind::TooLarge, sentence));
        }
        Ok(())
    }

    /// That a value of this size fits in, in the place of `found`.
    pub(super) fn check_quota(
        &self,
        namespace: &str,
        key: &str,
        size: u64,
        found: Option<&Row>,
    ) -> Result<(), Stop> {
        let Some(quota) = self.rules.quota else { return Ok(()) };
        let used = self.book.get(namespace).map_or(0, |tally| tally.bytes);
        let freed = match found {
            Some(found) if self.rules.versions == 0 => found.cost(key),
            _ => 0,
        };
        let wanted = size + key.len() as u64;
        if used.saturating_sub(freed) + wanted > quota {
            let sentence = format!(
                "{key:?} takes {wanted} bytes, and {used} of the quota's {quota} are in use; delete \
                 something first"
            );
            return Err(refused(ErrorKind::QuotaExceeded, sentence));
        }
        Ok(())
    }

    pub(super) fn note(
        &mut self,
        namespace: &Arc<str>,
        key: &str,
        kind: ChangeKind,
        etag: Etag,
        size: u64,
        modified_ms: u64,
    ) {
        if self.is_heard() {
            let (namespace, key) = (namespace.clone(), key.to_owned());
            let change = Change { namespace, key, kind, etag: etag.to_string(), size, modified_ms };
            self.effects.changes.push(change);
        }
    }
}

/// Of the bytes in a row.
pub(super) fn crc(kept: &[u8]) -> i64 {
    Checksum::of("value").bytes(kept).done()
}
