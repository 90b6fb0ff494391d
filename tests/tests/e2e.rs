//! Placeholder.
#[path = "e2e/services.rs"]
mod services;
