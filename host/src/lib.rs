//! fs-data-sink moves records from Kafka, Redis and files through WebAssembly plugins into Parquet files.
//!
//! The rooms, in the order data walks through them; a room does not import another room, [`pipeline`] introduces
//! them (`tests/architecture.rs` refuses anything else):
//!
//! ```text
//! source -> decode -> plugin -> partition -> file -> commit
//! ```

// Words that every room may use.
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod ipc;
pub mod memory;
pub mod oauth;
pub mod redis_client;
pub mod store;
pub mod telemetry;
pub mod tenant;

// The rooms.
pub mod source;
pub mod decode;
pub mod plugin;
pub mod partition;
pub mod file;
pub mod commit;

// Who introduces them, and who starts it all.
pub mod pipeline;
pub mod cli;
