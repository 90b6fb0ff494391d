//! What `tests/setup.sh` fetched, found again; a missing piece is named with the command that fetches it.

use std::path::PathBuf;

use super::cache_folder;

/// The folder with Kafka's jars.
pub fn kafka_jars() -> anyhow::Result<PathBuf> {
    piece("kafka/libs")
}

/// The folder with HDFS's jars.
pub fn hdfs_jars() -> anyhow::Result<PathBuf> {
    piece("hdfs/libs")
}

/// The schema registry's program.
pub fn registry() -> anyhow::Result<PathBuf> {
    piece("registry/app/apicurio-registry-app-3.0.9-runner.jar")
}

/// The Python that has DuckDB, pyarrow and a YAML parser.
pub fn python() -> anyhow::Result<PathBuf> {
    piece("python/bin/python")
}

/// The Python that has Confluent's serializers, where they could be had.
pub fn confluent() -> anyhow::Result<PathBuf> {
    piece("confluent/bin/python")
}

/// The folder with componentize-py, where it could be had.
pub fn componentize() -> anyhow::Result<PathBuf> {
    piece("componentize/bin/componentize-py").map(|mut path| {
        path.pop();
        path
    })
}

/// The packages that make components of JavaScript, where there is Node.
pub fn componentize_js() -> anyhow::Result<PathBuf> {
    piece("componentize-js/node_modules/@bytecodealliance/componentize-js/package.json")?;
    piece("componentize-js/node_modules")
}

/// The Python that has Spark; `tests/setup.sh soak` fetches it.
pub fn spark() -> anyhow::Result<PathBuf> {
    piece("spark/bin/python")
}

/// SeaweedFS.
pub fn weed() -> anyhow::Result<PathBuf> {
    piece("python/bin/weed")
}

/// Azurite's program for blobs, where there is Node.
pub fn azurite() -> anyhow::Result<PathBuf> {
    piece("azurite/node_modules/azurite/dist/src/blob/main.js")
}

/// A path in the cache that exists.
fn piece(name: &str) -> anyhow::Result<PathBuf> {
    let path = cache_folder()?.join(name);
    anyhow::ensure!(path.exists(), "{} is missing: run tests/setup.sh", path.display());
    Ok(path)
}
