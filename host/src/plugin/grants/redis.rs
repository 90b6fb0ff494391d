//! A bucket that is the strings of a Redis under a prefix.
//!
//! Comes in: keys without the prefix. Goes out: values of bounded size. Promises: every command names keys under the prefix and
//! no other; no value is taken from the server that is larger than the bucket's may be; a server that is away or silent is an error, and
//! the next question connects anew. One connection serves all lanes of the pipeline; questions are pipelined on it.

use std::time::Instant;

use futures::future::try_join_all;
use redis::{Cmd, FromRedisValue, RedisError, cmd};
use tokio::sync::Mutex;

use super::keyvalue::{ANSWER_BYTES_MAX, Answer, KEY_BYTES_MAX, KeyFault, PAGE_KEYS, too_much};
use crate::{
    config::{RedisBucket, RedisServers},
    redis_client::{Link, connect},
};

/// Questions on the way at the same time.
const PIPELINED_MAX: usize = 256;

/// Strings of a Redis.
pub(super) struct RedisKeys {
    /// Where they are.
    config: RedisBucket,
    /// Bytes of one value.
    value_bytes_max: usize,
    /// The connection. Held while one is made, so that only one is.
    kept: Mutex<Kept>,
}

/// The connection of a bucket.
struct Kept {
    /// Which one it is.
    number: u64,
    /// When it was made.
    made: Instant,
    /// While there is one.
    link: Option<Link>,
}

impl RedisKeys {
    /// Nothing is connected yet.
    pub(super) fn new(config: RedisBucket, value_bytes_max: usize) -> Self {
        Self { config, value_bytes_max, kept: Mutex::new(Kept { number: 0, made: Instant::now(), link: None }) }
    }

    /// The values of keys, in their order.
    pub(super) async fn get_many(&self, keys: &[String]) -> Answer<Vec<Option<Vec<u8>>>> {
        // So many that what is on the way fits what one answer may have.
        let at_once = (ANSWER_BYTES_MAX / self.value_bytes_max).clamp(1, PIPELINED_MAX);
        let (mut values, mut bytes) = (Vec::with_capacity(keys.len()), 0_usize);
        for keys in keys.chunks(at_once) {
            let found = try_join_all(keys.iter().map(|key| self.get(key))).await?;
            bytes += found.iter().flatten().map(Vec::len).sum::<usize>();
            if bytes > ANSWER_BYTES_MAX {
                return Err(too_much());
            }
            values.extend(found);
        }
        Ok(values)
    }

    /// One value. GET would bring all of it, however large.
    async fn get(&self, key: &str) -> Answer<Option<Vec<u8>>> {
        let most = self.value_bytes_max;
        let value: Vec<u8> = self.ask(cmd("GETRANGE").arg(self.full(key)).arg(0).arg(most)).await?;
        if value.len() > most {
            return Err(KeyFault::told(format!("the value of {key:?} has more than {most} bytes (value_bytes)")));
        }
        // A key that is not there looks like an empty value.
        if value.is_empty() && !self.exists(key).await? {
            return Ok(None);
        }
        Ok(Some(value))
    }

    /// Whether a key is there.
    pub(super) async fn exists(&self, key: &str) -> Answer<bool> {
        self.ask(cmd("EXISTS").arg(self.full(key))).await
    }

    /// A page of keys and where the next one begins.
    pub(super) async fn list(&self, cursor: u64) -> Answer<(Vec<String>, Option<u64>)> {
        if matches!(self.config.connection.servers, RedisServers::Cluster(_)) {
            return Err(KeyFault::told("keys of a cluster cannot be listed"));
        }
        let pattern = format!("{}*", escaped(&self.config.prefix));
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE_KEYS);
        let (next, keys): (u64, Vec<Vec<u8>>) = self.ask(&scan).await?;
        // Whatever the pattern found: nothing but keys under the prefix is told.
        let own = keys.into_iter().filter_map(|key| {
            let key = String::from_utf8(key).ok()?;
            key.strip_prefix(&self.config.prefix).filter(|key| key.len() <= KEY_BYTES_MAX).map(str::to_owned)
        });
        Ok((own.collect(), (next != 0).then_some(next)))
    }

    /// Writes values, in their order.
    pub(super) async fn set_many(&self, values: &[(String, Vec<u8>)]) -> Answer<()> {
        for values in values.chunks(PIPELINED_MAX) {
            try_join_all(values.iter().map(|(key, value)| self.set(key, value))).await?;
        }
        Ok(())
    }

    /// Writes one value.
    async fn set(&self, key: &str, value: &[u8]) -> Answer<()> {
        self.ask(cmd("SET").arg(self.full(key)).arg(value)).await
    }

    /// Takes keys away.
    pub(super) async fn delete_many(&self, keys: &[String]) -> Answer<()> {
        for keys in keys.chunks(PIPELINED_MAX) {
            try_join_all(keys.iter().map(|key| self.delete(key))).await?;
        }
        Ok(())
    }

    /// Takes one key away.
    async fn delete(&self, key: &str) -> Answer<()> {
        self.ask(cmd("DEL").arg(self.full(key))).await
    }

    /// A key as Redis knows it.
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.config.prefix)
    }

    /// Asks, once.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Answer<T> {
        let (number, mut link) = self.link().await?;
        let answer = link.ask(command).await;
        if let Err(error) = &answer
            && (error.is_unrecoverable_error() || error.code() == Some("READONLY"))
        {
            let mut kept = self.kept.lock().await;
            if kept.number == number {
                kept.link = None;
            }
        }
        let value = answer.map_err(|error| self.fault(&error))?;
        T::from_redis_value(value).map_err(|error| self.fault(&error.into()))
    }

    /// The connection; made when there is none.
    async fn link(&self) -> Answer<(u64, Link)> {
        let mut kept = self.kept.lock().await;
        if let Some(link) = &kept.link {
            return Ok((kept.number, link.clone()));
        }
        let link = Box::pin(connect(&self.config.connection)).await.map_err(|error| self.fault(&error))?;
        *kept = Kept { number: kept.number + 1, made: Instant::now(), link: Some(link.clone()) };
        Ok((kept.number, link))
    }

    /// Nobody waits any longer for an answer to what was asked then. A connection that is silent says no more than one that is slow,
    /// and the grant's time is shorter than that of the connection; so it is not trusted again.
    pub(super) fn gave_up(&self, asked: Instant) {
        // Who holds it makes a new one.
        if let Ok(mut kept) = self.kept.try_lock()
            && kept.made <= asked
        {
            kept.link = None;
        }
    }

    /// The fault of a server that does not answer as it should.
    fn fault(&self, error: &RedisError) -> KeyFault {
        KeyFault::Store(format!("Redis {}: {error}", self.config.connection.servers))
    }
}

/// A text that stands for itself in a pattern of Redis.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_for_itself_in_a_pattern() {
        assert_eq!(escaped("shop:customers:"), "shop:customers:");
        assert_eq!(escaped("a*[b]?\\"), "a\\*\\[b\\]\\?\\\\");
    }
}
