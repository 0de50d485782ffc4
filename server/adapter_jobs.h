/* Loading of adapters, one after another, by a worker: at start, from the adapters folder, and as the API
 * asks. Publishing happens on the front thread. A failed load changes nothing. Owner: front thread. */
#ifndef LK_ADAPTER_JOBS_H
#define LK_ADAPTER_JOBS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "registry.h"

struct server;
struct adapter_jobs;

struct adapter_job {
    /* asked for */
    char name[ADAPTER_NAME_MAX + 1];
    char path[512];
    int root_fd; /* -1: the operator's own path */
    double scale;
    bool in_place;                                     /* may replace a version of the same name */
    bool from_folder;                                  /* found in the adapters folder */
    bool required;                                     /* the server doesn't start without it */
    void (*done)(struct adapter_job *job, void *data); /* may be NULL */
    void *data;
    /* what came of it */
    enum status status;
    struct error err;
    struct adapter_version *version; /* on success: a reference of the job's, released after `done` */
    bool replaced;
};

/* Opens the adapter roots of the configuration. */
LK_MUST_USE enum status adapter_jobs_create(struct server *s, struct adapter_jobs **out, struct error *err);
void adapter_jobs_destroy(struct adapter_jobs *j); /* when none is active */

/* Copies `job` into the queue. STATUS_FULL beyond the configured number (unless it is the server's own). */
LK_MUST_USE enum status adapter_jobs_add(struct adapter_jobs *j, const struct adapter_job *job,
                                         struct error *err);
/* Looks at the adapters folder: loads what is new or changed, takes away what came from it and is gone. A
 * file that fails to load leaves its name's current version. Names that were loaded otherwise are left alone.
 */
void adapter_jobs_scan(struct adapter_jobs *j);
bool adapter_jobs_busy(const struct adapter_jobs *j);
/* Forgets what waits, telling who asked; what a worker is at now still comes to its end. */
void adapter_jobs_stop(struct adapter_jobs *j);
/* The name no longer belongs to the adapters folder (loaded or unloaded by hand). */
void adapter_jobs_forget(struct adapter_jobs *j, const char *name);

/* Finds the root that holds a path of the API's: absolute and inside a root, or relative to one. *relative
 * points into `path`. STATUS_INVALID if no root is configured or the path is in none of them. */
LK_MUST_USE enum status adapter_jobs_find_root(const struct adapter_jobs *j, const char *path, int *root_fd,
                                               const char **relative, struct error *err);

#endif
