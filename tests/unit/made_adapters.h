/* Adapters' tensors made on the spot, for tests of the loaders. */
#ifndef LK_TESTS_MADE_ADAPTERS_H
#define LK_TESTS_MADE_ADAPTERS_H

#include "tests/unit/made_files.h"

#define PRE "base_model.model."

/* A tensor of counted values: begin, begin + 1, … */
struct made {
    const char *name;
    uint32_t shape[3]; /* 0: no such dimension */
    float begin;
};

static inline size_t count_values(const struct made *t)
{
    return (size_t)t->shape[0] * (t->shape[1] ? t->shape[1] : 1) * (t->shape[2] ? t->shape[2] : 1);
}

static inline void put_made(const char *dir, const char *file, const struct made *list)
{
    struct buf header, all;
    size_t at = 0;
    buf_init(&header, 0);
    buf_init(&all, 0);
    for (const struct made *t = list; t->name; t++) {
        size_t n = count_values(t) * sizeof(float);
        buf_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%u", t == list ? "{" : ",", t->name,
                   t->shape[0]);
        for (int d = 1; d < 3 && t->shape[d]; d++)
            buf_printf(&header, ",%u", t->shape[d]);
        buf_printf(&header, "],\"data_offsets\":[%zu,%zu]}", at, at + n);
        at += n;
    }
    buf_puts(&header, list->name ? "}" : "{}");
    put_u64(&all, header.length);
    buf_append(&all, header.data, header.length);
    for (const struct made *t = list; t->name; t++)
        for (size_t i = 0; i < count_values(t); i++) {
            float x = t->begin + (float)i;
            buf_append(&all, &x, sizeof x);
        }
    put_file(dir, file, all.data, all.length);
    buf_fini(&header);
    buf_fini(&all);
}

#endif
