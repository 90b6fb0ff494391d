//! Logs, metrics, traces, and the HTTP page that an operator and a load balancer ask.

pub mod metrics;
