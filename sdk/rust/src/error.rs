//! What a plugin answers when it cannot start, or cannot process a batch. The host decides what follows.

use std::time::Duration;

use arrow_schema::{ArrowError, Schema};
use serde::de::DeserializeOwned;

/// Why an instance cannot start; the pipeline does not start either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The configuration is wrong.
    #[error("{0}")]
    InvalidConfig(String),
    /// The rows cannot be served.
    #[error("{0}")]
    UnsupportedSchema(String),
}

impl OpenError {
    /// The configuration is wrong. Name the key.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Self::InvalidConfig(message.into())
    }

    /// The rows cannot be served. Name the column.
    pub fn unsupported_schema(message: impl Into<String>) -> Self {
        Self::UnsupportedSchema(message.into())
    }

    /// The rows have no such column; names those that they have.
    #[must_use]
    pub fn no_column(name: &str, input: &Schema) -> Self {
        Self::UnsupportedSchema(no_column(name, input))
    }
}

/// Why a batch cannot be processed. Single rows are refused by [`crate::Output::reject`] instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// Never: all its rows become dead letters.
    #[error("{0}")]
    Failed(String),
    /// Not now: the host gives the same batch again, after this pause if there is one, and not without end.
    #[error("{0}")]
    Retryable(String, Option<Duration>),
}

impl ProcessError {
    /// This batch can never be processed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Not now; the host decides when to try again.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retryable(message.into(), None)
    }

    /// Not before this pause is over.
    pub fn retry_after(message: impl Into<String>, pause: Duration) -> Self {
        Self::Retryable(message.into(), Some(pause))
    }
}

impl From<ArrowError> for ProcessError {
    fn from(error: ArrowError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The words for a column that is not there.
pub(crate) fn no_column(name: &str, input: &Schema) -> String {
    let known: Vec<_> = input.fields().iter().map(|field| field.name().as_str()).collect();
    format!("the rows have no column {name:?}; they have: {}", known.join(", "))
}

/// Reads a plugin's configuration, with words that name the key.
pub(crate) fn parse_config<C: DeserializeOwned>(json: &str) -> Result<C, OpenError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let words = error.inner().to_string();
        // The user wrote YAML: a line and column of our JSON would only mislead.
        let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
        let key = path.rsplit('.').next().unwrap_or_default();
        if path == "." || words.contains(&format!("`{key}`")) {
            OpenError::invalid_config(words)
        } else {
            OpenError::invalid_config(format!("{path}: {words}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Config {
        column: String,
        #[serde(default)]
        limits: Vec<Limit>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only parsed")]
    struct Limit {
        rows: u32,
    }

    #[test]
    fn a_wrong_configuration_is_told_by_its_key() {
        let words = |json: &str| parse_config::<Config>(json).unwrap_err().to_string();
        assert_eq!(words(r#"{"column":7}"#), "column: invalid type: integer `7`, expected a string");
        assert_eq!(words("{}"), "missing field `column`");
        assert_eq!(words(r#"{"column":"a","colour":1}"#), "unknown field `colour`, expected `column` or `limits`");
        assert_eq!(
            words(r#"{"column":"a","limits":[{"rows":1},{"rows":-1}]}"#),
            "limits[1].rows: invalid value: integer `-1`, expected u32"
        );
        parse_config::<Config>(r#"{"column":"a"}"#).unwrap();
    }
}
