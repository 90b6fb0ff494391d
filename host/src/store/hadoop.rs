//! What both ways into HDFS share: Hadoop's exceptions as errors of a store, and the writing of a file part by part.

use std::{error::Error as StdError, fmt, future::Future, time::Duration};

use async_trait::async_trait;
use object_store::{Error, PutPayload, Result, path::Path};

use crate::error::Verdict;

/// One request, with the bytes of a part in it: 8 MiB in this time are 1.2 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest text of a server that goes into a message.
const MESSAGE_LENGTH_MAX: usize = 400;

/// A store whose files grow at their ends.
#[async_trait]
pub(super) trait AppendStore: fmt::Debug + Send + Sync {
    /// Makes the bytes of a file of ours from `offset` on be these, and brings them to the disk or the datanodes. May be repeated after
    /// any failure: `is_repeated` then says that some of the bytes may be there already. All before `offset` is there.
    async fn append_at(&self, path: &Path, offset: u64, bytes: &PutPayload, is_repeated: bool) -> Result<()>;
}

/// What an HDFS cluster complains about, told apart as far as a person or a retry does something else about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// The user may not.
    Permission,
    /// The user is not believed.
    Identity,
    /// The server is not believed.
    Certificate,
    /// The namenode starts, or an operator locked it.
    SafeMode,
    /// The namenode is not the active one.
    Standby,
    /// A quota, or the disks of the datanodes.
    Full,
    /// The file is still held by a writer that is gone; HDFS frees it by itself.
    Held,
    /// Nobody answers there.
    Unreachable,
    /// The name of the host means nothing.
    UnknownHost,
    /// It will never accept this name or argument.
    Refused,
    /// The protocol is another one than this port's.
    Protocol,
    /// Anything else.
    Other,
}

impl Complaint {
    /// Whether it may pass, and what to do.
    pub(super) fn judge(self) -> (Verdict, &'static str) {
        match self {
            Self::Permission => (
                Verdict::Stop,
                "permission denied by HDFS; see sink.user and who owns sink.base_path (hdfs dfs -chown, or another folder)",
            ),
            Self::Identity => (
                Verdict::Stop,
                "HDFS does not believe who we are; over http see sink.delegation_token (it may have expired), over hdfs:// \
                 a Kerberos ticket (kinit) and sink.hadoop_conf_dir",
            ),
            Self::Certificate => (
                Verdict::Stop,
                "the server's certificate is not one that this machine trusts; name the authority that signed it in sink.ca_file",
            ),
            Self::SafeMode => {
                (Verdict::Retry, "the namenode is in safe mode and takes no writes (hdfs dfsadmin -safemode get)")
            }
            Self::Standby => (Verdict::Retry, "the namenode is a standby; name every namenode in sink.url"),
            Self::Full => {
                (Verdict::Retry, "no datanode takes the data: a quota or the disks are full, or datanodes are away")
            }
            Self::Held => (Verdict::Retry, "HDFS has not freed the file of an interrupted write yet"),
            Self::Unreachable => (Verdict::Retry, "nobody answers at sink.url, or at the datanode that it names"),
            Self::UnknownHost => {
                (Verdict::Retry, "the host in sink.url, or the datanode that it names, is unknown to this machine")
            }
            Self::Refused => (Verdict::Stop, "HDFS refuses this name or request; see sink.base_path"),
            Self::Protocol => (
                Verdict::Stop,
                "what answers is not what sink.url says; hdfs:// goes to the RPC port (often 8020 or 9000), http:// to the web \
                 port (often 9870)",
            ),
            Self::Other => (Verdict::Retry, "HDFS is away, slow or busy, or sink.url names another port of it"),
        }
    }
}

/// An error of an HDFS cluster. Holds no address, since an address may carry a token.
#[derive(Debug)]
pub(super) struct HadoopError {
    /// Which.
    pub(super) complaint: Complaint,
    /// The server's words.
    message: String,
}

impl fmt::Display for HadoopError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for HadoopError {}

/// An error with its complaint, in the shape that callers of a store know.
pub(super) fn error(complaint: Complaint, path: &Path, message: impl Into<String>) -> Error {
    let message: String = message.into().lines().next().unwrap_or_default().chars().take(MESSAGE_LENGTH_MAX).collect();
    let source = Box::new(HadoopError { complaint, message });
    match complaint {
        Complaint::Permission => Error::PermissionDenied { path: path.to_string(), source },
        Complaint::Identity | Complaint::Certificate => Error::Unauthenticated { path: path.to_string(), source },
        _ => Error::Generic { store: "HDFS", source },
    }
}

/// A Java exception, by its class with or without the package.
pub(super) fn exception(class: &str, message: &str, path: &Path) -> Error {
    let class = class.rsplit('.').next().unwrap_or(class);
    let text = format!("{class}: {}", message.lines().next().unwrap_or_default());
    let place = path.to_string();
    let source = || Box::new(HadoopError { complaint: Complaint::Other, message: text.clone() });
    let complaint = match class {
        "FileAlreadyExistsException" => return Error::AlreadyExists { path: place, source: source() },
        "FileNotFoundException" => return Error::NotFound { path: place, source: source() },
        "AccessControlException" => Complaint::Permission,
        "AuthorizationException"
        | "SecurityException"
        | "AuthenticationException"
        | "SaslException"
        | "GSSException" => Complaint::Identity,
        _ if class.ends_with("InvalidToken") => Complaint::Identity,
        "SafeModeException" => Complaint::SafeMode,
        "RetriableException" if message.contains("SafeMode") || message.contains("safe mode") => Complaint::SafeMode,
        "StandbyException" | "ObserverRetryOnActiveException" => Complaint::Standby,
        "AlreadyBeingCreatedException" | "RecoveryInProgressException" | "LeaseExpiredException" => Complaint::Held,
        _ if class.contains("QuotaExceeded") => Complaint::Full,
        "IOException" if message.contains("could only be written to") || message.contains("replicated to 0 nodes") => {
            Complaint::Full
        }
        "InvalidPathException" | "IllegalArgumentException" | "ParentNotDirectoryException" => Complaint::Refused,
        _ if class.ends_with("PathComponentTooLongException")
            || class.ends_with("MaxDirectoryItemsExceededException") =>
        {
            Complaint::Refused
        }
        _ => Complaint::Other,
    };
    error(complaint, path, text)
}

/// The complaint beneath an error, where HDFS made it.
pub(super) fn complaint(error: &Error) -> Option<Complaint> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<HadoopError>() {
            return Some(found.complaint);
        }
        next = cause.source();
    }
    None
}

/// Gives up on a request that hangs.
pub(super) async fn in_time<T>(path: &Path, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer,
        Err(_) => Err(error(Complaint::Other, path, format!("no answer in {} s", REQUEST_TIMEOUT.as_secs()))),
    }
}

/// What of a part is not there yet, when the file has `length` bytes; all of it must begin at or before its end.
pub(super) fn rest(path: &Path, offset: u64, bytes: &PutPayload, length: u64) -> Result<PutPayload> {
    let end = offset + bytes.content_length() as u64;
    if length < offset || length > end {
        let message = format!("the staged file has {length} bytes and should have {offset} to {end}");
        return Err(error(Complaint::Refused, path, message));
    }
    let mut skip = usize::try_from(length - offset).unwrap_or(usize::MAX);
    let rest = bytes.iter().filter_map(|chunk| {
        let here = skip.min(chunk.len());
        skip -= here;
        (here < chunk.len()).then(|| chunk.slice(here..))
    });
    Ok(rest.collect())
}

/// A new name in a folder for what is not whole yet.
pub(super) fn scratch_name(folder: &Path) -> Path {
    folder.clone().join(format!("put-{}", uuid::Uuid::now_v7()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn exceptions_become_errors_that_callers_know() {
        let path = Path::from("a/b");
        let of = |class: &str, message: &str| exception(class, message, &path);
        assert!(matches!(of("org.apache.hadoop.fs.FileAlreadyExistsException", "x"), Error::AlreadyExists { .. }));
        assert!(matches!(of("FileNotFoundException", "x"), Error::NotFound { .. }));
        assert!(matches!(of("org.apache.hadoop.security.AccessControlException", "x"), Error::PermissionDenied { .. }));
        assert!(matches!(
            of("org.apache.hadoop.security.token.SecretManager$InvalidToken", "x"),
            Error::Unauthenticated { .. }
        ));
        for (class, message, wanted) in [
            ("StandbyException", "x", Complaint::Standby),
            ("RetriableException", "org.apache.hadoop.hdfs.server.namenode.SafeModeException: no", Complaint::SafeMode),
            ("SafeModeException", "x", Complaint::SafeMode),
            ("AlreadyBeingCreatedException", "x", Complaint::Held),
            ("DSQuotaExceededException", "x", Complaint::Full),
            ("InvalidPathException", "x", Complaint::Refused),
            ("IOException", "x", Complaint::Other),
        ] {
            assert_eq!(complaint(&of(class, message)), Some(wanted), "{class}");
        }
        let long = of("IOException", &format!("{}\n\tat java.lang", "x".repeat(2_000))).to_string();
        assert!(long.len() < 600 && !long.contains("java.lang"), "{long}");
    }

    #[test]
    fn only_what_is_missing_of_a_part_is_sent_again() {
        let path = Path::from("a");
        let part = PutPayload::from_iter([Bytes::from_static(b"abc"), Bytes::from_static(b"def")]);
        let left = |length| rest(&path, 10, &part, length).map(|payload| Bytes::from(payload).to_vec());
        assert_eq!(left(10).unwrap(), b"abcdef");
        assert_eq!(left(11).unwrap(), b"bcdef");
        assert_eq!(left(13).unwrap(), b"def");
        assert_eq!(left(16).unwrap(), b"");
        left(9).unwrap_err();
        left(17).unwrap_err();
    }
}
