//! The HTTP request that turns a byte stream into a WebSocket (RFC 6455 §4.1), client side.

use bytes::{Buf, BytesMut};
use kps_proto::{Error, ErrorKind, Result, wire::v1::SUBPROTOCOL};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::Address;

/// A longer answer is not one.
const MAX_HEAD: usize = 16 << 10;

/// Upgrades `stream` to kps.v1; returns it with the bytes that came after the answer's head.
pub(super) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    address: &Address,
) -> Result<(S, BytesMut)> {
    upgrade_to(Some(SUBPROTOCOL), stream, address).await
}

/// Upgrades `stream` to `subprotocol`, or without one to KPS JSON.
pub(crate) async fn upgrade_to<S: AsyncRead + AsyncWrite + Unpin>(
    subprotocol: Option<&str>,
    mut stream: S,
    address: &Address,
) -> Result<(S, BytesMut)> {
    let key = generate_key();
    let offer = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{}\r\n",
        address.path,
        address.authority(),
        offer.unwrap_or_default(),
    );
    let lost = |error: std::io::Error| failed(address, &format!("the connection broke: {error}"));
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;

    let mut bytes = BytesMut::with_capacity(1 << 10);
    loop {
        if stream.read_buf(&mut bytes).await.map_err(lost)? == 0 {
            return Err(failed(address, "it closed the connection without an answer"));
        }
        if let Some(end) = check(&bytes, &key, subprotocol, address)? {
            bytes.advance(end);
            return Ok((stream, bytes));
        }
        if bytes.len() > MAX_HEAD {
            return Err(failed(address, "its answer is too long"));
        }
    }
}

/// The length of the answer's head if it is complete and agrees to the upgrade.
fn check(
    bytes: &[u8],
    key: &str,
    subprotocol: Option<&str>,
    address: &Address,
) -> Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(failed(address, "it does not speak HTTP")),
    };
    let status = response.code.unwrap_or(0);
    if status != 101 {
        // The sentence that came with the refusal, as far as it is there already.
        let body = String::from_utf8_lossy(&bytes[end..]);
        let body = body.lines().next().unwrap_or("").trim();
        return Err(refused(address, status, body));
    }
    let header = |name: &str| {
        response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
    };
    if !header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        || header("sec-websocket-accept") != Some(&*derive_accept_key(key.as_bytes()))
    {
        return Err(failed(address, "its answer is no WebSocket upgrade"));
    }
    match subprotocol {
        Some(wanted) if header("sec-websocket-protocol") != Some(wanted) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} does not speak {wanted}: it is no kps server", address.authority()),
        )),
        _ => Ok(Some(end)),
    }
}

fn refused(address: &Address, status: u16, body: &str) -> Error {
    let kind = match status {
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::ForbiddenOrigin,
        _ => ErrorKind::ConnectFailed,
    };
    let (host, path) = (address.authority(), &address.path);
    let mut sentence = format!("{host} answered {path} with HTTP status {status}");
    match (body, status) {
        ("", 404) => sentence.push_str("; is the path right?"),
        ("", _) => {}
        (body, _) => sentence.extend([": ", body]),
    }
    Error::new(kind, sentence)
}

fn failed(address: &Address, what: &str) -> Error {
    let sentence = format!("{} is no kps server: {what}", address.authority());
    Error::new(ErrorKind::ConnectFailed, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client makes of `answer`; `{accept}` in it becomes the right key.
    async fn answered(answer: &str) -> Result<BytesMut> {
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let address = Address::parse("ws://host").unwrap();
        let answer = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(server.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("GET /ws/bus HTTP/1.1\r\nHost: host:9313\r\n"));
            let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap();
            let key = key.split("\r\n").next().unwrap();
            let answer = answer.replace("{accept}", &derive_accept_key(key.as_bytes()));
            server.write_all(answer.as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
        };
        tokio::join!(upgrade(client, &address), answer).0.map(|(_, early)| early)
    }

    const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
        Connection: Upgrade\r\nsec-websocket-accept: {accept}\r\n";

    #[tokio::test]
    async fn an_upgrade_keeps_what_follows_it() {
        let answer = format!("{AGREED}Sec-WebSocket-Protocol: kps.v1\r\n\r\nabc");
        assert_eq!(answered(&answer).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn refusals_say_what_to_match_on() {
        let cases = [
            ("HTTP/1.1 401 Unauthorized\r\n\r\n".into(), ErrorKind::Unauthorized),
            ("HTTP/1.1 403 Forbidden\r\n\r\nforeign Origin".into(), ErrorKind::ForbiddenOrigin),
            ("HTTP/1.1 404 Not Found\r\n\r\n".into(), ErrorKind::ConnectFailed),
            ("SSH-2.0-OpenSSH_9.2\r\n".into(), ErrorKind::ConnectFailed),
            (String::new(), ErrorKind::ConnectFailed),
            (format!("{AGREED}\r\n"), ErrorKind::Unsupported),
            (AGREED.replace("{accept}", "bm8=") + "\r\n", ErrorKind::ConnectFailed),
            ("x".repeat(MAX_HEAD + 1), ErrorKind::ConnectFailed),
        ];
        for (answer, kind) in cases {
            assert_eq!(answered(&answer).await.unwrap_err().kind(), kind, "{answer:.60}");
        }
    }
}
