/* A queue of loads and scans. One at a time: a load reads at the disk's speed and packs with one thread, so
 * two at once would only make both late; and what is asked for in order happens in order. */
#include "adapter_jobs.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server.h"

struct entry {
    struct entry *next;
    char name[ADAPTER_NAME_MAX + 1];
    char path[512];
};

struct task {
    struct task *next;
    struct adapter_jobs *jobs;
    bool is_scan;
    struct adapter_job job;
    struct entry *found; /* of a scan */
};

struct root {
    int fd;
    char path[PATH_MAX]; /* resolved */
};

struct adapter_jobs {
    struct server *server;
    struct task *first, **last, *active;
    size_t n_waiting;
    struct entry *from_folder; /* names whose current version came from the adapters folder */
    struct root *roots;
    size_t n_roots;
};

static enum status open_root(struct root *root, const char *path, struct error *err)
{
    enum status s = folder_open(-1, path, &root->fd, err);
    if (s != STATUS_OK)
        return fail_within(err, "adapter root");
    if (!realpath(path, root->path))
        return fail(err, STATUS_IO, "adapter root %s: can't resolve its path", path);
    return STATUS_OK;
}

enum status adapter_jobs_create(struct server *s, struct adapter_jobs **out, struct error *err)
{
    struct adapter_jobs *j = mem_zalloc(sizeof *j);
    *out = j;
    if (!j)
        return fail(err, STATUS_NO_MEMORY, "no memory to load adapters");
    j->server = s;
    j->last = &j->first;
    j->roots = mem_array(s->conf->n_adapter_roots + 1, sizeof *j->roots);
    if (!j->roots)
        return fail(err, STATUS_NO_MEMORY, "no memory to load adapters");
    enum status st = STATUS_OK;
    for (size_t i = 0; i < s->conf->n_adapter_roots && st == STATUS_OK; i++) {
        st = open_root(&j->roots[i], s->conf->adapter_roots[i], err);
        j->n_roots += st == STATUS_OK;
    }
    return st;
}

static void free_entries(struct entry **list)
{
    while (*list) {
        struct entry *e = *list;
        *list = e->next;
        mem_free(e);
    }
}

static void free_task(struct task *t)
{
    adapter_release(t->job.version);
    free_entries(&t->found);
    mem_free(t);
}

void adapter_jobs_destroy(struct adapter_jobs *j)
{
    if (!j)
        return;
    while (j->first) {
        struct task *t = j->first;
        j->first = t->next;
        free_task(t);
    }
    free_entries(&j->from_folder);
    for (size_t i = 0; i < j->n_roots; i++)
        close(j->roots[i].fd);
    mem_free(j->roots);
    mem_free(j);
}

void adapter_jobs_stop(struct adapter_jobs *j)
{
    while (j && j->first) {
        struct task *t = j->first;
        j->first = t->next;
        t->job.status = fail(&t->job.err, STATUS_UNAVAILABLE, "the server is going down");
        if (t->job.done)
            t->job.done(&t->job, t->job.data);
        free_task(t);
    }
    if (j) {
        j->last = &j->first;
        j->n_waiting = 0;
    }
}

bool adapter_jobs_busy(const struct adapter_jobs *j)
{
    return j->active || j->first;
}

/* ---- names from the folder */

static struct entry **find_entry(struct entry **list, const char *name)
{
    while (*list && strcmp((*list)->name, name) != 0)
        list = &(*list)->next;
    return list;
}

void adapter_jobs_forget(struct adapter_jobs *j, const char *name)
{
    struct entry **at = find_entry(&j->from_folder, name), *e = *at;
    if (e) {
        *at = e->next;
        mem_free(e);
    }
}

static void remember(struct adapter_jobs *j, const char *name)
{
    struct entry *e = *find_entry(&j->from_folder, name) ? NULL : mem_zalloc(sizeof *e);
    if (!e)
        return;
    snprintf(e->name, sizeof e->name, "%s", name);
    e->next = j->from_folder;
    j->from_folder = e;
}

/* ---- work on a worker */

static void run_load(struct task *t)
{
    struct adapter_source source = {
        .name = t->job.name, .path = t->job.path, .root_fd = t->job.root_fd, .scale = t->job.scale};
    t->job.status = adapter_load(&source, t->jobs->server->base.model, &t->job.version, &t->job.err);
}

static void on_found(const char *name, const char *path, void *data)
{
    struct task *t = data;
    struct entry *e = mem_zalloc(sizeof *e);
    if (!e)
        return;
    snprintf(e->name, sizeof e->name, "%s", name);
    snprintf(e->path, sizeof e->path, "%s", path);
    e->next = t->found;
    t->found = e;
}

static void on_skipped(const char *entry, const char *why, void *data)
{
    const struct task *t = data;
    LOG_EVENT(&t->jobs->server->log, LOG_WARN, "not an adapter", LOG_TEXT("entry", entry),
              LOG_TEXT("why", why));
}

static void run_task(void *data)
{
    struct task *t = data;
    if (t->is_scan)
        t->job.status =
            adapters_scan(t->jobs->server->conf->adapters_dir, on_found, on_skipped, t, &t->job.err);
    else
        run_load(t);
}

/* ---- and back on the front thread */

static void next(struct adapter_jobs *j);

/* The version becomes its name's current one; the job keeps a reference to what is resident then. */
static enum status publish_version(struct registry *r, struct adapter_job *job)
{
    struct adapter *a = registry_find(r, job->name);
    uint64_t before = a ? a->stable : 0;
    if (a && !job->in_place)
        return fail(&job->err, STATUS_EXISTS, "adapter '%s' exists already", job->name);
    struct adapter_wish wish = {
        .name = job->name, .source = job->path, .scale = job->scale, .from_folder = job->from_folder};
    enum status s = registry_register(r, &wish, &a, &job->err);
    if (s != STATUS_OK)
        return s;
    struct publication p = {.as = PUBLISH_STABLE};
    struct adapter_version *v = job->version;
    job->version = NULL;
    s = registry_publish(r, a, v, &p, clock_now_ns(), &job->err);
    if (s != STATUS_OK) {
        require(before != 0 || registry_remove(r, job->name, NULL) == STATUS_OK);
        return s;
    }
    job->version = adapter_acquire(p.version);
    job->replaced = before != 0 && p.generation != before;
    return STATUS_OK;
}

static void publish(struct adapter_jobs *j, struct adapter_job *job)
{
    struct server *s = j->server;
    metrics_count_load(s->metrics, job->status == STATUS_OK);
    if (job->status == STATUS_OK)
        job->status = publish_version(s->registry, job);
    if (job->status != STATUS_OK) {
        LOG_EVENT(&s->log, LOG_ERROR, "adapter not loaded", LOG_TEXT("adapter", job->name),
                  LOG_TEXT("path", job->path), LOG_TEXT("why", job->err.text));
        return;
    }
    if (job->from_folder)
        remember(j, job->name);
    else
        adapter_jobs_forget(j, job->name);
    LOG_EVENT(&s->log, LOG_INFO, job->replaced ? "adapter replaced" : "adapter loaded",
              LOG_TEXT("adapter", job->name), LOG_NUMBER("generation", job->version->generation),
              LOG_TEXT("digest", job->version->digest_hex), LOG_NUMBER("rank", job->version->report.rank_max),
              LOG_NUMBER("bytes", job->version->lora ? job->version->lora->size_bytes : 0),
              LOG_NUMBER("ms", (double)job->version->load_ns / 1e6));
}

static void scanned(struct adapter_jobs *j, struct task *t)
{
    struct server *s = j->server;
    if (t->job.status != STATUS_OK) {
        LOG_EVENT(&s->log, LOG_ERROR, "adapters folder not read", LOG_TEXT("why", t->job.err.text));
        return;
    }
    for (struct entry **at = &j->from_folder, *e; (e = *at);) {
        struct error err;
        if (*find_entry(&t->found, e->name)) {
            at = &e->next;
            continue;
        }
        if (registry_remove(s->registry, e->name, &err) == STATUS_OK)
            LOG_EVENT(&s->log, LOG_INFO, "adapter removed: gone from its folder",
                      LOG_TEXT("adapter", e->name));
        *at = e->next;
        mem_free(e);
    }
    for (const struct entry *e = t->found; e; e = e->next) {
        bool elsewhere = registry_find(s->registry, e->name) && !*find_entry(&j->from_folder, e->name);
        if (elsewhere || strcmp(e->name, s->base.name) == 0) {
            LOG_EVENT(&s->log, LOG_WARN, "adapter in the folder left out: its name is taken",
                      LOG_TEXT("adapter", e->name));
            continue;
        }
        struct adapter_job job = {.root_fd = -1, .scale = 1, .in_place = true, .from_folder = true};
        struct error err;
        snprintf(job.name, sizeof job.name, "%s", e->name);
        snprintf(job.path, sizeof job.path, "%s", e->path);
        if (adapter_jobs_add(j, &job, &err) != STATUS_OK)
            LOG_EVENT(&s->log, LOG_ERROR, "adapter not loaded", LOG_TEXT("adapter", e->name),
                      LOG_TEXT("why", err.text));
    }
}

static void task_done(void *data)
{
    struct task *t = data;
    struct adapter_jobs *j = t->jobs;
    struct server *s = j->server;
    bool start_failed = false;
    if (t->is_scan) {
        scanned(j, t);
    } else {
        publish(j, &t->job);
        if (t->job.done)
            t->job.done(&t->job, t->job.data);
        start_failed = t->job.required && t->job.status != STATUS_OK && s->state == SERVER_LOADING;
    }
    j->active = NULL;
    if (start_failed) {
        fail_within(&t->job.err, "--adapter %s", t->job.name);
        server_start_failed(s, &t->job.err);
    } else {
        next(j);
    }
    free_task(t);
}

static void next(struct adapter_jobs *j)
{
    while (!j->active && j->first) {
        struct task *t = j->first;
        j->first = t->next;
        if (!j->first)
            j->last = &j->first;
        t->next = NULL;
        j->n_waiting--;
        j->active = t;
        if (!server_work(j->server, run_task, task_done, t)) {
            t->job.status = fail(&t->job.err, STATUS_NO_MEMORY, "no memory for a worker's task");
            task_done(t);
        }
    }
    if (!adapter_jobs_busy(j))
        server_jobs_idle(j->server);
}

static struct task *append(struct adapter_jobs *j)
{
    struct task *t = mem_zalloc(sizeof *t);
    if (!t)
        return NULL;
    t->jobs = j;
    *j->last = t;
    j->last = &t->next;
    j->n_waiting++;
    return t;
}

enum status adapter_jobs_add(struct adapter_jobs *j, const struct adapter_job *job, struct error *err)
{
    bool own = job->from_folder || job->required;
    if (!own && j->n_waiting >= j->server->conf->adapter_jobs_max)
        return fail(err, STATUS_FULL, "%zu adapters wait to be loaded already; try again later",
                    j->n_waiting);
    struct task *t = append(j);
    if (!t)
        return fail(err, STATUS_NO_MEMORY, "no memory to load an adapter");
    t->job = *job;
    next(j);
    return STATUS_OK;
}

void adapter_jobs_scan(struct adapter_jobs *j)
{
    if (!j->server->conf->adapters_dir)
        return;
    struct task *t = append(j);
    if (!t)
        return;
    t->is_scan = true;
    next(j);
}

/* ---- paths of the API's */

enum status adapter_jobs_find_root(const struct adapter_jobs *j, const char *path, int *root_fd,
                                   const char **relative, struct error *err)
{
    if (j->n_roots == 0)
        return fail(
            err, STATUS_INVALID,
            "no adapter root is configured: start the server with --adapters DIR or --adapter-root DIR");
    for (size_t i = 0; i < j->n_roots; i++) {
        const struct root *root = &j->roots[i];
        const char *rest = path;
        struct stat st;
        if (path[0] == '/') {
            size_t n = strlen(root->path);
            if (strncmp(path, root->path, n) != 0 || path[n] != '/')
                continue;
            rest = path + n + strspn(path + n, "/");
        } else if (j->n_roots > 1 && fstatat(root->fd, path, &st, 0) != 0 && i + 1 < j->n_roots) {
            continue; /* perhaps in the next one; the load itself checks that it stays inside */
        }
        if (!rest[0])
            continue;
        *root_fd = root->fd;
        *relative = rest;
        return STATUS_OK;
    }
    return fail(err, STATUS_INVALID, "%s: is in none of the configured adapter roots", path);
}
