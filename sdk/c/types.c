/* Types in words, and in the notation of Arrow's C data interface. In: the facts of a type, or words. Out: the other. */
#include "types.h"

#include <stdio.h>
#include <string.h>

static const fds_type TYPES[] = {
    [FDS_INTEGER] = {"int", {{4, 0}, {1, 0}}},
    [FDS_FLOATING] = {"float", {{2, 0}}},
    [FDS_BINARY] = {"binary", {{0}}},
    [FDS_UTF8] = {"utf8", {{0}}},
    [FDS_BOOLEAN] = {"bool", {{0}}},
    [FDS_DECIMAL] = {"decimal", {{4, 0}, {4, 0}, {4, 128}}},
    [FDS_DATE] = {"date", {{2, 1}}},
    [FDS_TIME] = {"time", {{2, 1}, {4, 32}}},
    [FDS_TIMESTAMP] = {"timestamp", {{2, 0}}},
    [11] = {"interval", {{2, 0}}},
    [12] = {"list", {{0}}},
    [13] = {"struct", {{0}}},
    [FDS_FIXED] = {"fixed_size_binary", {{4, 0}}},
    [16] = {"fixed_size_list", {{4, 0}}},
    [17] = {"map", {{1, 0}}},
    [FDS_DURATION] = {"duration", {{2, 1}}},
    [19] = {"large_binary", {{0}}},
    [20] = {"large_utf8", {{0}}},
    [21] = {"large_list", {{0}}},
};
static const char *const UNITS[] = {"s", "ms", "us", "ns"};

const fds_type *fds_type_of(uint8_t kind) {
  return kind < sizeof TYPES / sizeof *TYPES && TYPES[kind].name ? &TYPES[kind] : NULL;
}

static const char *unit(int32_t number) { return number >= 0 && number < 4 ? UNITS[number] : "?"; }

fds_text fds_type_words(const fds_node *node) {
  const int32_t *facts = node->facts;
  switch (node->kind) {
    case FDS_INTEGER: return fds_format("%sint%d", facts[1] ? "" : "u", facts[0]);
    case FDS_FLOATING: return fds_format("float%d", 16 << (facts[0] & 3));
    case FDS_DATE: return fds_text_of(facts[0] ? "date64" : "date32");
    case FDS_TIME: return fds_format("time(%s)", unit(facts[0]));
    case FDS_DURATION: return fds_format("duration(%s)", unit(facts[0]));
    case FDS_DECIMAL: return fds_format("decimal(%d, %d)", facts[0], facts[1]);
    case FDS_TIMESTAMP:
      if (!node->zone.length) return fds_format("timestamp(%s)", unit(facts[0]));
      return fds_format("timestamp(%s, %.*s)", unit(facts[0]), FDS_ARG(node->zone));
    default: return fds_text_of(fds_type_of(node->kind)->name);
  }
}

/* The number of a unit that words begin with, and its length. */
static int unit_of(const char *words, size_t *length) {
  *length = strcspn(words, ",)");
  for (int number = 0; number < 4; number++)
    if (strlen(UNITS[number]) == *length && !strncmp(words, UNITS[number], *length)) return number;
  return -1;
}

/* Whether words begin with others; they stand behind those then. */
static bool passes(const char **words, const char *begin) {
  size_t length = strlen(begin);
  if (strncmp(*words, begin, length)) return false;
  *words += length;
  return true;
}

bool fds_type_parse(const char *words, fds_node *node, fds_text *format) {
  int32_t *facts = node->facts;
  int precision, scale, end = 0;
  size_t length;
  if (!strcmp(words, "string")) words = "utf8";
  if (!strcmp(words, "bool") || !strcmp(words, "utf8") || !strcmp(words, "binary")) {
    node->kind = *words == 'u' ? FDS_UTF8 : words[1] == 'o' ? FDS_BOOLEAN : FDS_BINARY;
    *format = fds_text_of(*words == 'u' ? "u" : words[1] == 'o' ? "b" : "z");
    return true;
  }
  bool has_sign = *words != 'u';
  const char *rest = words + !has_sign;
  if (passes(&rest, "int")) {
    static const char *const BITS[] = {"8", "16", "32", "64"}, *const LETTERS[] = {"cC", "sS", "iI", "lL"};
    for (int at = 0; at < 4; at++) {
      if (strcmp(rest, BITS[at])) continue;
      node->kind = FDS_INTEGER, facts[0] = 8 << at, facts[1] = has_sign;
      *format = (fds_text){LETTERS[at] + !has_sign, 1};
      return true;
    }
    return false;
  }
  if (!strcmp(words, "float32") || !strcmp(words, "float64")) {
    node->kind = FDS_FLOATING, facts[0] = words[5] == '3' ? 1 : 2;
    *format = fds_text_of(words[5] == '3' ? "f" : "g");
    return true;
  }
  if (!strcmp(words, "date32") || !strcmp(words, "date64")) {
    node->kind = FDS_DATE, facts[0] = words[4] == '6';
    *format = fds_text_of(words[4] == '6' ? "tdm" : "tdD");
    return true;
  }
  if (sscanf(words, "decimal(%d, %d)%n", &precision, &scale, &end) == 2 && end && !words[end] && precision > 0 && precision <= 18) {
    node->kind = FDS_DECIMAL, facts[0] = precision, facts[1] = scale, facts[2] = 128;
    *format = fds_copy_forever(fds_format("d:%d,%d", precision, scale));
    return true;
  }
  if ((rest = words, passes(&rest, "timestamp(")) && (facts[0] = unit_of(rest, &length)) >= 0) {
    char letter = *rest;
    rest += length;
    if (passes(&rest, ",")) {
      rest += strspn(rest, " ");
      size_t zone = strcspn(rest, ")");
      node->zone = fds_copy_forever((fds_text){rest, zone});
      rest += zone;
    }
    node->kind = FDS_TIMESTAMP;
    *format = fds_copy_forever(fds_format("ts%c:%.*s", letter, FDS_ARG(node->zone)));
    return !strcmp(rest, ")");
  }
  bool is_time = (rest = words, passes(&rest, "time("));
  if ((is_time || passes(&rest, "duration(")) && (facts[0] = unit_of(rest, &length)) >= 0) {
    node->kind = is_time ? FDS_TIME : FDS_DURATION;
    if (is_time) facts[1] = facts[0] < 2 ? 32 : 64;
    *format = fds_copy_forever(fds_format("t%c%c", is_time ? 't' : 'D', *rest));
    return !strcmp(rest + length, ")");
  }
  return false;
}

char fds_kind(fds_text format, uint32_t *width) {
  static const struct {
    const char *format;
    char kind;
    uint32_t width;
  } KNOWN[] = {
      {"b", 'b', 0},   {"c", 'i', 1},   {"C", 'u', 1},   {"s", 'i', 2},   {"S", 'u', 2},   {"i", 'i', 4},   {"I", 'u', 4},   {"l", 'i', 8},
      {"L", 'u', 8},   {"f", 'f', 4},   {"g", 'f', 8},   {"u", 't', 0},   {"z", 't', 0},   {"tdD", 'i', 4}, {"tdm", 'i', 8}, {"tts", 'i', 4},
      {"ttm", 'i', 4}, {"ttu", 'i', 8}, {"ttn", 'i', 8}, {"tDs", 'i', 8}, {"tDm", 'i', 8}, {"tDu", 'i', 8}, {"tDn", 'i', 8}, {"tiM", 'i', 4},
  };
  for (size_t at = 0; at < sizeof KNOWN / sizeof *KNOWN; at++) {
    if (!fds_text_is(format, KNOWN[at].format)) continue;
    *width = KNOWN[at].width;
    return KNOWN[at].kind;
  }
  char words[32] = {0};
  memcpy(words, format.data, format.length < 31 ? format.length : 31);
  int precision, scale, bits = 128;
  *width = 8;
  if (!strncmp(words, "ts", 2)) return 'i';
  if (sscanf(words, "d:%d,%d,%d", &precision, &scale, &bits) >= 2) {
    *width = (uint32_t)bits / 8;
    return 'd';
  }
  if (sscanf(words, "w:%u", width) == 1) return 'w';
  return 0;
}
