//! What one who opens a document is told of it.

use super::{Document, json, operation::Applied, version::Version};

/// The document at a version, and a way to it from another one.
#[derive(Debug)]
pub(crate) struct Introduction {
    /// What is told is the document as it was at this version: not the latest one, if there is more.
    pub(crate) version: Version,
    /// A version, and all operations after it.
    pub(crate) since: Option<(Version, Vec<Applied>)>,
    /// Whether `since` begins with another version than the one that is there.
    pub(crate) needs_content: bool,
    /// Whether more happened since: who knows `version` asks again.
    pub(crate) more: bool,
}

impl Introduction {
    /// The content alone.
    pub(in crate::document) fn whole(version: Version) -> Introduction {
        Introduction { version, since: None, needs_content: true, more: false }
    }
}

impl Document {
    /// For one who has the first version of `known`, and could begin with one of the others.
    ///
    /// `in_parts`: it needs all that happened since, in however many parts; if not, what is too much for one answer is
    /// left out, and the content tells enough.
    /// `stored`: what a crash would lose comes after this version. It is told as well: whoever knows how to get from
    /// there to here can also find the way back.
    pub(crate) fn introduce(
        &self,
        lineage: Option<&str>,
        known: &[Version],
        in_parts: bool,
        stored: Option<Version>,
    ) -> Introduction {
        let is_ours = lineage == Some(&**self.lineage());
        let known_here = known.iter().filter(|_| is_ours);
        let found =
            known_here.filter_map(|it| self.place_after(*it).map(|place| (*it, place))).next();
        let found = found.and_then(|(from, place)| self.part(from, place, in_parts));
        let or_stored = || {
            let stored = stored?;
            self.part(stored, self.place_after(stored)?, in_parts)
        };
        let Some((from, missing)) = found.or_else(or_stored) else {
            return Introduction::whole(self.version());
        };
        let version = missing.last().map_or(from, |applied| applied.version);
        Introduction {
            version,
            needs_content: known.first() != Some(&from) || !is_ours,
            since: Some((from, missing)),
            more: version < self.version(),
        }
    }

    /// As many of the operations after `from`, which begin at `place`, as are told at once; `None`: not even the first, or
    /// not all.
    fn part(&self, from: Version, place: usize, in_parts: bool) -> Option<(Version, Vec<Applied>)> {
        let most = self.limits.missing;
        let missing = self.history.range(place..).map(|kept| &kept.applied);
        let mut bytes = 0;
        let fits = |applied: &&Applied| {
            bytes += applied.weight();
            bytes <= most
        };
        let count = missing.clone().take_while(fits).count();
        if count < missing.len() {
            // One alone may be larger, but not what it is as JSON.
            let is_told =
                in_parts && (count > 0 || json::weight(&missing.clone().next()) <= 4 * most);
            if !is_told {
                return None;
            }
        }
        Some((from, missing.take(count.max(1)).cloned().collect()))
    }
}
