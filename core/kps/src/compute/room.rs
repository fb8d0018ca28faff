//! How much may wait.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kps_proto::ErrorKind;

use crate::capability::Failure;

/// What is waiting or running, and how much that may be.
#[derive(Debug)]
pub(super) struct Room {
    tasks: AtomicUsize,
    bytes: AtomicUsize,
    max_tasks: usize,
    max_bytes: usize,
}

impl Room {
    pub(super) fn new(max_tasks: usize, max_bytes: usize) -> Arc<Room> {
        Arc::new(Room {
            tasks: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_tasks,
            max_bytes,
        })
    }

    /// Room for `tasks` tasks that hold `bytes` bytes. What is alone may hold more bytes than the
    /// limit: it is in memory already.
    ///
    /// # Errors
    /// `quota_exceeded`, retryable if there will be room later.
    pub(super) fn take(self: &Arc<Self>, tasks: usize, bytes: usize) -> Result<Taken, Failure> {
        if tasks > self.max_tasks {
            let most = self.max_tasks;
            let sentence = format!("{tasks} tasks at once are too many: at most {most} may wait");
            return Err(Failure::new(ErrorKind::QuotaExceeded, sentence));
        }
        // Taken first and looked at then: two callers must not both see the last place.
        let taken = Taken { room: self.clone(), tasks, bytes };
        let before = (
            self.tasks.fetch_add(tasks, Ordering::Relaxed),
            self.bytes.fetch_add(bytes, Ordering::Relaxed),
        );
        let full = match before {
            (waiting, _) if waiting.saturating_add(tasks) > self.max_tasks => {
                format!("{waiting} tasks are waiting; at most {} may", self.max_tasks)
            }
            (_, held) if held > 0 && held.saturating_add(bytes) > self.max_bytes => {
                let most = self.max_bytes;
                format!("the tasks that are waiting hold {held} bytes; at most {most} may be held")
            }
            _ => return Ok(taken),
        };
        let sentence = format!("no room for {tasks} more tasks: {full}; try again later");
        Err(Failure::new(ErrorKind::QuotaExceeded, sentence).retryable())
    }
}

/// Room that is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    room: Arc<Room>,
    tasks: usize,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.tasks.fetch_sub(self.tasks, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let room = Room::new(10, 100);
        let first = room.take(6, 10).unwrap();
        let refused = room.take(5, 10).unwrap_err();
        assert_eq!((refused.kind, refused.retry), (ErrorKind::QuotaExceeded, true));
        drop(first);
        let _all = room.take(10, 10).unwrap();
    }

    #[test]
    fn bytes_count_unless_they_are_alone() {
        let room = Room::new(10, 100);
        let large = room.take(1, 1_000).unwrap();
        assert!(room.take(1, 1).unwrap_err().retry);
        drop(large);
        let _small = room.take(1, 60).unwrap();
        assert!(room.take(1, 60).unwrap_err().retry);
    }

    #[test]
    fn more_than_ever_fits_is_not_retryable() {
        let refused = Room::new(10, 100).take(11, 0).unwrap_err();
        assert!(!refused.retry);
        assert!(refused.message.contains("at most 10"), "{refused}");
    }
}
