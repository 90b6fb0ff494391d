/* Adds a copy of each column whose type this SDK reads and writes, value by value. */
#include <string.h>

#include "fs_data_sink.h"

static fds_text name_of(fds_text name) { return fds_format("copy %.*s", FDS_ARG(name)); }

/* b truth, f number, t text, i whole number; 0 where only passing through is possible. */
static char kind_of(fds_text type) {
  static const char *const OTHERS[] = {"list", "struct", "map", "large", "fixed", "interval", "decimal(50"};
  for (size_t at = 0; at < sizeof OTHERS / sizeof *OTHERS; at++)
    if (type.length >= strlen(OTHERS[at]) && !memcmp(type.data, OTHERS[at], strlen(OTHERS[at]))) return 0;
  return *type.data == 'b' ? type.data[1] == 'o' ? 'b' : 't' : *type.data == 'f' ? 'f' : fds_text_is(type, "utf8") ? 't' : 'i';
}

static fds_result opened(const fds_config *config, const fds_schema *schema, fds_columns *added) {
  (void)config;
  for (size_t at = 0; at < fds_field_count(schema); at++) {
    fds_field field = fds_field_at(schema, at);
    if (kind_of(field.type)) FDS_TRY(fds_add(added, name_of(field.name).data, fds_format("%.*s", FDS_ARG(field.type)).data));
  }
  return FDS_DONE;
}

static fds_result process(const fds_batch *batch, fds_output *output) {
  for (size_t at = 0; at < fds_field_count(batch->schema); at++) {
    fds_field field = fds_field_at(batch->schema, at);
    char kind = kind_of(field.type);
    if (!kind) continue;
    const fds_column *column;
    FDS_TRY(fds_read(batch, field.name, &column));
    fds_values *to = fds_values_of(output, name_of(field.name).data);
    for (uint32_t row = 0; row < batch->rows; row++) {
      if (fds_is_null(column, row)) fds_put_null(to);
      else if (kind == 'b') fds_put_bool(to, fds_bool(column, row));
      else if (kind == 'f') fds_put_float(to, fds_float(column, row));
      else if (kind == 't') fds_put_text(to, fds_string(column, row));
      else fds_put_int(to, fds_int(column, row));
    }
  }
  return FDS_DONE;
}

FDS_PLUGIN(.name = "copy", .open = opened, .process = process)
