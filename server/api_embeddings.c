/* POST /v1/embeddings, /embeddings, /api/embed and /api/embeddings: texts or token ids to vectors, in any
 * voice.
 *
 * A vector is the mean of the final hidden states of all tokens, those that the tokenizer adds among them, or
 * the last one's; of length 1. Fewer dimensions are the first ones, of length 1 again. */
#include <math.h>
#include <string.h>

#include "api.h"
#include "base/clock.h"
#include "completion.h"
#include "prompt_cut.h"
#include "server.h"
#include "translate.h"

enum embed_style { EMBED_OPENAI, EMBED_LLAMA, EMBED_OLLAMA, EMBED_OLLAMA_ONE };

/* A completion's `form`. */
struct embed_form {
    enum embed_style style;
    bool base64, raw; /* raw: not of length 1 */
    bool cuts;        /* texts that are too long lose their ends, as Ollama has it */
    uint32_t n;       /* dimensions */
    const char *key;  /* where the texts stand in the body */
    const char *model;
};

/* ---- the request */

static void read_pooling(struct translation *t)
{
    const char *word = "mean";
    read_text(&t->in, "pooling", &word);
    if (strcmp(word, "mean") != 0 && strcmp(word, "last") != 0)
        read_fail(&t->in, STATUS_INVALID, "pooling", "pooling: found \"%.40s\", expected mean or last", word);
    t->c->pooling = strcmp(word, "last") == 0 ? POOLING_LAST : POOLING_MEAN;
}

static void read_shape(struct translation *t, struct embed_form *form)
{
    const char *format = "float";
    int64_t n = model_config(t->c->server->base.model)->hidden_size;
    bool normalize = form->style != EMBED_OLLAMA_ONE;
    read_text(&t->in, "encoding_format", &format);
    if (strcmp(format, "float") != 0 && strcmp(format, "base64") != 0)
        read_fail(&t->in, STATUS_INVALID, "encoding_format",
                  "encoding_format: found \"%.40s\", expected float or base64", format);
    read_int(&t->in, "dimensions", 1, n, &n);
    read_bool(&t->in, "normalize", &normalize);
    form->base64 = strcmp(format, "base64") == 0;
    form->n = (uint32_t)n;
    form->raw = !normalize;
}

static void read_input(struct translation *t, struct embed_form *form, const char *key)
{
    form->key = key;
    const json_t *input = json_object_get(t->in.object, key);
    char text[96];
    if (!json_is_string(input) && (!json_is_array(input) || json_array_size(input) == 0))
        read_fail(&t->in, STATUS_INVALID, key,
                  "%s: found %s, expected a string, an array of token ids, or an array of either", key,
                  describe_json(input, text, sizeof text));
    put_same(&t->in, t->out, "prompt", input);
}

/* llama-server's: -1 leaves the length as it is, 2, its default, makes it 1; others aren't done. */
static void read_llama(struct translation *t, struct embed_form *form)
{
    int64_t how = 2;
    read_int(&t->in, "embd_normalize", -1, INT32_MAX, &how);
    if (how != 2 && how != -1)
        read_fail(&t->in, STATUS_UNSUPPORTED, "embd_normalize",
                  "embd_normalize: %lld is not supported, only 2 (length 1) and -1 (as it is)",
                  (long long)how);
    form->raw |= how == -1;
    form->base64 = false;
    read_input(t, form, json_object_get(t->in.object, "input") ? "input" : "content");
}

/* "NAME:latest" is NAME. */
static void read_tagged(struct translation *t, struct embed_form *form)
{
    const char *model = NULL;
    if (!read_text(&t->in, "model", &model) && !read_text(&t->in, "name", &model))
        return;
    size_t n = strlen(model);
    form->model = arena_strdup(t->c->r->arena, model);
    if (n > 7 && strcmp(model + n - 7, ":latest") == 0)
        n -= 7;
    put_new(&t->in, t->out, "model", json_stringn(model, n));
}

static enum status translate(struct completion *c, enum embed_style style)
{
    static const char *const gone[] = {
        "input", "content",    "stream",  "max_tokens", "max_completion_tokens",
        "name",  "keep_alive", "options", "min_tokens"};
    struct translation t;
    struct embed_form *form = arena_alloc(c->r->arena, sizeof *form);
    translate_begin(&t, c);
    c->form = form;
    if (form) {
        form->style = style;
        read_pooling(&t);
        read_shape(&t, form);
        translate_refuse_openai(&t);
        translate_drop(&t, KEYS_OF(gone));
        if (style == EMBED_LLAMA)
            read_llama(&t, form);
        else
            read_input(&t, form, style == EMBED_OLLAMA_ONE ? "prompt" : "input");
        form->cuts = style == EMBED_OLLAMA || style == EMBED_OLLAMA_ONE;
        if (form->cuts) {
            read_tagged(&t, form);
            read_bool(&t.in, "truncate", &form->cuts);
        }
        put_new(&t.in, t.out, "n_predict", json_integer(0));
    } else {
        read_fail(&t.in, STATUS_NO_MEMORY, NULL, "no memory for the request");
    }
    return translate_end(&t);
}

static enum status translate_openai(struct completion *c)
{
    return translate(c, EMBED_OPENAI);
}

static enum status translate_llama(struct completion *c)
{
    return translate(c, EMBED_LLAMA);
}

static enum status translate_ollama(struct completion *c)
{
    return translate(c, EMBED_OLLAMA);
}

static enum status translate_ollama_one(struct completion *c)
{
    return translate(c, EMBED_OLLAMA_ONE);
}

/* Faults name the field as this API does. */
static enum status parse(struct completion *c)
{
    const struct embed_form *form = c->form;
    if (form->cuts)
        prompt_cut_begin(c, 0, true, UINT32_MAX);
    enum status s = completion_parse_prompts(c);
    struct error *err = &c->fault.error;
    char text[sizeof err->text];
    if (s == STATUS_OK || strcmp(c->fault.param, "prompt") != 0)
        return s;
    if (strncmp(err->text, "prompt", 6) == 0) {
        snprintf(text, sizeof text, "%s%s", form->key, err->text + 6);
        memcpy(err->text, text, sizeof text);
    }
    snprintf(c->fault.param, sizeof c->fault.param, "%s", form->key);
    return s;
}

/* ---- the answer */

static void scale_to(const struct embed_form *form, const struct choice *h, float *out)
{
    double sum = 0, by = h->owner->pooling == POOLING_MEAN ? 1.0 / (double)h->prompt->ids.n_ids : 1;
    for (uint32_t i = 0; i < form->n; i++)
        sum += h->pooled[i] * by * (h->pooled[i] * by);
    if (!form->raw && sum > 0)
        by /= sqrt(sum);
    for (uint32_t i = 0; i < form->n; i++)
        out[i] = (float)(h->pooled[i] * by);
}

/* RFC 4648; the machine's floats are little-endian, as clients expect them. */
static void put_base64(struct buf *out, const uint8_t *bytes, size_t n)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t left = n - i < 3 ? (uint32_t)(n - i) : 3, v = 0;
        for (uint32_t k = 0; k < 3; k++)
            v = v << 8 | (k < left ? bytes[i + k] : 0);
        char four[4] = {letters[v >> 18], letters[v >> 12 & 63], left > 1 ? letters[v >> 6 & 63] : '=',
                        left > 2 ? letters[v & 63] : '='};
        buf_append(out, four, 4);
    }
}

static void put_vector(struct jw *w, const struct embed_form *form, const float *v)
{
    if (form->base64) {
        jw_raw(w, "\"", 1);
        put_base64(w->out, (const uint8_t *)v, form->n * sizeof *v);
        buf_putc(w->out, '"');
        return;
    }
    jw_begin(w, '[');
    for (uint32_t i = 0; i < form->n; i++)
        buf_printf(w->out, i ? ",%.9g" : "%.9g", (double)v[i]);
    jw_end(w, ']');
}

static void put_openai(struct jw *w, const struct completion *c, float *v)
{
    uint64_t n_tokens = 0;
    jw_key_text(w, "object", "list");
    jw_key_text(w, "id", c->id);
    jw_key_int(w, "created", c->created_s);
    jw_key_text(w, "model", c->voice.shown);
    jw_key(w, "data");
    jw_begin(w, '[');
    for (uint32_t i = 0; i < c->n_choices; i++) {
        scale_to(c->form, &c->choices[i], v);
        jw_begin(w, '{');
        jw_key_text(w, "object", "embedding");
        jw_key_int(w, "index", i);
        jw_key(w, "embedding");
        put_vector(w, c->form, v);
        jw_end(w, '}');
        n_tokens += c->choices[i].prompt->ids.n_ids;
    }
    jw_end(w, ']');
    jw_key(w, "usage");
    jw_begin(w, '{');
    jw_key_int(w, "prompt_tokens", (int64_t)n_tokens);
    jw_key_int(w, "total_tokens", (int64_t)n_tokens);
    jw_end(w, '}');
}

static void put_ollama(struct jw *w, const struct completion *c, float *v)
{
    const struct embed_form *form = c->form;
    uint64_t n_tokens = 0;
    jw_key_text(w, "model", form->model ? form->model : c->voice.shown);
    jw_key(w, "embeddings");
    jw_begin(w, '[');
    for (uint32_t i = 0; i < c->n_choices; i++) {
        scale_to(form, &c->choices[i], v);
        put_vector(w, form, v);
        n_tokens += c->choices[i].prompt->ids.n_ids;
    }
    jw_end(w, ']');
    jw_key_int(w, "total_duration", clock_now_ns() - c->r->started_ns);
    jw_key_int(w, "load_duration", 0);
    jw_key_int(w, "prompt_eval_count", (int64_t)n_tokens);
}

/* A list; of each text a list of its vectors, of which there is one. */
static void put_llama(struct jw *w, const struct completion *c, float *v)
{
    jw_begin(w, '[');
    for (uint32_t i = 0; i < c->n_choices; i++) {
        scale_to(c->form, &c->choices[i], v);
        jw_begin(w, '{');
        jw_key_int(w, "index", i);
        jw_key(w, "embedding");
        jw_begin(w, '[');
        put_vector(w, c->form, v);
        jw_end(w, ']');
        jw_end(w, '}');
    }
    jw_end(w, ']');
}

static void render(struct completion *c, struct buf *out)
{
    const struct embed_form *form = c->form;
    struct jw w = {.out = out};
    float *v = arena_array(c->r->arena, form->n, sizeof *v);
    if (!v) {
        out->failed = true;
        return;
    }
    if (form->style == EMBED_LLAMA) {
        put_llama(&w, c, v);
        return;
    }
    jw_begin(&w, '{');
    if (form->style == EMBED_OPENAI) {
        put_openai(&w, c, v);
    } else if (form->style == EMBED_OLLAMA) {
        put_ollama(&w, c, v);
    } else {
        scale_to(form, &c->choices[0], v);
        jw_key(&w, "embedding");
        put_vector(&w, form, v);
    }
    jw_end(&w, '}');
}

#define EMBED_DIALECT(NAME, TRANSLATE)                                                                       \
    {                                                                                                        \
        .name = NAME, .id_prefix = "embd-", .api = API_COMPLETIONS, .translate = TRANSLATE, .parse = parse,  \
        .render = render, .renders_long = true                                                               \
    }
static const struct dialect openai = EMBED_DIALECT("embeddings", translate_openai);
static const struct dialect llama = EMBED_DIALECT("llama embeddings", translate_llama);
static const struct dialect ollama = EMBED_DIALECT("ollama embed", translate_ollama);
static const struct dialect ollama_one = EMBED_DIALECT("ollama embeddings", translate_ollama_one);

void api_embeddings(struct request *r)
{
    completion_begin(r, &openai);
}

void api_llama_embeddings(struct request *r)
{
    completion_begin(r, &llama);
}

void api_ollama_embed(struct request *r)
{
    completion_begin(r, &ollama);
}

void api_ollama_embeddings(struct request *r)
{
    completion_begin(r, &ollama_one);
}
