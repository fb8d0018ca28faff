//! Who is at a document, and what they tell of themselves: it is in memory alone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use kps_proto::ErrorKind;

use super::{Inner, calls::Caller, engine::DocumentEvent, shelf::Name};
use crate::capability::{Failure, Fields, Outcome, Value};

/// Those at one document.
const MOST: usize = 1000;
/// Bytes of a state's JSON.
const MAX_STATE: usize = 4 << 10;
/// Longest name of somebody, in bytes.
const MAX_NAME: usize = 256;
/// Bytes of all of it, about.
const MEMORY: usize = 64 << 20;
/// Bytes of one beside its texts, about.
const EACH: usize = 512;
/// One without a session is there for so long after it said so last.
const LASTING: Duration = Duration::from_secs(30);

/// Everybody who is at a document.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// How often each client says that somebody is there: most say nothing.
    owners: HashMap<Arc<str>, usize>,
    documents: HashMap<Name, BTreeMap<Arc<str>, There>>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct There {
    /// The client that said so.
    owner: Arc<str>,
    author: Arc<str>,
    state: serde_json::Value,
    weight: usize,
    /// When it was said last.
    said: u64,
    /// When it ends; `None`: with its owner's session.
    until: Option<u64>,
}

/// Somebody to tell of.
type News = (Name, DocumentEvent);

impl Presence {
    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    fn set(&mut self, name: &Name, client: Arc<str>, there: There) -> Result<(), Failure> {
        let others = self.documents.get(name);
        let before = others.and_then(|others| others.get(&client));
        if before.is_some_and(|before| before.owner != there.owner && before.until.is_none()) {
            let sentence = format!("{client:?} is another client; take another name");
            return Err(Failure::new(ErrorKind::Conflict, sentence));
        }
        let bytes = self.bytes + there.weight - before.map_or(0, |before| before.weight);
        let is_full = before.is_none() && others.is_some_and(|others| others.len() >= MOST);
        if is_full || bytes > MEMORY {
            let sentence = "too many are there; their names and cursors are not told";
            return Err(Failure::new(ErrorKind::LimitExceeded, sentence).retryable());
        }
        self.bytes = bytes;
        let left = before.map(|before| before.owner.clone());
        *self.owners.entry(there.owner.clone()).or_default() += 1;
        left.iter().for_each(|owner| self.forget(owner));
        self.documents.entry(name.clone()).or_default().insert(client, there);
        Ok(())
    }

    fn forget(&mut self, owner: &Arc<str>) {
        if let Some(count) = self.owners.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
    }

    /// Ends those of a document (or of all) that `is_over` says.
    fn end(
        &mut self,
        name: Option<&Name>,
        is_over: impl Fn(&Name, &Arc<str>, &There) -> bool,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let (mut bytes, mut owners) = (0, Vec::new());
        let mut of = |name: &Name, others: &mut BTreeMap<Arc<str>, There>| {
            others.retain(|client, there| {
                let is_over = is_over(name, client, there);
                if is_over {
                    bytes += there.weight;
                    owners.push(there.owner.clone());
                    let author = there.author.clone();
                    news.push((name.clone(), gone(name, client, author)));
                }
                !is_over
            });
        };
        match name {
            Some(name) => {
                if let Some(others) = self.documents.get_mut(name) {
                    of(name, others);
                }
            }
            None => self.documents.iter_mut().for_each(|(name, others)| of(name, others)),
        }
        self.bytes -= bytes;
        owners.iter().for_each(|owner| self.forget(owner));
        if !news.is_empty() {
            self.documents.retain(|_, others| !others.is_empty());
        }
        news
    }
}

fn gone(name: &Name, client: &Arc<str>, author: Arc<str>) -> DocumentEvent {
    let (id, client) = (name.1.clone(), client.clone());
    DocumentEvent::Presence { id, client, author, state: None }
}

impl Inner {
    /// Somebody says that it is there, or that it is not any more.
    pub(super) async fn call_presence(
        self: &Arc<Self>,
        name: &Name,
        mut fields: Fields,
        caller: &Caller,
    ) -> Outcome {
        let client = fields.optional_text("client")?;
        let client: Arc<str> = client.map_or_else(|| caller.id.clone(), Into::into);
        let author = fields.optional_text("author")?;
        let author: Arc<str> = author.map_or_else(|| client.clone(), Into::into);
        let state = state_of(fields.value("state")?)?;
        fields.done()?;
        for (field, name) in [("client", &client), ("author", &author)] {
            if name.is_empty() || name.len() > MAX_NAME {
                let sentence = format!("{field} has {} bytes; it has 1 to {MAX_NAME}", name.len());
                return Err(Failure::field(field, sentence));
            }
        }
        self.open(name, None).await?;
        let is_there = state.is_some();
        match state {
            Some((state, bytes)) => self.enter(name, client, author, (state, bytes), caller)?,
            None => self.end(Some(name), |_, other, there| {
                *other == client && (there.owner == caller.id || there.until.is_some())
            }),
        }
        Ok(Value::map([("present", is_there.into())]))
    }

    fn enter(
        self: &Arc<Self>,
        name: &Name,
        client: Arc<str>,
        author: Arc<str>,
        (state, bytes): (serde_json::Value, usize),
        caller: &Caller,
    ) -> Result<(), Failure> {
        let said = (self.options.now)();
        let there = There {
            owner: caller.id.clone(),
            author: author.clone(),
            state: state.clone(),
            weight: EACH + bytes + client.len() + author.len(),
            said,
            until: caller.is_here.then(|| said + LASTING.as_millis() as u64),
        };
        let (id, told) = (name.1.clone(), client.clone());
        // Told under the lock, so that the order told is the order in which it happened.
        let mut presence = self.presence.lock();
        presence.set(name, client, there)?;
        let news = [(
            name.clone(),
            DocumentEvent::Presence { id, client: told, author, state: Some(state) },
        )];
        self.tell(&news);
        drop(presence);
        #[cfg(feature = "yjs")]
        self.show(&news);
        super::Documents(self.clone()).look();
        Ok(())
    }

    /// Those who are there.
    pub(super) fn present(&self, name: &Name) -> Vec<Value> {
        let presence = self.presence.lock();
        let one = |(client, there): (&Arc<str>, &There)| {
            Value::map([
                ("client", (&**client).into()),
                ("author", (&*there.author).into()),
                ("state", super::engine::value(there.state.clone())),
            ])
        };
        presence.documents.get(name).into_iter().flatten().map(one).collect()
    }

    /// A client is not at a document any more.
    pub(super) fn leave(&self, name: &Name, client_id: &str) {
        self.end(Some(name), |_, _, there| *there.owner == *client_id);
    }

    /// Those without a session are there for a while only.
    pub(super) fn expire_presence(&self) {
        let now = (self.options.now)();
        self.end(None, |_, _, there| there.until.is_some_and(|until| until <= now));
    }

    fn end(&self, name: Option<&Name>, is_over: impl Fn(&Name, &Arc<str>, &There) -> bool) {
        let mut presence = self.presence.lock();
        let news = presence.end(name, is_over);
        self.tell(&news);
        drop(presence);
        #[cfg(feature = "yjs")]
        self.show(&news);
    }

    /// Clients that are there: their names, authors and states.
    #[cfg(feature = "yjs")]
    pub(super) fn there(&self, name: &Name) -> Vec<(Arc<str>, Arc<str>, serde_json::Value)> {
        let presence = self.presence.lock();
        let one = |(client, there): (&Arc<str>, &There)| {
            (client.clone(), there.author.clone(), there.state.clone())
        };
        presence.documents.get(name).into_iter().flatten().map(one).collect()
    }

    fn tell(&self, news: &[News]) {
        if let Some(teller) = self.teller.get() {
            news.iter().for_each(|(name, event)| teller(name, event));
        }
    }
}

/// A client that left: what it said until then may be over.
pub(crate) struct Absence {
    inner: Arc<Inner>,
    namespace: Arc<str>,
    client_id: Arc<str>,
    since: u64,
}

impl super::Documents {
    /// A client has left now; `None` if it said nothing.
    pub(crate) fn absence(&self, namespace: &str, client_id: &str) -> Option<Absence> {
        let inner = self.0.clone();
        let client_id = inner.presence.lock().owners.get_key_value(client_id)?.0.clone();
        let since = (inner.options.now)();
        Some(Absence { inner, namespace: namespace.into(), client_id, since })
    }
}

impl Absence {
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// It will not come back as who it was.
    pub(crate) fn ended(&self) {
        self.inner.end(None, |name, _, there| {
            name.0 == self.namespace && there.owner == self.client_id && there.said <= self.since
        });
    }
}

/// A state and its bytes; `None` for `null`.
fn state_of(value: Value) -> Result<Option<(serde_json::Value, usize)>, Failure> {
    match value {
        Value::Null => Ok(None),
        Value::Map(_) => {
            let state = super::engine::plain(value);
            let state = state.map_err(|reject| Failure::field("state", reject.message))?;
            let bytes = serde_json::to_vec(&state).map_or(usize::MAX, |text| text.len());
            if bytes > MAX_STATE {
                let sentence = format!("state has {bytes} bytes as JSON; the limit is {MAX_STATE}");
                let failure = Failure::new(ErrorKind::TooLarge, sentence);
                return Err(Failure { field: Some("state".into()), ..failure });
            }
            Ok(Some((state, bytes)))
        }
        other => Err(crate::capability::wrong("state", &other, "an object, or null")),
    }
}
