/* Files, read with pread and checked sizes. Nothing of a stranger's is ever mapped (core/model/packed_map.c
 * maps what we wrote ourselves): a file that is cut or replaced later can't hurt. All functions restart on
 * EINTR and retry short reads. Paths in error texts are the given ones. */
#ifndef LK_BASE_FILE_H
#define LK_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct file {
    int fd;              /* -1 when closed */
    uint64_t size_bytes; /* by fstat at open */
    char path[512];      /* for messages, cut if longer */
};

/* Opens a regular file for reading (O_NONBLOCK at open, so a FIFO is refused and not waited for). */
LK_MUST_USE enum status file_open(struct file *f, const char *path, struct error *err);
/* The same below an open folder; `name` must be a plain relative path, the message shows it behind
 * `shown_dir`. */
LK_MUST_USE enum status file_open_at(struct file *f, int dir_fd, const char *shown_dir, const char *name,
                                     struct error *err);
void file_close(struct file *f); /* fine on a closed or zeroed-with-fd -1 one */

/* Reads exactly n_bytes at offset; an offset or end beyond the size at open is STATUS_FORMAT ("cut short").
 */
LK_MUST_USE enum status file_pread(const struct file *f, uint64_t offset, void *dst, size_t n_bytes,
                                   struct error *err);

/* The whole of a file appended to `out`; STATUS_TOO_LARGE above limit_bytes, STATUS_NOT_FOUND if absent. */
LK_MUST_USE enum status file_read_all(const char *path, size_t limit_bytes, struct buf *out,
                                      struct error *err);
LK_MUST_USE enum status file_read_all_at(int dir_fd, const char *shown_dir, const char *name,
                                         size_t limit_bytes, struct buf *out, struct error *err);

/* Opens a folder (O_PATH-like, for *_at). With root_fd >= 0, `path` is resolved strictly beneath it
 * (openat2 RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS; symbolic links that stay inside are followed). Close with
 * close(2). */
LK_MUST_USE enum status folder_open(int root_fd, const char *path, int *dir_fd, struct error *err);

bool file_exists(const char *path);
bool file_exists_at(int dir_fd, const char *name);
bool path_is_folder(const char *path);

/* dir + "/" + name into dst; false when it does not fit. */
bool path_join(char *dst, size_t dst_bytes, const char *dir, const char *name);

#endif
