/* Adapters at run time, on the admin listener: vLLM's /v1/load_lora_adapter and /v1/unload_lora_adapter with
 * its texts and its form of errors (`code` is the HTTP status), and a list of our own. */
#include <string.h>

#include "adapter_jobs.h"
#include "api.h"
#include "api_parse.h"
#include "server.h"

static void reply_admin_error(struct request *r, int http_status, const char *message)
{
    const char *type = http_status == 404   ? "NotFoundError"
                       : http_status == 400 ? "InvalidUserInput"
                       : http_status == 503 ? "ServiceUnavailableError"
                                            : "InternalServerError";
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key(&w, "error");
    jw_begin(&w, '{');
    jw_key_text(&w, "message", message);
    jw_key_text(&w, "type", type);
    jw_key_text(&w, "param", NULL);
    jw_key_int(&w, "code", http_status);
    jw_end(&w, '}');
    jw_end(&w, '}');
    if (http_status == 503)
        reply_header(r, "Retry-After", "1");
    reply_json(r, http_status, &out);
    buf_fini(&out);
}

static void reply_success(struct request *r, const char *name, const char *what)
{
    char text[160];
    int n = snprintf(text, sizeof text, "Success: LoRA adapter '%s' %s successfully.", name, what);
    reply_send(r, 200, "text/plain; charset=utf-8", text, (size_t)n);
}

static void load_done(struct adapter_job *job, void *data)
{
    struct request *r = data;
    char message[600];
    if (job->status == STATUS_OK) {
        char generation[24];
        snprintf(generation, sizeof generation, "%llu", (unsigned long long)job->version->generation);
        reply_header(r, "X-Adapter", job->name);
        reply_header(r, "X-Adapter-Generation", generation);
        reply_success(r, job->name, "added");
    } else {
        int status = http_status_of(job->status);
        snprintf(message, sizeof message, "Loading lora '%s' failed: %s", job->name, job->err.text);
        reply_admin_error(r, status, message);
    }
    request_release(r);
}

struct load_body {
    const char *name, *path;
    bool in_place;
    double scale;
};

/* Checks that need no file. */
static enum status check_load(struct server *s, const struct load_body *b, struct fault *f)
{
    if (!b->name || !b->name[0] || !b->path || !b->path[0])
        return fault_set(f, STATUS_INVALID, NULL, "Both 'lora_name' and 'lora_path' must be provided.");
    if (!adapter_name_is_valid(b->name))
        return fault_set(
            f, STATUS_INVALID, NULL,
            "lora_name: '%.80s' must begin with a letter or digit and hold at most 64 letters, digits, "
            "'.', '_' and '-'",
            b->name);
    if (strcmp(b->name, s->base.name) == 0)
        return fault_set(f, STATUS_INVALID, NULL, "lora_name: '%s' is the base model's own name", b->name);
    if (registry_find(s->registry, b->name) && !b->in_place)
        return fault_set(
            f, STATUS_EXISTS, NULL,
            "The lora adapter '%s' has already been loaded. If you want to load the adapter in place, "
            "set 'load_inplace' to True.",
            b->name);
    return STATUS_OK;
}

static enum status begin_load(struct request *r, const json_t *body, struct fault *f)
{
    struct reader rd = {.object = body, .fault = f};
    struct load_body b = {.scale = 1};
    read_text(&rd, "lora_name", &b.name);
    read_text(&rd, "lora_path", &b.path);
    read_bool(&rd, "load_inplace", &b.in_place);
    read_float(&rd, "scale", -1000, 1000, &b.scale);
    enum status s = rd.status == STATUS_OK ? check_load(r->server, &b, f) : rd.status;
    if (s != STATUS_OK)
        return s;
    struct adapter_job job = {.scale = b.scale, .in_place = b.in_place, .done = load_done, .data = r};
    const char *relative;
    s = adapter_jobs_find_root(r->server->jobs, b.path, &job.root_fd, &relative, &f->error);
    if (s == STATUS_OK && strlen(relative) >= sizeof job.path)
        s = fault_set(f, STATUS_INVALID, NULL, "lora_path: longer than %zu bytes", sizeof job.path - 1);
    if (s != STATUS_OK)
        return s;
    snprintf(job.name, sizeof job.name, "%s", b.name);
    snprintf(job.path, sizeof job.path, "%s", relative);
    request_hold(r);
    s = adapter_jobs_add(r->server->jobs, &job, &f->error);
    if (s != STATUS_OK)
        request_release(r);
    return s;
}

static enum status unload(struct request *r, const json_t *body, struct fault *f)
{
    struct reader rd = {.object = body, .fault = f};
    const char *name = NULL;
    read_text(&rd, "lora_name", &name);
    if (rd.status != STATUS_OK)
        return rd.status;
    if (!name || !name[0])
        return fault_set(f, STATUS_INVALID, NULL,
                         "'lora_name' needs to be provided to unload a LoRA adapter.");
    if (registry_remove(r->server->registry, name, &f->error) != STATUS_OK)
        return fault_set(f, STATUS_NOT_FOUND, NULL, "The lora adapter '%.80s' cannot be found.", name);
    adapter_jobs_forget(r->server->jobs, name);
    LOG_EVENT(&r->server->log, LOG_INFO, "adapter unloaded", LOG_TEXT("adapter", name));
    reply_success(r, name, "removed");
    return STATUS_OK;
}

static void with_body(struct request *r,
                      enum status (*what)(struct request *r, const json_t *body, struct fault *f))
{
    struct fault f = {0};
    json_t *body = NULL;
    enum status s = server_serving(r->server, &f.error);
    if (s == STATUS_OK)
        s = parse_body(r->body, r->n_body, &body, &f);
    if (s == STATUS_OK)
        s = what(r, body, &f);
    if (s != STATUS_OK)
        reply_admin_error(r, http_status_of(s), f.error.text);
    json_decref(body);
}

void api_adapter_load(struct request *r)
{
    with_body(r, begin_load);
}

void api_adapter_unload(struct request *r)
{
    with_body(r, unload);
}

static void put_adapter(struct jw *w, const struct adapter_version *v)
{
    jw_begin(w, '{');
    jw_key_text(w, "lora_name", v->name);
    jw_key_int(w, "generation", (int64_t)v->generation);
    jw_key_text(w, "digest", v->digest_hex);
    jw_key_text(w, "source", v->source);
    jw_key_text(w, "format", v->report.format);
    jw_key_text(w, "base_model", v->report.base_model);
    jw_key_int(w, "rank_min", v->report.rank_min);
    jw_key_int(w, "rank_max", v->report.rank_max);
    jw_key_float(w, "alpha", v->report.alpha);
    jw_key_bool(w, "rslora", v->report.rslora);
    jw_key_float(w, "scale", v->user_scale);
    jw_key_text(w, "kinds", v->report.kinds);
    jw_key_text(w, "modules", v->report.modules);
    jw_key_int(w, "n_modules", v->report.n_modules);
    jw_key_int(w, "n_parameters", (int64_t)v->report.n_parameters);
    jw_key_int(w, "file_bytes", (int64_t)v->report.file_bytes);
    jw_key_int(w, "bytes", v->lora ? (int64_t)v->lora->size_bytes : 0);
    jw_key_int(w, "loaded_at", v->loaded_wall_ms / 1000);
    jw_key_float(w, "load_ms", (double)v->load_ns / 1e6);
    jw_end(w, '}');
}

void api_adapter_list(struct request *r)
{
    const struct server *s = r->server;
    struct error err;
    if (server_serving(s, &err) != STATUS_OK) {
        reply_admin_error(r, 503, err.text);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, "object", "list");
    jw_key_text(&w, "base", s->base.name);
    jw_key(&w, "data");
    jw_begin(&w, '[');
    for (size_t i = 0; i < registry_count(s->registry); i++) {
        const struct adapter *a = registry_at(s->registry, i);
        const struct version_record *v = registry_record(a, a->stable);
        if (v && v->version)
            put_adapter(&w, v->version);
    }
    jw_end(&w, ']');
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}
