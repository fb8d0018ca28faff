//! Who may connect, and what they may do.
//!
//! A server knows static tokens ([`Token`]); a hook ([`OnConnect`]) may refuse or replace what
//! they say. No token is ever logged: [`Token`]'s `Debug` leaves it out.
//!
//! Permissions are patterns of topics to publish to and to subscribe within. A call of a server's capability is its
//! topic `kps.server.<capability>.<operation>`, to publish to; one of a document needs the document as well, which is
//! `kps.document.<id>`: to subscribe to in order to read it, to publish to in order to change it (the server alone
//! really publishes there). Who has no patterns may everything.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use kps_proto::{Error, ErrorKind, Result, bus::Principal, topic::Pattern};

/// A static token and what its bearer may do.
#[derive(Clone)]
pub struct Token {
    secret: String,
    /// What the bearer may do. `None` in `publish` or `subscribe` means every topic.
    pub principal: Principal,
}

impl Token {
    /// A token whose bearer may do everything in the default namespace. All bearers of one name
    /// are one principal: each may take over a client id of the others.
    pub fn new(secret: impl Into<String>) -> Self {
        let principal = Principal { name: Some("token".into()), ..Principal::default() };
        Token { secret: secret.into(), principal }
    }

    /// Who the bearer is. Without it: `token`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.principal.name = Some(name.into());
        self
    }

    /// The namespace that scopes the bearer's topics and ids.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.principal.namespace = namespace.into();
        self
    }

    /// Restricts publishing to topics that one of `patterns` matches, and changing documents to those whose topic
    /// `kps.document.<id>` one of them matches. Fails with `invalid_topic` for what is no pattern.
    pub fn publish<'a>(mut self, patterns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        self.principal.publish = Some(parse(patterns)?);
        Ok(self)
    }

    /// Restricts subscribing to patterns that lie within one of `patterns`, and reading documents to those whose topic
    /// `kps.document.<id>` one of them matches. Fails with `invalid_topic` for what is no pattern.
    pub fn subscribe<'a>(mut self, patterns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        self.principal.subscribe = Some(parse(patterns)?);
        Ok(self)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("principal", &self.principal).finish_non_exhaustive()
    }
}

fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Vec<Pattern>> {
    patterns.into_iter().map(Pattern::parse).collect()
}

/// The static tokens of a server.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// From a list; empty: everybody is anonymous.
    pub fn new(tokens: Vec<Token>) -> Self {
        Tokens(tokens)
    }

    /// Whether connections need no token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The principal that `secret` stands for. Takes the same time for every wrong secret of a
    /// length, so that it cannot be guessed byte by byte.
    pub fn principal(&self, secret: &str) -> Result<Principal> {
        if self.0.is_empty() {
            return Ok(Principal::default());
        }
        let mut found = None;
        for token in &self.0 {
            if same(token.secret.as_bytes(), secret.as_bytes()) {
                found = Some(token);
            }
        }
        found.map(|token| token.principal.clone()).ok_or_else(|| {
            let sentence = if secret.is_empty() {
                "this server needs a token: connect with token=… or `Authorization: Bearer …`"
            } else {
                "the token is not one of this server's"
            };
            Error::new(ErrorKind::Unauthorized, sentence)
        })
    }
}

/// Equality without an early exit.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && std::hint::black_box(left.iter().zip(right).fold(0, |all, (l, r)| all | (l ^ r))) == 0
}

/// A connection that asks to be let in.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// The id it wants; empty: any.
    pub client_id: String,
    /// What its token stands for.
    pub principal: Principal,
    /// Where it comes from; `None` inside the process.
    pub remote: Option<SocketAddr>,
    /// The headers of the HTTP upgrade, names in lower case. Without `authorization` and
    /// `cookie`'s secrets: those two are left out.
    pub headers: Vec<(String, String)>,
    /// The path and query of the HTTP upgrade.
    pub path: String,
}

/// What a hook decides: let it in as this principal, or refuse with the error's sentence.
pub type Decision = Result<Principal>;

/// A hook that sees every connection before it may do anything.
///
/// It is called on the server's thread and must not block: what takes time goes into the future.
pub type OnConnect =
    Arc<dyn Fn(ConnectRequest) -> Pin<Box<dyn Future<Output = Decision> + Send>> + Send + Sync>;

/// A hook from a function that decides at once.
pub fn decide_at_once(
    decide: impl Fn(&ConnectRequest) -> Decision + Send + Sync + 'static,
) -> OnConnect {
    Arc::new(move |request| {
        let decision = decide(&request);
        Box::pin(std::future::ready(decision))
    })
}

/// A hook that hands each request to `ask` together with where its answer goes: for hosts that
/// decide on a thread or event loop of their own. An answer that never comes refuses.
pub fn decide_later(
    ask: impl Fn(ConnectRequest, tokio::sync::oneshot::Sender<Decision>) + Send + Sync + 'static,
) -> OnConnect {
    Arc::new(move |request| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        ask(request, answer);
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unauthorized, "on_connect gave no decision"))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_tokens_lets_everybody_in_as_anonymous() {
        assert!(Tokens::default().principal("").unwrap().name.is_none());
    }

    #[test]
    fn a_token_stands_for_its_principal_and_a_wrong_one_for_nobody() {
        let tokens = Tokens::new(vec![Token::new("a"), Token::new("bb").name("bea")]);
        assert_eq!(tokens.principal("bb").unwrap().name.as_deref(), Some("bea"));
        assert!(tokens.principal("a").unwrap().name.is_some());
        for wrong in ["", "b", "bbb", "ab"] {
            assert_eq!(tokens.principal(wrong).unwrap_err().kind(), ErrorKind::Unauthorized);
        }
    }

    #[test]
    fn a_token_is_not_in_its_debug_text() {
        let text = format!("{:?}", Tokens::new(vec![Token::new("s3cret")]));
        assert!(!text.contains("s3cret"), "{text}");
    }
}
