//! Files that are not what kps wrote: a clear error or the truth, nothing else.

use std::{fs, time::Duration};

use kps_proto::{
    ErrorKind,
    history::{HistoryRule, KeptSession, Progress, ReadFrom, Write},
    message::{Extras, Offline},
};
use rusqlite::Connection;

use super::{super::outbox::*, *};
use crate::store::{StoreReader, file::beside, schema::STORE, verify};

const PATTERNS: [&str; 4] = [">", "a", "b.*", "old.1"];

/// A store that uses every table, with several levels of pages, and what it says.
struct Sample {
    folder: Folder,
    bytes: Vec<u8>,
    mark: Vec<u8>,
    truth: Truth,
}

#[derive(Debug, PartialEq)]
struct Truth {
    recovered: Recovered,
    pages: Vec<Page>,
}

fn options(options: &mut StoreOptions) {
    options.epoch = 7;
    let pattern = Pattern::parse("old.*").unwrap();
    options.rules =
        vec![HistoryRule { pattern, max_age: None, max_count: Some(40), max_bytes: None }];
}

impl Sample {
    fn new() -> Sample {
        let folder = Folder::new();
        for epoch in 1..=3 {
            let mut open = Open::new(Some(folder.path()), |adjust| {
                options(adjust);
                adjust.epoch = epoch;
            });
            for round in 0..10 {
                let mut writes = Vec::new();
                for topic in ["a", "b.1", "b.2", "old.1", "old.2"] {
                    let mut record = open.record(topic, &"payload ".repeat(round * 3));
                    if round % 4 == 0 {
                        let headers = vec![("name".to_owned(), "value".to_owned())];
                        let id = Some(format!("id {}", record.position));
                        let ttl = Some(Duration::from_secs(1));
                        record.extras = Some(Box::new(Extras {
                            headers,
                            id,
                            ttl,
                            to: Some(vec!["one".into(), "principal:two".into()]),
                            offline: Offline::Drop,
                            ..Extras::default()
                        }));
                    }
                    writes.push(record_of(&record));
                    if round % 3 == 0 {
                        writes.push(Write::Retained(Box::new(record)));
                    }
                }
                let name = format!("{epoch} {round}");
                writes.push(Write::Session(KeptSession {
                    origin: name.clone(),
                    published: round as u64,
                }));
                writes.push(Write::Progress(Progress {
                    namespace: String::new(),
                    name,
                    pattern: ">".into(),
                    done: round as u64,
                    beyond: vec![round as u64 + 2],
                    attempts: vec![(round as u64 + 1, 3)],
                }));
                open.commit(writes);
            }
        }
        let bytes = fs::read(folder.file()).unwrap();
        let mark = fs::read(beside(&folder.file(), "-mark")).unwrap();
        assert!(bytes.len() > 100_000, "messages fill several levels of pages: {}", bytes.len());
        let truth = examine(folder.path()).unwrap();
        assert_eq!(truth.recovered.epochs.len(), 4);
        assert_eq!(truth.recovered.sessions.len(), 30);
        assert_eq!(truth.recovered.retained.len(), 5);
        assert_eq!(truth.pages[0].records.len(), 127);
        assert!(truth.pages[3].removed);
        assert_eq!(verify(folder.path()).unwrap().findings, [""; 0]);
        Sample { folder, bytes, mark, truth }
    }

    /// Puts `bytes` in the place of the store.
    fn put(&self, bytes: &[u8]) {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(beside(&self.folder.file(), suffix));
        }
        fs::write(self.folder.file(), bytes).unwrap();
        fs::write(beside(&self.folder.file(), "-mark"), &self.mark).unwrap();
    }

    /// Opens `bytes` in the place of the store.
    fn examine(&self, bytes: &[u8]) -> kps_proto::Result<Truth> {
        self.put(bytes);
        examine(self.folder.path())
    }

    /// What `bytes` say must be an error or the truth. Whether it was an error.
    fn is_refused(&self, bytes: &[u8], what: &str) -> bool {
        match self.examine(bytes) {
            Ok(truth) => {
                assert!(truth == self.truth, "{what}: {:?}", truth.recovered);
                false
            }
            Err(error) => {
                let kind = error.kind();
                let told = kind == ErrorKind::StoreCorrupt || kind == ErrorKind::StoreFailed;
                assert!(told, "{what}: {error}");
                let path = self.folder.path().display().to_string();
                assert!(error.message().contains(&path), "{what}: {error}");
                true
            }
        }
    }
}

/// What a broker learns that opens the store and reads.
fn examine(dir: &Path) -> kps_proto::Result<Truth> {
    let mut reader = StoreReader::open(dir)?;
    let mut pages = Vec::new();
    for pattern in PATTERNS {
        pages.push(reader.read(&query(pattern, ReadFrom::After(3)))?);
    }
    pages.push(reader.read(&query(">", ReadFrom::Last))?);
    pages.push(reader.read(&query(">", ReadFrom::Time(1_000_020)))?);
    let open = Open::try_new(Some(dir), options)?;
    for (pattern, page) in PATTERNS.into_iter().zip(&pages) {
        assert_eq!(open.store.read_now(&query(pattern, ReadFrom::After(3)))?, *page);
    }
    Ok(Truth { recovered: open.recovered.clone(), pages })
}

#[test]
fn a_flipped_bit_is_told_or_does_not_matter() {
    let sample = Sample::new();
    let mut refused = 0;
    let mut offset = 0;
    while offset < sample.bytes.len() {
        let mut bytes = sample.bytes.clone();
        let bit = noise(offset as u64) % 8;
        bytes[offset] ^= 1 << bit;
        refused += u32::from(sample.is_refused(&bytes, &format!("bit {bit} of byte {offset}")));
        // The database's header whole, the rest here and there.
        offset += if offset < 108 { 1 } else { 1 + noise(offset as u64) as usize % 1000 };
    }
    assert!(refused > 50, "{refused} were told");
}

#[test]
fn a_cut_file_is_told() {
    let sample = Sample::new();
    let whole = sample.bytes.len();
    let some = (0..40).map(|seed| noise(seed) as usize % whole);
    for length in
        [0, 1, 15, 16, 100, 8191, 8192, 16_384, whole - 8192, whole - 1].into_iter().chain(some)
    {
        let refused = sample.is_refused(&sample.bytes[..length], &format!("{length} bytes"));
        assert!(refused, "{length} bytes of {whole}");
    }
}

#[test]
fn a_page_of_nothing_is_told_or_does_not_matter() {
    let sample = Sample::new();
    for page in 0..sample.bytes.len() / 8192 {
        let mut bytes = sample.bytes.clone();
        bytes[page * 8192..][..8192].fill(0);
        sample.is_refused(&bytes, &format!("page {page} is empty"));
    }
}

#[test]
fn other_files_are_refused() {
    let folder = Folder::new();
    let refuse = |kind: ErrorKind, words: &str| {
        let error = Open::try_new(Some(folder.path()), |_| {}).err().unwrap();
        assert!(error.kind() == kind && error.message().contains(words), "{error}");
        let error = StoreReader::open(folder.path()).unwrap_err();
        assert!(error.kind() == kind && error.message().contains(words), "{error}");
    };
    fs::write(folder.file(), "a letter to a friend ".repeat(1000)).unwrap();
    refuse(ErrorKind::StoreCorrupt, "not a database");
    fs::remove_file(folder.file()).unwrap();
    Connection::open(folder.file()).unwrap().execute_batch("CREATE TABLE t (c)").unwrap();
    refuse(ErrorKind::StoreCorrupt, "another kind");
    fs::remove_file(folder.file()).unwrap();
    fs::write(beside(&folder.file(), "-wal"), "log").unwrap();
    let error = Open::try_new(Some(folder.path()), |_| {}).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreCorrupt, "{error}");
    assert!(!folder.file().exists());
}

#[test]
fn a_newer_format_is_refused() {
    let folder = Folder::new();
    drop(Open::new(Some(folder.path()), |_| {}));
    let newer = STORE.version() + 1;
    Connection::open(folder.file()).unwrap().pragma_update(None, "user_version", newer).unwrap();
    for error in [
        Open::try_new(Some(folder.path()), |_| {}).err().unwrap(),
        StoreReader::open(folder.path()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::StoreFailed);
        assert!(error.message().contains("newer kps"), "{error}");
    }
}

#[test]
fn verify_says_what_is_wrong() {
    let sample = Sample::new();
    let wrong = |change: &str, words: &str| {
        sample.put(&sample.bytes);
        Connection::open(sample.folder.file()).unwrap().execute_batch(change).unwrap();
        let verdict = verify(sample.folder.path()).unwrap();
        let found = verdict.findings.iter().any(|finding| finding.contains(words));
        assert!(found, "{change}: {:?}", verdict.findings);
    };
    wrong("UPDATE messages SET payload = x'00' WHERE position = 71", "message 71 ");
    wrong("DELETE FROM messages WHERE position = 71", "message 71 ");
    wrong("DELETE FROM messages WHERE position > 140", "messages from 141 to 150 ");
    wrong("DELETE FROM senders", "sender 1 ");
    wrong("DELETE FROM topics WHERE id = 2", "topics");
    wrong("UPDATE times SET position = position + 1", "mark of time");
    wrong("UPDATE ids SET id = 'x' WHERE position = 71", "the id of message 71 ");
    wrong("DELETE FROM sessions WHERE origin = '1 1'", "sessions are missing");
    wrong("UPDATE durables SET done = 9 WHERE name = '1 1'", "subscription \"1 1\"");
    wrong("UPDATE state SET position = 1000", "state");
}

#[test]
fn a_damaged_outbox_is_told() {
    let folder = Folder::new();
    let path = folder.path().join("outbox");
    let message = |place: u64| Kept {
        place,
        destination: Destination::Topic(format!("topic {place}")),
        retain: false,
        payload: Payload::text("payload ".repeat(place as usize)),
        extras: None,
        expires_ms: Some(place),
        published_ms: place,
    };
    let messages: Vec<Kept> = (1..100).map(message).collect();
    let (outbox, _) = OutboxFile::open(&path, |_| {}).unwrap();
    messages.iter().for_each(|message| outbox.push(message.clone()));
    outbox.close();
    let whole = fs::read(&path).unwrap();
    for seed in 0..300 {
        let mut bytes = whole.clone();
        let place = noise(seed) as usize % whole.len();
        if seed % 3 == 0 {
            bytes.truncate(place);
        } else {
            bytes[place] ^= 1 << (seed % 8);
        }
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(beside(&path, suffix));
        }
        fs::write(&path, bytes).unwrap();
        match OutboxFile::open(&path, |_| {}) {
            Ok((_, kept)) => assert_eq!(kept, messages, "{seed}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StoreCorrupt, "{seed}: {error}"),
        }
    }
}
