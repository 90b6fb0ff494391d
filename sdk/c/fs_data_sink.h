/* Write fs-data-sink plugins in C: a few functions, columns as values. No WIT and no Arrow in sight.
 *
 *     #include "fs_data_sink.h"
 *
 *     static fds_text column;
 *
 *     static fds_result opened(const fds_config *config, const fds_schema *schema, fds_columns *added) {
 *       FDS_TRY(fds_config_text(config, "column", &column));
 *       return fds_require(schema, column, NULL);
 *     }
 *
 *     static fds_result process(const fds_batch *batch, fds_output *output) {
 *       const fds_column *values;
 *       FDS_TRY(fds_read(batch, column, &values));
 *       for (uint32_t row = 0; row < batch->rows; row++) fds_keep(output, row, !fds_is_null(values, row));
 *       return FDS_DONE;
 *     }
 *
 *     FDS_PLUGIN(.name = "drop-nulls", .version = "0.1.0", .open = opened, .process = process)
 *
 * The host makes an instance for each lane of a pipeline, so global variables are the plugin's own; an instance sees one batch at a time,
 * in the order of its lane. There are no files, no network and no environment; what is printed, and fds_log, is in the host's log.
 *
 * Memory: what this SDK answers (columns, texts, values of a bucket) lives until the function of the plugin that asked for it returns,
 * what `open` was given as long as the instance. What has to live longer is copied with malloc. Without memory left the instance ends.
 */
#ifndef FS_DATA_SINK_H
#define FS_DATA_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A text in UTF-8, or bytes; not ended by 0. Print it with "%.*s" and FDS_ARG. */
typedef struct {
  const char *data;
  size_t length;
} fds_text;
#define FDS_ARG(text) (int)(text).length, (text).data

fds_text fds_text_of(const char *words);
bool fds_text_is(fds_text text, const char *words);
/* As printf; lives until the plugin's function returns. */
fds_text fds_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Memory that is given back by itself when the plugin's function returns. */
void *fds_memory(size_t size);

/* What a function of a plugin answers: FDS_DONE, or what one of these does. All are written as printf. */
typedef enum { FDS_DONE, FDS_ERROR } fds_result;
/* The configuration is wrong: the pipeline does not start. Name the key. Only from `open`. */
fds_result fds_invalid_config(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The rows cannot be served: the pipeline does not start. Name the column. Only from `open`. */
fds_result fds_unsupported_schema(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Not now: the host brings the same batch again, after so many milliseconds at least. */
fds_result fds_retry(uint32_t after_ms, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* This batch can never be processed. */
fds_result fds_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Hands an error on. */
#define FDS_TRY(call) do { if ((call) != FDS_DONE) return FDS_ERROR; } while (0)

/* The configuration: what stands under `config:` in the pipeline. An error where the key is missing or of another type. */
typedef struct fds_config fds_config;
bool fds_config_has(const fds_config *config, const char *key);
fds_result fds_config_text(const fds_config *config, const char *key, fds_text *value);
fds_result fds_config_number(const fds_config *config, const char *key, double *value);
fds_result fds_config_bool(const fds_config *config, const char *key, bool *value);
/* Any value as it stands, in JSON. */
fds_result fds_config_json(const fds_config *config, const char *key, fds_text *value);

/* The columns of the rows. Types in words: bool, int8 to uint64, float32, float64, utf8, binary, date32, date64, timestamp(us),
 * timestamp(us, UTC), time(us), duration(s), decimal(10, 2); others, such as list and struct, can only be passed through. */
typedef struct {
  fds_text name, type;
} fds_field;
typedef struct fds_schema fds_schema;
size_t fds_field_count(const fds_schema *schema);
fds_field fds_field_at(const fds_schema *schema, size_t at);
/* The number of a column; -1 where there is none. */
int fds_position(const fds_schema *schema, fds_text name);
/* An error where the column is not there, or of none of these types; NULL ends them, and alone means any. */
fds_result fds_require(const fds_schema *schema, fds_text name, ...) __attribute__((sentinel));

/* The columns that come out besides those that came in; one of the same name takes the place of that. */
typedef struct fds_columns fds_columns;
fds_result fds_add(fds_columns *added, const char *name, const char *type);
/* From `open`: nothing else comes out; the rows that the plugin writes take the place of the batch. Then dead letters cannot show the
 * record behind a row any more. */
void fds_replace(fds_columns *added);

/* Rows that the host holds; only the columns that are asked for are copied. */
typedef struct {
  uint32_t rows;
  const fds_schema *schema;
  int32_t handle;
} fds_batch;

/* A column, as Arrow has it: little-endian values in `data`; for utf8 and binary `rows + 1` numbers in `offsets`; a bit for each row
 * in `validity`, or NULL where all have a value. */
typedef struct {
  fds_text name, format;
  uint32_t rows;
  const uint8_t *validity;
  const int32_t *offsets;
  const void *data;
  uint32_t width;
  char kind;
} fds_column;
fds_result fds_read(const fds_batch *batch, fds_text name, const fds_column **column);
bool fds_is_null(const fds_column *column, uint32_t row);
/* Of bool columns. */
bool fds_bool(const fds_column *column, uint32_t row);
/* Of whole numbers, and of dates, times and timestamps in the unit of their type; of decimals up to 18 digits without the point. */
int64_t fds_int(const fds_column *column, uint32_t row);
/* Of all numbers. */
double fds_float(const fds_column *column, uint32_t row);
/* Of utf8, binary and fixed-size binary. */
fds_text fds_string(const fds_column *column, uint32_t row);
/* Columns of any type, as an Arrow IPC stream, for plugins that bring an Arrow library. */
fds_result fds_read_ipc(const fds_batch *batch, const uint32_t *positions, size_t count, fds_text *stream);

/* What becomes of the rows of a batch. Untouched, all live on as they are. */
typedef struct fds_output fds_output;
/* Rows that are not kept are left out and counted as filtered. */
void fds_keep(fds_output *output, uint32_t row, bool keep);
/* Refuses a row: it becomes a dead letter. The code is of a-z, 0-9, -, _ and . */
void fds_reject(fds_output *output, uint32_t row, const char *code, fds_text message);
/* The values of a column that `open` added: put one for each row of the batch, in their order; where `open` said fds_replace, one for
 * each row that comes out. NULL where `open` added no such column. */
typedef struct fds_values fds_values;
fds_values *fds_values_of(fds_output *output, const char *name);
void fds_put_null(fds_values *values);
void fds_put_bool(fds_values *values, bool value);
void fds_put_int(fds_values *values, int64_t value);
void fds_put_float(fds_values *values, double value);
void fds_put_text(fds_values *values, fds_text value);

/* Lines in the host's log. */
typedef enum { FDS_DEBUG = 1, FDS_INFO, FDS_WARN, FDS_ERROR_LINE } fds_level;
void fds_log(fds_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Counters and gauges among the host's metrics. */
void fds_count(const char *name, uint64_t amount);
void fds_gauge(const char *name, double value);
/* A value that the pipeline grants under `grants.config`; false where there is none. */
bool fds_granted(const char *key, fds_text *value);

/* Values of keys in a Redis or a file, as the pipeline grants them under `grants.keyvalue`. Open a bucket in `open`: what is not granted stops
 * the pipeline there. Ask for many keys at once: a question for each row takes a batch's time many times over. */
typedef struct {
  fds_text name;
  uint32_t handle;
} fds_bucket;
typedef struct {
  bool is;
  fds_text value;
} fds_found;
fds_result fds_bucket_open(fds_text name, fds_bucket *bucket);
fds_result fds_bucket_get(const fds_bucket *bucket, fds_text key, fds_found *found);
/* `found` has one for each key, in their order. */
fds_result fds_bucket_get_many(const fds_bucket *bucket, const fds_text *keys, size_t count, fds_found **found);
fds_result fds_bucket_set(const fds_bucket *bucket, fds_text key, fds_text value);
fds_result fds_bucket_delete(const fds_bucket *bucket, fds_text key);

/* A request to a server that the pipeline grants under `grants.http`. One at a time, with bodies in memory; redirects are not followed. An
 * error of fds_http_send is fds_invalid_config where the host refuses, and fds_retry where the server does not answer. */
typedef struct {
  fds_text name, value;
} fds_header;
typedef struct {
  const char *method;  /* NULL is GET */
  fds_text url;
  const fds_header *headers;
  size_t header_count;
  fds_text body;
} fds_request;
typedef struct {
  unsigned status;
  const fds_header *headers;
  size_t header_count;
  fds_text body;
} fds_response;
fds_result fds_http_send(const fds_request *request, fds_response *response);

typedef enum { FDS_CHECKPOINT, FDS_TIMER, FDS_END_OF_INPUT } fds_flush_reason;
enum { FDS_DECODE = 1, FDS_FILTER = 2, FDS_ENRICH = 4 };

/* What a plugin is. What it has not, stays away. */
typedef struct {
  const char *name, *version, *description;
  unsigned roles;      /* FDS_DECODE, FDS_FILTER, FDS_ENRICH; a hint for people */
  bool deterministic;  /* same input and config, same output; then clocks stand at 1970, and random numbers are the same */
  bool buffers_rows;   /* keeps rows from batch to batch; `flush` gives them out, and `open` says fds_replace */
  /* Once, before any row: refuse here what cannot work. */
  fds_result (*open)(const fds_config *config, const fds_schema *schema, fds_columns *added);
  /* Each batch of rows. */
  fds_result (*process)(const fds_batch *batch, fds_output *output);
  /* Before a commit, and at the end: gives out what was held back. */
  fds_result (*flush)(fds_flush_reason reason, fds_output *output);
  void (*close)(void);
  /* The state that is recorded with the offsets, and to go on from there; for FDS_STATEFUL_PLUGIN. */
  fds_result (*snapshot)(fds_text *state);
  fds_result (*restore)(fds_text state);
} fds_plugin;

extern const fds_plugin fds_this_plugin;
void *fds_snapshot_answer(void);
void *fds_restore_answer(const char *data, size_t length);
void fds_release(void *answer);

#define FDS_PLUGIN(...) const fds_plugin fds_this_plugin = {__VA_ARGS__};
#define FDS_EXPORT(name) __attribute__((export_name(name)))
#define FDS_STATEFUL_PLUGIN(...)                                                                                      \
  FDS_PLUGIN(__VA_ARGS__)                                                                                             \
  FDS_EXPORT("fs-data-sink:plugin/state@0.1.0#snapshot") void *fds_export_snapshot(void) { return fds_snapshot_answer(); } \
  FDS_EXPORT("fs-data-sink:plugin/state@0.1.0#restore") void *fds_export_restore(const char *data, size_t length) {   \
    return fds_restore_answer(data, length);                                                                          \
  }                                                                                                                   \
  FDS_EXPORT("cabi_post_fs-data-sink:plugin/state@0.1.0#snapshot") void fds_after_snapshot(void *answer) { fds_release(answer); } \
  FDS_EXPORT("cabi_post_fs-data-sink:plugin/state@0.1.0#restore") void fds_after_restore(void *answer) { fds_release(answer); }

#endif
