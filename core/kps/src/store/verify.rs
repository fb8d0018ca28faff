//! Looks at everything in a store and says what is wrong with it.

use std::{collections::HashMap, path::Path};

use kps_proto::Result;
use rusqlite::Connection;

use super::{
    audit,
    catalogue::Catalogue,
    columns::{COLUMNS, Columns},
    database_file, durables,
    fault::{self, File, Trouble},
    ids,
    mark::Marked,
    retained,
    schema::{STORE, State, Stats},
    senders::SenderRow,
    sessions, times,
};

/// Findings listed at most.
const MAX_FINDINGS: usize = 100;

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages there are.
    pub messages: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
    /// Topics that have or had messages.
    pub topics: u64,
    /// Starts of the broker.
    pub epochs: u64,
    /// Sessions that may be continued.
    pub sessions: u64,
    /// Durable subscriptions.
    pub durables: u64,
    /// Topics with a retained message.
    pub retained: u64,
    /// The last position written.
    pub position: u64,
    /// The earliest message's time, milliseconds since the Unix epoch.
    pub oldest_ms: Option<u64>,
    /// The latest message's time.
    pub newest_ms: Option<u64>,
    /// What is wrong, a sentence each, at most 100; none in a sound store.
    pub findings: Vec<String>,
}

/// Reads all of the store in `dir`, also while a broker uses it: every page, every checksum, and
/// whether what belongs together agrees.
///
/// Errors: as [`Store::open`](super::Store::open), if the file cannot be opened at all.
pub fn verify(dir: &Path) -> Result<Verdict> {
    let path = database_file(dir);
    let connection = STORE.open_reader(&path)?;
    let marked = Marked::read(&path);
    let file = File::Path(path);
    let mut verdict = Verdict::default();
    match look(&connection, &marked, &mut verdict) {
        // No reason to stop: it is what was looked for.
        Err(Trouble::Corrupt(what)) => verdict.add(what),
        Err(trouble) => {
            let error = file.tell(trouble);
            if error.kind() != kps_proto::ErrorKind::StoreCorrupt {
                return Err(error);
            }
            verdict.add(error.message());
        }
        Ok(()) => {}
    }
    Ok(verdict)
}

impl Verdict {
    pub(super) fn add(&mut self, finding: impl Into<String>) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding.into());
        }
    }

    /// Adds a finding unless `fine`.
    pub(super) fn check(&mut self, fine: bool, finding: impl FnOnce() -> String) {
        if !fine {
            self.add(finding());
        }
    }

    /// Notes what cannot be read, and goes on without it.
    pub(super) fn read<T: Default>(&mut self, read: fault::Result<T>) -> fault::Result<T> {
        match read {
            Err(Trouble::Corrupt(what)) => {
                self.add(what);
                Ok(T::default())
            }
            read => read,
        }
    }
}

fn look(connection: &Connection, marked: &Marked, verdict: &mut Verdict) -> fault::Result<()> {
    // One view of the file, whatever is written meanwhile.
    let transaction = connection.unchecked_transaction()?;
    look_at_pages(&transaction, verdict)?;
    let state = State::load(&transaction)?;
    let behind = marked.check(&transaction, state.map_or(0, |state| state.commits));
    verdict.read(behind)?;
    let Some(state) = state else {
        return fault::corrupt("the row of `state` is missing");
    };
    let catalogue = Catalogue::load(&transaction, state)?;
    verdict.topics = catalogue.topics().count() as u64;
    verdict.epochs = catalogue.epochs().with_ends(state.position).len() as u64;
    verdict.position = state.position;
    look_at_messages(&transaction, &catalogue, verdict)?;
    let marks = times::check(&transaction);
    verdict.read(marks)?;
    let audit = audit::check(&transaction);
    verdict.read(audit)?;
    let ids = ids::load(&transaction, state.ids);
    verdict.read(ids)?;
    let sessions = sessions::load(&transaction, state.sessions);
    verdict.sessions = verdict.read(sessions)?.len() as u64;
    let sum = retained::load_sum(&transaction);
    let sum = verdict.read(sum)?;
    let retained = retained::load(&transaction, sum);
    verdict.retained = verdict.read(retained)?.len() as u64;
    look_at_durables(&transaction, state, verdict)
}

/// SQLite's own opinion.
pub(super) fn look_at_pages(connection: &Connection, verdict: &mut Verdict) -> fault::Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let finding: String = row.get(0)?;
        verdict.check(finding == "ok", || finding);
    }
    Ok(())
}

fn look_at_messages(
    connection: &Connection,
    catalogue: &Catalogue,
    verdict: &mut Verdict,
) -> fault::Result<()> {
    let expected: HashMap<u64, Stats> =
        catalogue.topics().map(|topic| (topic.id, topic.stats)).collect();
    let removed = expected.values().map(|stats| stats.removed).max().unwrap_or(0);
    let removed = removed.max(catalogue.state.forgotten);
    let mut topics = HashMap::<u64, Stats>::new();
    let mut senders = HashMap::<u64, u64>::new();
    let mut last = 0;
    let mut statement =
        connection.prepare(&format!("SELECT {COLUMNS} FROM messages ORDER BY position"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let columns = match Columns::read(row, |position| catalogue.epochs().of(position)) {
            Ok(columns) => columns,
            Err(Trouble::Corrupt(what)) => {
                verdict.add(what);
                continue;
            }
            Err(trouble) => return Err(trouble),
        };
        let position = columns.position;
        verdict.check(position == last + 1 || position - 1 <= removed, || {
            format!("messages from {} to {} are missing", last + 1, position - 1)
        });
        last = position;
        let Some(wanted) = expected.get(&columns.topic) else {
            verdict.add(format!("topic {} of message {position} is missing", columns.topic));
            continue;
        };
        let topic = topics.entry(columns.topic).or_default();
        let before = if topic.messages == 0 { wanted.removed } else { topic.last };
        let linked = columns.previous == before
            || (topic.messages == 0 && columns.previous <= wanted.removed);
        verdict.check(linked, || {
            format!("message {} before message {position} is missing", columns.previous)
        });
        if topic.messages == 0 {
            topic.first = position;
        }
        topic.messages += 1;
        topic.bytes += columns.payload.len() as u64;
        topic.last = position;
        *senders.entry(columns.sender).or_default() += 1;
        verdict.messages += 1;
        verdict.bytes += columns.payload.len() as u64;
        let time = columns.time_ms;
        verdict.oldest_ms = Some(verdict.oldest_ms.map_or(time, |oldest| oldest.min(time)));
        verdict.newest_ms = Some(verdict.newest_ms.map_or(time, |newest| newest.max(time)));
        let readable = columns.payload().and(columns.extras()).map(|_| ());
        verdict.read(readable)?;
    }
    let tip = catalogue.state.position;
    verdict.check(last == tip || tip <= removed, || {
        format!("messages from {} to {tip} are missing", last + 1)
    });
    for (id, wanted) in &expected {
        let found = topics.get(id).copied().unwrap_or_default();
        let same = (found.messages, found.bytes, found.first)
            == (wanted.messages, wanted.bytes, wanted.first)
            && (found.last == wanted.last || found.messages == 0);
        verdict.check(same, || {
            format!(
                "topic {id} has {} messages from {} to {} instead of {} from {} to {}",
                found.messages, found.first, found.last, wanted.messages, wanted.first, wanted.last
            )
        });
    }
    look_at_senders(connection, senders, verdict)
}

/// `messages` counts what there is of each sender.
fn look_at_senders(
    connection: &Connection,
    mut messages: HashMap<u64, u64>,
    verdict: &mut Verdict,
) -> fault::Result<()> {
    let mut statement = connection.prepare("SELECT * FROM senders")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match SenderRow::parse(row)? {
            Ok(row) => {
                let found = messages.remove(&row.id).unwrap_or(0);
                verdict.check(found == row.messages, || {
                    format!("sender {} has {found} messages instead of {}", row.id, row.messages)
                });
            }
            Err(Trouble::Corrupt(what)) => verdict.add(what),
            Err(trouble) => return Err(trouble),
        }
    }
    for (id, found) in messages {
        verdict.add(format!("sender {id} of {found} messages is missing"));
    }
    Ok(())
}

fn look_at_durables(
    connection: &Connection,
    state: State,
    verdict: &mut Verdict,
) -> fault::Result<()> {
    let durables = durables::load(connection, state.durables);
    let durables = verdict.read(durables)?;
    verdict.durables = durables.len() as u64;
    for progress in durables {
        let beyond = &progress.beyond;
        let sane = progress.done <= state.position
            && beyond.is_sorted_by(|a, b| a < b)
            && beyond
                .iter()
                .all(|&position| progress.done < position && position <= state.position)
            && progress.attempts.iter().all(|&(position, _)| position <= state.position);
        verdict.check(sane, || {
            format!(
                "the durable subscription {:?} knows of messages that were never written",
                progress.name
            )
        });
    }
    Ok(())
}
