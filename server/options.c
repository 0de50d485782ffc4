/* From texts to `struct conf`: one setter a kind, one row an option. Knows nothing of files and flags. */
#include "options.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "conf.h"

enum kind { KIND_TEXT, KIND_CHOICE, KIND_COUNT, KIND_BYTES, KIND_DURATION, KIND_BOOL, KIND_LIST };

/* LIST options have adders and no member; these make the X-macro's sizeof and offsetof well-formed for them.
 */
#define LIST_MEMBER_adapter adapters
#define LIST_MEMBER_adapter_root adapter_roots
#define LIST_MEMBER_blend blends
#define LIST_MEMBER_auto_rule auto_rules
#define LIST_MEMBER_cors_origin cors_origins
#define LIST_MEMBER_trusted_proxy trusted_proxies
#define LIST_MEMBER_source_allow source_allow
#define LIST_MEMBER_listen listen
#define LIST_MEMBER_admin_listen admin_listen
#define PLACE_LIST(m) offsetof(struct conf, LIST_MEMBER_##m), 0
#define PLACE_TEXT(m) offsetof(struct conf, m), sizeof(((struct conf *)0)->m)
#define PLACE_CHOICE(m) PLACE_TEXT(m)
#define PLACE_COUNT(m) PLACE_TEXT(m)
#define PLACE_BYTES(m) PLACE_TEXT(m)
#define PLACE_DURATION(m) PLACE_TEXT(m)
#define PLACE_BOOL(m) PLACE_TEXT(m)

struct option_row {
    enum kind kind;
    const char *key;
    size_t offset, size_bytes;
    double min, max;
    const char *words, *value, *help;
};

static const struct option_row rows[] = {
#define ROW(kind, key, member, min, max, words, value, help)                                                 \
    {KIND_##kind, key, PLACE_##kind(member), min, max, words, value, help},
    OPTION_LIST(ROW)
#undef ROW
};
#define N_ROWS (sizeof rows / sizeof rows[0])

static const struct option_row *find(const char *key)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

bool option_exists(const char *key)
{
    return find(key) != NULL;
}

bool option_is_bool(const char *key)
{
    const struct option_row *r = find(key);
    return r && r->kind == KIND_BOOL;
}

static enum status refuse(const struct option_row *r, const char *value, const char *expected,
                          struct error *err)
{
    return fail(err, STATUS_INVALID, "%s: found \"%s\", expected %s", r->key, value, expected);
}

static enum status out_of_range(const struct option_row *r, const char *value, const char *unit,
                                struct error *err)
{
    return fail(err, STATUS_INVALID, "%s: found \"%s\", expected %.15g to %.15g%s", r->key, value, r->min,
                r->max, unit);
}

static void store_number(struct conf *c, const struct option_row *r, double v)
{
    char *at = (char *)c + r->offset;
    if (r->size_bytes == sizeof(uint64_t))
        memcpy(at, &(uint64_t){(uint64_t)v}, sizeof(uint64_t));
    else
        memcpy(at, &(uint32_t){(uint32_t)v}, sizeof(uint32_t));
}

/* The number that a text begins with and what follows it; NaN, and the whole text, if it begins with no
 * digit. */
static double leading_number(const char *text, const char **rest)
{
    char *end;
    *rest = text;
    if (!isdigit((unsigned char)text[0]))
        return NAN;
    double v = strtod(text, &end);
    *rest = end;
    return v;
}

static enum status set_count(struct conf *c, const struct option_row *r, const char *value, struct error *err)
{
    const char *end;
    double v = leading_number(value, &end);
    if (!isfinite(v) || *end || v != floor(v))
        return refuse(r, value, "a whole number", err);
    if (v < r->min || v > r->max)
        return out_of_range(r, value, "", err);
    store_number(c, r, v);
    return STATUS_OK;
}

struct unit {
    const char *name;
    double factor;
};
static const struct unit byte_units[] = {{"", 1},
                                         {"B", 1},
                                         {"KiB", 1024},
                                         {"MiB", 1048576},
                                         {"GiB", 1073741824.0},
                                         {"TiB", 1099511627776.0},
                                         {"KB", 1e3},
                                         {"kB", 1e3},
                                         {"MB", 1e6},
                                         {"GB", 1e9},
                                         {"TB", 1e12},
                                         {NULL, 0}};
static const struct unit time_units[] = {{"ms", 1},    {"s", 1e3},   {"m", 6e4},
                                         {"min", 6e4}, {"h", 3.6e6}, {NULL, 0}};

static enum status set_with_unit(struct conf *c, const struct option_row *r, const char *value,
                                 struct error *err)
{
    bool time = r->kind == KIND_DURATION;
    const char *expected =
        time ? "a time with a unit: 500ms, 30s, 5m" : "bytes with an optional unit: 65536, 64KiB, 2GiB";
    const char *end;
    double v = leading_number(value, &end);
    if (!isfinite(v))
        return refuse(r, value, expected, err);
    while (*end == ' ')
        end++;
    for (const struct unit *u = time ? time_units : byte_units; u->name; u++) {
        if (strcmp(u->name, end) != 0)
            continue;
        v = floor(v * u->factor);
        if (v < r->min || v > r->max)
            return out_of_range(r, value, time ? " ms" : " bytes", err);
        store_number(c, r, v);
        return STATUS_OK;
    }
    return refuse(r, value, expected, err);
}

static enum status set_bool(struct conf *c, const struct option_row *r, const char *value, struct error *err)
{
    bool yes = strcmp(value, "true") == 0 || strcmp(value, "yes") == 0 || strcmp(value, "on") == 0;
    if (!yes && strcmp(value, "false") != 0 && strcmp(value, "no") != 0 && strcmp(value, "off") != 0)
        return refuse(r, value, "true or false", err);
    memcpy((char *)c + r->offset, &yes, sizeof yes);
    return STATUS_OK;
}

static enum status set_text(struct conf *c, const struct option_row *r, const char *value, struct error *err)
{
    const char *copy = arena_strdup(c->arena, value);
    if (!copy)
        return fail(err, STATUS_NO_MEMORY, "no memory for the configuration");
    if (!value[0])
        return refuse(r, value, "something", err);
    memcpy((char *)c + r->offset, &copy, sizeof copy);
    return STATUS_OK;
}

static enum status set_choice(struct conf *c, const struct option_row *r, const char *value,
                              struct error *err)
{
    size_t n = strlen(value);
    int index = 0;
    for (const char *w = r->words; w; index++) {
        const char *end = strchr(w, '|');
        size_t length = end ? (size_t)(end - w) : strlen(w);
        if (length == n && memcmp(w, value, n) == 0)
            break;
        w = end ? end + 1 : NULL;
        if (!w)
            return fail(err, STATUS_INVALID, "%s: found \"%s\", expected one of %s", r->key, value, r->words);
    }
    /* Five choices are not kept as texts. */
    if (strcmp(r->key, "log-level") == 0)
        c->log_level = (enum log_level)index;
    else if (strcmp(r->key, "effect-test") == 0)
        c->effect = (enum effect_mode)index;
    else if (strcmp(r->key, "adapter-store") == 0)
        c->store = (enum adapter_store)index;
    else if (strcmp(r->key, "base-match") == 0)
        c->base_policy = (enum base_policy)index; /* in the order of the words */
    else if (strcmp(r->key, "log-format") == 0)
        c->log_json = index == 1;
    else
        return set_text(c, r, value, err);
    return STATUS_OK;
}

static enum status add_to_list(struct conf *c, const struct option_row *r, const char *value,
                               struct error *err)
{
    if (strcmp(r->key, "adapter") == 0)
        return conf_add_adapter(c, value, err);
    if (strcmp(r->key, "adapter-root") == 0)
        return conf_add_adapter_root(c, value, err);
    if (strcmp(r->key, "blend") == 0)
        return conf_add_blend(c, value, err);
    if (strcmp(r->key, "auto") == 0)
        return conf_add_auto(c, value, err);
    if (strcmp(r->key, "cors-origin") == 0)
        return conf_add_cors_origin(c, value, err);
    if (strcmp(r->key, "trusted-proxy") == 0)
        return proxies_add(&c->trusted_proxies, value, err);
    if (strcmp(r->key, "source-allow") == 0)
        return conf_add_source_allow(c, value, err);
    if (strcmp(r->key, "listen") == 0)
        return conf_add_listen(c, value, err);
    return conf_add_admin_listen(c, value, err);
}

enum status option_set(struct conf *c, const char *key, const char *value, struct error *err)
{
    const struct option_row *r = find(key);
    if (!r)
        return fail(err, STATUS_NOT_FOUND, "unknown option \"%s\"; `lorikeet serve --help` lists them", key);
    switch (r->kind) {
    case KIND_TEXT:
        return set_text(c, r, value, err);
    case KIND_CHOICE:
        return set_choice(c, r, value, err);
    case KIND_COUNT:
        return set_count(c, r, value, err);
    case KIND_BYTES:
    case KIND_DURATION:
        return set_with_unit(c, r, value, err);
    case KIND_BOOL:
        return set_bool(c, r, value, err);
    case KIND_LIST:
        return add_to_list(c, r, value, err);
    }
    return fail(err, STATUS_INTERNAL, "option \"%s\" has no kind", key);
}

void option_reset_list(struct conf *c, const char *key)
{
    if (strcmp(key, "listen") == 0)
        c->n_listen = 0;
    else if (strcmp(key, "admin-listen") == 0)
        c->n_admin_listen = 0;
    else if (strcmp(key, "adapter-root") == 0)
        c->n_adapter_roots = 0;
    else if (strcmp(key, "source-allow") == 0)
        c->n_source_allow = 0;
    else if (strcmp(key, "cors-origin") == 0)
        c->n_cors_origins = 0;
    else if (strcmp(key, "trusted-proxy") == 0)
        c->trusted_proxies = (struct proxies){0};
}

void options_print_help(FILE *to)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        char left[60];
        snprintf(left, sizeof left, "--%s %s", rows[i].key, rows[i].value);
        fprintf(to, "  %-32s %s\n", left, rows[i].help);
        if (rows[i].words)
            fprintf(to, "  %-32s   %s\n", "", rows[i].words);
    }
}
