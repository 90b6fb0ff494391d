//! What a declared field says about its values in JSON, kept as metadata of the field.

use arrow_schema::{Field, TimeUnit};

use super::value::expected;

/// How JSON writes the values of a declared field, where it does not say so itself: metadata of the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonHints {
    /// How a text stands for bytes.
    pub encoding: Option<BinaryEncoding>,
    /// What an integer counts since 1970.
    pub epoch: Option<TimeUnit>,
}

/// How a text stands for bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinaryEncoding {
    /// The standard alphabet, with padding.
    #[default]
    Base64,
    /// Two hexadecimal digits a byte.
    Hex,
}

impl JsonHints {
    /// Where the encoding is kept.
    const ENCODING: &str = "fs_data_sink.encoding";
    /// Where the unit is kept.
    const EPOCH: &str = "fs_data_sink.epoch";
    /// Encodings by name.
    pub const ENCODINGS: [(&str, BinaryEncoding); 2] =
        [("base64", BinaryEncoding::Base64), ("hex", BinaryEncoding::Hex)];
    /// Units by name.
    pub const UNITS: [(&str, TimeUnit); 4] = [
        ("s", TimeUnit::Second),
        ("ms", TimeUnit::Millisecond),
        ("us", TimeUnit::Microsecond),
        ("ns", TimeUnit::Nanosecond),
    ];

    /// What a field says.
    #[must_use]
    pub fn of(field: &Field) -> Self {
        let metadata = field.metadata();
        let encoding = metadata.get(Self::ENCODING).and_then(|name| find(&Self::ENCODINGS, name));
        let epoch = metadata.get(Self::EPOCH).and_then(|name| find(&Self::UNITS, name));
        Self { encoding, epoch }
    }

    /// These, and those of another where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { encoding: self.encoding.or(other.encoding), epoch: self.epoch.or(other.epoch) }
    }

    /// The names in the configuration: of the encoding, and of the unit.
    #[must_use]
    pub fn names(self) -> (Option<&'static str>, Option<&'static str>) {
        (self.encoding.and_then(|it| name(&Self::ENCODINGS, &it)), self.epoch.and_then(|it| name(&Self::UNITS, &it)))
    }

    /// A field that says this.
    #[must_use]
    pub fn on(self, field: Field) -> Field {
        let (encoding, epoch) = self.names();
        let entries = [(Self::ENCODING, encoding), (Self::EPOCH, epoch)];
        let entries = entries.into_iter().filter_map(|(key, name)| Some((key.to_owned(), name?.to_owned())));
        let mut metadata = field.metadata().clone();
        metadata.extend(entries);
        field.with_metadata(metadata)
    }
}

/// What has a name.
fn find<T: Copy>(choices: &[(&str, T)], name: &str) -> Option<T> {
    choices.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The name of something.
fn name<T: PartialEq>(choices: &[(&'static str, T)], value: &T) -> Option<&'static str> {
    choices.iter().find(|(_, known)| known == value).map(|(name, _)| *name)
}

/// The steps of a JSON pointer (RFC 6901): `/` before each, in which `~1` stands for `/` and `~0` for `~`. In words what is
/// wrong, otherwise.
pub fn json_pointer(text: &str) -> Result<Vec<String>, String> {
    let Some(steps) = text.strip_prefix('/') else {
        return Err(expected("a JSON pointer such as /payload/after", text));
    };
    let step = |step: &str| {
        if step.replace("~0", "").replace("~1", "").contains('~') {
            return Err(format!("in a JSON pointer `~` is written ~0 and `/` in a name ~1, found {text:?}"));
        }
        Ok(step.replace("~1", "/").replace("~0", "~"))
    };
    steps.split('/').map(step).collect()
}
