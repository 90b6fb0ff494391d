//! How tokens for SASL's OAUTHBEARER are got: librdkafka's properties of `extra_config` that we act on ourselves.
//!
//! librdkafka fetches tokens with libcurl, which this program does not carry beside its own HTTP client. So its names and
//! their meaning stay (`CONFIGURATION.md` of librdkafka), and the work is done in `oauth.rs`.

use std::path::PathBuf;

use reqwest::Url;

use super::{Secret, value::expected};

/// What all names begin with.
const PREFIX: &str = "sasl.oauthbearer.";

/// Allows tokens that nobody signs. librdkafka refuses it beside tokens that are handed to it.
const UNSECURED: &str = "enable.sasl.oauthbearer.unsecure.jwt";

/// The grant of a client with an id and a secret.
const CLIENT_CREDENTIALS: &str = "client_credentials";

/// The grant of RFC 7523: a client that shows a signed assertion.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Names that librdkafka knows and that we act on. [`OauthConfig::of`] holds their values against each other.
const NAMES: [&str; 24] = [
    "https.ca.location",
    "https.ca.pem",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
];

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OauthConfig {
    /// From an endpoint, as `OpenID` Connect has it.
    Oidc(Box<OidcConfig>),
    /// Made here and not signed, as brokers of a test take them: the words of `sasl.oauthbearer.config`.
    Unsecured {
        /// Who we say we are.
        principal: String,
        /// What we say we may do.
        scope: Vec<String>,
        /// How long it holds.
        life_seconds: u32,
    },
}

/// An endpoint, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcConfig {
    /// The endpoint.
    pub endpoint: Url,
    /// Who asks.
    pub grant: Grant,
    /// What is asked for.
    pub scope: Option<String>,
    /// What the broker is told beside the token.
    pub extensions: Vec<(String, String)>,
    /// Authorities that are believed besides the usual ones: a file in PEM.
    pub ca_file: Option<PathBuf>,
    /// The same as text.
    pub ca_pem: Option<String>,
}

/// How the client shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// By a name and a secret.
    ClientCredentials {
        /// Its name.
        id: String,
        /// Its secret.
        secret: Secret,
    },
    /// By an assertion that another program keeps fresh in a file.
    AssertionFile(PathBuf),
    /// By an assertion that is signed here, for each request anew.
    Assertion(AssertionConfig),
}

/// A signed assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionConfig {
    /// Whether with an elliptic curve (`ES256`), otherwise with RSA (`RS256`).
    pub is_elliptic: bool,
    /// The key in PEM, or the file that has it.
    pub key: Result<Secret, PathBuf>,
    /// Claims of text: `aud`, `iss`, `sub`.
    pub claims: Vec<(&'static str, String)>,
    /// How long it holds.
    pub expires_in_seconds: u32,
    /// How long before now it holds, for clocks that differ.
    pub not_before_seconds: u32,
    /// Whether it has a number of its own.
    pub has_id: bool,
    /// A file with more of `header` and `payload`, in JSON.
    pub template_file: Option<PathBuf>,
}

/// Whether a property is acted on here.
pub(super) fn is_ours(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Names and values for librdkafka to act on.
pub fn librdkafka_properties(extra_config: &[(String, Secret)]) -> impl Iterator<Item = (&str, &str)> {
    let has_keytab = extra_config.iter().any(|(name, _)| name == "sasl.kerberos.keytab");
    // librdkafka would call kinit. Without a keytab tickets come from the environment, as those of HDFS do.
    let no_login = (!has_keytab).then_some(("sasl.kerberos.min.time.before.relogin", "0"));
    let theirs = extra_config.iter().filter(|(name, _)| !is_ours(name) && name != UNSECURED);
    no_login.into_iter().chain(theirs.map(|(name, value)| (name.as_str(), value.reveal())))
}

/// What properties say, by their names.
struct Properties<'a>(&'a [(String, Secret)]);

impl<'a> Properties<'a> {
    /// The value of one.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.reveal())
    }

    /// The value of one with librdkafka's prefix.
    fn oauth(&self, name: &str) -> Option<&'a str> {
        self.get(&format!("{PREFIX}{name}"))
    }

    /// One that must be there.
    fn needed(&self, name: &str, what: &str) -> Result<String, String> {
        self.oauth(name)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| format!("{PREFIX}{name} is missing: {what}"))
    }

    /// A number of seconds.
    fn seconds(&self, name: &str, default: u32) -> Result<u32, String> {
        let wrong = |text: &str| format!("{PREFIX}{name}: {}", expected("a number of seconds", text));
        self.oauth(name).map_or(Ok(default), |text| text.parse().map_err(|_| wrong(text)))
    }

    /// One of some words; the first where nothing is said.
    fn choice(&self, name: &str, words: &[&'static str]) -> Result<&'static str, String> {
        let wrong = |text: &str| format!("{PREFIX}{name}: {}", expected(&words.join(" or "), text));
        let Some(text) = self.oauth(name) else { return Ok(words.first().copied().unwrap_or_default()) };
        words.iter().copied().find(|word| word.eq_ignore_ascii_case(text)).ok_or_else(|| wrong(text))
    }
}

impl OauthConfig {
    /// What `extra_config` says; `None` where another mechanism is meant. In words what is wrong or missing.
    pub fn of(extra_config: &[(String, Secret)]) -> Result<Option<Self>, String> {
        let properties = Properties(extra_config);
        let mechanism = properties.get("sasl.mechanism").or_else(|| properties.get("sasl.mechanisms"));
        if mechanism != Some("OAUTHBEARER") {
            return match extra_config.iter().find(|(name, _)| name.starts_with(PREFIX)) {
                Some((name, _)) => Err(format!("{name} belongs to sasl.mechanism: OAUTHBEARER")),
                None => Ok(None),
            };
        }
        if !matches!(
            properties.get("security.protocol").map(str::to_ascii_uppercase).as_deref(),
            Some("SASL_SSL" | "SASL_PLAINTEXT")
        ) {
            return Err("sasl.mechanism: OAUTHBEARER needs security.protocol: SASL_SSL (or SASL_PLAINTEXT)".to_owned());
        }
        if properties.choice("method", &["default", "oidc"])? == "oidc" {
            return OidcConfig::of(&properties).map(|config| Some(Self::Oidc(Box::new(config))));
        }
        if properties.get(UNSECURED) != Some("true") {
            return Err(format!(
                "sasl.mechanism: OAUTHBEARER needs {PREFIX}method: oidc with {PREFIX}token.endpoint.url, {PREFIX}client.id and \
                 {PREFIX}client.secret"
            ));
        }
        unsecured(properties.oauth("config").unwrap_or_default()).map(Some)
    }
}

/// What `sasl.oauthbearer.config` says of a token that nobody signs: `principal=admin scope=a,b lifeSeconds=600`.
fn unsecured(words: &str) -> Result<OauthConfig, String> {
    let (mut principal, mut scope, mut life_seconds) = (None, Vec::new(), 3_600);
    for word in words.split_whitespace() {
        match word.split_once('=') {
            Some(("principal", name)) if !name.is_empty() => principal = Some(name.to_owned()),
            Some(("scope", names)) => scope = names.split(',').map(str::to_owned).collect(),
            Some(("lifeSeconds", number)) if number.parse::<u32>().is_ok_and(|number| number > 0) => {
                life_seconds = number.parse().unwrap_or(life_seconds);
            }
            _ => {
                let known = "principal=NAME, scope=A,B and lifeSeconds=600";
                return Err(format!("{PREFIX}config: {}", expected(known, word)));
            }
        }
    }
    let principal = principal.ok_or_else(|| format!("{PREFIX}config is missing: principal=NAME"))?;
    Ok(OauthConfig::Unsecured { principal, scope, life_seconds })
}

impl OidcConfig {
    /// What is said of an endpoint.
    fn of(properties: &Properties<'_>) -> Result<Self, String> {
        if properties.choice("metadata.authentication.type", &["none", "azure_imds"])? != "none" {
            return Err(format!(
                "{PREFIX}metadata.authentication.type is not supported; use {PREFIX}client.id, or an assertion"
            ));
        }
        let endpoint = properties.needed("token.endpoint.url", "where tokens are to be had")?;
        let endpoint = Url::parse(&endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| format!("{PREFIX}token.endpoint.url: {}", expected("an http or https URL", &endpoint)))?;
        let extensions = properties.oauth("extensions").unwrap_or_default();
        let extensions = extensions.split(',').filter(|pair| !pair.trim().is_empty()).map(extension);
        Ok(Self {
            endpoint,
            grant: Grant::of(properties)?,
            scope: properties.oauth("scope").filter(|scope| !scope.is_empty()).map(str::to_owned),
            extensions: extensions.collect::<Result<_, _>>()?,
            ca_file: properties.get("https.ca.location").map(PathBuf::from),
            ca_pem: properties.get("https.ca.pem").map(str::to_owned),
        })
    }
}

/// One of the extensions (RFC 7628, section 3.1: letters for names, printable ASCII for values).
fn extension(pair: &str) -> Result<(String, String), String> {
    let is_name =
        |name: &str| !name.is_empty() && name != "auth" && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_value = |value: &str| value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
    match pair.trim().split_once('=') {
        Some((name, value)) if is_name(name) && is_value(value) => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{PREFIX}extensions: {}", expected("name=value,name=value with names of letters", pair))),
    }
}

impl Grant {
    /// How the client shows who it is.
    fn of(properties: &Properties<'_>) -> Result<Self, String> {
        if properties.choice("grant.type", &[CLIENT_CREDENTIALS, JWT_BEARER])? == CLIENT_CREDENTIALS {
            let either = |name: &str, what: &str| {
                let long = properties.oauth(&format!("client.credentials.{name}"));
                long.filter(|value| !value.is_empty())
                    .map_or_else(|| properties.needed(name, what), |value| Ok(value.to_owned()))
            };
            return Ok(Self::ClientCredentials {
                id: either("client.id", "the name of this client at the endpoint")?,
                secret: Secret::new(either("client.secret", "what this client shows to the endpoint")?),
            });
        }
        let file = |name: &str| properties.oauth(name).map(PathBuf::from);
        if let Some(file) = file("assertion.file") {
            return Ok(Self::AssertionFile(file));
        }
        if properties.oauth("assertion.private.key.passphrase").is_some_and(|text| !text.is_empty()) {
            return Err(format!(
                "{PREFIX}assertion.private.key.passphrase: keys with a passphrase are not supported; protect the file instead"
            ));
        }
        let pem = properties.oauth("assertion.private.key.pem").map(Secret::new);
        let key = match (pem, file("assertion.private.key.file")) {
            (Some(pem), None) => Ok(pem),
            (None, Some(file)) => Err(file),
            (Some(_), Some(_)) => {
                return Err(format!("{PREFIX}assertion.private.key.file and .pem say the same; leave one out"));
            }
            (None, None) => {
                return Err(format!(
                    "{PREFIX}grant.type: jwt-bearer needs {PREFIX}assertion.file, or {PREFIX}assertion.private.key.file"
                ));
            }
        };
        let claims = ["aud", "iss", "sub"].into_iter();
        let claims =
            claims.filter_map(|name| Some((name, properties.oauth(&format!("assertion.claim.{name}"))?.to_owned())));
        Ok(Self::Assertion(AssertionConfig {
            is_elliptic: properties.choice("assertion.algorithm", &["RS256", "ES256"])? == "ES256",
            key,
            claims: claims.collect(),
            expires_in_seconds: properties.seconds("assertion.claim.exp.seconds", 300)?.max(1),
            not_before_seconds: properties.seconds("assertion.claim.nbf.seconds", 60)?,
            has_id: properties.choice("assertion.claim.jti.include", &["false", "true"])? == "true",
            template_file: file("assertion.jwt.template.file"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What these properties say, beside those that every client has.
    fn of(more: &[(&str, &str)]) -> Result<Option<OauthConfig>, String> {
        let all = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "OAUTHBEARER")].iter().chain(more);
        OauthConfig::of(&all.map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect::<Vec<_>>())
    }

    /// The same for an endpoint.
    fn oidc(more: &[(&str, &str)]) -> Result<OidcConfig, String> {
        let endpoint = [
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.token.endpoint.url", "https://id.example.org/token"),
        ];
        match of(&[&endpoint, more].concat())? {
            Some(OauthConfig::Oidc(config)) => Ok(*config),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_client_with_a_secret() {
        let client = [
            ("sasl.oauthbearer.client.credentials.client.id", "lake"),
            ("sasl.oauthbearer.client.secret", "geheim"),
            ("sasl.oauthbearer.scope", "kafka"),
            ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1,identityPoolId=pool-2"),
        ];
        let found = oidc(&client).unwrap();
        assert_eq!(found.grant, Grant::ClientCredentials { id: "lake".to_owned(), secret: Secret::new("geheim") });
        assert_eq!(found.scope.as_deref(), Some("kafka"));
        let extensions = [("logicalCluster", "lkc-1"), ("identityPoolId", "pool-2")];
        assert_eq!(found.extensions, extensions.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(oidc(&client[..1]).unwrap_err().starts_with("sasl.oauthbearer.client.secret is missing"));
    }

    #[test]
    fn a_client_with_a_key() {
        let grant = ("sasl.oauthbearer.grant.type", JWT_BEARER);
        let key = ("sasl.oauthbearer.assertion.private.key.file", "key.pem");
        let found = oidc(&[grant, key, ("sasl.oauthbearer.assertion.claim.sub", "lake")]).unwrap();
        let Grant::Assertion(found) = found.grant else { panic!("{found:?}") };
        assert_eq!((found.key, found.claims), (Err(PathBuf::from("key.pem")), vec![("sub", "lake".to_owned())]));
        assert_eq!((found.expires_in_seconds, found.not_before_seconds, found.has_id), (300, 60, false));
        let file = ("sasl.oauthbearer.assertion.file", "a.jwt");
        assert_eq!(oidc(&[grant, file]).unwrap().grant, Grant::AssertionFile(PathBuf::from("a.jwt")));
        assert!(oidc(&[grant]).unwrap_err().contains("needs sasl.oauthbearer.assertion.file"));
        let locked = ("sasl.oauthbearer.assertion.private.key.passphrase", "x");
        assert!(oidc(&[grant, key, locked]).unwrap_err().contains("not supported"));
        let soon = ("sasl.oauthbearer.assertion.claim.exp.seconds", "soon");
        assert!(oidc(&[grant, key, soon]).unwrap_err().ends_with("expected a number of seconds, found \"soon\""));
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        assert!(of(&[]).unwrap_err().contains("needs sasl.oauthbearer.method: oidc"));
        assert!(of(&[("sasl.oauthbearer.method", "magic")]).unwrap_err().contains("default or oidc"));
        let plain = [("sasl.oauthbearer.client.id".to_owned(), Secret::new("x"))];
        assert!(OauthConfig::of(&plain).unwrap_err().ends_with("belongs to sasl.mechanism: OAUTHBEARER"));
        assert_eq!(OauthConfig::of(&[]), Ok(None));
        let unsafe_channel = [("sasl.mechanism".to_owned(), Secret::new("OAUTHBEARER"))];
        assert!(OauthConfig::of(&unsafe_channel).unwrap_err().contains("needs security.protocol"));
        for wrong in ["a", "auth=x", "a1=x", "a=\u{1}"] {
            assert!(extension(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_that_nobody_signs_are_asked_for_by_name() {
        let allowed = (UNSECURED, "true");
        let config = |words| of(&[allowed, ("sasl.oauthbearer.config", words)]);
        let scope = vec!["a".to_owned(), "b".to_owned()];
        let expected = OauthConfig::Unsecured { principal: "admin".to_owned(), scope, life_seconds: 60 };
        assert_eq!(config("principal=admin scope=a,b lifeSeconds=60"), Ok(Some(expected)));
        assert!(config("scope=a").unwrap_err().contains("principal=NAME"));
        assert!(config("principal=a lifeSeconds=0").is_err());
    }
}
