/* The configuration. In: JSON text, which the host made of YAML and has held against the plugin's schema. Out: values of keys of its outermost
 * object. It promises not to read behind the text, and to go DEPTH_MAX levels deep at most. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define DEPTH_MAX 64

struct fds_config {
  fds_text text;
};

typedef struct {
  const char *at, *end;
} reader;

static void blanks(reader *in) {
  while (in->at < in->end && strchr(" \t\r\n", *in->at)) in->at++;
}

/* Whether the next letter is this; it is behind then. */
static bool take(reader *in, char letter) {
  blanks(in);
  if (in->at >= in->end || *in->at != letter) return false;
  in->at++;
  return true;
}

/* Goes behind a value; false where there is none. */
static bool skip(reader *in, int depth) {
  blanks(in);
  if (in->at >= in->end || depth > DEPTH_MAX) return false;
  char first = *in->at;
  if (first == '"') {
    for (in->at++; in->at < in->end && *in->at != '"'; in->at++)
      if (*in->at == '\\') in->at++;
    return in->at++ < in->end;
  }
  if (first == '{' || first == '[') {
    char last = first == '{' ? '}' : ']';
    in->at++;
    if (take(in, last)) return true;
    do {
      if (first == '{' && !(skip(in, depth + 1) && take(in, ':'))) return false;
      if (!skip(in, depth + 1)) return false;
    } while (take(in, ','));
    return take(in, last);
  }
  while (in->at < in->end && !strchr(",]} \t\r\n", *in->at)) in->at++;
  return true;
}

/* Four hexadecimal digits. */
static uint32_t hex(const char *at) {
  char digits[5] = {at[0], at[1], at[2], at[3], 0};
  return (uint32_t)strtoul(digits, NULL, 16);
}

/* A letter in UTF-8. */
static char *letter_put(char *to, uint32_t letter) {
  if (letter < 0x80) {
    *to++ = (char)letter;
  } else if (letter < 0x800) {
    *to++ = (char)(0xc0 | letter >> 6);
    *to++ = (char)(0x80 | (letter & 0x3f));
  } else {
    if (letter >= 0x10000) {
      *to++ = (char)(0xf0 | letter >> 18);
      *to++ = (char)(0x80 | (letter >> 12 & 0x3f));
    } else {
      *to++ = (char)(0xe0 | letter >> 12);
    }
    *to++ = (char)(0x80 | (letter >> 6 & 0x3f));
    *to++ = (char)(0x80 | (letter & 0x3f));
  }
  return to;
}

/* A text in quotes without its escapes. */
static fds_text unquoted(fds_text quoted) {
  char *text = fds_forever(quoted.length), *to = text;
  const char *at = quoted.data + 1, *end = quoted.data + quoted.length - 1;
  while (at < end) {
    if (*at != '\\' || at + 1 >= end) {
      *to++ = *at++;
      continue;
    }
    char escaped = at[1];
    at += 2;
    static const char FROM[] = "bfnrt", TO[] = "\b\f\n\r\t";
    const char *known = strchr(FROM, escaped);
    if (escaped != 'u' || end - at < 4) {
      *to++ = known && escaped ? TO[known - FROM] : escaped;
      continue;
    }
    uint32_t letter = hex(at);
    at += 4;
    if (letter >= 0xd800 && letter < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
      letter = 0x10000 + ((letter - 0xd800) << 10) + (hex(at + 2) - 0xdc00);
      at += 6;
    }
    to = letter_put(to, letter);
  }
  return (fds_text){text, (size_t)(to - text)};
}

/* The value of a key as it stands; without data where there is none. */
static fds_text value_of(const fds_config *config, const char *key) {
  reader in = {config->text.data, config->text.data + config->text.length};
  fds_text found = {NULL, 0};
  if (!take(&in, '{')) return found;
  while (!found.data) {
    blanks(&in);
    const char *begin = in.at;
    if (in.at >= in.end || *in.at != '"' || !skip(&in, 0)) return found;
    bool is_it = fds_text_is(unquoted((fds_text){begin, (size_t)(in.at - begin)}), key);
    if (!take(&in, ':')) return found;
    blanks(&in);
    begin = in.at;
    if (!skip(&in, 0)) return found;
    if (is_it) found = (fds_text){begin, (size_t)(in.at - begin)};
    else if (!take(&in, ',')) return found;
  }
  return found;
}

/* The value of a key, or an error that says what was expected. */
static fds_result needed(const fds_config *config, const char *key, const char *letters, const char *words, fds_text *value) {
  *value = value_of(config, key);
  if (!value->data) return fds_invalid_config("%s: the key is missing; expected %s", key, words);
  if (!value->length || !strchr(letters, *value->data))
    return fds_invalid_config("%s: expected %s, found %.*s", key, words, FDS_ARG(*value));
  return FDS_DONE;
}

bool fds_config_has(const fds_config *config, const char *key) {
  fds_text value = value_of(config, key);
  return value.data && !fds_text_is(value, "null");
}

fds_result fds_config_text(const fds_config *config, const char *key, fds_text *value) {
  fds_text found;
  FDS_TRY(needed(config, key, "\"", "a text", &found));
  *value = unquoted(found);
  return FDS_DONE;
}

fds_result fds_config_number(const fds_config *config, const char *key, double *value) {
  fds_text found;
  FDS_TRY(needed(config, key, "-0123456789", "a number", &found));
  char *digits = fds_memory(found.length + 1);
  memcpy(digits, found.data, found.length);
  *value = strtod(digits, NULL);
  return FDS_DONE;
}

fds_result fds_config_bool(const fds_config *config, const char *key, bool *value) {
  fds_text found;
  FDS_TRY(needed(config, key, "tf", "true or false", &found));
  *value = *found.data == 't';
  return FDS_DONE;
}

fds_result fds_config_json(const fds_config *config, const char *key, fds_text *value) {
  *value = value_of(config, key);
  return value->data ? FDS_DONE : fds_invalid_config("%s: the key is missing", key);
}
