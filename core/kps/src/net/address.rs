//! The address a client connects to.

use kps_proto::{Error, ErrorKind, Result};

/// The port of a URL that names none: kps' design.
pub const DEFAULT_PORT: u16 = 9313;

/// The path of a URL that names none: kps' design.
pub const DEFAULT_PATH: &str = "/ws/bus";

/// A `ws://` or `wss://` URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `wss`.
    pub secure: bool,
    /// Name or IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl Address {
    /// Reads `url`. Fails with `invalid_argument`, saying what is wrong with it.
    pub fn parse(url: &str) -> Result<Address> {
        let wrong = |what: &str| {
            let sentence =
                format!("{url:?} is no server address: {what}; expected like ws://host:9313");
            Err(Error::new(ErrorKind::InvalidArgument, sentence))
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return wrong("the scheme is missing");
        };
        let secure = match scheme {
            "ws" => false,
            "wss" => true,
            _ => return wrong("the scheme is none of ws, wss, mem"),
        };
        if rest.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
            return wrong("it has a blank, control character or fragment");
        }
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return wrong("credentials do not belong there (use a token)");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) if port.starts_with(':') => (host, Some(&port[1..])),
                _ => return wrong("the brackets around the IPv6 address are broken"),
            },
            None => match authority.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return wrong("an IPv6 address needs brackets");
                }
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return wrong("the host is missing");
        }
        let port = match port.map(str::parse) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return wrong("the port is no number from 1 to 65535"),
        };
        let path = match path {
            "" | "/" => DEFAULT_PATH.into(),
            query if query.starts_with('?') => format!("{DEFAULT_PATH}{query}"),
            path => path.into(),
        };
        Ok(Address { secure, host: host.into(), port, path })
    }

    /// Host and port, as in the `Host` header.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(secure: bool, host: &str, port: u16, path: &str) -> Address {
        Address { secure, host: host.into(), port, path: path.into() }
    }

    #[test]
    fn what_a_url_leaves_out_has_defaults() {
        let cases = [
            ("ws://host", address(false, "host", 9313, "/ws/bus")),
            ("ws://host/", address(false, "host", 9313, "/ws/bus")),
            ("wss://host:80/x?y=z", address(true, "host", 80, "/x?y=z")),
            ("ws://1.2.3.4?a=b", address(false, "1.2.3.4", 9313, "/ws/bus?a=b")),
            ("ws://[::1]:7", address(false, "::1", 7, "/ws/bus")),
            ("ws://[::1]", address(false, "::1", 9313, "/ws/bus")),
        ];
        for (url, expected) in cases {
            assert_eq!(Address::parse(url).unwrap(), expected, "{url}");
        }
        assert_eq!(Address::parse("ws://[::1]").unwrap().authority(), "[::1]:9313");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        let wrong = [
            "",
            "host",
            "http://host",
            "ws://",
            "ws://:1",
            "ws://h:0",
            "ws://h:x",
            "ws://h:65536",
            "ws://a:b@h",
            "ws://h h",
            "ws://::1",
            "ws://[::1",
            "ws://[::1]x",
            "ws://h\r\nX: y",
        ];
        for url in wrong {
            assert_eq!(
                Address::parse(url).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{url}"
            );
        }
    }
}
