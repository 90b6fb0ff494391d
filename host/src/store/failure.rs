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

/// Whether the object, the upload or the bucket is not there.
pub(super) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. })
}

/// Whether the kind of the error says all, whatever is beneath.
fn is_answer(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. } | Error::NotFound { .. })
}

/// An answer as an error with a verdict and words that say what to do.
pub(super) fn explain(location: &str, operation: &str, error: Error) -> PipelineError {
    let (verdict, advice) = judge(&error);
    let message = format!("{location}: cannot {operation}: {advice}");
    match verdict {
        Verdict::Stop => PipelineError::stop(message),
        Verdict::Retry | Verdict::Restart => PipelineError::retry(message),
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
        _ if text.contains("NoSuchBucket") => {
            (Verdict::Stop, "the bucket does not exist; make it, or correct sink.bucket")
        }
        _ if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
            || REFUSALS.iter().any(|word| text.contains(word)) =>
        {
            (
                Verdict::Stop,
                "the credentials are wrong or lack a right; see sink.aws_access_key_id and sink.aws_secret_access_key, \
             or the folder's owner",
            )
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
