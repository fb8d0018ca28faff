//! A listening TCP socket: binding, and accepting without ever spinning or dying.

use std::{io, net::SocketAddr, net::ToSocketAddrs, time::Duration};

use kps_proto::{Error, ErrorKind, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections the kernel may hold before they are accepted: a burst of clients that reconnect
/// after a restart should not run into a SYN retry of one second.
const BACKLOG: u32 = 4096;

/// How long accepting pauses when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Resolves `listen` (`host:port`, port 0: any free one). Fails with `bind_failed`.
pub(crate) fn resolve(listen: &str) -> Result<SocketAddr> {
    let failed = |what: String| {
        let sentence = format!("cannot listen on {listen:?}: {what}; give host:port");
        Error::new(ErrorKind::BindFailed, sentence)
    };
    let mut addresses = listen.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    addresses.next().ok_or_else(|| failed("the name has no address".into()))
}

/// Binds and listens. Must be called within the runtime. Fails with `bind_failed`.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted server gets its port back at once; elsewhere the option means theft.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program listens there: stop it or choose another port"
            }
            io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
            _ => "",
        };
        Error::new(ErrorKind::BindFailed, format!("cannot listen on {address}: {error}{hint}"))
    })
}

/// The next connection. Errors of single connections are passed over; exhaustion of file
/// descriptors pauses accepting instead of spinning on it.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                // Messages are coalesced by what waits, so Nagle's algorithm could only delay.
                let _ = stream.set_nodelay(true);
                return (stream, remote);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_fails_with_bind_failed() {
        for listen in ["", "9313", "127.0.0.1", "127.0.0.1:99999"] {
            assert_eq!(resolve(listen).unwrap_err().kind(), ErrorKind::BindFailed, "{listen}");
        }
    }
}
