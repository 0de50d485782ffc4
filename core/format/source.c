/* Opens the files of a model or an adapter.
 *
 * A base model belongs to the operator and is read in place. An adapter may be anybody's, and may be replaced
 * while it is read: it is copied whole, between two looks at the same inode, and nothing is parsed but the
 * copy. Under a root, a file that is a symbolic link is opened by the kernel's own confined lookup. */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

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

static bool is_same_state(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static enum status make_copy(struct source *s, const char *name, const struct private_copy *copy,
                             struct error *err)
{
    struct file *f = &s->file;
    struct stat before, after;
    if (f->size_bytes > copy->limit_bytes)
        return fail(err, STATUS_TOO_LARGE, "%s: %llu bytes, at most %llu are allowed", f->path,
                    (unsigned long long)f->size_bytes, (unsigned long long)copy->limit_bytes);
    if (fstat(f->fd, &before) != 0 || (uint64_t)before.st_size != f->size_bytes)
        return fail(err, STATUS_CONFLICT, "%s: changed while it was opened; try again", f->path);
    s->copy = mem_alloc((size_t)f->size_bytes + 1);
    if (!s->copy)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for %llu bytes", f->path,
                    (unsigned long long)f->size_bytes);
    enum status st = file_pread(f, 0, s->copy, (size_t)f->size_bytes, err);
    if (st != STATUS_OK)
        return st;
    s->copy[f->size_bytes] = '\0';
    if (fstat(f->fd, &after) != 0 || !is_same_state(&before, &after))
        return fail(err, STATUS_CONFLICT,
                    "%s: changed while it was read; write adapters elsewhere and rename them into place",
                    f->path);
    if (copy->seen)
        copy->seen(copy->data, name, s->copy, (size_t)f->size_bytes);
    file_close(f);
    return STATUS_OK;
}

enum status source_open(struct source *s, int dir_fd, const char *shown_dir, const char *name,
                        const struct private_copy *copy, struct error *err)
{
    s->copy = NULL;
    enum status st;
    if (copy && copy->root_fd >= 0 && shown_dir)
        st = open_confined(&s->file, dir_fd, shown_dir, name, copy, err);
    else if (shown_dir)
        st = file_open_at(&s->file, dir_fd, shown_dir, name, err);
    else
        st = file_open(&s->file, name, err);
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
