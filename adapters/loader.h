/* What a format's loader is given and gives. Inner wall of adapters. */
#ifndef LK_ADAPTERS_LOADER_H
#define LK_ADAPTERS_LOADER_H

#include "content.h"

/* An adapter's place, opened: a folder, or the folder that holds the file. */
struct opened {
    const char *shown; /* the source's path, for messages */
    int dir_fd;
    char folder[512]; /* as given, for messages and lookups below the root */
    const char *file; /* NULL: the source is the folder itself */
    struct private_copy copy;
};

/* A format: recognises and reads. `load` fills content's pairs and report; the tensors that the pairs borrow
 * from go to *keep and stay open until `release`. */
struct adapter_format {
    const char *name;
    bool of_file; /* reads a file, not a folder */
    enum status (*load)(const struct opened *o, double user_scale, struct content *c, void **keep,
                        struct error *err);
    void (*release)(void *keep); /* NULL is fine */
};
extern const struct adapter_format adapter_format_peft;
extern const struct adapter_format adapter_format_gguf;

#define ADAPTER_FILE_BYTES_MAX ((uint64_t)8 << 30)
#define ADAPTER_HEADER_BYTES_MAX ((uint64_t)8 << 20)
#define ADAPTER_TENSORS_MAX 16384U

#endif
