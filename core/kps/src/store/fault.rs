//! What goes wrong inside the store, and how it is told.

use std::{fmt, io, path::PathBuf};

use kps_proto::{Error, ErrorKind};
use rusqlite::ErrorCode;

/// `Result` inside the store; [`File::tell`] turns the error into one for users.
pub(super) type Result<T> = std::result::Result<T, Trouble>;

/// Why the store could not do something.
#[derive(Debug)]
pub(super) enum Trouble {
    /// SQLite says no.
    Sqlite(rusqlite::Error),
    /// What the file says cannot be right.
    Corrupt(String),
    /// The file may be fine, but not here and now; a whole sentence.
    Failed(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sqlite(error)
    }
}

/// Shorthand for an `Err` with [`Trouble::Corrupt`].
pub(super) fn corrupt<T>(what: impl Into<String>) -> Result<T> {
    Err(Trouble::Corrupt(what.into()))
}

/// Which database an error is about.
#[derive(Clone, Debug)]
pub(super) enum File {
    /// Nothing on disk.
    Memory,
    /// A file.
    Path(PathBuf),
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            File::Memory => f.write_str("the store in memory"),
            File::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl File {
    /// `trouble` in a sentence that names the file and says what to do.
    pub(super) fn tell(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Corrupt(what) => self.damaged(&what),
            Trouble::Failed(sentence) => Error::new(ErrorKind::StoreFailed, sentence),
            Trouble::Sqlite(error) => self.tell_sqlite(&error),
        }
    }

    /// An I/O error of the file's folder or of the file itself.
    pub(super) fn tell_io(&self, doing: &str, error: &io::Error) -> Error {
        Error::new(
            ErrorKind::StoreFailed,
            format!("cannot {doing} {self}: {error}; check the path, its permissions and the disk"),
        )
    }

    fn damaged(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::StoreCorrupt,
            format!(
                "{self} is damaged: {what}; move it away with its -wal and -mark files, then put a \
                 backup in its place or start an empty one"
            ),
        )
    }

    fn tell_sqlite(&self, error: &rusqlite::Error) -> Error {
        use ErrorCode as Code;
        let failed =
            |advice: &str| Error::new(ErrorKind::StoreFailed, format!("{self}: {error}; {advice}"));
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => failed("the disk is full: free some space and open it again"),
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
                failed("it is in use by another process: end that one or use another path")
            }
            Some(
                Code::ReadOnly
                | Code::CannotOpen
                | Code::PermissionDenied
                | Code::AuthorizationForStatementDenied,
            ) => failed("check that the path exists and that this user may write it"),
            Some(
                Code::SystemIoFailure | Code::FileLockingProtocolFailed | Code::NoLargeFileSupport,
            ) => failed("check the disk it lies on, then open it again"),
            Some(Code::OutOfMemory | Code::OperationInterrupted | Code::OperationAborted) => {
                failed("open it again")
            }
            // Everything else says that the file does not hold what kps wrote: not a database, a
            // malformed page, a table or column that is not there, a value of another type.
            _ => self.damaged(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_called_by_its_name() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA max_page_count = 1; CREATE TABLE t (c)").unwrap_err();
        let sql = "PRAGMA max_page_count = 3; CREATE TABLE t (c)";
        connection.execute_batch(sql).unwrap();
        let full = connection.execute("INSERT INTO t VALUES (zeroblob(1000000))", []).unwrap_err();
        let error = File::Path("/data/kps.db".into()).tell(full.into());
        assert_eq!(error.kind(), ErrorKind::StoreFailed);
        assert!(error.message().starts_with("/data/kps.db: "), "{error}");
        assert!(error.message().contains("the disk is full"), "{error}");
    }
}
