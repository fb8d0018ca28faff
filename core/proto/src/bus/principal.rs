//! On whose behalf a connection acts.

use crate::{
    error::{Error, ErrorKind, Result},
    topic::{DOCUMENTS, Pattern, SERVER_CALLS, is_servers},
};

/// Who is connected and what it may do. The default is an anonymous one that may do everything.
#[derive(Clone, Debug, Default)]
pub struct Principal {
    /// The authenticated name; `None`: anonymous.
    pub name: Option<String>,
    /// Scopes topics and ids.
    pub namespace: String,
    /// Topics it may publish to, and those of documents it may change; `None`: all.
    pub publish: Option<Vec<Pattern>>,
    /// Patterns it may subscribe to, and those of documents it may read; `None`: all.
    pub subscribe: Option<Vec<Pattern>>,
    /// It is the program that runs the server, which alone hears calls of the server's capabilities.
    pub is_server: bool,
}

impl Principal {
    /// Whether there is anything that it may not publish or not subscribe to.
    #[inline]
    pub(super) fn is_restricted(&self) -> bool {
        self.publish.is_some() || self.subscribe.is_some()
    }

    /// Whether it may publish to `topic`.
    ///
    /// # Errors
    /// `Unauthorized` if it may not.
    pub fn check_publish(&self, topic: &str) -> Result<()> {
        if is_servers(topic) && !self.is_server {
            return Err(Error::new(
                ErrorKind::Unauthorized,
                "the server alone tells who is in a channel and what its storage has: call sync.join, \
                 storage.save",
            ));
        }
        if topic.starts_with(DOCUMENTS) && !self.is_server {
            return Err(Error::new(
                ErrorKind::Unauthorized,
                "the server alone tells what happens to a document: call document.edit",
            ));
        }
        match &self.publish {
            Some(allowed) if !allowed.iter().any(|pattern| pattern.matches(topic)) => {
                Err(Error::new(
                    ErrorKind::Unauthorized,
                    format!("this client may not publish to {topic:?}; ask for the permission"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// A wildcard in `pattern` must itself be covered: `a.*` is allowed by `a.*` or `a.>`, not by
    /// `a.b`.
    pub(super) fn check_subscribe(&self, pattern: &Pattern) -> Result<()> {
        if pattern.as_str().starts_with(SERVER_CALLS) && !self.is_server {
            return Err(Error::new(
                ErrorKind::Unauthorized,
                "topics under `kps.server.` are calls of the server's own capabilities: offer yours under \
                 another name",
            ));
        }
        match &self.subscribe {
            Some(allowed) if !allowed.iter().any(|allowed| allowed.covers(pattern)) => {
                Err(Error::new(
                    ErrorKind::Unauthorized,
                    format!(
                        "this client may not subscribe to {:?}; ask for the permission",
                        pattern.as_str()
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}
