//! One who writes.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    super::super::{
        client::courtesy::Courtesy,
        engine::{Applied, Edit, Kind, Manners, News, Opened, Outgoing, Replica, Snapshot},
    },
    Random, Truth,
};
use crate::document::{DocumentEvent, Version};

/// Operations of one message.
const BATCH: usize = 128;

/// Something that was told, and when it is here.
pub(super) struct Heard {
    pub(super) at: u64,
    pub(super) event: Arc<DocumentEvent>,
}

pub(super) struct Client {
    number: usize,
    replica: Option<Replica>,
    courtesy: Courtesy,
    start: Instant,
    pub(super) is_connected: bool,
    /// How many lines it has lost.
    pub(super) line: u32,
    pub(super) latency: u64,
    /// Operations it has yet to write.
    pub(super) left: usize,
    pub(super) inbox: VecDeque<Heard>,
    pub(super) wakes_at: u64,
}

impl Client {
    pub(super) fn new(number: usize, latency: u64, left: usize) -> Client {
        Client {
            number,
            replica: None,
            courtesy: Courtesy::default(),
            start: Instant::now(),
            is_connected: false,
            line: 0,
            latency,
            left,
            inbox: VecDeque::new(),
            wakes_at: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.replica.is_some()
    }

    fn replica(&mut self) -> &mut Replica {
        self.replica.as_mut().expect("it has opened the document")
    }

    pub(super) fn count_pending(&self) -> usize {
        self.replica.as_ref().map_or(1, Replica::count_pending)
    }

    pub(super) fn unsynced(&self) -> impl Iterator<Item = Arc<str>> + use<> {
        self.replica.as_ref().map(Replica::unsynced).unwrap_or_default().into_iter()
    }

    pub(super) fn text(&self) -> String {
        match self.replica.as_ref().map(Replica::snapshot) {
            Some(Snapshot::Text(text)) => text,
            _ => String::new(),
        }
    }

    pub(super) fn known(&self) -> Option<(Arc<str>, Vec<Version>)> {
        self.replica.as_ref().map(Replica::known)
    }

    /// Writes something; returns the operation's id.
    pub(super) fn write(
        &mut self,
        number: usize,
        deletes: bool,
        is_stream: bool,
        random: &mut Random,
    ) -> Arc<str> {
        let op_id: Arc<str> = format!("<{number}>").into();
        let length = self.replica().length();
        let at = random.below(length as u64 + 1) as usize;
        let edit = match random.below(10) {
            _ if is_stream => Edit::append(&*op_id),
            0..3 if deletes => Edit::delete(at, (random.below(12) as usize).min(length - at)),
            3 if deletes => Edit::replace(at, 4.min(length - at), &*op_id),
            4..6 => Edit::append(&*op_id),
            _ => Edit::insert(at, &*op_id),
        };
        self.replica().edit(op_id.clone(), vec![edit], Manners::default()).expect("it fits");
        op_id
    }

    fn at(&self, now: u64) -> tokio::time::Instant {
        (self.start + Duration::from_millis(now)).into()
    }

    /// Until when it lets others go first.
    pub(super) fn waits_until(&self, now: u64) -> Option<u64> {
        let own = self.replica.as_ref()?.next_conflicts()?;
        let until = self.courtesy.wait_at(own, self.at(now))?;
        let pause = until.duration_since(self.start.into()).as_millis() as u64;
        Some(pause).filter(|until| *until > now)
    }

    /// A batch, if it is time for one.
    pub(super) fn outgoing(&mut self) -> Option<serde_json::Value> {
        let batch = self.replica.as_mut()?.outgoing(BATCH, 100_000);
        let lineage = batch.first()?.base.as_ref().map(|(_, lineage)| lineage.clone());
        let operation = |it: &Outgoing| {
            let base = it.base.as_ref().map(|(version, _)| version.to_string());
            json!({"op_id": it.op_id, "base_version": base, "edit": it.edits})
        };
        let operations: Vec<_> = batch.iter().map(operation).collect();
        let author = format!("client {}", self.number);
        Some(json!({"id": "d", "author": author, "lineage": lineage, "operations": operations}))
    }

    pub(super) fn refused(&mut self) {
        self.replica().lost();
    }

    pub(super) fn cut(&mut self) {
        self.line += 1;
        self.inbox.clear();
        if let Some(replica) = &mut self.replica {
            replica.lost();
        }
    }

    /// Returns whether it has to open the document again.
    pub(super) fn hear(&mut self, event: &DocumentEvent, now: u64, truth: &mut Truth) -> bool {
        let instant = self.at(now.min(1 << 40));
        let replica = self.replica.as_mut().expect("it has opened the document");
        match event {
            // What others are told is nothing to it, and a hundred copies of it take long.
            DocumentEvent::Conflict { op_id, .. } if !replica.is_sent(op_id) => {
                self.courtesy.conflict_at(op_id, instant);
                return false;
            }
            DocumentEvent::Ack { op_id, .. } | DocumentEvent::Rejected { op_id, .. } => {
                self.courtesy.over(op_id);
                if !replica.is_sent(op_id) {
                    return false;
                }
            }
            _ => {}
        }
        let news = replica.hear(event.clone());
        self.take(news, truth)
    }

    pub(super) fn opened(
        &mut self,
        answer: &serde_json::Value,
        text: Option<String>,
        truth: &mut Truth,
    ) -> bool {
        let version = |name: &str| answer[name].as_str().and_then(|text| text.parse().ok());
        let missing = answer.get("missing_ops").cloned();
        let missing: Option<Vec<Applied>> = missing.map(|it| serde_json::from_value(it).unwrap());
        let opened = Opened {
            kind: Kind::Text,
            lineage: answer["lineage"].as_str().unwrap().into(),
            version: version("version").unwrap(),
            checkpointed: version("checkpointed").unwrap(),
            durable: true,
            since: version("since").zip(missing),
            snapshot: text.map(Snapshot::Text),
        };
        self.is_connected = true;
        // A new subscription begins with what is opened.
        self.inbox.clear();
        let Some(replica) = &mut self.replica else {
            self.replica = Some(Replica::new(opened, 1_000));
            return true;
        };
        let news = replica.reopened(opened);
        !self.take(news, truth)
    }

    fn take(&mut self, news: Vec<News>, truth: &mut Truth) -> bool {
        let mut is_lost = false;
        for news in news {
            match news {
                News::Conflict { op_id, .. } => truth.conflict(op_id),
                News::Failed { op_id, code, .. } => panic!("{op_id} failed: {code}"),
                News::OutOfStep => is_lost = true,
                News::Acked { .. } | News::Changed { .. } => {}
            }
        }
        is_lost
    }
}
