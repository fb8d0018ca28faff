//! Topics and patterns.
