//! Tasks that every kps has.

mod argument;
mod factorial;
mod fibonacci;
mod hash;
mod multiply;
mod prime;

pub use self::hash::Sha256Stream;
use super::task::Run;
use crate::capability::{Outcome, Value};

/// A task that every kps has.
#[derive(Debug)]
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) run: fn(Value, &Run<'_>) -> Outcome,
    /// Whether it takes microseconds with this data: then it runs where it is called, without a hop
    /// to another thread.
    pub(super) tiny: fn(&Value) -> bool,
}

/// All of them.
pub(super) static BUILTINS: &[Builtin] = &[
    Builtin {
        name: "fibonacci",
        summary: "The n-th Fibonacci number, exact: fibonacci(0) is 0, fibonacci(1) is 1",
        run: fibonacci::run,
        tiny: |data| argument::is_below("n", data, 2_000),
    },
    Builtin {
        name: "factorial",
        summary: "The product of 1 to n, exact",
        run: factorial::run,
        tiny: |data| argument::is_below("n", data, 200),
    },
    Builtin {
        name: "is_prime",
        summary: "Whether n is prime; certain up to 64 bit, above by a test that no composite is known to pass",
        run: prime::run,
        tiny: |data| argument::is_below("n", data, i64::MAX),
    },
    Builtin {
        name: "hash_sha256",
        summary: "The SHA-256 of text (in UTF-8) or bytes, in hexadecimal",
        run: hash::run,
        tiny: |data| hash::length(data) <= 4_096,
    },
];
