//! kps: the real-time bus that lives inside your program.
