/* A tokenizer from a tokenizer.json or a GGUF file, for measurements. */
#ifndef LK_TESTS_OPEN_TOKENIZER_H
#define LK_TESTS_OPEN_TOKENIZER_H

#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "format.h"
#include "text.h"

/* NULL: err says why. */
static struct tokenizer *open_tokenizer(const char *path, struct error *err)
{
    struct tokenizer *t = NULL;
    struct gguf *g = NULL;
    struct buf json;
    size_t length = strlen(path);
    if (length > 5 && strcmp(path + length - 5, ".gguf") == 0) {
        if (gguf_open(path, NULL, &g, err) == STATUS_OK && tokenizer_from_gguf(g, &t, err) != STATUS_OK)
            t = NULL;
        gguf_close(g);
        return t;
    }
    buf_init(&json, 1U << 28);
    if (file_read_all(path, 1U << 28, &json, err) == STATUS_OK &&
        tokenizer_from_json(json.data, json.length, path, &t, err) != STATUS_OK)
        t = NULL;
    buf_fini(&json);
    return t;
}

#endif
