//! Counting the server's reports (`RECIPIENTS`, `ROW`, refused publishes), so that it can forget
//! them once they have arrived.

/// The server is told at least after so many.
const BATCH: u64 = 64;

#[derive(Debug, Default)]
pub(super) struct Reports {
    received: u64,
    told: u64,
    hurried: bool,
}

impl Reports {
    /// One more came.
    pub(super) fn note(&mut self) {
        self.received += 1;
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the server is to be told now.
    pub(super) fn is_due(&self) -> bool {
        self.hurried || self.received - self.told >= BATCH
    }

    /// What could wait has waited long enough.
    pub(super) fn hasten(&mut self) {
        self.hurried = self.received > self.told;
    }

    /// The count to tell.
    pub(super) fn take(&mut self) -> u64 {
        self.told = self.received;
        self.hurried = false;
        self.received
    }

    /// A session begins, whose reports are counted from 0.
    pub(super) fn restart(&mut self) {
        *self = Reports::default();
    }
}
