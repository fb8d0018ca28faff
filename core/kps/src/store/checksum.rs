//! The checksum that every row carries.

use crc32fast::Hasher;

/// CRC-32 over the columns of one row, the table's name first. Finds every single flipped bit, and
/// other damage but for one case in four thousand million. It is no protection against forgery.
pub(super) struct Checksum(Hasher);

impl Checksum {
    /// Of a row of `table`.
    pub(super) fn of(table: &str) -> Self {
        Checksum(Hasher::new()).text(table)
    }

    pub(super) fn int(mut self, value: u64) -> Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    pub(super) fn ints<const N: usize>(self, values: [u64; N]) -> Self {
        values.into_iter().fold(self, Checksum::int)
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        // The length first, so that bytes cannot move from one column to the next.
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
        self
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    /// As the column keeps it.
    pub(super) fn done(self) -> i64 {
        i64::from(self.0.finalize())
    }
}

/// The sum of all checksums of a table. It is kept apart from the table, so that no row can be
/// missing, be there twice, or be an older one that SQLite has not overwritten yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(i64);

impl Sum {
    /// From the column that keeps it.
    pub(super) fn new(sum: i64) -> Sum {
        Sum(sum)
    }

    /// As the column keeps it.
    pub(super) fn get(self) -> i64 {
        self.0
    }

    /// A row with this checksum was added.
    pub(super) fn add(&mut self, checksum: i64) {
        self.0 = self.0.wrapping_add(checksum);
    }

    /// The row with this checksum is gone.
    pub(super) fn remove(&mut self, checksum: i64) {
        self.0 = self.0.wrapping_sub(checksum);
    }
}
