/* Values of keys in a Redis or a file, as the pipeline grants them under `grants.keyvalue`. In: keys. Out: bytes, or why there are none. What
 * is not called here is no import of the component. */
#include "internal.h"

#define STORE "wasi:keyvalue/store@0.2.0-draft"

/* The cases of the interface's error. */
enum { NO_SUCH_STORE, ACCESS_DENIED, OTHER };

typedef struct {
  uint8_t is_error;
  union {
    uint32_t handle;
    fds_option_text found;
    fds_list many;
    struct {
      uint8_t which;
      fds_text words;
    } error;
  } value;
} store_result;

/* An item of `get-many`: whether there is one, its key, its value. */
typedef struct {
  uint8_t is;
  fds_text key, value;
} store_pair;

FDS_IMPORT(STORE, "open") void store_open(const char *name, size_t length, store_result *);
FDS_IMPORT(STORE, "[method]bucket.get") void bucket_get(uint32_t bucket, const char *key, size_t length, store_result *);
FDS_IMPORT(STORE, "[method]bucket.set")
void bucket_set(uint32_t bucket, const char *key, size_t length, const char *value, size_t value_length, store_result *);
FDS_IMPORT(STORE, "[method]bucket.delete") void bucket_delete(uint32_t bucket, const char *key, size_t length, store_result *);
FDS_IMPORT("wasi:keyvalue/batch@0.2.0-draft", "get-many")
void bucket_get_many(uint32_t bucket, const fds_text *keys, size_t count, store_result *);

static fds_result asked(const fds_bucket *bucket, const store_result *result) {
  if (!result->is_error) return FDS_DONE;
  if (result->value.error.which == OTHER)
    return fds_retry(0, "the bucket '%.*s' cannot be asked: %.*s", FDS_ARG(bucket->name), FDS_ARG(result->value.error.words));
  return fds_invalid_config("the bucket '%.*s' is not granted, or not for this: add it to grants.keyvalue", FDS_ARG(bucket->name));
}

fds_result fds_bucket_open(fds_text name, fds_bucket *bucket) {
  store_result result;
  bucket->name = fds_copy_forever(name);
  store_open(name.data, name.length, &result);
  FDS_TRY(asked(bucket, &result));
  bucket->handle = result.value.handle;
  return FDS_DONE;
}

fds_result fds_bucket_get(const fds_bucket *bucket, fds_text key, fds_found *found) {
  store_result result;
  bucket_get(bucket->handle, key.data, key.length, &result);
  FDS_TRY(asked(bucket, &result));
  *found = (fds_found){result.value.found.is, result.value.found.value};
  return FDS_DONE;
}

fds_result fds_bucket_get_many(const fds_bucket *bucket, const fds_text *keys, size_t count, fds_found **found) {
  store_result result;
  bucket_get_many(bucket->handle, keys, count, &result);
  FDS_TRY(asked(bucket, &result));
  if (result.value.many.count != count) return fds_failed("the bucket '%.*s' was asked for %zu keys, and answered %zu", FDS_ARG(bucket->name), count, result.value.many.count);
  const store_pair *pairs = result.value.many.items;
  *found = fds_memory(count * sizeof **found);
  for (size_t at = 0; at < count; at++) (*found)[at] = (fds_found){pairs[at].is, pairs[at].value};
  return FDS_DONE;
}

fds_result fds_bucket_set(const fds_bucket *bucket, fds_text key, fds_text value) {
  store_result result;
  bucket_set(bucket->handle, key.data, key.length, value.data, value.length, &result);
  return asked(bucket, &result);
}

fds_result fds_bucket_delete(const fds_bucket *bucket, fds_text key) {
  store_result result;
  bucket_delete(bucket->handle, key.data, key.length, &result);
  return asked(bucket, &result);
}
