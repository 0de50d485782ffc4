/* From a source to an immutable version: open, copy privately while hashing, read by format, check against
 * the base, pack. Plain blocking code that owns everything it makes until it returns the version.
 *
 * A version's digest covers its files; its lora's digest is a key made of that, the user's scale and the
 * types of its values: two with the same key give the same numbers. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "effect_inner.h"
#include "kernels.h"
#include "loader.h"
#include "sidecar.h"

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

/* ---- opening the place */

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* A file's folder is what gets opened; the file is then looked up in it. */
static enum status open_place_of_file(const char *path, int root_fd, struct opened *o, struct error *err)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    o->file = slash ? slash + 1 : path;
    if (slash == path)
        snprintf(o->folder, sizeof o->folder, "/");
    else
        snprintf(o->folder, sizeof o->folder, "%.*s", slash ? (int)n : 1, slash ? path : ".");
    return folder_open(root_fd, o->folder, &o->dir_fd, err);
}

enum status place_open(const char *path, int root_fd, struct opened *o, struct error *err)
{
    *o = (struct opened){.shown = path, .dir_fd = -1};
    o->copy.root_fd = root_fd;
    o->copy.folder = o->folder;
    o->copy.limit_bytes = ADAPTER_FILE_BYTES_MAX;
    if (strlen(path) >= sizeof o->folder)
        return fail(err, STATUS_INVALID, "the adapter's path has %zu bytes, at most %zu", strlen(path),
                    sizeof o->folder - 1);
    snprintf(o->folder, sizeof o->folder, "%s", path);
    enum status st = folder_open(root_fd, path, &o->dir_fd, err);
    /* "No such folder" is also said of a file. */
    bool may_be_file = st == STATUS_NOT_FOUND && (ends_with(path, ".gguf") || root_fd < 0);
    if (!may_be_file || (root_fd < 0 && !file_exists(path)))
        return st;
    return open_place_of_file(path, root_fd, o, err);
}

/* ---- reading */

void loading_end(struct loading *l)
{
    content_destroy(l->content);
    bundle_free(l->bundle);
    if (l->format)
        l->format->release(l->keep);
    if (l->place.dir_fd >= 0)
        close(l->place.dir_fd);
    content_hash_fini(&l->hash);
    copied_files_fini(&l->files);
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

/* Whatever reading said: files that changed meanwhile explain it, and nothing read from them counts. */
static enum status check_unchanged(struct loading *l, enum status was, struct error *err)
{
    struct error changed;
    if (was == STATUS_UNAVAILABLE) /* said of a single file already */
        l->fault = ADAPTER_FAULT_CHANGED;
    if (private_copy_check(&l->place.copy, l->place.dir_fd, l->place.folder, &changed) == STATUS_OK)
        return was;
    l->fault = ADAPTER_FAULT_CHANGED;
    return fail(err, changed.status, "%s", changed.text);
}

static enum status read_content(struct loading *l, const struct adapter_source *s, struct error *err)
{
    struct adapter_report *report = l->content->report;
    uint8_t digest[32];
    l->place.copy.seen = content_hash_file;
    l->place.copy.data = &l->hash;
    l->place.copy.files = &l->files;
    l->place.copy.limit_total = s->limit_bytes;
    enum status st = l->format->load(&l->place, l->content, &l->keep, err);
    if (st == STATUS_OK)
        st = sidecar_bundle(&l->place, &l->bundle, err);
    report->file_bytes = l->hash.n_bytes;
    st = check_unchanged(l, st, err);
    if (st == STATUS_OK)
        st = content_hash_end(&l->hash, digest, err);
    if (st != STATUS_OK)
        return st;
    hex_of(digest, sizeof digest, report->digest_hex);
    memcpy(l->digest, digest, sizeof digest);
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
    enum status st = place_open(s->path, s->root_fd, &l->place, err);
    if (st != STATUS_OK)
        return st;
    l->format = l->place.file ? &adapter_format_gguf : &adapter_format_folder;
    l->content = content_create(m, report);
    if (!l->content)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", s->path);
    return read_content(l, s, err);
}

static enum status check_expected(struct loading *l, const struct adapter_source *s, struct error *err)
{
    const char *found = l->content->report->digest_hex;
    if (!s->expected_sha256 || strcasecmp(s->expected_sha256, found) == 0)
        return STATUS_OK;
    l->fault = ADAPTER_FAULT_SHA256;
    return fail(err, STATUS_MISMATCH, "%s: the SHA-256 of its files is %s, expected %.80s: another version?",
                s->path, found, s->expected_sha256);
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

/* ---- is it this base's? */

static enum status match_base(struct loading *l, const struct adapter_source *s, const struct model *m,
                              struct base_match *out, struct error *err)
{
    struct base_sketch stamp = {.n_spots = 0};
    enum status st = sidecar_stamp(&l->place, &stamp, err);
    bool stamped = st == STATUS_OK, ignored = !stamped && s->base_policy == BASE_POLICY_ANY;
    if (stamped || st == STATUS_NOT_FOUND || ignored)
        st = base_match_find(m, s->base_name, stamped ? &stamp : NULL, l->content->report->base_model, out,
                             err);
    base_sketch_fini(&stamp);
    if (st != STATUS_OK || base_policy_accepts(s->base_policy, out->outcome))
        return st;
    const char *how = out->how + (strncmp(out->how, "warning: ", 9) == 0 ? 9 : 0);
    return fail(err, STATUS_MISMATCH, "%s: %s; it is \"%s\", and base-match is \"%s\"", s->path, how,
                base_outcome_name(out->outcome), base_policy_name(s->base_policy));
}

/* ---- does it do anything? */

static enum status test_effect(struct loading *l, const struct adapter_source *s, struct adapter_version *v,
                               struct error *err)
{
    struct own_probes own;
    if (s->effect == EFFECT_OFF || !s->probes)
        return STATUS_OK;
    const struct probes_rules rules = effect_probes_rules(s->probes);
    enum status st = sidecar_probes(&l->place, &rules, &own, err);
    if (st == STATUS_OK)
        st = effect_check(v->lora, s->probes, own.prompts, own.n, &v->effect, err);
    if (st != STATUS_OK || s->effect != EFFECT_ENFORCE || !effect_is_bad(v->effect.outcome))
        return st;
    l->fault = v->effect.outcome == EFFECT_NONE ? ADAPTER_FAULT_NO_EFFECT : ADAPTER_FAULT_NON_FINITE;
    return fail(err, STATUS_INVALID, "%s", v->effect.what);
}

/* ---- packing */

static enum status to_bf16(struct content *c, enum dtype *type, const void **values, size_t n,
                           struct error *err)
{
    float row[1024];
    size_t from = dtype_info(*type)->block_bytes;
    uint16_t *to = arena_array(c->arena, n, sizeof *to);
    if (!to)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (size_t at = 0, some; at < n; at += some) {
        some = n - at < 1024 ? n - at : 1024;
        dequantize_row(*type, (const char *)*values + at * from, some, row);
        quantize_row(DTYPE_BF16, row, some, to + at);
    }
    *type = DTYPE_BF16;
    *values = to;
    return STATUS_OK;
}

static bool becomes_bf16(enum adapter_store store, enum dtype type)
{
    return type == DTYPE_F32 || (type == DTYPE_F16 && store == ADAPTER_STORE_BF16);
}

/* Brings the pairs into the types they are kept in; *how: what keys the numbers. */
static enum status choose_types(struct content *c, const struct adapter_source *s, const struct model *m,
                                const char **how, struct error *err)
{
    bool keep = s->store == ADAPTER_STORE_FILE || s->store == ADAPTER_STORE_INT8 ||
                (s->store == ADAPTER_STORE_AUTO && model_info(m)->weight_type == DTYPE_F32);
    enum status st = STATUS_OK;
    c->spec.store = s->store == ADAPTER_STORE_INT8   ? LORA_STORE_INT8
                    : s->store == ADAPTER_STORE_AUTO ? LORA_STORE_AUTO
                                                     : LORA_STORE_FILE;
    *how = s->store == ADAPTER_STORE_INT8 ? "int8" : "file";
    bool any_rounds = false;
    for (size_t i = 0; i < c->n_pairs && st == STATUS_OK; i++) {
        struct lora_pair *p = &c->pairs[i];
        bool rounds = s->store == ADAPTER_STORE_AUTO && lora_rounds(m, &p->module);
        any_rounds = any_rounds || rounds;
        if (keep || rounds)
            continue;
        if (becomes_bf16(s->store, p->a_type)) {
            *how = s->store == ADAPTER_STORE_BF16 ? "bf16" : "auto";
            st = to_bf16(c, &p->a_type, &p->a, (size_t)p->rank * p->in, err);
        }
        if (st == STATUS_OK && becomes_bf16(s->store, p->b_type)) {
            *how = s->store == ADAPTER_STORE_BF16 ? "bf16" : "auto";
            st = to_bf16(c, &p->b_type, &p->b, (size_t)p->rank * p->out, err);
        }
    }
    if (any_rounds)
        *how = "int8 auto";
    return st;
}

static enum status build_lora(struct loading *l, const struct adapter_source *s, const struct model *m,
                              struct adapter_version *v, struct error *err)
{
    uint8_t key[32];
    const char *how;
    enum status st = choose_types(l->content, s, m, &how, err);
    if (st == STATUS_OK)
        st = content_key(v->digest, s->scale, how, key, err);
    if (st == STATUS_OK)
        st = lora_build(m, &l->content->spec, key, &v->lora, err);
    if (st == STATUS_OK && s->scale != 1 && !is_plain(&l->content->spec))
        st = scale_built(v, s->scale, err);
    snprintf(v->report.stored, sizeof v->report.stored, "%s",
             strcmp(how, "auto") == 0        ? "bf16"
             : strcmp(how, "int8 auto") == 0 ? "int8"
                                             : how);
    return st;
}

static enum status build_version(struct loading *l, const struct adapter_source *s, const struct model *m,
                                 struct adapter_version *v, struct error *err)
{
    enum status st = loading_begin(l, s, m, &v->report, err);
    if (st == STATUS_OK) {
        memcpy(v->digest, l->digest, sizeof v->digest);
        memcpy(v->digest_hex, v->report.digest_hex, sizeof v->digest_hex);
        v->bundle = l->bundle;
        l->bundle = NULL;
        st = check_expected(l, s, err);
    }
    if (st == STATUS_OK)
        st = build_lora(l, s, m, v, err);
    if (st == STATUS_OK)
        st = match_base(l, s, m, &v->report.base, err);
    if (st == STATUS_MISMATCH && l->fault == ADAPTER_FAULT_NONE) {
        l->fault = ADAPTER_FAULT_BASE;
        if (v->report.base.outcome == BASE_UNCHECKED)
            v->report.base = (struct base_match){.outcome = BASE_MISMATCH, .how = "its shapes don't fit"};
    }
    return st == STATUS_OK ? test_effect(l, s, v, err) : st;
}

static enum status check_source(const struct adapter_source *s, struct error *err)
{
    if (!adapter_name_is_valid(s->name))
        return fail(
            err, STATUS_INVALID,
            "'%.80s' is no adapter name: letters, digits, '.', '_', '-', at most %d, a letter or digit first",
            s->name, ADAPTER_NAME_MAX);
    if (!isfinite(s->scale) || fabs(s->scale) > 1e4)
        return fail(err, STATUS_INVALID, "adapter %s: scale %g is not a number within 10000", s->name,
                    s->scale);
    const char *hex = s->expected_sha256;
    if (hex && (strlen(hex) != 64 || strspn(hex, "0123456789abcdefABCDEF") != 64))
        return fail(err, STATUS_INVALID, "adapter %s: sha256 is '%.80s', expected 64 hexadecimal digits",
                    s->name, hex);
    return STATUS_OK;
}

static void tell_findings(const struct adapter_source *s, const struct loading *l,
                          const struct adapter_version *v)
{
    if (s->findings)
        *s->findings = (struct adapter_findings){l->fault, v->report, v->effect};
}

enum status adapter_load(const struct adapter_source *s, const struct model *m, struct adapter_version **out,
                         struct error *err)
{
    struct loading l = {.place.dir_fd = -1};
    int64_t begin = clock_now_ns();
    *out = NULL;
    if (s->findings)
        *s->findings = (struct adapter_findings){0};
    enum status st = check_source(s, err);
    if (st != STATUS_OK)
        return st;
    struct adapter_version *v = mem_zalloc(sizeof *v);
    if (!v)
        return fail(err, STATUS_NO_MEMORY, "adapter %s: no memory", s->name);
    atomic_init(&v->refs, 1);
    snprintf(v->name, sizeof v->name, "%s", s->name);
    snprintf(v->source, sizeof v->source, "%s", s->path);
    v->user_scale = s->scale;
    st = build_version(&l, s, m, v, err);
    tell_findings(s, &l, v);
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
    if (st == STATUS_OK)
        st = sidecars_look(&l.place, out, err);
    loading_end(&l);
    return st;
}

/* True for a GGUF file that says so of itself. A model's metadata may be long, and is then left unread: an
 * adapter has no tokenizer in it. */
static bool is_gguf_adapter(const char *path)
{
    struct gguf *g;
    const char *type = "";
    struct tensors_limits limits = {.header_bytes = ADAPTER_HEADER_BYTES_MAX,
                                    .n_tensors = ADAPTER_TENSORS_MAX};
    if (gguf_open(path, &limits, &g, NULL) != STATUS_OK)
        return false;
    bool is =
        gguf_get_string(g, "general.type", &type, NULL, NULL) == STATUS_OK && strcmp(type, "adapter") == 0;
    gguf_close(g);
    return is;
}

bool adapter_is_at(const char *path)
{
    char config[1024];
    if (path_join(config, sizeof config, path, "adapter_config.json") && file_exists(config))
        return true;
    return file_exists(path) && is_gguf_adapter(path);
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
    bundle_free(v->bundle);
    mem_free(v);
}
