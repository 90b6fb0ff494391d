/* The way from the component's exports to the functions of the plugin. In: what the host calls with. Out: the answers, as structs whose
 * layout is that of the WIT's records. */
#include <stdarg.h>
#include <string.h>

#include "internal.h"

#define TRANSFORM(name) FDS_EXPORT("fs-data-sink:plugin/transform@0.1.0#" name)
#define AFTER(name) FDS_EXPORT("cabi_post_fs-data-sink:plugin/transform@0.1.0#" name)

/* The cases of `error`, `selection` and `payload` that are used here, by their numbers. */
enum { INVALID_CONFIG, UNSUPPORTED_SCHEMA, RETRYABLE, FAILED };
enum { KEEP_ALL, KEEP_NONE, KEEP_BITMAP };
enum { UNCHANGED, EXTEND, REPLACE, EXTEND_COLUMNS, REPLACE_COLUMNS };

typedef struct {
  uint8_t which;
  fds_text words;
  struct {
    uint8_t is;
    uint32_t after_ms;
  } pause;
} wire_error;

typedef struct {
  uint8_t which;
  fds_list content;
} wire_case;

typedef struct {
  uint8_t is_error;
  union {
    struct {
      fds_option_text schema;
      fds_list attributes;
    } opened;
    struct {
      wire_case keep, payload;
      fds_list rejected;
    } output;
    wire_case payload;
    fds_text snapshot;
    wire_error error;
  } value;
} wire_result;

fds_text fds_words(const char *format, va_list arguments);
FDS_IMPORT("fs-data-sink:plugin/batches@0.1.0", "[method]batch.num-rows") uint32_t batch_rows(int32_t batch);
FDS_IMPORT("fs-data-sink:plugin/batches@0.1.0", "[resource-drop]batch") void batch_drop(int32_t batch);

/* What is kept between calls. */
static fds_schema input;
static fds_columns added;
static wire_error error;

#define FAIL(kind, pause)                                   \
  va_list arguments;                                        \
  va_start(arguments, format);                              \
  error = (wire_error){kind, fds_words(format, arguments), pause}; \
  va_end(arguments);                                        \
  return FDS_ERROR

fds_result fds_invalid_config(const char *format, ...) { FAIL(INVALID_CONFIG, {0}); }
fds_result fds_unsupported_schema(const char *format, ...) { FAIL(UNSUPPORTED_SCHEMA, {0}); }
fds_result fds_failed(const char *format, ...) { FAIL(FAILED, {0}); }
fds_result fds_retry(uint32_t after_ms, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  error = (wire_error){RETRYABLE, fds_words(format, arguments), {1, after_ms}};
  va_end(arguments);
  return FDS_ERROR;
}

/* An answer, as an error where that is what it is. */
static wire_result *answer(fds_result result, wire_result value) {
  wire_result *answered = fds_memory(sizeof *answered);
  *answered = value;
  if (result != FDS_DONE) {
    if (!error.words.data) error = (wire_error){FAILED, fds_text_of("the plugin failed without words"), {0, 0}};
    *answered = (wire_result){1, {.error = error}};
  }
  error = (wire_error){0};
  return answered;
}

typedef struct {
  fds_text name, version, description;
  uint8_t roles;
  fds_option_text config_schema;
  uint8_t buffers_rows, deterministic;
  fds_list attributes;
} wire_descriptor;

TRANSFORM("describe") wire_descriptor *fds_export_describe(void) {
  static const fds_text sdk[] = {{"sdk", 3}, {"c/0.1.0", 7}};
  const fds_plugin *plugin = &fds_this_plugin;
  wire_descriptor *answered = fds_memory(sizeof *answered);
  *answered = (wire_descriptor){
      .name = fds_text_of(plugin->name),
      .version = fds_text_of(plugin->version ? plugin->version : "0.1.0"),
      .description = fds_text_of(plugin->description),
      .roles = (uint8_t)(plugin->roles & (FDS_DECODE | FDS_FILTER | FDS_ENRICH)),
      .config_schema = {fds_config_schema[0] != 0, fds_text_of(fds_config_schema)},
      .buffers_rows = plugin->buffers_rows,
      .deterministic = plugin->deterministic,
      .attributes = {sdk, 1},
  };
  return answered;
}
AFTER("describe") void fds_after_describe(void *answered) { fds_release(answered); }

TRANSFORM("open")
wire_result *fds_export_open(const char *config, size_t config_length, const char *schema, size_t schema_length, const void *attributes,
                             size_t attribute_count) {
  (void)attributes, (void)attribute_count;
  fds_text text = fds_copy_forever((fds_text){config, config_length});
  fds_text stream = fds_copy_forever((fds_text){schema, schema_length});
  fds_result result = fds_schema_read(stream, &input);
  if (result == FDS_DONE && fds_this_plugin.open)
    result = fds_this_plugin.open((const fds_config *)memcpy(fds_forever(sizeof text), &text, sizeof text), &input, &added);
  bool declares = result == FDS_DONE && (added.count || added.replaces);
  fds_option_text output = {declares, {0}};
  if (declares) output.value = fds_schema_write(&input, &added);
  return answer(result, (wire_result){0, {.opened = {output, {0}}}});
}
AFTER("open") void fds_after_open(void *answered) { fds_release(answered); }

/* An output to fill. */
static fds_output begun(uint32_t rows, bool is_batch) {
  fds_output output = {.rows = rows, .is_batch = is_batch, .dropped = fds_memory(rows), .column_count = added.count};
  output.columns = fds_memory(added.count * sizeof *output.columns);
  for (size_t at = 0; at < added.count; at++) {
    fds_values *values = &output.columns[at];
    values->name = added.items[at].node.name;
    values->format = added.items[at].format;
    values->kind = fds_kind(values->format, &values->width);
  }
  return output;
}

/* The columns as the payload has them; an error where some lack values. */
static fds_result payload_of(const fds_output *output, wire_case *payload) {
  uint32_t rows = added.replaces || !output->is_batch ? (added.count ? output->columns[0].count : 0) : output->rows;
  if (!added.count || (added.replaces && rows == 0)) {
    *payload = added.replaces ? (wire_case){REPLACE_COLUMNS, {0}} : (wire_case){UNCHANGED, {0}};
    return FDS_DONE;
  }
  fds_wire_column *columns = fds_memory(added.count * sizeof *columns);
  for (size_t at = 0; at < added.count; at++) {
    const fds_values *values = &output->columns[at];
    if (values->count != rows)
      return fds_failed("column '%.*s' has %u values for %u rows", FDS_ARG(values->name), values->count, rows);
    columns[at] = fds_values_packed(values, output->drops && !added.replaces ? output->dropped : NULL);
  }
  fds_list *batch = fds_memory(sizeof *batch);
  *batch = (fds_list){columns, added.count};
  *payload = added.replaces ? (wire_case){REPLACE_COLUMNS, {batch, 1}} : (wire_case){EXTEND_COLUMNS, *batch};
  return FDS_DONE;
}

/* Which rows were kept. Refused ones count as not kept anyway. */
static wire_case selection_of(const fds_output *output) {
  size_t length = (output->rows + 7) / 8;
  uint8_t *bits = fds_memory(length);
  uint32_t kept = 0;
  for (uint32_t row = 0; row < output->rows; row++)
    if (!(output->dropped[row] & 1)) bits[row / 8] |= (uint8_t)(1 << row % 8), kept++;
  if (kept == output->rows) return (wire_case){KEEP_ALL, {0}};
  return kept ? (wire_case){KEEP_BITMAP, {bits, length}} : (wire_case){KEEP_NONE, {0}};
}

TRANSFORM("process")
wire_result *fds_export_process(int32_t handle, uint64_t sequence, uint32_t attempt, const void *attributes, size_t attribute_count) {
  (void)sequence, (void)attempt, (void)attributes, (void)attribute_count;
  fds_batch batch = {batch_rows(handle), &input, handle};
  fds_output output = begun(batch.rows, true);
  fds_result result = fds_this_plugin.process ? fds_this_plugin.process(&batch, &output) : FDS_DONE;
  batch_drop(handle);
  wire_result value = {0};
  if (result == FDS_DONE) result = payload_of(&output, &value.value.output.payload);
  if (result == FDS_DONE) {
    fds_rejection *rejected = fds_memory(output.rejection_count * sizeof *rejected);
    for (size_t at = 0; at < output.rejection_count; at++) rejected[at] = output.rejections[at].told;
    value.value.output.keep = selection_of(&output);
    value.value.output.rejected = (fds_list){rejected, output.rejection_count};
  }
  return answer(result, value);
}
AFTER("process") void fds_after_process(void *answered) { fds_release(answered); }

TRANSFORM("flush") wire_result *fds_export_flush(uint32_t reason) {
  wire_result value = {0, {.payload = {UNCHANGED, {0}}}};
  if (!fds_this_plugin.flush) return answer(FDS_DONE, value);
  fds_output output = begun(0, false);
  fds_result result = fds_this_plugin.flush((fds_flush_reason)reason, &output);
  bool has_rows = false;
  for (size_t at = 0; at < added.count; at++) has_rows = has_rows || output.columns[at].count;
  if (result == FDS_DONE && has_rows)
    result = added.replaces ? payload_of(&output, &value.value.payload) : fds_failed("rows can be held only after fds_replace in `open`");
  return answer(result, value);
}
AFTER("flush") void fds_after_flush(void *answered) { fds_release(answered); }

TRANSFORM("close") void fds_export_close(void) {
  if (fds_this_plugin.close) fds_this_plugin.close();
}

void *fds_snapshot_answer(void) {
  fds_text state = {0};
  fds_result result = fds_this_plugin.snapshot ? fds_this_plugin.snapshot(&state) : fds_failed("the plugin has no `snapshot`");
  return answer(result, (wire_result){0, {.snapshot = state}});
}

void *fds_restore_answer(const char *data, size_t length) {
  fds_result result = fds_this_plugin.restore ? fds_this_plugin.restore((fds_text){data, length}) : fds_failed("the plugin has no `restore`");
  return answer(result, (wire_result){0});
}

fds_result fds_add(fds_columns *columns, const char *name, const char *type) {
  fds_node node = {.name = fds_copy_forever(fds_text_of(name)), .nullable = true};
  fds_text format;
  if (!fds_type_parse(type, &node, &format)) return fds_unsupported_schema("column '%s': '%s' is no type that this SDK writes", name, type);
  void *items = fds_forever((columns->count + 1) * sizeof *columns->items);
  if (columns->count) memcpy(items, columns->items, columns->count * sizeof *columns->items);
  columns->items = items;
  columns->items[columns->count].node = node;
  columns->items[columns->count].format = format;
  columns->count++;
  return FDS_DONE;
}

void fds_replace(fds_columns *columns) { columns->replaces = true; }
