//! An S3 bucket, on AWS or on a server that speaks S3.

use std::{sync::Arc, time::Duration};

use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};

use crate::{
    config::{S3Config, Secret},
    error::PipelineError,
};

/// A server that takes no connection for this long is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that takes longer than this hangs: a part of 8 MiB needs 2.2 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The client, the root path, and the name for messages.
pub(super) fn open(config: &S3Config) -> Result<(Arc<AmazonS3>, Path, String), PipelineError> {
    let S3Config { bucket, prefix, region, endpoint_url, access_key_id, secret_access_key } = config;
    let location = if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") };
    let plain_http = endpoint_url.as_deref().is_some_and(|url| url.starts_with("http://"));
    let options = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(plain_http);
    // Retries are ours (`retry.rs`): counted, logged, and with one limit for the whole operation.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let mut builder = match access_key_id {
        Some(_) => AmazonS3Builder::new(),
        None => AmazonS3Builder::from_env(),
    };
    builder = builder
        .with_bucket_name(bucket)
        .with_region(region)
        .with_client_options(options)
        .with_retry(retry)
        .with_virtual_hosted_style_request(endpoint_url.is_none());
    if let Some(url) = endpoint_url {
        builder = builder.with_endpoint(url.trim_end_matches('/'));
    }
    if let Some(key_id) = access_key_id {
        let secret = secret_access_key.as_ref().map_or("", Secret::reveal);
        builder = builder.with_access_key_id(key_id).with_secret_access_key(secret);
    }
    let client = builder
        .build()
        .map_err(|error| PipelineError::stop(format!("{location}: the S3 client cannot be set up")).because(error))?;
    let root = Path::parse(prefix)
        .map_err(|error| PipelineError::stop(format!("sink.prefix {prefix:?} is not a path")).because(error))?;
    Ok((Arc::new(client), root, location))
}
