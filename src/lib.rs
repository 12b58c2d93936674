//! inosec
