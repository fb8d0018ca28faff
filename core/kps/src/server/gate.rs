//! Which `Origin`s and `Host`s may come in: a hostile web page must not reach a local bus.
//!
//! A browser lets any page open a WebSocket to `127.0.0.1`, but says in `Origin` whose page it
//! is. And a page whose own name is made to resolve to `127.0.0.1` (DNS rebinding) still says its
//! name in `Host`. So both are compared with what the server was told to expect.

use std::net::{IpAddr, SocketAddr};

use kps_proto::{Error, ErrorKind, Result};

/// The names a server answers to, and whose pages it lets in.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    origins: Vec<String>,
    hosts: Vec<String>,
}

impl Gate {
    /// `origins` as browsers write them (`https://app.example.org`), `hosts` without port; a
    /// `"*"` in either admits all.
    pub(super) fn new(origins: &[String], hosts: &[String]) -> Gate {
        let normal = |name: &String| name.trim().trim_end_matches('/').to_ascii_lowercase();
        Gate {
            origins: origins.iter().map(normal).collect(),
            hosts: hosts.iter().map(normal).map(without_port).collect(),
        }
    }

    /// Checks a request that arrived at `local`. Fails with `forbidden_origin`.
    pub(super) fn check(
        &self,
        host: Option<&str>,
        origin: Option<&str>,
        local: Option<SocketAddr>,
    ) -> Result<()> {
        let Some(host) = host else {
            return forbidden("the request has no Host header".into());
        };
        let authority = host.to_ascii_lowercase();
        let Some(host) = parse(&authority) else {
            return forbidden(format!("{authority:?} is neither host nor host:port"));
        };
        let name = host.0;
        if !self.admits_host(name, local) {
            return forbidden(format!(
                "this server does not answer to the name {name:?}; start it with --allow-host {name}"
            ));
        }
        match origin {
            Some(origin) if !self.admits_origin(&origin.to_ascii_lowercase(), host) => {
                forbidden(format!(
                    "pages of {origin} may not use this server; start it with --allow-origin {origin}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether this origin was allowed by name, or all were.
    pub(super) fn lists(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.origins.iter().any(|allowed| allowed == "*" || *allowed == origin)
    }

    fn admits_host(&self, host: &str, local: Option<SocketAddr>) -> bool {
        is_loopback(host)
            || local.is_some_and(|local| {
                host.parse::<IpAddr>().is_ok_and(|ip| ip == local.ip().to_canonical())
            })
            || self.hosts.iter().any(|allowed| allowed == "*" || allowed == host)
    }

    fn admits_origin(&self, origin: &str, (host, host_port): Authority<'_>) -> bool {
        if self.lists(origin) {
            return true;
        }
        // The page came from where it now talks to. Another port of the same machine is somebody
        // else: whatever listens there may show pages of anybody.
        let (from, default) = match origin.split_once("://") {
            Some(("http", from)) => (from, 80),
            Some(("https", from)) => (from, 443),
            _ => return false,
        };
        parse(from).is_some_and(|(name, port)| {
            port.unwrap_or(default) == host_port.unwrap_or(default)
                && (name == host || (is_loopback(name) && is_loopback(host)))
        })
    }
}

fn forbidden(sentence: String) -> Result<()> {
    Err(Error::new(ErrorKind::ForbiddenOrigin, sentence))
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A name or address and the port, if there is one.
type Authority<'a> = (&'a str, Option<u16>);

/// Takes `name`, `name:port`, `[v6]:port` (or a bare IPv6 address) apart; `None` for anything else.
fn parse(authority: &str) -> Option<Authority<'_>> {
    let (name, rest) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => match authority.rsplit_once(':') {
            // More than one colon: a bare IPv6 address.
            Some((name, _)) if !name.contains(':') => authority.split_at(name.len()),
            _ => (authority, ""),
        },
    };
    match rest.strip_prefix(':') {
        Some(port) => Some((name, Some(port.parse().ok()?))),
        None => rest.is_empty().then_some((name, None)),
    }
}

fn without_port(host: String) -> String {
    parse(&host).map(|(name, _)| name.to_owned()).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Option<SocketAddr> {
        Some("192.168.1.7:9313".parse().unwrap())
    }

    #[test]
    fn loopback_names_and_the_listening_address_are_hosts() {
        let gate = Gate::new(&[], &["Bus.example.org:443".into()]);
        for host in [
            "localhost:9313",
            "LOCALHOST",
            "127.0.0.1:1",
            "[::1]:9313",
            "192.168.1.7:9313",
            "bus.example.org",
        ] {
            assert!(gate.check(Some(host), None, local()).is_ok(), "{host}");
        }
    }

    #[test]
    fn a_foreign_or_missing_host_is_refused() {
        let gate = Gate::default();
        for host in
            ["evil.example", "127.0.0.1.evil.example", "192.168.1.8", "", "localhost.", "[", "::"]
                .into_iter()
                .chain(["[::1]evil.example", "127.0.0.1:evil.example", "localhost:"])
        {
            assert!(gate.check(Some(host), None, local()).is_err(), "{host}");
        }
        assert!(gate.check(None, None, local()).is_err());
    }

    #[test]
    fn only_pages_of_the_same_host_and_port_or_of_the_list_come_in() {
        let gate = Gate::new(&["https://app.example.org".into()], &["bus.example.org".into()]);
        let check = |host, origin| gate.check(Some(host), Some(origin), local());
        for (host, origin) in [
            ("localhost:9313", "http://localhost:9313"),
            ("localhost:9313", "http://127.0.0.1:9313"),
            ("[::1]:9313", "http://localhost:9313"),
            ("127.0.0.1", "http://[::1]"),
            ("bus.example.org", "https://bus.example.org"),
            ("bus.example.org:443", "https://bus.example.org"),
            ("bus.example.org", "https://app.example.org"),
        ] {
            assert!(check(host, origin).is_ok(), "{host} {origin}");
        }
        for (host, origin) in [
            ("localhost:9313", "http://evil.example"),
            ("localhost:9313", "http://localhost:3000"),
            ("localhost:9313", "http://localhost"),
            ("[::1]:9313", "http://[::1]"),
            ("localhost:9313", "http://localhost.evil.example"),
            ("localhost:9313", "http://localhost@evil.example"),
            ("localhost:80", "http://[::1]evil.example"),
            ("localhost:80", "http://localhost:evil.example"),
            ("localhost:9313", "null"),
            ("localhost:9313", "file://localhost"),
            ("localhost:9313", "https://app.example.org.evil.example"),
            ("bus.example.org", "http://localhost"),
        ] {
            assert!(check(host, origin).is_err(), "{host} {origin}");
        }
    }

    #[test]
    fn a_star_admits_all() {
        let gate = Gate::new(&["*".into()], &["*".into()]);
        assert!(gate.check(Some("a"), Some("http://b"), None).is_ok());
    }
}
