//! Looks at everything in a file of values and says what is wrong with it. No key is needed: checksums are those of the
//! bytes as they are kept.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use kps_proto::{ErrorKind, Result};
use rusqlite::Connection;

use super::{
    VALUES,
    book::{Book, Tally},
    chunks,
    row::{COLUMNS, DELETED, Row},
    schema::columns,
    write::crc,
};
use crate::store::{
    fault::{self, File, Trouble},
    mark::Marked,
    verify::{Verdict, look_at_pages},
};

/// What [`verify_values`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValuesVerdict {
    /// Namespaces with keys.
    pub namespaces: u64,
    /// Keys of all namespaces.
    pub keys: u64,
    /// Old versions of keys.
    pub versions: u64,
    /// Bytes of keys, values and old versions.
    pub bytes: u64,
    /// Whether values are encrypted.
    pub encrypted: bool,
    /// What is wrong, a sentence each, at most 100; none in a sound file.
    pub findings: Vec<String>,
}

/// Reads all of a storage's file, also while somebody uses it: every page, every checksum, and whether what belongs
/// together agrees.
///
/// # Errors
/// As [`Storage::open`](crate::capability::storage::Storage::open), if the file cannot be opened at all.
pub fn verify_values(file: &Path) -> Result<ValuesVerdict> {
    let connection = VALUES.open_reader(file)?;
    let marked = Marked::read(file);
    let mut look = Look { found: Verdict::default(), verdict: ValuesVerdict::default() };
    match look.at(&connection, &marked) {
        // No reason to stop: it is what was looked for.
        Err(Trouble::Corrupt(what)) => look.found.add(what),
        Err(trouble) => {
            let error = File::Path(file.into()).tell(trouble);
            if error.kind() != ErrorKind::StoreCorrupt {
                return Err(error);
            }
            look.found.add(error.message());
        }
        Ok(()) => {}
    }
    Ok(ValuesVerdict { findings: look.found.findings, ..look.verdict })
}

struct Look {
    /// Its findings alone.
    found: Verdict,
    verdict: ValuesVerdict,
}

impl Look {
    fn at(&mut self, connection: &Connection, marked: &Marked) -> fault::Result<()> {
        // One view of the file, whatever is written meanwhile.
        let transaction = connection.unchecked_transaction()?;
        look_at_pages(&transaction, &mut self.found)?;
        let encrypted = "SELECT EXISTS (SELECT 1 FROM encryption)";
        self.verdict.encrypted = transaction.query_row(encrypted, [], |row| row.get(0))?;
        let book = Book::load(&transaction)?;
        let commits = book.all().map(|(_, tally)| tally.version).sum();
        let behind = marked.check(&transaction, commits);
        self.found.read(behind)?;
        let mut tallies = HashMap::<i64, Tally>::new();
        let mut contents = HashSet::new();
        self.look_at_rows(&transaction, "items", &mut tallies, &mut contents)?;
        self.look_at_rows(&transaction, "versions", &mut tallies, &mut contents)?;
        for (name, tally) in book.all() {
            let seen = tallies.remove(&tally.id).unwrap_or_default();
            self.found.check((seen.keys, seen.bytes) == (tally.keys, tally.bytes), || {
                format!(
                    "the namespace {name:?} has {} keys with {} bytes instead of {} with {}",
                    seen.keys, seen.bytes, tally.keys, tally.bytes
                )
            });
            self.verdict.namespaces += u64::from(tally.keys > 0);
        }
        for (id, seen) in tallies {
            self.found.add(format!("the namespace {id} of {} keys is missing", seen.keys));
        }
        let mut statement = transaction.prepare("SELECT id FROM contents WHERE live != 0")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let used = contents.contains(&id);
            self.found.check(used, || format!("no value has the content {id}"));
        }
        Ok(())
    }

    fn look_at_rows(
        &mut self,
        connection: &Connection,
        table: &str,
        tallies: &mut HashMap<i64, Tally>,
        contents: &mut HashSet<i64>,
    ) -> fault::Result<()> {
        let is_old = table == "versions";
        let sql = format!(
            "SELECT {}, value, namespace, key FROM {table} ORDER BY namespace, key",
            columns!()
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(found) = rows.next()? {
            let namespace: i64 = found.get(COLUMNS + 1)?;
            let key: String = found.get(COLUMNS + 2)?;
            let Some(row) = self.found.read(Row::read(found, namespace, &key).map(Some))? else {
                continue;
            };
            self.verdict.keys += u64::from(!is_old);
            self.verdict.versions += u64::from(is_old);
            // It says that its key was deleted, and takes nothing.
            if row.form == DELETED {
                continue;
            }
            let tally = tallies.entry(namespace).or_default();
            tally.keys += u64::from(!is_old);
            tally.bytes += row.cost(&key);
            self.verdict.bytes += row.cost(&key);
            let Some(content) = row.content else {
                let kept = found.get_ref(COLUMNS)?.as_blob().map_err(rusqlite::Error::from)?;
                self.found.check(crc(kept) == row.crc, || {
                    format!("the value of {key:?} does not have its checksum")
                });
                continue;
            };
            contents.insert(content);
            let size = self.found.read(chunks::check(connection, content).map(Some))?;
            self.found.check(size.is_none_or(|size| size == row.size), || {
                format!("the value of {key:?} does not have its {} bytes", row.size)
            });
        }
        Ok(())
    }
}
