/* From a source to an immutable version: open, copy privately while hashing, read by format, check against
 * the base, pack. Plain blocking code that owns everything it makes until it returns the version.
 *
 * The digest covers each file's name, length and bytes, and the user's scale: two versions with the same
 * digest give the same numbers. */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "loader.h"

bool adapter_name_is_valid(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > ADAPTER_NAME_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!alnum && (i == 0 || !(c == '.' || c == '_' || c == '-')))
            return false;
    }
    return true;
}

/* ---- content hash */

struct content_hash {
    gnutls_hash_hd_t handle;
    uint64_t n_bytes;
    bool failed;
};

static void hash_bytes(struct content_hash *h, const void *bytes, size_t n)
{
    if (n && gnutls_hash(h->handle, bytes, n) < 0)
        h->failed = true;
}

static void hash_file(void *data, const char *name, const void *bytes, size_t n_bytes)
{
    struct content_hash *h = data;
    uint64_t n = n_bytes;
    hash_bytes(h, name, strlen(name) + 1);
    hash_bytes(h, &n, sizeof n); /* so that two files can't be cut elsewhere and hash the same */
    hash_bytes(h, bytes, n_bytes);
    h->n_bytes += n;
}

/* ---- opening the place */

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* A file's folder is what gets opened; the file is then looked up in it. */
static enum status open_place_of_file(const struct adapter_source *s, struct opened *o, struct error *err)
{
    const char *slash = strrchr(s->path, '/');
    size_t n = slash ? (size_t)(slash - s->path) : 0;
    o->file = slash ? slash + 1 : s->path;
    if (slash == s->path)
        snprintf(o->folder, sizeof o->folder, "/");
    else
        snprintf(o->folder, sizeof o->folder, "%.*s", slash ? (int)n : 1, slash ? s->path : ".");
    return folder_open(s->root_fd, o->folder, &o->dir_fd, err);
}

static enum status open_place(const struct adapter_source *s, struct opened *o, struct error *err)
{
    o->shown = s->path;
    o->copy.root_fd = s->root_fd;
    o->copy.folder = o->folder;
    o->copy.limit_bytes = ADAPTER_FILE_BYTES_MAX;
    o->file = NULL;
    if (strlen(s->path) >= sizeof o->folder)
        return fail(err, STATUS_INVALID, "the adapter's path has %zu bytes, at most %zu", strlen(s->path),
                    sizeof o->folder - 1);
    snprintf(o->folder, sizeof o->folder, "%s", s->path);
    enum status st = folder_open(s->root_fd, s->path, &o->dir_fd, err);
    /* "No such folder" is also said of a file. */
    bool may_be_file = st == STATUS_NOT_FOUND && (ends_with(s->path, ".gguf") || s->root_fd < 0);
    if (!may_be_file || (s->root_fd < 0 && !file_exists(s->path)))
        return st;
    return open_place_of_file(s, o, err);
}

/* ---- reading */

void loading_end(struct loading *l)
{
    content_destroy(l->content);
    if (l->format)
        l->format->release(l->keep);
    if (l->place.dir_fd >= 0)
        close(l->place.dir_fd);
    if (l->hash && l->hash->handle)
        gnutls_hash_deinit(l->hash->handle, NULL);
    mem_free(l->hash);
    *l = (struct loading){.place.dir_fd = -1};
}

/* Only sums: then the user's scale multiplies theirs. */
static bool is_plain(const struct lora_spec *spec)
{
    bool plain = spec->n_tensors == 0 && spec->n_rows == 0 && spec->n_head_rows == 0;
    for (size_t i = 0; i < spec->n_pairs && plain; i++)
        plain = spec->pairs[i].magnitude == NULL;
    return plain;
}

static enum status read_content(struct loading *l, const struct adapter_source *s, struct error *err)
{
    struct adapter_report *report = l->content->report;
    if (gnutls_hash_init(&l->hash->handle, GNUTLS_DIG_SHA256) < 0)
        return fail(err, STATUS_INTERNAL, "SHA-256 is not available");
    l->place.copy.seen = hash_file;
    l->place.copy.data = l->hash;
    enum status st = l->format->load(&l->place, l->content, &l->keep, err);
    report->file_bytes = l->hash->n_bytes;
    if (st != STATUS_OK)
        return st;
    content_finish(l->content);
    if (is_plain(&l->content->spec))
        for (size_t i = 0; i < l->content->n_pairs; i++)
            l->content->pairs[i].scale = (float)(l->content->pairs[i].scale * s->scale);
    return STATUS_OK;
}

enum status loading_begin(struct loading *l, const struct adapter_source *s, const struct model *m,
                          struct adapter_report *report, struct error *err)
{
    *l = (struct loading){.place.dir_fd = -1};
    enum status st = open_place(s, &l->place, err);
    if (st != STATUS_OK)
        return st;
    l->format = l->place.file ? &adapter_format_gguf : &adapter_format_folder;
    l->content = content_create(m, report);
    l->hash = mem_zalloc(sizeof *l->hash);
    if (!l->content || !l->hash)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", s->path);
    return read_content(l, s, err);
}

static enum status finish_digest(struct loading *l, double scale, struct adapter_version *v,
                                 struct error *err)
{
    hash_bytes(l->hash, &scale, sizeof scale);
    gnutls_hash_deinit(l->hash->handle, v->digest);
    l->hash->handle = NULL;
    if (l->hash->failed)
        return fail(err, STATUS_INTERNAL, "SHA-256 failed");
    for (size_t i = 0; i < 8; i++)
        snprintf(v->digest_hex + 2 * i, 3, "%02x", v->digest[i]);
    return STATUS_OK;
}

/* What an adapter with DoRA adds is scaled by a composition of it alone; what stands in the place of the
 * base's can't be, which lora_compose says. */
static enum status scale_built(struct adapter_version *v, double scale, struct error *err)
{
    struct lora *scaled;
    float weight = (float)scale;
    enum status st = lora_compose(&v->lora, &weight, 1, &scaled, err);
    if (st != STATUS_OK)
        return fail_within(err, "scale %g", scale);
    lora_release(v->lora);
    v->lora = scaled;
    return STATUS_OK;
}

static enum status build_version(struct loading *l, const struct adapter_source *s, const struct model *m,
                                 struct adapter_version *v, struct error *err)
{
    enum status st = loading_begin(l, s, m, &v->report, err);
    if (st == STATUS_OK)
        st = finish_digest(l, s->scale, v, err);
    if (st == STATUS_OK)
        st = lora_build(m, &l->content->spec, v->digest, &v->lora, err);
    if (st == STATUS_OK && s->scale != 1 && !is_plain(&l->content->spec))
        st = scale_built(v, s->scale, err);
    return st;
}

enum status adapter_load(const struct adapter_source *s, const struct model *m, struct adapter_version **out,
                         struct error *err)
{
    struct loading l = {.place.dir_fd = -1};
    int64_t begin = clock_now_ns();
    *out = NULL;
    if (!adapter_name_is_valid(s->name))
        return fail(
            err, STATUS_INVALID,
            "'%.80s' is no adapter name: letters, digits, '.', '_', '-', at most %d, a letter or digit first",
            s->name, ADAPTER_NAME_MAX);
    if (!isfinite(s->scale) || fabs(s->scale) > 1e4)
        return fail(err, STATUS_INVALID, "adapter %s: scale %g is not a number within 10000", s->name,
                    s->scale);
    struct adapter_version *v = mem_zalloc(sizeof *v);
    if (!v)
        return fail(err, STATUS_NO_MEMORY, "adapter %s: no memory", s->name);
    atomic_init(&v->refs, 1);
    snprintf(v->name, sizeof v->name, "%s", s->name);
    snprintf(v->source, sizeof v->source, "%s", s->path);
    v->user_scale = s->scale;
    enum status st = build_version(&l, s, m, v, err);
    loading_end(&l);
    v->loaded_wall_ms = clock_wall_ms();
    v->load_ns = clock_now_ns() - begin;
    if (st == STATUS_OK)
        *out = v;
    else
        adapter_release(v);
    return st;
}

enum status adapter_inspect(const char *path, struct adapter_report *out, struct error *err)
{
    struct loading l = {.place.dir_fd = -1};
    struct adapter_source s = {.name = "inspected", .path = path, .root_fd = -1, .scale = 1};
    memset(out, 0, sizeof *out);
    enum status st = loading_begin(&l, &s, NULL, out, err);
    loading_end(&l);
    return st;
}

/* True for a GGUF file that says so of itself; a model's metadata may be long, but is read only once here. */
static bool is_gguf_adapter(const char *path)
{
    struct gguf *g;
    const char *type = "";
    if (gguf_open(path, NULL, &g, NULL) != STATUS_OK)
        return false;
    bool is =
        gguf_get_string(g, "general.type", &type, NULL, NULL) == STATUS_OK && strcmp(type, "adapter") == 0;
    gguf_close(g);
    return is;
}

bool adapter_is_at(const char *path)
{
    char config[1024];
    if (!path_is_folder(path))
        return file_exists(path) && is_gguf_adapter(path);
    return path_join(config, sizeof config, path, "adapter_config.json") && file_exists(config);
}

/* ---- references */

struct adapter_version *adapter_acquire(struct adapter_version *v)
{
    /* Relaxed: whoever calls this has a reference already, so the object can't go meanwhile. */
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void adapter_release(struct adapter_version *v)
{
    /* Acquire-release: the last one must see all that the others did with it before they let go. */
    if (!v || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
        return;
    lora_release(v->lora);
    mem_free(v);
}
