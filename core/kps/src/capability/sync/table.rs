//! Who is in which channel, as the server knows it. No clock, no bus: what changed is returned as news.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use kps_proto::ErrorKind;

use crate::capability::{Failure, Map, Value};

/// Bounds of what a server remembers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Channels that a client may be in.
    pub(super) channels: usize,
    /// Clients in a channel.
    pub(super) clients: usize,
    /// Clients of one key in a channel.
    pub(super) devices: usize,
    /// Bytes of the metadata of one key in a channel: they are told together.
    pub(super) key_bytes: usize,
    /// Bytes of one client's metadata, over all channels.
    pub(super) client_bytes: usize,
    /// Bytes of everything.
    pub(super) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            channels: 256,
            clients: 10_000,
            devices: 128,
            key_bytes: 256 << 10,
            client_bytes: 1 << 20,
            bytes: 256 << 20,
        }
    }
}

/// Metadata in one page of a channel's members; a page ends with the key that exceeds it.
const PAGE: usize = 256 << 10;

/// Bytes of an entry beside its texts, about.
const ENTRY: usize = 256;

#[derive(Default)]
pub(super) struct Table {
    limits: Limits,
    spaces: HashMap<Arc<str>, Space>,
    bytes: usize,
}

/// A namespace.
#[derive(Default)]
struct Space {
    channels: HashMap<Arc<str>, Channel>,
    clients: HashMap<Arc<str>, Places>,
}

#[derive(Default)]
struct Channel {
    /// By key; the client that changed last is the last one.
    keys: BTreeMap<Arc<str>, Vec<Device>>,
    clients: usize,
}

/// A client of a key.
#[derive(Clone)]
struct Device {
    client_id: Arc<str>,
    /// JSON text.
    meta: Arc<str>,
    since_ms: u64,
}

/// Where a client is.
#[derive(Default)]
struct Places {
    channels: HashMap<Arc<str>, Place>,
    meta_bytes: usize,
}

struct Place {
    key: Arc<str>,
    away: Option<Away>,
}

/// The client's connection is lost.
#[derive(Clone, Copy)]
struct Away {
    until: Instant,
    /// So is its session: whoever connects under its id has to join again.
    is_over: bool,
}

/// Who joins where, as what.
#[derive(Clone, Copy)]
pub(super) struct Join<'a> {
    pub(super) namespace: &'a Arc<str>,
    pub(super) client_id: &'a Arc<str>,
    pub(super) channel: &'a str,
    pub(super) key: &'a str,
    /// JSON text.
    pub(super) meta: &'a Arc<str>,
    pub(super) now_ms: u64,
}

/// A change of a channel, for those who listen.
#[derive(Debug)]
pub(super) struct News {
    pub(super) channel: Arc<str>,
    pub(super) change: Change,
    pub(super) key: Arc<str>,
    pub(super) client_id: Arc<str>,
    /// JSON text of the newest metadata of the key; with `Leave` the last there was.
    pub(super) meta: Arc<str>,
    /// The key's clients now.
    pub(super) clients: Vec<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Join,
    Update,
    Leave,
}

impl Change {
    pub(super) fn name(self) -> &'static str {
        match self {
            Change::Join => "join",
            Change::Update => "update",
            Change::Leave => "leave",
        }
    }
}

/// Members of a channel by key, and the key after which more follow.
pub(super) struct Page {
    pub(super) members: Vec<Value>,
    pub(super) next: Option<Arc<str>>,
}

impl Table {
    #[cfg(test)]
    fn with(limits: Limits) -> Table {
        Table { limits, ..Table::default() }
    }

    /// Puts a client into a channel, or changes what it is there. Nothing happens if it is that already.
    ///
    /// # Errors
    /// `quota_exceeded`; nothing has changed then.
    pub(super) fn join(&mut self, join: Join<'_>) -> Result<Vec<News>, Failure> {
        self.check(&join)?;
        let mut news = Vec::new();
        let place = self.place(join.namespace, join.client_id, join.channel);
        if let Some(place) = place {
            place.away = None;
            if *place.key != *join.key {
                news.extend(self.leave(join.namespace, join.client_id, join.channel));
            }
        }
        news.extend(self.insert(join));
        Ok(news)
    }

    /// Takes a client out of a channel; `None` if it is not there.
    pub(super) fn leave(
        &mut self,
        namespace: &str,
        client_id: &str,
        channel: &str,
    ) -> Option<News> {
        let space = self.spaces.get_mut(namespace)?;
        let places = space.clients.get_mut(client_id)?;
        let place = places.channels.remove(channel)?;
        let (name, mut members) =
            space.channels.remove_entry(channel).expect("a client is in channels that there are");
        let devices = members.keys.get_mut(&place.key).expect("its key is there");
        let at = devices.iter().position(|device| *device.client_id == *client_id);
        let device = devices.remove(at.expect("and so is the client"));
        let (change, meta) = match devices.last() {
            Some(newest) => (Change::Update, newest.meta.clone()),
            None => (Change::Leave, device.meta.clone()),
        };
        let clients = ids(devices);
        if clients.is_empty() {
            members.keys.remove(&place.key);
        }
        members.clients -= 1;
        places.meta_bytes -= device.meta.len();
        if places.channels.is_empty() {
            space.clients.remove(client_id);
        }
        self.bytes -= cost(&name, &place.key, &device);
        if members.clients > 0 {
            space.channels.insert(name.clone(), members);
        }
        if space.clients.is_empty() {
            self.spaces.remove(namespace);
        }
        let client_id = device.client_id;
        Some(News { channel: name, change, key: place.key, client_id, meta, clients })
    }

    /// A client's connection is lost, or (`is_over`) its session: it leaves at `until`. False if it is
    /// nowhere.
    pub(super) fn away(
        &mut self,
        namespace: &str,
        client_id: &str,
        until: Instant,
        is_over: bool,
    ) -> bool {
        let space = self.spaces.get_mut(namespace);
        let Some(places) = space.and_then(|space| space.clients.get_mut(client_id)) else {
            return false;
        };
        for place in places.channels.values_mut() {
            let before = place.away;
            // One that came back and was lost again has its whole time again.
            let until = match before {
                Some(before) if before.is_over || is_over => until.min(before.until),
                _ => until,
            };
            let is_over = is_over || before.is_some_and(|before| before.is_over);
            place.away = Some(Away { until, is_over });
        }
        true
    }

    /// The time of those who were away may be over: they leave, unless they are back.
    pub(super) fn expire(
        &mut self,
        namespace: &str,
        client_id: &str,
        now: Instant,
        is_connected: bool,
    ) -> Vec<News> {
        let space = self.spaces.get_mut(namespace);
        let Some(places) = space.and_then(|space| space.clients.get_mut(client_id)) else {
            return Vec::new();
        };
        let mut gone = Vec::new();
        for (channel, place) in &mut places.channels {
            let Some(away) = place.away.filter(|away| away.until <= now) else { continue };
            if away.is_over || !is_connected {
                gone.push(channel.clone());
            } else {
                place.away = None;
            }
        }
        gone.sort_unstable();
        gone.iter().filter_map(|channel| self.leave(namespace, client_id, channel)).collect()
    }

    /// The members whose keys come after `after`, as many as fit into one answer.
    pub(super) fn page(&self, namespace: &str, channel: &str, after: Option<&str>) -> Page {
        let mut page = Page { members: Vec::new(), next: None };
        let space = self.spaces.get(namespace);
        let Some(channel) = space.and_then(|space| space.channels.get(channel)) else {
            return page;
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let mut keys = channel.keys.range::<str, _>((from, Bound::Unbounded)).peekable();
        while let Some((key, devices)) = keys.next() {
            page.members.push(member(key, devices));
            bytes += devices.iter().map(|it| cost("", key, it)).sum::<usize>();
            if bytes >= PAGE && keys.peek().is_some() {
                page.next = Some(key.clone());
                break;
            }
        }
        page
    }

    fn place(&mut self, namespace: &str, client_id: &str, channel: &str) -> Option<&mut Place> {
        self.spaces.get_mut(namespace)?.clients.get_mut(client_id)?.channels.get_mut(channel)
    }

    fn check(&self, join: &Join<'_>) -> Result<(), Failure> {
        let limits = &self.limits;
        let space = self.spaces.get(join.namespace);
        let places = space.and_then(|space| space.clients.get(join.client_id));
        let channel = space.and_then(|space| space.channels.get(join.channel));
        let devices = channel.and_then(|channel| channel.keys.get(join.key));
        let held = places.and_then(|places| places.channels.get(join.channel));
        let before = held.and_then(|place| {
            let devices = channel?.keys.get(&place.key)?;
            devices.iter().find(|device| device.client_id == *join.client_id)
        });
        let before_bytes = before.map_or(0, |device| device.meta.len());
        let more = join.meta.len().saturating_sub(before_bytes);
        if held.is_none() {
            let count = places.map_or(0, |places| places.channels.len());
            room("channels that one client is in", count, limits.channels)?;
            let count = channel.map_or(0, |channel| channel.clients);
            room("clients in one channel", count, limits.clients)?;
        }
        if held.is_none_or(|place| *place.key != *join.key) {
            room("clients of one key", devices.map_or(0, Vec::len), limits.devices)?;
        }
        let of_key: usize = devices.into_iter().flatten().map(|device| device.meta.len()).sum();
        let of_client = places.map_or(0, |places| places.meta_bytes);
        let added = more + if held.is_none() { ENTRY } else { 0 };
        bytes("the metadata of one key", of_key + more, limits.key_bytes)?;
        bytes("one client's metadata", of_client + more, limits.client_bytes)?;
        bytes("all channels of this server", self.bytes + added, limits.bytes)
    }

    /// After [`check`](Self::check).
    fn insert(&mut self, join: Join<'_>) -> Option<News> {
        let space = self.spaces.entry(join.namespace.clone()).or_default();
        let name = match space.channels.get_key_value(join.channel) {
            Some((name, _)) => name.clone(),
            None => join.channel.into(),
        };
        let channel = space.channels.entry(name.clone()).or_default();
        let places = space.clients.entry(join.client_id.clone()).or_default();
        let (key, devices, change) = match channel.keys.entry(join.key.into()) {
            Entry::Occupied(entry) => (entry.key().clone(), entry.into_mut(), Change::Update),
            Entry::Vacant(entry) => (entry.key().clone(), entry.insert(Vec::new()), Change::Join),
        };
        let at = devices.iter().position(|device| device.client_id == *join.client_id);
        let mut since_ms = join.now_ms;
        if let Some(at) = at {
            if devices[at].meta == *join.meta {
                return None;
            }
            let before = devices.remove(at);
            since_ms = before.since_ms;
            places.meta_bytes -= before.meta.len();
            self.bytes -= cost(&name, &key, &before);
        } else {
            channel.clients += 1;
            places.channels.insert(name.clone(), Place { key: key.clone(), away: None });
        }
        let device =
            Device { client_id: join.client_id.clone(), meta: join.meta.clone(), since_ms };
        places.meta_bytes += device.meta.len();
        self.bytes += cost(&name, &key, &device);
        devices.push(device);
        Some(News {
            channel: name,
            change,
            key,
            client_id: join.client_id.clone(),
            meta: join.meta.clone(),
            clients: ids(devices),
        })
    }
}

fn ids(devices: &[Device]) -> Vec<Arc<str>> {
    devices.iter().map(|device| device.client_id.clone()).collect()
}

fn cost(channel: &str, key: &str, device: &Device) -> usize {
    ENTRY + channel.len() + key.len() + device.client_id.len() + device.meta.len()
}

fn member(key: &str, devices: &[Device]) -> Value {
    let client = |device: &Device| {
        Value::map([
            ("client_id", (&*device.client_id).into()),
            ("meta", value(&device.meta)),
            ("since", device.since_ms.into()),
        ])
    };
    let newest = devices.last().map_or(Value::Null, |device| value(&device.meta));
    let clients: Vec<Value> = devices.iter().map(client).collect();
    Value::map([("key", key.into()), ("clients", clients.into()), ("meta", newest)])
}

/// The value of text that was JSON when it came.
pub(super) fn value(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap_or_default()
}

fn room(what: &str, count: usize, limit: usize) -> Result<(), Failure> {
    if count < limit {
        return Ok(());
    }
    let sentence = format!("there are {count} {what}; the limit is {limit}");
    Err(Failure::new(ErrorKind::QuotaExceeded, sentence))
}

fn bytes(what: &str, count: usize, limit: usize) -> Result<(), Failure> {
    if count <= limit {
        return Ok(());
    }
    let sentence = format!("{what} would take {count} bytes; the limit is {limit}");
    Err(Failure::new(ErrorKind::QuotaExceeded, sentence))
}

impl News {
    /// As it travels.
    pub(super) fn into_value(self) -> Value {
        let clients: Vec<Value> = self.clients.iter().map(|id| (&**id).into()).collect();
        let mut map = Map::default();
        map.push("event", self.change.name());
        map.push("key", &*self.key);
        map.push("client_id", &*self.client_id);
        map.push("meta", value(&self.meta));
        map.push("clients", clients);
        Value::Map(map)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct World {
        table: Table,
        start: Instant,
    }

    impl World {
        fn new(limits: Limits) -> World {
            World { table: Table::with(limits), start: Instant::now() }
        }

        fn join(&mut self, client: &str, channel: &str, key: &str, meta: &str) -> String {
            let (namespace, client_id, meta) = ("".into(), client.into(), meta.into());
            let join = Join {
                namespace: &namespace,
                client_id: &client_id,
                channel,
                key,
                meta: &meta,
                now_ms: 1,
            };
            match self.table.join(join) {
                Ok(news) => told(&news),
                Err(failure) => failure.code().into(),
            }
        }

        fn leave(&mut self, client: &str, channel: &str) -> String {
            told(self.table.leave("", client, channel).as_slice())
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn away(&mut self, client: &str, until: u64, is_over: bool) {
            self.table.away("", client, self.at(until), is_over);
        }

        fn expire(&mut self, client: &str, now: u64, is_connected: bool) -> String {
            told(&self.table.expire("", client, self.at(now), is_connected))
        }

        fn assert_empty(&self) {
            assert!(self.table.spaces.is_empty() && self.table.bytes == 0);
        }
    }

    fn told(news: &[News]) -> String {
        let one = |it: &News| format!("{} {} {}", it.change.name(), it.channel, it.key);
        news.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_left_leaves_nothing_behind() {
        let mut world = World::new(Limits::default());
        assert_eq!(world.join("a", "x", "k", "1"), "join x k");
        assert_eq!(world.join("a", "x", "k", "1"), "");
        assert_eq!(world.join("a", "x", "k", "22"), "update x k");
        assert_eq!(world.join("b", "x", "k", "1"), "update x k");
        assert_eq!(world.join("a", "x", "l", "1"), "update x k, join x l");
        assert_eq!(world.join("a", "y", "l", "1"), "join y l");
        assert_eq!(world.leave("b", "x"), "leave x k");
        assert_eq!(world.leave("b", "x"), "");
        assert_eq!(world.leave("a", "x"), "leave x l");
        assert_eq!(world.leave("a", "y"), "leave y l");
        world.assert_empty();
    }

    #[test]
    fn what_is_too_much_is_refused_and_changes_nothing() {
        let limits = Limits {
            channels: 2,
            clients: 3,
            devices: 2,
            key_bytes: 10,
            client_bytes: 12,
            bytes: 1 << 20,
        };
        let mut world = World::new(limits);
        world.join("a", "x", "k", "12345");
        world.join("b", "x", "k", "12345");
        assert_eq!(world.join("c", "x", "k", "1"), "quota_exceeded", "clients of a key");
        assert_eq!(world.join("a", "x", "k", "123456"), "quota_exceeded", "bytes of a key");
        assert_eq!(world.join("c", "x", "l", "1"), "join x l");
        assert_eq!(world.join("d", "x", "m", "1"), "quota_exceeded", "clients of a channel");
        assert_eq!(world.join("c", "x", "k", "1"), "quota_exceeded", "moving to a full key");
        assert_eq!(world.join("a", "y", "k", "12345678"), "quota_exceeded", "bytes of a client");
        assert_eq!(world.join("a", "y", "k", "1"), "join y k");
        assert_eq!(world.join("a", "z", "k", "1"), "quota_exceeded", "channels of a client");
        assert_eq!(world.join("a", "x", "k", "1234"), "update x k");
        for (client, channel) in [("a", "x"), ("a", "y"), ("b", "x"), ("c", "x")] {
            assert_ne!(world.leave(client, channel), "");
        }
        world.assert_empty();

        let mut world = World::new(Limits { bytes: 1000, ..Limits::default() });
        assert_eq!(world.join("a", "x", "k", "1"), "join x k");
        assert_eq!(world.join("a", "y", "k", &"1".repeat(900)), "quota_exceeded", "bytes of all");
    }

    #[test]
    fn whoever_is_away_leaves_when_its_time_is_over_unless_it_is_back() {
        let mut world = World::new(Limits::default());
        world.join("a", "x", "k", "1");
        world.away("a", 5, false);
        assert_eq!(world.expire("a", 4, false), "", "too early");
        assert_eq!(world.expire("a", 5, true), "", "it is back");
        assert_eq!(world.expire("a", 9, false), "", "and was not lost again");
        // Lost twice: the time starts again.
        world.away("a", 5, false);
        world.away("a", 8, false);
        assert_eq!(world.expire("a", 5, false), "");
        assert_eq!(world.expire("a", 8, false), "leave x k");
        world.assert_empty();
    }

    #[test]
    fn a_lost_sessions_places_are_kept_only_by_joining_again() {
        let mut world = World::new(Limits::default());
        world.join("a", "x", "k", "1");
        world.join("a", "y", "k", "1");
        world.away("a", 5, false);
        world.away("a", 9, true);
        assert_eq!(world.join("a", "x", "k", "1"), "");
        assert_eq!(world.expire("a", 5, true), "leave y k");
        assert_eq!(world.leave("a", "x"), "leave x k");
        world.assert_empty();
    }

    #[test]
    fn a_large_channel_is_told_page_by_page() {
        let mut world = World::new(Limits::default());
        for n in 0..2000 {
            world.join(&format!("c{n}"), "x", &format!("{n:04}"), "1");
        }
        let (mut keys, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let page = world.table.page("", "x", after.as_deref());
            keys.extend(page.members.into_iter().map(|it| it.get("key").cloned().unwrap()));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let expected: Vec<Value> = (0..2000).map(|n| format!("{n:04}").into()).collect();
        assert!(keys == expected && pages > 1);
    }
}
