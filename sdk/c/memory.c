/* Memory and words. In: sizes, formats. Out: memory that is given back when the host has taken the answer of a call, or never. It promises
 * that nobody sees NULL: without memory left the instance ends with words. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Small pieces share a block of this size; larger ones have one of their own. */
#define BLOCK 65536

typedef struct block {
  struct block *next;
  size_t used, size;
} block;

static block *blocks;

void fds_die(const char *format, ...) {
  char words[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  fprintf(stderr, "%.*s\n", length, words);
  __builtin_trap();
}

void *fds_forever(size_t size) {
  void *memory = calloc(1, size ? size : 1);
  if (!memory) fds_die("no memory for %zu bytes", size);
  return memory;
}

fds_text fds_copy_forever(fds_text text) {
  char *copy = fds_forever(text.length);
  if (text.length) memcpy(copy, text.data, text.length);
  return (fds_text){copy, text.length};
}

void *fds_memory(size_t size) {
  if (size > SIZE_MAX / 2) fds_die("no memory for %zu bytes", size);
  size = (size + 15) & ~(size_t)15;
  if (!blocks || blocks->size - blocks->used < size) {
    size_t room = size > BLOCK / 4 ? size : BLOCK;
    block *added = malloc(sizeof *added + 8 + room);
    if (!added) fds_die("no memory for %zu bytes", size);
    *added = (block){blocks, 0, room};
    if (room == BLOCK || !blocks) {
      blocks = added;
    } else {
      /* The block of small pieces stays in front. */
      added->next = blocks->next;
      blocks->next = added;
      added->used = room;
      return memset((char *)(added + 1) + 4, 0, size);
    }
  }
  char *memory = (char *)(blocks + 1) + 4 + blocks->used;
  blocks->used += size;
  return memset(memory, 0, size);
}

/* What was given out since the last time is gone. */
static void forget(void) {
  while (blocks) {
    block *next = blocks->next;
    free(blocks);
    blocks = next;
  }
}

/* The host has taken an answer. */
void fds_release(void *answer) {
  (void)answer;
  forget();
}

/* The host puts what it hands over where this says. */
FDS_EXPORT("cabi_realloc") void *fds_host_memory(void *old, size_t old_size, size_t align, size_t size) {
  (void)align; /* 8 is the most that the interface has. */
  void *memory = fds_memory(size);
  if (old_size) memcpy(memory, old, old_size < size ? old_size : size);
  return memory;
}

void *fds_grown(void *old, size_t *room, size_t needed, size_t size) {
  if (needed <= *room) return old;
  if (needed > SIZE_MAX / 4 / size) fds_die("no memory for %zu items", needed);
  size_t more = needed < 16 ? 16 : needed * 2;
  void *memory = fds_memory(more * size);
  if (*room) memcpy(memory, old, *room * size);
  *room = more;
  return memory;
}

fds_text fds_text_of(const char *words) { return (fds_text){words ? words : "", words ? strlen(words) : 0}; }

bool fds_text_is(fds_text text, const char *words) {
  return text.length == strlen(words) && (!text.length || !memcmp(text.data, words, text.length));
}

/* As vprintf. */
fds_text fds_words(const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  if (length < 0) return fds_text_of(format);
  char *words = fds_memory((size_t)length + 1);
  vsnprintf(words, (size_t)length + 1, format, arguments);
  return (fds_text){words, (size_t)length};
}

fds_text fds_format(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fds_text words = fds_words(format, arguments);
  va_end(arguments);
  return words;
}
