//! Logs that lost their end: SQLite says nothing, the mark beside the database does.

use std::fs;

use kps_proto::{ErrorKind, history::ReadFrom};

use super::{super::outbox::*, *};
use crate::store::{StoreReader, file::beside, verify};

/// The files that a killed process leaves.
struct Killed {
    database: Vec<u8>,
    log: Vec<u8>,
    mark: Vec<u8>,
}

impl Killed {
    /// As they are now.
    fn of(file: &Path) -> Killed {
        let read = |suffix| fs::read(beside(file, suffix)).unwrap();
        Killed { database: read(""), log: read("-wal"), mark: read("-mark") }
    }

    fn put(&self, file: &Path) {
        for (suffix, bytes) in [("", &self.database), ("-wal", &self.log), ("-mark", &self.mark)] {
            fs::write(beside(file, suffix), bytes).unwrap();
        }
    }

    /// What may have become of the log; `None` if it is missing.
    fn damaged_logs(&self) -> Vec<Option<Vec<u8>>> {
        let mut logs = vec![None, Some(Vec::new()), Some(self.log[..self.log.len() / 2].to_vec())];
        for seed in 0..60 {
            let mut log = self.log.clone();
            let place = noise(seed) as usize % log.len();
            if seed % 3 == 0 {
                log.truncate(place);
            } else {
                log[place] ^= 1 << (seed % 8);
            }
            logs.push(Some(log));
        }
        logs
    }

    /// Calls `examine` with each damaged log in the place of the log, and with a number.
    fn for_each(&self, file: &Path, mut examine: impl FnMut(usize, Option<&[u8]>)) {
        for (number, log) in self.damaged_logs().into_iter().enumerate() {
            let _ = fs::remove_file(beside(file, "-shm"));
            self.put(file);
            match &log {
                Some(log) => fs::write(beside(file, "-wal"), log).unwrap(),
                None => fs::remove_file(beside(file, "-wal")).unwrap(),
            }
            examine(number, log.as_deref());
        }
    }
}

/// What is left of a log after it was opened: nothing is the same as none.
fn log(file: &Path) -> Option<Vec<u8>> {
    fs::read(beside(file, "-wal")).ok().filter(|log| !log.is_empty())
}

/// The error says what is missing and which file to remove.
fn assert_told(error: &kps_proto::Error, file: &Path, what: &str) {
    assert_eq!(error.kind(), ErrorKind::StoreCorrupt, "{what}: {error}");
    for word in [" are missing", "lost its end", &beside(file, "-mark").display().to_string()] {
        assert!(error.message().contains(word), "{what}: {error}");
    }
}

/// A store whose process is killed after 30 messages, `before` of them in an earlier run.
fn killed(before: usize) -> (Killed, Vec<Record>) {
    let folder = Folder::new();
    let mut records = Vec::new();
    let mut add = |open: &mut Open, numbers: std::ops::Range<usize>| {
        records.extend(numbers.map(|n| open.add(["a", "b"][n % 2], &"x".repeat(n * 9))));
    };
    if before > 0 {
        add(&mut Open::new(Some(folder.path()), |_| {}), 0..before);
    }
    let mut open = Open::new(Some(folder.path()), |_| {});
    add(&mut open, before..30);
    (Killed::of(&folder.file()), records)
}

#[test]
fn a_damaged_log_is_told_or_does_not_matter() {
    for before in [0, 10] {
        let (killed, records) = killed(before);
        let folder = Folder::new();
        let mut told = 0;
        killed.for_each(&folder.file(), |number, damaged| {
            let what = format!("{before} before, damage {number}");
            let findings = verify(folder.path()).unwrap().findings;
            let read = StoreReader::open(folder.path())
                .and_then(|mut reader| reader.read(&query(">", ReadFrom::After(0))));
            match Open::try_new(Some(folder.path()), |_| {}) {
                Ok(open) => {
                    assert_eq!(findings, [""; 0], "{what}");
                    assert_eq!(read.unwrap().records, records, "{what}");
                    assert_eq!(open.recovered.position, 30, "{what}");
                    assert_eq!(open.read(">", ReadFrom::After(0)).records, records, "{what}");
                }
                Err(error) => {
                    told += 1;
                    assert_told(&error, &folder.file(), &what);
                    assert_told(&read.unwrap_err(), &folder.file(), &what);
                    assert!(findings[0].contains(" are missing"), "{what}: {findings:?}");
                    // Nobody made it worse.
                    let damaged = damaged.filter(|log| !log.is_empty());
                    assert!(log(&folder.file()).as_deref() == damaged, "{what}");
                    assert_eq!(fs::read(folder.file()).unwrap(), killed.database, "{what}");
                }
            }
        });
        assert!(told > 40, "{told} were told");
    }
}

#[test]
fn without_a_mark_what_a_damaged_log_left_is_there() {
    let (killed, records) = killed(10);
    let folder = Folder::new();
    killed.for_each(&folder.file(), |number, _| {
        let refused = Open::try_new(Some(folder.path()), |_| {}).is_err();
        if refused {
            fs::remove_file(beside(&folder.file(), "-mark")).unwrap();
        }
        let mut open = Open::new(Some(folder.path()), |_| {});
        let kept = open.recovered.position as usize;
        assert!(kept >= 10, "{number}");
        assert_eq!(open.read(">", ReadFrom::After(0)).records, records[..kept], "{number}");
        // It goes on from there, with a new mark.
        open.add("a", "y");
        drop(open);
        assert!(beside(&folder.file(), "-mark").exists());
        Open::new(Some(folder.path()), |_| {});
    });
}

#[test]
fn a_mark_that_is_damaged_or_older_does_no_harm() {
    let (mut killed, records) = killed(0);
    let newest = killed.mark.clone();
    let older = {
        let folder = Folder::new();
        drop(Open::new(Some(folder.path()), |_| {}));
        fs::read(beside(&folder.file(), "-mark")).unwrap()
    };
    assert_ne!(older, newest);
    let mut flipped = newest.clone();
    flipped[15] ^= 0x40;
    for mark in [older, flipped, newest[..23].to_vec(), Vec::new(), vec![0; 24], vec![b'x'; 1000]] {
        killed.mark = mark;
        let folder = Folder::new();
        killed.put(&folder.file());
        assert_eq!(verify(folder.path()).unwrap().findings, [""; 0]);
        let open = Open::new(Some(folder.path()), |_| {});
        assert_eq!(open.read(">", ReadFrom::After(0)).records, records);
        // From now on it protects again.
        let now = Killed::of(&folder.file());
        drop(open);
        now.put(&folder.file());
        fs::write(beside(&folder.file(), "-wal"), &now.log[..now.log.len() - 1]).unwrap();
        let error = Open::try_new(Some(folder.path()), |_| {}).err().unwrap();
        assert_told(&error, &folder.file(), "a mark after a damaged one");
    }
}

#[test]
fn a_missing_database_is_told() {
    let folder = Folder::new();
    Open::new(Some(folder.path()), |_| {}).add("a", "x");
    fs::remove_file(folder.file()).unwrap();
    let mark = beside(&folder.file(), "-mark");
    for error in [
        Open::try_new(Some(folder.path()), |_| {}).err().unwrap(),
        StoreReader::open(folder.path()).unwrap_err(),
        verify(folder.path()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::StoreCorrupt, "{error}");
        assert!(error.message().contains(&mark.display().to_string()), "{error}");
    }
    assert!(!folder.file().exists());
    fs::remove_file(mark).unwrap();
    assert_eq!(Open::new(Some(folder.path()), |_| {}).recovered.position, 0);
}

#[test]
fn a_damaged_log_of_an_outbox_is_told_or_does_not_matter() {
    let message = |place: u64| Kept {
        place,
        destination: Destination::Topic("a".into()),
        retain: false,
        payload: Payload::text("x".repeat(place as usize * 9)),
        extras: None,
        expires_ms: None,
        published_ms: place,
    };
    let messages: Vec<Kept> = (1..=30).map(message).collect();
    let folder = Folder::new();
    let file = folder.path().join("outbox");
    for before in [0, 10] {
        let killed = {
            let folder = Folder::new();
            let file = folder.path().join("outbox");
            let push = |range: std::ops::Range<usize>| {
                let (sender, events) = mpsc::channel();
                let tell = move |event| sender.send(event).unwrap();
                let (outbox, _) = OutboxFile::open(&file, tell).unwrap();
                for message in &messages[range] {
                    outbox.push(message.clone());
                    let OutboxEvent::Committed { .. } = events.recv().unwrap() else { panic!() };
                }
                outbox
            };
            drop(push(0..before));
            let _open = push(before..30);
            Killed::of(&file)
        };
        let mut told = 0;
        killed.for_each(&file, |number, damaged| {
            let what = format!("{before} before, damage {number}");
            match OutboxFile::open(&file, |_| {}) {
                Ok((_, kept)) => assert_eq!(kept, messages, "{what}"),
                Err(error) => {
                    told += 1;
                    assert_told(&error, &file, &what);
                    let damaged = damaged.filter(|log| !log.is_empty());
                    assert!(log(&file).as_deref() == damaged, "{what}");
                }
            }
        });
        assert!(told > 40, "{told} were told");
        // What is left can be had, and a file that is missing is no new outbox.
        killed.put(&file);
        fs::remove_file(beside(&file, "-wal")).unwrap();
        fs::remove_file(&file).unwrap();
        let error = OutboxFile::open(&file, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreCorrupt, "{error}");
        killed.put(&file);
        fs::remove_file(beside(&file, "-wal")).unwrap();
        fs::remove_file(beside(&file, "-mark")).unwrap();
        assert_eq!(OutboxFile::open(&file, |_| {}).unwrap().1, messages[..before]);
    }
}
