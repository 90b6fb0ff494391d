//! What an error of Redis means: wait, act, or something that the reader knows how to go on from. Pure.

use std::error::Error as _;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::PipelineError;

/// An error, judged.
#[derive(Debug)]
pub(super) enum Fault {
    /// It passes by itself: the server is away, busy, or no master any more.
    Away(RedisError),
    /// A person has to act.
    Refused(PipelineError),
    /// The group, or its stream, is not there.
    NoGroup,
    /// The group is there already.
    GroupExists,
    /// There is no such key.
    NoKey,
    /// One of our scripts found that another one has what we thought was ours.
    Lost(String),
}

impl Fault {
    /// As the end of a lane; what passes by itself was waited for long enough.
    pub(super) fn into_error(self, doing: &str) -> PipelineError {
        match self {
            Self::Away(error) => PipelineError::restart(format!("{doing}: Redis does not answer")).because(error),
            Self::Refused(error) => error,
            Self::NoGroup => PipelineError::restart(format!("{doing}: the consumer group is gone")),
            Self::GroupExists => PipelineError::restart(format!("{doing}: the consumer group is there already")),
            Self::NoKey => PipelineError::restart(format!("{doing}: the key is gone")),
            Self::Lost(words) => PipelineError::restart(format!("{doing}: {words}")),
        }
    }
}

/// What the scripts of this program say when another one has what they were to work on.
pub(super) const LOST: &str = "FSLOST";

/// Words in an error of a script of Redis 6, which wraps the code of the command that failed.
const PASSING: [&str; 8] = [
    "-READONLY",
    "-LOADING",
    "-MASTERDOWN",
    "-CLUSTERDOWN",
    "-OOM",
    "-MISCONF",
    "-NOREPLICAS",
    "max number of clients",
];

/// Judges an error. `doing` and `servers` are for people; so is the user.
pub(super) fn judge(error: RedisError, doing: &str, servers: &str, user: Option<&str>, is_cluster: bool) -> Fault {
    let refused = |words: String| Fault::Refused(PipelineError::stop(words).because(error.clone()));
    let user = user.unwrap_or("default");
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            return refused(format!(
                "source.password: Redis at {servers} does not let the user {user:?} in: the user or the password is wrong, or both"
            ));
        }
        ErrorKind::InvalidClientConfig => {
            return refused(format!("source: the client for Redis at {servers} refuses its settings"));
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            return refused(format!(
                "source.username: the user {user:?} of Redis at {servers} may not do this ({doing}); README.md lists the commands and keys \
                 that it needs"
            ));
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) if !is_cluster => {
            return refused(format!("source: Redis at {servers} is a node of a cluster: set `cluster: true`"));
        }
        ErrorKind::Server(ServerErrorKind::CrossSlot) => {
            return refused(format!("{doing}: Redis at {servers} keeps these keys on different nodes"));
        }
        ErrorKind::Io if is_about_certificates(&error) => {
            return refused(format!(
                "source.tls: no trust between this program and Redis at {servers}; `ca_file` says whom we believe, `cert_file` who we are"
            ));
        }
        _ => {}
    }
    let text = error.to_string();
    match error.code() {
        Some("NOGROUP") => Fault::NoGroup,
        Some("BUSYGROUP") => Fault::GroupExists,
        Some(LOST) => Fault::Lost(error.detail().unwrap_or_default().to_owned()),
        Some("WRONGPASS") => refused(format!(
            "source.password: Redis at {servers} does not let the user {user:?} in: the user or the password is wrong, or both"
        )),
        Some("NOAUTH") => {
            refused(format!("source.password: Redis at {servers} wants a password, and none is configured"))
        }
        Some("WRONGTYPE") => refused(format!(
            "{doing}: the key holds something else than it should: streams belong into `stream_keys`, lists into `list_keys`"
        )),
        Some("ERR") if text.contains("no such key") => Fault::NoKey,
        Some("ERR") if text.contains("cluster support disabled") => {
            refused(format!("source.cluster: Redis at {servers} is no node of a cluster: leave `cluster` out"))
        }
        Some("ERR") if text.contains(LOST) => Fault::Lost("another consumer has taken over".to_owned()),
        Some("ERR") if !PASSING.iter().any(|word| text.contains(word)) => {
            refused(format!("{doing}: Redis at {servers} refuses it"))
        }
        // Connections, answers cut short, servers that load, fail over or have no memory, codes of other servers.
        _ => Fault::Away(error),
    }
}

/// Whether TLS failed because of who somebody is.
fn is_about_certificates(error: &RedisError) -> bool {
    let mut next: Option<&dyn std::error::Error> = error.source();
    let mut text = error.to_string();
    while let Some(cause) = next {
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    // rustls names what it found so, and a server's alert about ours likewise.
    [
        "invalid peer certificate",
        "CertificateRequired",
        "UnknownCA",
        "BadCertificate",
        "CertificateExpired",
        "CertificateUnknown",
    ]
    .iter()
    .any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server's words become.
    fn of(code: &str, detail: &str) -> Fault {
        judge(
            redis::make_extension_error(code.to_owned(), Some(detail.to_owned())),
            "reading orders",
            "a:1",
            Some("lake"),
            false,
        )
    }

    #[test]
    fn errors_are_judged_by_what_can_be_done() {
        assert!(matches!(of("NOGROUP", "No such key"), Fault::NoGroup));
        assert!(matches!(of("BUSYGROUP", "Consumer Group name already exists"), Fault::GroupExists));
        assert!(matches!(of("FSLOST", "gone"), Fault::Lost(words) if words == "gone"));
        for code in ["OOM", "MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED"] {
            assert!(matches!(of(code, "later"), Fault::Away(_)), "{code}");
        }
        let io = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(judge(io, "x", "a:1", None, false), Fault::Away(_)));
    }

    #[test]
    fn what_a_person_has_to_do_is_said() {
        let words = |fault: Fault| match fault {
            Fault::Refused(error) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            words(of("WRONGTYPE", "Operation against a key")),
            "reading orders: the key holds something else than it should: streams belong into `stream_keys`, lists into `list_keys`"
        );
        assert_eq!(
            words(of("NOAUTH", "Authentication required.")),
            "source.password: Redis at a:1 wants a password, and none is configured"
        );
        assert!(words(of("WRONGPASS", "invalid")).contains("\"lake\""));
        let untrusted = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        assert!(words(judge(untrusted.into(), "x", "a:1", None, false)).starts_with("source.tls: no trust"));
        let client = RedisError::from((ErrorKind::AuthenticationFailed, "Password authentication failed"));
        assert!(
            words(judge(client, "x", "a:1", None, false))
                .starts_with("source.password: Redis at a:1 does not let the user \"default\" in")
        );
    }
}
