/* The description of the API: which paths there are, and what goes in and out. Bodies are in
 * openapi_schemas.c. */
#include "openapi.h"

#include <stdio.h>
#include <string.h>

#include "api.h"
#include "api_render.h"
#include "openapi_schemas.h"
#include "router.h"

/* ---- operations */

struct operation {
    const char *method, *path, *summary;
    const char *request, *response; /* names of schemas; NULL: no body, JSON of any form */
    const char *more; /* another type of a good answer, the only one without a schema; or NULL */
};

#define EVENTS "text/event-stream"
static const struct operation operations[] = {
    {"POST", "/v1/chat/completions", "A chat's next turn", "ChatRequest", "ChatCompletion", EVENTS},
    {"POST", "/v1/completions", "A text's continuation", "CompletionRequest", "TextCompletion", EVENTS},
    {"POST", "/chat/completions", "The same, as llama-server has it too", "ChatRequest", "ChatCompletion",
     EVENTS},
    {"POST", "/v1/chat/completions/input_tokens", "How many tokens a chat is", "ChatCountRequest",
     "TokenCount", NULL},
    {"POST", "/completion", "llama-server's completion", "LlamaCompletionRequest", "LlamaCompletions",
     EVENTS},
    {"POST", "/completions", "llama-server's completion", "LlamaCompletionRequest", "LlamaCompletions",
     EVENTS},
    {"POST", "/infill", "Text in the middle, as llama-server has it", "InfillRequest", "LlamaCompletions",
     EVENTS},
    {"GET", "/props", "llama-server's properties", NULL, "Props", NULL},
    {"GET", "/slots", "llama-server's slots", NULL, "Slots", NULL},
    {"POST", "/v1/embeddings", "Vectors of texts, as the voice sees them", "EmbeddingRequest", "Embeddings",
     NULL},
    {"POST", "/embedding", "llama-server's vectors", "LlamaEmbeddingRequest", "LlamaEmbeddings", NULL},
    {"POST", "/embeddings", "llama-server's vectors", "LlamaEmbeddingRequest", "LlamaEmbeddings", NULL},
    {"POST", "/v1/responses", "OpenAI's Responses", "ResponseRequest", "Response", EVENTS},
    {"POST", "/v1/responses/input_tokens", "How many tokens a response would read", "ResponseCountRequest",
     "TokenCount", NULL},
    {"GET", "/v1/responses/{name}", "A response that was kept", NULL, "Response", NULL},
    {"DELETE", "/v1/responses/{name}", "Forgets a response", NULL, "Deleted", NULL},
    {"GET", "/v1/responses/{name}/input_items", "What a response has read", NULL, "ResponseItems", NULL},
    {"POST", "/v1/messages", "Anthropic's Messages", "MessagesRequest", "AnthropicMessage", EVENTS},
    {"POST", "/v1/messages/count_tokens", "How many tokens messages are", "MessagesCountRequest",
     "MessagesCount", NULL},
    {"POST", "/api/chat", "Ollama's chat", "OllamaChatRequest", "OllamaChat", "application/x-ndjson"},
    {"POST", "/api/generate", "Ollama's completion", "OllamaGenerateRequest", "OllamaGenerated",
     "application/x-ndjson"},
    {"POST", "/api/embed", "Ollama's embeddings", "OllamaEmbedRequest", "OllamaEmbeddings", NULL},
    {"POST", "/api/embeddings", "Ollama's embedding of one text", "OllamaEmbeddingRequest", "OllamaEmbedding",
     NULL},
    {"GET", "/api/tags", "Ollama's list of models", NULL, "OllamaModels", NULL},
    {"GET", "/api/ps", "Ollama's list of what is in memory", NULL, "OllamaModels", NULL},
    {"POST", "/api/show", "Ollama's words on a model", "OllamaShowRequest", "OllamaShown", NULL},
    {"GET", "/api/version", "Ollama's version", NULL, "OllamaVersion", NULL},
    {"POST", "/api/create", "Not done here: 501 says what is", NULL, NULL, NULL},
    {"POST", "/api/copy", "Not done here: 501 says what is", NULL, NULL, NULL},
    {"DELETE", "/api/delete", "Not done here: 501 says what is", NULL, NULL, NULL},
    {"POST", "/api/pull", "Not done here: 501 says what is", NULL, NULL, NULL},
    {"POST", "/api/push", "Not done here: 501 says what is", NULL, NULL, NULL},
    {"GET", "/api/blobs/*", "Not done here: 501 says what is", NULL, NULL, NULL},
    {"POST", "/api/blobs/*", "Not done here: 501 says what is", NULL, NULL, NULL},
    {"POST", "/api/me", "Not done here: 501 says why", NULL, NULL, NULL},
    {"POST", "/api/signout", "Not done here: 501 says why", NULL, NULL, NULL},
    {"POST", "/api/web_search", "Not done here: 501 says why", NULL, NULL, NULL},
    {"POST", "/api/web_fetch", "Not done here: 501 says why", NULL, NULL, NULL},
    {"GET", "/v1/models", "The voices", NULL, "Models", NULL},
    {"GET", "/v1/models/*", "One voice", NULL, "Model", NULL},
    {"GET", "/models", "The voices", NULL, "Models", NULL},
    {"POST", "/tokenize", "Text to tokens", "TokenizeRequest", "Tokenized", NULL},
    {"POST", "/v1/tokenize", "Text to tokens", "TokenizeRequest", "Tokenized", NULL},
    {"POST", "/detokenize", "Tokens to text", "DetokenizeRequest", "Detokenized", NULL},
    {"POST", "/v1/detokenize", "Tokens to text", "DetokenizeRequest", "Detokenized", NULL},
    {"POST", "/apply-template", "Messages to the prompt's text", "TemplateRequest", "Template", NULL},
    {"POST", "/v1/apply-template", "Messages to the prompt's text", "TemplateRequest", "Template", NULL},
    {"GET", "/lora-adapters", "Adapters by number, as llama-server has them", NULL, "Adapters", NULL},
    {"GET", "/livez", "The process lives", NULL, "Health", NULL},
    {"GET", "/readyz", "It serves", NULL, "Health", NULL},
    {"GET", "/health", "It serves", NULL, "Health", NULL},
    {"GET", "/v1/health", "It serves", NULL, "Health", NULL},
    {"GET", "/version", "Its version", NULL, "Version", NULL},
    {"GET", "/metrics", "Metrics for Prometheus", NULL, NULL, "text/plain"},
    {"GET", "/openapi.json", "This description", NULL, "Any", NULL},
};

static const struct operation *operation_of(const char *method, const char *path)
{
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (strcmp(operations[i].method, method) == 0 && strcmp(operations[i].path, path) == 0)
            return &operations[i];
    return NULL;
}

bool openapi_has(const char *method, const char *path)
{
    return operation_of(method, path) != NULL;
}

/* ---- writing */

static void put_ref(struct jw *w, const char *type, const char *schema)
{
    char ref[96];
    jw_key(w, type);
    jw_begin(w, '{');
    if (schema) {
        snprintf(ref, sizeof ref, "#/components/schemas/%s", schema);
        jw_key(w, "schema");
        jw_begin(w, '{');
        jw_key_text(w, "$ref", ref);
        jw_end(w, '}');
    }
    jw_end(w, '}');
}

/* Of operators' paths some speak as other servers do, each with its own form of errors. */
static void put_errors(struct jw *w, const char *schema)
{
    static const struct {
        const char *status, *words;
    } errors[] = {{"400", "the request can't be answered; the message says why"},
                  {"401", "a key is needed, or this one isn't good"},
                  {"403", "not for this key"},
                  {"404", "no such voice, or no such thing"},
                  {"405", "another method; see Allow"},
                  {"408", "it took too long"},
                  {"409", "it is in conflict with what is there"},
                  {"413", "too large"},
                  {"422", "understood, and refused"},
                  {"429", "more than this key may; see Retry-After"},
                  {"501", "not done here; the message says why"},
                  {"503", "loading, draining or overloaded; see Retry-After"}};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        jw_key(w, errors[i].status);
        jw_begin(w, '{');
        jw_key_text(w, "description", errors[i].words);
        jw_key(w, "content");
        jw_begin(w, '{');
        put_ref(w, "application/json", schema);
        jw_end(w, '}');
        jw_end(w, '}');
    }
}

static void put_responses(struct jw *w, const struct operation *o)
{
    jw_key(w, "responses");
    jw_begin(w, '{');
    jw_key(w, "200");
    jw_begin(w, '{');
    jw_key_text(w, "description", "done");
    jw_key(w, "content");
    jw_begin(w, '{');
    if (!o || o->response || !o->more)
        put_ref(w, "application/json", o ? o->response : NULL);
    if (o && o->more)
        put_ref(w, o->more, NULL);
    if (!o)
        put_ref(w, EVENTS, NULL);
    jw_end(w, '}');
    jw_end(w, '}');
    if (!o) { /* operators' orders: begun, created, done without a word */
        static const char *const more[] = {"201", "202", "204"};
        for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
            jw_key(w, more[i]);
            jw_begin(w, '{');
            jw_key_text(w, "description", "done, or begun");
            jw_end(w, '}');
        }
    }
    put_errors(w, o ? "Error" : "Any");
    jw_end(w, '}');
}

/* With the quotes that JSON has. */
static void put_json(struct jw *w, const char *json)
{
    size_t begin = w->out->length;
    jw_raw(w, json, strlen(json));
    for (size_t i = begin; i < w->out->length; i++)
        if (w->out->data[i] == '\'')
            w->out->data[i] = '"';
}

static void put_parameter(struct jw *w, const char *name)
{
    jw_key(w, "parameters");
    jw_begin(w, '[');
    jw_begin(w, '{');
    jw_key_text(w, "name", name);
    jw_key_text(w, "in", "path");
    jw_key_bool(w, "required", true);
    jw_key(w, "schema");
    put_json(w, TEXT);
    jw_end(w, '}');
    jw_end(w, ']');
}

static void put_operation(struct jw *w, const struct route *route)
{
    const struct operation *o = operation_of(route->method, route->path);
    char method[8] = "";
    for (size_t i = 0; route->method[i] && i + 1 < sizeof method; i++)
        method[i] = (char)(route->method[i] | 0x20);
    jw_key(w, method);
    jw_begin(w, '{');
    jw_key_text(w, "summary", o ? o->summary : route->path);
    if (strchr(route->path, '{') || strchr(route->path, '*'))
        put_parameter(w, "name");
    if (strcmp(route->method, "POST") == 0 || strcmp(route->method, "PUT") == 0 ||
        strcmp(route->method, "PATCH") == 0) {
        jw_key(w, "requestBody");
        jw_begin(w, '{');
        jw_key_bool(w, "required", o != NULL); /* orders may go without */
        jw_key(w, "content");
        jw_begin(w, '{');
        put_ref(w, "application/json", o && o->request ? o->request : "Any");
        jw_end(w, '}');
        jw_end(w, '}');
    }
    put_responses(w, o);
    jw_end(w, '}');
}

/* A path once, with all of its methods; a last '*' is a name that may have slashes. */
static void put_paths(struct jw *w, enum plane plane)
{
    jw_key(w, "paths");
    jw_begin(w, '{');
    for (size_t i = 0; router_at(i); i++) {
        const struct route *first = router_at(i);
        bool seen = false;
        for (size_t k = 0; k < i; k++)
            seen |= (router_at(k)->planes & plane) && strcmp(router_at(k)->path, first->path) == 0;
        if (!(first->planes & plane) || seen)
            continue;
        char path[160];
        size_t n = strlen(first->path);
        snprintf(path, sizeof path, "%.*s%s", (int)(n - (first->path[n - 1] == '*')), first->path,
                 first->path[n - 1] == '*' ? "{name}" : "");
        jw_key(w, path);
        jw_begin(w, '{');
        for (size_t k = i; router_at(k); k++)
            if ((router_at(k)->planes & plane) && strcmp(router_at(k)->path, first->path) == 0)
                put_operation(w, router_at(k));
        jw_end(w, '}');
    }
    jw_end(w, '}');
}

static void put_schema(struct jw *w, const struct schema *s)
{
    jw_key(w, s->name);
    if (!s->fields[0]) {
        put_json(w, s->json);
        return;
    }
    jw_begin(w, '{');
    jw_key_text(w, "type", "object");
    put_json(w, s->json);
    jw_key(w, "properties");
    jw_begin(w, '{');
    for (size_t k = 0; s->fields[k]; k++)
        for (const struct field *f = s->fields[k]; f->name; f++) {
            jw_key(w, f->name);
            put_json(w, f->schema);
        }
    jw_end(w, '}');
    jw_end(w, '}');
}

static void put_components(struct jw *w)
{
    const struct schema *s;
    jw_key(w, "components");
    jw_begin(w, '{');
    jw_key(w, "schemas");
    jw_begin(w, '{');
    for (size_t i = 0; (s = openapi_request_schema(i)); i++)
        put_schema(w, s);
    for (size_t i = 0; (s = openapi_answer_schema(i)); i++)
        put_schema(w, s);
    jw_end(w, '}');
    jw_key(w, "securitySchemes");
    jw_begin(w, '{');
    jw_key(w, "key");
    jw_begin(w, '{');
    jw_key_text(w, "type", "http");
    jw_key_text(w, "scheme", "bearer");
    jw_end(w, '}');
    jw_end(w, '}');
    jw_end(w, '}');
}

void openapi_render(struct buf *out, enum plane plane)
{
    struct jw w = {.out = out};
    jw_begin(&w, '{');
    jw_key_text(&w, "openapi", "3.1.0");
    jw_key(&w, "info");
    jw_begin(&w, '{');
    jw_key_text(&w, "title", plane == PLANE_ADMIN ? "Lorikeet, for operators" : "Lorikeet");
    jw_key_text(&w, "version", LORIKEET_VERSION);
    jw_end(&w, '}');
    put_paths(&w, plane);
    put_components(&w);
    jw_end(&w, '}');
}

void api_openapi(struct request *r)
{
    struct buf out;
    buf_init(&out, 0);
    openapi_render(&out, r->plane);
    reply_json(r, 200, &out);
    buf_fini(&out);
}
