//! The scripts that run in the server: each does what has to be done in one step. All keys of a script are in one slot of a
//! cluster. They need nothing newer than Redis 6.

use redis::Cmd;

/// `EVAL` with keys; arguments follow.
pub(super) fn eval(script: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(keys.len());
    for key in keys {
        command.arg(*key);
    }
    command
}

/// A key for a pipeline as a whole, the same slot for all of its kinds.
pub(super) fn pipeline_key(pipeline: &str, what: &str) -> String {
    format!("fs-data-sink:{{{pipeline}}}:{what}")
}

/// A key that is in the same slot of a cluster as another one; `None` where no such name can be made.
pub(super) fn companion(key: &str, what: &str) -> Option<String> {
    let name = match tag_of(key) {
        Some(_) => format!("{key}:fs-data-sink:{what}"),
        // Without a tag the whole key counts, and a tag made of it ends at its first brace.
        None if !key.contains('}') => format!("{{{key}}}:fs-data-sink:{what}"),
        None => return None,
    };
    (slot(&name) == slot(key)).then_some(name)
}

/// What of a key counts for its slot, where that is a part of it.
fn tag_of(key: &str) -> Option<&str> {
    let (_, behind) = key.split_once('{')?;
    let (tag, _) = behind.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// What decides the slot.
fn slot(key: &str) -> &str {
    tag_of(key).unwrap_or(key)
}

/// A member of a pipeline says that it lives, and takes and gives streams.
/// Keys: members (name, when it dies), leases (stream, member).
/// Arguments: the member, for how many milliseconds, how many streams it reads, those, how many it wants, those, those that
/// it gives back. Answer: members, streams that it may read, streams that it reads and another one has.
pub(super) const BEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, ttl, at = ARGV[1], tonumber(ARGV[2]), 4
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ttl, me)
local members, alive = redis.call('ZRANGE', KEYS[1], 0, -1), {}
for _, name in ipairs(members) do alive[name] = true end
local lost, held = {}, {}
for _ = 1, tonumber(ARGV[3]) do
  local owner = redis.call('HGET', KEYS[2], ARGV[at])
  if owner and owner ~= me then lost[#lost + 1] = ARGV[at] end
  at = at + 1
end
local wanted = tonumber(ARGV[at])
at = at + 1
for _ = 1, wanted do
  local owner = redis.call('HGET', KEYS[2], ARGV[at])
  if not owner or owner == me or not alive[owner] then
    redis.call('HSET', KEYS[2], ARGV[at], me)
    held[#held + 1] = ARGV[at]
  end
  at = at + 1
end
while ARGV[at] do
  if redis.call('HGET', KEYS[2], ARGV[at]) == me then redis.call('HDEL', KEYS[2], ARGV[at]) end
  at = at + 1
end
redis.call('PEXPIRE', KEYS[1], ttl * 10)
redis.call('PEXPIRE', KEYS[2], ttl * 10)
return {members, held, lost}
";

/// A member leaves, and gives back what it has. Keys and first argument as in [`BEAT`]; then its streams.
pub(super) const LEAVE: &str = r"
redis.call('ZREM', KEYS[1], ARGV[1])
for at = 2, #ARGV do
  if redis.call('HGET', KEYS[2], ARGV[at]) == ARGV[1] then redis.call('HDEL', KEYS[2], ARGV[at]) end
end
return 1
";

/// A consumer takes a name that nobody has.
/// Keys: seats (name, when it is free again), owners (name, token), names of the last week (name, when it was spoken for).
/// Arguments: token, milliseconds, names in the order in which they are tried. Answer: the name, or nil.
pub(super) const SIT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV do
  local expires = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if not expires or tonumber(expires) <= now then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[at])
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[1])
    redis.call('ZADD', KEYS[3], now, ARGV[at])
    return ARGV[at]
  end
end
return false
";

/// A consumer says that it lives. Keys as in [`SIT`]; arguments: token, milliseconds, name.
/// Answer: seats that are taken, as name, when it is free again, owner; and the names of the last week.
pub(super) const STAY: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner = redis.call('HGET', KEYS[2], ARGV[3])
if owner and owner ~= ARGV[1] then return redis.error_reply('FSLOST another process has the name of this consumer') end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[3])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - 604800000)
local taken = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  taken[#taken + 1] = name
  taken[#taken + 1] = redis.call('ZSCORE', KEYS[1], name)
  taken[#taken + 1] = redis.call('HGET', KEYS[2], name) or ''
end
return {taken, redis.call('ZRANGE', KEYS[3], 0, -1)}
";

/// A consumer goes. Keys as in [`SIT`]; arguments: token, name.
pub(super) const STAND_UP: &str = r"
if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[1] then
  redis.call('ZREM', KEYS[1], ARGV[2])
  redis.call('HDEL', KEYS[2], ARGV[2])
end
return 1
";

/// Removes a consumer of a group that has nothing any more: removing one that has would lose what it has.
/// Key: the stream. Arguments: group, consumer.
pub(super) const REMOVE_IDLE: &str = r"
for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for at = 1, #facts, 2 do consumer[facts[at]] = facts[at + 1] end
  if consumer['name'] == ARGV[2] and consumer['pending'] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
";

/// A consumer of a list says that it lives; `join` makes it one. Keys: consumers of the list (name, when it dies).
/// Arguments: name, milliseconds, `join` or not. Answer: consumers and when they die, and what time it is.
pub(super) const LIST_BEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dies = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[3] ~= 'join' and (not dies or tonumber(dies) == 0) then
  return redis.error_reply('FSLOST this consumer of a list was taken for dead')
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return {redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), now}
";

/// Forgets what is done of a list, and takes more of it.
/// Keys: the list, what this consumer has of it, the consumers. Arguments: name, how many items it has, how many of them are
/// done, how many to take at most. Answer: the items.
/// Whatever this consumer has must be what it thinks it has: after a failover it may not be, and then nothing is removed.
pub(super) const LIST_TAKE: &str = r"
local dies = redis.call('ZSCORE', KEYS[3], ARGV[1])
if not dies or tonumber(dies) == 0 then return redis.error_reply('FSLOST this consumer of a list was taken for dead') end
if redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then
  return redis.error_reply('FSLOST what this consumer has of the list is not what it took')
end
if tonumber(ARGV[3]) > 0 then redis.call('LTRIM', KEYS[2], ARGV[3], -1) end
local count = tonumber(ARGV[4])
if count == 0 then return {} end
local items = redis.call('LRANGE', KEYS[1], 0, count - 1)
if #items == 0 then return items end
for from = 1, #items, 1000 do
  redis.call('RPUSH', KEYS[2], unpack(items, from, math.min(from + 999, #items)))
end
redis.call('LTRIM', KEYS[1], #items, -1)
return items
";

/// Takes items of a list for good. Key: the list. Argument: how many at most. Answer: the items.
pub(super) const LIST_POP: &str = r"
local items = redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)
redis.call('LTRIM', KEYS[1], #items, -1)
return items
";

/// What a dead consumer had of a list comes back to its front, some items at a time.
/// Keys: the list, what the dead one has of it, the consumers. Arguments: its name, how many items at most; `leave` where it is
/// not dead and gives back by itself. Answer: how many came back, and how many are left.
/// From the first step on the dead one counts as dead, should it wake up.
pub(super) const LIST_RETURN: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dies = redis.call('ZSCORE', KEYS[3], ARGV[1])
if not dies then return {0, 0} end
if ARGV[3] ~= 'leave' and tonumber(dies) > now then return {0, -1} end
redis.call('ZADD', KEYS[3], 0, ARGV[1])
local moved = 0
while moved < tonumber(ARGV[2]) and redis.call('RPOPLPUSH', KEYS[2], KEYS[1]) do moved = moved + 1 end
local left = redis.call('LLEN', KEYS[2])
if left == 0 then redis.call('ZREM', KEYS[3], ARGV[1]) end
return {moved, left}
";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn companions_are_in_the_slot_of_their_key() {
        assert_eq!(companion("orders", "x").unwrap(), "{orders}:fs-data-sink:x");
        assert_eq!(companion("a{shop}b", "x").unwrap(), "a{shop}b:fs-data-sink:x");
        assert_eq!(companion("a{b", "x").unwrap(), "{a{b}:fs-data-sink:x");
        assert_eq!(companion("a}b", "x"), None);
        assert_eq!(companion("a{}b", "x"), None);
        assert_eq!(pipeline_key("orders", "members"), "fs-data-sink:{orders}:members");
    }

    proptest! {
        #[test]
        fn a_companion_is_in_the_slot_of_its_key(key in "[a{}]{1,8}") {
            if let Some(name) = companion(&key, "x") {
                prop_assert_eq!(slot(&name), slot(&key));
                prop_assert_ne!(name, key);
            }
        }
    }
}
