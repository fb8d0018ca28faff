//! Long work on a store's thread lets others have the processor now and then: a scheduler gives a thread
//! that works some milliseconds before it looks at those that just woke, and these may be the ones that carry
//! live messages.

/// Rows between two breaths: about 100 µs.
const ROWS: u32 = 32;

#[derive(Debug, Default)]
pub(super) struct Breath {
    rows: u32,
}

impl Breath {
    /// One more row is written.
    pub(super) fn row(&mut self) {
        self.rows += 1;
        if self.rows == ROWS {
            self.rows = 0;
            std::thread::yield_now();
        }
    }
}
