/* Numbers the rows of its source over restarts, and gives them names out of a bucket and a greeting of a server; it holds them until a flush. */
#include <stdlib.h>
#include <string.h>

#include "fs_data_sink.h"

/* A row that is held. */
typedef struct row {
  struct row *next;
  int64_t seen;
  fds_text country, name, greeting;
  bool has_name;
} row;

static fds_text url;
static bool fails;
static fds_bucket names;
static int64_t seen;
static row *first, **last = &first;

static fds_result opened(const fds_config *config, const fds_schema *schema, fds_columns *columns) {
  FDS_TRY(fds_config_text(config, "url", &url));
  FDS_TRY(fds_config_bool(config, "fail", &fails));
  FDS_TRY(fds_require(schema, fds_text_of("country"), "utf8", NULL));
  FDS_TRY(fds_bucket_open(fds_text_of("names"), &names));
  fds_replace(columns);
  FDS_TRY(fds_add(columns, "country", "utf8"));
  FDS_TRY(fds_add(columns, "seen", "int64"));
  FDS_TRY(fds_add(columns, "name", "utf8"));
  return fds_add(columns, "greeting", "utf8");
}

static fds_text copied(fds_text text) {
  char *copy = malloc(text.length + 1);
  if (copy) memcpy(copy, text.data, text.length);
  return (fds_text){copy, text.length};
}

static fds_result process(const fds_batch *batch, fds_output *output) {
  (void)output;
  const fds_column *countries;
  FDS_TRY(fds_read(batch, fds_text_of(fails ? "colour" : "country"), &countries));
  fds_text region = {"", 0}, other;
  fds_granted("region", &region);
  fds_log(FDS_INFO, "heard %.*s and %s", FDS_ARG(region), fds_granted("x", &other) ? "more" : "nothing");
  fds_count("rows", batch->rows);
  fds_gauge("share", 0.5);
  fds_header who = {fds_text_of("x-who"), fds_text_of("numbers")};
  fds_response response;
  FDS_TRY(fds_http_send(&(fds_request){.url = url, .headers = &who, .header_count = 1}, &response));
  fds_text *keys = fds_memory(batch->rows * sizeof *keys);
  fds_found *found;
  for (uint32_t at = 0; at < batch->rows; at++) keys[at] = fds_string(countries, at);
  FDS_TRY(fds_bucket_get_many(&names, keys, batch->rows, &found));
  for (uint32_t at = 0; at < batch->rows; at++) {
    row *held = malloc(sizeof *held);
    if (!held) return fds_failed("no memory");
    *held = (row){NULL, ++seen, copied(keys[at]), copied(found[at].value), copied(response.body), found[at].is};
    *last = held;
    last = &held->next;
  }
  return FDS_DONE;
}

static fds_result flush(fds_flush_reason reason, fds_output *output) {
  (void)reason;
  while (first) {
    row *held = first;
    fds_put_text(fds_values_of(output, "country"), held->country);
    fds_put_int(fds_values_of(output, "seen"), held->seen);
    fds_put_text(fds_values_of(output, "greeting"), held->greeting);
    fds_values *name = fds_values_of(output, "name");
    if (held->has_name) fds_put_text(name, held->name);
    else fds_put_null(name);
    first = held->next;
    free((void *)(uintptr_t)held->country.data);
    free((void *)(uintptr_t)held->name.data);
    free((void *)(uintptr_t)held->greeting.data);
    free(held);
  }
  last = &first;
  return FDS_DONE;
}

static fds_result snapshot(fds_text *state) {
  *state = fds_format("%lld", (long long)seen);
  return FDS_DONE;
}

static fds_result restore(fds_text state) {
  seen = atoll(fds_format("%.*s", FDS_ARG(state)).data);
  return FDS_DONE;
}

FDS_STATEFUL_PLUGIN(.name = "numbers", .buffers_rows = true, .open = opened, .process = process, .flush = flush, .snapshot = snapshot,
                    .restore = restore)
