//! The engine with itself: a server and clients whose messages are late, lost, or forgotten in a crash.

mod basics;
mod early;
mod strict;
mod world;
