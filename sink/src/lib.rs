//! inosec sink
