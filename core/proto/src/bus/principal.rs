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
    pub(super) fn check_subscribe(&self, pattern: &str) -> Result<()> {
        match &self.subscribe {
            Some(allowed) if !allowed.iter().any(|allowed| covers(allowed, pattern)) => {
                Err(Error::new(
                    ErrorKind::Unauthorized,
                    format!("this client may not subscribe to {pattern:?}; ask for the permission"),
                ))
            }
            _ => Ok(()),
        }
    }
}

fn covers(allowed: &Pattern, asked: &str) -> bool {
    let mut asked = asked.split('.');
    for allowed in allowed.as_str().split('.') {
        match (allowed, asked.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            (_, Some(">")) => return false,
            ("*", Some(_)) => {}
            (allowed, Some(asked)) if allowed == asked => {}
            _ => return false,
        }
    }
    asked.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_covers_only_patterns_inside_it() {
        for (allowed, asked, expected) in [
            ("a.>", "a.b", true),
            ("a.>", "a.*", true),
            ("a.>", "a.>", true),
            ("a.*", "a.>", false),
            ("a.*", "a.*", true),
            ("a.b", "a.*", false),
            (">", ">", true),
            ("a.>", ">", false),
        ] {
            let allowed = Pattern::parse(allowed).unwrap();
            assert_eq!(covers(&allowed, asked), expected, "{} {asked}", allowed.as_str());
        }
    }
}
