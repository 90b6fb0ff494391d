/* The host's log, its metrics, and the values that the pipeline grants. In: words and numbers. Out: what the host makes of them. */
#include <stdarg.h>

#include "internal.h"

fds_text fds_words(const char *format, va_list arguments);

FDS_IMPORT("wasi:logging/logging@0.1.0-draft", "log")
void host_log(int32_t level, const char *context, size_t context_length, const char *message, size_t message_length);
FDS_IMPORT("fs-data-sink:plugin/metrics@0.1.0", "count") void host_count(const char *name, size_t length, uint64_t amount);
FDS_IMPORT("fs-data-sink:plugin/metrics@0.1.0", "gauge") void host_gauge(const char *name, size_t length, double value);

typedef struct {
  uint8_t is_error;
  fds_option_text value;
} granted_result;
FDS_IMPORT("wasi:config/store@0.2.0-rc.1", "get") void host_granted(const char *key, size_t length, granted_result *);

void fds_log(fds_level level, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fds_text words = fds_words(format, arguments);
  va_end(arguments);
  host_log(level, "", 0, words.data, words.length);
}

void fds_count(const char *name, uint64_t amount) {
  fds_text text = fds_text_of(name);
  host_count(text.data, text.length, amount);
}

void fds_gauge(const char *name, double value) {
  fds_text text = fds_text_of(name);
  host_gauge(text.data, text.length, value);
}

bool fds_granted(const char *key, fds_text *value) {
  fds_text text = fds_text_of(key);
  granted_result result;
  host_granted(text.data, text.length, &result);
  if (result.is_error || !result.value.is) return false;
  *value = result.value.value;
  return true;
}
