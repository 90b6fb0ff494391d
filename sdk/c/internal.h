/* What the files of this SDK share: the shapes of the WIT's records, whose layout in memory is that of the same struct in C, and what is
 * kept between calls. */
#ifndef FDS_INTERNAL_H
#define FDS_INTERNAL_H

#include "fs_data_sink.h"

#define FDS_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

typedef struct {
  uint8_t is;
  fds_text value;
} fds_option_text;

typedef struct {
  const void *items;
  size_t count;
} fds_list;

/* `column` of the WIT. */
typedef struct {
  fds_text name, format;
  uint32_t length, null_count;
  fds_option_text validity, offsets;
  fds_text data;
} fds_wire_column;

/* A field of a schema. `facts` are the numbers of its type, in the order of Arrow's table for it. */
typedef struct fds_node {
  fds_text name, zone;
  bool nullable;
  uint8_t kind;
  int32_t facts[3];
  struct fds_node *children;
  size_t child_count;
  fds_text (*metadata)[2];
  size_t metadata_count;
} fds_node;

struct fds_schema {
  fds_node *nodes;
  fds_text *types;
  size_t count;
};

/* Columns that were added; `format` in the notation of Arrow's C data interface. */
struct fds_columns {
  bool replaces;
  size_t count;
  struct {
    fds_node node;
    fds_text format;
  } *items;
};

struct fds_values {
  fds_text name, format;
  char kind;       /* see fds_kind */
  uint32_t width;  /* of a value, in bytes */
  uint32_t count, null_count;
  size_t data_room, data_length, valid_room;
  uint8_t *data;
  uint8_t *valid;    /* a byte for each value */
  int32_t *offsets;  /* for texts: where each value ends */
};

typedef struct {
  fds_text code, message;
  const uint32_t *rows;
  size_t count;
} fds_rejection;

struct fds_output {
  uint32_t rows;
  bool is_batch;
  uint8_t *dropped;  /* a byte for each row: 1 not kept, 2 refused */
  bool drops;
  struct {
    fds_rejection told;
    size_t room;
  } *rejections;
  size_t rejection_count;
  size_t column_count;
  fds_values *columns;
};

/* Memory for the whole life of the instance. */
void *fds_forever(size_t size);
fds_text fds_copy_forever(fds_text text);
/* More memory of the call for a list that grows. */
void *fds_grown(void *old, size_t *room, size_t needed, size_t size);
/* Ends the instance with words: a fault of the plugin that must not become a wrong value. */
_Noreturn void fds_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* b truth, i whole number, u the same without sign, f number, t text, w bytes of one width, d decimal; 0 where there is no such format. */
char fds_kind(fds_text format, uint32_t *width);
fds_result fds_schema_read(fds_text stream, fds_schema *schema);
fds_text fds_schema_write(const fds_schema *input, const fds_columns *added);
bool fds_type_parse(const char *words, fds_node *node, fds_text *format);
/* The values as a column of the WIT; of the rows that live on where `dropped` is given. */
fds_wire_column fds_values_packed(const fds_values *values, const uint8_t *dropped);
extern const char fds_config_schema[];

#endif
