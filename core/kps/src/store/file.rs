//! Opens a database file that kps owns: whose it is, which version, one writer at a time.

use std::{
    fs,
    io::ErrorKind::{AlreadyExists, NotFound},
    path::{Path, PathBuf},
    time::Duration,
};

use kps_proto::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    fault::{self, File, Trouble, corrupt},
    mark::Marked,
};

/// Bytes of a page. Larger ones make big transactions quicker, smaller ones single messages.
const PAGE_SIZE: u32 = 8192;

/// Pages in the log (8 MiB) after which they are moved into the database.
const CHECKPOINT_PAGES: u32 = 1024;

/// How long to wait for a lock that only another program's connection can hold.
const BUSY: Duration = Duration::from_secs(5);

/// What one kind of file holds.
pub(super) struct Kind {
    /// What people call it.
    pub(super) name: &'static str,
    /// `PRAGMA application_id`.
    pub(super) application_id: i32,
    /// Each leads to the next `PRAGMA user_version`, from 0 on.
    pub(super) migrations: &'static [&'static str],
}

impl Kind {
    /// The version that this kps writes.
    pub(super) fn version(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }

    /// Opens the file for writing; makes it if there is none. The caller holds its [`Lock`].
    pub(super) fn open(&self, path: &Path) -> Result<Connection> {
        let file = File::Path(path.into());
        match fs::metadata(path) {
            Err(error) if error.kind() == NotFound => self.create(path)?,
            Err(error) => return Err(file.tell_io("open", &error)),
            // SQLite would take it for a new database.
            Ok(found) if found.len() == 0 => {
                return Err(file.tell(Trouble::Corrupt("it is empty".into())));
            }
            Ok(_) => {}
        }
        self.open_existing(path).map_err(|trouble| file.tell(trouble))
    }

    /// Opens the file for reading beside a process that writes it.
    pub(super) fn open_reader(&self, path: &Path) -> Result<Connection> {
        let file = File::Path(path.into());
        if let Err(error) = fs::metadata(path) {
            if error.kind() == NotFound {
                Marked::read(path).check_missing().map_err(|trouble| file.tell(trouble))?;
            }
            return Err(file.tell_io("open", &error));
        }
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            set_up(&connection)?;
            self.check_version(&connection)?;
            let version = user_version(&connection)?;
            if version < self.version() {
                return Err(Trouble::Failed(format!(
                    "{file} has the older format {version}: open it once for writing, which brings \
                     it up to date"
                )));
            }
            self.check_schema(&connection)?;
            Ok(connection)
        };
        open().map_err(|trouble| file.tell(trouble))
    }

    /// A database in memory.
    pub(super) fn in_memory(&self) -> Result<Connection> {
        let open = || {
            let connection = Connection::open_in_memory()?;
            set_up(&connection)?;
            self.migrate(&connection)?;
            Ok(connection)
        };
        open().map_err(|trouble| File::Memory.tell(trouble))
    }

    /// Makes the file under another name first: whatever interrupts this, a file with the right
    /// name is complete.
    fn create(&self, path: &Path) -> Result<()> {
        let file = File::Path(path.into());
        let log = beside(path, "-wal");
        if log.exists() {
            let what = format!("{} is there without it", log.display());
            return Err(file.tell(Trouble::Corrupt(what)));
        }
        Marked::read(path).check_missing().map_err(|trouble| file.tell(trouble))?;
        let new = beside(path, ".new");
        for old in [new.clone(), beside(&new, "-wal"), beside(&new, "-shm")] {
            match fs::remove_file(&old) {
                Err(error) if error.kind() != NotFound => {
                    return Err(File::Path(old).tell_io("remove", &error));
                }
                _ => {}
            }
        }
        create_private(&new).map_err(|error| file.tell_io("create", &error))?;
        let fill = || {
            let connection = Connection::open_with_flags(
                &new,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            connection.pragma_update(None, "page_size", PAGE_SIZE)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            self.migrate(&connection)?;
            connection.close().map_err(|(_, error)| error)?;
            Ok(())
        };
        fill().map_err(|trouble| file.tell(trouble))?;
        fs::rename(&new, path)
            .and_then(|()| sync_folder(path))
            .map_err(|error| file.tell_io("create", &error))
    }

    fn open_existing(&self, path: &Path) -> fault::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        set_up(&connection)?;
        // SQLite opens what it may not write for reading, without a word.
        if connection.is_readonly("main")? {
            return Err(Trouble::Failed(format!(
                "{} may not be written; check its permissions and its folder's",
                path.display()
            )));
        }
        self.check_version(&connection)?;
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if mode != "wal" {
            return corrupt(format!("its journal mode is {mode:?}, not \"wal\""));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        self.migrate(&connection)?;
        self.check_schema(&connection)?;
        Ok(connection)
    }

    fn check_version(&self, connection: &Connection) -> fault::Result<()> {
        let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if id != self.application_id {
            return corrupt(format!(
                "it is a database of another kind (application id {id:#010x} instead of {:#010x})",
                self.application_id
            ));
        }
        let version = user_version(connection)?;
        if version > self.version() {
            return Err(Trouble::Failed(format!(
                "{} is the {} of a newer kps (format {version}, this one knows up to {}): update \
                 kps, or use another path",
                connection.path().unwrap_or_default(),
                self.name,
                self.version()
            )));
        }
        if version < 1 {
            return corrupt(format!("its format is {version}"));
        }
        Ok(())
    }

    /// Brings the tables to this version, all in one transaction.
    fn migrate(&self, connection: &Connection) -> fault::Result<()> {
        let version = user_version(connection)?;
        let done = usize::try_from(version).unwrap_or(0);
        if done >= self.migrations.len() {
            return Ok(());
        }
        let transaction = connection.unchecked_transaction()?;
        for migration in &self.migrations[done..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", self.application_id)?;
        transaction.pragma_update(None, "user_version", self.version())?;
        transaction.commit()?;
        Ok(())
    }

    /// The tables must be those that the migrations make, to the letter: a damaged definition
    /// would let SQLite read other columns.
    fn check_schema(&self, connection: &Connection) -> fault::Result<()> {
        let ours = Connection::open_in_memory()?;
        for migration in self.migrations {
            ours.execute_batch(migration)?;
        }
        if definitions(connection)? != definitions(&ours)? {
            return corrupt("its tables are not those that kps makes");
        }
        Ok(())
    }
}

/// Held by the one process that writes; the operating system ends it with the process.
///
/// It is a lock of SQLite's on an empty file beside the database: it works on every platform, ends
/// with a killed process, and a forked child does not have it.
#[derive(Debug)]
pub(super) struct Lock {
    _connection: Connection,
}

impl Lock {
    /// Takes the lock for `path`, or says that another process has it.
    pub(super) fn take(path: &Path) -> Result<Lock> {
        let place = beside(path, "-lock");
        let file = File::Path(path.into());
        create_private(&place).map_err(|error| file.tell_io("lock", &error))?;
        let lock = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&place, flags)?;
            connection.busy_timeout(Duration::ZERO)?;
            connection.execute_batch("BEGIN EXCLUSIVE")?;
            Ok(connection)
        };
        match lock() {
            Ok(connection) => Ok(Lock { _connection: connection }),
            Err(Trouble::Sqlite(error))
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) =>
            {
                Err(Error::new(
                    ErrorKind::StoreFailed,
                    format!(
                        "{file} is in use by another process; end that one or use another path"
                    ),
                ))
            }
            Err(trouble) => Err(File::Path(place).tell(trouble)),
        }
    }
}

/// `path` with `suffix` appended to the file's name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Creates an empty file that only its owner may read; one that is there stays.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes a rename last through a power failure.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Without it SQLite plans a statement anew for every value that it is given.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // KiB.
    connection.pragma_update(None, "cache_size", -16_384)
}

fn user_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Name and definition of everything in the database.
fn definitions(connection: &Connection) -> rusqlite::Result<Vec<(String, String, String, String)>> {
    let sql = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}
