//! The tables of `values.db`; `SCHEMA.md` in the folder above explains them to people.

use crate::store::file::Kind;

/// The file of values.
pub(in crate::store) const VALUES: Kind =
    Kind { name: "file of values", application_id: 0x6b70_7303, migrations: &[FIRST] };

const FIRST: &str = "
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    form INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    content_type TEXT,
    content INTEGER,
    value BLOB,
    crc INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX items_by_key ON items (namespace, key);
CREATE INDEX items_by_expiry ON items (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE versions (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    form INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    content_type TEXT,
    content INTEGER,
    value BLOB,
    crc INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX versions_by_key ON versions (namespace, key, version);
CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    live INTEGER NOT NULL
) STRICT;
CREATE INDEX contents_to_remove ON contents (id) WHERE live = 0;
CREATE TABLE chunks (
    content INTEGER NOT NULL,
    start INTEGER NOT NULL,
    form INTEGER NOT NULL,
    size INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (content, start)
) STRICT, WITHOUT ROWID;
CREATE TABLE remotes (
    namespace INTEGER NOT NULL,
    key TEXT NOT NULL,
    current INTEGER NOT NULL,
    etag TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE encryption (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    derivation TEXT NOT NULL,
    salt BLOB NOT NULL,
    proof BLOB NOT NULL
) STRICT;
";

/// The columns that a [`Row`](super::row::Row) is read from, in its order.
macro_rules! columns {
    () => {
        "id, version, hash, form, size, modified_ms, expires_ms, content_type, content, crc, checksum"
    };
}
pub(super) use columns;
