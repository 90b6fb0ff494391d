//! `sink` of `type: gcs` and `type: azure`, and what they share with S3.

use std::path::Path;

use crate::config::{
    AzureConfig, AzureCredentials, GcsConfig, GcsCredentials, Secret,
    reader::Section,
    value::{boolean, http_url},
};

/// Keys of a GCS sink that no other sink has.
pub(super) const GCS_KEYS: [&str; 3] = ["service_account_file", "service_account_key", "anonymous"];

/// Keys of an Azure sink that no other sink has.
pub(super) const AZURE_KEYS: [&str; 5] = ["account", "container", "access_key", "sas_token", "client_id"];

/// A GCS sink.
pub(super) fn gcs(section: &Section<'_>, folder: &Path) -> Option<GcsConfig> {
    let bucket = name(section, "bucket", "the bucket's name");
    let prefix = prefix(section);
    let endpoint_url = section.get("endpoint_url", |text| http_url(text, "http://127.0.0.1:4443"));
    let file = section.text("service_account_file").filter(|text| !text.is_empty()).map(|text| {
        let place = section.node("service_account_file").map_or_else(|| section.place(), |node| &node.place);
        let path = Section::resolve(place, folder, &text);
        if !path.is_file() {
            section.fault("service_account_file", format!("expected a file, found nothing such at {}", path.display()));
        }
        GcsCredentials::File(path)
    });
    let key = section.text("service_account_key").filter(|text| !text.is_empty());
    let key = key.map(|key| GcsCredentials::Key(Secret::new(key)));
    let anonymous = section.get_or("anonymous", false, boolean).then_some(GcsCredentials::Anonymous);
    let given: Vec<_> = [file, key, anonymous].into_iter().flatten().collect();
    if given.len() > 1 {
        section.fault(
            "",
            "of service_account_file, service_account_key and anonymous one is enough; leave the others out",
        );
    }
    let credentials = given.into_iter().next().unwrap_or(GcsCredentials::ApplicationDefault);
    Some(GcsConfig { bucket: bucket?, prefix, endpoint_url, credentials })
}

/// An Azure sink.
pub(super) fn azure(section: &Section<'_>) -> Option<AzureConfig> {
    let account = name(section, "account", "the storage account's name");
    let container = name(section, "container", "the container's name");
    let prefix = prefix(section);
    let endpoint_url = section.get("endpoint_url", |text| http_url(text, "http://127.0.0.1:10000/devstoreaccount1"));
    let secret = |key| section.text(key).filter(|text| !text.is_empty()).map(Secret::new);
    let (access_key, sas_token) = (secret("access_key"), secret("sas_token"));
    let client_id = section.text("client_id").filter(|text| !text.is_empty());
    let given = usize::from(access_key.is_some()) + usize::from(sas_token.is_some()) + usize::from(client_id.is_some());
    if given > 1 {
        section.fault(
            "",
            "of access_key, sas_token and client_id (of a managed identity) one is enough; leave the others out",
        );
    }
    let credentials = match (access_key, sas_token) {
        (Some(key), _) => AzureCredentials::AccessKey(key),
        (None, Some(token)) => AzureCredentials::Sas(token),
        (None, None) => AzureCredentials::ManagedIdentity { client_id },
    };
    Some(AzureConfig { account: account?, container: container?, prefix, endpoint_url, credentials })
}

/// The name of a bucket, a container or an account, and nothing else.
pub(super) fn name(section: &Section<'_>, key: &'static str, what: &str) -> Option<String> {
    let name = section.required_text(key, what)?;
    if name.contains(['/', ':']) || name.contains(char::is_whitespace) {
        section.fault(key, format!("expected {what} alone, found {name:?}; folders go into `prefix`"));
    }
    Some(name)
}

/// Folders in a bucket, without slashes at their ends.
pub(super) fn prefix(section: &Section<'_>) -> String {
    let prefix = section.text("prefix").unwrap_or_default().trim_matches('/').to_owned();
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        section.fault(
            "prefix",
            format!("expected folders such as raw/orders, found {prefix:?} with an empty part, `.` or `..`"),
        );
    }
    prefix
}
