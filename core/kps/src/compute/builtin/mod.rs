//! Tasks that every kps has.

mod argument;
mod factorial;
mod fibonacci;
mod hash;
mod multiply;
mod prime;

pub(super) use self::argument::too_large;
pub use self::hash::Sha256Stream;
use super::{array, task::Run};
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
    Builtin {
        name: "sum",
        summary: "The sum: exact for integers",
        run: array::sum,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "mean",
        summary: "The arithmetic mean",
        run: array::mean,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "std",
        summary: "The standard deviation; ddof is subtracted from the count (0)",
        run: array::std,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "min",
        summary: "The smallest number",
        run: array::min,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "max",
        summary: "The largest number",
        run: array::max,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "quantiles",
        summary: "The quantiles q (0 to 1), interpolated linearly; the quartiles if q is missing",
        run: array::quantiles,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "sort",
        summary: "The numbers in order, each row by itself; descending if asked",
        run: array::sort,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "histogram",
        summary: "{counts, edges} of bins (10, or a list of edges) over range",
        run: array::histogram,
        tiny: |data| array::length(data) <= 1024,
    },
    Builtin {
        name: "matmul",
        summary: "The product of the matrices a and b",
        run: array::matmul,
        tiny: |data| array::length(data) <= 512,
    },
    Builtin {
        name: "dot",
        summary: "The product of two rows a and b, or of matrices",
        run: array::dot,
        tiny: |data| array::length(data) <= 512,
    },
];
