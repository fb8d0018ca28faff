//! What a principal may do with documents, and how the server's own client is told of it.
//!
//! A call of the server's capabilities is allowed by its topic; which document it is about stands in its payload, which
//! the broker does not read. So it says of whoever calls which documents it may read and change, in headers of the
//! call: then it does not matter who has the caller's id when the call's turn comes.

use super::Principal;
use crate::{
    error::{Error, ErrorKind, Result},
    message::Extras,
    topic::{DOCUMENTS, Pattern},
};

/// Headers with patterns, one a line.
const READS: &str = "kps-reads";
const CHANGES: &str = "kps-changes";

/// Which documents somebody may read and change. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grants {
    reads: Option<Vec<Pattern>>,
    changes: Option<Vec<Pattern>>,
}

impl Grants {
    /// Those of `principal`: it may read the document `id` if it may subscribe to `kps.document.<id>`, and change it
    /// if `kps.document.<id>` is among the topics it may publish to. (The server alone publishes there.)
    pub fn of(principal: &Principal) -> Grants {
        if principal.is_server {
            return Grants::default();
        }
        Grants {
            reads: principal.subscribe.as_deref().map(of_documents),
            changes: principal.publish.as_deref().map(of_documents),
        }
    }

    /// Those that the broker wrote into the headers of a call.
    pub fn from_headers(headers: &[(String, String)]) -> Grants {
        Grants { reads: read(headers, READS), changes: read(headers, CHANGES) }
    }

    /// Writes them into a call's headers, in place of what its publisher wrote there.
    pub(super) fn vouch(&self, extras: &mut Option<Box<Extras>>) {
        let headers = &mut extras.get_or_insert_default().headers;
        headers.retain(|(name, _)| name != READS && name != CHANGES);
        for (name, patterns) in [(READS, &self.reads), (CHANGES, &self.changes)] {
            let Some(patterns) = patterns else { continue };
            let lines: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
            headers.push((name.to_owned(), lines.join("\n")));
        }
    }

    /// Whether the document `id` may be read.
    ///
    /// # Errors
    /// `Unauthorized` if it may not.
    pub fn check_read(&self, id: &str) -> Result<()> {
        check(self.reads.as_deref(), id, "read", "subscribe to")
    }

    /// Whether the document `id` may be changed. Who changes one is told what happened to it meanwhile, and has to
    /// be allowed to read it, too.
    ///
    /// # Errors
    /// `Unauthorized` if it may not.
    pub fn check_change(&self, id: &str) -> Result<()> {
        check(self.changes.as_deref(), id, "change", "publish to")
    }
}

/// Nothing else matches the topic of a document. No id has a line break.
fn of_documents(patterns: &[Pattern]) -> Vec<Pattern> {
    let is_one = |pattern: &&Pattern| {
        pattern.as_str().starts_with(DOCUMENTS) && !pattern.as_str().contains('\n')
    };
    patterns.iter().filter(is_one).cloned().collect()
}

fn read(headers: &[(String, String)], name: &str) -> Option<Vec<Pattern>> {
    let (_, lines) = headers.iter().find(|(header, _)| header == name)?;
    Some(lines.split('\n').filter_map(|line| Pattern::parse(line).ok()).collect())
}

fn check(allowed: Option<&[Pattern]>, id: &str, what: &str, permission: &str) -> Result<()> {
    let Some(allowed) = allowed else { return Ok(()) };
    let topic = format!("{DOCUMENTS}{id}");
    if allowed.iter().any(|pattern| pattern.matches(&topic)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unauthorized,
        format!(
            "this client may not {what} the document {id:?}; ask for the permission to {permission} {topic:?}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(all: &[&str]) -> Option<Vec<Pattern>> {
        Some(all.iter().map(|it| Pattern::parse(it).unwrap()).collect())
    }

    fn principal(publish: Option<&[&str]>, subscribe: Option<&[&str]>) -> Principal {
        Principal {
            publish: publish.and_then(patterns),
            subscribe: subscribe.and_then(patterns),
            ..Principal::default()
        }
    }

    fn may(grants: &Grants, id: &str) -> (bool, bool) {
        (grants.check_read(id).is_ok(), grants.check_change(id).is_ok())
    }

    #[test]
    fn who_has_no_patterns_may_do_everything_and_so_may_the_server() {
        assert_eq!(may(&Grants::of(&Principal::default()), "d"), (true, true));
        let server = Principal { is_server: true, ..principal(Some(&[]), Some(&[])) };
        assert_eq!(may(&Grants::of(&server), "d"), (true, true));
    }

    #[test]
    fn subscribing_is_reading_and_publishing_is_changing() {
        let grants =
            Grants::of(&principal(Some(&["kps.document.mine"]), Some(&["kps.document.>"])));
        assert_eq!((may(&grants, "mine"), may(&grants, "other")), ((true, true), (true, false)));
        let sentence = grants.check_change("other").unwrap_err().to_string();
        assert!(sentence.contains("publish to \"kps.document.other\""), "{sentence}");
    }

    #[test]
    fn a_pattern_has_to_spell_out_that_it_is_about_documents() {
        for all in [">", "kps.>", "*.document.d", "kps.server.document.>"] {
            let grants = Grants::of(&principal(Some(&[all]), Some(&[all])));
            assert_eq!(may(&grants, "d"), (false, false), "{all}");
        }
    }

    #[test]
    fn levels_of_an_id_are_levels_of_its_topic() {
        let grants = Grants::of(&principal(None, Some(&["kps.document.team.>", "kps.document.*"])));
        for (id, may_read) in [("team.a.b", true), ("other", true), ("other.a", false)] {
            assert_eq!(may(&grants, id), (may_read, true), "{id}");
        }
    }

    #[test]
    fn headers_tell_the_same_and_take_the_place_of_what_a_client_wrote() {
        let cases = [
            principal(
                Some(&["kps.document.a.>", "x", "kps.document.b"]),
                Some(&["kps.document.>"]),
            ),
            principal(Some(&[]), Some(&["x.>"])),
            principal(None, Some(&["kps.document.*"])),
            principal(Some(&["kps.document.a\nkps.document.>"]), None),
        ];
        for principal in cases {
            let forged = [(READS, "kps.document.>"), (CHANGES, "kps.document.>"), ("other", "1")];
            let headers = forged.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let mut extras = Some(Box::new(Extras { headers, ..Extras::default() }));
            let grants = Grants::of(&principal);
            grants.vouch(&mut extras);
            let headers = extras.unwrap().headers;
            assert_eq!(Grants::from_headers(&headers), grants);
            assert_eq!(headers[0], ("other".to_owned(), "1".to_owned()));
        }
        assert_eq!(Grants::from_headers(&[]), Grants::default());
    }
}
