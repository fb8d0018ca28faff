//! The kps package for python.
