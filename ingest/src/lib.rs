//! inosec ingest
