//! `kps doctor`: what stands between this machine and a server, step by step.
//!
//! It speaks the protocol by itself, without the client, so that each step is seen alone.

use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use clap::Args;
use kps_proto::{
    Error, ErrorKind, Result,
    message::ContentType,
    wire::{
        self, Frames,
        frame::{Destination, Frame, Hello, MessageFrame, Name, Publish, Subscribe, Welcome},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::link::Link;
use crate::{
    net::{
        Address, SUBPROTOCOL,
        upgrade::upgrade_to,
        websocket::{Decoder, MaskKeys, Opcode, Received, Role, Violation, put_close, put_frame},
    },
    runtime,
};

/// Round trips measured.
const ROUNDS: usize = 50;

/// Clocks further apart than this are worth a warning.
const CLOCK_TOLERANCE_MS: i64 = 1000;

/// The largest payload that is sent to try whether the limit holds on the whole way.
const LARGEST_TRIED: u64 = 16 << 20;

/// Check the way to a server: name, TCP, TLS, handshake, clock, payload limit, round trip.
#[derive(Args)]
pub(super) struct Doctor {
    /// The server; the same as --url
    #[arg(value_name = "URL")]
    server: Option<String>,
    /// Print each finding as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    link: Link,
}

impl Doctor {
    pub(super) fn run(self) -> Result<()> {
        let url = self.server.as_deref().unwrap_or(&self.link.url);
        let findings = Findings { json: self.json };
        runtime::handle().block_on(async {
            tokio::select! {
                done = examine(url, &self.link, &findings) => done,
                () = super::interrupt::interrupted() => Ok(()),
            }
        })
    }
}

/// Says what is found, one line each.
struct Findings {
    json: bool,
}

#[derive(Clone, Copy)]
enum Verdict {
    Good,
    Odd,
    Bad,
}

impl Findings {
    fn say(&self, step: &str, verdict: Verdict, sentence: &str) {
        let (mark, word) = match verdict {
            Verdict::Good => ("✓", "good"),
            Verdict::Odd => ("!", "odd"),
            Verdict::Bad => ("✗", "bad"),
        };
        if self.json {
            let finding = serde_json::json!({ "step": step, "verdict": word, "finding": sentence });
            println!("{finding}");
        } else {
            println!("{mark} {step}: {sentence}");
        }
    }

    /// Passes `result` on; a failure is a finding as well.
    fn check<T>(&self, step: &str, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.say(step, Verdict::Bad, error.message()))
    }

    fn good(&self, step: &str, sentence: &str) {
        self.say(step, Verdict::Good, sentence);
    }
}

async fn examine(url: &str, link: &Link, findings: &Findings) -> Result<()> {
    let address = findings.check("address", Address::parse(url))?;
    let patience = link.connect_timeout;
    let stream = connect(&address, patience, findings).await?;
    if !address.secure {
        return converse(stream, &address, link, findings).await;
    }
    let tls = findings.check("TLS", link.options().tls.config())?;
    let name = rustls::pki_types::ServerName::try_from(address.host.clone())
        .map_err(|_| Error::new(ErrorKind::InvalidArgument, "the host is no name for TLS"));
    let name = findings.check("TLS", name)?;
    let started = Instant::now();
    let connecting = tokio_rustls::TlsConnector::from(tls).connect(name, stream);
    let stream = within(patience, "the TLS handshake", connecting).await.and_then(|stream| {
        stream.map_err(|error| crate::net::handshake_error(&address.host, &error))
    });
    let stream = findings.check("TLS", stream)?;
    let (_, session) = stream.get_ref();
    let version = session.protocol_version().map_or("TLS".into(), |version| format!("{version:?}"));
    let took = millis(started.elapsed());
    findings.good(
        "TLS",
        &format!("{version}, the certificate is valid for {}, in {took}", address.host),
    );
    converse(stream, &address, link, findings).await
}

async fn connect(address: &Address, patience: Duration, findings: &Findings) -> Result<TcpStream> {
    let started = Instant::now();
    let lookup = tokio::net::lookup_host((address.host.as_str(), address.port));
    let found = within(patience, "looking up the name", lookup).await.and_then(|found| {
        let found: Vec<_> =
            found.map_err(|error| cannot("resolve", &address.host, &error))?.collect();
        match found.is_empty() {
            true => Err(Error::new(ErrorKind::ConnectFailed, "the name has no address")),
            false => Ok(found),
        }
    });
    let found = findings.check("name", found)?;
    if address.host.parse::<IpAddr>().is_err() {
        let ips: Vec<_> = found.iter().map(|found| found.ip().to_string()).collect();
        let took = millis(started.elapsed());
        findings.good("name", &format!("{} is {} (in {took})", address.host, ips.join(", ")));
    }
    let mut last = None;
    for candidate in found {
        let started = Instant::now();
        let stream = within(patience, "connecting", TcpStream::connect(candidate)).await;
        match stream
            .and_then(|s| s.map_err(|error| cannot("connect to", &candidate.to_string(), &error)))
        {
            Ok(stream) => {
                let took = millis(started.elapsed());
                findings.good("TCP", &format!("{candidate} accepts connections, in {took}"));
                // Only a delay, should it fail.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                findings.say("TCP", Verdict::Odd, error.message());
                last = Some(error);
            }
        }
    }
    findings.check("TCP", Err(last.expect("there is at least one address")))
}

async fn converse<S>(stream: S, address: &Address, link: &Link, findings: &Findings) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let patience = link.connect_timeout;
    let started = Instant::now();
    let upgrade = upgrade_to(Some(SUBPROTOCOL), stream, address);
    let upgraded = within(patience, "the upgrade to WebSocket", upgrade).await;
    let (stream, early) = findings.check("HTTP", upgraded.and_then(|upgraded| upgraded))?;
    let took = millis(started.elapsed());
    findings
        .good("HTTP", &format!("{} upgrades to WebSocket with kps.v1, in {took}", address.path));

    let mut line = Line::new(stream, early.to_vec(), patience);
    let started = Instant::now();
    let welcomed = line.hello(link).await;
    let welcome = findings.check("handshake", welcomed)?;
    let took = millis(started.elapsed());
    let Welcomed { server, client_id, max_payload, time_base_ms } = welcome;
    findings.good("handshake", &format!("{server} welcomed us as {client_id}, in {took}"));

    let topic = format!("doctor.{client_id}");
    let tried = line.subscribe(&topic).await;
    findings.check("subscribe", tried)?;
    let (trips, clock_ms) =
        findings.check("round trip", line.round_trips(&topic, time_base_ms).await)?;
    say_clock(clock_ms, findings);

    let size = max_payload.min(LARGEST_TRIED);
    let started = Instant::now();
    let payload = vec![b'x'; usize::try_from(size).unwrap_or(0)];
    findings.check("payload", line.round_trip(&topic, ContentType::Bytes, &payload).await)?;
    let took = millis(started.elapsed());
    findings.good(
        "payload",
        &format!("up to {max_payload} bytes; {size} bytes there and back in {took}"),
    );
    let middle = trips[trips.len() / 2];
    let worst = trips[trips.len() - 1];
    findings.good(
        "round trip",
        &format!("{} at the median of {ROUNDS}, {} at worst", millis(middle), millis(worst)),
    );
    line.goodbye().await;
    Ok(())
}

fn say_clock(ahead_ms: i64, findings: &Findings) {
    let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let apart = ahead_ms.unsigned_abs();
    let sentence = format!("the server's clock is {apart} ms {direction} this machine's");
    let verdict = if ahead_ms.abs() > CLOCK_TOLERANCE_MS { Verdict::Odd } else { Verdict::Good };
    findings.say("clock", verdict, &sentence);
}

/// A WebSocket with kps.v1 on it, one question at a time.
struct Line<S> {
    stream: S,
    decoder: Decoder,
    keys: MaskKeys,
    unread: Vec<u8>,
    published: u64,
    consumed: u64,
    patience: Duration,
}

struct Welcomed {
    server: String,
    client_id: String,
    max_payload: u64,
    time_base_ms: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    fn new(stream: S, unread: Vec<u8>, patience: Duration) -> Self {
        let decoder = Decoder::new(Role::Client, usize::MAX);
        let keys = MaskKeys::default();
        Line { stream, decoder, keys, unread, published: 0, consumed: 0, patience }
    }

    async fn send(&mut self, frames: &[Frame<'_>]) -> Result<()> {
        let (mut message, mut out) = (BytesMut::new(), BytesMut::new());
        frames.iter().for_each(|frame| wire::encode(frame, &mut message));
        put_frame(&mut out, Opcode::Binary, &message, Some(self.keys.next_key()));
        let sent = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| cannot("write to", "the server", &error))
    }

    /// Waits for the first frame that `pick` wants. A refusal by the server is an error.
    async fn receive<T>(&mut self, mut pick: impl FnMut(&Frame<'_>) -> Option<T>) -> Result<T> {
        let patience = self.patience;
        let received = async {
            let mut picked = None;
            loop {
                let mut unread = std::mem::take(&mut self.unread);
                self.decoder
                    .feed(&mut unread, &mut |received| take(&received, &mut pick, &mut picked))?;
                if let Some(picked) = picked {
                    return Ok(picked);
                }
                unread.resize(64 << 10, 0);
                let read = self.stream.read(&mut unread).await;
                let count = read.map_err(|error| cannot("read from", "the server", &error))?;
                if count == 0 {
                    let error = Error::new(ErrorKind::Closed, "the server closed the connection");
                    return Err(Ended(error));
                }
                unread.truncate(count);
                self.unread = unread;
            }
        };
        within(patience, "the server's answer", received).await?.map_err(|Ended(error)| error)
    }

    async fn hello(&mut self, link: &Link) -> Result<Welcomed> {
        let hello = Hello {
            versions: (1, 1),
            client_id: link.id.as_deref().unwrap_or(""),
            origin: "doctor",
            token: link.token.as_deref().unwrap_or(""),
            agent: concat!("kps-doctor/", env!("CARGO_PKG_VERSION")),
            ..Hello::default()
        };
        self.send(&[Frame::Hello(hello)]).await?;
        self.receive(|frame| match frame {
            Frame::Welcome(Welcome { server, client_id, max_payload, time_base_ms, .. }) => {
                Some(Welcomed {
                    server: (*server).to_owned(),
                    client_id: (*client_id).to_owned(),
                    max_payload: *max_payload,
                    time_base_ms: *time_base_ms,
                })
            }
            _ => None,
        })
        .await
    }

    async fn subscribe(&mut self, topic: &str) -> Result<()> {
        let subscribe = Subscribe {
            sub: 1,
            pattern: topic,
            window: 16,
            window_bytes: 1 << 30,
            ..Subscribe::default()
        };
        self.send(&[Frame::Subscribe(subscribe)]).await?;
        self.receive(|frame| matches!(frame, Frame::Subscribed { sub: 1, .. }).then_some(())).await
    }

    /// Sends a message to ourselves; returns the server's time of it, in its own counting.
    async fn round_trip(
        &mut self,
        topic: &str,
        content_type: ContentType,
        payload: &[u8],
    ) -> Result<u64> {
        self.published += 1;
        let publish = Frame::Publish(Publish {
            number: self.published,
            to: Destination::Topic(Name::Inline(topic)),
            ack: false,
            request: false,
            prompt: true,
            maybe_duplicate: false,
            content_type,
            extensions: None,
            payload,
        });
        let credit = Frame::Credit { sub: 1, consumed: self.consumed };
        self.send(&[credit, publish]).await?;
        self.consumed += 1;
        let length = payload.len();
        self.receive(|frame| match frame {
            Frame::Message(MessageFrame { time, payload, .. }) if payload.len() == length => {
                Some(*time)
            }
            _ => None,
        })
        .await
    }

    /// Sorted round trips, and how many milliseconds the server's clock is ahead of ours.
    async fn round_trips(
        &mut self,
        topic: &str,
        time_base_ms: u64,
    ) -> Result<(Vec<Duration>, i64)> {
        let mut trips = Vec::with_capacity(ROUNDS);
        let mut ahead = (Duration::MAX, 0);
        for _ in 0..ROUNDS {
            let (started, wall) = (Instant::now(), wall_ms());
            let time = self.round_trip(topic, ContentType::Json, b"null").await?;
            let trip = started.elapsed();
            // The fastest trip pins the server's moment down best: to its middle.
            if trip < ahead.0 {
                let here = wall + i64::try_from(trip.as_millis() / 2).unwrap_or(0);
                let there = i64::try_from(time_base_ms.saturating_add(time)).unwrap_or(i64::MAX);
                ahead = (trip, there - here);
            }
            trips.push(trip);
        }
        trips.sort_unstable();
        Ok((trips, ahead.1))
    }

    async fn goodbye(mut self) {
        let mut out = BytesMut::new();
        put_close(&mut out, 1000, "", Some(self.keys.next_key()));
        // Nothing is lost if the server does not get it.
        let _ = self.stream.write_all(&out).await;
        let _ = self.stream.shutdown().await;
    }
}

/// Why receiving ended.
struct Ended(Error);

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Ended(Error::new(ErrorKind::Protocol, violation.to_string()))
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended(error)
    }
}

fn take<T>(
    received: &Received<'_>,
    pick: &mut impl FnMut(&Frame<'_>) -> Option<T>,
    picked: &mut Option<T>,
) -> Result<(), Ended> {
    match received {
        Received::Binary(message) => {
            for frame in Frames::new(message) {
                match frame? {
                    Frame::Error(error) => {
                        return Err(Ended(Error::new(error.kind, error.message.to_owned())));
                    }
                    frame if picked.is_none() => *picked = pick(&frame),
                    _ => {}
                }
            }
            Ok(())
        }
        Received::Close { code, reason } => {
            let sentence = format!("the server closed the connection: {code} {reason}");
            Err(Ended(Error::new(ErrorKind::Closed, sentence)))
        }
        _ => Ok(()),
    }
}

async fn within<T>(patience: Duration, what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(patience, future).await.map_err(|_| {
        Error::new(ErrorKind::Timeout, format!("{what} took longer than {}", millis(patience)))
    })
}

fn cannot(what: &str, whom: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::ConnectFailed, format!("cannot {what} {whom}: {error}"))
}

fn wall_ms() -> i64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}
