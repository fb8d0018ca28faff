//! A client played by hand: it sends whatever a test wants and shows exactly what comes back.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    reason = "outside a test function clippy does not see that it is a test"
)]

use std::{
    collections::VecDeque,
    io::{ErrorKind as IoKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::BytesMut;
use kps::{
    ErrorKind, Server,
    net::websocket::{Decoder, MaskKeys, Opcode, Received, Role, Violation, put_frame},
    proto::wire::{
        self, Frames,
        frame::{
            Destination, ErrorFrame, Frame, Hello, MessageFrame, Name, Publish, Reference,
            Subscribe,
        },
    },
};
use serde_json::Value;

/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came, owned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Came {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Ping,
    Close(u16, String),
    /// The server closed the socket.
    End,
}

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    keys: MaskKeys,
    came: VecDeque<Came>,
    /// Encoded frames of a binary message not looked at yet.
    frames: VecDeque<Vec<u8>>,
    published: u64,
}

/// Sends `request` as the last one of its connection, and returns all that the server answers until it closes.
pub(crate) fn http(server: &Server, request: &str) -> String {
    let last = match request.contains("Connection: ") {
        true => request.to_owned(),
        false => request.replacen("\r\n", "\r\nConnection: close\r\n", 1),
    };
    String::from_utf8(http_bytes(server, last.as_bytes())).unwrap()
}

pub(crate) fn http_bytes(server: &Server, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A server that has heard enough may reset the connection after its answer.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The request for an upgrade, with `headers` beside what it needs.
pub(crate) fn upgrade(host: &str, headers: &str) -> String {
    format!(
        "GET /ws/bus HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n{headers}\r\n"
    )
}

impl Raw {
    /// A WebSocket without a word said on it.
    pub(crate) fn open(server: &Server, headers: &str) -> Raw {
        Raw::open_at(server, "/ws/bus", headers)
    }

    pub(crate) fn open_at(server: &Server, path: &str, headers: &str) -> Raw {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = upgrade(&server.address(), headers).replace("/ws/bus", path);
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Raw {
            stream,
            decoder: Decoder::new(Role::Client, usize::MAX),
            keys: MaskKeys::default(),
            came: VecDeque::new(),
            frames: VecDeque::new(),
            published: 0,
        }
    }

    /// A KPS JSON client registered as `id`.
    pub(crate) fn json(server: &Server, id: &str) -> Raw {
        let mut raw = Raw::open(server, "");
        raw.say(serde_json::json!({ "action": "ping", "from": id }));
        assert_eq!(raw.hear(), serde_json::json!({ "action": "pong", "id": id }));
        raw
    }

    /// A kps.v1 connection before its `HELLO`.
    pub(crate) fn native_stranger(server: &Server) -> Raw {
        Raw::open(server, "Sec-WebSocket-Protocol: kps.v1\r\n")
    }

    /// A kps.v1 client welcomed as `id`.
    pub(crate) fn native(server: &Server, id: &str) -> Raw {
        let mut raw = Raw::native_stranger(server);
        raw.hello(id, "");
        raw.until(|frame| matches!(frame, Frame::Welcome(_)).then_some(()));
        raw
    }

    pub(crate) fn hello(&mut self, id: &str, token: &str) {
        let hello =
            Hello { versions: (1, 1), client_id: id, origin: "raw", token, ..Hello::default() };
        self.send(&[Frame::Hello(hello)]);
    }

    /// Sends one frame of a WebSocket.
    pub(crate) fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut out = BytesMut::new();
        put_frame(&mut out, opcode, payload, Some(self.keys.next_key()));
        self.bytes(&out);
    }

    /// Sends bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        // The server may have closed already, which is what some tests want to see.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.put(Opcode::Text, text.as_bytes());
    }

    pub(crate) fn say(&mut self, object: Value) {
        self.text(&object.to_string());
    }

    pub(crate) fn send(&mut self, frames: &[Frame<'_>]) {
        let mut out = BytesMut::new();
        frames.iter().for_each(|frame| wire::encode(frame, &mut out));
        self.put(Opcode::Binary, &out);
    }

    pub(crate) fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        let sub = subscribe.sub;
        self.send(&[Frame::Subscribe(subscribe)]);
        self.until(|frame| {
            matches!(frame, Frame::Subscribed { sub: s, .. } if *s == sub).then_some(())
        });
    }

    /// Publishes with the next number.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) -> u64 {
        self.published(|number| publish(number, topic, payload))
    }

    /// Publishes what `make` makes of the next number.
    pub(crate) fn published<'a>(&mut self, make: impl FnOnce(u64) -> Publish<'a>) -> u64 {
        self.published += 1;
        let publish = make(self.published);
        self.send(&[Frame::Publish(publish)]);
        self.published
    }

    /// The next thing that comes; pings of the server are passed over.
    pub(crate) fn next(&mut self) -> Came {
        loop {
            match self.came.pop_front() {
                Some(Came::Ping) => continue,
                Some(came) => return came,
                None => self.read(),
            }
        }
    }

    fn read(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        let count = match self.stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == IoKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came: {error}"),
        };
        if count == 0 {
            return self.came.push_back(Came::End);
        }
        let came = &mut self.came;
        self.decoder
            .feed(&mut buffer[..count], &mut |received| {
                came.push_back(match received {
                    Received::Text(text) => Came::Text(text.into()),
                    Received::Binary(bytes) => Came::Binary(bytes.into()),
                    Received::Ping(_) => Came::Ping,
                    Received::Pong(bytes) => Came::Pong(bytes.into()),
                    Received::Close { code, reason } => Came::Close(code, reason.into()),
                });
                Ok::<(), Violation>(())
            })
            .unwrap();
    }

    /// The next JSON object.
    pub(crate) fn hear(&mut self) -> Value {
        match self.next() {
            Came::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected text, got {other:?}"),
        }
    }

    /// The next JSON object is an error with this code; returns it.
    pub(crate) fn hear_error(&mut self, kind: ErrorKind) -> Value {
        let object = self.hear();
        assert_eq!(object["action"], "error", "{object}");
        let error = object["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("{kind}: ")), "{kind} expected, got {error}");
        object
    }

    /// The first frame that `wanted` finds; those before it are gone.
    pub(crate) fn until<T>(&mut self, mut wanted: impl FnMut(&Frame<'_>) -> Option<T>) -> T {
        loop {
            while let Some(bytes) = self.frames.pop_front() {
                let frame = Frames::new(&bytes).next().unwrap().unwrap();
                if let Some(found) = wanted(&frame) {
                    return found;
                }
            }
            match self.next() {
                Came::Binary(message) => self.split(&message),
                other => panic!("expected frames, got {other:?}"),
            }
        }
    }

    fn split(&mut self, message: &[u8]) {
        let mut frames = Frames::new(message);
        loop {
            let before = frames.rest();
            if frames.next().is_none() {
                return;
            }
            self.frames.push_back(before[..before.len() - frames.rest().len()].to_vec());
        }
    }

    /// Waits for a message of subscription `sub` and returns its payload.
    pub(crate) fn message(&mut self, sub: u32) -> Vec<u8> {
        self.until(|frame| match frame {
            Frame::Message(MessageFrame { sub: s, payload, .. }) if *s == sub => {
                Some(payload.to_vec())
            }
            _ => None,
        })
    }

    /// Waits for an `ERROR` and returns kind, reference, and whether it is fatal.
    pub(crate) fn error(&mut self) -> (ErrorKind, Reference, bool) {
        self.until(|frame| match frame {
            Frame::Error(ErrorFrame { kind, reference, fatal, .. }) => {
                Some((*kind, *reference, *fatal))
            }
            _ => None,
        })
    }

    /// The server says why in a fatal `ERROR`, and closes.
    pub(crate) fn is_closed_with(&mut self, kind: ErrorKind) {
        assert_eq!(self.error(), (kind, Reference::Connection, true));
        self.is_closed();
    }

    /// The server closes.
    pub(crate) fn is_closed(&mut self) -> u16 {
        let mut code = 0;
        loop {
            match self.next() {
                Came::End => return code,
                Came::Close(with, _) => code = with,
                _ => {}
            }
        }
    }
}

pub(crate) fn publish<'a>(number: u64, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        number,
        to: Destination::Topic(Name::Inline(topic)),
        ack: false,
        request: false,
        prompt: true,
        maybe_duplicate: false,
        content_type: kps::message::ContentType::Json,
        extensions: None,
        payload,
    }
}

pub(crate) fn subscribe(sub: u32, pattern: &str) -> Subscribe<'_> {
    Subscribe { sub, pattern, window: 4096, window_bytes: 4 << 20, ..Subscribe::default() }
}

/// Two clients of the server that mind their own business. Whatever others do, they go on.
pub(crate) struct Bystanders {
    publisher: Raw,
    subscriber: Raw,
    round: u64,
}

impl Bystanders {
    pub(crate) fn new(server: &Server) -> Self {
        let (publisher, mut subscriber) =
            (Raw::native(server, "by-publisher"), Raw::native(server, "by-subscriber"));
        subscriber.subscribe(subscribe(1, "bystanders"));
        Bystanders { publisher, subscriber, round: 0 }
    }

    /// Panics unless a message still goes from one to the other.
    pub(crate) fn go_on(&mut self) {
        self.round += 1;
        let payload = self.round.to_string();
        self.publisher.publish("bystanders", payload.as_bytes());
        assert_eq!(self.subscriber.message(1), payload.as_bytes());
        self.subscriber.send(&[Frame::Credit { sub: 1, consumed: self.round }]);
    }
}
