//! How far commits had come, in a small file beside the database (`kps.db-mark`).
//!
//! SQLite takes a damaged log for a shorter one, and a missing log for an empty one: of what is
//! behind the damage it says nothing. So the number of the last commit is kept outside the log as
//! well. It is written after each commit and before anybody hears of that commit, without fsync:
//! it survives the process, and after a power failure it is older than the database at most, which
//! does no harm. A mark that is missing or damaged says nothing.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, config::DbConfig};

use super::{
    checksum::Checksum,
    fault::{File, Result, Trouble, corrupt},
    file::{beside, create_private},
};

/// Begins the file; the last byte is the format's version.
const MAGIC: [u8; 8] = *b"kpsmark\x01";

/// Magic, commits, checksum; integers in little endian.
const LENGTH: usize = 24;

/// What the mark beside a database says. To be read before the transaction that it is compared
/// with begins, for a writer may go on meanwhile.
#[derive(Debug, Default)]
pub(super) struct Marked {
    database: PathBuf,
    /// 0 without a mark.
    commits: u64,
}

impl Marked {
    pub(super) fn read(database: &Path) -> Marked {
        let mut record = [0; LENGTH];
        let read =
            fs::File::open(place(database)).and_then(|mut file| file.read_exact(&mut record));
        let commits = read.ok().and_then(|()| parse(&record)).unwrap_or(0);
        Marked { database: database.into(), commits }
    }

    /// The database, which says that it has had `commits`, must not be behind.
    pub(super) fn check(&self, connection: &Connection, commits: u64) -> Result<()> {
        if self.commits <= commits {
            return Ok(());
        }
        // What is left of the log stays where it is: closing would empty it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        corrupt(format!(
            "commits from {} to {} are missing: its log {} lost its end, or this is an older copy \
             (to go on with what is left, remove {})",
            commits + 1,
            self.commits,
            beside(&self.database, "-wal").display(),
            place(&self.database).display()
        ))
    }

    /// There is no database; there must not have been one.
    pub(super) fn check_missing(&self) -> Result<()> {
        match self.commits {
            0 => Ok(()),
            _ => corrupt(format!("{} is there without it", place(&self.database).display())),
        }
    }
}

/// The mark of the process that writes.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: fs::File,
    place: PathBuf,
}

impl MarkFile {
    /// Opens the mark, or makes it if there is none; what it says stays.
    pub(super) fn open(database: &Path) -> kps_proto::Result<MarkFile> {
        let place = place(database);
        create_private(&place)
            .and_then(|()| fs::OpenOptions::new().write(true).open(&place))
            .map(|file| MarkFile { file, place: place.clone() })
            .map_err(|error| File::Path(place).tell_io("open", &error))
    }

    /// There are `commits`, and fsync has returned for the last one.
    pub(super) fn write(&self, commits: u64) -> Result<()> {
        self.put(&record(commits)).map_err(|error| {
            Trouble::Failed(format!(
                "cannot write {}: {error}; check the disk it lies on, then open it again",
                self.place.display()
            ))
        })
    }

    #[cfg(unix)]
    fn put(&self, record: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, record, 0)
    }

    #[cfg(not(unix))]
    fn put(&self, record: &[u8]) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(record)
    }
}

fn place(database: &Path) -> PathBuf {
    beside(database, "-mark")
}

fn record(commits: u64) -> [u8; LENGTH] {
    let mut record = [0; LENGTH];
    record[..8].copy_from_slice(&MAGIC);
    record[8..16].copy_from_slice(&commits.to_le_bytes());
    record[16..].copy_from_slice(&Checksum::of("mark").int(commits).done().to_le_bytes());
    record
}

fn parse(found: &[u8; LENGTH]) -> Option<u64> {
    let commits = u64::from_le_bytes(found[8..16].try_into().ok()?);
    (*found == record(commits)).then_some(commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_was_written_or_nothing() {
        for commits in [0, 1, 1000, u64::MAX] {
            let sound = record(commits);
            assert_eq!(parse(&sound), Some(commits));
            for bit in 0..LENGTH * 8 {
                let mut damaged = sound;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parse(&damaged), None, "bit {bit}");
            }
        }
    }
}
