//! The client as a state machine.
