//! The HTTP page: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts and routes, `/` for people.

use std::{fmt::Write as _, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::net::TcpListener;

use super::{Health, PipelineState};
use crate::error::PipelineError;

/// What the page knows.
type Known = (Health, Registry);

/// Listens until the process ends.
pub(super) async fn serve(listen: SocketAddr, health: Health, registry: Registry) -> Result<SocketAddr, PipelineError> {
    let explain = |error: std::io::Error| {
        PipelineError::stop(format!(
            "telemetry.listen: cannot listen on {listen}; choose another address, or `listen: none`"
        ))
        .because(error)
    };
    let listener = TcpListener::bind(listen).await.map_err(explain)?;
    let address = listener.local_addr().map_err(explain)?;
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/", get(status))
        .with_state((health, registry));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            tracing::error!(%error, "the HTTP page ended");
        }
    });
    tracing::info!(%address, "serving /metrics, /healthz, /readyz");
    Ok(address)
}

/// Prometheus' text format.
async fn metrics(State((_, registry)): State<Known>) -> Result<impl IntoResponse, StatusCode> {
    let (encoder, mut text) = (TextEncoder::new(), Vec::new());
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => Ok(([(CONTENT_TYPE, encoder.format_type().to_owned())], text)),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// 200 unless a pipeline has failed and none runs.
async fn healthz(State((health, _)): State<Known>) -> (StatusCode, String) {
    (if health.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, page(&health))
}

/// 200 once every pipeline is past its start, and while none is held up.
async fn readyz(State((health, _)): State<Known>) -> (StatusCode, String) {
    (if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, page(&health))
}

/// One line a pipeline.
async fn status(State((health, _)): State<Known>) -> String {
    format!("fs-data-sink {}\n{}", env!("CARGO_PKG_VERSION"), page(&health))
}

/// One line a pipeline, and what is refused of the configuration.
fn page(health: &Health) -> String {
    let mut text = health.states().iter().fold(String::new(), |mut text, (name, state)| {
        // Writing to a String cannot fail.
        let _ = match state {
            PipelineState::Starting => writeln!(text, "{name}: starting"),
            PipelineState::Running => writeln!(text, "{name}: running"),
            PipelineState::Waiting(why) => writeln!(text, "{name}: waiting: {why}"),
            PipelineState::Stopped => writeln!(text, "{name}: stopped"),
            PipelineState::Failed(why) => writeln!(text, "{name}: failed: {why}"),
        };
        text
    });
    for note in health.notes() {
        // A fault may have several lines.
        let _ = writeln!(text, "# {}", note.replace('\n', " "));
    }
    text
}
