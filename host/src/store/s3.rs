//! An S3 bucket, on AWS or on a server that speaks S3.

use std::sync::Arc;

use object_store::{
    aws::{AmazonS3, AmazonS3Builder},
    client::HttpConnector as _,
    path::Path,
};

use super::{HttpClients, cloud, uploads::Lister};
use crate::{
    config::{S3Config, Secret},
    error::PipelineError,
};

/// A bucket: its client, who lists uploads, the root path, and the name for messages.
pub(super) type Bucket = (Arc<AmazonS3>, Lister, Path, String);

/// Sets up the client of a bucket.
pub(super) fn open(config: &S3Config, clients: &HttpClients) -> Result<Bucket, PipelineError> {
    let S3Config { bucket, prefix, region, endpoint_url, access_key_id, secret_access_key } = config;
    let location = cloud::location(&format!("s3://{bucket}"), prefix);
    let options = cloud::options(endpoint_url.as_deref());
    let mut builder = match access_key_id {
        Some(_) => AmazonS3Builder::new(),
        None => AmazonS3Builder::from_env(),
    };
    builder = builder
        .with_bucket_name(bucket)
        .with_region(region)
        .with_client_options(options.clone())
        .with_http_connector(clients.clone())
        .with_retry(cloud::no_retries())
        .with_virtual_hosted_style_request(endpoint_url.is_none());
    if let Some(url) = endpoint_url {
        builder = builder.with_endpoint(url.trim_end_matches('/'));
    }
    if let Some(key_id) = access_key_id {
        let secret = secret_access_key.as_ref().map_or("", Secret::reveal);
        builder = builder.with_access_key_id(key_id).with_secret_access_key(secret);
    }
    let failed = |error| PipelineError::stop(format!("{location}: the S3 client cannot be set up")).because(error);
    let client = Arc::new(builder.build().map_err(failed)?);
    let lister = Lister::new(Arc::clone(&client), clients.connect(&options).map_err(failed)?);
    Ok((client, lister, cloud::root(prefix)?, location))
}
