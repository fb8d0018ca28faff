//! The `id:` of an event: where its stream goes on behind it.

use std::fmt::Write;

use kps_proto::options::Cursor;

use super::super::Fault;

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Which stream; nobody can guess it.
    pub(super) stream: String,
    /// The number of the event in it.
    pub(super) number: u64,
    /// For each topic the place in history behind its last message, if it has one. Each has its own: one
    /// topic's messages may have come while another's still waited.
    pub(super) cursors: Vec<Option<Cursor>>,
}

impl Point {
    /// Reads what [`put`] wrote, for a stream of so many topics.
    pub(super) fn parse(text: &str, topics: usize) -> Result<Point, Fault> {
        let read = || {
            let mut parts = text.split('-');
            let stream = parts.next().filter(|key| !key.is_empty() && key.len() <= 64)?;
            let number = parts.next()?.parse().ok()?;
            let cursors: Option<Vec<_>> = parts
                .map(|cursor| match cursor {
                    "" => Some(None),
                    digits => Cursor::parse(&format!("@{digits}")).ok().map(Some),
                })
                .collect();
            let cursors = cursors.filter(|cursors| cursors.len() == topics)?;
            Some(Point { stream: stream.to_owned(), number, cursors })
        };
        read().ok_or_else(|| {
            let sentence = "Last-Event-ID is none that a stream of these topics gave; leave it out to \
                            begin anew";
            Fault::argument("last_event_id", sentence)
        })
    }
}

/// Writes a point.
pub(super) fn put<'a>(
    out: &mut String,
    stream: &str,
    number: u64,
    cursors: impl Iterator<Item = Option<&'a Cursor>>,
) {
    // Writing to a string does not fail.
    let _ = write!(out, "{stream}-{number}");
    for cursor in cursors {
        out.push('-');
        if let Some(cursor) = cursor {
            let text = cursor.to_string();
            out.push_str(text.trim_start_matches('@'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_reads_as_it_was_written() {
        let point = Point {
            stream: "0a1b".into(),
            number: 17,
            cursors: vec![None, Cursor::new(&[1, 2, 255]), None],
        };
        let mut text = String::new();
        put(&mut text, "0a1b", 17, point.cursors.iter().map(Option::as_ref));
        assert_eq!(text, "0a1b-17--0102ff-");
        assert_eq!(Point::parse(&text, 3).unwrap(), point);
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let long = format!("{}-1-", "a".repeat(65));
        for text in ["", "-", "a", "a-", "a-x-", "-1-", "a-1", "a-1--", "a-1-xyz", "a--1-", &long] {
            assert!(Point::parse(text, 1).is_err(), "{text}");
        }
    }
}
