//! What an operator's tools see: Prometheus over HTTP, a collector over gRPC.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{metrics::Metrics, *};
use crate::config::LogFormat;

/// Everything switched on, towards a collector.
fn config(otlp_endpoint: &str) -> TelemetryConfig {
    TelemetryConfig {
        log_level: "INFO".to_owned(),
        log_format: LogFormat::Json,
        enabled: true,
        service_name: "lake".to_owned(),
        otlp_endpoint: Some(otlp_endpoint.to_owned()),
        trace_enabled: true,
        metrics_enabled: true,
        listen: None,
    }
}

/// Metrics and spans without a log, which a process has only once.
fn telemetry(config: &TelemetryConfig, push_errors: &Arc<AtomicU64>) -> Telemetry {
    let registry = Registry::new();
    let meters = start_meters(config, &registry, push_errors).unwrap();
    Telemetry { registry, meters, spans: start_spans(config).unwrap() }
}

/// A whole answer to a request.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn prometheus_finds_the_originals_names_in_a_format_that_it_reads() {
    let config = TelemetryConfig { enabled: false, ..config("") };
    let telemetry = telemetry(&config, &Arc::new(AtomicU64::new(7)));
    let metrics = Metrics::on(&telemetry.meters.meter("fs_data_sink"), "orders", "shop", "kafka", "s3");
    metrics.batch_read(8192, 1_000_000);
    metrics.error("store");
    metrics.plugin_refused("enrich", "http", "host");
    metrics.plugin_egress("enrich", "http", 120);
    let health = Health::default();
    health.set_pipeline("orders", PipelineState::Running);
    let address = telemetry.serve(([127, 0, 0, 1], 0).into(), health.clone()).await.unwrap();

    let page = get(address, "/metrics").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    // Prometheus 3 refuses a page whose type it does not know.
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    let value = |name: &str| {
        let line = page.lines().rfind(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {page}"));
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    assert_eq!(value("fs_data_sink_batches_processed_total{"), 1);
    assert_eq!(value("fs_data_sink_records_processed_total{"), 8192);
    assert_eq!(value("fs_data_sink_source_bytes_total{"), 1_000_000);
    assert_eq!(value("fs_data_sink_telemetry_push_errors_total"), 7);
    let errors = page.lines().find(|line| line.starts_with("fs_data_sink_errors_total{") && line.contains("store"));
    for label in ["pipeline=\"orders\"", "tenant=\"shop\"", "source=\"kafka\"", "sink=\"s3\"", "stage=\"store\""] {
        assert!(errors.unwrap().contains(label), "{label} in {errors:?}");
    }
    let refusals = page.lines().find(|line| line.starts_with("fs_data_sink_plugin_refusals_total{"));
    for label in ["tenant=\"shop\"", "plugin=\"enrich\"", "grant=\"http\"", "reason=\"host\""] {
        assert!(refusals.unwrap().contains(label), "{label} in {refusals:?}");
    }
    assert_eq!(value("fs_data_sink_plugin_egress_bytes_total{"), 120);
    assert!(page.contains("service_name=\"lake\""), "{page}");

    assert!(get(address, "/").await.contains("orders: running"));
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    health.set_waiting("orders", Some("plugin p traps".to_owned()));
    let page = get(address, "/readyz").await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("orders: waiting: plugin p traps"), "{page}");
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    health.set_pipeline("orders", PipelineState::Failed("the bucket is gone".to_owned()));
    let page = get(address, "/healthz").await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("orders: failed: the bucket is gone"), "{page}");
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let telemetry = telemetry(&TelemetryConfig { enabled: false, ..config("") }, &Arc::default());
    let error = telemetry.serve(address, Health::default()).await.unwrap_err().full_message();
    assert!(error.contains("telemetry.listen") && error.contains(&address.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_pushed_by_otlp_at_the_end() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let telemetry = telemetry(&config(&endpoint), &Arc::default());
    let metrics = Metrics::on(&telemetry.meters.meter("fs_data_sink"), "orders", "shop", "kafka", "s3");
    metrics.batch_read(1, 1);
    let ending = tokio::spawn(telemetry.shutdown());
    let (mut push, _) = collector.accept().await.unwrap();
    let mut preface = [0; 24];
    push.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // The collector goes away in the middle: nobody waits for it without end.
    drop((push, collector));
    ending.await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_is_not_one_is_named_with_its_key() {
    let error = start_meters(&config("not a url"), &Registry::new(), &Arc::default()).unwrap_err().full_message();
    assert!(error.starts_with("telemetry.otlp_endpoint \"not a url\" cannot be used"), "{error}");
    // With TLS too.
    start_spans(&config("https://collector.example:4317")).unwrap();
}
