/* Adds `is_large` to each row, leaves out rows without an amount, and refuses negative amounts. */
#include "fs_data_sink.h"

/* What the plugin keeps from batch to batch. */
static fds_text column;
static double minimum;

/* Once, before any row: refuse here what cannot work. Says which columns are added. */
static fds_result opened(const fds_config *config, const fds_schema *schema, fds_columns *added) {
  FDS_TRY(fds_config_text(config, "column", &column));
  FDS_TRY(fds_config_number(config, "minimum", &minimum));
  FDS_TRY(fds_require(schema, column, "int64", "float64", NULL));
  return fds_add(added, "is_large", "bool");
}

/* Each batch of rows. Only the columns that are asked for are copied into the plugin. */
static fds_result process(const fds_batch *batch, fds_output *output) {
  const fds_column *amounts;
  FDS_TRY(fds_read(batch, column, &amounts));
  fds_values *is_large = fds_values_of(output, "is_large");
  fds_text too_small = fds_format("%.*s is below 0", FDS_ARG(column));
  for (uint32_t row = 0; row < batch->rows; row++) {
    if (fds_is_null(amounts, row)) {
      fds_keep(output, row, false);
      fds_put_null(is_large);
      continue;
    }
    double amount = fds_float(amounts, row);
    fds_put_bool(is_large, amount >= minimum);
    if (amount < 0) fds_reject(output, row, "negative", too_small);
  }
  return FDS_DONE;
}

FDS_PLUGIN(.name = "{{name}}", .version = "0.1.0", .description = "says which amounts are large", .roles = FDS_FILTER | FDS_ENRICH,
           .deterministic = true, .open = opened, .process = process)
