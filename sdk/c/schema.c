/* The schema of rows: Arrow's schema message, read and written without an Arrow library. In: an IPC stream that begins with a schema. Out:
 * fields, and the stream of a schema that has more of them. A message is a FlatBuffer; what is here of that format is what a schema needs.
 * It promises not to read behind the message, and not to go deeper than DEPTH_MAX. */
#include <stdarg.h>
#include <string.h>

#include "internal.h"
#include "types.h"

/* The host sends 8 levels and 10,000 fields at most. */
#define DEPTH_MAX 16
#define FIELDS_MAX 20000

/* A table of a FlatBuffer. All places are counted from the begin of the message; 0 means that there is nothing, since no table is there. */
typedef struct {
  const uint8_t *data;
  uint32_t length, at, entries, size;
} table;

/* An unsigned number of some bytes; 0 where it would lie behind the end. */
static uint32_t number_at(const table *in, uint32_t at, uint32_t bytes) {
  uint32_t value = 0;
  if (at > in->length || bytes > in->length - at) return 0;
  memcpy(&value, in->data + at, bytes);
  return value;
}

static table table_at(const table *in, uint32_t at) {
  table found = {in->data, in->length, at, 0, 0};
  found.entries = at - number_at(in, at, 4);
  found.size = number_at(&found, found.entries, 2);
  return found;
}

/* Where a field is. */
static uint32_t place(const table *in, uint32_t field) {
  uint32_t entry = 4 + 2 * field;
  if (entry + 2 > in->size) return 0;
  uint32_t offset = number_at(in, in->entries + entry, 2);
  return offset ? in->at + offset : 0;
}

static int32_t scalar(const table *in, uint32_t field, uint32_t bytes, int32_t otherwise) {
  uint32_t at = place(in, field);
  if (!at) return otherwise;
  uint32_t value = number_at(in, at, bytes);
  return bytes == 2 ? (int16_t)value : (int32_t)value;
}

/* What a field points to. */
static uint32_t target(const table *in, uint32_t field) {
  uint32_t at = place(in, field);
  return at ? at + number_at(in, at, 4) : 0;
}

static fds_text text(const table *in, uint32_t field) {
  uint32_t at = target(in, field);
  uint32_t length = at ? number_at(in, at, 4) : 0;
  if (!at || at > in->length - 4 || length > in->length - 4 - at) return (fds_text){"", 0};
  return (fds_text){(const char *)in->data + at + 4, length};
}

/* How many tables a field has in its list, and one of them. */
static uint32_t list_count(const table *in, uint32_t field) {
  uint32_t at = target(in, field), count = at ? number_at(in, at, 4) : 0;
  return count <= FIELDS_MAX && count <= in->length / 4 ? count : 0;
}
static table list_item(const table *in, uint32_t field, uint32_t item) {
  uint32_t at = target(in, field) + 4 + 4 * item;
  return table_at(in, at + number_at(in, at, 4));
}

static fds_result node_read(const table *in, fds_node *node, int depth) {
  *node = (fds_node){.name = text(in, 0), .nullable = scalar(in, 1, 1, 0), .kind = (uint8_t)scalar(in, 2, 1, 0)};
  const fds_type *type = fds_type_of(node->kind);
  if (!type || depth > DEPTH_MAX)
    return fds_unsupported_schema("column '%.*s' has a type that this SDK does not know (number %u)", FDS_ARG(node->name), node->kind);
  uint32_t own_at = target(in, 3);
  table own = own_at ? table_at(in, own_at) : (table){in->data, in->length, 0, 0, 0};
  for (uint32_t at = 0; at < 3 && type->facts[at].bytes; at++)
    node->facts[at] = scalar(&own, at, type->facts[at].bytes, type->facts[at].otherwise);
  if (node->kind == FDS_TIMESTAMP) node->zone = text(&own, 1);
  node->child_count = list_count(in, 5);
  node->children = fds_forever(node->child_count * sizeof *node->children);
  for (uint32_t at = 0; at < node->child_count; at++) {
    table child = list_item(in, 5, at);
    FDS_TRY(node_read(&child, &node->children[at], depth + 1));
  }
  node->metadata_count = list_count(in, 6);
  node->metadata = fds_forever(node->metadata_count * sizeof *node->metadata);
  for (uint32_t at = 0; at < node->metadata_count; at++) {
    table pair = list_item(in, 6, at);
    node->metadata[at][0] = text(&pair, 0);
    node->metadata[at][1] = text(&pair, 1);
  }
  return FDS_DONE;
}

fds_result fds_schema_read(fds_text stream, fds_schema *schema) {
  uint32_t begin = stream.length >= 8 && !memcmp(stream.data, "\xff\xff\xff\xff", 4) ? 8 : 4;
  if (stream.length < begin + 8) return fds_unsupported_schema("the host sent a schema of %zu bytes", stream.length);
  table whole = {(const uint8_t *)stream.data + begin, (uint32_t)stream.length - begin, 0, 0, 0};
  table message = table_at(&whole, number_at(&whole, 0, 4));
  table header = table_at(&message, target(&message, 2));
  schema->count = list_count(&header, 1);
  schema->nodes = fds_forever(schema->count * sizeof *schema->nodes);
  schema->types = fds_forever(schema->count * sizeof *schema->types);
  for (uint32_t at = 0; at < schema->count; at++) {
    table field = list_item(&header, 1, at);
    FDS_TRY(node_read(&field, &schema->nodes[at], 0));
    schema->types[at] = fds_copy_forever(fds_type_words(&schema->nodes[at]));
  }
  return FDS_DONE;
}

/* Bytes that are written from their front: what a table points to comes behind it, as offsets have to point forwards. */
typedef struct {
  uint8_t *data;
  size_t length, room;
} bytes;

static uint32_t reserve(bytes *to, size_t length, size_t align) {
  size_t at = (to->length + align - 1) / align * align;
  to->data = fds_grown(to->data, &to->room, at + length, 1);
  to->length = at + length;
  return (uint32_t)at;
}
static void put(bytes *to, uint32_t at, uint32_t value, uint32_t size) { memcpy(to->data + at, &value, size); }
static void point(bytes *to, uint32_t at) { put(to, at, (uint32_t)((to->length + 7) / 8 * 8) - at, 4); }

/* A table with room of 8 bytes for each of its fields; which begin at multiples of 8, so that any is aligned. Its place. */
static uint32_t table_put(bytes *to, uint32_t slots) {
  uint32_t size = 4 + 2 * slots, entries = reserve(to, size, 8), at = reserve(to, 8 + 8 * slots, 8);
  put(to, entries, size, 2);
  put(to, entries + 2, 8 + 8 * slots, 2);
  put(to, at, at - entries, 4);
  return at;
}
/* The place of a field of it, which is there from now on. */
static uint32_t slot(bytes *to, uint32_t at, uint32_t field) {
  uint32_t entries, offset = 8 + 8 * field;
  memcpy(&entries, to->data + at, 4);
  put(to, at - entries + 4 + 2 * field, offset, 2);
  return at + offset;
}
/* The place of the table that was begun last is where `point` led; its list of entries is in front of it. */
static void table_point(bytes *to, uint32_t from, uint32_t at) { put(to, from, at - from, 4); }

static void text_put(bytes *to, uint32_t from, fds_text value) {
  point(to, from);
  uint32_t at = reserve(to, 4 + value.length + 1, 8);
  put(to, at, (uint32_t)value.length, 4);
  if (value.length) memcpy(to->data + at + 4, value.data, value.length);
}
static uint32_t list_put(bytes *to, uint32_t from, size_t count) {
  point(to, from);
  uint32_t at = reserve(to, 4 + 4 * count, 8);
  put(to, at, (uint32_t)count, 4);
  return at + 4;
}

static void node_put(bytes *to, uint32_t from, const fds_node *node) {
  const fds_type *type = fds_type_of(node->kind);
  uint32_t at = table_put(to, 7);
  table_point(to, from, at);
  text_put(to, slot(to, at, 0), node->name);
  put(to, slot(to, at, 1), node->nullable, 1);
  put(to, slot(to, at, 2), node->kind, 1);
  uint32_t field = slot(to, at, 3), own = table_put(to, 3);
  table_point(to, field, own);
  for (uint32_t fact = 0; fact < 3 && type->facts[fact].bytes; fact++)
    put(to, slot(to, own, fact), (uint32_t)node->facts[fact], type->facts[fact].bytes);
  if (node->kind == FDS_TIMESTAMP && node->zone.length) text_put(to, slot(to, own, 1), node->zone);
  uint32_t children = list_put(to, slot(to, at, 5), node->child_count);
  for (uint32_t child = 0; child < node->child_count; child++) node_put(to, children + 4 * child, &node->children[child]);
  if (!node->metadata_count) return;
  uint32_t pairs = list_put(to, slot(to, at, 6), node->metadata_count);
  for (uint32_t pair = 0; pair < node->metadata_count; pair++) {
    uint32_t both = table_put(to, 2);
    table_point(to, pairs + 4 * pair, both);
    text_put(to, slot(to, both, 0), node->metadata[pair][0]);
    text_put(to, slot(to, both, 1), node->metadata[pair][1]);
  }
}

/* Whether a column was added under a name; which one. */
static const fds_node *added_as(const fds_columns *added, fds_text name) {
  for (size_t at = 0; at < added->count; at++) {
    const fds_node *node = &added->items[at].node;
    if (node->name.length == name.length && !memcmp(node->name.data, name.data, name.length)) return node;
  }
  return NULL;
}

fds_text fds_schema_write(const fds_schema *input, const fds_columns *added) {
  size_t count = 0;
  const fds_node **fields = fds_memory((input->count + added->count) * sizeof *fields);
  for (size_t at = 0; at < input->count && !added->replaces; at++) {
    const fds_node *instead = added_as(added, input->nodes[at].name);
    fields[count++] = instead ? instead : &input->nodes[at];
  }
  for (size_t at = 0; at < added->count; at++)
    if (added->replaces || fds_position(input, added->items[at].node.name) < 0) fields[count++] = &added->items[at].node;
  bytes to = {0};
  uint32_t begin = reserve(&to, 16, 8);
  put(&to, begin, 0xffffffff, 4);
  bytes message = {0};
  uint32_t root = reserve(&message, 8, 8), at = table_put(&message, 4);
  table_point(&message, root, at);
  put(&message, slot(&message, at, 0), 4, 2);
  put(&message, slot(&message, at, 1), 1, 1);
  uint32_t header = slot(&message, at, 2), schema = table_put(&message, 2);
  table_point(&message, header, schema);
  put(&message, slot(&message, schema, 0), 0, 2);
  uint32_t list = list_put(&message, slot(&message, schema, 1), count);
  for (size_t field = 0; field < count; field++) node_put(&message, list + 4 * (uint32_t)field, fields[field]);
  slot(&message, at, 3);
  reserve(&message, 0, 8);
  put(&to, 4, (uint32_t)message.length, 4);
  to.length = 8;
  uint32_t body = reserve(&to, message.length, 8), end = reserve(&to, 8, 8);
  memcpy(to.data + body, message.data, message.length);
  put(&to, end, 0xffffffff, 4);
  put(&to, end + 4, 0, 4);
  return (fds_text){(const char *)to.data, to.length};
}

size_t fds_field_count(const fds_schema *schema) { return schema->count; }

fds_field fds_field_at(const fds_schema *schema, size_t at) {
  if (at >= schema->count) fds_die("the rows have no column %zu", at);
  return (fds_field){schema->nodes[at].name, schema->types[at]};
}

int fds_position(const fds_schema *schema, fds_text name) {
  for (size_t at = 0; at < schema->count; at++) {
    fds_text known = schema->nodes[at].name;
    if (known.length == name.length && (!name.length || !memcmp(known.data, name.data, name.length))) return (int)at;
  }
  return -1;
}

/* The names of all columns. */
fds_text fds_names(const fds_schema *schema) {
  fds_text names = {"", 0};
  for (size_t at = 0; at < schema->count; at++)
    names = fds_format("%.*s%s%.*s", FDS_ARG(names), at ? ", " : "", FDS_ARG(schema->nodes[at].name));
  return names;
}

fds_result fds_require(const fds_schema *schema, fds_text name, ...) {
  int at = fds_position(schema, name);
  if (at < 0)
    return fds_unsupported_schema("the rows have no column '%.*s'; they have: %.*s", FDS_ARG(name), FDS_ARG(fds_names(schema)));
  va_list types;
  va_start(types, name);
  const char *type;
  fds_text expected = {"", 0};
  bool is_one = false;
  while ((type = va_arg(types, const char *))) {
    is_one = is_one || fds_text_is(schema->types[at], type);
    expected = fds_format("%.*s%s%s", FDS_ARG(expected), expected.length ? " or " : "", type);
  }
  va_end(types);
  if (is_one || !expected.length) return FDS_DONE;
  return fds_unsupported_schema("column '%.*s' is of type %.*s; expected %.*s", FDS_ARG(name), FDS_ARG(schema->types[at]), FDS_ARG(expected));
}
