/* An adapter on its way to disk. Inner wall of adapters. */
#ifndef LK_ADAPTERS_OUTGOING_H
#define LK_ADAPTERS_OUTGOING_H

#include "base/arena.h"
#include "base/out.h"
#include "format.h"

struct json_t;

/* Tensors that are going to be written; their data is borrowed. */
struct outgoing {
    struct arena *arena;  /* the caller's: names are kept here */
    struct tensor *items; /* file_index: which of `data` */
    const void **data;
    size_t n, room;
};
void outgoing_fini(struct outgoing *o); /* fine on one with only an arena */

struct outgoing_shape {
    enum dtype type;
    uint32_t n_dims;
    uint64_t d[3];
};
LK_MUST_USE enum status outgoing_add(struct outgoing *o, const char *name, const struct outgoing_shape *shape,
                                     const void *data, struct error *err);

/* adapter_model.safetensors */
LK_MUST_USE enum status outgoing_write_peft(struct outgoing *o, const struct out_place *place,
                                            struct error *err);
LK_MUST_USE enum status outgoing_write_gguf(struct outgoing *o, const struct out_place *place,
                                            const char *name, const struct gguf_pair *pairs, size_t n_pairs,
                                            struct error *err);

/* A number rounded to the seven digits that a float has: 0.1f is 0.1 again. */
double tidy_number(double v);
struct json_t *json_number(double v); /* an integer where it is one */
/* A JSON file, indented, in the object's order. */
LK_MUST_USE enum status out_put_json(const struct out_place *place, const char *name,
                                     const struct json_t *value, struct error *err);
/* Copies a folder's small text files (.json .jsonl .md .txt .jinja .model) for which `wanted` is true. */
LK_MUST_USE enum status out_copy_texts(const struct out_place *place, int dir_fd, const char *shown,
                                       bool (*wanted)(const char *name), struct error *err);

#endif
