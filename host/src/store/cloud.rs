//! Google Cloud Storage and Azure Blob Storage, and what all stores behind HTTP have in common.
//!
//! Both stage as S3 does: GCS by its multipart uploads, Azure by blocks that no block list names yet. Neither can refuse to
//! complete over an existing file, so it counts that names of files are unique. Azure has no way to give blocks up; it
//! forgets them after a week.

use std::{sync::Arc, time::Duration};

use object_store::{
    ClientOptions, RetryConfig, StaticCredentialProvider,
    azure::{MicrosoftAzure, MicrosoftAzureBuilder},
    gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder},
    path::Path,
};

use super::HttpClients;
use crate::{
    config::{AzureConfig, AzureCredentials, GcsConfig, GcsCredentials, Secret},
    error::PipelineError,
};

/// A server that takes no connection for this long is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that takes longer than this hangs: a part of 8 MiB needs 2.2 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How to connect; without TLS only where the endpoint says so.
pub(super) fn options(endpoint_url: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(endpoint_url.is_some_and(|url| url.starts_with("http://")))
}

/// Retries are ours (`retry.rs`): counted, logged, and with one limit for the whole operation.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// `sink.prefix` as a path.
pub(super) fn root(prefix: &str) -> Result<Path, PipelineError> {
    Path::parse(prefix)
        .map_err(|error| PipelineError::stop(format!("sink.prefix {prefix:?} is not a path")).because(error))
}

/// A place with its folder, for messages.
pub(super) fn location(place: &str, prefix: &str) -> String {
    if prefix.is_empty() { place.to_owned() } else { format!("{place}/{prefix}") }
}

/// The client of a GCS bucket, the root path, and the name for messages.
pub(super) fn open_gcs(
    config: &GcsConfig,
    clients: &HttpClients,
) -> Result<(Arc<GoogleCloudStorage>, Path, String), PipelineError> {
    let GcsConfig { bucket, prefix, endpoint_url, credentials } = config;
    let location = location(&format!("gs://{bucket}"), prefix);
    let endpoint_url = endpoint_url.as_deref().map(|url| url.trim_end_matches('/'));
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_client_options(options(endpoint_url))
        .with_http_connector(clients.clone())
        .with_retry(no_retries());
    if let Some(url) = endpoint_url {
        builder = builder.with_base_url(url);
    }
    builder = match credentials {
        GcsCredentials::File(path) => builder.with_service_account_path(path.display().to_string()),
        GcsCredentials::Key(key) => builder.with_service_account_key(key.reveal()),
        // Without a token of its own the client would still ask Google's machines for one before it writes.
        GcsCredentials::Anonymous => {
            let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
            builder.with_credentials(Arc::new(nobody)).with_skip_signature(true)
        }
        GcsCredentials::ApplicationDefault => builder,
    };
    let client = builder.build().map_err(|error| {
        PipelineError::stop(format!(
            "{location}: the GCS client cannot be set up; see sink.service_account_file, sink.service_account_key, or the \
             application default credentials"
        ))
        .because(error)
    })?;
    Ok((Arc::new(client), root(prefix)?, location))
}

/// The client of an Azure container, the root path, and the name for messages.
pub(super) fn open_azure(
    config: &AzureConfig,
    clients: &HttpClients,
) -> Result<(Arc<MicrosoftAzure>, Path, String), PipelineError> {
    let AzureConfig { account, container, prefix, endpoint_url, credentials } = config;
    let location = location(&format!("az://{account}/{container}"), prefix);
    let builder = match credentials {
        AzureCredentials::AccessKey(key) => MicrosoftAzureBuilder::new().with_access_key(key.reveal()),
        AzureCredentials::Sas(token) => MicrosoftAzureBuilder::new().with_sas_authorization(sas_pairs(token)),
        AzureCredentials::ManagedIdentity { client_id } => {
            let builder = MicrosoftAzureBuilder::from_env();
            match client_id {
                Some(client_id) => builder.with_client_id(client_id),
                None => builder,
            }
        }
    };
    let mut builder = builder
        .with_account(account)
        .with_container_name(container)
        .with_client_options(options(endpoint_url.as_deref()))
        .with_http_connector(clients.clone())
        .with_retry(no_retries());
    if let Some(url) = endpoint_url {
        builder = builder.with_endpoint(url.trim_end_matches('/').to_owned());
    }
    let client = builder.build().map_err(|error| {
        PipelineError::stop(format!(
            "{location}: the Azure client cannot be set up; see sink.access_key, sink.sas_token, sink.client_id and \
             sink.endpoint_url"
        ))
        .because(error)
    })?;
    Ok((Arc::new(client), root(prefix)?, location))
}

/// The pairs of a shared access signature.
fn sas_pairs(token: &Secret) -> Vec<(String, String)> {
    url::form_urlencoded::parse(token.reveal().trim_start_matches('?').as_bytes()).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_taken_with_and_without_its_question_mark() {
        let wanted = [("sv".to_owned(), "2024-11-04".to_owned()), ("sig".to_owned(), "a+b/c=".to_owned())];
        for text in ["?sv=2024-11-04&sig=a%2Bb%2Fc%3D", "sv=2024-11-04&sig=a%2Bb%2Fc%3D"] {
            assert_eq!(sas_pairs(&Secret::new(text.to_owned())), wanted);
        }
    }

    #[test]
    fn a_key_that_is_none_is_told_before_any_request() {
        let azure = AzureConfig {
            account: "shop".into(),
            container: "lake".into(),
            prefix: String::new(),
            endpoint_url: None,
            credentials: AzureCredentials::AccessKey(Secret::new("not base64!".to_owned())),
        };
        let message = open_azure(&azure, &HttpClients::default()).unwrap_err().full_message();
        assert!(message.starts_with("az://shop/lake: ") && message.contains("sink.access_key"), "{message}");
        let gcs = GcsConfig {
            bucket: "lake".into(),
            prefix: "raw".into(),
            endpoint_url: None,
            credentials: GcsCredentials::Key(Secret::new("{}".to_owned())),
        };
        let message = open_gcs(&gcs, &HttpClients::default()).unwrap_err().full_message();
        assert!(message.starts_with("gs://lake/raw: ") && message.contains("sink.service_account_key"), "{message}");
    }
}
