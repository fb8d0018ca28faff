//! Whether a file is encrypted, and that a key is the right one.

use kps_proto::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension};

use super::seal::{Key, Place, Seal};
use crate::store::fault::File;

/// What the right key opens.
const PROOF: &[u8] = b"kps storage";

/// The key in use. An empty file becomes an encrypted one.
pub(super) fn open(
    connection: &Connection,
    key: Option<&Key>,
    file: &File,
) -> Result<Option<[u8; 32]>> {
    let sqlite = |error: rusqlite::Error| file.tell(error.into());
    let trouble = |trouble| file.tell(trouble);
    let refuse = |what: &str| Err(Error::new(ErrorKind::Unauthorized, format!("{file} {what}")));
    let kept = connection
        .query_row("SELECT derivation, salt, proof FROM encryption", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()
        .map_err(sqlite)?;
    match (kept, key) {
        (None, None) => Ok(None),
        (Some(_), None) => refuse("is encrypted: give its key"),
        (Some((derivation, ..)), Some(key)) if derivation != key.derivation() => {
            refuse(if derivation == "none" {
                "is encrypted with a key of 32 bytes, not with a passphrase"
            } else {
                "is encrypted with a passphrase, not with a key of 32 bytes"
            })
        }
        (Some((_, salt, proof)), Some(key)) => {
            let key = key.derive(&salt)?;
            match proof.split_first() {
                Some((form, sealed))
                    if Seal::new(false, Some(&key)).open(&Place::Proof, *form, sealed).is_ok() =>
                {
                    Ok(Some(key))
                }
                _ => refuse("is encrypted with another key"),
            }
        }
        (None, Some(key)) => {
            let used =
                "SELECT EXISTS (SELECT 1 FROM namespaces) OR EXISTS (SELECT 1 FROM contents)";
            if connection.query_row(used, [], |row| row.get(0)).map_err(sqlite)? {
                return refuse(
                    "holds values that are not encrypted: open it without a key, or copy them into \
                     a new one",
                );
            }
            let mut salt = [0; 16];
            getrandom::fill(&mut salt).map_err(|error| {
                Error::new(ErrorKind::Internal, format!("no random numbers: {error}"))
            })?;
            let derived = key.derive(&salt)?;
            let seal = Seal::new(false, Some(&derived));
            let (form, sealed) = seal.seal(&Place::Proof, 0, PROOF).map_err(trouble)?;
            let proof = [&[form], &*sealed].concat();
            connection
                .execute(
                    "INSERT INTO encryption VALUES (1, ?, ?, ?)",
                    (key.derivation(), salt, proof),
                )
                .map_err(sqlite)?;
            Ok(Some(derived))
        }
    }
}
