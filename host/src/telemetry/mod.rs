//! Logs, metrics, traces, and the HTTP page that an operator and a load balancer ask.
//!
//! Comes in: the telemetry configuration. Goes out: log lines on standard error, OTLP pushes, `/metrics`. Promise: a
//! collector that is away never stops or slows a pipeline.

use std::{net::SocketAddr, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::SdkTracerProvider,
};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{LogFormat, TelemetryConfig},
    error::PipelineError,
};

mod health;
mod http;
pub mod metrics;
pub mod rate_limit;

pub use health::{Health, PipelineState};

/// Metrics are pushed this often, as the original did.
const PUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Where a collector listens when nothing is said.
const DEFAULT_ENDPOINT: &str = "http://localhost:4317";

/// Libraries that say too much at INFO and below; a directive in `telemetry.log_level` overrides each.
const QUIET_LIBRARIES: [&str; 8] = [
    "h2=warn",
    "hyper=warn",
    "object_store=warn",
    "opentelemetry=warn",
    "reqwest=warn",
    "rustls=warn",
    "tonic=warn",
    "tower=warn",
];

/// What runs until the process ends.
#[derive(Debug)]
pub struct Telemetry {
    /// Everything that is measured.
    registry: prometheus::Registry,
    /// Feeds the registry and OTLP.
    meters: SdkMeterProvider,
    /// Pushes spans, where switched on.
    spans: Option<SdkTracerProvider>,
}

/// Starts logs, metrics and traces. Inside a tokio runtime, once a process.
pub fn start(config: &TelemetryConfig) -> Result<Telemetry, PipelineError> {
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let endpoint = config.otlp_endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
    let registry = prometheus::Registry::new();
    let prometheus_reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .map_err(|error| PipelineError::stop("the Prometheus exporter cannot be set up").because(error))?;
    let mut meters = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(prometheus_reader);
    if config.enabled && config.metrics_enabled {
        let exporter = opentelemetry_otlp::MetricExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| otlp_failed(endpoint, error))?;
        meters = meters.with_reader(PeriodicReader::builder(exporter).with_interval(PUSH_INTERVAL).build());
    }
    let meters = meters.build();
    opentelemetry::global::set_meter_provider(meters.clone());
    let spans = if config.enabled && config.trace_enabled {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| otlp_failed(endpoint, error))?;
        Some(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
    } else {
        None
    };
    start_logs(config, spans.as_ref())?;
    Ok(Telemetry { registry, meters, spans })
}

/// Log lines on standard error, and spans to OTLP.
fn start_logs(config: &TelemetryConfig, spans: Option<&SdkTracerProvider>) -> Result<(), PipelineError> {
    let filter = log_filter(&config.log_level)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    let traces = spans.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("fs-data-sink"))
            .with_filter(EnvFilter::new("fs_data_sink=info"))
    });
    tracing_subscriber::registry()
        .with(traces)
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|error| PipelineError::stop("logs cannot be set up").because(error))
}

/// `INFO`, `WARNING` as in the original, or directives such as `INFO,fs_data_sink::source=DEBUG`.
fn log_filter(level: &str) -> Result<EnvFilter, PipelineError> {
    let wanted = level.replace("WARNING", "WARN").replace("CRITICAL", "ERROR");
    let directives = QUIET_LIBRARIES.join(",") + "," + &wanted;
    EnvFilter::try_new(&directives).map_err(|error| {
        PipelineError::stop(format!(
            "telemetry.log_level {level:?} is neither a level (DEBUG, INFO, WARNING, ERROR) nor a list of directives"
        ))
        .because(error)
    })
}

/// An endpoint that is not one.
fn otlp_failed(endpoint: &str, error: opentelemetry_otlp::ExporterBuildError) -> PipelineError {
    PipelineError::stop(format!("telemetry.otlp_endpoint {endpoint:?} cannot be used")).because(error)
}

impl Telemetry {
    /// Serves `/metrics`, `/healthz`, `/readyz` and a status page; returns the address that it listens on.
    pub async fn serve(&self, listen: SocketAddr, health: Health) -> Result<SocketAddr, PipelineError> {
        http::serve(listen, health, self.registry.clone()).await
    }

    /// Pushes what is left; waits for a collector that is away no longer than its own timeout.
    pub async fn shutdown(self) {
        let Self { registry: _, meters, spans } = self;
        let flush = tokio::task::spawn_blocking(move || {
            // There is nobody left to tell.
            let _ = meters.shutdown_with_timeout(PUSH_INTERVAL);
            let _ = spans.map(|spans| spans.shutdown_with_timeout(PUSH_INTERVAL));
        });
        let _ = tokio::time::timeout(PUSH_INTERVAL, flush).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_levels_are_understood_and_nonsense_is_named() {
        for level in ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "info,fs_data_sink::source=debug"] {
            log_filter(level).unwrap();
        }
        let error = log_filter("LOUD=VERY=").unwrap_err();
        assert!(error.to_string().contains("telemetry.log_level"), "{error}");
    }
}
