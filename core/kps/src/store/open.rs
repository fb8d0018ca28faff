//! Opening a store: checks what is there, begins an epoch, and says what is known from before.

use std::time::Duration;

use kps_proto::history::{KeptSession, Recovered};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    book::Book,
    catalogue::Catalogue,
    durables,
    fault::{Result, corrupt},
    ids,
    mark::Marked,
    retained,
    retention::Rules,
    schema::{State, Stats, int},
    sessions,
};

/// What opening needs to know.
pub(super) struct Start {
    pub(super) rules: Rules,
    pub(super) duplicate_window: Duration,
    pub(super) resume_window: Duration,
    /// The epoch wished for.
    pub(super) epoch: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) now: u64,
}

/// Begins an epoch, all in one transaction. `marked` was read before.
pub(super) fn begin(
    connection: &Connection,
    start: Start,
    marked: &Marked,
) -> Result<(Book, Catalogue, Recovered)> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let state = State::load(&transaction)?;
    marked.check(&transaction, state.map_or(0, |state| state.commits))?;
    let new = State { next_topic: 1, next_sender: 1, ..State::default() };
    let mut catalogue = Catalogue::load(&transaction, state.unwrap_or(new))?;
    check(&transaction, &catalogue)?;
    let (position, latest_ms) = (catalogue.state.position, catalogue.state.latest_ms);
    // The clock may have been set back.
    let least = catalogue.epochs().newest().map_or(0, |newest| newest + 1);
    let epoch = start.epoch.max(least);
    catalogue.begin(&transaction, epoch)?;

    // A store that was closed for long is continued where it stopped: time counts from the last
    // commit, for the broker's clients could do nothing in the meantime.
    let written = catalogue.state.written_ms;
    let last = if written == 0 { start.now } else { written };
    let sessions = recover_sessions(&transaction, &mut catalogue.state, last, start.resume_window)?;
    let ids = recover_ids(&transaction, &mut catalogue.state, last, start.duplicate_window)?;
    // As old now as they were then, by a clock that may have been set.
    let now = |time: u64| start.now.saturating_sub(last.saturating_sub(time));
    ids::restamp(&transaction, &mut catalogue.state.ids, now)?;
    sessions::restamp(&transaction, &mut catalogue.state.sessions, &sessions, now)?;
    let sessions = sessions.into_iter().map(|(session, _)| session).collect();
    let progress = durables::load(&transaction, catalogue.state.durables)?;

    let retained = retained::load(&transaction, retained::load_sum(&transaction)?)?;

    let window = millis(start.duplicate_window);
    let mut book = Book::load(&transaction, &catalogue, start.rules, window)?;
    book.finish(&transaction, start.now)?;
    book.publish(&mut catalogue);
    transaction.commit()?;
    let epochs = catalogue.epochs().with_ends(position);
    let recovered =
        Recovered { position, latest_ms, epoch, epochs, ids, sessions, progress, retained };
    Ok((book, catalogue, recovered))
}

/// What the topics say must be what there is, as far as that can be seen at a glance.
fn check(connection: &Connection, catalogue: &Catalogue) -> Result<()> {
    let State { position, forgotten, .. } = catalogue.state;
    let (mut last, mut kept) = (forgotten, 0);
    for Stats { messages, last: of_topic, .. } in catalogue.topics().map(|topic| topic.stats) {
        last = last.max(of_topic);
        kept = kept.max(if messages > 0 { of_topic } else { 0 });
    }
    let sql = "SELECT coalesce(max(position), 0) FROM messages";
    let newest = connection.query_row(sql, [], |row| int(row, 0))?;
    if last != position {
        return corrupt(format!("it ends at position {last} instead of {position}"));
    }
    if newest != kept {
        return corrupt(format!("its newest message is at position {newest} instead of {kept}"));
    }
    Ok(())
}

fn recover_sessions(
    connection: &Connection,
    state: &mut State,
    reference: u64,
    window: Duration,
) -> Result<Vec<(KeptSession, u64)>> {
    let all = sessions::load(connection, state.sessions)?;
    let mut kept = Vec::new();
    for (session, written) in all {
        if written.saturating_add(millis(window)) >= reference {
            kept.push((session, written));
        } else {
            sessions::end(connection, &mut state.sessions, &session.origin)?;
        }
    }
    Ok(kept)
}

fn recover_ids(
    connection: &Connection,
    state: &mut State,
    reference: u64,
    window: Duration,
) -> Result<Vec<(String, String, u64)>> {
    let mut all = ids::load(connection, state.ids)?;
    let before = reference.saturating_sub(millis(window));
    ids::prune(connection, &mut state.ids, before, u64::from(u32::MAX))?;
    all.retain(|&(_, _, time)| time >= before);
    Ok(all)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
