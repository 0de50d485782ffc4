/* Log-probabilities as JSON: chat has one object a token, with its bytes; completions have four parallel
 * lists and an object from text to value, in which a text can stand only once. -inf, which JSON lacks, is
 * -9999 as OpenAI has it. */
#include "logprobs_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

void logprob_list_init(struct logprob_list *l)
{
    *l = (struct logprob_list){0};
    buf_init(&l->items, 0);
    buf_init(&l->values, 0);
    buf_init(&l->tops, 0);
    buf_init(&l->offsets, 0);
}

void logprob_list_fini(struct logprob_list *l)
{
    buf_fini(&l->items);
    buf_fini(&l->values);
    buf_fini(&l->tops);
    buf_fini(&l->offsets);
}

static double shown(float logprob)
{
    return logprob > -9999 ? (double)logprob : -9999.0;
}

#define PIECE_SHOWN_MAX 64U

/* A token's text as it is shown: its characters, or "token_id:N". Part of a character has no text:
 * completions then say "bytes:\\xNN…" as OpenAI's do, so that two such tokens differ. */
struct piece {
    const char *bytes;
    size_t length;
    char own[PIECE_SHOWN_MAX];
};

static void show_bytes(struct piece *p)
{
    char shown[PIECE_SHOWN_MAX];
    int n = snprintf(shown, sizeof shown, "bytes:");
    for (size_t i = 0; i < p->length && (size_t)n + 5 < sizeof shown; i++)
        n += snprintf(shown + n, sizeof shown - (size_t)n, "\\x%02x", (unsigned char)p->bytes[i]);
    memcpy(p->own, shown, sizeof shown);
    p->bytes = p->own;
    p->length = (size_t)n;
}

static void piece_of(const struct tokenizer *t, int32_t token, bool as_ids, struct piece *p)
{
    if (as_ids) {
        p->length = (size_t)snprintf(p->own, sizeof p->own, "token_id:%d", token);
        p->bytes = p->own;
        return;
    }
    p->bytes = tokenizer_piece(t, token, &p->length);
    if (!p->bytes) {
        p->bytes = "";
        p->length = 0;
    }
}

static void piece_as_key(const struct tokenizer *t, int32_t token, bool as_ids, struct piece *p)
{
    piece_of(t, token, as_ids, p);
    if (utf8_valid_prefix(p->bytes, p->length) != p->length)
        show_bytes(p);
}

static void put_chat_token(struct jw *w, const struct tokenizer *t, bool as_ids,
                           const struct token_logprob *lp)
{
    struct piece p;
    size_t n = 0;
    piece_of(t, lp->token, as_ids, &p);
    jw_key(w, "token");
    jw_bytes(w, p.bytes, p.length);
    jw_key_float(w, "logprob", shown(lp->logprob));
    const char *bytes = tokenizer_piece(t, lp->token, &n);
    jw_key(w, "bytes");
    jw_begin(w, '[');
    for (size_t i = 0; bytes && i < n; i++)
        jw_int(w, (unsigned char)bytes[i]);
    jw_end(w, ']');
}

static void add_chat(struct logprob_list *l, const struct tokenizer *t, bool as_ids, const struct event *e)
{
    struct jw w = {.out = &l->items, .comma = l->items.length > 0};
    struct token_logprob chosen = {.token = e->token, .logprob = e->logprob};
    jw_begin(&w, '{');
    put_chat_token(&w, t, as_ids, &chosen);
    jw_key(&w, "top_logprobs");
    jw_begin(&w, '[');
    for (uint32_t i = 0; i < e->n_top; i++) {
        jw_begin(&w, '{');
        put_chat_token(&w, t, as_ids, &e->top[i]);
        jw_end(&w, '}');
    }
    jw_end(&w, ']');
    jw_end(&w, '}');
}

static bool same_piece(const struct piece *a, const struct piece *b)
{
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

/* {text: logprob, …}: the best first, then the chosen one if it isn't among them. Of tokens with the same
 * text the chosen one is shown, else the best. */
static void put_tops(struct jw *w, const struct tokenizer *t, bool as_ids, const struct event *e)
{
    struct piece seen[LOGPROBS_MAX + 1], chosen;
    uint32_t n_seen = 0;
    piece_as_key(t, e->token, as_ids, &chosen);
    jw_begin(w, '{');
    for (uint32_t i = 0; i <= e->n_top && i <= LOGPROBS_MAX; i++) {
        struct token_logprob lp = {.token = e->token, .logprob = e->logprob};
        if (i < e->n_top)
            lp = e->top[i];
        struct piece *p = &seen[n_seen];
        piece_as_key(t, lp.token, as_ids, p);
        if (lp.token != e->token && same_piece(p, &chosen))
            continue;
        uint32_t j = 0;
        while (j < n_seen && !same_piece(&seen[j], p))
            j++;
        if (j < n_seen)
            continue;
        n_seen++;
        jw_bytes(w, p->bytes, p->length);
        buf_putc(w->out, ':');
        w->comma = false;
        jw_float(w, shown(lp.logprob));
    }
    jw_end(w, '}');
}

/* Characters as they will be shown: a byte that is no part of one counts as one. */
static uint32_t count_chars(const char *s, size_t length)
{
    uint32_t n = 0;
    while (length) {
        size_t valid = utf8_valid_prefix(s, length);
        for (size_t i = 0; i < valid; i++)
            n += ((unsigned char)s[i] & 0xc0) != 0x80;
        size_t step = valid < length ? valid + 1 : valid;
        n += valid < length;
        s += step;
        length -= step;
    }
    return n;
}

static void add_completion(struct logprob_list *l, const struct logprob_style *style, const struct event *e,
                           bool known)
{
    const struct tokenizer *t = style->tokenizer;
    bool comma = l->items.length > 0;
    struct jw tokens = {.out = &l->items, .comma = comma}, values = {.out = &l->values, .comma = comma},
              tops = {.out = &l->tops, .comma = comma}, offsets = {.out = &l->offsets, .comma = comma};
    struct piece p;
    piece_as_key(t, e->token, style->as_ids, &p);
    jw_bytes(&tokens, p.bytes, p.length);
    jw_int(&offsets, l->n_chars);
    if (known) {
        jw_float(&values, shown(e->logprob));
        put_tops(&tops, t, style->as_ids, e);
    } else {
        jw_null(&values);
        jw_null(&tops);
    }
    size_t n = 0;
    const char *bytes = tokenizer_piece(t, e->token, &n);
    if (bytes && !(style->skip_special && tokenizer_is_special(t, e->token)))
        l->n_chars += count_chars(bytes, n);
}

void logprob_list_add(struct logprob_list *l, const struct logprob_style *style, const struct event *e,
                      bool known)
{
    if (style->api == API_CHAT)
        add_chat(l, style->tokenizer, style->as_ids, e);
    else
        add_completion(l, style, e, known);
}

static void put_list(struct jw *w, const char *key, struct buf *b)
{
    jw_key(w, key);
    jw_begin(w, '[');
    jw_raw(w, b->data, b->length);
    jw_end(w, ']');
    buf_clear(b);
}

void logprob_list_write(struct logprob_list *l, enum api api, struct jw *w)
{
    jw_begin(w, '{');
    if (api == API_CHAT) {
        put_list(w, "content", &l->items);
        jw_key(w, "refusal");
        jw_null(w);
    } else {
        put_list(w, "tokens", &l->items);
        put_list(w, "token_logprobs", &l->values);
        put_list(w, "top_logprobs", &l->tops);
        put_list(w, "text_offset", &l->offsets);
    }
    jw_end(w, '}');
}

/* ---- vLLM's form for prompts */

static void put_ranked(struct jw *w, const struct tokenizer *t, const struct token_logprob *lp, uint32_t rank)
{
    char key[16];
    struct piece p;
    snprintf(key, sizeof key, "%d", lp->token);
    piece_of(t, lp->token, false, &p);
    jw_key(w, key);
    jw_begin(w, '{');
    jw_key_float(w, "logprob", shown(lp->logprob));
    jw_key_int(w, "rank", rank);
    jw_key(w, "decoded_token");
    jw_bytes(w, p.bytes, p.length);
    jw_end(w, '}');
}

void prompt_logprobs_add(struct buf *out, const struct tokenizer *t, uint32_t n_top, const struct event *e)
{
    struct jw w = {.out = out, .comma = out->length > 0};
    if (!e) {
        jw_null(&w);
        return;
    }
    struct token_logprob own = {.token = e->token, .logprob = e->logprob};
    jw_begin(&w, '{');
    put_ranked(&w, t, &own, e->rank);
    for (uint32_t i = 0; i < e->n_top && i < n_top; i++)
        if (e->top[i].token != e->token)
            put_ranked(&w, t, &e->top[i], i + 1);
    jw_end(&w, '}');
}
