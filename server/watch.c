/* The idea: events only say where to look; what is true is what a look sees. A look signs entries on a worker
 * (names, inodes, sizes, times of their files): those that events named and those that are unsettled, or at
 * the start and at each poll the whole folder. Back on the loop the signatures are merged into what is known.
 *
 *     settled ── another signature ──▶ unsettled ── the same twice, and whole ──▶ settled, on_change
 *
 * Another signature again begins anew; ten seconds of patience stand in for "whole". `known` is changed by
 * the loop only while no look is under way, so a worker may read it. An event that the kernel drops (a full
 * queue), and what happens in a folder that couldn't be watched, are found by the next poll. */
#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "adapters.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#define QUIET_MS 500
#define QUIET_SUM_MS 5000
#define PATIENCE_MS 10000
#define POLL_UNWATCHED_MS 5000 /* where inotify has no room */
#define ENTRIES_MAX 65536U
#define NO_ADAPTER 1U  /* the signature of a folder without a configuration, which may come yet */
#define NAMES_MAX 256U /* more that events have named: the whole folder is looked at */
#define RECENT_NS (10 * NS_PER_S)

struct own_watch { /* an adapter's own folder */
    uv_fs_event_t event;
    struct watch *watch;
    const char *name; /* the entry's, which outlives this until it is closing */
    bool closing;
};

struct known {
    char *name;
    uint64_t signature; /* settled on; 0: on nothing yet */
    uint64_t pending;   /* the last look's, if not settled */
    int64_t pending_ns; /* since when */
    uint64_t folder_id; /* which folder it is, if it is one: another may take its name */
    bool settled;
    uint8_t n_missed; /* looks in a row that didn't see it */
    struct own_watch *own;
};

struct seen {
    char *name;
    uint64_t signature;
    uint64_t folder_id; /* 0: a file */
    bool whole;         /* only asked of what was pending with this signature */
    bool recent;        /* changed within the last seconds */
};

struct look {
    uv_work_t request;
    struct watch *watch;
    bool whole;   /* the folder is listed */
    char **names; /* otherwise these, in order, each once */
    size_t n_names;
    struct seen *list;
    size_t n, capacity;
    int64_t begin_ns, took_ns;
    uint64_t folder_id; /* of the watched folder itself: it may be replaced */
    enum status status;
    struct error err;
};

struct watch {
    uv_loop_t *loop;
    char dir[400];
    const struct log *log;
    uint32_t poll_ms, quiet_ms, patience_ms;
    size_t watches_max;
    void (*on_change)(void *data);
    void *data;

    uv_fs_event_t top;
    uv_timer_t soon, poll;
    bool top_watched, looking, again, closing, known_once;
    bool no_room; /* inotify's limit was met, and the log has it */
    bool was_unreadable;
    int64_t first_event_ns; /* 0: none since the last look */
    char *named[NAMES_MAX]; /* by events since then */
    size_t n_named;
    bool look_at_all;
    uint64_t folder_id;
    struct known *known; /* by name */
    size_t n_known, n_watched;
    int n_handles; /* that the loop still has */
};

/* ---- names */

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static bool counts(const char *name)
{
    return name[0] != '.' && !ends_with(name, ".tmp") && !ends_with(name, ".part") && !ends_with(name, "~");
}

static int by_name(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static struct known *find_known(const struct watch *w, const char *name)
{
    size_t low = 0, high = w->n_known;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(w->known[middle].name, name);
        if (order == 0)
            return &w->known[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- a look, on a worker */

static bool add_seen(struct look *l, const struct seen *s)
{
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct seen *more = mem_realloc(l->list, capacity * sizeof *more);
        if (!more)
            return false;
        l->list = more;
        l->capacity = capacity;
    }
    l->list[l->n++] = *s;
    return true;
}

static uint64_t id_of(const struct stat *st)
{
    return S_ISDIR(st->st_mode) ? ((uint64_t)st->st_ino ^ (uint64_t)st->st_dev << 48) | 1 : 0;
}

static bool is_recent(const struct stat *st, int64_t wall_ms)
{
    int64_t changed_ms = (int64_t)st->st_ctim.tv_sec * 1000;
    return wall_ms - changed_ms < RECENT_NS / NS_PER_MS;
}

/* False: no memory. */
static bool look_at(struct look *l, const char *name, int64_t wall_ms)
{
    const struct watch *w = l->watch;
    char path[1024];
    struct stat st;
    struct adapter_stat a;
    if (!path_join(path, sizeof path, w->dir, name) || stat(path, &st) != 0)
        return true;
    struct seen s = {.folder_id = id_of(&st), .recent = is_recent(&st, wall_ms)};
    if (!s.folder_id && !(S_ISREG(st.st_mode) && ends_with(name, ".gguf")))
        return true;
    s.signature = adapter_stat(path, -1, &a, NULL) == STATUS_OK ? a.signature | 2 : NO_ADAPTER;
    const struct known *k = find_known(w, name);
    if (k && !k->settled && k->pending == s.signature)
        s.whole = s.signature != NO_ADAPTER && adapter_is_complete(path);
    s.name = mem_strdup(name);
    if (s.name && add_seen(l, &s))
        return true;
    mem_free(s.name);
    return false;
}

static void look_at_names(struct look *l)
{
    int64_t wall_ms = clock_wall_ms();
    for (size_t i = 0; i < l->n_names && l->status == STATUS_OK; i++)
        if (!look_at(l, l->names[i], wall_ms))
            l->status = fail(&l->err, STATUS_NO_MEMORY, "%s: no memory to look at it", l->watch->dir);
}

static void look_at_all(struct look *l, DIR *d)
{
    const struct watch *w = l->watch;
    int64_t wall_ms = clock_wall_ms();
    for (const struct dirent *e; l->status == STATUS_OK && (e = readdir(d)) != NULL;) {
        if (!counts(e->d_name))
            continue;
        if (l->n >= ENTRIES_MAX)
            l->status = fail(&l->err, STATUS_TOO_LARGE, "%s: more than %u entries", w->dir, ENTRIES_MAX);
        else if (!look_at(l, e->d_name, wall_ms))
            l->status = fail(&l->err, STATUS_NO_MEMORY, "%s: no memory to look at it", w->dir);
    }
}

static void run_look(struct look *l)
{
    const struct watch *w = l->watch;
    struct stat st;
    DIR *d = opendir(w->dir);
    if (!d) {
        l->status = fail(&l->err, STATUS_IO, "%s: can't open the directory: %s", w->dir, strerror(errno));
        return;
    }
    if (fstat(dirfd(d), &st) == 0)
        l->folder_id = id_of(&st);
    l->whole |= l->folder_id != w->folder_id;
    if (l->whole)
        look_at_all(l, d);
    else
        look_at_names(l);
    closedir(d);
    if (l->n)
        qsort(l->list, l->n, sizeof *l->list, by_name);
}

static void on_look(uv_work_t *request)
{
    struct look *l = request->data;
    l->begin_ns = clock_now_ns();
    run_look(l);
    l->took_ns = clock_now_ns() - l->begin_ns;
}

static void free_look(struct look *l)
{
    for (size_t i = 0; i < l->n; i++)
        mem_free(l->list[i].name);
    for (size_t i = 0; i < l->n_names; i++)
        mem_free(l->names[i]);
    mem_free(l->list);
    mem_free(l->names);
    mem_free(l);
}

/* ---- handles */

static void free_when_done(struct watch *w)
{
    if (!w->closing || w->n_handles > 0 || w->looking)
        return;
    for (size_t i = 0; i < w->n_known; i++)
        mem_free(w->known[i].name);
    for (size_t i = 0; i < w->n_named; i++)
        mem_free(w->named[i]);
    mem_free(w->known);
    mem_free(w);
}

static void on_own_closed(uv_handle_t *h)
{
    struct own_watch *own = h->data;
    struct watch *w = own->watch;
    mem_free(own);
    w->n_handles--;
    free_when_done(w);
}

static void on_closed(uv_handle_t *h)
{
    struct watch *w = h->data;
    w->n_handles--;
    free_when_done(w);
}

static void close_own(struct known *k)
{
    struct own_watch *own = k->own;
    k->own = NULL;
    if (!own || own->closing)
        return;
    own->closing = true;
    own->watch->n_watched--;
    uv_close((uv_handle_t *)&own->event, on_own_closed);
}

/* ---- events and timers */

static void start_look(struct watch *w);

static void on_soon(uv_timer_t *t)
{
    start_look(t->data);
}

static void look_in(struct watch *w, uint64_t ms)
{
    if (!w->closing)
        uv_timer_start(&w->soon, on_soon, ms, 0);
}

static void on_poll(uv_timer_t *t)
{
    struct watch *w = t->data;
    w->look_at_all = true;
    if (!uv_is_active((const uv_handle_t *)&w->soon))
        start_look(w);
}

static void note_name(struct watch *w, const char *name)
{
    for (size_t i = 0; name && i < w->n_named; i++)
        if (strcmp(w->named[i], name) == 0)
            return;
    char *copy = name && w->n_named < NAMES_MAX ? mem_strdup(name) : NULL;
    if (copy)
        w->named[w->n_named++] = copy;
    else
        w->look_at_all = true;
}

/* Something happened to an entry (NULL: it isn't known which): a look when it has been quiet, but not put off
 * for ever. */
static void note_event(struct watch *w, const char *name)
{
    int64_t now = clock_now_ns();
    note_name(w, name);
    if (!w->first_event_ns)
        w->first_event_ns = now;
    int64_t waited_ms = (now - w->first_event_ns) / NS_PER_MS;
    int64_t left_ms = waited_ms < QUIET_SUM_MS ? QUIET_SUM_MS - waited_ms : 0;
    look_in(w, (uint64_t)left_ms < w->quiet_ms ? (uint64_t)left_ms : w->quiet_ms);
}

static void on_top_event(uv_fs_event_t *h, const char *name, int events, int status)
{
    struct watch *w = h->data;
    (void)events;
    if (!w->closing && (status < 0 || !name || counts(name)))
        note_event(w, status < 0 ? NULL : name);
}

static void on_own_event(uv_fs_event_t *h, const char *name, int events, int status)
{
    const struct own_watch *own = h->data;
    (void)events;
    if (!own->closing && !own->watch->closing && (status < 0 || !name || counts(name)))
        note_event(own->watch, own->name);
}

static void set_poll(struct watch *w)
{
    uint64_t ms = w->poll_ms;
    if ((w->no_room || !w->top_watched) && (ms == 0 || ms > POLL_UNWATCHED_MS))
        ms = POLL_UNWATCHED_MS;
    if (ms)
        uv_timer_start(&w->poll, on_poll, ms, ms);
}

static void watch_top(struct watch *w)
{
    uv_fs_event_stop(&w->top);
    w->top_watched = uv_fs_event_start(&w->top, on_top_event, w->dir, 0) == 0;
}

/* False: inotify has no room for another one. */
static bool watch_own(struct watch *w, struct known *k)
{
    char path[1024];
    struct own_watch *own = mem_zalloc(sizeof *own);
    if (!own || !path_join(path, sizeof path, w->dir, k->name)) {
        mem_free(own);
        return true;
    }
    own->watch = w;
    own->name = k->name;
    own->event.data = own;
    uv_fs_event_init(w->loop, &own->event);
    w->n_handles++;
    w->n_watched++;
    k->own = own;
    int e = uv_fs_event_start(&own->event, on_own_event, path, 0);
    if (e != 0)
        close_own(k);
    return e != UV_ENOSPC && e != UV_EMFILE && e != UV_ENOMEM;
}

/* True: some are watched only now, and may have changed between the look and this. */
static bool watch_folders(struct watch *w)
{
    size_t before = w->n_watched;
    for (size_t i = 0; i < w->n_known && !w->no_room; i++) {
        struct known *k = &w->known[i];
        if (!k->folder_id || k->own || k->n_missed)
            continue;
        if (w->n_watched < w->watches_max && watch_own(w, k))
            continue;
        w->no_room = true;
        LOG_EVENT(
            w->log, LOG_WARN,
            "inotify watches no more folders (fs.inotify.max_user_watches): changes inside the others are "
            "found by looking every few seconds",
            LOG_TEXT("folder", &w->dir[0]), LOG_NUMBER("watched", w->n_watched));
        set_poll(w);
    }
    return w->n_watched > before;
}

/* ---- merging a look into what is known */

struct merge {
    struct watch *watch;
    struct known *next; /* the new list */
    size_t n;
    int64_t now;
    bool changed, unsettled;
};

/* An entry that was seen; `k` has its name. */
static void take_seen(struct merge *m, struct known *k, const struct seen *s)
{
    k->n_missed = 0;
    if (k->folder_id != s->folder_id)
        close_own(k);
    k->folder_id = s->folder_id;
    if (s->signature == k->signature) {
        k->settled = true;
        return;
    }
    if (k->settled || k->pending != s->signature) {
        k->settled = false;
        k->pending = s->signature;
        k->pending_ns = m->now;
        m->unsettled = true;
        return;
    }
    bool never_was_one = s->signature == NO_ADAPTER && k->signature <= NO_ADAPTER;
    bool out_of_patience = m->now - k->pending_ns >= (int64_t)m->watch->patience_ms * NS_PER_MS;
    if (!s->whole && !out_of_patience && !never_was_one) {
        m->unsettled = true;
        return;
    }
    k->signature = s->signature;
    k->settled = true;
    m->changed |= !never_was_one;
}

static void take_new(struct merge *m, struct seen *s)
{
    struct known *k = &m->next[m->n++];
    *k = (struct known){.name = s->name, .settled = true};
    s->name = NULL;
    if (m->watch->known_once || s->recent)
        take_seen(m, k, s);
    else /* there before us: the first scan sees it */
        k->signature = s->signature;
    k->folder_id = s->folder_id;
}

static void take_missed(struct merge *m, const struct known *before)
{
    struct known *k = &m->next[m->n];
    *k = *before;
    if (++k->n_missed < 2) { /* perhaps it is just being replaced */
        m->unsettled = true;
        m->n++;
        return;
    }
    m->changed = true;
    close_own(k);
    mem_free(k->name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool was_looked_at(const struct look *l, const char *name)
{
    return l->whole ||
           (l->n_names && bsearch(&name, l->names, l->n_names, sizeof *l->names, compare_names) != NULL);
}

static bool merge(struct watch *w, struct look *l, struct merge *m)
{
    *m = (struct merge){.watch = w, .now = clock_now_ns()};
    m->next = mem_array(w->n_known + l->n + 1, sizeof *m->next);
    if (!m->next)
        return false;
    size_t i = 0, j = 0;
    while (i < w->n_known || j < l->n) {
        int order = i == w->n_known ? 1 : j == l->n ? -1 : strcmp(w->known[i].name, l->list[j].name);
        if (order < 0 && !was_looked_at(l, w->known[i].name)) {
            m->next[m->n++] = w->known[i++];
        } else if (order < 0) {
            take_missed(m, &w->known[i++]);
        } else if (order > 0) {
            take_new(m, &l->list[j++]);
        } else {
            m->next[m->n] = w->known[i++];
            take_seen(m, &m->next[m->n++], &l->list[j++]);
        }
    }
    mem_free(w->known);
    w->known = m->next;
    w->n_known = m->n;
    w->known_once = true;
    return true;
}

/* The folder itself was replaced, or has come back: its watches are on what was there before. */
static void follow_folder(struct watch *w, uint64_t folder_id)
{
    if (folder_id == w->folder_id && w->top_watched)
        return;
    for (size_t i = 0; i < w->n_known && folder_id != w->folder_id; i++)
        close_own(&w->known[i]);
    w->folder_id = folder_id;
    watch_top(w);
    set_poll(w);
}

static void not_readable(struct watch *w, const struct look *l)
{
    if (!w->was_unreadable)
        LOG_EVENT(w->log, LOG_ERROR, "adapters folder not read", LOG_TEXT("why", l->err.text));
    w->was_unreadable = true;
    w->folder_id = 0;
    w->top_watched = false;
    set_poll(w);
}

static void on_looked(uv_work_t *request, int status)
{
    struct look *l = request->data;
    struct watch *w = l->watch;
    struct merge m = {0};
    (void)status;
    w->looking = false;
    if (w->closing) {
        free_look(l);
        free_when_done(w);
        return;
    }
    if (l->status != STATUS_OK) {
        not_readable(w, l);
    } else if (merge(w, l, &m)) {
        w->was_unreadable = false;
        follow_folder(w, l->folder_id);
        m.unsettled |= watch_folders(w);
    }
    /* A large folder isn't looked at all the time, however long something in it is being written. */
    uint64_t rest_ms = (uint64_t)(4 * l->took_ns / NS_PER_MS);
    free_look(l);
    if ((m.unsettled || w->again) && !uv_is_active((const uv_handle_t *)&w->soon))
        look_in(w, rest_ms > w->quiet_ms ? rest_ms : w->quiet_ms);
    w->again = false;
    if (m.changed)
        w->on_change(w->data);
}

/* What events named, and what has not come to rest; false: no memory. */
static bool take_names(struct watch *w, struct look *l)
{
    size_t n = w->n_named, kept = 0;
    for (size_t i = 0; i < w->n_known; i++)
        n += !w->known[i].settled || w->known[i].n_missed;
    l->names = mem_array(n + 1, sizeof *l->names);
    if (!l->names)
        return false;
    for (size_t i = 0; i < w->n_named; i++)
        l->names[l->n_names++] = w->named[i];
    w->n_named = 0;
    for (size_t i = 0; i < w->n_known; i++) {
        char *name = !w->known[i].settled || w->known[i].n_missed ? mem_strdup(w->known[i].name) : NULL;
        if (name)
            l->names[l->n_names++] = name;
    }
    qsort(l->names, l->n_names, sizeof *l->names, compare_names);
    for (size_t i = 0; i < l->n_names; i++)
        if (kept && strcmp(l->names[i], l->names[kept - 1]) == 0)
            mem_free(l->names[i]);
        else
            l->names[kept++] = l->names[i];
    l->n_names = kept;
    return true;
}

static void start_look(struct watch *w)
{
    if (w->closing)
        return;
    if (w->looking) {
        w->again = true;
        return;
    }
    struct look *l = mem_zalloc(sizeof *l);
    if (!l)
        return; /* the next poll tries again */
    l->watch = w;
    l->whole = !take_names(w, l) || w->look_at_all || !w->known_once;
    w->first_event_ns = 0;
    w->look_at_all = false;
    l->request.data = l;
    w->looking = uv_queue_work(w->loop, &l->request, on_look, on_looked) == 0;
    if (!w->looking)
        free_look(l);
}

/* ---- from outside */

enum status watch_create(uv_loop_t *loop, const struct watch_options *o, struct watch **out,
                         struct error *err)
{
    *out = NULL;
    struct watch *w = mem_zalloc(sizeof *w);
    if (!w)
        return fail(err, STATUS_NO_MEMORY, "no memory to watch %s", o->dir);
    if (strlen(o->dir) >= sizeof w->dir) {
        mem_free(w);
        return fail(err, STATUS_INVALID, "%s: too long a path to be watched", o->dir);
    }
    snprintf(w->dir, sizeof w->dir, "%s", o->dir);
    w->loop = loop;
    w->log = o->log;
    w->poll_ms = o->poll_ms;
    w->quiet_ms = o->quiet_ms ? o->quiet_ms : QUIET_MS;
    w->patience_ms = o->patience_ms ? o->patience_ms : PATIENCE_MS;
    w->watches_max = o->watches_max ? o->watches_max : SIZE_MAX;
    w->on_change = o->on_change;
    w->data = o->data;
    uv_timer_init(loop, &w->soon);
    uv_timer_init(loop, &w->poll);
    uv_fs_event_init(loop, &w->top);
    w->soon.data = w->poll.data = w->top.data = w;
    w->n_handles = 3;
    watch_top(w);
    set_poll(w);
    start_look(w);
    *out = w;
    return STATUS_OK;
}

void watch_close(struct watch *w)
{
    if (!w || w->closing)
        return;
    w->closing = true;
    for (size_t i = 0; i < w->n_known; i++)
        close_own(&w->known[i]);
    uv_close((uv_handle_t *)&w->soon, on_closed);
    uv_close((uv_handle_t *)&w->poll, on_closed);
    uv_close((uv_handle_t *)&w->top, on_closed);
}

bool watch_is_settled(const struct watch *w, const char *entry)
{
    const struct known *k = w ? find_known(w, entry) : NULL;
    return !k || k->settled;
}

size_t watch_n_watched(const struct watch *w)
{
    return w->n_watched;
}
