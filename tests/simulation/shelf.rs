//! A store in memory, with a disk that takes its time: what is written is committed later, and lost if
//! the broker dies before. The disk may be lost as well, or be replaced by an older copy of it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use kps_proto::{
    bus::Reader,
    clock::Time,
    history::{KeptSession, Page, Progress, Query, ReadFrom, Record, Recovered, Write},
    message::Offline,
};

use crate::random::Dice;

/// Publishers' own ids, and the sessions of publishers, are known for so long, by the clock.
const WINDOW_MS: u64 = 120_000;

#[derive(Default)]
pub(crate) struct Shelf {
    disk: Disk,
    /// An older state of the disk.
    copy: Option<Disk>,
    /// The clock's time at the beginning of the run.
    time_base_ms: u64,
    writing: VecDeque<(Time, Vec<Write>)>,
    reading: VecDeque<(Time, Reader, Query)>,
}

/// What is committed.
#[derive(Clone, Default)]
struct Disk {
    records: Vec<Record>,
    sessions: BTreeMap<String, (KeptSession, u64)>,
    progress: BTreeMap<String, Progress>,
    retained: BTreeMap<String, Record>,
    ids: Vec<(String, String, u64)>,
    /// Those that are over, each with its last position.
    epochs: Vec<(u64, u64)>,
    /// The one that writes.
    epoch: Option<u64>,
    written_ms: u64,
}

impl Shelf {
    pub(crate) fn records(&self) -> &[Record] {
        &self.disk.records
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
        let position = copy.records.last().map_or(0, |record| record.position);
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
        let disk = &mut self.disk;
        while self.writing.front().is_some_and(|(at, _)| *at <= now) {
            let (_, writes) = self.writing.pop_front().expect("looked at");
            disk.written_ms = wall_ms;
            for write in writes {
                match write {
                    Write::Record(record) => {
                        let last = disk.records.last().map_or(0, |record| record.position);
                        assert_eq!(record.position, last + 1, "positions are consecutive");
                        if let Some(id) = record.extras.as_ref().and_then(|e| e.id.clone()) {
                            disk.ids.push((record.namespace.to_string(), id, record.time_ms));
                        }
                        committed = Some(record.position);
                        disk.records.push(*record);
                    }
                    Write::Retained(record) => {
                        disk.retained.insert(record.topic.to_string(), *record);
                    }
                    Write::RetainedEnded(_, topic) => {
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

    fn wall_ms(&self, now: Time) -> u64 {
        self.time_base_ms + now.as_micros() / 1000
    }

    pub(crate) fn answer(&mut self, now: Time) -> Option<(Reader, Page)> {
        self.reading.front().filter(|(at, ..)| *at <= now)?;
        let (_, reader, query) = self.reading.pop_front()?;
        Some((reader, self.page(&query)))
    }

    fn page(&self, query: &Query) -> Page {
        let tip = self.disk.records.last().map_or(0, |record| record.position);
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
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in matching.filter(|record| record.position > after) {
            if records.len() == query.max_count || bytes > query.max_bytes {
                let through = records.last().map_or(after, |record: &Record| record.position);
                return self.marked(Page { records, through, more: true, ..Page::default() });
            }
            bytes += record.payload.bytes.len();
            records.push(record.clone());
        }
        self.marked(Page { records, through: tip, ..Page::default() })
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
        self.time_base_ms = time_base_ms;
        let wall_ms = self.wall_ms(now);
        let disk = &mut self.disk;
        let position = disk.records.last().map_or(0, |record| record.position);
        if let Some(before) = disk.epoch.replace(epoch) {
            let last = disk.records.iter().rev().find(|record| record.epoch == before);
            disk.epochs.push((before, last.map_or(0, |record| record.position)));
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
