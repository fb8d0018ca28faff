//! Acknowledged publishes: who the recipients are and which rows have come.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::event::{Event, Events, Target};
use crate::{
    clock::Time,
    error::{Error, ErrorKind, Result},
    message::{AckRow, HandlerError, Payload, RowStatus},
    wire::frame::Row,
};

/// How much later than the server we give up: rows that time out there are on their way.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Entries that an empty table may keep room for.
const WORTH_SHRINKING: usize = 4096;

/// Unfinished acks of one client.
const MOST: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Acks {
    table: HashMap<u64, Ack>,
    /// Deadlines of the table's acks, and of finished ones until there are too many.
    deadlines: BinaryHeap<Reverse<(Time, u64)>>,
    /// The last list of recipients: the next is often the same.
    recent: Option<Arc<[Arc<str>]>>,
}

#[derive(Debug)]
struct Ack {
    target: Target,
    /// Set for a request, which tells its outcome and no rows.
    request: Option<Request>,
    recipients: Option<Arc<[Arc<str>]>>,
    /// By recipient: whether it acked.
    rows: Vec<Option<bool>>,
    missing: usize,
}

/// What is remembered of a request's unsuccessful rows: a failing handler's if there is one, for it
/// says the most.
#[derive(Debug, Default)]
struct Request {
    failure: Option<(RowStatus, Error)>,
}

impl Request {
    fn note(&mut self, row: &AckRow) {
        let known = self.failure.as_ref().map(|(status, _)| *status);
        if let Some(error) = row.to_error()
            && (known.is_none() || row.status == RowStatus::Failed && known != Some(row.status))
        {
            self.failure = Some((row.status, error));
        }
    }

    fn into_error(self) -> Error {
        self.failure.map_or_else(
            || Error::new(ErrorKind::NoResponders, "nobody subscribes to the request's topic"),
            |(_, error)| error,
        )
    }
}

impl Acks {
    /// Whether one more may be opened.
    pub(super) fn check_room(&self) -> Result<()> {
        if self.table.len() < MOST {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("{MOST} acks are unfinished; wait for some before asking for more"),
        ))
    }

    pub(super) fn open(&mut self, number: u64, target: Target, deadline: Time, request: bool) {
        let request = request.then(Request::default);
        let ack = Ack { target, request, recipients: None, rows: Vec::new(), missing: 0 };
        self.table.insert(number, ack);
        self.deadlines.push(Reverse((deadline, number)));
        if self.deadlines.len() > 2 * self.table.len() + 64 {
            self.deadlines.retain(|Reverse((_, number))| self.table.contains_key(number));
        }
    }

    pub(super) fn recipients(&mut self, number: u64, clients: &[&str], events: &mut Events) {
        let Some(ack) = self.table.get_mut(&number) else { return };
        if ack.recipients.is_some() {
            return;
        }
        let list = match &self.recent {
            Some(recent) if recent.iter().map(|id| &**id).eq(clients.iter().copied()) => {
                recent.clone()
            }
            _ => clients.iter().map(|id| Arc::from(*id)).collect(),
        };
        self.recent = Some(list.clone());
        ack.rows = vec![None; list.len()];
        ack.missing = list.len();
        ack.recipients = Some(list.clone());
        if ack.request.is_none() {
            events.push((ack.target, Event::Recipients { ack: number, clients: list }));
        }
        self.finish_if_complete(number, events);
    }

    /// True if the other recipients need not answer any more: tell them.
    pub(super) fn row(&mut self, number: u64, row: &Row<'_>, events: &mut Events) -> bool {
        let Some(ack) = self.table.get_mut(&number) else { return false };
        let Some(list) = &ack.recipients else { return false };
        let at = row.recipient as usize;
        let Some(slot @ None) = ack.rows.get_mut(at) else { return false };
        // Streamed rows were not offered in the handshake.
        if row.more {
            return false;
        }
        *slot = Some(row.status == RowStatus::Acked);
        ack.missing -= 1;
        let row = AckRow {
            client_id: list[at].clone(),
            status: row.status,
            error: row
                .error
                .map(|(kind, text)| HandlerError { kind: kind.into(), text: text.into() }),
            data: row.data.map(|(content_type, bytes)| Payload {
                content_type,
                bytes: Bytes::copy_from_slice(bytes),
            }),
            latency: Duration::from_micros(row.latency_us),
        };
        match &mut ack.request {
            None => events.push((ack.target, Event::Row { ack: number, row })),
            Some(request) if !row.success() => request.note(&row),
            Some(_) => {
                let others = ack.missing > 0;
                events.push((ack.target, Event::RequestDone { ack: number, result: Ok(row) }));
                self.take(number);
                return others;
            }
        }
        self.finish_if_complete(number, events);
        false
    }

    fn finish_if_complete(&mut self, number: u64, events: &mut Events) {
        if self.table.get(&number).is_some_and(|ack| ack.missing == 0)
            && let Some(ack) = self.take(number)
        {
            let event = match ack.request {
                None => Event::AckDone { ack: number, error: None },
                Some(request) => {
                    Event::RequestDone { ack: number, result: Err(request.into_error()) }
                }
            };
            events.push((ack.target, event));
        }
    }

    /// Ends an ack here: recipients without a row get one with `status` and `error`.
    pub(super) fn end(
        &mut self,
        number: u64,
        status: RowStatus,
        error: &Error,
        events: &mut Events,
    ) -> bool {
        let Some(ack) = self.take(number) else { return false };
        if ack.request.is_some() {
            let event = Event::RequestDone { ack: number, result: Err(error.clone()) };
            events.push((ack.target, event));
            return true;
        }
        let rows = ack.recipients.iter().flat_map(|list| list.iter()).zip(&ack.rows);
        for (client_id, _) in rows.filter(|(_, row)| row.is_none()) {
            let error = HandlerError { kind: error.code().into(), text: error.message().into() };
            let row = AckRow {
                client_id: client_id.clone(),
                status,
                error: Some(error),
                data: None,
                latency: Duration::ZERO,
            };
            events.push((ack.target, Event::Row { ack: number, row }));
        }
        // Who closes its client stops asking: rows that nobody gave are no outcome.
        let untold = ack.recipients.is_none() || error.kind() == ErrorKind::Closed;
        let error = untold.then(|| error.clone());
        events.push((ack.target, Event::AckDone { ack: number, error }));
        true
    }

    /// Many acks at once must not leave their table's memory behind.
    fn take(&mut self, number: u64) -> Option<Ack> {
        let ack = self.table.remove(&number);
        if self.table.is_empty() && self.table.capacity() > WORTH_SHRINKING {
            self.table = HashMap::new();
        }
        ack
    }

    /// Ends those whose deadline has passed.
    pub(super) fn expire(&mut self, now: Time, events: &mut Events) {
        while let Some(Reverse((deadline, number))) = self.deadlines.peek().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            let error = Error::new(ErrorKind::Timeout, "no answer within the ack's timeout");
            self.end(number, RowStatus::Timeout, &error, events);
        }
        if self.deadlines.is_empty() && self.deadlines.capacity() > WORTH_SHRINKING {
            self.deadlines = BinaryHeap::new();
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Acks of publishes up to `number`, oldest first.
    pub(super) fn up_to(&self, number: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> =
            self.table.keys().copied().filter(|open| *open <= number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Which recipients there are and, where known, whether they acked; `None` for an ack that is
    /// over, or whose recipients are not known yet.
    pub(super) fn status(&self, number: u64) -> Option<Vec<(Arc<str>, Option<bool>)>> {
        let ack = self.table.get(&number)?;
        let list = ack.recipients.as_ref()?;
        Some(list.iter().cloned().zip(ack.rows.iter().copied()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(recipient: u32) -> Row<'static> {
        Row {
            number: 1,
            recipient,
            more: false,
            status: RowStatus::Acked,
            latency_us: 5,
            error: None,
            data: None,
        }
    }

    fn opened() -> (Acks, Events) {
        let mut acks = Acks::default();
        acks.open(1, Target(3), Time::from_micros(100), false);
        (acks, Events::new())
    }

    fn kinds(events: &Events) -> String {
        events
            .iter()
            .map(|(target, event)| {
                assert_eq!(*target, Target(3));
                match event {
                    Event::Recipients { .. } => 'R',
                    Event::Row { .. } => 'r',
                    Event::AckDone { error: None, .. } => 'd',
                    Event::AckDone { error: Some(_), .. } => 'e',
                    other => panic!("{other:?}"),
                }
            })
            .collect()
    }

    #[test]
    fn it_is_over_with_the_last_row_and_then_takes_no_memory() {
        let (mut acks, mut events) = opened();
        acks.recipients(1, &["a", "b"], &mut events);
        acks.row(1, &row(1), &mut events);
        assert_eq!(acks.status(1), Some(vec![("a".into(), None), ("b".into(), Some(true))]));
        acks.row(1, &row(0), &mut events);
        assert_eq!(kinds(&events), "Rrrd");
        assert_eq!((acks.len(), acks.status(1)), (0, None));
    }

    #[test]
    fn without_recipients_it_is_over_at_once() {
        let (mut acks, mut events) = opened();
        acks.recipients(1, &[], &mut events);
        assert_eq!(kinds(&events), "Rd");
    }

    #[test]
    fn rows_that_cannot_be_are_ignored() {
        let (mut acks, mut events) = opened();
        acks.row(1, &row(0), &mut events);
        acks.recipients(2, &["a"], &mut events);
        acks.recipients(1, &["a", "b"], &mut events);
        acks.recipients(1, &["c"], &mut events);
        acks.row(1, &row(9), &mut events);
        acks.row(1, &row(0), &mut events);
        acks.row(1, &row(0), &mut events);
        assert_eq!(kinds(&events), "Rr");
    }

    #[test]
    fn a_deadline_gives_missing_rows_their_end_or_says_that_recipients_never_were_known() {
        let (mut acks, mut events) = opened();
        acks.open(2, Target(3), Time::from_micros(200), false);
        acks.recipients(1, &["a", "b"], &mut events);
        acks.row(1, &row(0), &mut events);
        acks.expire(Time::from_micros(99), &mut events);
        assert_eq!(kinds(&events), "Rr");
        acks.expire(Time::from_micros(200), &mut events);
        assert_eq!(kinds(&events), "Rrrde");
        assert_eq!((acks.len(), acks.deadline()), (0, None));
    }

    /// What a request to `recipients` tells after `statuses` came in; and whether others were to
    /// be cancelled.
    fn requested(
        recipients: &[&str],
        statuses: &[RowStatus],
    ) -> (Vec<Result<String, ErrorKind>>, bool) {
        let (mut acks, mut events, mut cancel) = (Acks::default(), Events::new(), false);
        acks.open(1, Target(3), Time::from_micros(100), true);
        acks.recipients(1, recipients, &mut events);
        for (at, status) in statuses.iter().enumerate() {
            cancel |= acks.row(1, &Row { status: *status, ..row(at as u32) }, &mut events);
        }
        let outcomes = events.into_iter().map(|(_, event)| match event {
            Event::RequestDone { ack: 1, result } => {
                result.map(|row| row.client_id.to_string()).map_err(|error| error.kind())
            }
            other => panic!("{other:?}"),
        });
        (outcomes.collect(), cancel)
    }

    #[test]
    fn a_request_tells_the_first_success_or_why_there_can_be_none() {
        use RowStatus::{Acked, Disconnected, Failed, NoHandler};
        let failed = vec![Err(ErrorKind::HandlerFailed)];
        let nobody = vec![Err(ErrorKind::NoResponders)];
        assert_eq!(requested(&[], &[]), (nobody.clone(), false));
        assert_eq!(requested(&["a"], &[NoHandler]), (nobody, false));
        assert_eq!(requested(&["a"], &[Acked]), (vec![Ok("a".into())], false));
        assert_eq!(requested(&["a", "b", "c"], &[Failed, Acked]), (vec![Ok("b".into())], true));
        assert_eq!(requested(&["a", "b"], &[Failed]), (vec![], false));
        assert_eq!(
            requested(&["a", "b", "c"], &[NoHandler, Failed, Disconnected]),
            (failed, false)
        );
    }

    #[test]
    fn a_request_that_times_out_tells_that_alone() {
        let (mut acks, mut events) = (Acks::default(), Events::new());
        acks.open(1, Target(3), Time::from_micros(100), true);
        acks.recipients(1, &["a"], &mut events);
        acks.expire(Time::from_micros(100), &mut events);
        let [(Target(3), Event::RequestDone { result: Err(error), .. })] = &*events else {
            panic!("{events:?}")
        };
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }

    #[test]
    fn finished_acks_do_not_pile_up_deadlines() {
        let mut acks = Acks::default();
        let mut events = Events::new();
        for number in 0..10_000 {
            acks.open(number, Target(0), Time::from_micros(1_000_000), false);
            acks.recipients(number, &[], &mut events);
        }
        assert!(acks.deadlines.len() <= 66);
    }
}
