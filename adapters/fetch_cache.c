/* The local cache of remote adapters.
 *
 *     DIR/entries/KEY/…        a whole adapter, named by its content; never changes
 *     DIR/partial/ID/…         one that is being fetched from the source ID; ".reserve" is as long as it will
 * be DIR/urls/ID.json         which entry a source was, and the tags to ask with whether it still is
 *
 * A kill at any moment leaves a state that is right: files are written and synced in partial/, urls/ names
 * the entry that they will be, and the folder is renamed to it; a name without its entry is ignored. Locks
 * are flock(2) on the folders themselves, so they end with their process: a reader holds a shared one on its
 * entry, a writer an exclusive one on its partial folder, whoever makes room one on DIR. What is locked by
 * others is not removed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fetch.h"
#include "format.h"

#define RECORD_BYTES_MAX ((size_t)4 << 20)
#define PARTIAL_KEPT_S (24 * 3600) /* to go on with */
#define RESERVE ".reserve"

static enum status io_error(const struct cache *c, const char *what, struct error *err)
{
    return fail(err, STATUS_IO, "cache %s: %s: %s (--source-cache)", c->path, what, strerror(errno));
}

static int open_folder(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

static bool make_folders(const char *path)
{
    char part[400];
    for (size_t i = 1; path[i - 1]; i++)
        if (path[i] == '/' || path[i] == '\0') {
            snprintf(part, sizeof part, "%.*s", (int)i, path);
            if (mkdir(part, 0700) != 0 && errno != EEXIST)
                return false;
        }
    return true;
}

static int make_folder(int at, const char *name)
{
    if (mkdirat(at, name, 0700) != 0 && errno != EEXIST)
        return -1;
    return open_folder(at, name);
}

enum status cache_open(const struct source_options *o, struct cache *c, struct error *err)
{
    *c = (struct cache){.dir_fd = -1, .entries_fd = -1, .partial_fd = -1, .urls_fd = -1};
    if (!o->cache_dir)
        return fail(err, STATUS_INVALID, "no place for a cache of sources: give --source-cache DIR");
    /* Paths below it must fit where adapters' paths are kept. */
    if (strlen(o->cache_dir) > 200)
        return fail(err, STATUS_INVALID, "--source-cache: a path of more than 200 bytes");
    snprintf(c->path, sizeof c->path, "%s", o->cache_dir);
    c->limit_bytes = o->cache_bytes_max;
    if (!make_folders(c->path))
        return io_error(c, "can't be made", err);
    c->dir_fd = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->dir_fd >= 0) {
        c->entries_fd = make_folder(c->dir_fd, "entries");
        c->partial_fd = make_folder(c->dir_fd, "partial");
        c->urls_fd = make_folder(c->dir_fd, "urls");
    }
    if (c->dir_fd >= 0 && c->entries_fd >= 0 && c->partial_fd >= 0 && c->urls_fd >= 0)
        return STATUS_OK;
    enum status s = io_error(c, "can't be opened", err);
    cache_close(c);
    return s;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void cache_close(struct cache *c)
{
    close_fd(&c->dir_fd);
    close_fd(&c->entries_fd);
    close_fd(&c->partial_fd);
    close_fd(&c->urls_fd);
}

/* ---- walking folders */

struct listing {
    DIR *dir;
};

static bool list_begin(struct listing *l, int fd)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    l->dir = own >= 0 ? fdopendir(own) : NULL;
    if (!l->dir && own >= 0)
        close(own);
    return l->dir != NULL;
}

static const char *list_next(struct listing *l)
{
    const struct dirent *e;
    while ((e = readdir(l->dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return e->d_name;
    closedir(l->dir);
    l->dir = NULL;
    return NULL;
}

/* Entries and partial folders hold plain files only. */
static void empty_folder(int fd)
{
    struct listing l;
    const char *name;
    if (list_begin(&l, fd))
        while ((name = list_next(&l)) != NULL)
            unlinkat(fd, name, 0);
}

/* Bytes of a folder: what lies there, or what is reserved for it. */
static uint64_t folder_bytes(int fd)
{
    struct listing l;
    struct stat st;
    const char *name;
    uint64_t sum = 0, reserved = 0;
    if (!list_begin(&l, fd))
        return 0;
    while ((name = list_next(&l)) != NULL) {
        if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        if (strcmp(name, RESERVE) == 0)
            reserved = (uint64_t)st.st_size;
        else
            sum += (uint64_t)st.st_size;
    }
    return sum > reserved ? sum : reserved;
}

static bool is_same_folder(int at, const char *name, int fd)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstatat(at, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

/* ---- records and leases */

static bool is_key(const char *s)
{
    return s && strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

json_t *cache_find(const struct cache *c, const char *id)
{
    char name[64];
    json_t *record = NULL;
    snprintf(name, sizeof name, "%s.json", id);
    if (json_read_at(c->urls_fd, c->path, name, RECORD_BYTES_MAX, &record, NULL) != STATUS_OK)
        return NULL;
    if (is_key(json_string_value(json_object_get(record, "entry"))) &&
        json_is_array(json_object_get(record, "files")))
        return record;
    json_decref(record);
    return NULL;
}

static bool is_plain_name(const char *s)
{
    return s && s[0] && s[0] != '.' && strlen(s) < FETCH_NAME_MAX && !strchr(s, '/');
}

static bool files_are_there(int fd, const json_t *record)
{
    const json_t *files = json_object_get(record, "files");
    struct stat st;
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *f = json_array_get(files, i);
        const char *name = json_string_value(json_object_get(f, "name"));
        json_int_t bytes = json_integer_value(json_object_get(f, "bytes"));
        if (!is_plain_name(name) || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode) || st.st_size != bytes)
            return false;
    }
    return json_array_size(files) > 0;
}

int cache_lease(const struct cache *c, const json_t *record)
{
    const char *key = json_string_value(json_object_get(record, "entry"));
    int fd = open_folder(c->entries_fd, key);
    if (fd < 0)
        return -1;
    /* Whoever removes an entry takes an exclusive lock and renames it first. */
    if (flock(fd, LOCK_SH) == 0 && is_same_folder(c->entries_fd, key, fd) && files_are_there(fd, record)) {
        futimens(fd, NULL);
        return fd;
    }
    close(fd);
    return -1;
}

static enum status write_text(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t m = write(fd, text, n);
        if (m < 0 && errno == EINTR)
            continue;
        if (m <= 0)
            return STATUS_IO;
        text += m;
        n -= (size_t)m;
    }
    return fsync(fd) == 0 ? STATUS_OK : STATUS_IO;
}

enum status cache_record(const struct cache *c, const char *id, const json_t *record, struct error *err)
{
    char name[64], temporary[80];
    uint64_t salt = 0;
    gnutls_rnd(GNUTLS_RND_NONCE, &salt, sizeof salt);
    snprintf(name, sizeof name, "%s.json", id);
    snprintf(temporary, sizeof temporary, "%s.%016" PRIx64 ".tmp", id, salt);
    char *text = json_dumps(record, JSON_COMPACT | JSON_SORT_KEYS);
    int fd = openat(c->urls_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    enum status s = text && fd >= 0 ? write_text(fd, text, strlen(text)) : STATUS_IO;
    free(text); /* jansson's */
    close_fd(&fd);
    if (s == STATUS_OK && renameat(c->urls_fd, temporary, c->urls_fd, name) == 0 && fsync(c->urls_fd) == 0)
        return STATUS_OK;
    s = io_error(c, "can't be written", err);
    unlinkat(c->urls_fd, temporary, 0);
    return s;
}

/* ---- the partial folder */

enum status cache_begin(const struct cache *c, const struct remote *r, int64_t deadline_ns, int *fd,
                        struct error *err)
{
    for (;;) {
        *fd = make_folder(c->partial_fd, r->id);
        if (*fd < 0)
            return io_error(c, "can't be written", err);
        bool locked = flock(*fd, LOCK_EX | LOCK_NB) == 0;
        if (!locked && errno != EWOULDBLOCK && errno != EINTR) {
            enum status s = io_error(c, "can't be locked", err);
            close_fd(fd);
            return s;
        }
        /* Another one may have finished it, and moved it away, while we opened it. */
        if (locked && is_same_folder(c->partial_fd, r->id, *fd))
            return STATUS_OK;
        close_fd(fd);
        if (!locked && !fetch_sleep(r->options, 50, deadline_ns))
            return fail(err, STATUS_TIMEOUT, "%.300s: another download of it has not come to an end",
                        r->shown);
    }
}

void cache_abandon(const struct cache *c, const char *id, int *fd)
{
    if (*fd < 0)
        return;
    empty_folder(*fd);
    unlinkat(c->partial_fd, id, AT_REMOVEDIR);
    close_fd(fd);
}

static bool is_listed(const json_t *record, const char *name)
{
    const json_t *files = json_object_get(record, "files");
    for (size_t i = 0; i < json_array_size(files); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(files, i), "name")), name) == 0)
            return true;
    return false;
}

static void remove_others(int fd, const json_t *record)
{
    struct listing l;
    const char *name;
    if (list_begin(&l, fd))
        while ((name = list_next(&l)) != NULL)
            if (!is_listed(record, name))
                unlinkat(fd, name, 0);
}

/* Removes an entry whose files are of other sizes than their names stand for. One that is whole by now, or in
 * somebody's hands, stays: another source of the same bytes has just put it there. */
static void remove_damaged(const struct cache *c, const char *key, const json_t *record)
{
    int fd = open_folder(c->entries_fd, key);
    bool ours = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && is_same_folder(c->entries_fd, key, fd);
    if (ours && !files_are_there(fd, record)) {
        empty_folder(fd);
        unlinkat(c->entries_fd, key, AT_REMOVEDIR);
    }
    close_fd(&fd);
}

enum status cache_publish(const struct cache *c, const char *id, const json_t *record, int *fd,
                          struct error *err)
{
    const char *key = json_string_value(json_object_get(record, "entry"));
    remove_others(*fd, record);
    if (!files_are_there(*fd, record) || fsync(*fd) != 0)
        return io_error(c, "what was just written isn't there", err);
    for (int i = 0; i < 3; i++) {
        int there = cache_lease(c, record);
        if (there >= 0) { /* the same bytes came from elsewhere, or before */
            cache_abandon(c, id, fd);
            *fd = there;
            return STATUS_OK;
        }
        if (renameat(c->partial_fd, id, c->entries_fd, key) == 0) {
            fsync(c->entries_fd);
            futimens(*fd, NULL);
            /* Not atomic: whoever makes room might get in between. Then it is gone, and so are we. */
            if (flock(*fd, LOCK_SH) == 0 && is_same_folder(c->entries_fd, key, *fd))
                return STATUS_OK;
            break;
        }
        if (errno != ENOTEMPTY && errno != EEXIST)
            break;
        remove_damaged(c, key, record);
    }
    return io_error(c, "the entry can't be kept", err);
}

/* ---- room */

struct item {
    char name[40];
    bool partial;
    bool gone;
    int64_t used_s;
    uint64_t bytes;
};

struct items {
    struct item *list;
    size_t n, capacity;
    uint64_t bytes;
};

static bool add_item(struct items *all, int at, const char *name, bool partial)
{
    struct stat st;
    int fd = strlen(name) < sizeof all->list->name ? open_folder(at, name) : -1;
    if (fd < 0)
        return true; /* nothing of ours, or gone meanwhile */
    if (all->n == all->capacity) {
        size_t capacity = all->capacity ? 2 * all->capacity : 64;
        struct item *more = mem_realloc(all->list, capacity * sizeof *more);
        if (!more) {
            close(fd);
            return false;
        }
        all->list = more;
        all->capacity = capacity;
    }
    struct item *i = &all->list[all->n];
    *i = (struct item){.partial = partial, .bytes = folder_bytes(fd)};
    snprintf(i->name, sizeof i->name, "%s", name);
    i->used_s = fstat(fd, &st) == 0 ? st.st_mtim.tv_sec : 0;
    close(fd);
    all->n++;
    all->bytes += i->bytes;
    return true;
}

static bool list_items(const struct cache *c, struct items *all)
{
    struct listing l;
    const char *name;
    bool ok = true;
    if (list_begin(&l, c->entries_fd))
        while ((name = list_next(&l)) != NULL)
            ok &= add_item(all, c->entries_fd, name, false);
    if (list_begin(&l, c->partial_fd))
        while ((name = list_next(&l)) != NULL)
            ok &= add_item(all, c->partial_fd, name, true);
    return ok;
}

/* Half-made ones first, then the least recently used. */
static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->partial != y->partial)
        return x->partial ? -1 : 1;
    if (x->used_s != y->used_s)
        return x->used_s < y->used_s ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* False: someone reads or writes it. */
static bool remove_item(const struct cache *c, struct items *all, struct item *i)
{
    char aside[64];
    int at = i->partial ? c->partial_fd : c->entries_fd, fd = open_folder(at, i->name);
    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || !is_same_folder(at, i->name, fd)) {
        close(fd);
        return false;
    }
    /* Out of sight at once, so that nobody finds half of it. */
    snprintf(aside, sizeof aside, ".%s", i->name);
    bool moved = renameat(at, i->name, c->partial_fd, aside) == 0;
    if (moved) {
        empty_folder(fd);
        unlinkat(c->partial_fd, aside, AT_REMOVEDIR);
    }
    close(fd);
    if (!moved)
        return false;
    all->bytes -= i->bytes;
    i->gone = true;
    return true;
}

static void remove_stale(const struct cache *c, struct items *all)
{
    int64_t now_s = clock_wall_ms() / 1000;
    for (size_t i = 0; i < all->n; i++) {
        struct item *it = &all->list[i];
        if (it->partial && (it->name[0] == '.' || it->used_s < now_s - PARTIAL_KEPT_S))
            remove_item(c, all, it);
    }
}

/* Down to `limit_bytes`; `id` is not touched. */
static void make_room(const struct cache *c, struct items *all, const char *id, uint64_t limit_bytes)
{
    if (all->n)
        qsort(all->list, all->n, sizeof *all->list, compare_items);
    remove_stale(c, all);
    for (size_t i = 0; i < all->n && all->bytes > limit_bytes; i++)
        if (!all->list[i].gone && !(all->list[i].partial && strcmp(all->list[i].name, id) == 0))
            remove_item(c, all, &all->list[i]);
}

static enum status note_reserve(const struct cache *c, const char *id, uint64_t bytes, struct error *err)
{
    int dir = open_folder(c->partial_fd, id);
    int fd = dir < 0 ? -1 : openat(dir, RESERVE, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)bytes) == 0;
    enum status s = ok ? STATUS_OK : io_error(c, "can't be written", err);
    close_fd(&fd);
    close_fd(&dir);
    return s;
}

enum status cache_reserve(const struct cache *c, const char *id, uint64_t bytes, struct error *err)
{
    struct items all = {0};
    if (bytes > c->limit_bytes)
        return fail(err, STATUS_FULL,
                    "%" PRIu64 " bytes don't fit into the cache of %" PRIu64 " (--source-cache-limit)", bytes,
                    c->limit_bytes);
    if (flock(c->dir_fd, LOCK_EX) != 0)
        return io_error(c, "can't be locked", err);
    enum status s = STATUS_OK;
    uint64_t own = 0;
    if (!list_items(c, &all))
        s = fail(err, STATUS_NO_MEMORY, "no memory to look at the cache");
    for (size_t i = 0; i < all.n; i++)
        if (all.list[i].partial && strcmp(all.list[i].name, id) == 0)
            own = all.list[i].bytes;
    if (s == STATUS_OK) {
        make_room(c, &all, id, c->limit_bytes - bytes + own);
        if (all.bytes - own + bytes > c->limit_bytes)
            s = fail(err, STATUS_FULL,
                     "the cache of %" PRIu64 " bytes has no room for %" PRIu64 ": what lies there is in use "
                     "(--source-cache-limit)",
                     c->limit_bytes, bytes);
        else
            s = note_reserve(c, id, bytes, err);
    }
    flock(c->dir_fd, LOCK_UN);
    mem_free(all.list);
    return s;
}

/* Records whose entry is gone, and what a kill left of one that was being written. */
static void sweep_records(const struct cache *c)
{
    struct listing l;
    struct stat st;
    const char *name;
    int64_t now_s = clock_wall_ms() / 1000;
    if (!list_begin(&l, c->urls_fd))
        return;
    while ((name = list_next(&l)) != NULL) {
        char id[40];
        size_t n = strcspn(name, ".");
        snprintf(id, sizeof id, "%.*s", n < sizeof id ? (int)n : 0, name);
        bool is_record = strcmp(name + n, ".json") == 0;
        json_t *record = is_record ? cache_find(c, id) : NULL;
        const char *key = json_string_value(json_object_get(record, "entry"));
        bool dead = is_record ? !key || fstatat(c->entries_fd, key, &st, 0) != 0
                              : fstatat(c->urls_fd, name, &st, 0) == 0 && st.st_mtim.tv_sec < now_s - 600;
        if (dead)
            unlinkat(c->urls_fd, name, 0);
        json_decref(record);
    }
}

enum status cache_sweep(const struct cache *c, struct error *err)
{
    struct items all = {0};
    if (flock(c->dir_fd, LOCK_EX) != 0)
        return io_error(c, "can't be locked", err);
    enum status s =
        list_items(c, &all) ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "no memory to look at the cache");
    if (s == STATUS_OK) {
        make_room(c, &all, "", c->limit_bytes);
        sweep_records(c);
    }
    flock(c->dir_fd, LOCK_UN);
    mem_free(all.list);
    return s;
}
