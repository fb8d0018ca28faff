//! How batches of events reach a host's event loop: a queue that wakes its reader only on the edge
//! from empty to non-empty, because a wake costs as much as handling ten messages.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// A queue from the runtime thread (many producers are fine) to one reader.
///
/// The reader calls [`drain`](Self::drain) whenever it is woken. What it holds is bounded by what
/// its producers may send: delivery windows, publish windows.
pub struct Mailbox<T> {
    id: u32,
    state: Mutex<State<T>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

struct State<T> {
    queue: VecDeque<T>,
    /// The reader found the queue empty (or never looked): the next push must wake it.
    armed: bool,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// An empty mailbox. `wake` is called from any thread, never under a lock of kps; it must not
    /// block, and has to lead to a [`drain`](Self::drain) on the reader's own thread.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Mailbox {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State { queue: VecDeque::new(), armed: true, closed: false }),
            wake: Box::new(wake),
        }
    }

    /// Unique in the process, never 0.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Appends `items`; wakes the reader if it may be asleep. `false` (and nothing is kept) once
    /// the mailbox is [closed](Self::close).
    pub fn push_all(&self, items: impl IntoIterator<Item = T>) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.queue.extend(items);
        let wake = state.armed && !state.queue.is_empty();
        if wake {
            state.armed = false;
        }
        drop(state);
        if wake {
            (self.wake)();
        }
        true
    }

    /// [`push_all`](Self::push_all) of one item.
    pub fn push(&self, item: T) -> bool {
        self.push_all([item])
    }

    /// Moves up to `max` items to the end of `out`. If some are left it wakes the reader again, so
    /// that a loop serves others in between, and returns `true`.
    pub fn drain(&self, max: usize, out: &mut Vec<T>) -> bool {
        let mut state = self.lock();
        let count = state.queue.len().min(max);
        out.extend(state.queue.drain(..count));
        let more = !state.queue.is_empty();
        state.armed = !more;
        drop(state);
        if more {
            (self.wake)();
        }
        more
    }

    /// Gives back the room that a burst took and nothing needs now.
    pub fn shrink(&self) {
        self.lock().queue.shrink_to_fit();
    }

    /// Drops what waits and refuses what comes: the reader's loop is gone.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic cannot leave the queue half-changed: only item moves happen under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Mailbox")
            .field("id", &self.id)
            .field("waiting", &state.queue.len())
            .field("armed", &state.armed)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize, mpsc};

    use super::*;

    fn counting() -> (Arc<AtomicUsize>, Mailbox<u32>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = wakes.clone();
        (
            wakes,
            Mailbox::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
        )
    }

    #[test]
    fn only_the_edge_from_empty_wakes() {
        let (wakes, mailbox) = counting();
        mailbox.push_all([]);
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
        mailbox.push_all([1, 2]);
        mailbox.push(3);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        let mut out = Vec::new();
        assert!(!mailbox.drain(10, &mut out));
        assert_eq!(out, [1, 2, 3]);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        mailbox.push(4);
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_bounded_drain_wakes_again_for_the_rest() {
        let (wakes, mailbox) = counting();
        mailbox.push_all([1, 2, 3]);
        let mut out = Vec::new();
        assert!(mailbox.drain(2, &mut out));
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
        mailbox.push(4);
        assert_eq!(wakes.load(Ordering::Relaxed), 2, "the reader is already on its way");
        assert!(!mailbox.drain(2, &mut out));
        assert_eq!(out, [1, 2, 3, 4]);
    }

    #[test]
    fn an_empty_drain_keeps_the_edge() {
        let (wakes, mailbox) = counting();
        assert!(!mailbox.drain(8, &mut Vec::new()));
        mailbox.push(1);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_closed_mailbox_keeps_nothing() {
        let (wakes, mailbox) = counting();
        mailbox.push(1);
        mailbox.close();
        assert!(!mailbox.push(2));
        let mut out = Vec::new();
        assert!(!mailbox.drain(8, &mut out));
        assert!(out.is_empty());
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_wake_may_drain_at_once() {
        // A host whose wake runs inline must not meet a held lock.
        let slot: Arc<Mutex<Option<Arc<Mailbox<u32>>>>> = Arc::default();
        let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let (slot_in, seen_in) = (slot.clone(), seen.clone());
        let mailbox = Arc::new(Mailbox::new(move || {
            if let Some(mailbox) = slot_in.lock().unwrap().as_ref() {
                mailbox.drain(16, &mut seen_in.lock().unwrap());
            }
        }));
        *slot.lock().unwrap() = Some(mailbox.clone());
        mailbox.push_all([1, 2]);
        mailbox.push(3);
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    }

    /// Producers race a reader that sleeps unless woken: a lost edge would hang it, so the test
    /// ends only if every item was announced.
    #[test]
    fn no_edge_is_lost_under_contention() {
        const PRODUCERS: u32 = 4;
        const EACH: u32 = 50_000;
        let (wake, woken) = mpsc::channel();
        let mailbox = Arc::new(Mailbox::new(move || {
            // The reader may be done already.
            let _ = wake.send(());
        }));
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    let mut next = 0;
                    while next < EACH {
                        let end = (next + 1 + next % 7).min(EACH);
                        mailbox.push_all((next..end).map(|n| producer * EACH + n));
                        next = end;
                    }
                })
            })
            .collect();
        let mut out = Vec::new();
        let mut wakes = 0;
        while out.len() < (PRODUCERS * EACH) as usize {
            woken.recv().unwrap();
            wakes += 1;
            mailbox.drain(97, &mut out);
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert!(wakes <= out.len(), "never more wakes than items");
        for producer in 0..PRODUCERS {
            let own = out.iter().filter(|&&n| n / EACH == producer);
            assert!(own.is_sorted(), "each producer's order is kept");
        }
    }
}
