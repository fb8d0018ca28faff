//! On whose behalf a connection acts.

use crate::{
    error::{Error, ErrorKind, Result},
    topic::Pattern,
};

/// Who is connected and what it may do. The default is an anonymous one that may do everything.
#[derive(Clone, Debug, Default)]
pub struct Principal {
    /// The authenticated name; `None`: anonymous.
    pub name: Option<String>,
    /// Scopes topics and ids.
    pub namespace: String,
    /// Topics it may publish to; `None`: all.
    pub publish: Option<Vec<Pattern>>,
    /// Patterns it may subscribe to; `None`: all.
    pub subscribe: Option<Vec<Pattern>>,
}

impl Principal {
    pub(super) fn check_publish(&self, topic: &str) -> Result<()> {
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
