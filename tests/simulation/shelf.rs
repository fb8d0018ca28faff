//! A store in memory, with a disk that takes its time: what is written is committed later, and lost if
//! the broker dies before. The disk may be lost as well, or be replaced by an older copy of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use kps_proto::{
    bus::Reader,
    clock::Time,
    history::{KeptSession, Page, Progress, Query, ReadFrom, Record, Recovered, Write},
    message::Offline,
};

use crate::{
    clock::jump,
    random::Dice,
    truth::{self, Token},
};

/// Publishers' own ids, and the sessions of publishers, are known for so long, by the clock.
const WINDOW_MS: u64 = 120_000;

/// The topics that are kept for a while only.
const AGEING: &str = "h.";

#[derive(Default)]
pub(crate) struct Shelf {
    disk: Disk,
    /// An older state of the disk.
    copy: Option<Disk>,
    /// The clock's time at the beginning of the run.
    time_base_ms: u64,
    /// The same by the clock as it was set since.
    clock_base_ms: u64,
    /// How old messages may become, by the clock.
    pub(crate) max_age_ms: Option<u64>,
    /// Those that became too old.
    pub(crate) aged: BTreeSet<Token>,
    /// Where each message was written last.
    pub(crate) positions: BTreeMap<Token, u64>,
    /// Changes of retained messages that were committed in this run.
    pub(crate) retained_count: u64,
    writing: VecDeque<(Time, Vec<Write>)>,
    reading: VecDeque<(Time, Reader, Query)>,
}

/// What is committed.
#[derive(Clone, Default)]
struct Disk {
    records: Vec<Record>,
    /// The last one written.
    position: u64,
    /// The last one of each topic that was removed.
    removed: BTreeMap<String, u64>,
    sessions: BTreeMap<String, (KeptSession, u64)>,
    progress: BTreeMap<String, Progress>,
    retained: BTreeMap<String, Record>,
    ids: Vec<(String, String, u64)>,
    /// Those that are over, each with its last position.
    epochs: Vec<(u64, u64)>,
    /// The one that writes.
    epoch: Option<u64>,
    /// The last position that it wrote; 0: none.
    epoch_end: u64,
    written_ms: u64,
}

impl Shelf {
    pub(crate) fn records(&self) -> &[Record] {
        &self.disk.records
    }

    pub(crate) fn retained(&self, topic: &str) -> Option<&Record> {
        self.disk.retained.get(topic)
    }

    /// Somebody sets the clock, and nobody tells.
    pub(crate) fn set_clock(&mut self, dice: &mut Dice) {
        self.clock_base_ms = jump(self.clock_base_ms, dice);
    }

    /// What the clock would have said at the beginning.
    pub(crate) fn clock_base_ms(&self) -> u64 {
        self.clock_base_ms
    }

    /// Keeps a copy of what is committed.
    pub(crate) fn back_up(&mut self) {
        self.copy = Some(self.disk.clone());
    }

    /// What was committed is gone. Returns it.
    pub(crate) fn lose(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.disk).records
    }

    /// The copy takes the disk's place. Returns what was committed after it was made, and the run
    /// that it was made in; `None` if there is no copy.
    pub(crate) fn put_back(&mut self) -> Option<(Vec<Record>, Option<u64>)> {
        let copy = self.copy.clone()?;
        let epoch = copy.epoch;
        let position = copy.position;
        let mut lost = std::mem::replace(&mut self.disk, copy).records;
        // The disk may have been lost since, and these be others under the same positions.
        lost.retain(|record| record.position > position || !self.disk.records.contains(record));
        Some((lost, epoch))
    }

    pub(crate) fn next(&self) -> Option<Time> {
        let write = self.writing.front().map(|(at, _)| *at);
        write.into_iter().chain(self.reading.front().map(|(at, ..)| *at)).min()
    }

    pub(crate) fn write(&mut self, now: Time, writes: Vec<Write>, dice: &mut Dice) {
        let last = self.writing.back().map_or(now, |(at, _)| *at);
        let takes = Duration::from_micros(dice.below(*dice.clone().pick(&[100, 5_000, 60_000])));
        self.writing.push_back((last.max(now) + takes, writes));
    }

    pub(crate) fn read(&mut self, now: Time, reader: Reader, query: Query, dice: &mut Dice) {
        let last = self.reading.back().map_or(now, |(at, ..)| *at);
        let takes = Duration::from_micros(dice.below(10_000));
        self.reading.push_back((last.max(now) + takes, reader, query));
    }

    /// What has been committed by now: the position up to which everything is, if any is new.
    pub(crate) fn commit(&mut self, now: Time) -> Option<u64> {
        let mut committed = None;
        let wall_ms = self.wall_ms(now);
        self.age(now);
        let disk = &mut self.disk;
        while self.writing.front().is_some_and(|(at, _)| *at <= now) {
            let (_, writes) = self.writing.pop_front().expect("looked at");
            disk.written_ms = wall_ms;
            for write in writes {
                match write {
                    Write::Record(record) => {
                        assert_eq!(record.position, disk.position + 1, "without holes");
                        (disk.position, disk.epoch_end) = (record.position, record.position);
                        match named(&record) {
                            // A dead letter has the token too: it is another message.
                            Some(token) if record.topic.starts_with("h.") => {
                                self.positions.insert(token, record.position);
                            }
                            Some(_) => {}
                            None => check_private(&record),
                        }
                        if let Some(id) = record.extras.as_ref().and_then(|e| e.id.clone()) {
                            disk.ids.push((record.namespace.to_string(), id, record.time_ms));
                        }
                        committed = Some(record.position);
                        disk.records.push(*record);
                    }
                    Write::Retained(record) => {
                        assert!(named(&record).is_some(), "{record:?} is private");
                        self.retained_count += 1;
                        disk.retained.insert(record.topic.to_string(), *record);
                    }
                    Write::RetainedEnded(_, topic) => {
                        self.retained_count += 1;
                        disk.retained.remove(&*topic);
                    }
                    Write::Session(session) => {
                        disk.sessions.insert(session.origin.clone(), (session, wall_ms));
                    }
                    Write::SessionEnded(origin) => {
                        disk.sessions.remove(&origin);
                    }
                    Write::Progress(progress) => {
                        disk.progress.insert(progress.name.clone(), progress);
                    }
                    Write::DurableEnded(_, name) => {
                        disk.progress.remove(&name);
                    }
                }
            }
            disk.ids.retain(|(.., time)| time.saturating_add(WINDOW_MS) >= wall_ms);
        }
        committed
    }

    /// The time, whatever the clock was set to since the beginning.
    fn wall_ms(&self, now: Time) -> u64 {
        self.time_base_ms + now.as_micros() / 1000
    }

    /// Removes what is too old, oldest first.
    fn age(&mut self, now: Time) {
        let Some(max_age) = self.max_age_ms else { return };
        let clock_ms = self.clock_base_ms + now.as_micros() / 1000;
        let Disk { records, removed, .. } = &mut self.disk;
        while let Some(place) = records.iter().position(|record| record.topic.starts_with(AGEING))
            && records[place].time_ms + max_age < clock_ms
        {
            let record = records.remove(place);
            self.aged.extend(named(&record));
            removed.insert(record.topic.to_string(), record.position);
        }
    }

    pub(crate) fn answer(&mut self, now: Time) -> Option<(Reader, Page)> {
        self.reading.front().filter(|(at, ..)| *at <= now)?;
        let (_, reader, query) = self.reading.pop_front()?;
        Some((reader, self.page(&query)))
    }

    fn page(&self, query: &Query) -> Page {
        let tip = self.disk.position;
        let matching =
            self.disk.records.iter().filter(|record| query.pattern.matches(&record.topic));
        let after = match query.from {
            ReadFrom::After(position) => position,
            ReadFrom::Time(time_ms) => {
                let earlier = self.disk.records.iter().filter(|record| record.time_ms < time_ms);
                earlier.last().map_or(0, |record| record.position)
            }
            ReadFrom::Last => {
                let mut newest = BTreeMap::new();
                for record in matching {
                    newest.insert(record.topic.clone(), record.clone());
                }
                let mut records: Vec<Record> = newest.into_values().collect();
                records.sort_by_key(|record| record.position);
                return Page { records, through: tip, ..Page::default() };
            }
        };
        let gone = self.disk.removed.iter();
        let removed = gone
            .filter(|(topic, _)| query.pattern.matches(topic))
            .any(|(_, position)| *position > after);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in matching.filter(|record| record.position > after) {
            if records.len() == query.max_count || bytes > query.max_bytes {
                let through = records.last().map_or(after, |record: &Record| record.position);
                return self.marked(Page {
                    records,
                    through,
                    more: true,
                    removed,
                    ..Page::default()
                });
            }
            bytes += record.payload.bytes.len();
            records.push(record.clone());
        }
        self.marked(Page { records, through: tip, removed, ..Page::default() })
    }

    /// With what is not its topic's newest message.
    fn marked(&self, mut page: Page) -> Page {
        let newest = |record: &Record| {
            let same = self.disk.records.iter().rev().find(|other| other.topic == record.topic);
            same.is_none_or(|other| other.position == record.position)
        };
        let is_latest = |record: &&Record| {
            record.extras.as_ref().is_some_and(|extras| extras.offline == Offline::Latest)
        };
        let superseded = page.records.iter().filter(is_latest).filter(|record| !newest(record));
        page.superseded = superseded.map(|record| record.position).collect();
        page
    }

    /// The broker is gone; what it wrote last may be too. `epoch` begins, and the clock has been set.
    pub(crate) fn reopen(&mut self, now: Time, epoch: u64, time_base_ms: u64) -> Recovered {
        self.writing.clear();
        self.reading.clear();
        (self.time_base_ms, self.clock_base_ms) = (time_base_ms, time_base_ms);
        self.retained_count = 0;
        let wall_ms = self.wall_ms(now);
        let disk = &mut self.disk;
        let position = disk.position;
        if let Some(before) = disk.epoch.replace(epoch) {
            disk.epochs.push((before, std::mem::take(&mut disk.epoch_end)));
        }
        // Time counts from the last commit.
        let last = if disk.written_ms == 0 { wall_ms } else { disk.written_ms };
        disk.written_ms = wall_ms;
        disk.sessions.retain(|_, (_, written)| written.saturating_add(WINDOW_MS) >= last);
        disk.ids.retain(|(.., time)| time.saturating_add(WINDOW_MS) >= last);
        let ids = disk.ids.iter_mut().map(|(.., time)| time);
        for time in ids.chain(disk.sessions.values_mut().map(|(_, at)| at)) {
            *time = wall_ms - last.saturating_sub(*time);
        }
        Recovered {
            position,
            latest_ms: disk.records.iter().map(|record| record.time_ms).max().unwrap_or(0),
            epoch,
            epochs: disk.epochs.clone(),
            ids: disk.ids.clone(),
            sessions: disk.sessions.values().map(|(session, _)| session.clone()).collect(),
            progress: disk.progress.values().cloned().collect(),
            retained: disk.retained.values().cloned().collect(),
        }
    }
}

/// The publish that a record comes from; `None` for a private one, which does not say.
pub(crate) fn named(record: &Record) -> Option<Token> {
    let private = record.extras.as_ref().is_some_and(|extras| extras.private);
    (!private).then(|| truth::token(&record.payload.bytes))
}

/// Of a private message history has the place alone.
fn check_private(record: &Record) {
    let extras = record.extras.as_ref().expect("it says that it is private");
    let nothing = record.payload.bytes.is_empty()
        && record.sender.id.is_empty()
        && record.sender.origin.is_empty()
        && record.number == 0
        && record.expires_ms.is_none()
        && (extras.id.is_none() && extras.headers.is_empty() && extras.ttl.is_none());
    assert!(nothing, "{record:?} tells of a private message");
}
