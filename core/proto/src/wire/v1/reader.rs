//! Takes a frame's body apart, field by field, and says which field was wrong.

use std::fmt;

use crate::{
    error::{Error, ErrorKind},
    message::{ContentType, RowStatus},
    wire::varint::{self, MAX_INT},
};

/// What is wrong with a frame. Small, so that the way without errors stays fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    field: &'static str,
    problem: Problem,
}

#[derive(Clone, Copy, Debug)]
enum Problem {
    Short,
    Varint,
    Large,
    Utf8,
    Count,
    Unknown(u8),
    NotNegotiated,
}

impl Fault {
    /// The fault in words; `frame` is the frame's name.
    #[cold]
    pub(super) fn in_frame(self, frame: &str) -> Error {
        Error::new(ErrorKind::Protocol, format!("malformed {frame} frame: {self}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        match self.problem {
            Problem::Short => write!(f, "{field} is cut off by the frame's end"),
            Problem::Varint => write!(f, "{field} is a varint beyond 10 bytes or 64 bits"),
            Problem::Large => write!(
                f,
                "{field} is above its bound (2^53 - 1, 2^32 - 1 for numbers of subscriptions and aliases)"
            ),
            Problem::Utf8 => write!(f, "{field} is not UTF-8"),
            Problem::Count => write!(f, "{field} has more entries than bytes follow"),
            Problem::Unknown(number) => write!(f, "{field} {number} is unknown to kps.v1"),
            Problem::NotNegotiated => write!(f, "{field} was not agreed on in HELLO and WELCOME"),
        }
    }
}

/// The part of a body not yet read.
///
/// What `PUB` and `MSG` use is inlined always: left to itself the compiler passes each field
/// through memory, which doubles the time of a decode (`benches/wire.rs`).
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline(always)]
    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, Fault> {
        let (&byte, rest) = self.0.split_first().ok_or(Fault { field, problem: Problem::Short })?;
        self.0 = rest;
        Ok(byte)
    }

    /// Any 64-bit value.
    #[inline(always)]
    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, Fault> {
        varint::read(&mut self.0).map_err(|fault| Fault {
            field,
            problem: match fault {
                varint::Fault::Short => Problem::Short,
                varint::Fault::Overflow => Problem::Varint,
            },
        })
    }

    /// A value that every language can hold.
    #[inline(always)]
    pub(super) fn int(&mut self, field: &'static str) -> Result<u64, Fault> {
        let value = self.varint(field)?;
        if value > MAX_INT {
            return Err(Fault { field, problem: Problem::Large });
        }
        Ok(value)
    }

    /// A number of a subscription, recipient or alias.
    #[inline(always)]
    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Fault> {
        u32::try_from(self.varint(field)?).map_err(|_| Fault { field, problem: Problem::Large })
    }

    #[inline(always)]
    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], Fault> {
        let length = self.varint(field)?;
        let (bytes, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length))
            .ok_or(Fault { field, problem: Problem::Short })?;
        self.0 = rest;
        Ok(bytes)
    }

    #[inline(always)]
    pub(super) fn str(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        utf8(self.bytes(field)?, field)
    }

    /// The number of entries of a list, none of which takes fewer than `least` bytes: so a few
    /// bytes cannot ask for much memory.
    pub(super) fn count(&mut self, field: &'static str, least: usize) -> Result<usize, Fault> {
        usize::try_from(self.varint(field)?)
            .ok()
            .filter(|&count| count <= self.0.len() / least)
            .ok_or(Fault { field, problem: Problem::Count })
    }

    #[inline(always)]
    pub(super) fn content_type(&mut self) -> Result<ContentType, Fault> {
        self.known("content type", ContentType::from_number)
    }

    pub(super) fn status(&mut self) -> Result<RowStatus, Fault> {
        self.known("status", RowStatus::from_number)
    }

    /// A byte that stands for a value; one that stands for nothing is refused.
    #[inline(always)]
    pub(super) fn known<T>(
        &mut self,
        field: &'static str,
        from_number: impl FnOnce(u8) -> Option<T>,
    ) -> Result<T, Fault> {
        let number = self.byte(field)?;
        from_number(number).ok_or(unknown(field, number))
    }
}

/// `bytes` as text.
#[inline(always)]
pub(super) fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault { field, problem: Problem::Utf8 })
}

/// `number` in `field` stands for nothing, or for nothing allowed there.
pub(super) fn unknown(field: &'static str, number: u8) -> Fault {
    Fault { field, problem: Problem::Unknown(number) }
}

/// `field` needs a feature bit.
pub(super) fn not_negotiated(field: &'static str) -> Fault {
    Fault { field, problem: Problem::NotNegotiated }
}
