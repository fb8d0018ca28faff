//! A store in memory, with a disk that takes its time: what is written is committed later, and lost if
//! the broker dies before.

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

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) records: Vec<Record>,
    sessions: BTreeMap<String, KeptSession>,
    pub(crate) progress: BTreeMap<String, Progress>,
    ids: Vec<(String, String, u64)>,
    epochs: Vec<(u64, u64)>,
    writing: VecDeque<(Time, Vec<Write>)>,
    reading: VecDeque<(Time, Reader, Query)>,
}

impl Shelf {
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
        while self.writing.front().is_some_and(|(at, _)| *at <= now) {
            let (_, writes) = self.writing.pop_front().expect("looked at");
            for write in writes {
                match write {
                    Write::Record(record) => {
                        let last = self.records.last().map_or(0, |record| record.position);
                        assert_eq!(record.position, last + 1, "positions are consecutive");
                        if let Some(id) = record.extras.as_ref().and_then(|e| e.id.clone()) {
                            self.ids.push((record.namespace.to_string(), id, record.time_ms));
                        }
                        committed = Some(record.position);
                        self.records.push(*record);
                    }
                    Write::Session(session) => {
                        self.sessions.insert(session.origin.clone(), session);
                    }
                    Write::SessionEnded(origin) => {
                        self.sessions.remove(&origin);
                    }
                    Write::Progress(progress) => {
                        self.progress.insert(progress.name.clone(), progress);
                    }
                    Write::DurableEnded(_, name) => {
                        self.progress.remove(&name);
                    }
                }
            }
        }
        committed
    }

    pub(crate) fn answer(&mut self, now: Time) -> Option<(Reader, Page)> {
        self.reading.front().filter(|(at, ..)| *at <= now)?;
        let (_, reader, query) = self.reading.pop_front()?;
        Some((reader, self.page(&query)))
    }

    fn page(&self, query: &Query) -> Page {
        let tip = self.records.last().map_or(0, |record| record.position);
        let matching = self.records.iter().filter(|record| query.pattern.matches(&record.topic));
        let after = match query.from {
            ReadFrom::After(position) => position,
            ReadFrom::Time(time_ms) => {
                let earlier = self.records.iter().filter(|record| record.time_ms < time_ms);
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
            let same = self.records.iter().rev().find(|other| other.topic == record.topic);
            same.is_none_or(|other| other.position == record.position)
        };
        let is_latest = |record: &&Record| {
            record.extras.as_ref().is_some_and(|extras| extras.offline == Offline::Latest)
        };
        let superseded = page.records.iter().filter(is_latest).filter(|record| !newest(record));
        page.superseded = superseded.map(|record| record.position).collect();
        page
    }

    /// The broker is gone; what it wrote last may be too. `epoch` begins.
    pub(crate) fn reopen(&mut self, now: Time, epoch: u64) -> Recovered {
        self.commit(now);
        self.writing.clear();
        self.reading.clear();
        let position = self.records.last().map_or(0, |record| record.position);
        if epoch > 1 {
            let mine = self.records.iter().rev().find(|record| record.epoch == epoch - 1);
            self.epochs.push((epoch - 1, mine.map_or(0, |record| record.position)));
        }
        Recovered {
            position,
            latest_ms: self.records.iter().map(|record| record.time_ms).max().unwrap_or(0),
            epoch,
            epochs: self.epochs.clone(),
            ids: self.ids.clone(),
            sessions: self.sessions.values().cloned().collect(),
            progress: self.progress.values().cloned().collect(),
        }
    }
}
