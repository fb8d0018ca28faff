//! Ways to the bus for those who do not speak its protocol.

pub(crate) mod http;
