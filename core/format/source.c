/* Opens the files of a model or an adapter.
 *
 * A base model belongs to the operator and is read in place. An adapter may be anybody's, and may be replaced
 * while it is read: each file is copied whole, between two looks at the same inode, all of them are looked at
 * once more when the last one was read, and nothing is parsed but the copies. Under a root, a file that is a
 * symbolic link is opened by the kernel's own confined lookup. */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#define CLOCK_TICK_NS 20000000 /* longer than any kernel's tick */

static enum status adopt_fd(struct file *f, int fd, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return fail(err, STATUS_INVALID, "%s: not a regular file", f->path);
    }
    f->fd = fd;
    f->size_bytes = (uint64_t)st.st_size;
    return STATUS_OK;
}

/* Resolves folder/name beneath root_fd: a link may lead anywhere inside, as in a Hugging Face cache. */
static enum status open_beneath(struct file *f, const struct private_copy *copy, const char *name,
                                struct error *err)
{
    char path[sizeof f->path];
    if (!path_join(path, sizeof path, copy->folder, name))
        return fail(err, STATUS_INVALID, "%s: the path is too long", f->path);
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;
    do
        fd = syscall(SYS_openat2, copy->root_fd, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    if (fd < 0 && errno == EXDEV)
        return fail(err, STATUS_INVALID, "%s: a link that leads outside the allowed folder", f->path);
    if (fd < 0)
        return fail(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: can't open: %s", f->path,
                    strerror(errno));
    return adopt_fd(f, (int)fd, err);
}

static enum status open_confined(struct file *f, int dir_fd, const char *shown_dir, const char *name,
                                 const struct private_copy *copy, struct error *err)
{
    *f = (struct file){.fd = -1};
    snprintf(f->path, sizeof f->path, "%s/%s", shown_dir, name);
    /* A plain name cannot leave the folder, so only links need the kernel's help. */
    if (strchr(name, '/') || strcmp(name, "..") == 0)
        return fail(err, STATUS_INVALID, "%s: expected a plain file name", f->path);
    int fd;
    do
        fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 && errno == ELOOP)
        return open_beneath(f, copy, name, err);
    if (fd < 0)
        return fail(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: can't open: %s", f->path,
                    strerror(errno));
    return adopt_fd(f, fd, err);
}

/* ---- a private copy */

static int64_t ns_of(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool take_state(int fd, struct copied_file *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return false;
    out->size_bytes = (uint64_t)st.st_size;
    out->device = st.st_dev;
    out->inode = st.st_ino;
    out->mtime_ns = ns_of(st.st_mtim);
    out->ctime_ns = ns_of(st.st_ctim);
    return true;
}

bool source_state(const struct source *s, struct copied_file *out)
{
    out->name[0] = '\0';
    return s->file.fd >= 0 && take_state(s->file.fd, out);
}

static bool is_same_state(const struct copied_file *a, const struct copied_file *b)
{
    return a->inode == b->inode && a->device == b->device && a->size_bytes == b->size_bytes &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

static enum status fail_changed(const char *shown, struct error *err)
{
    return fail(err, STATUS_UNAVAILABLE,
                "%s: changed while it was read; write adapters elsewhere and rename them into place", shown);
}

/* Clocks of file systems tick: a change within the tick of the one before leaves both times as they are. */
static bool is_recent(const struct copied_file *f)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t latest = f->mtime_ns > f->ctime_ns ? f->mtime_ns : f->ctime_ns;
    return ns_of(now) - latest < CLOCK_TICK_NS;
}

static enum status read_again(const struct source *s, struct error *err)
{
    char part[16384];
    for (uint64_t at = 0; at < s->file.size_bytes;) {
        size_t n = sizeof part;
        if (s->file.size_bytes - at < n)
            n = (size_t)(s->file.size_bytes - at);
        enum status st = file_pread(&s->file, at, part, n, err);
        if (st != STATUS_OK)
            return st;
        if (memcmp(part, s->copy + at, n) != 0)
            return fail_changed(s->file.path, err);
        at += n;
    }
    return STATUS_OK;
}

/* Between two looks at the same open file. A read that fails because the file was cut meanwhile is that. */
static enum status read_steadily(struct source *s, const struct copied_file *before, struct error *err)
{
    struct file *f = &s->file;
    struct copied_file after;
    bool again = is_recent(before);
    enum status st = file_pread(f, 0, s->copy, (size_t)f->size_bytes, err);
    if (st == STATUS_OK && again)
        st = read_again(s, err);
    if (!take_state(f->fd, &after) || !is_same_state(before, &after))
        return fail_changed(f->path, err);
    s->copy[f->size_bytes] = '\0';
    return st;
}

static enum status note(const struct private_copy *copy, const char *name, struct copied_file *state,
                        struct error *err)
{
    struct copied_files *c = copy->files;
    if (!c)
        return STATUS_OK;
    if (strlen(name) >= sizeof state->name)
        return fail(err, STATUS_INVALID, "%.80s...: the file's name is too long", name);
    snprintf(state->name, sizeof state->name, "%s", name);
    if (c->n == c->room) {
        size_t room = c->room ? c->room * 2 : 4;
        struct copied_file *items = mem_realloc(c->items, room * sizeof *items);
        if (!items)
            return fail(err, STATUS_NO_MEMORY, "%s: no memory", name);
        c->items = items;
        c->room = room;
    }
    c->items[c->n++] = *state;
    return STATUS_OK;
}

/* Refused before its memory is taken. */
static enum status check_limits(const struct private_copy *copy, const struct file *f, struct error *err)
{
    uint64_t total = f->size_bytes;
    for (size_t i = 0; copy->files && i < copy->files->n; i++)
        if (!u64_add(total, copy->files->items[i].size_bytes, &total))
            total = UINT64_MAX;
    if (f->size_bytes > copy->limit_bytes)
        return fail(err, STATUS_TOO_LARGE, "%s: %llu bytes, at most %llu are allowed", f->path,
                    (unsigned long long)f->size_bytes, (unsigned long long)copy->limit_bytes);
    if (copy->limit_total && total > copy->limit_total)
        return fail(err, STATUS_TOO_LARGE, "%s: with it %llu bytes in all, at most %llu are allowed", f->path,
                    (unsigned long long)total, (unsigned long long)copy->limit_total);
    return STATUS_OK;
}

static enum status make_copy(struct source *s, const char *name, const struct private_copy *copy,
                             struct error *err)
{
    struct file *f = &s->file;
    struct copied_file state = {.size_bytes = 0};
    enum status st = check_limits(copy, f, err);
    if (st != STATUS_OK)
        return st;
    if (!take_state(f->fd, &state) || state.size_bytes != f->size_bytes)
        return fail_changed(f->path, err);
    s->copy = mem_alloc((size_t)f->size_bytes + 1);
    if (!s->copy)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for %llu bytes", f->path,
                    (unsigned long long)f->size_bytes);
    st = read_steadily(s, &state, err);
    if (st == STATUS_OK)
        st = note(copy, name, &state, err);
    if (st != STATUS_OK)
        return st;
    if (copy->seen)
        copy->seen(copy->data, name, s->copy, (size_t)f->size_bytes);
    file_close(f);
    return STATUS_OK;
}

/* Opens as the copy was opened. */
static enum status open_for_copy(struct file *f, int dir_fd, const char *shown_dir, const char *name,
                                 const struct private_copy *copy, struct error *err)
{
    if (copy && copy->root_fd >= 0 && shown_dir)
        return open_confined(f, dir_fd, shown_dir, name, copy, err);
    return shown_dir ? file_open_at(f, dir_fd, shown_dir, name, err) : file_open(f, name, err);
}

static bool is_same_folder(const struct private_copy *copy, int dir_fd)
{
    struct stat held, now;
    int fd;
    if (copy->root_fd < 0)
        return true;
    bool same = folder_open(copy->root_fd, copy->folder, &fd, NULL) == STATUS_OK;
    if (!same)
        return false;
    same = fstat(dir_fd, &held) == 0 && fstat(fd, &now) == 0 && held.st_ino == now.st_ino &&
           held.st_dev == now.st_dev;
    close(fd);
    return same;
}

enum status private_copy_check(const struct private_copy *copy, int dir_fd, const char *shown_dir,
                               struct error *err)
{
    if (!is_same_folder(copy, dir_fd))
        return fail_changed(shown_dir, err);
    for (size_t i = 0; copy->files && i < copy->files->n; i++) {
        const struct copied_file *was = &copy->files->items[i];
        struct copied_file is;
        struct file f;
        if (open_for_copy(&f, dir_fd, shown_dir, was->name, copy, NULL) != STATUS_OK)
            return fail_changed(f.path, err);
        bool same = take_state(f.fd, &is) && is_same_state(was, &is);
        file_close(&f);
        if (!same)
            return fail_changed(f.path, err);
    }
    return STATUS_OK;
}

void copied_files_fini(struct copied_files *c)
{
    mem_free(c->items);
    *c = (struct copied_files){0};
}

enum status source_open(struct source *s, int dir_fd, const char *shown_dir, const char *name,
                        const struct private_copy *copy, struct error *err)
{
    s->copy = NULL;
    enum status st = open_for_copy(&s->file, dir_fd, shown_dir, name, copy, err);
    if (st == STATUS_OK && copy)
        st = make_copy(s, name, copy, err);
    if (st != STATUS_OK)
        source_close(s);
    return st;
}

void source_close(struct source *s)
{
    file_close(&s->file);
    mem_free(s->copy);
    s->copy = NULL;
}

enum status source_read(const struct source *s, uint64_t offset, void *dst, size_t n_bytes, struct error *err)
{
    if (!s->copy)
        return file_pread(&s->file, offset, dst, n_bytes, err);
    uint64_t end;
    if (!u64_add(offset, n_bytes, &end) || end > s->file.size_bytes)
        return fail(err, STATUS_FORMAT, "%s: cut short: bytes %llu + %zu wanted, the file has %llu",
                    s->file.path, (unsigned long long)offset, n_bytes,
                    (unsigned long long)s->file.size_bytes);
    if (n_bytes)
        memcpy(dst, s->copy + offset, n_bytes);
    return STATUS_OK;
}

enum status private_copy_read(const struct private_copy *copy, int dir_fd, const char *shown_dir,
                              const char *name, char **bytes, size_t *n_bytes, struct error *err)
{
    struct source s;
    enum status st = source_open(&s, dir_fd, shown_dir, name, copy, err);
    *bytes = NULL;
    if (st != STATUS_OK)
        return st;
    *bytes = s.copy; /* the memory is the caller's now; the file is closed already */
    *n_bytes = (size_t)s.file.size_bytes;
    return STATUS_OK;
}
