//! Asking the server for a document; large content comes in parts.

use std::{sync::Arc, time::Duration};

use kps_proto::ErrorKind;

use super::{OpenDocument, call, presence::Present};
use crate::{
    capability::{Failure, Map, Router, Value},
    client::Client,
    document::engine::{Applied, Kind, Opened, Snapshot, Version},
};

/// Times that a document which changes while it is read is read again.
const TRIES: usize = 10;
/// Answers that tell of one document; after more than twice as many as a server needs by default (16 MiB in parts of
/// 128 KiB) the content has to do.
const PARTS: usize = 256;

/// A client's way to what the server has: what is opened, and what happened since, in order.
pub(super) struct Way {
    pub(super) parts: Vec<Opened>,
    pub(super) present: Vec<Present>,
}

/// What a client has of a document already.
pub(super) struct Known {
    pub(super) lineage: Arc<str>,
    /// The best first.
    pub(super) versions: Vec<Version>,
    /// Whether it has operations to move over what happened: it needs all of that.
    pub(super) has_own: bool,
}

/// How a document is asked for.
pub(super) struct Opening {
    pub(super) router: Router,
    id: Arc<str>,
    kind: Kind,
    timeout: Duration,
}

impl Opening {
    pub(super) fn new(client: &Client, id: &str, options: &OpenDocument) -> Opening {
        Opening {
            router: client.capabilities(),
            id: id.into(),
            kind: options.kind,
            timeout: options.timeout,
        }
    }

    /// Opens it; with what is known already, only what happened since is told, where that is less.
    pub(super) async fn ask(&self, known: Option<Known>) -> Result<Way, Failure> {
        let known_before = known.as_ref().map_or(Vec::new(), |known| known.versions.clone());
        let (mut part, mut present) = self.ask_once(known).await?;
        let mut parts = Vec::new();
        while part.more {
            let lineage = part.opened.lineage.clone();
            // A server that starts again meanwhile may know what was known before.
            let mut versions = vec![part.opened.version];
            versions.extend(&known_before);
            parts.push(part.opened);
            let has_own = parts.len() < PARTS;
            if !has_own {
                parts.clear();
                versions.clear();
            }
            let known = Known { lineage, versions, has_own };
            (part, present) = self.ask_once(Some(known)).await?;
        }
        parts.push(part.opened);
        Ok(Way { parts, present })
    }

    async fn ask_once(&self, known: Option<Known>) -> Result<(Part, Vec<Present>), Failure> {
        let in_parts = known.as_ref().is_none_or(|known| known.has_own);
        let mut fields = vec![("kind", self.kind.as_str().into()), ("in_parts", in_parts.into())];
        if let Some(known) = known {
            let versions: Vec<Value> =
                known.versions.iter().map(|it| it.to_string().into()).collect();
            fields.extend([("lineage", Value::from(&*known.lineage)), ("known", versions.into())]);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let answer =
                call::call(&self.router, "open", &self.id, fields.clone(), self.timeout).await?;
            match self.opened(answer).await {
                // It was compacted while it was read.
                Err(failure) if failure.kind == ErrorKind::NotFound && tries < TRIES => {}
                opened => return opened,
            }
        }
    }

    /// The content that a version had.
    pub(super) async fn read(&self, version: Version) -> Result<Snapshot, Failure> {
        let fields = [("version", version.to_string().into())];
        let answer = call::call(&self.router, "at", &self.id, fields, self.timeout).await?;
        self.content(&answer, version).await?.ok_or_else(unreadable)
    }

    async fn opened(&self, answer: Value) -> Result<(Part, Vec<Present>), Failure> {
        let version = call::version(&answer, "version").ok_or_else(unreadable)?;
        let missing = || -> Option<Vec<Applied>> { call::plain(answer.get("missing_ops")?) };
        let since = call::version(&answer, "since").and_then(|since| Some((since, missing()?)));
        let opened = Opened {
            kind: self.kind,
            lineage: call::text(&answer, "lineage").ok_or_else(unreadable)?.into(),
            version,
            checkpointed: call::version(&answer, "checkpointed").unwrap_or_default(),
            durable: answer.get("durable") == Some(&Value::Bool(true)),
            since,
            snapshot: self.content(&answer, version).await?,
        };
        let present = answer.get("presence").and_then(call::plain);
        let more = answer.get("more") == Some(&Value::Bool(true));
        Ok((Part { opened, more }, present.unwrap_or_default()))
    }

    /// What is in the answer, and what it begins.
    async fn content(&self, answer: &Value, version: Version) -> Result<Option<Snapshot>, Failure> {
        if let Some(text) = call::text(answer, "text") {
            return Ok(Some(Snapshot::Text(text.to_owned())));
        }
        if let Some(value) = answer.get("value") {
            return Ok(Some(Snapshot::Value(call::plain(value).ok_or_else(unreadable)?)));
        }
        let Some(first) = call::text(answer, "part") else { return Ok(None) };
        let mut all = first.to_owned();
        let mut next = answer.get("next").cloned();
        while let Some(offset @ Value::Int(_)) = next {
            let fields = [("version", version.to_string().into()), ("offset", offset)];
            let part = call::call(&self.router, "at", &self.id, fields, self.timeout).await?;
            let text = call::text(&part, "part").filter(|text| !text.is_empty());
            all.push_str(text.ok_or_else(unreadable)?);
            next = part.get("next").cloned();
        }
        match self.kind {
            Kind::Text => Ok(Some(Snapshot::Text(all))),
            Kind::Json | Kind::Yjs => {
                let value = serde_json::from_str(&all).map_err(|_| unreadable())?;
                Ok(Some(Snapshot::Value(value)))
            }
        }
    }

    /// Sends operations.
    pub(super) async fn send(
        router: Router,
        id: Arc<str>,
        author: Arc<str>,
        lineage: Option<Arc<str>>,
        operations: Vec<Map>,
        timeout: Duration,
    ) -> crate::capability::Outcome {
        let operations: Vec<Value> = operations.into_iter().map(Value::from).collect();
        let fields = [
            ("author", Value::from(&*author)),
            ("lineage", lineage.map(|lineage| lineage.to_string()).into()),
            ("operations", operations.into()),
        ];
        call::call(&router, "edit_batch", &id, fields, timeout).await
    }
}

/// One answer; `more`: what happened after it is told by another one.
struct Part {
    opened: Opened,
    more: bool,
}

fn unreadable() -> Failure {
    let sentence = "the server's answer is not known: it may be another version of kps";
    Failure::new(ErrorKind::Unsupported, sentence)
}
