/* Arrow's types by their number, with the facts of each as Arrow's table for it has them. */
#ifndef FDS_TYPES_H
#define FDS_TYPES_H

#include "internal.h"

enum {
  FDS_INTEGER = 2,
  FDS_FLOATING,
  FDS_BINARY,
  FDS_UTF8,
  FDS_BOOLEAN,
  FDS_DECIMAL,
  FDS_DATE,
  FDS_TIME,
  FDS_TIMESTAMP,
  FDS_FIXED = 15,
  FDS_DURATION = 18,
};

typedef struct {
  const char *name;
  struct {
    uint8_t bytes;
    int32_t otherwise;
  } facts[3];
} fds_type;

/* NULL where there is no such type. */
const fds_type *fds_type_of(uint8_t kind);
/* A type in words; lives as fds_memory does. */
fds_text fds_type_words(const fds_node *node);

#endif
