/* What lies beside an adapter: read by the same rules as its own files, but no part of its digest; only its
 * behaviour is. */
#include "sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

struct beside {
    char *text; /* NUL-terminated */
    size_t n_bytes;
    char shown[1200]; /* its path, for messages */
};

void sidecar_name(const struct opened *o, const char *name, char *dst, size_t dst_bytes)
{
    snprintf(dst, dst_bytes, "%s%s%s", o->file ? o->file : "", o->file ? "." : "", name);
}

static enum status read_beside(const struct opened *o, const char *name, size_t limit_bytes,
                               struct beside *out, struct error *err)
{
    char full[600];
    struct private_copy copy = o->copy;
    copy.limit_bytes = limit_bytes;
    copy.limit_total = 0;
    copy.files = NULL;
    copy.seen = NULL;
    sidecar_name(o, name, full, sizeof full);
    snprintf(out->shown, sizeof out->shown, "%s/%s", o->folder, full);
    return private_copy_read(&copy, o->dir_fd, o->folder, full, &out->text, &out->n_bytes, err);
}

enum status sidecar_bundle(const struct opened *o, struct adapter_bundle **out, struct error *err)
{
    char name[600], shown[1200];
    char *text = NULL;
    size_t n_bytes;
    struct private_copy copy = o->copy; /* its `seen` hashes */
    *out = NULL;
    copy.limit_bytes = BUNDLE_BYTES_MAX;
    sidecar_name(o, BUNDLE_FILE, name, sizeof name);
    snprintf(shown, sizeof shown, "%s/%s", o->folder, name);
    enum status s = private_copy_read(&copy, o->dir_fd, o->folder, name, &text, &n_bytes, err);
    if (s == STATUS_OK)
        s = bundle_parse(text, n_bytes, shown, out, err);
    mem_free(text);
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

enum status sidecar_stamp(const struct opened *o, struct base_sketch *out, struct error *err)
{
    struct beside b;
    enum status s = read_beside(o, STAMP_FILE, STAMP_BYTES_MAX, &b, err);
    if (s == STATUS_OK)
        s = stamp_parse(b.text, b.n_bytes, b.shown, out, err);
    mem_free(b.text);
    return s;
}

enum status sidecar_probes(const struct opened *o, const struct probes_rules *rules, struct own_probes *out,
                           struct error *err)
{
    struct beside b;
    *out = (struct own_probes){0};
    enum status s = read_beside(o, PROBES_FILE, PROBES_BYTES_MAX, &b, err);
    if (s == STATUS_OK)
        s = own_probes_parse(b.text, b.n_bytes, b.shown, rules, out, err);
    mem_free(b.text);
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

/* Without a tokenizer: any text is taken for a token. */
static uint32_t one_token(void *data, const char *text, size_t n_bytes, int32_t *tokens, uint32_t n_max)
{
    (void)data, (void)text;
    if (n_max > 0)
        tokens[0] = 0;
    return n_bytes > 0 && n_max > 0;
}

enum status sidecars_look(const struct opened *o, struct adapter_report *report, struct error *err)
{
    struct base_sketch stamp = {.n_spots = 0};
    struct own_probes own;
    const struct probes_rules rules = {INT32_MAX, one_token, NULL};
    report->base = (struct base_match){.outcome = BASE_UNCHECKED};
    enum status s = sidecar_stamp(o, &stamp, err);
    if (s == STATUS_OK) {
        report->base.stamped = true;
        snprintf(report->base.how, sizeof report->base.how, "stamped for %.100s (%s, %s, %u layers of %u)",
                 stamp.name[0] ? stamp.name : "a base without a name", stamp.weight_type,
                 stamp.shape.model_type, stamp.shape.n_layers, stamp.shape.hidden_size);
    } else if (s == STATUS_NOT_FOUND) {
        s = STATUS_OK;
    }
    base_sketch_fini(&stamp);
    return s == STATUS_OK ? sidecar_probes(o, &rules, &own, err) : s;
}

/* ---- writing the stamp */

static bool write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t written = write(fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        n -= (size_t)written;
    }
    return fsync(fd) == 0;
}

/* By a new file's rename into the place of the old one. */
static enum status replace_file(const struct opened *o, const struct buf *text, struct error *err)
{
    char name[600], fresh[620];
    sidecar_name(o, STAMP_FILE, name, sizeof name);
    snprintf(fresh, sizeof fresh, ".%s.%d", name, (int)getpid());
    int fd = openat(o->dir_fd, fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(err, STATUS_IO, "%s/%s: can't be written: %s", o->folder, name, strerror(errno));
    bool ok = write_all(fd, text->data, text->length);
    ok = close(fd) == 0 && ok;
    if (ok && renameat(o->dir_fd, fresh, o->dir_fd, name) == 0)
        return STATUS_OK;
    int why = errno;
    unlinkat(o->dir_fd, fresh, 0);
    return fail(err, STATUS_IO, "%s/%s: can't be written: %s", o->folder, name, strerror(why));
}

enum status stamp_write(const char *path, const struct base_sketch *sketch, struct error *err)
{
    struct opened o;
    struct buf text;
    enum status s = place_open(path, -1, &o, err);
    if (s != STATUS_OK)
        return s;
    buf_init(&text, STAMP_BYTES_MAX);
    s = stamp_render(sketch, &text, err);
    if (s == STATUS_OK)
        s = replace_file(&o, &text, err);
    buf_fini(&text);
    close(o.dir_fd);
    return s;
}
