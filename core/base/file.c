/* Files and folders, read only. Every open answers with an error that names the path; every read is checked
 * against the size at open, so a file that shrinks meanwhile is an error and not a crash. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static enum status fail_errno(struct error *err, const char *shown, const char *what)
{
    enum status s = errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND
                    : errno == ENOMEM                   ? STATUS_NO_MEMORY
                                                        : STATUS_IO;
    return fail(err, s, "%s: %s: %s", shown, what, strerror(errno));
}

static void show(char *dst, size_t dst_bytes, const char *dir, const char *name)
{
    snprintf(dst, dst_bytes, "%s%s%s", dir ? dir : "", dir ? "/" : "", name);
}

static enum status adopt(struct file *f, int fd, struct error *err)
{
    struct stat st;
    if (fd < 0)
        return fail_errno(err, f->path, "can't open");
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return fail(err, STATUS_INVALID, "%s: not a regular file", f->path);
    }
    f->fd = fd;
    f->size_bytes = (uint64_t)st.st_size;
    return STATUS_OK;
}

static int open_retrying(int dir_fd, const char *name, int flags)
{
    int fd;
    do
        fd = openat(dir_fd, name, flags);
    while (fd < 0 && errno == EINTR);
    return fd;
}

enum status file_open(struct file *f, const char *path, struct error *err)
{
    *f = (struct file){.fd = -1};
    show(f->path, sizeof f->path, NULL, path);
    return adopt(f, open_retrying(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err);
}

/* No absolute path and no ".." step; links are the folder's owner's business. */
static bool is_plain_relative(const char *name)
{
    if (name[0] == '\0' || name[0] == '/')
        return false;
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
            return false;
    }
    return true;
}

enum status file_open_at(struct file *f, int dir_fd, const char *shown_dir, const char *name,
                         struct error *err)
{
    *f = (struct file){.fd = -1};
    show(f->path, sizeof f->path, shown_dir, name);
    if (!is_plain_relative(name))
        return fail(err, STATUS_INVALID, "%s: expected a plain relative path", f->path);
    return adopt(f, open_retrying(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err);
}

void file_close(struct file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

enum status file_pread(const struct file *f, uint64_t offset, void *dst, size_t n_bytes, struct error *err)
{
    uint64_t end;
    if (__builtin_add_overflow(offset, (uint64_t)n_bytes, &end) || end > f->size_bytes)
        return fail(err, STATUS_FORMAT, "%s: cut short: bytes %llu + %zu wanted, the file has %llu", f->path,
                    (unsigned long long)offset, n_bytes, (unsigned long long)f->size_bytes);
    unsigned char *p = dst;
    while (n_bytes) {
        ssize_t n = pread(f->fd, p, n_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(err, f->path, "can't read");
        if (n == 0)
            return fail(err, STATUS_FORMAT, "%s: cut short while reading, at byte %llu", f->path,
                        (unsigned long long)offset);
        p += n;
        offset += (uint64_t)n;
        n_bytes -= (size_t)n;
    }
    return STATUS_OK;
}

static enum status read_whole(struct file *f, size_t limit_bytes, struct buf *out, struct error *err)
{
    enum status s = STATUS_OK;
    if (f->size_bytes > limit_bytes)
        s = fail(err, STATUS_TOO_LARGE, "%s: %llu bytes, at most %zu are allowed", f->path,
                 (unsigned long long)f->size_bytes, limit_bytes);
    else if (!buf_reserve(out, (size_t)f->size_bytes))
        s = fail(err, STATUS_NO_MEMORY, "%s: no memory for %llu bytes", f->path,
                 (unsigned long long)f->size_bytes);
    else
        s = file_pread(f, 0, out->data + out->length, (size_t)f->size_bytes, err);
    if (s == STATUS_OK) {
        out->length += (size_t)f->size_bytes;
        out->data[out->length] = '\0';
    }
    file_close(f);
    return s;
}

enum status file_read_all(const char *path, size_t limit_bytes, struct buf *out, struct error *err)
{
    struct file f;
    enum status s = file_open(&f, path, err);
    return s == STATUS_OK ? read_whole(&f, limit_bytes, out, err) : s;
}

enum status file_read_all_at(int dir_fd, const char *shown_dir, const char *name, size_t limit_bytes,
                             struct buf *out, struct error *err)
{
    struct file f;
    enum status s = file_open_at(&f, dir_fd, shown_dir, name, err);
    return s == STATUS_OK ? read_whole(&f, limit_bytes, out, err) : s;
}

enum status folder_open(int root_fd, const char *path, int *dir_fd, struct error *err)
{
    if (root_fd < 0) {
        *dir_fd = open_retrying(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return *dir_fd < 0 ? fail_errno(err, path, "can't open the folder") : STATUS_OK;
    }
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;
    do
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    if (fd < 0 && errno == EXDEV)
        return fail(err, STATUS_INVALID, "%s: leads outside the allowed folder", path);
    if (fd < 0)
        return fail_errno(err, path, "can't open the folder");
    *dir_fd = (int)fd;
    return STATUS_OK;
}

bool file_exists_at(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, 0) == 0 && S_ISREG(st.st_mode);
}

bool file_exists(const char *path)
{
    return file_exists_at(AT_FDCWD, path);
}

bool path_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_join(char *dst, size_t dst_bytes, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    int written = snprintf(dst, dst_bytes, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return written >= 0 && (size_t)written < dst_bytes;
}
