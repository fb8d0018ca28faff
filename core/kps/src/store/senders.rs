//! Who published: each sender once, as long as there are messages of it.

use std::{collections::HashMap, sync::Arc};

use kps_proto::message::Sender;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    checksum::Checksum,
    fault::{Result, corrupt},
    schema::{State, int, signed},
};

/// Senders in memory at most, changed ones aside.
const MAX_KNOWN: usize = 16_384;

/// The senders as the writer changes them within a transaction; those that matter now.
#[derive(Debug, Default)]
pub(super) struct Senders {
    by_id: HashMap<u64, Known>,
    by_sender: HashMap<Arc<Sender>, u64>,
    /// The one looked up last: most messages come in runs.
    recent: Option<(Arc<Sender>, u64)>,
    changed: Vec<u64>,
}

#[derive(Debug)]
struct Known {
    sender: Arc<Sender>,
    messages: u64,
    changed: bool,
}

impl Senders {
    /// The sender's number; one more message is of it.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        state: &mut State,
        sender: &Arc<Sender>,
    ) -> Result<u64> {
        let id = match &self.recent {
            Some((known, id)) if Arc::ptr_eq(known, sender) => *id,
            _ => self.find(connection, state, sender)?,
        };
        self.count(id, |messages| messages.checked_add(1))?;
        Ok(id)
    }

    /// `messages` messages of the sender are gone.
    pub(super) fn release(
        &mut self,
        connection: &Connection,
        id: u64,
        messages: u64,
    ) -> Result<()> {
        if !self.by_id.contains_key(&id) {
            let Some(row) = SenderRow::load(connection, id)? else {
                return corrupt(format!("sender {id} is missing"));
            };
            self.know(row);
        }
        self.count(id, |before| before.checked_sub(messages))
    }

    /// Writes what changed; senders without messages are removed.
    pub(super) fn save(&self, connection: &Connection) -> Result<()> {
        for id in &self.changed {
            let Some(known) = self.by_id.get(id) else { continue };
            if known.messages == 0 {
                let sql = "DELETE FROM senders WHERE id = ?";
                connection.prepare_cached(sql)?.execute([signed(*id)])?;
                continue;
            }
            let sql = "INSERT INTO senders VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
                       messages = excluded.messages, checksum = excluded.checksum";
            let sum = checksum(*id, &known.sender, known.messages);
            let Sender { origin, id: client } = &*known.sender;
            connection.prepare_cached(sql)?.execute((
                signed(*id),
                origin,
                client,
                signed(known.messages),
                sum,
            ))?;
        }
        Ok(())
    }

    /// What changed is committed.
    pub(super) fn committed(&mut self) {
        let crowded = self.by_id.len() > MAX_KNOWN;
        for id in self.changed.drain(..) {
            let Some(known) = self.by_id.get_mut(&id) else { continue };
            known.changed = false;
            if known.messages == 0 {
                self.by_sender.remove(&known.sender);
                self.by_id.remove(&id);
                self.recent = None;
            }
        }
        if crowded {
            *self = Senders::default();
        }
    }

    fn find(
        &mut self,
        connection: &Connection,
        state: &mut State,
        sender: &Arc<Sender>,
    ) -> Result<u64> {
        let id = match self.by_sender.get(sender) {
            Some(id) => *id,
            None => match SenderRow::find(connection, sender)? {
                Some(row) => self.know(row),
                None => {
                    let id = state.next_sender;
                    state.next_sender += 1;
                    self.know(SenderRow { id, sender: sender.clone(), messages: 0 })
                }
            },
        };
        self.recent = Some((sender.clone(), id));
        Ok(id)
    }

    fn know(&mut self, row: SenderRow) -> u64 {
        let SenderRow { id, sender, messages } = row;
        self.by_sender.insert(sender.clone(), id);
        self.by_id.insert(id, Known { sender, messages, changed: false });
        id
    }

    fn count(&mut self, id: u64, count: impl FnOnce(u64) -> Option<u64>) -> Result<()> {
        match self.by_id.get_mut(&id).and_then(|known| Some((count(known.messages)?, known))) {
            Some((messages, known)) => {
                known.messages = messages;
                if !known.changed {
                    known.changed = true;
                    self.changed.push(id);
                }
                Ok(())
            }
            None => corrupt(format!("sender {id} has fewer messages than there are")),
        }
    }
}

/// A row of `senders`.
#[derive(Debug)]
pub(super) struct SenderRow {
    pub(super) id: u64,
    pub(super) sender: Arc<Sender>,
    pub(super) messages: u64,
}

impl SenderRow {
    pub(super) fn load(connection: &Connection, id: u64) -> Result<Option<SenderRow>> {
        let mut statement = connection.prepare_cached("SELECT * FROM senders WHERE id = ?")?;
        statement.query_row([signed(id)], SenderRow::parse).optional()?.transpose()
    }

    fn find(connection: &Connection, sender: &Sender) -> Result<Option<SenderRow>> {
        let sql = "SELECT * FROM senders WHERE origin = ? AND client_id = ?";
        let mut statement = connection.prepare_cached(sql)?;
        let found = statement.query_row([&sender.origin, &sender.id], SenderRow::parse);
        found.optional()?.transpose()
    }

    /// Reads a row of all columns and compares the checksum.
    pub(super) fn parse(row: &Row<'_>) -> rusqlite::Result<Result<SenderRow>> {
        let sender = Sender { origin: row.get(1)?, id: row.get(2)? };
        let (id, messages) = (int(row, 0)?, int(row, 3)?);
        if row.get::<_, i64>(4)? != checksum(id, &sender, messages) {
            return Ok(corrupt(format!("sender {id} does not have its checksum")));
        }
        Ok(Ok(SenderRow { id, sender: Arc::new(sender), messages }))
    }
}

fn checksum(id: u64, sender: &Sender, messages: u64) -> i64 {
    Checksum::of("senders").ints([id, messages]).text(&sender.origin).text(&sender.id).done()
}
