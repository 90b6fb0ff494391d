//! The real binary against real servers, one module a scenario.
//!
//! Servers are started once and shared; a scenario has topics, groups and prefixes of its own. Those that stop a broker
//! start their own. Each test says what it does and what that guarantees.

mod ambiguous;
mod azure;
mod begin;
mod budgets;
mod circuit;
mod compact;
mod corners;
mod dead_letters;
mod disk;
mod download;
mod escapes;
mod evolution;
mod examples;
mod files;
mod files_typed;
mod gcs;
mod group;
mod hdfs;
mod hostile;
mod kill;
mod many;
mod once;
mod outage;
mod parquet;
mod plugin_languages;
mod plugin_outside;
mod plugin_tools;
mod redis;
mod reload;
mod replay;
mod scale;
mod secure;
mod servers;
mod shared;
mod state;
mod state_swap;
mod storm;
mod telemetry;
mod tenants;
mod topics;
mod typed_values;
mod uploads;
mod whole_path;
mod wrong;
