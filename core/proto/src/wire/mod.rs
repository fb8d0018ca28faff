//! What goes over the cable: kps.v1 (binary, see `PROTOCOL.md`) and KPS JSON.

pub mod frame;
