//! Real servers on loopback for tests, and what the end-to-end scenarios share.
//!
//! [`services`] starts, stops, freezes and kills real servers; it knows nothing of fs-data-sink. [`program`] runs the
//! real binary as a child. [`records`] makes records and says independently of the program which rows they must become.
//! [`requests`] counts what a commit asks of a store. [`events`] makes those of benchmarks. [`usage`] is what a process takes of the machine. [`lake`] reads what was written with DuckDB and pyarrow, and the dead letters. `tests/e2e.rs` has the scenarios.

pub mod events;
pub mod http;
pub mod lake;
pub mod program;
pub mod records;
pub mod requests;
pub mod services;
pub mod usage;
pub mod wait;
