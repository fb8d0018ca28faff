//! The kps package for node.
