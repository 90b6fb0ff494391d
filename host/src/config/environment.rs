//! Environment variables, `.env` and flags, put over what a file says.
//!
//! Precedence: flags, then environment, then `.env`, then the file. The names are the original's; one that belongs to
//! a kind of source or sink counts only for that kind.

use std::{io::ErrorKind, sync::Arc};

use super::{
    fault::{Collector, Faults, Place},
    load::Inputs,
    node::{Node, Value},
    variables::Variables,
    yaml,
};

/// Where a variable counts.
type Scope = Option<(&'static str, &'static str)>;

/// Everywhere.
const ALWAYS: Scope = None;

/// With a Kafka source.
const KAFKA: Scope = Some(("source.type", "kafka"));

/// With a Redis source.
const REDIS: Scope = Some(("source.type", "redis"));

/// With an S3 sink.
const S3: Scope = Some(("sink.type", "s3"));

/// With an HDFS sink.
const HDFS: Scope = Some(("sink.type", "hdfs"));

/// Variable, key, and where it counts.
const ENVIRONMENT: [(&str, &str, Scope); 35] = [
    ("SOURCE_TYPE", "source.type", ALWAYS),
    ("SINK_TYPE", "sink.type", ALWAYS),
    ("KAFKA_BOOTSTRAP_SERVERS", "source.bootstrap_servers", KAFKA),
    ("KAFKA_TOPICS", "source.topics", KAFKA),
    ("KAFKA_GROUP_ID", "source.group_id", KAFKA),
    ("REDIS_HOST", "source.host", REDIS),
    ("REDIS_PORT", "source.port", REDIS),
    ("REDIS_DB", "source.db", REDIS),
    ("REDIS_USERNAME", "source.username", REDIS),
    ("REDIS_PASSWORD", "source.password", REDIS),
    ("REDIS_STREAM_KEYS", "source.stream_keys", REDIS),
    ("REDIS_LIST_KEYS", "source.list_keys", REDIS),
    ("REDIS_CONTINUOUS", "source.continuous", REDIS),
    ("REDIS_CONSUMER_GROUP", "source.consumer_group", REDIS),
    ("REDIS_CONSUMER_NAME", "source.consumer_name", REDIS),
    ("S3_BUCKET", "sink.bucket", S3),
    ("S3_PREFIX", "sink.prefix", S3),
    ("S3_ENDPOINT_URL", "sink.endpoint_url", S3),
    ("AWS_ACCESS_KEY_ID", "sink.aws_access_key_id", S3),
    ("AWS_SECRET_ACCESS_KEY", "sink.aws_secret_access_key", S3),
    ("AWS_REGION", "sink.region_name", S3),
    ("HDFS_URL", "sink.url", HDFS),
    ("HDFS_BASE_PATH", "sink.base_path", HDFS),
    ("HDFS_USER", "sink.user", HDFS),
    ("HDFS_DELEGATION_TOKEN", "sink.delegation_token", HDFS),
    ("SINK_MERGE_ENABLED", "sink.merge_enabled", ALWAYS),
    ("SINK_MERGE_PERIOD", "sink.merge_period", ALWAYS),
    ("SINK_MERGE_MIN_FILES", "sink.merge_min_files", ALWAYS),
    ("SINK_MERGE_ON_FLUSH", "sink.merge_on_flush", ALWAYS),
    ("PIPELINE_FLUSH_INTERVAL_SECONDS", "pipeline.flush_interval_seconds", ALWAYS),
    ("PIPELINE_FLUSH_INTERVAL_BATCHES", "pipeline.flush_interval_batches", ALWAYS),
    ("LOG_LEVEL", "telemetry.log_level", ALWAYS),
    ("OTEL_ENABLED", "telemetry.enabled", ALWAYS),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint", ALWAYS),
    ("OTEL_SERVICE_NAME", "telemetry.service_name", ALWAYS),
];

/// Keys on which the scope of variables depends.
const TYPES: [&str; 2] = ["source.type", "sink.type"];

/// Part of temporary AWS credentials, which only the AWS chain can use.
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

/// `.env` of the working folder, and the process environment over it. The process environment itself is not changed.
pub fn read() -> Result<Variables, Faults> {
    let process: Variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut variables = dot_env()?;
    // The AWS chain looks at the process only.
    variables.remove(SESSION_TOKEN);
    variables.extend(process);
    Ok(variables)
}

/// The variables of `.env`, none where it is missing.
fn dot_env() -> Result<Variables, Faults> {
    let faults = Collector::default();
    let message = match dotenvy::from_path_iter(".env") {
        Ok(entries) => match entries.collect() {
            Ok(variables) => return Ok(variables),
            Err(error) => describe(&error),
        },
        Err(dotenvy::Error::Io(error)) if error.kind() == ErrorKind::NotFound => return Ok(Variables::new()),
        Err(error) => describe(&error),
    };
    faults.add(&Place::other(".env"), "", message);
    faults.finish(None)
}

/// What is wrong with `.env`, without the line itself, which may hold a secret.
fn describe(error: &dotenvy::Error) -> String {
    match error {
        dotenvy::Error::LineParse(line, at) => {
            let name = line.split('=').next().unwrap_or_default().trim();
            let is_name = !name.is_empty() && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_');
            let which = if is_name { format!("the line of {name}") } else { "a line".to_owned() };
            format!("{which} cannot be read at its character {at}: expected NAME=value, with quotes around spaces")
        }
        dotenvy::Error::Io(error) => format!("the file cannot be read: {error}"),
        _ => "the file cannot be read".to_owned(),
    }
}

/// Puts environment and flags over one file. In a file of several pipelines they count for each of them. `is_of_process` is whether it
/// may be about the process alone.
pub(super) fn apply(node: &mut Node, is_of_process: bool, inputs: &Inputs, faults: &Collector) {
    let of_file = |key: &str| {
        let begins = ["telemetry.", "pipelines.", "tenants."].iter().any(|section| key.starts_with(section));
        begins || key == "telemetry"
    };
    if let Value::Map(entries) = &mut node.value
        && let Some((_, Node { value: Value::Map(pipelines), .. })) =
            entries.iter_mut().find(|(key, _)| key == "pipelines")
    {
        for (_, pipeline) in pipelines {
            apply_matching(pipeline, inputs, faults, |key| !of_file(key));
        }
        apply_matching(node, inputs, faults, of_file);
        return;
    }
    // A file about tenants has no source for a variable to say something of.
    let is_pipeline = !is_of_process || ["source", "sink"].iter().any(|key| node.get(key).is_some());
    apply_matching(node, inputs, faults, |key| is_pipeline || of_file(key));
}

/// The same for some keys. Types come first, since they say which variables count.
fn apply_matching(node: &mut Node, inputs: &Inputs, faults: &Collector, wanted: impl Fn(&str) -> bool) {
    let put = |node: &mut Node, key: &str, value: Node| {
        let place = value.place.clone();
        if let Err(message) = node.set(key, value) {
            faults.add(&place, key, message);
        }
    };
    let flags = || inputs.overrides.iter().filter(|flag| wanted(&flag.key));
    for flag in flags().filter(|flag| TYPES.contains(&flag.key.as_str())) {
        put(node, &flag.key, flag_value(flag, faults));
    }
    let is_temporary = inputs.environment.get(SESSION_TOKEN).is_some_and(|token| !token.is_empty());
    for (variable, key, scope) in ENVIRONMENT.iter().filter(|(_, key, _)| wanted(key)) {
        let counts = scope
            .is_none_or(|(key, kind)| node.text_at(key).is_some_and(|text| text.eq_ignore_ascii_case(kind)))
            && !(TYPES.contains(key) && flags().any(|flag| flag.key == *key));
        let Some(value) = inputs.environment.get(*variable).filter(|value| !value.is_empty() && counts) else {
            continue;
        };
        let place = Place::other(format!("environment variable {variable}"));
        // Temporary credentials are three; the AWS chain takes them from the environment by itself.
        let is_chain = is_temporary && matches!(*variable, "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY");
        let value = if is_chain { Node { place, value: Value::Null } } else { Node::plain(place, value) };
        put(node, key, value);
    }
    for flag in flags() {
        put(node, &flag.key, flag_value(flag, faults));
    }
}

/// A key that a flag sets.
#[derive(Clone, Debug)]
pub struct Override {
    /// The dotted key.
    pub key: String,
    /// Its value; one that begins with `[` or `{` is read as YAML.
    pub value: String,
    /// The flag, for messages.
    pub flag: String,
}

/// The value of a flag.
fn flag_value(flag: &Override, faults: &Collector) -> Node {
    let Override { value, flag, .. } = flag;
    let place = Place::other(flag.as_str());
    if !value.starts_with(['[', '{']) {
        return Node::plain(place, value);
    }
    let name: Arc<str> = flag.as_str().into();
    let mut node = yaml::parse(&name, value, &Variables::new(), faults)
        .unwrap_or(Node { place: place.clone(), value: Value::Unreadable });
    node.move_to(&place);
    node
}
