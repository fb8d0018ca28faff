//! `publish_to_server`: a short KPS JSON conversation with another server.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use kps_proto::{
    Error, ErrorKind, Result,
    message::Payload,
    wire::kps_json::{Json, Reply, encode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use super::hub::Hub;
use crate::net::{
    Address, TlsOptions,
    upgrade::upgrade_to,
    websocket::{Decoder, MaskKeys, Opcode, Received, Role, Violation, put_close, put_frame},
};

/// How long a relay may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Relays at the same time; what is beyond is refused rather than queued.
const AT_ONCE: usize = 256;

static RELAYS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Passes `payload` on to the server at `to`, and waits until it has it.
///
/// `to` is `host:port[/path]`, or `public-host[/path]::proxied-host:port` for a server behind a
/// proxy; a `wss://` in front asks for TLS as `secure` does. Fails with `forbidden_address` unless
/// the host is a loopback one or among [`super::ServerOptions::server_addresses`].
pub(super) async fn send(hub: &Arc<Hub>, to: &str, secure: bool, payload: &Payload) -> Result<()> {
    let target = Target::parse(to, secure)?;
    target.check(&hub.options.server_addresses)?;
    let Ok(_permit) = RELAYS.try_acquire() else {
        return Err(Error::new(ErrorKind::LimitExceeded, "too many relays are under way"));
    };
    let from = hub.options.id.as_deref().unwrap_or_default();
    tokio::time::timeout(PATIENCE, target.converse(from, payload)).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, format!("the server at {to} did not answer in time")))
    })
}

struct Target<'a> {
    address: Address,
    /// What the other server is told it is called.
    to: &'a str,
}

impl<'a> Target<'a> {
    fn parse(to: &'a str, secure: bool) -> Result<Self> {
        let (secure, to) = match (to.strip_prefix("wss://"), to.strip_prefix("ws://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (secure, rest),
            _ => (secure, to),
        };
        // An IPv6 address has such colons too, but in brackets.
        let host_end = to.find(']').unwrap_or(0);
        let (reach, to) = match to[host_end..].find("::") {
            Some(at) => (&to[..host_end + at], &to[host_end + at + 2..]),
            None => (to, to),
        };
        let scheme = if secure { "wss" } else { "ws" };
        Ok(Target { address: Address::parse(&format!("{scheme}://{reach}"))?, to })
    }

    fn check(&self, allowed: &[String]) -> Result<()> {
        let Address { host, .. } = &self.address;
        let is_loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let authority = self.address.authority();
        let listed =
            allowed.iter().any(|entry| entry == "*" || entry == host || *entry == authority);
        if is_loopback || listed {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ForbiddenAddress,
            format!(
                "this server may not reach {authority}; start it with --server-address {authority}"
            ),
        ))
    }

    async fn converse(&self, from: &str, payload: &Payload) -> Result<()> {
        let lost = |error: std::io::Error| {
            let sentence = format!("the server at {} was lost: {error}", self.address.authority());
            Error::new(ErrorKind::ConnectFailed, sentence)
        };
        let tcp = TcpStream::connect((self.address.host.as_str(), self.address.port));
        let tcp = tcp.await.map_err(lost)?;
        if !self.address.secure {
            return self.talk(tcp, from, payload).await;
        }
        let name = rustls::pki_types::ServerName::try_from(self.address.host.clone())
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, "the host is no name for TLS"))?;
        let connector = tokio_rustls::TlsConnector::from(TlsOptions::default().config()?);
        self.talk(connector.connect(name, tcp).await.map_err(lost)?, from, payload).await
    }

    /// Registers, says it, and waits for the answer to its close: then it was handled.
    async fn talk<S>(&self, stream: S, from: &str, payload: &Payload) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut stream, early) = upgrade_to(None, stream, &self.address).await?;
        let mut keys = MaskKeys::default();
        let mut out = BytesMut::new();
        let data = &Json::of(payload);
        for reply in [Reply::Ping { from }, Reply::ServerToServer { to: self.to, data }] {
            let mut text = BytesMut::new();
            encode(&reply, &mut text);
            put_frame(&mut out, Opcode::Text, &text, Some(keys.next_key()));
        }
        put_close(&mut out, 1000, "", Some(keys.next_key()));
        let lost = |_| Error::new(ErrorKind::ConnectFailed, "the other server closed too early");
        stream.write_all(&out).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut decoder = Decoder::new(Role::Client, 64 << 10);
        let mut buffer = early.to_vec();
        let (mut registered, mut closed, mut refused) = (false, false, None);
        loop {
            let fed = decoder.feed(&mut buffer, &mut |received| {
                match received {
                    Received::Text(text) if text.contains("\"pong\"") => registered = true,
                    Received::Text(text) => refused = Some(text.to_owned()),
                    Received::Close { .. } => closed = true,
                    _ => {}
                }
                Ok::<(), Violation>(())
            });
            fed.map_err(|violation| Error::new(ErrorKind::Protocol, violation.to_string()))?;
            if closed {
                break;
            }
            buffer.resize(4096, 0);
            let count = stream.read(&mut buffer).await.map_err(lost)?;
            if count == 0 {
                break;
            }
            buffer.truncate(count);
        }
        match (registered, refused) {
            (true, None) => Ok(()),
            (_, Some(text)) => Err(Error::new(ErrorKind::ConnectFailed, format!("it said {text}"))),
            (false, None) => Err(Error::new(ErrorKind::ConnectFailed, "it did not register us")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_listed_addresses_may_be_reached() {
        let check = |to, allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|entry| (*entry).to_owned()).collect();
            Target::parse(to, false).and_then(|target| target.check(&allowed))
        };
        for to in ["localhost:9000", "127.0.0.1:1/x", "[::1]:9313", "localhost/p::inner:80"] {
            assert!(check(to, &[]).is_ok(), "{to}");
        }
        for to in ["10.0.0.1:9000", "example.org", "localhost.example.org:1"] {
            assert_eq!(check(to, &[]).unwrap_err().kind(), ErrorKind::ForbiddenAddress, "{to}");
        }
        assert!(check("example.org:1", &["example.org"]).is_ok());
        assert!(check("example.org:1", &["example.org:1"]).is_ok());
        assert!(check("example.org:1", &["example.org:2"]).is_err());
        assert!(check("example.org:1", &["*"]).is_ok());
    }

    #[test]
    fn a_proxied_server_is_reached_by_its_public_name_and_called_by_its_own() {
        let target = Target::parse("public.example/bus::inner:9313", true).unwrap();
        assert_eq!((&*target.address.host, &*target.address.path), ("public.example", "/bus"));
        assert!(target.address.secure);
        assert_eq!(target.to, "inner:9313");
    }
}
