//! Multipart uploads that somebody began and nobody ended. Invisible, but they cost space until they are aborted.
//!
//! Only S3 is asked: the client has no request that lists them, so it signs the address, and the answer is read here.

use std::{sync::Arc, time::Duration};

use object_store::{
    Error,
    aws::AmazonS3,
    client::{HttpClient, HttpRequestBody},
    signer::{SignedUrlOptions, Signer as _},
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::{Path, Staging, Store, failure::is_not_found};
use crate::error::PipelineError;

/// A signed address is used at once.
const ADDRESS_LIFETIME: Duration = Duration::from_mins(5);

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// Where the file would be visible, below the root.
    pub path: Path,
    /// The upload.
    id: String,
}

/// Lists the open uploads of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Lister {
    /// Signs.
    signer: Arc<AmazonS3>,
    /// Asks.
    http: HttpClient,
}

/// `ListMultipartUploadsResult`, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Page {
    /// Whether there are more.
    is_truncated: bool,
    /// Where the next page begins.
    next_key_marker: Option<String>,
    /// Belongs to the key.
    next_upload_id_marker: Option<String>,
    /// At most 1,000.
    upload: Vec<Upload>,
}

/// One upload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    /// From the bucket's root.
    key: String,
    /// Its id.
    upload_id: String,
}

impl Lister {
    /// For the bucket of a client.
    pub(super) fn new(signer: Arc<AmazonS3>, http: HttpClient) -> Self {
        Self { signer, http }
    }

    /// One page.
    async fn page(&self, prefix: &str, after: Option<(&str, &str)>) -> Result<Page, Error> {
        let mut query = vec![("uploads", ""), ("prefix", prefix)];
        if let Some((key, id)) = after {
            query.extend([("key-marker", key), ("upload-id-marker", id)]);
        }
        let options = SignedUrlOptions::default().with_query(query);
        let bucket = Path::default();
        let url = self.signer.signed_url_opts(Method::GET, &bucket, ADDRESS_LIFETIME, &options).await?;
        let request = hyper::Request::get(url.as_str()).body(HttpRequestBody::empty()).map_err(failed)?;
        // Its errors leave out the address, which has a signature in it.
        let answer = self.http.execute(request).await.map_err(failed)?;
        let status = answer.status();
        let body = answer.into_body().bytes().await.map_err(failed)?;
        match status {
            StatusCode::OK => quick_xml::de::from_reader(&*body).map_err(failed),
            StatusCode::FORBIDDEN => {
                Err(Error::PermissionDenied { path: prefix.to_owned(), source: "listing uploads is forbidden".into() })
            }
            StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => {
                Err(Error::NotSupported { source: "the server does not list uploads".into() })
            }
            _ => Err(failed(format!("{status} in answer to a list of uploads"))),
        }
    }
}

impl Store {
    /// Whether [`Store::open_uploads`] can tell anything.
    #[must_use]
    pub fn lists_uploads(&self) -> bool {
        matches!(&self.0.staging, Staging::Multipart(handle) if handle.lister.is_some())
    }

    /// All uploads of files below the root that were begun and not ended, whoever began them.
    pub async fn open_uploads(&self) -> Result<Vec<OpenUpload>, PipelineError> {
        let Staging::Multipart(handle) = &self.0.staging else { return Ok(Vec::new()) };
        let Some(lister) = &handle.lister else { return Ok(Vec::new()) };
        let root = self.0.root.as_ref();
        let prefix = if root.is_empty() { String::new() } else { format!("{root}/") };
        let (mut found, mut after) = (Vec::new(), None::<(String, String)>);
        loop {
            let ask = || lister.page(&prefix, after.as_ref().map(|(key, id)| (key.as_str(), id.as_str())));
            let page = self.0.retry.run("list_uploads", &self.0.root, ask).await?;
            for Upload { key, upload_id } in page.upload {
                let path = Path::parse(&key).ok().and_then(|key| self.below_root(&key));
                found.extend(path.map(|path| OpenUpload { path, id: upload_id }));
            }
            let next = page.next_key_marker.zip(page.next_upload_id_marker);
            // A server that says there is more without saying where would be asked for ever.
            if !page.is_truncated || next.is_none() || next == after {
                return Ok(found);
            }
            after = next;
        }
    }

    /// Aborts an upload; that it was ended meanwhile is fine.
    pub async fn abort_upload(&self, upload: &OpenUpload) -> Result<(), PipelineError> {
        let Staging::Multipart(handle) = &self.0.staging else { return Ok(()) };
        let target = self.full_path(&upload.path);
        let abort = || async {
            match handle.uploads.abort_multipart(&target, &upload.id).await {
                Err(error) if is_not_found(&error) => Ok(()),
                answer => answer,
            }
        };
        self.0.retry.run("abort_upload", &upload.path, abort).await
    }
}

/// A request that failed on its way, or an answer that cannot be read.
fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "S3", source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_uploads_is_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>lake</Bucket>
            <KeyMarker></KeyMarker><NextKeyMarker>raw/b &amp; c</NextKeyMarker><NextUploadIdMarker>2</NextUploadIdMarker>
            <MaxUploads>1000</MaxUploads><IsTruncated>true</IsTruncated>
            <Upload><Key>raw/a</Key><UploadId>1</UploadId><Initiator><ID>x</ID></Initiator></Upload>
            <Upload><Key>raw/b &amp; c</Key><UploadId>2</UploadId></Upload></ListMultipartUploadsResult>"#;
        let page: Page = quick_xml::de::from_str(text).unwrap();
        let uploads: Vec<_> =
            page.upload.iter().map(|upload| (upload.key.as_str(), upload.upload_id.as_str())).collect();
        assert_eq!(uploads, [("raw/a", "1"), ("raw/b & c", "2")]);
        assert!(page.is_truncated);
        assert_eq!(page.next_key_marker.as_deref(), Some("raw/b & c"));
        let none: Page = quick_xml::de::from_str("<ListMultipartUploadsResult></ListMultipartUploadsResult>").unwrap();
        assert!(none.upload.is_empty() && !none.is_truncated);
    }
}
