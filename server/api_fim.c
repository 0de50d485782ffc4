/* Fill-in-the-middle: which tokens a tokenizer has for it says how its model was trained. The beginning comes
 * first where a model takes both orders. */
#include "api_fim.h"

#include <string.h>

#include "server.h"

struct fim {
    const char *prefix, *suffix, *middle; /* in front of the beginning, of the end, of what is asked for */
    bool suffix_first;
    bool spaced; /* its tokenizer puts a space in front of a text, which the suffix must not have */
};

static const struct fim fims[] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", false, false}, /* Qwen2.5-Coder, CodeGemma */
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>", false, false},       /* StarCoder, Granite Code */
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>", false, false},       /* SantaCoder */
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", false, false}, /* DeepSeek-Coder */
    {"▁<PRE>", "▁<SUF>", "▁<MID>", false, true},                          /* CodeLlama */
    {"[PREFIX]", "[SUFFIX]", NULL, true, false},                          /* Codestral */
};

/* What such models write behind the text. */
static const char *const ends[] = {"<|endoftext|>", "<|fim_pad|>",          "<|repo_name|>", "<|file_sep|>",
                                   "<|cursor|>",    "<file_sep>",           "<fim_pad>",     "▁<EOT>",
                                   "<EOT>",         "<｜end▁of▁sentence｜>"};

static int32_t find(const struct tokenizer *t, const char *text)
{
    return text ? tokenizer_find(t, text, strlen(text)) : -1;
}

static const struct fim *fim_of(const struct tokenizer *t)
{
    for (size_t i = 0; i < sizeof fims / sizeof fims[0]; i++)
        if (find(t, fims[i].prefix) >= 0 && find(t, fims[i].suffix) >= 0 &&
            (!fims[i].middle || find(t, fims[i].middle) >= 0))
            return &fims[i];
    return NULL;
}

struct encoder {
    const struct tokenizer *tokenizer;
    size_t limit_ids;
    struct error err;
};

static enum status encode(struct encoder *e, const char *text, size_t length, struct token_list *out)
{
    struct encode_options o = {.limit_ids = e->limit_ids};
    return tokenizer_encode(e->tokenizer, text, length, &o, out, &e->err);
}

/* The suffix as it stands behind other text: behind a sign that no text joins with, whose ids are left out.
 */
static enum status encode_behind(struct encoder *e, const json_t *suffix, struct token_list *out)
{
    static const char sign[] = "\xe2\x98\xba";
    struct token_list alone = {0};
    struct buf text;
    buf_init(&text, 0);
    buf_puts(&text, sign);
    buf_append(&text, json_string_value(suffix), json_string_length(suffix));
    enum status s = text.failed ? fail(&e->err, STATUS_NO_MEMORY, "no memory for the suffix")
                                : encode(e, text.data, text.length, out);
    if (s == STATUS_OK)
        s = encode(e, sign, sizeof sign - 1, &alone);
    if (s == STATUS_OK && alone.n_ids <= out->n_ids) {
        out->n_ids -= alone.n_ids;
        memmove(out->ids, out->ids + alone.n_ids, out->n_ids * sizeof *out->ids);
    }
    token_list_fini(&alone);
    buf_fini(&text);
    return s;
}

static bool push_all(struct token_list *out, int32_t mark, const struct token_list *ids)
{
    bool ok = mark < 0 || token_list_push(out, mark);
    for (size_t i = 0; ok && i < ids->n_ids; i++)
        ok = token_list_push(out, ids->ids[i]);
    return ok;
}

static void add_ends(struct gen_params *p, const struct tokenizer *t)
{
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        int32_t id = find(t, ends[i]);
        if (id >= 0 && p->n_stop_tokens < STOP_TOKENS_MAX && !p->ignore_eos)
            p->stop_tokens[p->n_stop_tokens++] = id;
    }
}

enum status fill_in_middle(struct completion *c, uint32_t index, const json_t *suffix)
{
    const struct text_model *text = c->server->base.text;
    struct encoder e = {.tokenizer = text->tokenizer, .limit_ids = c->server->context};
    const struct fim *f = fim_of(text->tokenizer);
    struct prompt *p = &c->prompts[index];
    struct token_list before = p->ids, after = {0}, all = {0};
    if (!f)
        return fault_set(&c->fault, STATUS_UNSUPPORTED, "suffix",
                         "suffix: this model's tokenizer has no tokens for text in the middle");
    enum status s = f->spaced ? encode_behind(&e, suffix, &after)
                              : encode(&e, json_string_value(suffix), json_string_length(suffix), &after);
    bool ok = s == STATUS_OK;
    int32_t prefix_id = find(text->tokenizer, f->prefix), suffix_id = find(text->tokenizer, f->suffix);
    if (ok && c->params.add_special && text->add_bos)
        ok = token_list_push(&all, text->bos_token);
    if (ok && f->suffix_first)
        ok = push_all(&all, suffix_id, &after) && push_all(&all, prefix_id, &before);
    else if (ok)
        ok = push_all(&all, prefix_id, &before) && push_all(&all, suffix_id, &after);
    int32_t middle = find(text->tokenizer, f->middle);
    ok = ok && (middle < 0 || token_list_push(&all, middle));
    if (s != STATUS_OK)
        s = fault_set(&c->fault, s, "suffix", "suffix: %s", e.err.text);
    else if (!ok)
        s = fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for the prompt");
    if (s == STATUS_OK && index == 0)
        add_ends(&c->params, text->tokenizer);
    token_list_fini(&before);
    token_list_fini(&after);
    p->ids = all;
    return s;
}
