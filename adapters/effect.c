/* The effect test: prompts, what is compared, and the verdict. Reading the prompts is in effect_pass.c, sizes
 * in effect_norms.c. Owns nothing but what it returns; the base's logits are made once, in the probes. */
#include "effect.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "effect_inner.h"

#define EXPLODES_RATIO 50.0
#define EXPLODES_ABOVE 1e4
#define ROWS_APPENDED 4U /* of replaced token rows */
#define INVOCATION_MAX 64U

const char *effect_outcome_name(enum effect_outcome o)
{
    static const char *const names[EFFECT_OUTCOME_COUNT] = {"untested", "seen",       "unseen",
                                                            "none",     "non_finite", "explodes"};
    return (unsigned)o < EFFECT_OUTCOME_COUNT ? names[o] : "?";
}

bool effect_is_bad(enum effect_outcome o)
{
    return o == EFFECT_NONE || o == EFFECT_NON_FINITE || o == EFFECT_EXPLODES;
}

const char *effect_builtin_text(uint32_t index)
{
    static const char *const texts[] = {"The best way to start the day is",
                                        "Question: What is a bicycle?\nAnswer:"};
    return index < sizeof texts / sizeof *texts ? texts[index] : NULL;
}

/* ---- the probes ---- */

struct effect_probes {
    const struct model *m;
    uint32_t (*tokenize)(void *data, const char *text, size_t n_bytes, int32_t *tokens, uint32_t n_max);
    void *data;
    struct base_norms norms;
    uint32_t n_prompts;
    struct effect_probe prompts[EFFECT_PROMPTS_MAX]; /* into tokens */
    float *logits[EFFECT_PROMPTS_MAX];               /* [effect_rows, vocab] of the base */
    int32_t tokens[EFFECT_PROMPTS_MAX][EFFECT_TOKENS_MAX];
};

static uint32_t tokens_max(const struct model *m)
{
    uint32_t n = model_config(m)->max_position;
    return n < EFFECT_TOKENS_MAX ? n : EFFECT_TOKENS_MAX;
}

static enum status take_prompt(struct effect_probes *p, uint32_t index, const struct effect_probe *from,
                               struct error *err)
{
    uint32_t n = from->n_tokens < tokens_max(p->m) ? from->n_tokens : tokens_max(p->m);
    for (uint32_t i = 0; i < n; i++) {
        if (from->tokens[i] < 0 || (uint32_t)from->tokens[i] >= model_config(p->m)->vocab_size)
            return fail(err, STATUS_INVALID, "probe %u: token %d is outside the base's vocabulary of %u",
                        index + 1, from->tokens[i], model_config(p->m)->vocab_size);
        p->tokens[index][i] = from->tokens[i];
    }
    p->prompts[index] = (struct effect_probe){p->tokens[index], n};
    return n ? STATUS_OK : fail(err, STATUS_INVALID, "probe %u has no tokens", index + 1);
}

static enum status read_by_base(struct effect_probes *p, struct error *err)
{
    struct effect_pass pass;
    uint32_t vocab = model_config(p->m)->vocab_size, longest = 0;
    for (uint32_t i = 0; i < p->n_prompts; i++)
        longest = p->prompts[i].n_tokens > longest ? p->prompts[i].n_tokens : longest;
    enum status s = effect_pass_init(&pass, p->m, longest, 0, err);
    for (uint32_t i = 0; i < p->n_prompts && s == STATUS_OK; i++) {
        const float *rows;
        size_t n = (size_t)effect_rows(p->prompts[i].n_tokens) * vocab;
        p->logits[i] = mem_array(n, sizeof(float));
        if (!p->logits[i])
            s = fail(err, STATUS_NO_MEMORY, "no memory for the base's logits of a probe");
        else
            s = effect_pass_run(&pass, NULL, &p->prompts[i], &rows, err);
        if (s == STATUS_OK)
            memcpy(p->logits[i], rows, n * sizeof(float));
    }
    effect_pass_fini(&pass);
    return s;
}

enum status effect_probes_create(const struct effect_probes_options *o, struct effect_probes **out,
                                 struct error *err)
{
    *out = NULL;
    if (o->n_prompts == 0 || o->n_prompts > EFFECT_PROMPTS_MAX)
        return fail(err, STATUS_INVALID, "%u probes, expected 1 to %u", o->n_prompts, EFFECT_PROMPTS_MAX);
    struct effect_probes *p = mem_zalloc(sizeof *p);
    if (!p)
        return fail(err, STATUS_NO_MEMORY, "no memory for an effect test");
    p->m = o->base;
    p->tokenize = o->tokenize;
    p->data = o->data;
    p->n_prompts = o->n_prompts;
    enum status s = STATUS_OK;
    for (uint32_t i = 0; i < o->n_prompts && s == STATUS_OK; i++)
        s = take_prompt(p, i, &o->prompts[i], err);
    if (s == STATUS_OK)
        s = base_norms_init(&p->norms, p->m, err);
    if (s == STATUS_OK)
        s = read_by_base(p, err);
    if (s == STATUS_OK)
        *out = p;
    else
        effect_probes_destroy(p);
    return s;
}

void effect_probes_destroy(struct effect_probes *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < EFFECT_PROMPTS_MAX; i++)
        mem_free(p->logits[i]);
    base_norms_fini(&p->norms);
    mem_free(p);
}

const struct model *effect_probes_model(const struct effect_probes *p)
{
    return p->m;
}

struct probes_rules effect_probes_rules(const struct effect_probes *p)
{
    return (struct probes_rules){model_config(p->m)->vocab_size, p->tokenize, p->data};
}

/* ---- comparing ---- */

struct comparison {
    double sum_kl, max_kl, max_logit, base_max;
    uint32_t n_positions, n_agree;
    bool differs, finite;
};

/* log of the sum of exponentials; *top: index of the largest. */
static double log_sum(const float *x, uint32_t n, uint32_t *top)
{
    double sum = 0;
    *top = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[*top])
            *top = i;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - x[*top]);
    return log(sum) + x[*top];
}

static double largest(const float *x, uint32_t n, bool *finite)
{
    double most = 0;
    for (uint32_t i = 0; i < n; i++) {
        double size = fabs((double)x[i]);
        *finite = *finite && isfinite(size);
        most = size > most ? size : most;
    }
    return most;
}

static void compare_row(struct comparison *c, const float *base, const float *x, uint32_t n)
{
    uint32_t top_base, top;
    bool base_finite = true;
    c->n_positions++;
    c->differs = c->differs || memcmp(base, x, n * sizeof *x) != 0;
    c->base_max = fmax(c->base_max, largest(base, n, &base_finite));
    c->max_logit = fmax(c->max_logit, largest(x, n, &c->finite));
    if (!c->finite || !base_finite)
        return;
    double sum_base = log_sum(base, n, &top_base), sum = log_sum(x, n, &top), kl = 0;
    for (uint32_t i = 0; i < n; i++) {
        double log_p = base[i] - sum_base;
        kl += exp(log_p) * (log_p - (x[i] - sum));
    }
    c->sum_kl += kl;
    c->max_kl = fmax(c->max_kl, kl);
    c->n_agree += top == top_base;
}

/* ---- a prompt with what the adapter needs to be met ---- */

struct extended {
    int32_t tokens[EFFECT_TOKENS_MAX + ROWS_APPENDED + INVOCATION_MAX];
    uint32_t n;
    bool is_longer;
};

static void append(struct extended *e, const int32_t *tokens, uint32_t n)
{
    if (n) /* memcpy takes no NULL */
        memcpy(e->tokens + e->n, tokens, n * sizeof *tokens);
    e->n += n;
}

static uint32_t n_appended(const struct lora *l)
{
    uint32_t n_rows = l->embed.rows.n;
    return (n_rows < ROWS_APPENDED ? n_rows : ROWS_APPENDED) + l->n_invocation;
}

/* Token rows first: invocation tokens, where there are any, must be the last. */
static void extend(struct extended *e, const struct lora *l, const struct effect_probe *prompt,
                   uint32_t n_max)
{
    const struct lora_rows *rows = &l->embed.rows;
    uint32_t more = n_appended(l), n = prompt->n_tokens;
    if (n + more > n_max)
        n = n_max - more;
    *e = (struct extended){.is_longer = more > 0};
    append(e, prompt->tokens, n);
    append(e, rows->ids, more - l->n_invocation);
    append(e, l->invocation, l->n_invocation);
}

/* ---- the check ---- */

struct check {
    const struct lora *l, *single;
    const struct effect_probes *probes;
    struct effect_pass pass;
    struct comparison found;
    float *base; /* the base's rows, where they are not kept */
};

static enum status run_prompt(struct check *c, const struct effect_probe *prompt, const float *kept,
                              struct error *err)
{
    uint32_t vocab = model_config(c->probes->m)->vocab_size;
    struct extended e;
    const float *rows;
    extend(&e, c->single, prompt, c->pass.n_tokens_max);
    struct effect_probe full = {e.tokens, e.n};
    uint32_t n_rows = effect_rows(e.n);
    enum status s = STATUS_OK;
    if (e.is_longer)
        kept = NULL;
    if (!kept) {
        s = effect_pass_run(&c->pass, NULL, &full, &rows, err);
        if (s != STATUS_OK)
            return s;
        memcpy(c->base, rows, (size_t)n_rows * vocab * sizeof *rows);
        kept = c->base;
    }
    s = effect_pass_run(&c->pass, c->l, &full, &rows, err);
    for (uint32_t i = 0; i < n_rows && s == STATUS_OK; i++)
        compare_row(&c->found, kept + (size_t)i * vocab, rows + (size_t)i * vocab, vocab);
    return s;
}

static enum status run_all(struct check *c, const struct effect_probe *own, uint32_t n_own, struct error *err)
{
    const struct effect_probes *p = c->probes;
    const struct model_config *config = model_config(p->m);
    const struct effect_probe *prompts = own ? own : p->prompts;
    uint32_t n_prompts = own ? n_own : p->n_prompts, n_max = 0;
    for (uint32_t i = 0; i < n_prompts; i++)
        n_max = prompts[i].n_tokens > n_max ? prompts[i].n_tokens : n_max;
    n_max += n_appended(c->single);
    n_max = n_max < config->max_position ? n_max : config->max_position;
    enum status s = effect_pass_init(&c->pass, p->m, n_max, c->l->t_max, err);
    c->base = mem_array((size_t)EFFECT_ROWS_MAX * config->vocab_size, sizeof *c->base);
    if (s == STATUS_OK && !c->base)
        s = fail(err, STATUS_NO_MEMORY, "no memory for the base's logits");
    for (uint32_t i = 0; i < n_prompts && s == STATUS_OK; i++)
        s = run_prompt(c, &prompts[i], own ? NULL : p->logits[i], err);
    mem_free(c->base);
    effect_pass_fini(&c->pass);
    return s;
}

/* ---- the verdict ---- */

__attribute__((format(printf, 3, 4))) static void say(struct effect_report *r, enum effect_outcome outcome,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->what, sizeof r->what, format, args);
    va_end(args);
    r->outcome = outcome;
}

/* Whether anything beside the low-rank products can have an effect, so that zeros say nothing. */
static bool has_more_than_products(const struct lora *l)
{
    bool more = l->replaces || l->embed.magnitude;
    for (uint32_t i = 0; i < l->n_layers && !more; i++) {
        const struct lora_layer *layer = &l->layers[i];
        for (unsigned g = 0; g < LORA_GROUP_COUNT && !more; g++)
            for (unsigned k = 0; k < 3; k++)
                more = more || layer->group[g].part[k].bias || layer->group[g].part[k].magnitude;
        more = more || layer->experts;
    }
    return more || l->lm_head.part[0].bias || l->lm_head.part[0].magnitude;
}

static bool has_dense_part(const struct lora *l)
{
    bool dense = l->replaces || l->embed.b.data || l->lm_head.a.data;
    for (uint32_t i = 0; i < l->n_layers && !dense; i++)
        for (unsigned g = 0; g < LORA_GROUP_COUNT; g++)
            dense = dense || l->layers[i].group[g].a.data;
    return dense;
}

static bool all_zero(const struct effect_report *r)
{
    bool zero = r->embed.delta == 0;
    for (unsigned i = 0; i < LORA_SITE_COUNT; i++)
        zero = zero && r->norm[i].delta == 0;
    return zero;
}

static bool is_seen_without_a_pass(const struct lora *l, float weight, struct effect_report *r)
{
    if (weight == 0)
        say(r, EFFECT_NONE, "no effect: its scale is 0, which is the base");
    else if (all_zero(r) && !has_more_than_products(l))
        say(r, EFFECT_NONE,
            "no effect: scale * B A is zero in every module: a scale or alpha of 0, or a lora_B that was "
            "never trained");
    return r->outcome != EFFECT_UNTESTED;
}

static void judge(const struct check *c, struct effect_report *r)
{
    const struct comparison *f = &c->found;
    r->n_positions = f->n_positions;
    r->max_logit = f->max_logit;
    r->base_max_logit = f->base_max;
    if (!f->finite) {
        say(r, EFFECT_NON_FINITE, "non-finite logits: its answers would be no numbers");
        return;
    }
    r->mean_kl = f->sum_kl / f->n_positions;
    r->max_kl = f->max_kl;
    r->agreement = (double)f->n_agree / f->n_positions;
    if (!f->differs && !has_dense_part(c->single))
        say(r, EFFECT_UNSEEN,
            "not seen: only experts are adapted, and the prompts reached none of them; probes.jsonl may name "
            "prompts that do");
    else if (!f->differs)
        say(r, EFFECT_NONE, "no effect: all logits at %u positions are the base's, to the last bit",
            f->n_positions);
    else if (f->max_logit > EXPLODES_ABOVE && f->max_logit > EXPLODES_RATIO * f->base_max)
        say(r, EFFECT_EXPLODES,
            "exploding logits: up to %.3g, the base's are up to %.3g: is its scale right?", f->max_logit,
            f->base_max);
    else
        say(r, EFFECT_SEEN,
            "KL to the base %.4g on average, at most %.4g, over %u positions; %.0f %% same top", r->mean_kl,
            r->max_kl, f->n_positions, 100 * r->agreement);
}

static enum status check_own(const struct effect_probes *p, const struct effect_probe *own, uint32_t n,
                             struct error *err)
{
    uint32_t vocab = model_config(p->m)->vocab_size;
    for (uint32_t i = 0; i < n; i++) {
        if (own[i].n_tokens == 0 || own[i].n_tokens > EFFECT_TOKENS_MAX)
            return fail(err, STATUS_INVALID, "probe %u has %u tokens, expected 1 to %u", i + 1,
                        own[i].n_tokens, EFFECT_TOKENS_MAX);
        for (uint32_t k = 0; k < own[i].n_tokens; k++)
            if (own[i].tokens[k] < 0 || (uint32_t)own[i].tokens[k] >= vocab)
                return fail(err, STATUS_INVALID, "probe %u: token %d is outside the base's vocabulary of %u",
                            i + 1, own[i].tokens[k], vocab);
    }
    return STATUS_OK;
}

enum status effect_check(const struct lora *l, const struct effect_probes *p, const struct effect_probe *own,
                         uint32_t n_own, struct effect_report *out, struct error *err)
{
    float weight;
    struct check c = {.l = l, .single = effect_single(l, &weight), .probes = p, .found.finite = true};
    require(l->model == p->m && l->n_members <= 1 && n_own <= EFFECT_PROMPTS_MAX);
    *out = (struct effect_report){.own_probes = n_own > 0, .n_prompts = n_own ? n_own : p->n_prompts};
    enum status s = check_own(p, own, n_own, err);
    if (s == STATUS_OK)
        s = effect_norms(l, p->m, &p->norms, out, err);
    if (s != STATUS_OK || is_seen_without_a_pass(c.single, weight, out))
        return s;
    if (c.single->n_invocation > INVOCATION_MAX || n_appended(c.single) >= model_config(p->m)->max_position) {
        say(out, EFFECT_UNTESTED, "not tested: %u invocation tokens are more than a probe has room for",
            c.single->n_invocation);
        return STATUS_OK;
    }
    s = run_all(&c, n_own ? own : NULL, n_own, err);
    if (s == STATUS_OK)
        judge(&c, out);
    return s;
}
