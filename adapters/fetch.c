/* A source to a local path: which files an adapter is made of, asked for one after another, and what the
 * cache had meanwhile.
 *
 *     a .gguf file        that file
 *     a folder            adapter_config.json, then the first of adapter_model.safetensors, its index with
 * the shards, adapters.safetensors (MLX); and the small files that may lie beside a .safetensors
 * adapter_config.json beside it, and that file
 *
 * A source that doesn't answer (and hasn't said no) is served from what the cache has of it, marked stale: a
 * server that starts while the hub is down starts with what it had. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "bundle.h"
#include "effect_inner.h"
#include "fetch.h"
#include "fingerprint.h"
#include "format.h"

#define CONFIG_BYTES_MAX ((uint64_t)16 << 20)
#define INDEX_BYTES_MAX ((uint64_t)64 << 20)
#define SHARDS_MAX 256U
#define CONFIG "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"
#define INDEX WEIGHTS ".index.json"
#define MLX_WEIGHTS "adapters.safetensors"

/* ---- defaults */

static const char *from_environment(const char *name)
{
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

static const char *first_of(const char *a, const char *b)
{
    const char *v = from_environment(a);
    return v ? v : from_environment(b);
}

static void default_cache(struct source_options *o)
{
    const char *service = from_environment("CACHE_DIRECTORY"), *user = from_environment("XDG_CACHE_HOME"),
               *home = from_environment("HOME");
    int n = service ? snprintf(o->cache_default, sizeof o->cache_default, "%.*s/sources",
                               (int)strcspn(service, ":"), service) /* systemd lists several with ':' */
            : user  ? snprintf(o->cache_default, sizeof o->cache_default, "%s/lorikeet", user)
            : home  ? snprintf(o->cache_default, sizeof o->cache_default, "%s/.cache/lorikeet", home)
                    : -1;
    o->cache_dir = n > 0 && n < (int)sizeof o->cache_default ? o->cache_default : NULL;
}

/* Where huggingface_hub keeps the token of `hf auth login`. */
static void default_token(struct source_options *o)
{
    const char *path = from_environment("HF_TOKEN_PATH"), *hub = from_environment("HF_HOME"),
               *home = from_environment("HOME");
    char at[512];
    struct buf text;
    o->hf_token = from_environment("HF_TOKEN");
    if (o->hf_token)
        return;
    if (path)
        snprintf(at, sizeof at, "%s", path);
    else if (hub || home)
        snprintf(at, sizeof at, "%s%s", hub ? hub : home, hub ? "/token" : "/.cache/huggingface/token");
    else
        return;
    buf_init(&text, 0);
    if (file_exists(at) && file_read_all(at, sizeof o->token_default - 1, &text, NULL) == STATUS_OK &&
        text.length) {
        snprintf(o->token_default, sizeof o->token_default, "%.*s", (int)strcspn(text.data, " \r\n"),
                 text.data);
        o->hf_token = o->token_default[0] ? o->token_default : NULL;
    }
    buf_fini(&text);
}

void source_options_init(struct source_options *o)
{
    *o = (struct source_options){
        .cache_bytes_max = (uint64_t)20 << 30,
        .bytes_max = (uint64_t)8 << 30,
        .timeout_ms = 30 * 60 * 1000,
        .stall_ms = 30 * 1000,
        .n_attempts = 5,
        .backoff_ms = 500,
        .ca_file = first_of("CURL_CA_BUNDLE", "SSL_CERT_FILE"),
        .hf_endpoint = from_environment("HF_ENDPOINT"),
        .s3_endpoint = first_of("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        .s3_region = first_of("AWS_REGION", "AWS_DEFAULT_REGION"),
        .s3_key_id = from_environment("AWS_ACCESS_KEY_ID"),
        .s3_secret = from_environment("AWS_SECRET_ACCESS_KEY"),
        .s3_session = from_environment("AWS_SESSION_TOKEN"),
    };
    default_cache(o);
    default_token(o);
}

/* ---- which files */

static enum status not_there(struct fetch *f, const char *what, struct error *err)
{
    f->code = SOURCE_UNREACHABLE;
    f->is_refusal = true;
    return fail(err, STATUS_NOT_FOUND, "%.250s: there is no %s (the server answered %ld)", f->remote->shown,
                what, f->status);
}

/* A file that must be there. */
static enum status fetch_needed(struct fetch *f, const struct wanted *w, struct error *err)
{
    bool found;
    enum status s = fetch_one(f, w, &found, err);
    return s == STATUS_OK && !found ? not_there(f, w->remote_name, err) : s;
}

static bool is_plain(const char *name)
{
    return name[0] != '.' && strlen(name) < FETCH_NAME_MAX - 8 &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == strlen(name);
}

static bool have_file(const struct fetch *f, const char *name)
{
    for (size_t i = 0; i < f->n_files; i++)
        if (strcmp(f->files[i].name, name) == 0)
            return true;
    return false;
}

static enum status fetch_shard(struct fetch *f, const char *name, struct error *err)
{
    size_t n = name ? strlen(name) : 0;
    f->code = SOURCE_FORMAT;
    if (n < 13 || !is_plain(name) || strcmp(name + n - 12, ".safetensors") != 0)
        return fail(err, STATUS_FORMAT,
                    "%.200s: %s names the shard '%.100s', expected letters, digits, '.', '_', '-' and "
                    ".safetensors at its end",
                    f->remote->shown, INDEX, name ? name : "(no text)");
    if (f->n_files > SHARDS_MAX)
        return fail(err, STATUS_TOO_LARGE, "%.200s: %s names more than %u shards", f->remote->shown, INDEX,
                    SHARDS_MAX);
    struct wanted w = {.remote_name = name, .name = name, .sha256 = ""};
    return have_file(f, name) ? STATUS_OK : fetch_needed(f, &w, err);
}

static enum status fetch_shards(struct fetch *f, struct error *err)
{
    json_t *index = NULL, *map, *shard;
    const char *tensor;
    if (f->remote->sha256[0]) {
        f->code = SOURCE_INVALID;
        return fail(err, STATUS_INVALID, "%.250s: #sha256= is of one file, and the weights are several",
                    f->remote->shown);
    }
    enum status s =
        json_read_at(f->partial_fd, f->remote->shown, INDEX, (size_t)INDEX_BYTES_MAX, &index, err);
    if (s != STATUS_OK) {
        f->code = SOURCE_FORMAT;
        return s;
    }
    map = json_object_get(index, "weight_map");
    if (json_object_size(map) == 0) {
        f->code = SOURCE_FORMAT;
        s = fail(err, STATUS_FORMAT, "%.250s: %s has no weight_map", f->remote->shown, INDEX);
    }
    json_object_foreach(map, tensor, shard)
    {
        s = fetch_shard(f, json_string_value(shard), err);
        if (s != STATUS_OK)
            break;
    }
    json_decref(index);
    return s;
}

static enum status fetch_weights(struct fetch *f, struct error *err)
{
    const char *sha256 = f->remote->sha256;
    const struct wanted ways[] = {
        {.remote_name = WEIGHTS, .name = WEIGHTS, .sha256 = sha256, .optional = true},
        {.remote_name = INDEX, .name = INDEX, .sha256 = "", .limit_bytes = INDEX_BYTES_MAX, .optional = true},
        {.remote_name = MLX_WEIGHTS, .name = MLX_WEIGHTS, .sha256 = sha256, .optional = true}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        bool found;
        enum status s = fetch_one(f, &ways[i], &found, err);
        if (s != STATUS_OK)
            return s;
        if (found)
            return i == 1 ? fetch_shards(f, err) : STATUS_OK;
    }
    return not_there(f, WEIGHTS ", its index or " MLX_WEIGHTS, err);
}

/* What may lie beside an adapter: its probe prompts and the stamp of its base. Of a file x.gguf they are
 * named x.gguf.NAME. */
static enum status fetch_extras(struct fetch *f, const char *remote_file, const char *file, struct error *err)
{
    static const char *const names[] = {PROBES_FILE, STAMP_FILE, BUNDLE_FILE};
    const char *dot = file[0] ? "." : "";
    char there[2 * FETCH_NAME_MAX], here[2 * FETCH_NAME_MAX];
    enum status s = STATUS_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && s == STATUS_OK; i++) {
        bool found;
        struct wanted w = {.remote_name = there,
                           .name = here,
                           .sha256 = "",
                           .limit_bytes = STAMP_BYTES_MAX,
                           .optional = true};
        snprintf(there, sizeof there, "%s%s%s", remote_file, dot, names[i]);
        snprintf(here, sizeof here, "%s%s%s", file, dot, names[i]);
        if (strlen(here) < FETCH_NAME_MAX - 8)
            s = fetch_one(f, &w, &found, err);
    }
    return s;
}

/* The hub's commit tells at the first file that nothing has changed. */
static bool is_same_commit(const struct fetch *f)
{
    const char *known = json_string_value(json_object_get(f->record, "revision"));
    return f->remote->is_hub && f->lease >= 0 && f->commit[0] && known && strcmp(known, f->commit) == 0;
}

static bool is_gguf(const char *file)
{
    size_t n = strlen(file);
    return n > 5 && strcasecmp(file + n - 5, ".gguf") == 0;
}

/* The weights' name in the cache. */
static const char *local_name(const struct remote *r)
{
    if (is_gguf(r->file))
        return is_plain(r->file) ? r->file : "adapter.gguf";
    return strcmp(r->file, MLX_WEIGHTS) == 0 ? MLX_WEIGHTS : WEIGHTS;
}

/* *same: the cache's entry is what the source has. */
static enum status fetch_all(struct fetch *f, bool *same, struct error *err)
{
    const struct remote *r = f->remote;
    struct wanted config = {
        .remote_name = CONFIG, .name = CONFIG, .sha256 = "", .limit_bytes = CONFIG_BYTES_MAX};
    struct wanted file = {.remote_name = r->file, .name = local_name(r), .sha256 = r->sha256};
    *same = false;
    bool gguf = is_gguf(r->file);
    enum status s = fetch_needed(f, gguf ? &file : &config, err);
    if (s == STATUS_OK && is_same_commit(f)) {
        *same = true;
        return s;
    }
    if (s == STATUS_OK && !gguf)
        s = r->file[0] ? fetch_needed(f, &file, err) : fetch_weights(f, err);
    return s == STATUS_OK ? fetch_extras(f, gguf ? r->file : "", gguf ? file.name : "", err) : s;
}

/* ---- the record, and the answer */

static bool is_weights(const char *name)
{
    return is_gguf(name) || strcmp(name, WEIGHTS) == 0 || strcmp(name, MLX_WEIGHTS) == 0 ||
           strcmp(name, INDEX) == 0;
}

static json_t *weights_of(const json_t *record)
{
    const json_t *files = json_object_get(record, "files");
    for (size_t i = 0; i < json_array_size(files); i++) {
        json_t *f = json_array_get(files, i);
        const char *name = json_string_value(json_object_get(f, "name"));
        if (name && is_weights(name))
            return f;
    }
    return NULL;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static bool is_as_expected(const struct remote *r, const json_t *record)
{
    return !r->sha256[0] || strcmp(r->sha256, text_of(weights_of(record), "sha256")) == 0;
}

static json_t *make_record(const struct fetch *f, struct error *err)
{
    struct buf content;
    char hex[65], key[33];
    json_t *record = json_object(), *files = json_array();
    buf_init(&content, 0);
    bool ok = record && files;
    for (size_t i = 0; ok && i < f->n_files; i++) {
        const struct fetch_file *file = &f->files[i];
        json_t *one = json_pack("{s:s, s:s, s:s, s:I}", "name", file->name, "etag", file->etag, "sha256",
                                file->sha256, "bytes", (json_int_t)file->bytes);
        ok = buf_printf(&content, "%s %s\n", file->name, file->sha256) &&
             json_array_append_new(files, one) == 0;
    }
    ok = ok && sha256_of(content.data, content.length, hex, err) == STATUS_OK;
    snprintf(key, sizeof key, "%.32s", ok ? hex : "");
    buf_fini(&content);
    ok = ok && json_object_set_new(record, "entry", json_string(key)) == 0 &&
         json_object_set_new(record, "url", json_string(f->remote->shown)) == 0 &&
         json_object_set_new(record, "revision", json_string(f->commit)) == 0 &&
         json_object_set(record, "files", files) == 0;
    json_decref(files);
    if (ok)
        return record;
    json_decref(record);
    (void)fail(err, STATUS_NO_MEMORY, "no memory to keep what was fetched");
    return NULL;
}

/* Takes the lease. */
static enum status answer(const struct fetch *f, const json_t *record, int lease, struct fetched *out,
                          struct error *err)
{
    const json_t *files = json_object_get(record, "files"), *weights = weights_of(record);
    const char *name = text_of(weights, "name"), *revision = text_of(record, "revision");
    int n = snprintf(out->path, sizeof out->path, "%s/entries/%s%s%s", f->cache.path,
                     text_of(record, "entry"), is_gguf(name) ? "/" : "", is_gguf(name) ? name : "");
    snprintf(out->revision, sizeof out->revision, "%s", revision[0] ? revision : text_of(weights, "etag"));
    snprintf(out->sha256, sizeof out->sha256, "%s", text_of(weights, "sha256"));
    for (size_t i = 0; i < json_array_size(files); i++)
        out->bytes += (uint64_t)json_integer_value(json_object_get(json_array_get(files, i), "bytes"));
    out->downloaded = f->downloaded;
    out->lease = lease;
    if (n < (int)sizeof out->path)
        return STATUS_OK;
    out->code = SOURCE_INTERNAL;
    return fail(err, STATUS_INVALID, "%.250s: its path in the cache is too long (--source-cache)",
                f->remote->shown);
}

static enum status publish(struct fetch *f, struct fetched *out, struct error *err)
{
    const struct remote *r = f->remote;
    json_t *record = make_record(f, err);
    if (!record)
        return STATUS_NO_MEMORY;
    /* In this order: the rename lets in who waits for us, and they look for the record. One whose entry isn't
     * there yet, or never comes, is as good as none. */
    enum status s = cache_record(&f->cache, r->id, record, err);
    if (s == STATUS_OK)
        s = cache_publish(&f->cache, r->id, record, &f->partial_fd, err);
    if (s == STATUS_OK) {
        s = answer(f, record, f->partial_fd, out, err);
        f->partial_fd = -1;
    }
    json_decref(record);
    return s;
}

/* What can't have changed needs no question: a commit, or a digest that is asked for. */
static bool is_pinned(const struct fetch *f)
{
    const struct remote *r = f->remote;
    if (f->lease < 0 || !is_as_expected(r, f->record))
        return false;
    bool commit =
        r->is_hub && strlen(r->revision) == 40 && strcmp(r->revision, text_of(f->record, "revision")) == 0;
    return commit || r->sha256[0];
}

static enum status use_known(struct fetch *f, struct fetched *out, struct error *err)
{
    int lease = f->lease;
    f->lease = -1;
    return answer(f, f->record, lease, out, err);
}

static enum status fetch_now(struct fetch *f, struct fetched *out, struct error *err)
{
    const struct remote *r = f->remote;
    bool same = false;
    enum status s = cache_begin(&f->cache, r, f->deadline_ns, &f->partial_fd, err);
    if (s != STATUS_OK)
        return s;
    json_decref(f->record); /* whom we waited for may have brought a newer one */
    if (f->lease >= 0)
        close(f->lease);
    f->record = cache_find(&f->cache, r->id);
    f->lease = f->record ? cache_lease(&f->cache, f->record) : -1;
    f->curl = exchange_open();
    if (!f->curl)
        return fail(err, STATUS_NO_MEMORY, "no memory for a transfer");
    s = fetch_all(f, &same, err);
    if (s != STATUS_OK)
        return s;
    if (same && is_as_expected(r, f->record))
        return use_known(f, out, err);
    if (same) {
        f->code = SOURCE_SHA256;
        return fail(err, STATUS_MISMATCH, "%.200s: SHA-256 of the weights is %s, expected %s (as asked)",
                    r->shown, text_of(weights_of(f->record), "sha256"), r->sha256);
    }
    return publish(f, out, err);
}

static bool may_be_stale(const struct fetch *f, enum status s)
{
    return (s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT) && !f->is_refusal && f->lease >= 0 &&
           is_as_expected(f->remote, f->record);
}

static void finish(struct fetch *f, enum status s)
{
    bool go_on = (s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT || s == STATUS_CANCELLED) && !f->is_refusal;
    if (f->partial_fd >= 0 && go_on)
        close(f->partial_fd);
    else
        cache_abandon(&f->cache, f->remote->id, &f->partial_fd);
    if (f->lease >= 0)
        close(f->lease);
    exchange_close(f->curl);
    json_decref(f->record);
    mem_free(f->files);
    cache_close(&f->cache);
}

static const char *code_of(enum status s)
{
    switch (s) {
    case STATUS_INVALID:
        return SOURCE_INVALID;
    case STATUS_NOT_FOUND:
    case STATUS_UNAVAILABLE:
    case STATUS_TIMEOUT:
    case STATUS_CANCELLED:
        return SOURCE_UNREACHABLE;
    case STATUS_FULL:
        return SOURCE_NO_ROOM;
    case STATUS_FORMAT:
        return SOURCE_FORMAT;
    case STATUS_TOO_LARGE:
        return SOURCE_TOO_LARGE;
    default:
        return SOURCE_INTERNAL;
    }
}

static enum status run(struct fetch *f, struct fetched *out, struct error *err)
{
    const struct remote *r = f->remote;
    enum status s = cache_open(r->options, &f->cache, err);
    if (s != STATUS_OK)
        return s;
    f->record = cache_find(&f->cache, r->id);
    f->lease = f->record ? cache_lease(&f->cache, f->record) : -1;
    s = is_pinned(f) ? use_known(f, out, err) : fetch_now(f, out, err);
    enum status outcome = s;
    if (may_be_stale(f, s)) {
        snprintf(out->why, sizeof out->why, "%s", err->text);
        s = use_known(f, out, err);
        out->stale = true;
    }
    finish(f, outcome);
    return s;
}

enum status source_fetch(const struct source_options *o, const char *url, struct fetched *out,
                         struct error *err)
{
    struct error own = {0};
    struct error *e = err ? err : &own;
    *out = (struct fetched){.lease = -1};
    struct remote *r = mem_zalloc(sizeof *r);
    if (!r) {
        out->code = SOURCE_INTERNAL;
        return fail(e, STATUS_NO_MEMORY, "no memory for a source");
    }
    struct fetch f = {.remote = r,
                      .deadline_ns = clock_now_ns() + (int64_t)o->timeout_ms * NS_PER_MS,
                      .partial_fd = -1,
                      .lease = -1};
    enum status s = remote_parse(o, url, r, &out->code, e);
    if (s == STATUS_OK) {
        s = run(&f, out, e);
        if (s != STATUS_OK && !out->code)
            out->code = f.code ? f.code : code_of(s);
    }
    if (s != STATUS_OK)
        fetched_release(out);
    mem_free(r);
    return s;
}

void fetched_release(struct fetched *f)
{
    if (f->lease >= 0)
        close(f->lease);
    f->lease = -1;
}

enum status sources_sweep(const struct source_options *o, struct error *err)
{
    struct cache c;
    enum status s = cache_open(o, &c, err);
    if (s != STATUS_OK)
        return s;
    s = cache_sweep(&c, err);
    cache_close(&c);
    return s;
}
