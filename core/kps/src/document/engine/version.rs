//! A document's version, as it is told: a weak ETag.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How often a document was changed, about: it grows with every change. After a crash it jumps, so that no
/// version ever names two contents.
///
/// It is written as a weak ETag, `W/"17"`, and read with or without `W/` and quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// Integers that every language holds exactly.
const LAST: u64 = (1 << 53) - 1;

impl Version {
    /// No document ever has it: what is made for it is applied if it was applied before, or is in conflict.
    pub(crate) const NEVER: Version = Version(LAST);
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W/\"{}\"", self.0)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Version, ()> {
        let tag = text.strip_prefix("W/").unwrap_or(text);
        let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|number| plain && *number <= LAST);
        number.map(Version).ok_or(())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Version, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map_err(|()| de::Error::custom("a version is written W/\"17\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_written_and_a_little_looser() {
        for text in ["W/\"17\"", "\"17\"", "17", "W/17"] {
            assert_eq!(text.parse(), Ok(Version(17)), "{text}");
        }
        assert_eq!(Version(17).to_string(), "W/\"17\"");
        for text in ["", "W/", "\"\"", "+1", "-1", "1.5", "x", "W/\"1", "9007199254740992"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
