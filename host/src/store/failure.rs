//! What an answer of a store means: may it pass by itself, and what should a person do about it.

use std::{error::Error as StdError, io::ErrorKind};

use object_store::Error;

use super::hadoop;
use crate::error::{PipelineError, Verdict};

/// S3's words for credentials that it does not take. They also come inside errors of no particular kind.
const REFUSALS: [&str; 6] =
    ["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "ExpiredToken", "InvalidToken", "403 Forbidden"];

/// S3's words for requests that met another one under way: to be tried again. The client takes their number, 409, for an object
/// that exists.
const CONFLICTS: [&str; 2] = ["OperationAborted", "ConditionalRequestConflict"];

/// The credentials are the cause.
const CREDENTIALS: &str = "the credentials are wrong or lack a right";

/// The same with the keys of the store.
fn credentials_advice(location: &str) -> &'static str {
    match location.split_once("://").map(|(scheme, _)| scheme) {
        Some("gs") => {
            "the credentials are wrong or lack a right (Storage Object Admin has them all); see sink.service_account_file, \
             sink.service_account_key, or the application default credentials"
        }
        Some("az") => {
            "the credentials are wrong or lack a right (Storage Blob Data Contributor has them all); see sink.access_key, \
             sink.sas_token, or the managed identity"
        }
        _ => {
            "the credentials are wrong or lack a right; see sink.aws_access_key_id and sink.aws_secret_access_key, or the \
             folder's owner"
        }
    }
}

/// Whether the object, the upload or the bucket is not there.
pub(super) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. })
}

/// Blocks that Azure has forgotten are gone like an upload that was aborted, though it calls that a bad request.
pub(super) fn or_not_found(path: &object_store::path::Path, error: Error) -> Error {
    if error.to_string().contains("InvalidBlockList") {
        Error::NotFound { path: path.to_string(), source: Box::new(error) }
    } else {
        error
    }
}

/// Whether the kind of the error says all, whatever is beneath.
fn is_answer(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. } | Error::NotFound { .. })
}

/// An answer as an error with a verdict and words that say what to do.
pub(super) fn explain(location: &str, operation: &str, error: Error) -> PipelineError {
    let (verdict, advice) = judge(&error);
    let advice = if advice == CREDENTIALS { credentials_advice(location) } else { advice };
    let message = format!("{location}: cannot {operation}: {advice}");
    match verdict {
        Verdict::Stop => PipelineError::stop(message),
        Verdict::Retry => PipelineError::retry(message),
        Verdict::Restart => PipelineError::restart(message),
    }
    .because(error)
}

/// The verdict, and the advice.
pub(super) fn judge(error: &Error) -> (Verdict, &'static str) {
    if let Some(complaint) = hadoop::complaint(error).filter(|_| !is_answer(error)) {
        return complaint.judge();
    }
    let text = error.to_string();
    match error {
        _ if text.contains("NoSuchUpload") => {
            (Verdict::Restart, "the upload is gone: a writer that took over has aborted it, or a bucket's rule")
        }
        _ if text.contains("ContainerNotFound") => {
            (Verdict::Stop, "the container does not exist; make it, or correct sink.container")
        }
        _ if text.contains("NoSuchBucket") => {
            (Verdict::Stop, "the bucket does not exist; make it, or correct sink.bucket")
        }
        _ if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
            || REFUSALS.iter().any(|word| text.contains(word)) =>
        {
            (Verdict::Stop, CREDENTIALS)
        }
        Error::AlreadyExists { .. } if CONFLICTS.iter().any(|word| text.contains(word)) => {
            (Verdict::Retry, "the store is busy with another request for the same object")
        }
        Error::AlreadyExists { .. } => (Verdict::Stop, "another file is there under this name"),
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::InvalidPath { .. } => {
            (Verdict::Stop, "the store does not serve this")
        }
        Error::NotFound { .. } => (Verdict::Stop, "it is not there (a removed upload, bucket or folder)"),
        _ => match io_kind(error) {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => (Verdict::Retry, "the disk is full"),
            Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory) => {
                (Verdict::Stop, "the folder cannot be written; see sink.base_path and its owner")
            }
            _ => (Verdict::Retry, "the store is away, slow or busy"),
        },
    }
}

/// The operating system's kind of failure, where there is one beneath.
fn io_kind(error: &Error) -> Option<ErrorKind> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}
