//! The sink against real servers: TimescaleDB and plain PostgreSQL run the same tests, each test in
//! a fresh database. `deploy/local/services up` starts them, `services env` says where they are.

mod alerts;
mod blocks;
mod migrations;
mod offsets;
mod redrive;
mod roles;
mod support;
mod writer;
