/* A model made of arithmetic, behind the door model.h: its K is the token itself, and a row of logits is
 * drawn from a hash of all tokens that the sequence's pages hold up to that row, and of its adapter. So a
 * page that is lost, mixed up or not yet written changes the output, and thousands of steps take no time.
 * Beside the token stands a mark of all that a real K and V depend on: adapter, tokens and their marks up to
 * there, rotary scaling; a page that was computed from anything else ends the test.
 * Included by one test program, which thereby needs nothing else of core/model but the KV cache. */
#ifndef LK_TESTS_FAKE_MODEL_H
#define LK_TESTS_FAKE_MODEL_H

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cost.h"
#include "kv_cache.h"
#include "lora.h"
#include "model.h"
#include "text.h"

#define FAKE_VOCAB 260U
#define FAKE_HIDDEN 3U /* a row's hidden states: its mark, its position, its token */
#define FAKE_EOS 256
#define FAKE_EOS_TEXT 257
#define FAKE_BROKEN 255 /* first byte of the digest of an adapter whose rows are NaN */

struct model {
    struct model_config config;
    struct model_info info;
    struct kernels kernels;
    struct timespec step_time; /* slept in every step */
    bool all_nan;
    bool has_habits;           /* says again what it said behind the same two tokens, mostly */
    const struct lora *inside; /* a merged copy's adapter */
};

struct merged_copy {
    atomic_uint refs;
    struct model model;
    struct lora *lora;
};

struct step_space {
    float *logits; /* [n_rows_max, FAKE_VOCAB] */
    float *hidden; /* [n_rows_max, FAKE_HIDDEN] */
    uint32_t n_tokens_max, n_seqs_max, n_rows_max, t_max;
};

static uint32_t fake_argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static struct model fake_model(void)
{
    struct model m = {
        .config = {.vocab_size = FAKE_VOCAB, .hidden_size = FAKE_HIDDEN, .max_position = 4096, .n_eos = 1}};
    m.config.eos_tokens[0] = FAKE_EOS;
    m.kernels.argmax = fake_argmax;
    return m;
}

const struct model_config *model_config(const struct model *m)
{
    return &m->config;
}

const struct kernels *model_kernels(const struct model *m)
{
    return &m->kernels;
}

enum dtype model_kv_type(const struct model *m, const char *wanted)
{
    (void)m;
    return strcmp(wanted, "f16") == 0 ? DTYPE_F16 : DTYPE_F32;
}

struct kv_shape model_kv_shape(const struct model *m, enum dtype kv_type)
{
    (void)m;
    return (struct kv_shape){.n_layers = 1, .n_kv_heads = 1, .head_dim = 4, .type = kv_type};
}

enum status step_space_create(const struct model *m, const struct kv_shape *kv, uint32_t n_tokens_max,
                              uint32_t n_seqs_max, uint32_t n_logit_rows_max, struct team *team,
                              struct step_space **out, struct error *err)
{
    (void)m, (void)kv, (void)team;
    struct step_space *s = mem_zalloc(sizeof *s);
    *out = s;
    if (!s)
        return fail(err, STATUS_NO_MEMORY, "step space");
    *s = (struct step_space){mem_array(n_logit_rows_max, FAKE_VOCAB * sizeof(float)),
                             mem_array(n_logit_rows_max, FAKE_HIDDEN * sizeof(float)),
                             n_tokens_max,
                             n_seqs_max,
                             n_logit_rows_max,
                             0};
    return s->logits && s->hidden ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "step space");
}

void step_space_destroy(struct step_space *s)
{
    if (s) {
        mem_free(s->logits);
        mem_free(s->hidden);
    }
    mem_free(s);
}

enum status step_reserve_rank(struct step_space *s, uint32_t t_max, struct error *err)
{
    if (t_max > 1000)
        return fail(err, STATUS_NO_MEMORY, "no memory for rank %u", t_max);
    s->t_max = t_max > s->t_max ? t_max : s->t_max;
    return STATUS_OK;
}

enum status step_reserve_model(struct step_space *s, const struct model *m, struct error *err)
{
    (void)s, (void)m, (void)err;
    return STATUS_OK;
}

/* ---- merged copies: they say exactly what the adapter beside the base says ---- */

static inline struct merged_copy fake_copy(struct lora *l)
{
    struct merged_copy c = {.refs = 1, .model = *l->model, .lora = l};
    c.model.inside = l;
    return c;
}

struct merged_copy *merged_copy_acquire(struct merged_copy *c)
{
    if (c)
        atomic_fetch_add(&c->refs, 1);
    return c;
}

void merged_copy_release(struct merged_copy *c)
{
    if (c)
        atomic_fetch_sub(&c->refs, 1);
}

const struct model *merged_copy_model(const struct merged_copy *c)
{
    return &c->model;
}

struct lora *merged_copy_lora(const struct merged_copy *c)
{
    return c->lora;
}

/* A copy is slower for a single row and faster for more. */
void cost_curve(const struct cost_model *c, const struct model *m, const struct lora *l,
                struct cost_curve *out)
{
    (void)c, (void)l;
    for (uint32_t i = 0; i < COST_ROW_POINTS; i++)
        out->ns[i] = 100 + (m->inside ? i == 0 ? 50 : -50 : 0);
}

static uint64_t fake_mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15U;
    return h ^ (h >> 29);
}

static float *fake_place(struct kv_cache *kv, const struct batch_seq *q, uint32_t p)
{
    return (float *)(void *)kv_page_data(kv, q->pages[p / KV_PAGE_TOKENS]) + (size_t)p % KV_PAGE_TOKENS * 4;
}

/* What must stand at position p behind the mark `before`: 24 bits, exact as a float. */
static float fake_mark(const struct model *m, const struct batch_seq *q, uint32_t p, int32_t token,
                       float before)
{
    const struct lora *lora = q->lora && p >= q->lora_begin ? q->lora : m->inside;
    uint64_t h = fake_mix(lora ? lora->digest[0] : 99, (uint64_t)before);
    h = fake_mix(h, (uint64_t)token);
    h = fake_mix(h, model_length_class(m, q->n_prompt, q->n_known));
    return (float)(h >> 40);
}

/* Logits that stand out by what the last two tokens are, a few bits of each: soon all of them have been seen.
 */
static float fake_habit(const struct lora *lora, const struct batch_seq *q, struct kv_cache *kv, uint32_t p,
                        uint32_t v)
{
    uint32_t last = (uint32_t)fake_place(kv, q, p)[0] % 16;
    uint32_t before = p ? (uint32_t)fake_place(kv, q, p - 1)[0] % 4 : 0;
    uint64_t h = fake_mix(fake_mix(lora ? lora->digest[0] : 99, last * 4 + before), v);
    return 20 * powf((float)(fake_mix(h, 1) >> 40) / 16777216.0F, 16);
}

/* What the row of position p says: a function of the pages' content alone. */
static void fake_row(const struct model *m, struct kv_cache *kv, const struct batch_seq *q, uint32_t p,
                     float *row)
{
    const struct lora *lora = q->lora && p >= q->lora_begin ? q->lora : m->inside;
    uint64_t h = lora ? lora->digest[0] : 99;
    float mark = 0;
    for (uint32_t i = 0; i <= p; i++) {
        const float *k = fake_place(kv, q, i);
        require(k[1] == (float)i); /* the page was written by this position */
        mark = fake_mark(m, q, i, (int32_t)k[0], mark);
        require(k[2] == mark); /* from what this sequence has before it */
        h = fake_mix(h, (uint64_t)k[0]);
    }
    for (uint32_t v = 0; v < FAKE_VOCAB; v++) {
        h = fake_mix(h, v);
        row[v] = m->all_nan || (lora && lora->digest[0] == FAKE_BROKEN)
                     ? NAN
                     : (float)(h >> 40) / 16777216.0F * 6 + (v >= 32 && v < 127 ? 3.0F : 0.0F);
        if (m->has_habits)
            row[v] = row[v] / 100 + fake_habit(lora, q, kv, p, v);
    }
}

const float *step_peaks(const struct step_space *s)
{
    (void)s;
    return NULL;
}

const double *step_sums(const struct step_space *s)
{
    (void)s;
    return NULL;
}

const float *step_hidden(const struct step_space *s)
{
    return s->hidden;
}

/* One row of what a step gives; those that were not asked for are no numbers. */
static void fake_out(const struct model *m, struct step_space *s, struct kv_cache *kv, uint32_t at[3],
                     const struct batch *batch)
{
    const struct batch_seq *q = &batch->seqs[at[0]];
    uint32_t p = q->position + at[1];
    float *logits = s->logits + (size_t)(batch->logits_at + at[2]) * FAKE_VOCAB;
    float *hidden = s->hidden + (size_t)at[2] * FAKE_HIDDEN;
    fake_row(m, kv, q, p, logits);
    for (uint32_t i = 0; batch->rows == STEP_HIDDEN && i < FAKE_VOCAB; i++)
        logits[i] = NAN;
    hidden[0] = batch->rows == STEP_LOGITS || (q->lora && q->lora->digest[0] == FAKE_BROKEN)
                    ? NAN
                    : fake_place(kv, q, p)[2];
    hidden[1] = (float)p;
    hidden[2] = fake_place(kv, q, p)[0];
}

void model_step(const struct model *m, struct step_space *s, struct kv_cache *kv, const struct batch *batch,
                float **logits)
{
    uint32_t n_rows = 0, n_tokens = 0;
    require(batch->n_seqs > 0 && batch->n_seqs <= s->n_seqs_max);
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const struct batch_seq *q = &batch->seqs[i];
        n_tokens += q->n_tokens;
        require(q->n_tokens > 0 && q->logits_begin <= q->n_tokens &&
                (!q->lora || (q->lora->t_max <= s->t_max && !m->inside)));
        require(q->n_known > model_length_limit(m) || q->position + q->n_tokens <= model_length_limit(m));
        for (uint32_t t = 0; t < q->n_tokens; t++) {
            float *k = fake_place(kv, q, q->position + t);
            k[0] = (float)q->tokens[t];
            k[1] = (float)(q->position + t);
            float before = q->position + t ? fake_place(kv, q, q->position + t - 1)[2] : 0;
            k[2] = fake_mark(m, q, q->position + t, q->tokens[t], before);
        }
        for (uint32_t t = q->logits_begin; t < q->n_tokens; t++) {
            require(batch->logits_at + n_rows < s->n_rows_max);
            fake_out(m, s, kv, (uint32_t[3]){i, t, n_rows++}, batch);
        }
    }
    require(n_tokens <= s->n_tokens_max);
    if (m->step_time.tv_nsec)
        nanosleep(&m->step_time, NULL);
    *logits = s->logits + (size_t)batch->logits_at * FAKE_VOCAB;
}

/* The last occurrence of the first invocation token. */
uint32_t lora_begin(const struct lora *l, const int32_t *prompt, uint32_t n_prompt)
{
    uint32_t at = l->n_invocation ? n_prompt : 1;
    while (at > 0 && l->n_invocation && prompt[at - 1] != l->invocation[0])
        at--;
    return at > 0 ? at - 1 : UINT32_MAX;
}

struct lora *lora_acquire(struct lora *l)
{
    if (l)
        atomic_fetch_add(&l->refs, 1);
    return l;
}

void lora_release(struct lora *l)
{
    if (l)
        atomic_fetch_sub(&l->refs, 1);
}

/* A byte-level tokenizer of 256 bytes and some special tokens: ids are bytes, in GPT-2's order of characters.
 */
static struct tokenizer *fake_tokenizer(void)
{
    struct buf json;
    struct tokenizer *t = NULL;
    struct error err = {0};
    buf_init(&json, 0);
    buf_puts(&json, "{\"version\":\"1.0\",\"added_tokens\":[");
    for (int i = 0; i < 4; i++)
        buf_printf(
            &json,
            "%s{\"id\":%d,\"content\":\"<s%d>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
            "\"normalized\":false,\"special\":true}",
            i ? "," : "", 256 + i, i);
    buf_puts(&json,
             "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
             "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
             "\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\"model\":{"
             "\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"merges\":[],\"vocab\":{");
    for (unsigned byte = 0, n_moved = 0; byte < 256; byte++) {
        bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        buf_printf(&json, "%s\"\\u%04x\":%u", byte ? "," : "", plain ? byte : 256 + n_moved, byte);
        n_moved += !plain;
    }
    buf_puts(&json, "}}}");
    enum status s = tokenizer_from_json(json.data, json.length, "tokenizer.json", &t, &err);
    if (s != STATUS_OK)
        fprintf(stderr, "%s\n", err.text);
    buf_fini(&json);
    return t;
}

#endif
