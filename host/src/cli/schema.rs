//! `fs-data-sink schema infer`: what the records of files or of topics look like, as a `schema:` block to paste into a configuration.
//!
//! It is the schema that a pipeline without one would have after these records: the same source, the same decoder.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clap::{Args, Subcommand};

use super::{
    BAD_CONFIGURATION, DONE, FAILED, answer,
    reading::{Reading, Refused},
    tell,
};
use crate::{
    config::{
        DecodeConfig, FileConfig, KafkaStart, OnNewField, OnTombstone, OnTypeChange, SchemaSources, SourceConfig,
        SourceKind, ValueFormat, json_pointer,
        load::{self, Inputs},
        schema_yaml,
    },
    decode::Decoder,
    error::PipelineError,
};

/// Records of a batch; the defaults of a pipeline.
const BATCH_ROWS: usize = 8_192;

/// Schemas.
#[derive(Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// Print the schema of files, or of topics, as a `schema:` block for a configuration.
    Infer(InferArguments),
}

/// What `schema infer` takes.
#[derive(Debug, Args)]
pub(super) struct InferArguments {
    /// Files of JSON lines, Arrow IPC or Parquet; patterns; - for standard input. With --from-topic the configuration of a pipeline.
    #[arg(value_name = "FILE", required = true)]
    paths: Vec<String>,
    /// Look at so many records at most; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    records: u64,
    /// The part of each JSON record that is read, for instance /payload/after.
    #[arg(long, value_name = "POINTER")]
    payload_pointer: Option<String>,
    /// Read the topics of a pipeline with a Kafka source, from their beginning and beside the pipeline.
    #[arg(long)]
    from_topic: bool,
    /// Scalars of different types become text instead of being refused.
    #[arg(long)]
    mixed_as_string: bool,
}

/// Does it; gives the exit code.
pub(super) fn main(command: &SchemaCommand) -> u8 {
    let SchemaCommand::Infer(arguments) = command;
    let payload_pointer = match arguments.payload_pointer.as_deref().map(json_pointer).transpose() {
        Ok(pointer) => pointer.unwrap_or_default(),
        Err(message) => {
            tell(&format!("--payload-pointer: {message}"));
            return BAD_CONFIGURATION;
        }
    };
    match infer(arguments, payload_pointer) {
        Ok(found) => {
            for line in &found.told {
                tell(line);
            }
            for (name, block) in &found.blocks {
                if arguments.from_topic {
                    answer(&format!("# {name}"));
                }
                answer(block.trim_end());
            }
            if found.blocks.is_empty() {
                tell("no record has a field with a value, so there is no schema");
                return FAILED;
            }
            DONE
        }
        Err(error) => {
            tell(&format!("fs-data-sink: {}", error.full_message()));
            FAILED
        }
    }
}

/// What was found.
#[derive(Debug)]
struct Found {
    /// The block of each dataset, with its name.
    blocks: Vec<(Arc<str>, String)>,
    /// What there is to say of the records, for people.
    told: Vec<String>,
}

/// Where records are read from, and how their values are written.
struct Plan {
    /// The source.
    source: SourceConfig,
    /// How values are encoded.
    format: ValueFormat,
    /// The part of a JSON record that is read.
    payload_pointer: Vec<String>,
    /// Where schemas of values come from.
    schemas: SchemaSources,
}

/// Reads files, or a topic, and lets a decoder infer.
fn infer(arguments: &InferArguments, payload_pointer: Vec<String>) -> Result<Found, PipelineError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| PipelineError::stop("the process cannot start its threads").because(error))?;
    let plan = if arguments.from_topic { of_topic(arguments)? } else { of_files(arguments) };
    let on_type_change = if arguments.mixed_as_string { OnTypeChange::String } else { OnTypeChange::Widen };
    let Plan { source, format, payload_pointer: configured, schemas } = plan;
    let decode = DecodeConfig {
        format,
        payload_pointer: if payload_pointer.is_empty() { configured } else { payload_pointer },
        schemas,
        on_tombstone: OnTombstone::Skip,
        declared_schema: None,
        on_new_field: OnNewField::Add,
        on_type_change,
        metadata_columns: Vec::new(),
    };
    let limit = if arguments.records == 0 { u64::MAX } else { arguments.records };
    let mut refused: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut reading = Reading::new(decode)?;
    let looked = runtime.block_on(reading.read(&source, limit, |decoded| {
        for Refused { code, message, records } in decoded.refused {
            refused.entry(code).or_insert((0, message)).0 += records.len() as u64;
        }
        Ok(())
    }))?;
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    let mut told = vec![format!("looked at {looked} records")];
    told.extend(refused.iter().map(|(code, (count, message))| format!("{count} refused, {code}: {message}")));
    let block = |(name, decoder): (&Arc<str>, &Decoder)| Some((Arc::clone(name), schema_yaml(decoder.schema()?)));
    Ok(Found { blocks: reading.decoders.iter().filter_map(block).collect(), told })
}

/// Files.
fn of_files(arguments: &InferArguments) -> Plan {
    let kind = SourceKind::File(FileConfig { paths: arguments.paths.clone() });
    let source = SourceConfig { kind, batch_rows_max: BATCH_ROWS, batch_timeout: Duration::from_millis(250) };
    Plan { source, format: ValueFormat::Json, payload_pointer: Vec::new(), schemas: SchemaSources::default() }
}

/// The topics of a pipeline, from their beginning, by a group of our own, of which nothing is left behind.
fn of_topic(arguments: &InferArguments) -> Result<Plan, PipelineError> {
    let environment = load::read_environment().map_err(|faults| PipelineError::stop(faults.to_string()))?;
    let paths = arguments.paths.iter().map(Into::into).collect();
    let config = load::load(&Inputs { paths, environment, ..Inputs::default() })
        .map_err(|faults| PipelineError::stop(faults.to_string()))?;
    let [pipeline] = config.pipelines.as_slice() else {
        return Err(PipelineError::stop("--from-topic takes the configuration of one pipeline"));
    };
    let mut source = pipeline.source.clone();
    let SourceKind::Kafka(kafka) = &mut source.kind else {
        return Err(PipelineError::stop(format!("pipeline {} has no Kafka source, so no topic", pipeline.name)));
    };
    if pipeline.decode.format == ValueFormat::Raw {
        return Err(PipelineError::stop("value_format is raw: only a plugin knows what the records hold"));
    }
    kafka.group_id = format!("{}-schema-{}", kafka.group_id, uuid::Uuid::new_v4());
    kafka.extra_config.retain(|(name, _)| name != "group.instance.id");
    kafka.start = Some(KafkaStart::Earliest);
    kafka.start_offsets.clear();
    let DecodeConfig { format, payload_pointer, schemas, .. } = pipeline.decode.clone();
    Ok(Plan { source, format, payload_pointer, schemas })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Inputs, load};

    /// Scenario: a schema is inferred, pasted into a configuration, and that loaded.
    /// Guarantees: the same fields with the same types; nothing is refused that was not before.
    #[test]
    fn what_is_printed_can_be_pasted() {
        let folder = tempfile::tempdir().unwrap();
        let lines = folder.path().join("lines.ndjson");
        let text = concat!(
            r#"{"id":1,"at":"2026-01-01T00:00:00Z","o":{"a":[{"b":1.5}],"yes":true},"on":"x"}"#,
            "\n",
            r#"{"id":2,"weird name: #1":"y"}"#,
            "\nnot json\n",
        );
        std::fs::write(&lines, text).unwrap();
        let arguments = InferArguments {
            paths: vec![lines.display().to_string()],
            records: 0,
            payload_pointer: None,
            from_topic: false,
            mixed_as_string: false,
        };
        let found = infer(&arguments, Vec::new()).unwrap();
        assert_eq!(found.told[0], "looked at 3 records");
        assert!(found.told[1].starts_with("1 refused, bad-json: "), "{:?}", found.told);
        let (_, block) = found.blocks.first().unwrap();
        let source = format!("source: {{type: file, paths: [{:?}]}}", arguments.paths[0]);
        let path = folder.path().join("pasted.yaml");
        std::fs::write(&path, format!("{source}\nsink: {{type: local, base_path: lake}}\n{block}")).unwrap();
        let config = load(&Inputs { paths: vec![path], ..Inputs::default() })
            .unwrap_or_else(|faults| panic!("{faults}\n{block}"));
        let declared = config.pipelines[0].decode.declared_schema.clone().unwrap();
        let fields: Vec<String> =
            declared.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
        let expected = [
            "id: Int64",
            "at: Timestamp(µs, \"UTC\")",
            "o: Struct(\"a\": List(Struct(\"b\": Float64)), \"yes\": Boolean)",
            "on: Utf8",
            "weird name: #1: Utf8",
        ];
        assert_eq!(fields, expected, "{block}");
    }
}
