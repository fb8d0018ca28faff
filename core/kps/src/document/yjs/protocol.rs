//! What Yjs providers say to each other over a connection: sync, awareness, and that somebody may not.

use super::lib0::{Reader, put_buffer, put_int};

const SYNC: u64 = 0;
const AWARENESS: u64 = 1;
const AUTH: u64 = 2;
const QUERY_AWARENESS: u64 = 3;

const STEP_1: u64 = 0;
const STEP_2: u64 = 1;
const UPDATE: u64 = 2;

/// Something that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// A state vector: answer with what is missing.
    Step1(&'a [u8]),
    /// What was missing.
    Step2(&'a [u8]),
    /// What was just done.
    Update(&'a [u8]),
    /// Who is there.
    Awareness(&'a [u8]),
    /// Asks who is there.
    QueryAwareness,
    /// Something else, which is skipped.
    Other,
}

/// Reads a message; `None`: it is none.
pub(crate) fn read(message: &[u8]) -> Option<Said<'_>> {
    let mut reader = Reader::new(message);
    Some(match reader.int()? {
        SYNC => match reader.int()? {
            STEP_1 => Said::Step1(reader.buffer()?),
            STEP_2 => Said::Step2(reader.buffer()?),
            UPDATE => Said::Update(reader.buffer()?),
            _ => Said::Other,
        },
        AWARENESS => Said::Awareness(reader.buffer()?),
        QUERY_AWARENESS => Said::QueryAwareness,
        _ => Said::Other,
    })
}

/// What is known: the other one answers with what is missing.
pub(crate) fn step_1(state_vector: &[u8]) -> Vec<u8> {
    message(&[SYNC, STEP_1], state_vector)
}

/// What was missing.
pub(crate) fn step_2(update: &[u8]) -> Vec<u8> {
    message(&[SYNC, STEP_2], update)
}

/// What was just done.
pub(crate) fn update(update: &[u8]) -> Vec<u8> {
    message(&[SYNC, UPDATE], update)
}

/// Who is there.
pub(crate) fn awareness(update: &[u8]) -> Vec<u8> {
    message(&[AWARENESS], update)
}

/// That somebody may not.
pub(crate) fn denied(reason: &str) -> Vec<u8> {
    message(&[AUTH, 0], reason.as_bytes())
}

fn message(kinds: &[u64], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    kinds.iter().for_each(|kind| put_int(&mut out, *kind));
    put_buffer(&mut out, bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        assert_eq!(read(&step_1(b"known")), Some(Said::Step1(b"known")));
        assert_eq!(read(&step_2(b"missing")), Some(Said::Step2(b"missing")));
        assert_eq!(read(&update(b"new")), Some(Said::Update(b"new")));
        assert_eq!(read(&awareness(b"here")), Some(Said::Awareness(b"here")));
        assert_eq!(read(&[3]), Some(Said::QueryAwareness));
        for other in [&denied("no")[..], &[0, 9], &[4, 1, 2, 3], &[100]] {
            assert_eq!(read(other), Some(Said::Other));
        }
        for none in [&[][..], &[0], &[0, 0, 5, 1], &[1, 200], &[0xff; 12]] {
            assert_eq!(read(none), None);
        }
    }
}
