/* The table of routes. Knows paths and methods; what they do is in api_*.c. */
#include "router.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "api.h"
#include "api_render.h"
#include "cors.h"
#include "server.h"
#include "tenant_gate.h"

#define DATA PLANE_DATA
#define ADMIN PLANE_ADMIN
#define BOTH (PLANE_DATA | PLANE_ADMIN)
#define OPEN (BOTH | PLANE_OPEN) /* no key is asked for */

static const struct route routes[] = {
    {"POST", "/v1/chat/completions", DATA, api_chat_completions},
    {"POST", "/chat/completions", DATA, api_chat_completions},
    {"POST", "/v1/chat/completions/input_tokens", DATA, api_chat_count},
    {"POST", "/v1/completions", DATA, api_completions},
    {"POST", "/completion", DATA, api_llama_completion},
    {"POST", "/completions", DATA, api_llama_completion},
    {"POST", "/infill", DATA, api_llama_infill},
    {"GET", "/props", DATA, api_llama_props},
    {"GET", "/slots", DATA, api_llama_slots},
    {"POST", "/v1/embeddings", DATA, api_embeddings},
    {"POST", "/embedding", DATA, api_llama_embeddings},
    {"POST", "/embeddings", DATA, api_llama_embeddings},
    {"POST", "/v1/responses", DATA, api_responses},
    {"POST", "/v1/responses/input_tokens", DATA, api_responses_count},
    {"GET", "/v1/responses/{name}", DATA, api_response_get},
    {"DELETE", "/v1/responses/{name}", DATA, api_response_delete},
    {"GET", "/v1/responses/{name}/input_items", DATA, api_response_input},
    {"POST", "/v1/messages", DATA, api_messages},
    {"POST", "/v1/messages/count_tokens", DATA, api_count_tokens},
    {"POST", "/api/chat", DATA, api_ollama_chat},
    {"POST", "/api/generate", DATA, api_ollama_generate},
    {"POST", "/api/embed", DATA, api_ollama_embed},
    {"POST", "/api/embeddings", DATA, api_ollama_embeddings},
    {"GET", "/api/tags", DATA, api_ollama_tags},
    {"GET", "/api/ps", DATA, api_ollama_ps},
    {"POST", "/api/show", DATA, api_ollama_show},
    {"GET", "/api/version", DATA | PLANE_OPEN, api_ollama_version},
    {"POST", "/api/create", DATA, api_ollama_refused},
    {"POST", "/api/copy", DATA, api_ollama_refused},
    {"DELETE", "/api/delete", DATA, api_ollama_refused},
    {"POST", "/api/pull", DATA, api_ollama_refused},
    {"POST", "/api/push", DATA, api_ollama_refused},
    {"GET", "/api/blobs/*", DATA, api_ollama_refused},
    {"POST", "/api/blobs/*", DATA, api_ollama_refused},
    {"POST", "/api/me", DATA, api_ollama_refused},
    {"POST", "/api/signout", DATA, api_ollama_refused},
    {"POST", "/api/web_search", DATA, api_ollama_refused},
    {"POST", "/api/web_fetch", DATA, api_ollama_refused},
    {"GET", "/v1/models", BOTH, api_models},
    {"GET", "/v1/models/*", BOTH, api_model},
    {"GET", "/models", BOTH, api_models},
    {"POST", "/tokenize", DATA, api_tokenize},
    {"POST", "/v1/tokenize", DATA, api_tokenize},
    {"POST", "/detokenize", DATA, api_detokenize},
    {"POST", "/v1/detokenize", DATA, api_detokenize},
    {"POST", "/apply-template", DATA, api_apply_template},
    {"POST", "/v1/apply-template", DATA, api_apply_template},
    {"POST", "/v1/load_lora_adapter", ADMIN, api_adapter_load},
    {"POST", "/v1/unload_lora_adapter", ADMIN, api_adapter_unload},
    {"GET", "/v1/lora_adapters", ADMIN, api_adapter_list},
    {"GET", "/lora-adapters", BOTH, api_lora_list},
    {"POST", "/lora-adapters", ADMIN, api_lora_set},
    {"POST", "/load_lora_adapter", ADMIN, api_sglang_load},
    {"POST", "/unload_lora_adapter", ADMIN, api_sglang_unload},
    {"GET", "/admin/v1/adapters", ADMIN, api_admin_list},
    {"GET", "/admin/v1/adapters/{name}", ADMIN, api_admin_get},
    {"PUT", "/admin/v1/adapters/{name}", ADMIN, api_admin_put},
    {"PATCH", "/admin/v1/adapters/{name}", ADMIN, api_admin_patch},
    {"DELETE", "/admin/v1/adapters/{name}", ADMIN, api_admin_delete},
    {"GET", "/admin/v1/adapters/{name}/versions", ADMIN, api_admin_versions},
    {"GET", "/admin/v1/adapters/{name}/effect", ADMIN, api_admin_effect},
    {"GET", "/admin/v1/adapters/{name}/shadow", ADMIN, api_admin_shadow},
    {"GET", "/admin/v1/adapters/{name}/traffic", ADMIN, api_admin_get_traffic},
    {"PUT", "/admin/v1/adapters/{name}/traffic", ADMIN, api_admin_put_traffic},
    {"POST", "/admin/v1/adapters/{name}/rollback", ADMIN, api_admin_rollback},
    {"POST", "/admin/v1/adapters/{name}/promote", ADMIN, api_admin_promote},
    {"POST", "/admin/v1/adapters/{name}/reload", ADMIN, api_admin_reload},
    {"POST", "/admin/v1/adapters/{name}/load", ADMIN, api_admin_load},
    {"POST", "/admin/v1/adapters/{name}/unload", ADMIN, api_admin_unload},
    {"PUT", "/admin/v1/adapters/{name}/pin", ADMIN, api_admin_pin},
    {"PUT", "/admin/v1/adapters/{name}/merge", ADMIN, api_admin_merge},
    {"GET", "/admin/v1/events", ADMIN, api_admin_events},
    {"POST", "/admin/v1/rescan", ADMIN, api_admin_rescan},
    {"GET", "/admin/v1/tenants", ADMIN, api_tenants_list},
    {"GET", "/admin/v1/tenants/{name}", ADMIN, api_tenants_get},
    {"PUT", "/admin/v1/tenants/{name}", ADMIN, api_tenants_put},
    {"DELETE", "/admin/v1/tenants/{name}", ADMIN, api_tenants_delete},
    {"GET", "/admin/v1/keys", ADMIN, api_keys_list},
    {"POST", "/admin/v1/keys", ADMIN, api_keys_make},
    {"POST", "/admin/v1/keys/{name}/rotate", ADMIN, api_keys_rotate},
    {"DELETE", "/admin/v1/keys/{name}", ADMIN, api_keys_revoke},
    {"GET", "/admin/v1/usage", ADMIN, api_usage},
    {"GET", "/admin/v1/audit", ADMIN, api_audit},
    {"GET", "/admin/v1/served", ADMIN, api_served},
    {"GET", "/livez", OPEN, api_livez},
    {"GET", "/readyz", OPEN, api_readyz},
    {"GET", "/health", OPEN, api_health},
    {"GET", "/v1/health", OPEN, api_health},
    {"GET", "/version", OPEN, api_version},
    {"GET", "/metrics", BOTH, api_metrics},
    {"GET", "/openapi.json", BOTH, api_openapi},
};

const struct route *router_at(size_t index)
{
    return index < sizeof routes / sizeof routes[0] ? &routes[index] : NULL;
}

static bool path_matches(const char *pattern, const char *path)
{
    static const char segment[] = "{name}";
    const char *hole = strstr(pattern, segment);
    size_t n = strlen(pattern);
    if (hole) {
        size_t n_before = (size_t)(hole - pattern);
        if (strncmp(pattern, path, n_before) != 0)
            return false;
        size_t n_name = strcspn(path + n_before, "/");
        return n_name && strcmp(path + n_before + n_name, hole + strlen(segment)) == 0;
    }
    if (pattern[n - 1] == '*')
        return strncmp(pattern, path, n - 1) == 0 && path[n - 1];
    return strcmp(pattern, path) == 0;
}

const struct route *router_find(const char *method, const char *path, enum plane plane, char *allow,
                                size_t allow_bytes)
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    size_t n = 0;
    allow[0] = '\0';
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *route = &routes[i];
        if (!(route->planes & plane) || !path_matches(route->path, path))
            continue;
        if (strcmp(route->method, wanted) == 0)
            return route;
        n += (size_t)snprintf(allow + n, allow_bytes - n, "%s%s%s", n ? ", " : "", route->method,
                              strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
    }
    return NULL;
}

static void answer_options(struct request *r, const char *allow)
{
    reply_header(r, "Allow", allow);
    cors_preflight(r, allow);
    reply_send(r, 204, NULL, NULL, 0);
}

enum error_form router_error_form(const char *path)
{
    static const char voice[] = "/v1/m/";
    if (strncmp(path, voice, sizeof voice - 1) == 0) {
        const char *rest = strchr(path + sizeof voice - 1, '/');
        path = rest ? rest : path;
        if (strncmp(path, "/messages", 9) == 0)
            return ERRORS_ANTHROPIC;
    }
    return strncmp(path, "/v1/messages", 12) == 0 ? ERRORS_ANTHROPIC
           : strncmp(path, "/api/", 5) == 0       ? ERRORS_OLLAMA
                                                  : ERRORS_OPENAI;
}

/* /v1/m/NAME/REST: the voice is in the path, for clients whose model can't be chosen. REST is what would
 * stand behind the server's address, or behind its /v1. */
static const struct route *find_below_voice(struct request *r, char *allow, size_t allow_bytes)
{
    static const char prefix[] = "/v1/m/";
    const char *name = r->path + sizeof prefix - 1, *rest;
    const struct route *route = NULL;
    allow[0] = '\0';
    if (strncmp(r->path, prefix, sizeof prefix - 1) != 0 || !(rest = strchr(name, '/')) || rest == name)
        return NULL;
    const char *paths[] = {arena_printf(r->arena, "/v1%s", rest), rest};
    r->path_voice = arena_strndup(r->arena, name, (size_t)(rest - name));
    for (size_t i = 0; i < 2 && !route && !allow[0] && paths[i] && r->path_voice; i++) {
        route = router_find(r->method, paths[i], r->plane & PLANE_DATA, allow, allow_bytes);
        if (route || allow[0])
            r->path = paths[i];
    }
    return route;
}

/* "/" is no endpoint, but Ollama's clients (and people) look there for a server. */
static bool is_knock(const struct request *r)
{
    return r->plane == PLANE_DATA && strcmp(r->path, "/") == 0 &&
           (strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0);
}

void router_dispatch(struct request *r)
{
    char allow[80];
    r->error_form = router_error_form(r->path);
    cors_answer(r);
    const struct route *route = router_find(r->method, r->path, r->plane, allow, sizeof allow);
    if (!route && !allow[0]) {
        route = find_below_voice(r, allow, sizeof allow);
        r->error_form = router_error_form(r->path);
    }
    bool preflight = strcmp(r->method, "OPTIONS") == 0 && allow[0]; /* browsers send no key with it */
    if (!gate_pass(r, preflight || is_knock(r) || (route && route->planes & PLANE_OPEN)))
        return;
    if (route) {
        route->handle(r);
    } else if (is_knock(r)) {
        api_root(r);
    } else if (!allow[0]) {
        char message[200];
        snprintf(message, sizeof message, "no such path: %s %.120s", r->method, r->path);
        reply_error(r, 404, message, NULL, "not_found");
    } else if (strcmp(r->method, "OPTIONS") == 0) {
        answer_options(r, allow);
    } else {
        reply_header(r, "Allow", allow);
        reply_error(r, 405, "this path has another method; see the Allow header", NULL, "method_not_allowed");
    }
}
