//! Processes that are killed, forked, or run out of disk.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use kps_proto::{
    ErrorKind,
    history::{HistoryRule, KeptSession, ReadFrom, Write},
};

use super::{super::outbox::*, *};

const DIR: &str = "KPS_TEST_STORE_DIR";

/// The process that another test starts: the test `name` of this file, with a folder.
fn program(name: &str, dir: &Path) -> Command {
    let mut program = Command::new(std::env::current_exe().expect("a test knows its own program"));
    program.args(["--exact", &format!("store::tests::crash::{name}"), "--nocapture"]);
    program.env(DIR, dir).stdout(Stdio::null()).stderr(Stdio::piped());
    program
}

fn folder_given() -> Option<PathBuf> {
    std::env::var_os(DIR).map(PathBuf::from)
}

/// Kills the process when it has said `lines` numbers, and returns the last that it said.
fn kill_after(mut child: Child, lines: usize) -> u64 {
    let said = BufReader::new(child.stderr.take().unwrap());
    let mut last = 0;
    for (count, line) in said.lines().enumerate() {
        if count == lines {
            child.kill().unwrap();
        }
        // A line may be cut by the end of the process.
        if let Some(number) = line.unwrap().strip_prefix("at ").and_then(|at| at.strip_suffix('.'))
        {
            last = number.parse().unwrap();
        }
    }
    child.wait().unwrap();
    last
}

fn payload(position: u64) -> String {
    format!("{position} ").repeat(1 + position as usize % 50)
}

fn options(options: &mut StoreOptions) {
    let pattern = Pattern::parse("limited").unwrap();
    options.rules =
        vec![HistoryRule { pattern, max_age: None, max_count: Some(100), max_bytes: None }];
}

/// Not a test of its own: writes until it is killed, and says what is committed.
#[test]
fn a_program_that_writes() {
    let Some(dir) = folder_given() else { return };
    let mut open = Open::new(Some(&dir), options);
    let mut committed = open.recovered.position;
    loop {
        let mut writes = Vec::new();
        for _ in 0..1 + open.next % 7 {
            let payload = payload(open.next);
            let topic = if open.next.is_multiple_of(3) { "limited" } else { "kept" };
            writes.push(record_of(&open.record(topic, &payload)));
        }
        writes.push(Write::Session(KeptSession {
            origin: "origin".into(),
            published: open.next - 1,
        }));
        open.store.write(writes);
        while open.next - committed > 500 {
            match open.events.recv().unwrap() {
                StoreEvent::Committed { position, .. } => committed = position,
                StoreEvent::Failed(error) => panic!("{error}"),
            }
            eprintln!("at {committed}.");
        }
    }
}

#[test]
fn what_was_told_as_committed_survives_a_kill() {
    let folder = Folder::new();
    for round in 0..6 {
        let child = program("a_program_that_writes", folder.path()).spawn().unwrap();
        let told = kill_after(child, 1 + round * 7);
        // Those who only read can do so without anybody tidying up first.
        let verdict = crate::store::verify(folder.path()).unwrap();
        assert_eq!(verdict.findings, [""; 0]);
        let open = Open::new(Some(folder.path()), options);
        let position = open.recovered.position;
        assert!(told > 0 && position >= told, "{position} of {told}");
        assert_eq!(position, verdict.position);
        // What is written together is committed together.
        assert_eq!(open.recovered.sessions[0].published, position);
        let mut seen = 0;
        let mut after = 0;
        while after < position {
            let page = open.read("kept", ReadFrom::After(after));
            for record in page.records {
                seen += 1;
                assert_eq!(record.payload, Payload::text(payload(record.position)));
            }
            after = page.through;
        }
        assert_eq!(seen, position - position / 3, "every third message is of another topic");
        open.commit(vec![]);
        open.store.close();
        let verdict = crate::store::verify(folder.path()).unwrap();
        assert_eq!(verdict.findings, [""; 0]);
    }
}

/// Not a test of its own: keeps messages until it is killed, and says what is on disk.
#[test]
fn a_program_that_publishes() {
    let Some(dir) = folder_given() else { return };
    let (sender, events) = mpsc::channel();
    let tell = move |event| {
        let _ = sender.send(event);
    };
    let (outbox, kept) = OutboxFile::open(&dir.join("outbox"), tell).unwrap();
    let mut committed = kept.last().map_or(0, |kept| kept.place);
    for place in committed + 1.. {
        outbox.push(Kept {
            place,
            destination: Destination::Topic("a".into()),
            retain: false,
            payload: Payload::text(payload(place)),
            extras: None,
            expires_ms: None,
            published_ms: place,
        });
        while place - committed > 200 {
            match events.recv().unwrap() {
                OutboxEvent::Committed { place } => committed = place,
                OutboxEvent::Failed(error) => panic!("{error}"),
            }
            eprintln!("at {committed}.");
            // Confirmed, but for every tenth.
            (committed.saturating_sub(300)..committed)
                .filter(|place| place % 10 != 0)
                .for_each(|place| outbox.done(place));
        }
    }
}

#[test]
fn an_outbox_survives_a_kill() {
    let folder = Folder::new();
    for round in 0..6 {
        let child = program("a_program_that_publishes", folder.path()).spawn().unwrap();
        let told = kill_after(child, 1 + round * 5);
        let (_, kept) = OutboxFile::open(&folder.path().join("outbox"), |_| {}).unwrap();
        assert!(told > 0 && kept.last().unwrap().place >= told);
        for message in &kept {
            assert_eq!(message.payload, Payload::text(payload(message.place)));
        }
        let places: Vec<u64> =
            kept.iter().map(|kept| kept.place).filter(|place| place % 10 == 0).collect();
        let last = kept.last().unwrap().place;
        assert_eq!(places, (1..=last / 10).map(|place| place * 10).collect::<Vec<_>>());
    }
}

/// Not a test of its own: no file may become larger than 400,000 bytes.
#[cfg(unix)]
#[test]
fn a_program_without_room() {
    let Some(dir) = folder_given() else { return };
    let mut open = Open::new(Some(&dir), |_| {});
    let limit = libc::rlimit { rlim_cur: 400_000, rlim_max: 400_000 };
    // SAFETY: plain system calls; a write beyond the limit fails instead of ending the process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    let mut committed = 0;
    let failed = loop {
        let payload = payload(open.next);
        let record = open.record("a", &payload);
        open.store.write(vec![record_of(&record)]);
        match open.events.recv().unwrap() {
            StoreEvent::Committed { position, .. } => committed = position,
            StoreEvent::Failed(error) => break error,
        }
    };
    assert_eq!(failed.kind(), ErrorKind::StoreFailed);
    assert!(failed.message().contains("check the disk"), "{failed}");
    // Nothing is written any more, and nothing is said.
    let record = open.record("a", "x");
    open.store.write(vec![record_of(&record)]);
    assert_eq!(open.read(">", ReadFrom::After(0)).through, committed);
    open.store.close();
    assert!(open.events.recv().is_err());
    eprintln!("at {committed}.");
}

#[cfg(unix)]
#[test]
fn without_room_writing_fails_and_reading_goes_on() {
    let folder = Folder::new();
    let child = program("a_program_without_room", folder.path()).spawn().unwrap();
    let told = kill_after(child, usize::MAX);
    let open = Open::new(Some(folder.path()), |_| {});
    assert!(told > 3 && open.recovered.position >= told, "{told}");
    let page = open.read(">", ReadFrom::After(0));
    assert!(page.records.iter().map(|record| record.position).eq(1..=page.through));
}

#[test]
fn a_folder_that_cannot_be_is_told() {
    for dir in ["/dev/null/folder", "/proc/kps"] {
        let error = Open::try_new(Some(Path::new(dir)), |_| {}).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::StoreFailed);
        assert!(error.message().contains(dir), "{error}");
        let error = OutboxFile::open(Path::new(dir), |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreFailed);
    }
}

/// Runs `child` in a forked child; whether it ended well.
#[cfg(unix)]
fn fork(child: impl FnOnce()) -> bool {
    // SAFETY: the child runs nothing of the test harness, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: a plain system call: a child that hangs fails.
            unsafe { libc::alarm(20) };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: ends the process; nothing runs after it.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: waits for our own child.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            status == 0
        }
    }
}

#[cfg(unix)]
#[test]
fn a_forked_child_does_nothing_to_the_store() {
    let folder = Folder::new();
    let mut open = Open::new(Some(folder.path()), |_| {});
    open.add("a", "1");
    let store = open.store.clone();
    assert!(fork(move || {
        store.write(vec![]);
        assert!(store.read_now(&query(">", ReadFrom::After(0))).is_err());
        store.close();
    }));
    open.add("a", "2");
    assert_eq!(open.read(">", ReadFrom::After(0)).records.len(), 2);
}
