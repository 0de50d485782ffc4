/* One file of a source into the partial folder: asked for with the tag of what the cache has, again after a
 * cut, a reset or a 503, from where it stopped, and checked against the digests that are known.
 *
 *     NAME.part   what has come of it      NAME.tag   the entity tag of these bytes
 *     NAME        whole
 *
 * A later fetch goes on from a .part whose tag the server still has (Range with If-Range, RFC 9110 section
 * 14): another content is sent whole. */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "fetch.h"

#define BACKOFF_MS_MAX 20000
#define PROGRESS_BYTES 65536 /* an attempt that brought as much is no failed one */
#define COPY_BYTES ((size_t)1 << 20)

struct part {
    struct fetch *fetch;
    const struct wanted *wanted;
    struct exchange x;
    char name[FETCH_NAME_MAX + 8], tag_name[FETCH_NAME_MAX + 8];
    char tag[FETCH_TAG_MAX]; /* of the bytes that are in the .part */
    struct fetch_file file;  /* the result */
    int have_fd;             /* a folder that has the file already, or -1; not ours */
    bool from_zero;          /* after a digest that differs, once */
};

void sha256_hex(const uint8_t digest[32], char hex[65])
{
    for (size_t i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

enum status sha256_of(const void *bytes, size_t n, char hex[65], struct error *err)
{
    uint8_t digest[32];
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, n, digest) < 0)
        return fail(err, STATUS_INTERNAL, "SHA-256 is not available");
    sha256_hex(digest, hex);
    return STATUS_OK;
}

bool fetch_sleep(const struct source_options *o, int64_t ms, int64_t deadline_ns)
{
    int64_t end = clock_now_ns() + ms * NS_PER_MS;
    for (;;) {
        int64_t now = clock_now_ns(), left = end - now;
        if (now >= deadline_ns || (o->cancel && atomic_load_explicit(o->cancel, memory_order_relaxed)))
            return false;
        if (left <= 0)
            return true;
        if (left > 50 * NS_PER_MS)
            left = 50 * NS_PER_MS;
        nanosleep(&(struct timespec){.tv_nsec = left}, NULL);
    }
}

/* ---- tags */

static bool is_strong(const char *tag)
{
    return tag[0] == '"' && tag[1];
}

static void keep_tag(struct part *p, const char *tag)
{
    int dir = p->fetch->partial_fd;
    snprintf(p->tag, sizeof p->tag, "%s", tag);
    unlinkat(dir, p->tag_name, 0);
    int fd = is_strong(tag) ? openat(dir, p->tag_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    bool ok = write(fd, tag, strlen(tag)) == (ssize_t)strlen(tag);
    close(fd);
    if (!ok)
        unlinkat(dir, p->tag_name, 0);
}

static void read_tag(struct part *p)
{
    int fd = openat(p->fetch->partial_fd, p->tag_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, p->tag, sizeof p->tag - 1);
    p->tag[n > 0 ? n : 0] = '\0';
    if (!is_strong(p->tag) || strpbrk(p->tag, "\r\n"))
        p->tag[0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* ---- bytes that are here */

/* Adds a file's bytes to a hash; false if it can't be read. */
static bool hash_fd(int fd, gnutls_hash_hd_t hash, uint64_t *n_bytes)
{
    char *block = mem_alloc(COPY_BYTES);
    ssize_t n = block ? 0 : -1;
    *n_bytes = 0;
    while (block && (n = pread(fd, block, COPY_BYTES, (off_t)*n_bytes)) > 0) {
        gnutls_hash(hash, block, (size_t)n);
        *n_bytes += (uint64_t)n;
    }
    mem_free(block);
    return n == 0;
}

static void take_digest(struct part *p)
{
    uint8_t digest[32];
    gnutls_hash_output(p->x.hash, digest);
    sha256_hex(digest, p->file.sha256);
}

/* Lets the file of another folder be in the partial one too; they never change, so a link will do. */
static enum status link_here(struct part *p, struct error *err)
{
    int dir = p->fetch->partial_fd;
    const char *name = p->wanted->name;
    if (p->have_fd == dir)
        return STATUS_OK;
    unlinkat(dir, name, 0);
    if (linkat(p->have_fd, name, dir, name, 0) == 0)
        return STATUS_OK;
    return fail(err, STATUS_IO, "cache %s: %s can't be linked: %s", p->fetch->cache.path, name,
                strerror(errno));
}

/* What a 304 would be about: the file of a download that was cut short after it, or the cache's entry. */
static void find_have(struct part *p)
{
    struct fetch *f = p->fetch;
    const char *name = p->wanted->name;
    struct stat st;
    p->have_fd = -1;
    if (fstatat(f->partial_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        int fd = openat(f->partial_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        read_tag(p);
        bool ok = fd >= 0 && p->tag[0] && hash_fd(fd, p->x.hash, &p->file.bytes);
        take_digest(p);
        if (fd >= 0)
            close(fd);
        if (ok) {
            p->have_fd = f->partial_fd;
            snprintf(p->file.etag, sizeof p->file.etag, "%s", p->tag);
            return;
        }
    }
    const json_t *files = json_object_get(f->record, "files");
    for (size_t i = 0; f->lease >= 0 && i < json_array_size(files); i++) {
        const json_t *e = json_array_get(files, i);
        const char *n = json_string_value(json_object_get(e, "name")),
                   *tag = json_string_value(json_object_get(e, "etag")),
                   *sha256 = json_string_value(json_object_get(e, "sha256"));
        if (!n || strcmp(n, name) != 0 || !tag || !sha256)
            continue;
        p->have_fd = f->lease;
        p->file.bytes = (uint64_t)json_integer_value(json_object_get(e, "bytes"));
        snprintf(p->file.etag, sizeof p->file.etag, "%s", tag);
        snprintf(p->file.sha256, sizeof p->file.sha256, "%s", sha256);
    }
}

/* ---- the exchange's calls */

static void on_started(void *data, const char *etag)
{
    struct part *p = data;
    unlinkat(p->fetch->partial_fd, p->wanted->name, 0); /* first: it would seem to be what the tag is of */
    keep_tag(p, etag);
}

static enum status on_reserve(void *data, uint64_t bytes, struct error *err)
{
    struct part *p = data;
    return cache_reserve(&p->fetch->cache, p->fetch->remote->id, p->fetch->bytes + bytes, err);
}

static enum status forget_part(struct part *p, struct error *err)
{
    gnutls_hash_output(p->x.hash, (uint8_t[64]){0}); /* and resets it */
    p->x.offset = 0;
    p->tag[0] = '\0';
    if (ftruncate(p->x.fd, 0) == 0)
        return STATUS_OK;
    return fail(err, STATUS_IO, "cache %s: %s: %s", p->fetch->cache.path, p->name, strerror(errno));
}

static enum status part_open(struct part *p, struct fetch *f, const struct wanted *w, struct error *err)
{
    uint64_t left = f->remote->options->bytes_max - f->bytes;
    bool own = w->limit_bytes && w->limit_bytes < left;
    *p = (struct part){.fetch = f, .wanted = w, .have_fd = -1};
    snprintf(p->name, sizeof p->name, "%s.part", w->name);
    snprintf(p->tag_name, sizeof p->tag_name, "%s.tag", w->name);
    snprintf(p->file.name, sizeof p->file.name, "%s", w->name);
    p->x = (struct exchange){.remote = f->remote,
                             .curl = f->curl,
                             .deadline_ns = f->deadline_ns,
                             .shown_file = w->name,
                             .limit_bytes = own ? w->limit_bytes : left,
                             .limit_is_own = own,
                             .fd = -1,
                             .started = on_started,
                             .reserve = on_reserve,
                             .data = p};
    if (gnutls_hash_init(&p->x.hash, GNUTLS_DIG_SHA256) < 0)
        return fail(err, STATUS_INTERNAL, "SHA-256 is not available");
    find_have(p);
    if (p->have_fd >= 0) {
        /* The hub is asked without it at first: the answer must say which commit this is. */
        if (!f->remote->is_hub || f->commit[0])
            snprintf(p->x.if_none_match, sizeof p->x.if_none_match, "%s", p->file.etag);
        snprintf(p->x.have_sha256, sizeof p->x.have_sha256, "%s", p->file.sha256);
    }
    p->x.fd = openat(f->partial_fd, p->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->x.fd < 0)
        return fail(err, STATUS_IO, "cache %s: %s: %s", f->cache.path, p->name, strerror(errno));
    read_tag(p);
    bool usable = p->tag[0] && p->have_fd != f->partial_fd && hash_fd(p->x.fd, p->x.hash, &p->x.offset) &&
                  p->x.offset <= p->x.limit_bytes;
    return usable ? STATUS_OK : forget_part(p, err);
}

static void part_close(struct part *p)
{
    if (p->x.hash)
        gnutls_hash_deinit(p->x.hash, NULL);
    if (p->x.fd >= 0)
        close(p->x.fd);
}

/* ---- checks */

static bool differs(const char *expected, const char *found)
{
    return expected[0] && strcmp(expected, found) != 0;
}

/* The digests that are known, against the file's; *again: it may be the rest of another content. */
static enum status check_digest(struct part *p, bool resumed, bool *again, struct error *err)
{
    struct fetch *f = p->fetch;
    const char *expected = p->wanted->sha256;
    bool ours = differs(expected, p->file.sha256), theirs = differs(p->x.sha256, p->file.sha256);
    *again = resumed && !p->from_zero && (ours || theirs);
    if (*again || (!ours && !theirs))
        return STATUS_OK;
    f->code = SOURCE_SHA256;
    return fail(err, STATUS_MISMATCH, "%.200s: SHA-256 of %.80s is %s, expected %s (%s)", f->remote->shown,
                p->wanted->name, p->file.sha256, ours ? expected : p->x.sha256,
                ours ? "as asked" : "as the server says");
}

static enum status keep_file(struct part *p, struct error *err)
{
    struct fetch *f = p->fetch;
    if (f->n_files == f->capacity) {
        size_t capacity = f->capacity ? 2 * f->capacity : 8;
        struct fetch_file *more = mem_realloc(f->files, capacity * sizeof *more);
        if (!more)
            return fail(err, STATUS_NO_MEMORY, "no memory for a list of files");
        f->files = more;
        f->capacity = capacity;
    }
    f->files[f->n_files++] = p->file;
    f->bytes += p->file.bytes;
    return STATUS_OK;
}

static enum status finish_part(struct part *p, struct error *err)
{
    struct fetch *f = p->fetch;
    p->file.bytes = p->x.offset;
    snprintf(p->file.etag, sizeof p->file.etag, "%s", p->x.etag);
    if (fsync(p->x.fd) != 0 || renameat(f->partial_fd, p->name, f->partial_fd, p->wanted->name) != 0)
        return fail(err, STATUS_IO, "cache %s: %s: %s", f->cache.path, p->name, strerror(errno));
    return keep_file(p, err);
}

/* ---- answers */

static enum status complain(struct part *p, struct error *err)
{
    struct fetch *f = p->fetch;
    const struct exchange *x = &p->x;
    bool rights = x->status == 401 || x->status == 403;
    f->code = SOURCE_UNREACHABLE;
    f->is_refusal = x->status < 500 && x->status != 429;
    return fail(err, x->status == 404 || x->status == 410 ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE,
                "%.200s: %.80s: the server answered %ld%s%s%s", f->remote->shown, p->wanted->remote_name,
                x->status, x->complaint[0] ? ": " : "", x->complaint,
                !rights             ? ""
                : f->remote->is_s3  ? " (are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right?)"
                : f->remote->is_hub ? " (is HF_TOKEN set, and may it read this?)"
                                    : " (credentials go into the URL: https://user:password@…)");
}

enum next { DONE, ABSENT, AGAIN, RETRY, FAILED };

/* What an answer means. FAILED: err says it. */
static enum next judge(struct part *p, bool resumed, struct error *err)
{
    struct fetch *f = p->fetch;
    const struct exchange *x = &p->x;
    bool again = false;
    if (x->commit[0] && !f->commit[0])
        snprintf(f->commit, sizeof f->commit, "%s", x->commit);
    if (x->status == 304 && p->have_fd >= 0) {
        if (differs(p->wanted->sha256, p->file.sha256)) {
            f->code = SOURCE_SHA256;
            (void)fail(err, STATUS_MISMATCH, "%.200s: SHA-256 of %.80s is %s, expected %s (as asked)",
                       f->remote->shown, p->wanted->name, p->file.sha256, p->wanted->sha256);
            return FAILED;
        }
        unlinkat(f->partial_fd, p->name, 0);
        return link_here(p, err) == STATUS_OK && keep_file(p, err) == STATUS_OK ? DONE : FAILED;
    }
    if (x->status == 200 || x->status == 206) {
        take_digest(p);
        if (check_digest(p, resumed, &again, err) != STATUS_OK)
            return FAILED;
        if (again) {
            p->from_zero = true;
            return forget_part(p, err) == STATUS_OK ? AGAIN : FAILED;
        }
        return finish_part(p, err) == STATUS_OK ? DONE : FAILED;
    }
    if (x->status == 416 && x->offset > 0)
        return forget_part(p, err) == STATUS_OK ? AGAIN : FAILED;
    bool absent = x->status == 404 || x->status == 410;
    bool hidden = x->status == 401 || x->status == 403;
    if (absent || (hidden && p->wanted->optional))
        return ABSENT;
    (void)complain(p, err);
    return x->transient ? RETRY : FAILED;
}

/* Waits before attempt number `failures`; a server that says how long is taken at its word. */
static bool wait_for_retry(struct part *p, uint32_t failures, struct error *err)
{
    struct fetch *f = p->fetch;
    const struct source_options *o = f->remote->options;
    uint32_t jitter = 0;
    int64_t ms = (int64_t)o->backoff_ms << (failures < 16 ? failures : 16);
    gnutls_rnd(GNUTLS_RND_NONCE, &jitter, sizeof jitter);
    ms = ms < BACKOFF_MS_MAX ? ms : BACKOFF_MS_MAX;
    ms = ms / 2 + (ms ? (int64_t)(jitter % (uint32_t)(ms / 2 + 1)) : 0);
    ms = ms > p->x.wait_ms ? ms : p->x.wait_ms;
    if (clock_now_ns() + ms * NS_PER_MS >= f->deadline_ns) {
        fail_within(err, "given up, as --source-timeout is near");
        return false;
    }
    if (fetch_sleep(o, ms, f->deadline_ns))
        return true;
    f->code = SOURCE_UNREACHABLE;
    (void)fail(err, STATUS_CANCELLED, "%.300s: given up: the server is going down", f->remote->shown);
    return false;
}

static bool file_url(const struct fetch *f, const char *name, char url[FETCH_URL_MAX])
{
    static const char mark[] = "{revision}";
    const struct remote *r = f->remote;
    const char *at = r->is_hub ? strstr(r->folder, mark) : NULL;
    int n = at ? snprintf(url, FETCH_URL_MAX, "%.*s%s%s%s%s", (int)(at - r->folder), r->folder,
                          f->commit[0] ? f->commit : r->revision, at + sizeof mark - 1, name, r->query)
               : snprintf(url, FETCH_URL_MAX, "%s%s%s", r->folder, name, r->query);
    return n < (int)FETCH_URL_MAX;
}

static enum next attempt(struct part *p, const char *url, struct error *err)
{
    struct fetch *f = p->fetch;
    struct exchange *x = &p->x;
    const char *code = NULL;
    if (x->offset > 0 && !is_strong(p->tag) && forget_part(p, err) != STATUS_OK)
        return FAILED;
    snprintf(x->if_range, sizeof x->if_range, "%s", p->tag);
    bool resumed = x->offset > 0;
    f->is_refusal = false;
    f->code = NULL;
    enum status s = exchange_run(x, url, &code, err);
    f->downloaded += x->received;
    f->status = x->status;
    if (s == STATUS_OK)
        return judge(p, resumed, err);
    f->code = code;
    return x->transient ? RETRY : FAILED;
}

enum status fetch_one(struct fetch *f, const struct wanted *w, bool *found, struct error *err)
{
    struct part p;
    char url[FETCH_URL_MAX];
    uint32_t failures = 0;
    enum next next = FAILED;
    *found = false;
    if (!file_url(f, w->remote_name, url))
        return fail(err, STATUS_INVALID, "%.300s: too long", f->remote->shown);
    enum status s = part_open(&p, f, w, err);
    while (s == STATUS_OK) {
        next = attempt(&p, url, err);
        failures = p.x.received >= PROGRESS_BYTES ? 0 : failures + 1;
        if (next == DONE || next == ABSENT || next == FAILED)
            break;
        if (next == RETRY &&
            (failures >= f->remote->options->n_attempts || !wait_for_retry(&p, failures, err)))
            break;
    }
    part_close(&p);
    if (next == ABSENT) {
        unlinkat(f->partial_fd, p.name, 0);
        unlinkat(f->partial_fd, w->name, 0);
    }
    *found = next == DONE;
    if (s != STATUS_OK || next == DONE || next == ABSENT)
        return s;
    return err && err->status != STATUS_OK ? err->status : STATUS_IO;
}
