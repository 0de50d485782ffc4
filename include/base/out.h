/* Results on disk, made whole or not at all: everything is written into a temporary folder beside the place,
 * synced, and renamed into it in one step. What is there already is never replaced, and a failure leaves
 * nothing behind (a killed process leaves the temporary folder, whose name begins with a dot and ends in
 * ".tmp-" and a number). */
#ifndef LK_BASE_OUT_H
#define LK_BASE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct out_place {
    char path[512]; /* as given, for messages */
    char name[256]; /* its last part */
    char temp[320]; /* name of the temporary folder */
    int parent_fd;  /* folder of both; -1: nothing is open */
    int dir_fd;     /* the temporary folder */
    /* Asked before each write; true ends it with STATUS_CANCELLED. NULL: never. Set by the caller. */
    bool (*stop)(void);
};

/* STATUS_EXISTS if something is at `path`, STATUS_NOT_FOUND if the folder that it goes into is not there. End
 * with out_commit_… or out_abandon. */
LK_MUST_USE enum status out_begin(struct out_place *o, const char *path, struct error *err);
/* The temporary folder becomes the folder at `path`. */
LK_MUST_USE enum status out_commit_folder(struct out_place *o, struct error *err);
/* Its file `name` becomes the file at `path`; the folder must hold no other. */
LK_MUST_USE enum status out_commit_file(struct out_place *o, const char *name, struct error *err);
/* Removes what was written; fine after a commit, on a failed begin and on {.parent_fd = -1}. */
void out_abandon(struct out_place *o);

/* A file in the temporary folder, written from its beginning on. */
struct out_file {
    const struct out_place *place;
    int fd; /* -1 when closed */
    uint64_t n_bytes;
    char shown[600]; /* PATH/NAME */
};
LK_MUST_USE enum status out_file_open(struct out_file *f, const struct out_place *o, const char *name,
                                      struct error *err);
LK_MUST_USE enum status out_file_write(struct out_file *f, const void *bytes, size_t n, struct error *err);
/* Syncs and closes. */
LK_MUST_USE enum status out_file_finish(struct out_file *f, struct error *err);
void out_file_close(struct out_file *f); /* without syncing: after a failure; fine on a closed one */

/* A whole small file. */
LK_MUST_USE enum status out_put(const struct out_place *o, const char *name, const void *bytes, size_t n,
                                struct error *err);

#endif
