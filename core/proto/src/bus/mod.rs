//! The broker as a state machine.
