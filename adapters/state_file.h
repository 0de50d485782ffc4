/* The file below state.c: opened, locked, checked, its tables made. */
#ifndef LK_STATE_FILE_H
#define LK_STATE_FILE_H

#include "base/error.h"

struct sqlite3;

struct state_file {
    struct sqlite3 *db;
    int lock_fd;
    char path[512]; /* for messages */
};

/* As state_open's; after a failure there is something to close, too. */
LK_MUST_USE enum status state_file_open(const char *path, struct state_file *f, struct error *err);
void state_file_close(struct state_file *f);

/* What SQLite says of its last call, as an error. */
enum status state_file_complain(const struct state_file *f, const char *what, struct error *err);
/* Runs statements that have no values and give no rows. */
LK_MUST_USE enum status state_file_run(struct state_file *f, const char *text, struct error *err);

#endif
