/* Defaults and checks of the options. Where an option comes from (command line, file) is not known here. */
#include "conf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adapters.h"
#include "sources.h"
#include "voice_expr.h"

bool conf_init(struct conf *c)
{
    *c = (struct conf){
        .adapters_max = 16384,
        .keep_last_good_ms = 600000,
        .rollback_percent = 20,
        .load_wait_ms = 10000,
        .effect = EFFECT_ENFORCE,
        .store = ADAPTER_STORE_AUTO,
        .adapters_watch = true,
        .adapters_poll_ms = 60000,
        .metrics_public = true,
        .isa = "auto",
        .quant = "auto",
        .pack_cache = "auto",
        .kv_type = "auto",
        .prefix_cache = "on",
        .act = "auto",
        .speculate = "auto",
        .wait_bound_ms = 30000,
        .body_bytes_max = 4U << 20,
        .connections_max = 4096,
        .header_timeout_ms = 10000,
        .body_timeout_ms = 30000,
        .idle_timeout_ms = 120000,
        .write_timeout_ms = 30000,
        .output_bytes_soft = 64U << 10,
        .output_bytes_hard = 4U << 20,
        .ping_interval_ms = 12000,
        .drain_timeout_ms = 30000,
        .n_max = 16,
        .choices_max = 256,
        .worker_text_bytes = 16U << 10,
        .adapter_jobs_max = 256,
        .log_level = LOG_INFO,
    };
    c->arena = arena_create(0);
    return c->arena != NULL;
}

void conf_fini(struct conf *c)
{
    arena_destroy(c->arena);
    c->arena = NULL;
}

static enum status no_memory(struct error *err)
{
    return fail(err, STATUS_NO_MEMORY, "no memory for the configuration");
}

static enum status grow_adapters(struct conf *c, struct error *err)
{
    if (c->n_adapters < c->adapters_capacity)
        return STATUS_OK;
    size_t capacity = c->adapters_capacity ? c->adapters_capacity * 2 : 16;
    struct conf_adapter *more = arena_array(c->arena, capacity, sizeof *more);
    if (!more)
        return no_memory(err);
    if (c->n_adapters)
        memcpy(more, c->adapters, c->n_adapters * sizeof *more);
    c->adapters = more;
    c->adapters_capacity = capacity;
    return STATUS_OK;
}

/* Cuts ":SCALE" off the end of a path; a path with a colon of its own stays whole. */
static enum status split_scale(char *path, double *scale, struct error *err)
{
    char *colon = strrchr(path, ':'), *end;
    *scale = 1;
    if (!colon || !colon[1] || strchr(colon, '/'))
        return STATUS_OK;
    double v = strtod(colon + 1, &end);
    if (*end)
        return STATUS_OK;
    if (!isfinite(v) || fabs(v) > 1000)
        return fail(err, STATUS_INVALID, "--adapter: scale \"%s\" is not a number from -1000 to 1000",
                    colon + 1);
    *scale = v;
    *colon = '\0';
    return STATUS_OK;
}

enum status conf_add_adapter(struct conf *c, const char *text, struct error *err)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1])
        return fail(err, STATUS_INVALID, "--adapter: found \"%s\", expected NAME=PATH or NAME=PATH:SCALE",
                    text);
    char *name = arena_strndup(c->arena, text, (size_t)(equals - text));
    char *path = arena_strdup(c->arena, equals + 1);
    if (!name || !path)
        return no_memory(err);
    if (!adapter_name_is_valid(name))
        return fail(
            err, STATUS_INVALID,
            "--adapter: name \"%s\" must begin with a letter or digit and hold at most 64 letters, digits, "
            "'.', '_' and '-'",
            name);
    for (size_t i = 0; i < c->n_adapters; i++)
        if (!strcmp(c->adapters[i].name, name))
            return fail(err, STATUS_EXISTS, "--adapter: the name \"%s\" is given twice", name);
    double scale;
    enum status s = split_scale(path, &scale, err);
    if (s == STATUS_OK)
        s = grow_adapters(c, err);
    if (s == STATUS_OK)
        c->adapters[c->n_adapters++] = (struct conf_adapter){.name = name, .path = path, .scale = scale};
    return s;
}

/* The form alone: which adapters there are is known later. */
static enum status check_voice(const char *option, const char *text, struct error *err)
{
    struct voice_expr e;
    enum status s = voice_expr_parse(text, "base", &e, err);
    if (s == STATUS_OK && e.n == 0)
        s = fail(err, STATUS_INVALID, "found \"%s\", expected adapters, as in pt+0.5*safety", text);
    return s == STATUS_OK ? s : fail_within(err, "%s", option);
}

enum status conf_add_blend(struct conf *c, const char *text, struct error *err)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1])
        return fail(err, STATUS_INVALID,
                    "--blend: found \"%s\", expected NAME=VOICE, as in formal=pt+0.5*polite", text);
    struct conf_blend b = {.name = arena_strndup(c->arena, text, (size_t)(equals - text)),
                           .text = arena_strdup(c->arena, equals + 1)};
    if (!b.name || !b.text)
        return no_memory(err);
    if (!adapter_name_is_valid(b.name))
        return fail(
            err, STATUS_INVALID,
            "--blend: name \"%s\" must begin with a letter or digit and hold at most 64 letters, digits, "
            "'.', '_' and '-'",
            b.name);
    for (size_t i = 0; i < c->n_blends; i++)
        if (!strcmp(c->blends[i].name, b.name))
            return fail(err, STATUS_EXISTS, "--blend: the name \"%s\" is given twice", b.name);
    if (c->n_blends == CONF_BLENDS_MAX)
        return fail(err, STATUS_FULL, "--blend: given more than %u times", CONF_BLENDS_MAX);
    enum status s = check_voice("--blend", b.text, err);
    if (s == STATUS_OK)
        c->blends[c->n_blends++] = b;
    return s;
}

enum status conf_add_auto(struct conf *c, const char *text, struct error *err)
{
    struct auto_rule *rule = &c->auto_rules[c->n_auto_rules];
    if (c->n_auto_rules == AUTO_RULES_MAX)
        return fail(err, STATUS_FULL, "--auto: given more than %u times", AUTO_RULES_MAX);
    enum status s = auto_rule_parse(text, c->arena, rule, err);
    struct voice_expr e;
    if (s == STATUS_OK)
        s = voice_expr_parse(rule->voice, "base", &e, err);
    if (s == STATUS_OK)
        c->n_auto_rules++;
    return s;
}

static enum status add_text(struct conf *c, const char **list, size_t *n, size_t limit, const char *text)
{
    char *copy = *n < limit ? arena_strdup(c->arena, text) : NULL;
    if (!copy)
        return *n < limit ? STATUS_NO_MEMORY : STATUS_FULL;
    list[(*n)++] = copy;
    return STATUS_OK;
}

static enum status add_named(struct conf *c, const char **list, size_t *n, const char *option,
                             const char *text, struct error *err)
{
    bool roots = list == c->adapter_roots || list == c->source_allow || list == c->cors_origins;
    size_t limit = roots ? CONF_ROOTS_MAX : CONF_LISTEN_MAX;
    enum status s = add_text(c, list, n, limit, text);
    if (s == STATUS_NO_MEMORY)
        return no_memory(err);
    return s == STATUS_OK ? s : fail(err, s, "%s: given more than %zu times", option, limit);
}

enum status conf_add_listen(struct conf *c, const char *address, struct error *err)
{
    return add_named(c, c->listen, &c->n_listen, "--listen", address, err);
}

enum status conf_add_admin_listen(struct conf *c, const char *address, struct error *err)
{
    return add_named(c, c->admin_listen, &c->n_admin_listen, "--admin-listen", address, err);
}

enum status conf_add_adapter_root(struct conf *c, const char *folder, struct error *err)
{
    return add_named(c, c->adapter_roots, &c->n_adapter_roots, "--adapter-root", folder, err);
}

/* A browser sends an origin in exactly this form (RFC 6454 section 6.2): one with a path would never be met.
 */
enum status conf_add_cors_origin(struct conf *c, const char *origin, struct error *err)
{
    const char *host = strstr(origin, "://");
    bool is_origin = host && host > origin && host[3] && !strpbrk(host + 3, "/?# ");
    if (strcmp(origin, "*") != 0 && strcmp(origin, "null") != 0 && !is_origin)
        return fail(err, STATUS_INVALID,
                    "--cors-origin: found \"%s\", expected an origin without a path, as in "
                    "https://chat.example.org, or *",
                    origin);
    return add_named(c, c->cors_origins, &c->n_cors_origins, "--cors-origin", origin, err);
}

enum status conf_add_source_allow(struct conf *c, const char *prefix, struct error *err)
{
    if (!source_allow_is_valid(prefix))
        return fail(
            err, STATUS_INVALID,
            "--source-allow: found \"%s\", expected https://HOST/, https://*.DOMAIN/, s3://BUCKET/ or "
            "hf://ORG/, perhaps with a longer path",
            prefix);
    return add_named(c, c->source_allow, &c->n_source_allow, "--source-allow", prefix, err);
}

void conf_sources(const struct conf *c, struct source_options *o)
{
    source_options_init(o);
    o->allow = c->source_allow;
    o->n_allow = c->n_source_allow;
    o->ca_file = c->source_ca ? c->source_ca : o->ca_file;
    o->cache_dir = c->source_cache ? c->source_cache : o->cache_dir;
    o->cache_bytes_max = c->source_cache_bytes ? c->source_cache_bytes : o->cache_bytes_max;
    o->bytes_max = c->source_bytes ? c->source_bytes : o->bytes_max;
    o->timeout_ms = c->source_timeout_ms ? c->source_timeout_ms : o->timeout_ms;
    o->stall_ms = c->source_stall_ms ? c->source_stall_ms : o->stall_ms;
    o->hf_endpoint = c->hf_endpoint ? c->hf_endpoint : o->hf_endpoint;
    o->s3_endpoint = c->s3_endpoint ? c->s3_endpoint : o->s3_endpoint;
    o->s3_region = c->s3_region ? c->s3_region : o->s3_region;
}

/* The admin socket's usual place: the user's runtime folder, named after the data port so that two servers
 * don't meet. */
static enum status default_admin(struct conf *c, struct error *err)
{
    const char *folder = getenv("XDG_RUNTIME_DIR");
    if (!folder || folder[0] != '/')
        return STATUS_OK;
    const char *colon = strrchr(c->listen[0], ':');
    const char *port = !strncmp(c->listen[0], "unix:", 5) || !colon ? "0" : colon + 1;
    const char *address = arena_printf(c->arena, "unix:%s/lorikeet-%s.sock", folder, port);
    if (!address)
        return no_memory(err);
    c->admin_listen[c->n_admin_listen++] = address;
    return STATUS_OK;
}

static uint64_t quarter_of_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (uint64_t)pages / 4 * (uint64_t)page_bytes : UINT64_C(1) << 30;
}

/* Under systemd (StateDirectory=) the state has a place of its own: the first of the folders that it names.
 */
static enum status default_state(struct conf *c, struct error *err)
{
    const char *folder = getenv("STATE_DIRECTORY");
    if (c->state && !strcmp(c->state, "off")) {
        c->state = NULL;
        return STATUS_OK;
    }
    if (c->state || !folder || folder[0] != '/')
        return STATUS_OK;
    c->state = arena_printf(c->arena, "%.*s/adapters.db", (int)strcspn(folder, ":"), folder);
    return c->state ? STATUS_OK : no_memory(err);
}

enum status conf_finish(struct conf *c, struct error *err)
{
    enum status s = STATUS_OK;
    if (c->merge_bytes == 0)
        c->merge_bytes = quarter_of_memory();
    if (c->resident_bytes == 0)
        c->resident_bytes = quarter_of_memory();
    if (!c->model || !c->model[0])
        return fail(err, STATUS_INVALID, "--model: missing; give a Hugging Face folder or a .gguf file");
    if (!c->tls_cert != !c->tls_key)
        return fail(err, STATUS_INVALID, "--tls-cert and --tls-key belong together; --%s is missing",
                    c->tls_cert ? "tls-key" : "tls-cert");
    if (c->n_listen == 0)
        s = conf_add_listen(c, "127.0.0.1:8080", err);
    if (s == STATUS_OK && c->n_admin_listen == 0)
        s = default_admin(c, err);
    else if (c->n_admin_listen == 1 && !strcmp(c->admin_listen[0], "off"))
        c->n_admin_listen = 0;
    if (s == STATUS_OK)
        s = default_state(c, err);
    if (s == STATUS_OK && c->served_rows && !c->state)
        s = fail(err, STATUS_INVALID, "--served-log: it is kept in the state file; give --state FILE");
    if (s == STATUS_OK && c->adapters_dir)
        s = conf_add_adapter_root(c, c->adapters_dir, err);
    if (s == STATUS_OK && c->name && !adapter_name_is_valid(c->name))
        s = fail(
            err, STATUS_INVALID,
            "--name: \"%s\" must begin with a letter or digit and hold at most 64 letters, digits, '.', '_' "
            "and '-'",
            c->name);
    if (s == STATUS_OK && c->always)
        s = check_voice("--always", c->always, err);
    for (size_t i = 0; s == STATUS_OK && i < c->n_blends; i++)
        for (size_t k = 0; s == STATUS_OK && k < c->n_adapters; k++)
            if (!strcmp(c->blends[i].name, c->adapters[k].name))
                s = fail(err, STATUS_EXISTS, "--blend: \"%s\" is an adapter's name", c->blends[i].name);
    for (size_t i = 0; s == STATUS_OK && c->name && i < c->n_adapters; i++)
        if (!strcmp(c->adapters[i].name, c->name))
            s = fail(err, STATUS_EXISTS, "--adapter: \"%s\" is the base's own name", c->name);
    return s;
}
