//! Logs, metrics, traces, and the HTTP page that an operator and a load balancer ask.
//!
//! Comes in: the telemetry configuration. Goes out: log lines on standard error, OTLP pushes, `/metrics`. Promise: a
//! collector that is away never stops or slows a pipeline.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{KeyValue, metrics::MeterProvider as _, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::SdkTracerProvider,
};
use prometheus::Registry;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{config::TelemetryConfig, error::PipelineError};

mod health;
mod http;
mod logs;
pub mod metrics;
pub mod rate_limit;
mod reloads;
mod tenants;

pub use health::{Health, PipelineState};
pub use logs::check_log_level;
pub use reloads::Reloads;
pub use tenants::observe as observe_tenants;

/// Metrics are pushed this often, as the original did.
const PUSH_INTERVAL: Duration = Duration::from_secs(5);

/// How long the last push may take when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a collector listens when nothing is said.
const DEFAULT_ENDPOINT: &str = "http://localhost:4317";

/// What runs until the process ends.
#[derive(Debug)]
pub struct Telemetry {
    /// Everything that is measured.
    registry: Registry,
    /// Feeds the registry and OTLP.
    meters: SdkMeterProvider,
    /// Pushes spans, where switched on.
    spans: Option<SdkTracerProvider>,
}

/// Starts logs, metrics and traces. Inside a tokio runtime, once a process.
pub fn start(config: &TelemetryConfig) -> Result<Telemetry, PipelineError> {
    let registry = Registry::new();
    let push_errors = Arc::new(AtomicU64::new(0));
    let meters = start_meters(config, &registry, &push_errors)?;
    let spans = start_spans(config)?;
    let traces = spans.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("fs-data-sink"))
            .with_filter(EnvFilter::new("fs_data_sink=info"))
    });
    tracing_subscriber::registry()
        .with(traces)
        .with(logs::layer(config, &push_errors)?)
        .try_init()
        .map_err(|error| PipelineError::stop("logs cannot be set up").because(error))?;
    opentelemetry::global::set_meter_provider(meters.clone());
    Ok(Telemetry { registry, meters, spans })
}

/// Metrics for the registry, and for a collector where switched on.
fn start_meters(
    config: &TelemetryConfig,
    registry: &Registry,
    push_errors: &Arc<AtomicU64>,
) -> Result<SdkMeterProvider, PipelineError> {
    let prometheus_reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .map_err(|error| PipelineError::stop("the Prometheus exporter cannot be set up").because(error))?;
    let mut meters = SdkMeterProvider::builder().with_resource(resource(config)).with_reader(prometheus_reader);
    if config.enabled && config.metrics_enabled {
        let exporter = opentelemetry_otlp::MetricExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint(config))
            .build()
            .map_err(|error| otlp_failed(config, error))?;
        meters = meters.with_reader(PeriodicReader::builder(exporter).with_interval(PUSH_INTERVAL).build());
    }
    let meters = meters.build();
    let push_errors = Arc::clone(push_errors);
    // Read when asked for: whoever complains may hold a lock of the libraries.
    let _ = meters
        .meter("fs_data_sink")
        .u64_observable_counter("fs_data_sink.telemetry_push_errors")
        .with_callback(move |observer| observer.observe(push_errors.load(Ordering::Relaxed), &[]))
        .build();
    Ok(meters)
}

/// Spans for a collector, where switched on.
fn start_spans(config: &TelemetryConfig) -> Result<Option<SdkTracerProvider>, PipelineError> {
    if !config.enabled || !config.trace_enabled {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint(config))
        .build()
        .map_err(|error| otlp_failed(config, error))?;
    Ok(Some(SdkTracerProvider::builder().with_resource(resource(config)).with_batch_exporter(exporter).build()))
}

/// Who speaks.
fn resource(config: &TelemetryConfig) -> Resource {
    Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Where the collector is.
fn endpoint(config: &TelemetryConfig) -> &str {
    config.otlp_endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT)
}

/// An endpoint that is not one.
fn otlp_failed(config: &TelemetryConfig, error: opentelemetry_otlp::ExporterBuildError) -> PipelineError {
    PipelineError::stop(format!("telemetry.otlp_endpoint {:?} cannot be used", endpoint(config))).because(error)
}

impl Telemetry {
    /// Serves `/metrics`, `/healthz`, `/readyz` and a status page; returns the address that it listens on.
    pub async fn serve(&self, listen: SocketAddr, health: Health) -> Result<SocketAddr, PipelineError> {
        http::serve(listen, health, self.registry.clone()).await
    }

    /// Pushes what is left, for so long and no longer.
    pub async fn shutdown(self) {
        let Self { registry: _, meters, spans } = self;
        // Side by side: a collector that hangs on the one must not use up the other's time. Nobody is left to tell.
        let metrics = tokio::task::spawn_blocking(move || meters.shutdown_with_timeout(SHUTDOWN_TIMEOUT).is_ok());
        let spans = tokio::task::spawn_blocking(move || {
            spans.is_none_or(|spans| spans.shutdown_with_timeout(SHUTDOWN_TIMEOUT).is_ok())
        });
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, async { tokio::join!(metrics, spans) }).await;
    }
}

#[cfg(test)]
mod tests;
