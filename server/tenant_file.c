/* libcyaml gives texts and lists of texts; they become the JSON that tenant_spec.c reads, so that both ways
 * of configuring know the same fields with the same bounds. */
#include "tenant_file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cyaml/cyaml.h>

#include "adapters.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "yaml_text.h"

#define FILE_BYTES_MAX ((size_t)4 << 20)

/* Fields of a tenant: T a text, V a number, L a list of texts. */
#define TENANT_FIELDS(X)                                                                                     \
    X(T, name)                                                                                               \
    X(T, description)                                                                                        \
    X(L, voices)                                                                                             \
    X(L, own_voices)                                                                                         \
    X(T, default_voice)                                                                                      \
    X(L, aliases) /* "NAME=VOICE" */                                                                         \
    X(T, always)                                                                                             \
    X(T, system_prompt)                                                                                      \
    X(L, locked)                                                                                             \
    X(L, endpoints)                                                                                          \
    X(T, priority)                                                                                           \
    X(V, weight)                                                                                             \
    X(V, requests_per_minute)                                                                                \
    X(V, requests_per_day)                                                                                   \
    X(V, tokens_per_minute)                                                                                  \
    X(V, tokens_per_day)                                                                                     \
    X(V, concurrent_requests)                                                                                \
    X(V, loads_per_minute)                                                                                   \
    X(V, kv_share)                                                                                           \
    X(V, resident_bytes)                                                                                     \
    X(V, context)                                                                                            \
    X(T, cache_group)

#define SAMPLING_FIELDS(X)                                                                                   \
    X(V, temperature)                                                                                        \
    X(V, top_p)                                                                                              \
    X(V, top_k)                                                                                              \
    X(V, min_p)                                                                                              \
    X(V, typical_p)                                                                                          \
    X(V, repetition_penalty)                                                                                 \
    X(V, presence_penalty)                                                                                   \
    X(V, frequency_penalty)                                                                                  \
    X(V, seed)                                                                                               \
    X(V, max_tokens)                                                                                         \
    X(V, min_tokens)                                                                                         \
    X(L, stop)                                                                                               \
    X(V, n)

#define MEMBER_T(f) char *f;
#define MEMBER_V(f) char *f;
#define MEMBER_L(f)                                                                                          \
    char **f;                                                                                                \
    unsigned f##_count;
#define MEMBER(kind, f) MEMBER_##kind(f)

struct yaml_sampling {
    SAMPLING_FIELDS(MEMBER)
};
struct yaml_key {
    char *id, *name, *sha256;
};
struct yaml_tenant {
    TENANT_FIELDS(MEMBER)
    struct yaml_sampling *sampling;
    struct yaml_key *keys;
    unsigned keys_count;
};
struct yaml_file {
    struct yaml_tenant *tenants;
    unsigned tenants_count;
};

static const cyaml_schema_value_t text_item = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED)};

#define FIELD_T(s, f)                                                                                        \
    CYAML_FIELD_STRING_PTR(#f, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct s, f, 0, CYAML_UNLIMITED),
#define FIELD_V(s, f) FIELD_T(s, f)
#define FIELD_L(s, f)                                                                                        \
    CYAML_FIELD_SEQUENCE(#f, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct s, f, &text_item, 0,           \
                         CYAML_UNLIMITED),

static const cyaml_schema_field_t sampling_schema[] = {
#define FIELD(kind, f) FIELD_##kind(yaml_sampling, f)
    SAMPLING_FIELDS(FIELD)
#undef FIELD
        CYAML_FIELD_END};

static const cyaml_schema_field_t key_schema[] = {FIELD_T(yaml_key, id) FIELD_T(yaml_key, name)
                                                      FIELD_T(yaml_key, sha256) CYAML_FIELD_END};
static const cyaml_schema_value_t key_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct yaml_key, key_schema)};

static const cyaml_schema_field_t tenant_schema[] = {
#define FIELD(kind, f) FIELD_##kind(yaml_tenant, f)
    TENANT_FIELDS(FIELD)
#undef FIELD
        CYAML_FIELD_MAPPING_PTR("sampling", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_tenant,
                                sampling, sampling_schema),
    CYAML_FIELD_SEQUENCE("keys", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_tenant, keys,
                         &key_value, 0, CYAML_UNLIMITED),
    CYAML_FIELD_END};
static const cyaml_schema_value_t tenant_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct yaml_tenant, tenant_schema)};

static const cyaml_schema_field_t file_schema[] = {
    CYAML_FIELD_SEQUENCE("tenants", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_file, tenants,
                         &tenant_value, 0, TENANTS_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t top = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct yaml_file, file_schema)};

/* ---- texts to JSON ---- */

/* What isn't a number stays a text, which tenant_spec.c then refuses by name. */
static void put_number(json_t *o, const char *key, const char *text)
{
    json_t *v = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    if (json_is_number(v)) {
        json_object_set_new(o, key, v);
        return;
    }
    json_decref(v);
    yaml_text_put(o, key, text);
}

#define PUT_T(from, f) yaml_text_put(o, #f, (from)->f);
#define PUT_V(from, f) put_number(o, #f, (from)->f);
#define PUT_L(from, f) yaml_text_put_list(o, #f, (from)->f, (from)->f##_count);

static json_t *sampling_json(const struct yaml_sampling *y)
{
    json_t *o = json_object();
#define PUT(kind, f) PUT_##kind(y, f)
    SAMPLING_FIELDS(PUT)
#undef PUT
    return o;
}

/* "NAME=VOICE", …: an object. */
static enum status put_aliases(json_t *o, const struct yaml_tenant *y, struct error *err)
{
    json_t *aliases = json_object();
    for (unsigned i = 0; i < y->aliases_count; i++) {
        char *equals = strchr(y->aliases[i], '=');
        if (!equals) {
            json_decref(aliases);
            return fail(err, STATUS_FORMAT, "aliases: found \"%.80s\", expected NAME=VOICE", y->aliases[i]);
        }
        *equals = '\0';
        json_object_set_new(aliases, y->aliases[i], json_string(equals + 1));
    }
    json_object_set_new(o, "aliases", aliases);
    return STATUS_OK;
}

static enum status read_tenant(const struct yaml_tenant *y, struct tenants_file *out, struct error *err)
{
    struct fault f = {0};
    json_t *o = json_object();
#define PUT(kind, f) PUT_##kind(y, f)
    TENANT_FIELDS(PUT)
#undef PUT
    if (y->sampling)
        json_object_set_new(o, "sampling", sampling_json(y->sampling));
    enum status s = put_aliases(o, y, err);
    if (s == STATUS_OK && !y->name)
        s = fail(err, STATUS_FORMAT, "a tenant has no name");
    if (s == STATUS_OK) {
        s = tenant_spec_parse(y->name, o, &out->specs[out->n], &f);
        out->n += s == STATUS_OK;
        if (s != STATUS_OK)
            *err = f.error;
    }
    json_decref(o);
    return s;
}

/* ---- keys ---- */

static bool read_digest(const char *hex, uint8_t digest[32])
{
    if (!hex || strlen(hex) != 64)
        return false;
    for (size_t i = 0; i < 64; i++) {
        int c = tolower((unsigned char)hex[i]);
        if (!isxdigit(c))
            return false;
        int v = isdigit(c) ? c - '0' : c - 'a' + 10;
        digest[i / 2] = (uint8_t)(i % 2 ? digest[i / 2] | v : v << 4);
    }
    return true;
}

static enum status read_key(const struct yaml_tenant *t, const struct yaml_key *y, struct tenants_file *out,
                            struct error *err)
{
    struct tenant_key *k = &out->keys[out->n_keys];
    *k = (struct tenant_key){.origin = FROM_FILE, .created_ms = clock_wall_ms()};
    if (!read_digest(y->sha256, k->digest))
        return fail(
            err, STATUS_FORMAT,
            "tenant \"%s\": keys: sha256: expected 64 hex digits, as `lorikeet keys generate` prints them",
            t->name);
    if (y->id && (strlen(y->id) > KEY_ID_LENGTH || !adapter_name_is_valid(y->id)))
        return fail(err, STATUS_FORMAT,
                    "tenant \"%s\": keys: id \"%.40s\": expected 1 to %u letters and digits", t->name, y->id,
                    KEY_ID_LENGTH);
    if (y->name && !adapter_name_is_valid(y->name))
        return fail(err, STATUS_FORMAT, "tenant \"%s\": keys: name \"%.80s\" is no name", t->name, y->name);
    snprintf(k->id, sizeof k->id, "%.*s", (int)KEY_ID_LENGTH, y->id ? y->id : y->sha256);
    snprintf(k->name, sizeof k->name, "%s", y->name ? y->name : "default");
    snprintf(k->tenant, sizeof k->tenant, "%s", t->name);
    out->n_keys++;
    return STATUS_OK;
}

/* ---- the whole ---- */

void tenants_file_fini(struct tenants_file *f)
{
    for (size_t i = 0; i < f->n; i++)
        tenant_spec_release(f->specs[i]);
    mem_free(f->specs);
    mem_free(f->keys);
    *f = (struct tenants_file){0};
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct tenant_spec *const *)a)->name, (*(struct tenant_spec *const *)b)->name);
}

static int by_digest(const void *a, const void *b)
{
    const struct tenant_key *x = a, *y = b;
    return memcmp(x->digest, y->digest, sizeof x->digest);
}

static int by_id(const void *a, const void *b)
{
    const struct tenant_key *x = a, *y = b;
    return strcmp(x->id, y->id);
}

static enum status check_keys(struct tenants_file *f, int (*compare)(const void *, const void *),
                              struct error *err)
{
    qsort(f->keys, f->n_keys, sizeof *f->keys, compare);
    for (size_t i = 1; i < f->n_keys; i++)
        if (compare(&f->keys[i - 1], &f->keys[i]) == 0)
            return fail(err, STATUS_FORMAT, "the key \"%s\" is there twice", f->keys[i].id);
    return STATUS_OK;
}

/* What is there twice; sorts tenants by name. */
static enum status check_twice(struct tenants_file *f, struct error *err)
{
    qsort(f->specs, f->n, sizeof(struct tenant_spec *), by_name);
    for (size_t i = 1; i < f->n; i++)
        if (by_name(&f->specs[i - 1], &f->specs[i]) == 0)
            return fail(err, STATUS_FORMAT, "the tenant \"%s\" is there twice", f->specs[i]->name);
    enum status s = check_keys(f, by_id, err);
    return s == STATUS_OK ? check_keys(f, by_digest, err) : s;
}

/* Those of a name beside each other, the file's first. */
static int by_use(const void *a, const void *b)
{
    const struct tenant_key *x = *(const struct tenant_key *const *)a,
                            *y = *(const struct tenant_key *const *)b;
    int c = strcmp(x->tenant, y->tenant);
    c = c ? c : strcmp(x->name, y->name);
    c = c ? c : (x->origin == FROM_STATE) - (y->origin == FROM_STATE);
    return c ? c : strcmp(x->id, y->id);
}

static enum status too_many_active(const struct tenant_key *const *keys, struct error *err)
{
    const struct tenant_key *last = keys[KEYS_ACTIVE_MAX];
    char kept[100] = "";
    if (last->origin == FROM_STATE)
        snprintf(kept, sizeof kept, ", or end the state file's: `lorikeet keys revoke %s`", last->id);
    return fail(err, STATUS_FORMAT,
                "tenant \"%s\": keys: found \"%s\", \"%s\" and \"%s\" of the name \"%s\", expected %u at "
                "most, one and its successor; take one out or give it another name%s",
                last->tenant, keys[0]->id, keys[1]->id, last->id, last->name, KEYS_ACTIVE_MAX, kept);
}

/* As many active keys of a name as the API would make; those that `t` (or NULL) has from elsewhere count. */
static enum status check_active(const struct tenants_file *f, const struct tenants *t, struct error *err)
{
    size_t n_kept = t ? tenants_n_keys(t) : 0, n = 0;
    const struct tenant_key **keys = mem_array(f->n_keys + n_kept + 1, sizeof *keys);
    enum status s = keys ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "no memory for the tenants' keys");
    for (size_t i = 0; i < f->n_keys && keys; i++)
        keys[n++] = &f->keys[i];
    for (size_t i = 0; i < n_kept && keys; i++) {
        const struct tenant_key *kept = tenants_key_at(t, i);
        if (kept->origin == FROM_STATE && !kept->revoked_ms)
            keys[n++] = kept;
    }
    if (n)
        qsort(keys, n, sizeof *keys, by_use);
    for (size_t i = 0; i + KEYS_ACTIVE_MAX < n && s == STATUS_OK; i++) {
        const struct tenant_key *first = keys[i], *last = keys[i + KEYS_ACTIVE_MAX];
        if (first->origin == FROM_FILE && strcmp(first->tenant, last->tenant) == 0 &&
            strcmp(first->name, last->name) == 0)
            s = too_many_active(&keys[i], err);
    }
    mem_free(keys);
    return s;
}

static enum status read_all(const struct yaml_file *y, struct tenants_file *out, struct error *err)
{
    size_t n_keys = 0;
    for (unsigned i = 0; i < y->tenants_count; i++)
        n_keys += y->tenants[i].keys_count;
    if (n_keys > TENANT_KEYS_MAX)
        return fail(err, STATUS_FULL, "%zu keys, at most %u are taken", n_keys, TENANT_KEYS_MAX);
    out->specs = mem_array(y->tenants_count + 1U, sizeof(struct tenant_spec *));
    out->keys = mem_array(n_keys + 1, sizeof *out->keys);
    if (!out->specs || !out->keys)
        return fail(err, STATUS_NO_MEMORY, "no memory for the tenants");
    enum status s = STATUS_OK;
    for (unsigned i = 0; i < y->tenants_count && s == STATUS_OK; i++) {
        const struct yaml_tenant *t = &y->tenants[i];
        s = read_tenant(t, out, err);
        for (unsigned k = 0; k < t->keys_count && s == STATUS_OK; k++)
            s = read_key(t, &t->keys[k], out, err);
    }
    if (s == STATUS_OK)
        s = check_twice(out, err);
    return s == STATUS_OK ? check_active(out, NULL, err) : s;
}

enum status tenants_file_read(const char *path, struct tenants_file *out, struct error *err)
{
    struct buf text;
    struct yaml_complaint why;
    void *loaded;
    buf_init(&text, 0);
    *out = (struct tenants_file){0};
    enum status s = file_read_all(path, FILE_BYTES_MAX, &text, err);
    if (s != STATUS_OK) {
        buf_fini(&text);
        return s;
    }
    if (!yaml_text_load(text.data, text.length, &top, &loaded, &why))
        s = fail(err, STATUS_FORMAT, "%s:%u: %s; docs/TENANTS.md shows the form", path,
                 why.line ? why.line : 1, why.text);
    else if (loaded && (s = read_all(loaded, out, err)) != STATUS_OK)
        fail_within(err, "%s", path);
    yaml_text_free(&top, loaded);
    buf_fini(&text);
    if (s != STATUS_OK)
        tenants_file_fini(out);
    return s;
}

/* ---- into force ---- */

/* What would fail is found before anything changes. */
static enum status check_room(const struct tenants *t, const struct tenants_file *f, struct error *err)
{
    size_t n = tenants_with_file(t, f->specs, f->n), n_keys = f->n_keys;
    if (n > TENANTS_MAX)
        return fail(err, STATUS_FULL,
                    "%zu tenants in all, with those that are gone but have requests; at most %u are taken", n,
                    TENANTS_MAX);
    for (size_t i = 0; i < tenants_n_keys(t); i++)
        n_keys += tenants_key_at(t, i)->origin == FROM_STATE;
    for (size_t i = 0; i < f->n_keys; i++)
        if (tenants_clash(t, &f->keys[i], FROM_STATE))
            return fail(err, STATUS_EXISTS, "the key \"%s\" is in the state file, too", f->keys[i].id);
    if (n_keys > TENANT_KEYS_MAX)
        return fail(err, STATUS_FULL, "%zu keys in all, at most %u are taken", n_keys, TENANT_KEYS_MAX);
    return check_active(f, t, err);
}

enum status tenants_file_apply(struct tenants *t, struct tenants_file *f, const char *path, struct error *err)
{
    enum status s = check_room(t, f, err);
    if (s == STATUS_OK)
        s = tenants_put_file(t, f, clock_wall_ms(), err);
    return s == STATUS_OK ? s : fail_within(err, "%s", path);
}
