//! Look-ups in buckets that the pipeline's YAML grants under `grants.keyvalue`: a Redis, or a table in a file.
//!
//! [`Bucket::get_many`] asks for all keys of a batch in one go; a question for each row would take a batch's time many times.
//! In native tests buckets are what [`crate::testing::grant_bucket`] said.

#[cfg(target_arch = "wasm32")]
use crate::guest::bindings::wasi::keyvalue::{batch, store};
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::outside;
use crate::{OpenError, ProcessError};

/// Why a bucket gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyvalueError {
    /// It is not granted, or not for this.
    #[error("the bucket {0:?} is not granted, or not for this: add it to grants.keyvalue")]
    NotGranted(String),
    /// The host refuses the question, or what is behind the bucket does not answer.
    #[error("bucket {0:?}: {1}")]
    Failed(String, String),
}

impl From<KeyvalueError> for ProcessError {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::NotGranted(_) => Self::failed(error.to_string()),
            // What does not answer now may answer later; the host bounds how often that is tried.
            KeyvalueError::Failed(..) => Self::retry(error.to_string()),
        }
    }
}

impl From<KeyvalueError> for OpenError {
    fn from(error: KeyvalueError) -> Self {
        Self::invalid_config(error.to_string())
    }
}

/// A bucket.
#[derive(Debug)]
pub struct Bucket {
    /// What the YAML calls it.
    name: String,
    /// The host's handle.
    #[cfg(target_arch = "wasm32")]
    handle: store::Bucket,
}

#[cfg(target_arch = "wasm32")]
impl Bucket {
    /// Opens a bucket. Nothing is asked of what is behind it yet.
    pub fn open(name: &str) -> Result<Self, KeyvalueError> {
        let handle = store::open(name).map_err(|error| fault(name, error))?;
        Ok(Self { name: name.to_owned(), handle })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyvalueError> {
        self.handle.get(key).map_err(|error| fault(&self.name, error))
    }

    /// The values of keys, in their order.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, KeyvalueError> {
        let pairs = batch::get_many(&self.handle, keys).map_err(|error| fault(&self.name, error))?;
        Ok(pairs.into_iter().map(|pair| pair.map(|(_, value)| value)).collect())
    }

    /// Sets a value.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyvalueError> {
        self.handle.set(key, value).map_err(|error| fault(&self.name, error))
    }

    /// Takes a key away.
    pub fn delete(&self, key: &str) -> Result<(), KeyvalueError> {
        self.handle.delete(key).map_err(|error| fault(&self.name, error))
    }
}

/// An error of the interface.
#[cfg(target_arch = "wasm32")]
fn fault(name: &str, error: store::Error) -> KeyvalueError {
    match error {
        store::Error::NoSuchStore | store::Error::AccessDenied => KeyvalueError::NotGranted(name.to_owned()),
        store::Error::Other(words) => KeyvalueError::Failed(name.to_owned(), words),
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Bucket {
    /// Opens a bucket. Nothing is asked of what is behind it yet.
    pub fn open(name: &str) -> Result<Self, KeyvalueError> {
        let is_granted = outside(|outside| outside.buckets.contains_key(name));
        if is_granted { Ok(Self { name: name.to_owned() }) } else { Err(KeyvalueError::NotGranted(name.to_owned())) }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyvalueError> {
        Ok(self.values(|values| values.get(key).cloned()))
    }

    /// The values of keys, in their order.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, KeyvalueError> {
        Ok(self.values(|values| keys.iter().map(|key| values.get(key).cloned()).collect()))
    }

    /// Sets a value.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyvalueError> {
        self.values(|values| values.insert(key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Takes a key away.
    pub fn delete(&self, key: &str) -> Result<(), KeyvalueError> {
        self.values(|values| values.remove(key));
        Ok(())
    }

    /// What the test put there.
    fn values<T>(&self, look: impl FnOnce(&mut std::collections::BTreeMap<String, Vec<u8>>) -> T) -> T {
        outside(|outside| look(outside.buckets.entry(self.name.clone()).or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_what_the_test_granted() {
        crate::testing::grant_bucket("b", [("a", "1")]);
        let bucket = Bucket::open("b").unwrap();
        bucket.set("c", b"3").unwrap();
        bucket.set("d", b"4").unwrap();
        bucket.delete("d").unwrap();
        let values = bucket.get_many(&["a".to_owned(), "d".to_owned(), "c".to_owned()]).unwrap();
        assert_eq!(values, [Some(b"1".to_vec()), None, Some(b"3".to_vec())]);
        assert_eq!(bucket.get("a").unwrap(), Some(b"1".to_vec()));
        let error = Bucket::open("x").unwrap_err();
        assert_eq!(
            OpenError::from(error),
            OpenError::invalid_config("the bucket \"x\" is not granted, or not for this: add it to grants.keyvalue")
        );
    }
}
