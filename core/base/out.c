/* Results on disk; see out.h. The temporary folder is beside the place, so the rename stays on one file
 * system. Its name is a random one: two programs that write to one place don't meet, and the second rename is
 * refused. */
#include "base/out.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 16

static enum status fail_errno(struct error *err, const char *shown, const char *what)
{
    enum status s = errno == ENOENT || errno == ENOTDIR     ? STATUS_NOT_FOUND
                    : errno == EEXIST || errno == ENOTEMPTY ? STATUS_EXISTS
                                                            : STATUS_IO;
    return fail(err, s, "%s: %s: %s", shown, what, strerror(errno));
}

static enum status taken(const struct out_place *o, struct error *err)
{
    return fail(err, STATUS_EXISTS, "%s: is there already: remove it, or name another place", o->path);
}

/* PATH into folder and last part; slashes at the end say nothing. */
static enum status split(struct out_place *o, char *folder, size_t folder_bytes, struct error *err)
{
    size_t n = strlen(o->path);
    while (n > 1 && o->path[n - 1] == '/')
        n--;
    size_t begin = n;
    while (begin > 0 && o->path[begin - 1] != '/')
        begin--;
    snprintf(folder, folder_bytes, "%.*s", begin ? (int)begin : 1, begin ? o->path : ".");
    bool fits = n - begin < sizeof o->name;
    snprintf(o->name, sizeof o->name, "%.*s", (int)(n - begin), o->path + begin);
    if (fits && o->name[0] && strcmp(o->name, ".") != 0 && strcmp(o->name, "..") != 0 &&
        strcmp(o->name, "/") != 0)
        return STATUS_OK;
    return fail(err, STATUS_INVALID, "'%s': expected the name of a new file or folder", o->path);
}

static enum status make_temp(struct out_place *o, struct error *err)
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t number;
        if (getrandom(&number, sizeof number, 0) != sizeof number)
            return fail_errno(err, o->path, "no random number");
        snprintf(o->temp, sizeof o->temp, ".%s.tmp-%08x", o->name, number);
        if (mkdirat(o->parent_fd, o->temp, 0777) == 0) {
            o->dir_fd = openat(o->parent_fd, o->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
            if (o->dir_fd >= 0)
                return STATUS_OK;
            enum status s = fail_errno(err, o->path, "can't open the temporary folder");
            unlinkat(o->parent_fd, o->temp, AT_REMOVEDIR);
            return s;
        }
        if (errno != EEXIST)
            break;
    }
    return fail_errno(err, o->path, "can't make a temporary folder beside it");
}

enum status out_begin(struct out_place *o, const char *path, struct error *err)
{
    char folder[sizeof o->path + 2];
    struct stat st;
    bool (*stop)(void) = o->stop;
    *o = (struct out_place){.parent_fd = -1, .dir_fd = -1, .stop = stop};
    if (snprintf(o->path, sizeof o->path, "%s", path) >= (int)sizeof o->path)
        return fail(err, STATUS_INVALID, "'%.60s…': the path has more than %zu bytes", path,
                    sizeof o->path - 1);
    enum status s = split(o, folder, sizeof folder, err);
    if (s != STATUS_OK)
        return s;
    o->parent_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->parent_fd < 0)
        return fail_errno(err, o->path, "can't open the folder that it goes into");
    if (fstatat(o->parent_fd, o->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        s = taken(o, err);
    else
        s = make_temp(o, err);
    if (s != STATUS_OK) {
        close(o->parent_fd);
        o->parent_fd = -1;
    }
    return s;
}

/* Not over what has appeared there meanwhile. File systems without that flag are asked first. */
static enum status move(const struct out_place *o, int from_fd, const char *from, struct error *err)
{
    struct stat st;
    int rc = renameat2(from_fd, from, o->parent_fd, o->name, RENAME_NOREPLACE);
    if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) {
        if (fstatat(o->parent_fd, o->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            return taken(o, err);
        rc = renameat(from_fd, from, o->parent_fd, o->name);
    }
    if (rc != 0)
        return errno == EEXIST ? taken(o, err) : fail_errno(err, o->path, "can't rename into place");
    return fsync(o->parent_fd) == 0 ? STATUS_OK : fail_errno(err, o->path, "can't sync its folder");
}

static void close_place(struct out_place *o)
{
    close(o->dir_fd);
    close(o->parent_fd);
    o->dir_fd = o->parent_fd = -1;
}

enum status out_commit_folder(struct out_place *o, struct error *err)
{
    require(o->parent_fd >= 0);
    if (fsync(o->dir_fd) != 0)
        return fail_errno(err, o->path, "can't sync");
    enum status s = move(o, o->parent_fd, o->temp, err);
    if (s == STATUS_OK)
        close_place(o);
    return s;
}

enum status out_commit_file(struct out_place *o, const char *name, struct error *err)
{
    require(o->parent_fd >= 0);
    enum status s = move(o, o->dir_fd, name, err);
    if (s != STATUS_OK)
        return s;
    unlinkat(o->parent_fd, o->temp, AT_REMOVEDIR);
    close_place(o);
    return STATUS_OK;
}

void out_abandon(struct out_place *o)
{
    if (o->parent_fd < 0)
        return;
    int fd = dup(o->dir_fd);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        unlinkat(o->dir_fd, e->d_name, 0); /* "." and ".." stay: they are folders */
    if (d)
        closedir(d);
    unlinkat(o->parent_fd, o->temp, AT_REMOVEDIR);
    close_place(o);
}

/* ---- files ---- */

enum status out_file_open(struct out_file *f, const struct out_place *o, const char *name, struct error *err)
{
    *f = (struct out_file){.place = o, .fd = -1};
    snprintf(f->shown, sizeof f->shown, "%s/%s", o->path, name);
    require(o->parent_fd >= 0 && !strchr(name, '/'));
    f->fd = openat(o->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    return f->fd >= 0 ? STATUS_OK : fail_errno(err, f->shown, "can't create");
}

enum status out_file_write(struct out_file *f, const void *bytes, size_t n, struct error *err)
{
    const char *p = bytes;
    if (f->place->stop && f->place->stop())
        return fail(err, STATUS_CANCELLED, "%s: interrupted, nothing was kept", f->place->path);
    while (n > 0) {
        ssize_t written = write(f->fd, p, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return fail_errno(err, f->shown, "can't write");
        p += written;
        n -= (size_t)written;
        f->n_bytes += (uint64_t)written;
    }
    return STATUS_OK;
}

enum status out_file_finish(struct out_file *f, struct error *err)
{
    int rc = fsync(f->fd);
    enum status s = rc == 0 ? STATUS_OK : fail_errno(err, f->shown, "can't sync");
    if (close(f->fd) != 0 && s == STATUS_OK)
        s = fail_errno(err, f->shown, "can't close");
    f->fd = -1;
    return s;
}

void out_file_close(struct out_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

enum status out_put(const struct out_place *o, const char *name, const void *bytes, size_t n,
                    struct error *err)
{
    struct out_file f;
    enum status s = out_file_open(&f, o, name, err);
    if (s == STATUS_OK)
        s = out_file_write(&f, bytes, n, err);
    if (s == STATUS_OK)
        s = out_file_finish(&f, err);
    out_file_close(&f);
    return s;
}
