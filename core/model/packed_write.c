/* Writes packed files, beside a server that serves already: in blocks, each looked at for a wish to stop,
 * under a temporary name that becomes the file's when everything is on the disk. Who writes holds a lock on
 * the temporary file, so two programs don't write the same one, and what a killed one left is written over.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "model_inner.h"

#define FLUSH_BYTES ((uint64_t)64 << 20) /* so that the end has little left to sync */

struct writing {
    const struct model *m;
    const struct packed_write_options *o;
    char temp[600];
    int fd;
    struct packed_header header;
    uint8_t *tables; /* as in struct packed_map */
    size_t tables_bytes;
    struct packed_file_part *parts;
    uint64_t *sums;
    uint32_t n_blocks;
    uint8_t *block; /* [PACKED_BLOCK_BYTES] */
};

static enum status fail_errno(const struct writing *w, const char *what, struct error *err)
{
    return fail(err, STATUS_IO, "%s: %s: %s", w->o->path, what, strerror(errno));
}

static uint64_t aligned(uint64_t n)
{
    return (n + PACKED_ALIGNMENT - 1) / PACKED_ALIGNMENT * PACKED_ALIGNMENT;
}

static enum status lay_out(struct writing *w, struct error *err)
{
    const struct packed_parts *from = &w->m->parts;
    uint64_t data_bytes = 0;
    packed_header_init(&w->header, &w->m->key);
    memcpy(w->header.digest, w->m->info.digest, sizeof w->header.digest);
    for (uint32_t i = 0; i < from->n; i++)
        data_bytes += aligned(from->items[i].size_bytes);
    w->n_blocks = packed_n_blocks(data_bytes);
    w->header.n_parts = from->n;
    w->header.data_at = packed_data_at(from->n, w->n_blocks);
    w->header.file_bytes = w->header.data_at + data_bytes;
    w->tables_bytes = (size_t)(w->header.data_at - PACKED_HEADER_BYTES);
    w->tables = mem_zalloc(w->tables_bytes);
    w->block = mem_alloc(PACKED_BLOCK_BYTES);
    if (!w->tables || !w->block)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for tables of %zu bytes", w->o->path,
                    w->tables_bytes);
    w->parts = (void *)w->tables;
    w->sums = (void *)(w->tables + from->n * sizeof *w->parts);
    uint64_t at = w->header.data_at;
    for (uint32_t i = 0; i < from->n; i++) {
        const struct packed_part *p = &from->items[i];
        w->parts[i] = (struct packed_file_part){
            .offset = at, .size_bytes = p->size_bytes, .type = p->type, .rows = p->rows, .cols = p->cols};
        at += aligned(p->size_bytes);
    }
    return STATUS_OK;
}

/* ---- the temporary file ---- */

static bool is_still_there(const struct writing *w)
{
    struct stat held, named;
    return fstat(w->fd, &held) == 0 && lstat(w->temp, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

static enum status open_temp(struct writing *w, struct error *err)
{
    if (snprintf(w->temp, sizeof w->temp, "%s.tmp", w->o->path) >= (int)sizeof w->temp)
        return fail(err, STATUS_INVALID, "%.60s…: the path is too long", w->o->path);
    w->fd = open(w->temp, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (w->fd < 0)
        return fail_errno(w, "can't make a temporary file beside it", err);
    struct stat st;
    if (fstat(w->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return fail(err, STATUS_INVALID, "%s: is not a file of ours", w->temp);
    /* The lock first: what stands in there may be somebody's work. */
    if (flock(w->fd, LOCK_EX | LOCK_NB) != 0 || !is_still_there(w))
        return fail(err, STATUS_CONFLICT, "%s: another process is writing it", w->o->path);
    if (fchmod(w->fd, st.st_mode & 0755) != 0 || ftruncate(w->fd, 0) != 0)
        return fail_errno(w, "can't empty its temporary file", err);
    return STATUS_OK;
}

/* Room for all of it, and a twentieth of the disk left to others; taken at once where the file system can. */
static enum status take_room(const struct writing *w, struct error *err)
{
    struct statvfs v;
    if (fstatvfs(w->fd, &v) != 0)
        return fail_errno(w, "can't be asked for free space", err);
    uint64_t left = (uint64_t)v.f_bavail * v.f_frsize, spare = (uint64_t)v.f_blocks * v.f_frsize / 20;
    if (left < spare || left - spare < w->header.file_bytes)
        return fail(err, STATUS_FULL, "%s: takes %llu bytes and leaves 5 %% of the disk free, %llu are left",
                    w->o->path, (unsigned long long)w->header.file_bytes, (unsigned long long)left);
    if (fallocate(w->fd, 0, 0, (off_t)w->header.file_bytes) != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        return fail_errno(w, "no room", err);
    return STATUS_OK;
}

static enum status put(const struct writing *w, const void *bytes, size_t n, uint64_t at, struct error *err)
{
    const uint8_t *p = bytes;
    while (n > 0) {
        ssize_t written = pwrite(w->fd, p, n, (off_t)at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return fail_errno(w, "can't write", err);
        p += written;
        at += (uint64_t)written;
        n -= (size_t)written;
    }
    return STATUS_OK;
}

/* ---- the data ---- */

/* Where the next bytes come from: `done` bytes of part `part` have been taken, its padding included. */
struct cursor {
    uint32_t part;
    uint64_t done;
};

static size_t fill_block(const struct writing *w, struct cursor *c)
{
    const struct packed_parts *from = &w->m->parts;
    size_t n = 0;
    while (n < PACKED_BLOCK_BYTES && c->part < from->n) {
        const struct packed_part *p = &from->items[c->part];
        uint64_t room = PACKED_BLOCK_BYTES - n, end = aligned(p->size_bytes);
        uint64_t take = end - c->done < room ? end - c->done : room;
        uint64_t real = c->done < p->size_bytes ? p->size_bytes - c->done : 0;
        real = real < take ? real : take;
        if (real)
            memcpy(w->block + n, (const uint8_t *)p->data + c->done, real);
        memset(w->block + n + real, 0, take - real);
        n += take;
        c->done += take;
        if (c->done == end)
            *c = (struct cursor){.part = c->part + 1};
    }
    return n;
}

static enum status write_data(struct writing *w, struct error *err)
{
    struct cursor c = {0};
    uint64_t at = w->header.data_at;
    for (uint32_t i = 0; i < w->n_blocks; i++) {
        if (w->o->stop && w->o->stop(w->o->data))
            return fail(err, STATUS_CANCELLED, "%s: interrupted, nothing was kept", w->o->path);
        size_t n = fill_block(w, &c);
        w->sums[i] = packed_sum(w->block, n);
        enum status s = put(w, w->block, n, at, err);
        if (s != STATUS_OK)
            return s;
        at += n;
        if ((at - w->header.data_at) % FLUSH_BYTES == 0)
            (void)sync_file_range(w->fd, (off_t)(at - FLUSH_BYTES), FLUSH_BYTES, SYNC_FILE_RANGE_WRITE);
    }
    return STATUS_OK;
}

static enum status sync_folder(const struct writing *w, struct error *err)
{
    char folder[sizeof w->temp];
    snprintf(folder, sizeof folder, "%s", w->o->path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    enum status s = rc == 0 ? STATUS_OK : fail_errno(w, "can't sync its folder", err);
    if (fd >= 0)
        close(fd);
    return s;
}

/* Header and tables come last, and the name when the disk has all of it. */
static enum status finish(struct writing *w, struct error *err)
{
    w->header.tables_sum = packed_sum(w->tables, w->tables_bytes);
    packed_header_seal(&w->header);
    enum status s = put(w, w->tables, w->tables_bytes, PACKED_HEADER_BYTES, err);
    if (s == STATUS_OK)
        s = put(w, &w->header, sizeof w->header, 0, err);
    if (s == STATUS_OK && fsync(w->fd) != 0)
        s = fail_errno(w, "can't sync", err);
    if (s == STATUS_OK && rename(w->temp, w->o->path) != 0)
        s = fail_errno(w, "can't rename into place", err);
    return s == STATUS_OK ? sync_folder(w, err) : s;
}

enum status model_write_packed(const struct model *m, const struct packed_write_options *o, struct error *err)
{
    struct writing w = {.m = m, .o = o, .fd = -1};
    require(!m->merged && m->parts.n > 0);
    enum status s = lay_out(&w, err);
    if (s == STATUS_OK)
        s = open_temp(&w, err);
    bool ours = s == STATUS_OK; /* the lock is held: nobody else's file is removed */
    if (s == STATUS_OK)
        s = take_room(&w, err);
    if (s == STATUS_OK)
        s = write_data(&w, err);
    if (s == STATUS_OK)
        s = finish(&w, err);
    if (ours && s != STATUS_OK)
        unlink(w.temp);
    if (w.fd >= 0)
        close(w.fd);
    mem_free(w.tables);
    mem_free(w.block);
    return s;
}
