/* One opened file, read in place or from a private copy. Inner wall of core/format. */
#ifndef LK_FORMAT_SOURCE_H
#define LK_FORMAT_SOURCE_H

#include "base/file.h"
#include "format.h"

struct source {
    struct file file; /* closed once a private copy is made; path and size_bytes stay valid */
    char *copy;       /* [file.size_bytes], or NULL: read in place */
};

/* dir_fd may be AT_FDCWD with shown_dir NULL: `name` is then a path as given. */
LK_MUST_USE enum status source_open(struct source *s, int dir_fd, const char *shown_dir, const char *name,
                                    const struct private_copy *copy, struct error *err);
void source_close(struct source *s); /* fine on one that failed to open */
LK_MUST_USE enum status source_read(const struct source *s, uint64_t offset, void *dst, size_t n_bytes,
                                    struct error *err);
/* What the open file is now; false for a copy. */
bool source_state(const struct source *s, struct copied_file *out);

#endif
