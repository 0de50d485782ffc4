/* Perplexity and divergence over a text, window by window, straight on the model: no engine, no sampler. Each
 * step's logits become log-probabilities in place, are compared and forgotten; what is kept is one score a
 * token. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kv_cache.h"

#define STEP_TOKENS 128U
#define LOGIT_BYTES ((size_t)64 << 20) /* of one side's logits */

/* ---- windows ---- */

static uint32_t window_text(const struct eval_text *t)
{
    return t->window - (t->bos >= 0 ? 1 : 0);
}

bool eval_window_at(const struct eval_text *t, size_t index, struct eval_window *out)
{
    size_t n = window_text(t);
    if (index > 0 && (index - 1) * t->stride + n >= t->n_tokens)
        return false; /* the one before has reached the end */
    out->begin = index * t->stride;
    out->end = t->n_tokens - out->begin < n ? t->n_tokens : out->begin + n;
    out->score_begin = index > 0 ? out->begin + n - t->stride : t->bos >= 0 ? 0 : 1;
    return true;
}

size_t eval_n_scored(const struct eval_text *t)
{
    return t->bos >= 0 || t->n_tokens == 0 ? t->n_tokens : t->n_tokens - 1;
}

/* ---- a side ---- */

enum status eval_side_init(struct eval_side *s, const struct model *m, struct lora *lora, const char *kv_type,
                           uint32_t window, struct team *team, struct error *err)
{
    struct kv_shape shape = model_kv_shape(m, model_kv_type(m, kv_type));
    uint32_t n_pages = (window + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    size_t fit = LOGIT_BYTES / sizeof(float) / model_config(m)->vocab_size;
    s->model = m;
    s->lora = lora;
    s->n_step = window < STEP_TOKENS ? window : STEP_TOKENS;
    s->n_logit_rows = fit == 0 ? 1 : fit < s->n_step ? (uint32_t)fit : s->n_step;
    s->pages = mem_array(n_pages, sizeof *s->pages);
    if (!s->pages)
        return fail(err, STATUS_NO_MEMORY, "pages of a window of %u tokens", window);
    enum status status = kv_cache_create(&shape, n_pages, &s->kv, err);
    if (status == STATUS_OK)
        status = step_space_create(m, &shape, s->n_step, 1, s->n_logit_rows, team, &s->space, err);
    if (status == STATUS_OK && lora)
        status = step_reserve_rank(s->space, lora->t_max, err);
    for (uint32_t i = 0; i < n_pages && status == STATUS_OK; i++)
        require(kv_page_acquire(s->kv, &s->pages[i]));
    return status;
}

void eval_side_fini(struct eval_side *s)
{
    step_space_destroy(s->space);
    kv_cache_destroy(s->kv);
    mem_free(s->pages);
    *s = (struct eval_side){0};
}

/* ---- rows of a step ---- */

/* What the workers share: rows of logits of both sides, and the token that followed each. */
struct rows {
    const struct kernels *kernels;
    float *ours, *reference; /* [n, vocab] logits, then log-probabilities; reference may be NULL */
    bool reference_done;     /* it holds log-probabilities already */
    uint32_t n, vocab;
    const int32_t *next; /* [n] */
    struct eval_score *scores;
};

/* z - log(sum exp z): rounded once, so equal logits give equal values and KL is 0 exactly. */
static void log_softmax(float *z, uint32_t n)
{
    float max = z[0];
    double sum = 0;
    for (uint32_t i = 1; i < n; i++)
        max = z[i] > max ? z[i] : max;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)z[i] - max);
    double lse = max + log(sum);
    for (uint32_t i = 0; i < n; i++)
        z[i] = (float)(z[i] - lse);
}

/* A token that the reference holds for impossible adds nothing: p log p goes to 0. */
static double divergence(const float *ref, const float *ours, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (ref[i] > -INFINITY)
            sum += exp((double)ref[i]) * ((double)ref[i] - ours[i]);
    return sum;
}

static void score_rows(void *arg, unsigned worker, unsigned n_workers)
{
    const struct rows *r = arg;
    uint64_t begin, end;
    team_share(r->n, 1, worker, n_workers, &begin, &end);
    for (uint64_t i = begin; i < end; i++) {
        float *ours = r->ours + i * r->vocab, *ref = r->reference ? r->reference + i * r->vocab : NULL;
        struct eval_score *s = &r->scores[i];
        log_softmax(ours, r->vocab);
        *s = (struct eval_score){.logprob = ours[r->next[i]]};
        if (!ref)
            continue;
        if (!r->reference_done)
            log_softmax(ref, r->vocab);
        s->ref_logprob = ref[r->next[i]];
        s->kl = (float)divergence(ref, ours, r->vocab);
        s->same_top = r->kernels->argmax(ours, r->vocab) == r->kernels->argmax(ref, r->vocab);
    }
}

/* ---- windows through the model ---- */

struct walk {
    const struct eval_job *job;
    uint32_t vocab;
    float *from_file; /* [n_logit_rows, vocab], or NULL */
    int32_t *context; /* [window] bos and text of the window */
    struct eval_score *scores;
    size_t n_scored;
    int64_t told_ns;
};

static float *step(const struct walk *w, struct eval_side *s, uint32_t n_context, uint32_t position,
                   const uint32_t share[2])
{
    float *logits;
    struct batch_seq q = {.lora = s->lora,
                          .tokens = w->context + position,
                          .n_tokens = share[0],
                          .position = position,
                          .pages = s->pages,
                          .logits_begin = share[1],
                          .n_prompt = n_context,
                          .n_known = n_context,
                          .lora_begin = s->lora ? lora_begin(s->lora, w->context, n_context) : 0};
    model_step(s->model, s->space, s->kv, &(struct batch){.seqs = &q, .n_seqs = 1}, &logits);
    return logits;
}

/* The rows' scores; n of them follow position `position` of the window. */
static enum status score(struct walk *w, float *ours, float *reference, uint32_t position, uint32_t n,
                         struct error *err)
{
    const struct eval_job *j = w->job;
    struct rows r = {.kernels = model_kernels(j->ours->model),
                     .ours = ours,
                     .reference = reference,
                     .reference_done = reference && reference == w->from_file,
                     .n = n,
                     .vocab = w->vocab,
                     .next = w->context + position + 1,
                     .scores = w->scores + w->n_scored};
    team_run(j->team, score_rows, &r);
    for (uint32_t i = 0; i < n; i++) {
        if (!isfinite(r.scores[i].logprob) || (reference && !isfinite(r.scores[i].ref_logprob)))
            return fail(err, STATUS_INVALID, "scored token %zu: the %s gives it no finite log-probability",
                        w->n_scored + i, isfinite(r.scores[i].logprob) ? "reference" : "model");
        enum status s = j->save ? eval_file_write(j->save, ours + (size_t)i * w->vocab, err) : STATUS_OK;
        if (s != STATUS_OK)
            return s;
    }
    w->n_scored += n;
    return STATUS_OK;
}

/* One step of both sides. share: its tokens, and the first one whose logits are wanted. */
static enum status step_both(struct walk *w, uint32_t n_context, uint32_t position, const uint32_t share[2],
                             struct error *err)
{
    const struct eval_job *j = w->job;
    uint32_t n = share[0] - share[1];
    float *ours = step(w, j->ours, n_context, position, share), *reference = NULL;
    enum status s = STATUS_OK;
    if (j->reference)
        reference = step(w, j->reference, n_context, position, share);
    else if (j->reference_file)
        reference = w->from_file;
    for (uint32_t i = 0; i < n && j->reference_file && s == STATUS_OK; i++)
        s = eval_file_read(j->reference_file, reference + (size_t)i * w->vocab, err);
    return s == STATUS_OK && n > 0 ? score(w, ours, reference, position, n, err) : s;
}

static void tell(struct walk *w, size_t n_all)
{
    int64_t now = clock_now_ns();
    if (!w->job->progress || now - w->told_ns < 5 * NS_PER_S)
        return;
    w->told_ns = now;
    double sum = 0;
    for (size_t i = 0; i < w->n_scored; i++)
        sum -= w->scores[i].logprob;
    fprintf(stderr, "%zu of %zu tokens, perplexity so far %.4f\n", w->n_scored, n_all,
            w->n_scored ? exp(sum / (double)w->n_scored) : 0);
}

static enum status one_window(struct walk *w, const struct eval_window *at, struct error *err)
{
    const struct eval_text *t = w->job->text;
    uint32_t n_bos = t->bos >= 0 ? 1 : 0;
    uint32_t n_context = n_bos + (uint32_t)(at->end - at->begin);
    uint32_t first = n_bos + (uint32_t)(at->score_begin - at->begin) - 1; /* position whose row scores */
    if (n_bos)
        w->context[0] = t->bos;
    memcpy(w->context + n_bos, t->tokens + at->begin, (at->end - at->begin) * sizeof *w->context);
    enum status s = STATUS_OK;
    for (uint32_t position = 0; position + 1 < n_context && s == STATUS_OK;) {
        const struct eval_side *side = w->job->ours;
        bool before = position < first;
        uint32_t limit = before ? first - position : n_context - 1 - position;
        uint32_t most = before ? side->n_step : side->n_logit_rows, n = limit < most ? limit : most;
        s = step_both(w, n_context, position, (uint32_t[2]){n, before ? n : 0}, err);
        position += n;
        tell(w, eval_n_scored(t));
    }
    return s;
}

/* ---- statistics ---- */

typedef double value_of(const struct eval_score *s);
static double nll_of(const struct eval_score *s)
{
    return -(double)s->logprob;
}
static double ref_nll_of(const struct eval_score *s)
{
    return -(double)s->ref_logprob;
}
static double kl_of(const struct eval_score *s)
{
    return s->kl;
}
static double same_top_of(const struct eval_score *s)
{
    return s->same_top ? 1 : 0;
}
static double squared_dp_of(const struct eval_score *s)
{
    double d = exp((double)s->logprob) - exp((double)s->ref_logprob);
    return d * d;
}

static struct eval_mean mean_of(const struct eval_score *s, size_t n, value_of *value)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += value(&s[i]);
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (value(&s[i]) - mean) * (value(&s[i]) - mean);
    double error = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : 0;
    return (struct eval_mean){mean, error};
}

static int by_kl(const void *a, const void *b)
{
    float x = ((const struct eval_score *)a)->kl, y = ((const struct eval_score *)b)->kl;
    return (x > y) - (x < y);
}

/* Between neighbours linearly, as NumPy's percentile does. */
static double quantile(const struct eval_score *sorted, size_t n, double share)
{
    double at = share * (double)(n - 1);
    size_t low = (size_t)at, high = low + 1 < n ? low + 1 : low;
    return sorted[low].kl + (at - (double)low) * ((double)sorted[high].kl - sorted[low].kl);
}

static void summarise(struct eval_score *s, size_t n, bool compared, struct eval_result *out)
{
    out->n_scored = n;
    out->nll = mean_of(s, n, nll_of);
    out->ppl = exp(out->nll.mean);
    out->ppl_error = out->ppl * out->nll.error;
    if (!compared)
        return;
    out->ref_nll = mean_of(s, n, ref_nll_of);
    out->ref_ppl = exp(out->ref_nll.mean);
    out->kl = mean_of(s, n, kl_of);
    out->same_top = mean_of(s, n, same_top_of);
    out->rms_dp = sqrt(mean_of(s, n, squared_dp_of).mean);
    qsort(s, n, sizeof *s, by_kl);
    out->kl_median = quantile(s, n, 0.5);
    out->kl_99 = quantile(s, n, 0.99);
    out->kl_max = s[n - 1].kl;
}

static enum status walk_all(struct walk *w, struct eval_result *out, struct error *err)
{
    const struct eval_job *j = w->job;
    struct eval_window at;
    enum status s = STATUS_OK;
    for (; s == STATUS_OK && eval_window_at(j->text, out->n_windows, &at); out->n_windows++)
        s = one_window(w, &at, err);
    if (s != STATUS_OK)
        return s;
    require(w->n_scored == eval_n_scored(j->text) && w->n_scored > 0);
    summarise(w->scores, w->n_scored, j->reference || j->reference_file, out);
    return STATUS_OK;
}

enum status eval_run(const struct eval_job *j, struct eval_result *out, struct error *err)
{
    size_t n_all = eval_n_scored(j->text);
    int64_t begin = clock_now_ns();
    struct walk w = {.job = j, .vocab = model_config(j->ours->model)->vocab_size, .told_ns = begin};
    enum status s = STATUS_NO_MEMORY;
    *out = (struct eval_result){0};
    w.scores = mem_array(n_all, sizeof *w.scores);
    w.context = mem_array(j->text->window, sizeof *w.context);
    if (j->reference_file)
        w.from_file = mem_array(j->ours->n_logit_rows, w.vocab * sizeof *w.from_file);
    if (w.scores && w.context && (!j->reference_file || w.from_file))
        s = walk_all(&w, out, err);
    else
        fail(err, s, "scores of %zu tokens", n_all);
    out->seconds = (double)(clock_now_ns() - begin) / 1e9;
    mem_free(w.scores);
    mem_free(w.context);
    mem_free(w.from_file);
    return s;
}
