/* Values of columns. In: raw Arrow buffers from the host, or values one by one. Out: the other. Buffers are held against the number of
 * rows before anything is read of them; a row behind the last one ends the instance. */
#include <string.h>

#include "internal.h"

typedef struct {
  uint8_t is_error;
  union {
    fds_wire_column column;
    fds_text stream;
    struct {
      uint8_t which;
      uint32_t position;
    } error;
  } value;
} read_result;

FDS_IMPORT("fs-data-sink:plugin/batches@0.1.0", "[method]batch.read-column") void batch_read_column(int32_t batch, uint32_t position, read_result *);
FDS_IMPORT("fs-data-sink:plugin/batches@0.1.0", "[method]batch.read")
void batch_read(int32_t batch, int32_t has_columns, const uint32_t *columns, size_t count, read_result *);

fds_text fds_names(const fds_schema *schema);

fds_result fds_read(const fds_batch *batch, fds_text name, const fds_column **column) {
  int position = fds_position(batch->schema, name);
  if (position < 0)
    return fds_failed("the rows have no column '%.*s'; they have: %.*s", FDS_ARG(name), FDS_ARG(fds_names(batch->schema)));
  read_result result;
  batch_read_column(batch->handle, (uint32_t)position, &result);
  const fds_wire_column *from = &result.value.column;
  fds_column *to = fds_memory(sizeof *to);
  if (!result.is_error) {
    to->name = from->name, to->format = from->format, to->rows = from->length, to->data = from->data.data;
    to->kind = fds_kind(from->format, &to->width);
  }
  if (result.is_error || !to->kind)
    return fds_failed("column '%.*s' is of type %.*s, which this SDK does not read", FDS_ARG(name), FDS_ARG(batch->schema->types[position]));
  to->validity = from->validity.is ? (const uint8_t *)from->validity.value.data : NULL;
  to->offsets = from->offsets.is ? (const int32_t *)(const void *)from->offsets.value.data : NULL;
  uint64_t rows = to->rows, bits = (rows + 7) / 8;
  bool fits = from->data.length >= (to->kind == 'b' ? bits : to->kind == 't' ? 0 : rows * to->width);
  fits = fits && (!to->validity || from->validity.value.length >= bits);
  if (to->kind == 't') {
    fits = fits && to->offsets && from->offsets.value.length >= 4 * (rows + 1) && to->offsets[0] >= 0;
    for (uint32_t row = 0; fits && row < to->rows; row++) fits = to->offsets[row] <= to->offsets[row + 1];
    fits = fits && (size_t)to->offsets[rows] <= from->data.length;
  }
  if (!fits) return fds_failed("the host sent buffers of column '%.*s' that do not fit %u rows", FDS_ARG(name), to->rows);
  *column = to;
  return FDS_DONE;
}

fds_result fds_read_ipc(const fds_batch *batch, const uint32_t *positions, size_t count, fds_text *stream) {
  read_result result;
  batch_read(batch->handle, positions != NULL, positions, count, &result);
  if (result.is_error) return fds_failed("the rows have no column %u", result.value.error.position);
  *stream = result.value.stream;
  return FDS_DONE;
}

/* A value of a column that has one; where not, the plugin is at fault. */
static const uint8_t *value_at(const fds_column *column, uint32_t row, const char *kinds) {
  if (row >= column->rows) fds_die("column '%.*s' has %u rows, and row %u was read", FDS_ARG(column->name), column->rows, row);
  if (!strchr(kinds, column->kind))
    fds_die("column '%.*s' has the format %.*s, and is read as something else", FDS_ARG(column->name), FDS_ARG(column->format));
  return (const uint8_t *)column->data + (size_t)row * column->width;
}

bool fds_is_null(const fds_column *column, uint32_t row) {
  if (row >= column->rows) fds_die("column '%.*s' has %u rows, and row %u was read", FDS_ARG(column->name), column->rows, row);
  return column->validity && !(column->validity[row / 8] >> row % 8 & 1);
}

bool fds_bool(const fds_column *column, uint32_t row) {
  value_at(column, row, "b");
  return ((const uint8_t *)column->data)[row / 8] >> row % 8 & 1;
}

int64_t fds_int(const fds_column *column, uint32_t row) {
  const uint8_t *at = value_at(column, row, "iud");
  int64_t value = 0;
  uint32_t width = column->width < 8 ? column->width : 8;
  memcpy(&value, at, width);
  uint32_t free_bits = 64 - 8 * width;
  return column->kind == 'u' ? value : (int64_t)((uint64_t)value << free_bits) >> free_bits;
}

double fds_float(const fds_column *column, uint32_t row) {
  const uint8_t *at = value_at(column, row, "iuf");
  if (column->kind != 'f') {
    int64_t whole = fds_int(column, row);
    return column->kind == 'u' ? (double)(uint64_t)whole : (double)whole;
  }
  float small;
  double value;
  if (column->width == 4) return memcpy(&small, at, 4), small;
  return memcpy(&value, at, 8), value;
}

fds_text fds_string(const fds_column *column, uint32_t row) {
  const uint8_t *at = value_at(column, row, "tw");
  if (column->kind == 'w') return (fds_text){(const char *)at, column->width};
  int32_t begin = column->offsets[row];
  return (fds_text){(const char *)column->data + begin, (size_t)(column->offsets[row + 1] - begin)};
}

fds_values *fds_values_of(fds_output *output, const char *name) {
  for (size_t at = 0; at < output->column_count; at++)
    if (fds_text_is(output->columns[at].name, name)) return &output->columns[at];
  return NULL;
}

/* Room for one value more. Its place in the data. */
static uint8_t *next(fds_values *values, const char *kinds, size_t length, bool is_there) {
  if (!values) fds_die("values were put into a column that `open` did not add");
  if (!strchr(kinds, values->kind))
    fds_die("column '%.*s' has the format %.*s, and something else was put into it", FDS_ARG(values->name), FDS_ARG(values->format));
  size_t room = values->valid_room;
  values->valid = fds_grown(values->valid, &values->valid_room, values->count + 1, 1);
  values->data = fds_grown(values->data, &values->data_room, values->data_length + length, 1);
  values->valid[values->count] = is_there;
  if (!is_there) values->null_count++;
  uint8_t *at = values->data + values->data_length;
  values->data_length += length;
  if (values->kind == 't') {
    values->offsets = fds_grown(values->offsets, &room, values->count + 1, sizeof *values->offsets);
    if (values->data_length > INT32_MAX) fds_die("column '%.*s' has more than 2 GiB of text", FDS_ARG(values->name));
    values->offsets[values->count] = (int32_t)values->data_length;
  }
  values->count++;
  return at;
}

/* Bytes of a value as they are kept here: truths have one. */
static size_t width_of(const fds_values *values) { return !values || values->kind == 't' ? 0 : values->kind == 'b' ? 1 : values->width; }

void fds_put_null(fds_values *values) { next(values, "biuftwd", width_of(values), false); }

void fds_put_bool(fds_values *values, bool value) { *next(values, "b", 1, true) = value; }

void fds_put_int(fds_values *values, int64_t value) {
  if (values && values->kind == 'f') {
    fds_put_float(values, (double)value);
    return;
  }
  size_t width = width_of(values);
  uint8_t *at = next(values, "iud", width, true);
  if (width < 8) {
    int64_t top = values->kind == 'u' ? (1LL << 8 * width) : 1LL << (8 * width - 1);
    if (value >= top || value < (values->kind == 'u' ? 0 : -top))
      fds_die("%lld does not fit the format %.*s of column '%.*s'", value, FDS_ARG(values->format), FDS_ARG(values->name));
  }
  memset(at, value < 0 ? 0xff : 0, width);
  memcpy(at, &value, width < 8 ? width : 8);
}

void fds_put_float(fds_values *values, double value) {
  size_t width = width_of(values);
  uint8_t *at = next(values, "f", width, true);
  float small = (float)value;
  memcpy(at, width == 4 ? (const void *)&small : &value, width);
}

void fds_put_text(fds_values *values, fds_text value) {
  uint8_t *at = next(values, "t", value.length, true);
  if (value.length) memcpy(at, value.data, value.length);
}

fds_wire_column fds_values_packed(const fds_values *values, const uint8_t *dropped) {
  uint32_t count = 0, nulls = 0;
  size_t width = width_of(values), length = 0, bits = values->count / 8 + 1;
  uint8_t *validity = fds_memory(bits), *data = fds_memory(values->kind == 'b' ? bits : values->data_length);
  int32_t *offsets = values->kind == 't' ? fds_memory((values->count + 1) * sizeof *offsets) : NULL;
  for (uint32_t row = 0; row < values->count; row++) {
    if (dropped && dropped[row]) continue;
    size_t begin = width * row;
    if (values->kind == 't') begin = row ? (size_t)values->offsets[row - 1] : 0, width = (size_t)values->offsets[row] - begin;
    if (values->kind == 'b') {
      if (values->data[row]) data[count / 8] |= (uint8_t)(1 << count % 8);
    } else if (width) {
      memcpy(data + length, values->data + begin, width);
      length += width;
    }
    if (values->valid[row]) validity[count / 8] |= (uint8_t)(1 << count % 8);
    else nulls++;
    count++;
    if (offsets) offsets[count] = (int32_t)length;
  }
  if (values->kind == 'b') length = (count + 7) / 8;
  fds_wire_column column = {values->name, values->format, count, nulls, {0}, {0}, {(const char *)data, length}};
  if (nulls) column.validity = (fds_option_text){1, {(const char *)validity, (count + 7) / 8}};
  if (offsets) column.offsets = (fds_option_text){1, {(const char *)offsets, (count + 1) * sizeof *offsets}};
  return column;
}

void fds_keep(fds_output *output, uint32_t row, bool keep) {
  if (row >= output->rows) fds_die("the batch has %u rows, and row %u was spoken of", output->rows, row);
  output->dropped[row] = (uint8_t)((output->dropped[row] & 2) | !keep);
  output->drops = output->drops || !keep;
}

void fds_reject(fds_output *output, uint32_t row, const char *code, fds_text message) {
  if (row >= output->rows) fds_die("the batch has %u rows, and row %u was spoken of", output->rows, row);
  if (output->dropped[row] & 2) return;
  output->dropped[row] |= 2;
  output->drops = true;
  size_t at = 0;
  while (at < output->rejection_count) {
    const fds_rejection *told = &output->rejections[at].told;
    bool is_same = fds_text_is(told->code, code) && told->message.length == message.length;
    if (is_same && (!message.length || !memcmp(told->message.data, message.data, message.length))) break;
    at++;
  }
  if (at == output->rejection_count) {
    size_t room = at;
    if (at % 64 == 0) {
      /* Room for 64 reasons more. */
      void *more = fds_memory((at + 64) * sizeof *output->rejections);
      if (room) memcpy(more, output->rejections, room * sizeof *output->rejections);
      output->rejections = more;
    }
    output->rejections[at].told = (fds_rejection){fds_text_of(code), message, NULL, 0};
    output->rejections[at].room = 0;
    output->rejection_count++;
  }
  fds_rejection *told = &output->rejections[at].told;
  uint32_t *rows = fds_grown((void *)(uintptr_t)told->rows, &output->rejections[at].room, told->count + 1, sizeof *rows);
  rows[told->count++] = row;
  told->rows = rows;
}
