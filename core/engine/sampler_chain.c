/* The samplers that cut the window of candidates or weigh it, and their table. Definitions and sources are in
 * include/engine.h. */
#include "sampler_chain.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "row_mass.h"

#define NAMES_MAX 4U

struct sampler_row {
    const char *names[NAMES_MAX]; /* the first is the name, the others are spellings */
    char letter;                  /* llama-server's short form */
    void (*apply)(struct chain *c);
};

static const struct sampler_row rows[SAMPLER_KINDS] = {
    [SAMPLER_PENALTIES] = {{"penalties"}, 'e', sample_penalties},
    [SAMPLER_TEMPERATURE] = {{"temperature", "temp"}, 't', sample_temperature},
    [SAMPLER_TOP_K] = {{"top_k"}, 'k', sample_top_k},
    [SAMPLER_TYP_P] = {{"typ_p", "typ", "typical", "typical_p"}, 'y', sample_typ_p},
    [SAMPLER_TOP_P] = {{"top_p", "nucleus"}, 'p', sample_top_p},
    [SAMPLER_MIN_P] = {{"min_p"}, 'm', sample_min_p},
    [SAMPLER_DRY] = {{"dry"}, 'd', sample_dry},
    [SAMPLER_TOP_N_SIGMA] = {{"top_n_sigma"}, 's', sample_top_n_sigma},
    [SAMPLER_XTC] = {{"xtc"}, 'x', sample_xtc},
};

static const struct sampler_order default_order = {
    .is_set = true,
    .n = SAMPLER_KINDS,
    .kinds = {SAMPLER_PENALTIES, SAMPLER_DRY, SAMPLER_TEMPERATURE, SAMPLER_TOP_N_SIGMA, SAMPLER_TOP_K,
              SAMPLER_TYP_P, SAMPLER_TOP_P, SAMPLER_MIN_P, SAMPLER_XTC}};

static bool is_spelling(const char *name, const char *given)
{
    for (; *name && (*name == *given || (*name == '_' && *given == '-')); name++)
        given++;
    return !*name && !*given;
}

bool sampler_find(const char *name, enum sampler_kind *out)
{
    for (unsigned k = 0; k < SAMPLER_KINDS; k++)
        for (unsigned i = 0; i < NAMES_MAX && rows[k].names[i]; i++)
            if (is_spelling(rows[k].names[i], name)) {
                *out = (enum sampler_kind)k;
                return true;
            }
    return false;
}

bool sampler_find_letter(char letter, enum sampler_kind *out)
{
    for (unsigned k = 0; k < SAMPLER_KINDS; k++)
        if (rows[k].letter == letter) {
            *out = (enum sampler_kind)k;
            return true;
        }
    return false;
}

const char *sampler_name(enum sampler_kind kind, char *letter)
{
    require(kind < SAMPLER_KINDS);
    *letter = rows[kind].letter;
    return rows[kind].names[0];
}

static const struct sampler_order *order_of(const struct sampling *p)
{
    return p->order.is_set ? &p->order : &default_order;
}

void chain_run(struct chain *c)
{
    const struct sampler_order *order = order_of(c->in->sampling);
    for (unsigned i = 0; i < order->n && !c->greedy; i++)
        rows[order->kinds[i]].apply(c);
}

/* ---- the window ---- */

bool chain_open(struct chain *c)
{
    int32_t id;
    if (!c->has_top)
        c->has_top = c->begin < c->end && rank_get(&c->ranking, c->begin, &c->top, &id);
    return c->has_top;
}

double chain_weight(const struct chain *c, float logit)
{
    return exp(((double)logit - (double)c->top) / c->temperature);
}

static bool is_whole(const struct chain *c)
{
    return c->begin == 0 && c->end >= c->ranking.n;
}

/* Whatever weighs less than e^-80: a whole vocabulary of them adds less than one unit of the generator's last
 * bit. */
static double least_logit(const struct chain *c)
{
    return (double)c->top - 80.0 * c->temperature;
}

/* What weights of this temperature are summed up with; 0: f32 can't divide by it. */
static float factor_of(double temperature)
{
    return temperature > 1e-3 && temperature < 1e6 ? (float)(1 / temperature) : 0;
}

/* The sums that came with the row for this factor, or NULL. */
static const double *known_sums(const struct chain *c, float factor)
{
    const struct sampler_input *in = c->in;
    if (!in->sums || c->ranking.row != in->logits || c->ranking.mask)
        return NULL;
    for (size_t i = 0; i < STEP_SUMS; i++)
        if (in->factors[i] == factor)
            return in->sums + i * n_peaks_of(c->ranking.n);
    return NULL;
}

/* -1: there is no kernel, or no factor for it. */
static double kernel_total(const struct chain *c)
{
    const struct kernels *k = c->scratch->kernels;
    const struct ranking *r = &c->ranking;
    float factor = factor_of(c->temperature);
    struct logits x = {r->row, r->peaks, NULL, r->n};
    if (!k || !k->peak_sums || !(factor > 0))
        return -1;
    if (r->mask)
        return k->sum_exp_masked(r->row, r->mask, c->top, factor, r->n);
    x.sums = known_sums(c, factor);
    return row_mass(&x, c->top, factor, k);
}

/* Of a whole vocabulary. The kernels' sum is off by less than a millionth, and not known where there is NaN
 * or a temperature that f32 can't divide by. */
static double whole_total(const struct chain *c)
{
    const struct ranking *r = &c->ranking;
    double least = least_logit(c), sum = kernel_total(c);
    float own[PEAK_VALUES];
    if (sum >= 1 && sum < INFINITY)
        return sum;
    sum = 0;
    for (uint32_t begin = 0; begin < r->n; begin += PEAK_VALUES) {
        const float *x = rank_block(r, begin, own);
        for (uint32_t i = 0; x && i < rank_block_length(r, begin); i++)
            if ((double)x[i] >= least)
                sum += chain_weight(c, x[i]);
    }
    return sum;
}

/* In id order where the window is whole, so that it need not be sorted; else in rank order. */
double chain_total(struct chain *c)
{
    if (c->total >= 0 || !chain_open(c))
        return c->total;
    double sum = 0;
    if (is_whole(c)) {
        sum = whole_total(c);
    } else {
        float logit;
        int32_t id;
        for (uint32_t i = c->begin; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++)
            sum += chain_weight(c, logit);
    }
    c->total = sum;
    return sum;
}

/* Whether the sampler makes a row of its own, or cuts the window before anybody asks for all its weights. */
static bool ends_whole_window(const struct sampling *p, enum sampler_kind kind)
{
    switch (kind) {
    case SAMPLER_PENALTIES:
        return p->repetition_penalty != 1.0F || p->presence_penalty != 0.0F || p->frequency_penalty != 0.0F;
    case SAMPLER_DRY:
        return p->dry_multiplier > 0;
    case SAMPLER_TOP_N_SIGMA:
        return p->top_n_sigma > 0;
    case SAMPLER_TOP_K:
        return p->top_k > 0;
    case SAMPLER_TYP_P:
        return p->typical_p > 0 && p->typical_p < 1;
    case SAMPLER_MIN_P:
        return p->min_p > 0;
    default:
        return false;
    }
}

/* Follows the chain with a whole window, as far as it stays one. */
float sampler_sum_factor(const struct sampling *p)
{
    const struct sampler_order *order = order_of(p);
    double temperature = 1;
    if (p->n_logit_bias || p->n_bad_words || p->allowed || p->dynatemp_range > 0 || p->mirostat == 1)
        return 0;
    if (p->mirostat)
        return ends_whole_window(p, SAMPLER_PENALTIES) ? 0 : factor_of((double)p->temperature);
    for (unsigned i = 0; i < order->n; i++) {
        enum sampler_kind kind = order->kinds[i];
        if (kind == SAMPLER_TEMPERATURE)
            temperature *= (double)p->temperature;
        if (ends_whole_window(p, kind) || temperature <= 0)
            return 0;
        if ((kind == SAMPLER_TOP_P && p->top_p < 1) || (kind == SAMPLER_XTC && p->xtc_probability > 0))
            break;
    }
    return factor_of(temperature);
}

float bounded_logit(float x)
{
    return x > FLT_MAX ? FLT_MAX : x;
}

static float tempered(const struct chain *c, float logit)
{
    return c->temperature == 1.0 ? logit : bounded_logit((float)((double)logit / c->temperature));
}

static void copy_masked(const struct ranking *r, float *own)
{
    for (uint32_t begin = 0; begin < r->n; begin += PEAK_VALUES) {
        const float *x = rank_block(r, begin, own + begin);
        uint32_t n = rank_block_length(r, begin);
        if (x && x != own + begin)
            memcpy(own + begin, x, n * sizeof *own);
        for (uint32_t i = 0; !x && i < n; i++)
            own[begin + i] = -INFINITY;
    }
}

float *chain_own_row(struct chain *c)
{
    float *own = c->scratch->logits, logit;
    const float *row = c->ranking.row;
    uint32_t n = c->ranking.n;
    int32_t id;
    if (is_whole(c)) {
        if (c->ranking.mask)
            copy_masked(&c->ranking, own);
        else if (row != own)
            memcpy(own, row, n * sizeof *own);
        for (uint32_t i = 0; i < n && c->temperature != 1.0; i++)
            own[i] = tempered(c, own[i]);
    } else {
        for (uint32_t i = 0; i < n; i++)
            own[i] = -INFINITY;
        /* The keys hold the logits: rank_get reads the row only where it isn't sorted yet. */
        for (uint32_t i = c->begin; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++)
            own[id] = tempered(c, logit);
    }
    c->ranking.row = own;
    c->ranking.peaks = NULL;
    c->ranking.mask = NULL;
    c->ranking.n_sorted = 0;
    c->ranking.last = 0;
    c->ranking.complete = false;
    c->begin = 0;
    c->end = n;
    c->temperature = 1;
    c->has_top = false;
    c->total = -1;
    return own;
}

/* What min_keep leaves at least. */
static uint32_t n_kept_least(const struct chain *c)
{
    uint32_t n = c->in->sampling->min_keep;
    return n > 1 ? n : 1;
}

/* ---- temperature, top_k, top_p, min_p ---- */

/* The lowest index among equals, as argmax of the whole row. */
static uint32_t best_of_row(const struct chain *c)
{
    const float *row = c->ranking.row, *peaks = c->ranking.peaks;
    uint32_t n = c->ranking.n;
    if (c->ranking.mask)
        return (uint32_t)rank_best(&c->ranking); /* -1 is behind the row */
    if (!peaks)
        return c->scratch->argmax(row, n);
    uint32_t begin = c->scratch->argmax(peaks, n_peaks_of(n)) * PEAK_VALUES;
    return begin + c->scratch->argmax(row + begin, n - begin < PEAK_VALUES ? n - begin : PEAK_VALUES);
}

static double scaled(const struct chain *c, float logit)
{
    return ((double)logit - (double)c->top) / c->temperature;
}

static void add_scaled(const struct chain *c, float logit, double least, double *sum, double *sum_a)
{
    if (!((double)logit >= least))
        return;
    double a = scaled(c, logit), w = exp(a);
    *sum += w;
    *sum_a += w * a;
}

/* The mean of a, weighted; the sum of the weights too. */
static double weighted_mean(struct chain *c, double *total)
{
    double sum = 0, sum_a = 0;
    if (is_whole(c)) {
        double least = least_logit(c);
        float own[PEAK_VALUES];
        for (uint32_t begin = 0; begin < c->ranking.n; begin += PEAK_VALUES) {
            const float *x = rank_block(&c->ranking, begin, own);
            for (uint32_t i = 0; x && i < rank_block_length(&c->ranking, begin); i++)
                add_scaled(c, x[i], least, &sum, &sum_a);
        }
    } else {
        float logit;
        int32_t id;
        for (uint32_t i = c->begin; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++) {
            double a = scaled(c, logit), w = exp(a);
            sum += w;
            sum_a += w > 0 ? w * a : 0;
        }
    }
    *total = sum;
    return sum_a / sum;
}

/* How many candidates the window has. */
static uint32_t n_candidates(struct chain *c)
{
    float logit;
    int32_t id;
    uint32_t n = 0;
    if (is_whole(c)) {
        float own[PEAK_VALUES];
        for (uint32_t begin = 0; begin < c->ranking.n; begin += PEAK_VALUES) {
            const float *x = rank_block(&c->ranking, begin, own);
            for (uint32_t i = 0; x && i < rank_block_length(&c->ranking, begin); i++)
                n += x[i] > -INFINITY;
        }
        return n;
    }
    while (c->begin + n < c->end && rank_get(&c->ranking, c->begin + n, &logit, &id))
        n++;
    return n;
}

static double dynamic_temperature(struct chain *c, double t)
{
    const struct sampling *p = c->in->sampling;
    double range = (double)p->dynatemp_range, least = t > range ? t - range : 0, total;
    uint32_t n = n_candidates(c);
    if (n < 2 || !chain_open(c))
        return t;
    double mean = weighted_mean(c, &total), entropy = log(total) - mean;
    double share = entropy / log(n); /* rounding may leave it a little outside of 0 to 1 */
    share = share > 0 ? share < 1 ? share : 1 : 0;
    return least + (t + range - least) * pow(share, (double)p->dynatemp_exponent);
}

void sample_temperature(struct chain *c)
{
    double t = (double)c->in->sampling->temperature;
    if (c->in->sampling->dynatemp_range > 0)
        t = dynamic_temperature(c, t);
    if (t > 0) {
        c->temperature *= t;
        c->total = -1;
        return;
    }
    const float *row = c->ranking.row;
    c->greedy = true;
    if (is_whole(c) && c->ranking.n_sorted == 0) {
        uint32_t best = best_of_row(c);
        if (best < c->ranking.n && row[best] > -INFINITY)
            rank_only(&c->ranking, best);
        else
            c->end = 0;
    }
}

void sample_top_k(struct chain *c)
{
    int32_t k = c->in->sampling->top_k;
    if (k <= 0 || (uint32_t)k >= c->end - c->begin)
        return;
    if (c->ranking.n_sorted == 0)
        rank_more(&c->ranking, (uint32_t)k);
    c->end = c->begin + (uint32_t)k;
    c->total = -1;
}

void sample_top_p(struct chain *c)
{
    double p = (double)c->in->sampling->top_p, sum = 0, mass;
    if (p >= 1 || (mass = chain_total(c)) < 0)
        return;
    uint32_t i = c->begin, least = n_kept_least(c);
    float logit;
    int32_t id;
    for (; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++) {
        if (i - c->begin >= least && sum >= p * mass)
            break;
        sum += chain_weight(c, logit);
    }
    c->end = i;
    c->total = sum;
}

void sample_min_p(struct chain *c)
{
    double p = (double)c->in->sampling->min_p, sum = 0;
    if (p <= 0 || !chain_open(c))
        return;
    uint32_t i = c->begin, least = n_kept_least(c);
    float logit;
    int32_t id;
    for (; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++) {
        double w = chain_weight(c, logit); /* of the first: 1 */
        if (i - c->begin >= least && w < p)
            break;
        sum += w;
    }
    c->end = i;
    c->total = sum;
}

/* ---- typ_p ----
 *
 * With a = (logit - top) / temperature, log p = a - log Z and the entropy is log Z - mean of a, so that the
 * distance of -log p to the entropy is |a - mean|: the most typical set grows from the mean to both sides. */

struct typical {
    uint32_t lo, hi, least; /* the window [lo, hi) so far */
    double mean, sum, enough;
};

static bool needs_more(const struct typical *t)
{
    return t->sum < t->enough || t->hi - t->lo < t->least;
}

/* Takes equals above the window, the lowest ids first as everywhere. */
static void take_above(struct chain *c, struct typical *t, float logit)
{
    uint32_t end = t->lo, begin = end - 1, n = 0;
    double w = chain_weight(c, logit);
    while (begin > c->begin && key_logit(c->ranking.keys[begin - 1]) == logit)
        begin--;
    while (t->lo > begin && needs_more(t)) {
        t->sum += w;
        t->lo--;
        n++;
    }
    if (t->lo > begin)
        rank_move_back(&c->ranking, begin, end, n);
}

void sample_typ_p(struct chain *c)
{
    double p = (double)c->in->sampling->typical_p, total;
    if (!(p > 0 && p < 1) || !chain_open(c))
        return;
    struct typical t = {.least = n_kept_least(c), .lo = c->begin};
    float logit = 0;
    int32_t id;
    t.mean = weighted_mean(c, &total);
    t.enough = p * total;
    while (t.lo < c->end && rank_get(&c->ranking, t.lo, &logit, &id) && scaled(c, logit) >= t.mean)
        t.lo++;
    t.hi = t.lo;
    while (needs_more(&t)) {
        bool below = t.hi < c->end && rank_get(&c->ranking, t.hi, &logit, &id);
        float above = t.lo > c->begin ? key_logit(c->ranking.keys[t.lo - 1]) : INFINITY;
        if (t.lo > c->begin && (!below || scaled(c, above) - t.mean <= t.mean - scaled(c, logit))) {
            take_above(c, &t, above);
        } else if (below) {
            t.sum += chain_weight(c, logit);
            t.hi++;
        } else {
            break;
        }
    }
    c->begin = t.lo;
    c->end = t.hi;
    c->has_top = false;
    c->total = -1;
}

/* ---- top_n_sigma, xtc ---- */

struct moments {
    double mean, sum, sum_squares;
    uint32_t n;
};

static void add_moment(struct moments *m, float logit)
{
    if (!(logit > -INFINITY))
        return;
    double d = (double)logit - m->mean;
    m->sum += d;
    m->sum_squares += d * d;
    m->n++;
}

/* Around `mean`. */
static struct moments moments_around(struct chain *c, double mean)
{
    struct moments m = {.mean = mean};
    float own[PEAK_VALUES], logit;
    int32_t id;
    if (!is_whole(c)) {
        for (uint32_t i = c->begin; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++)
            add_moment(&m, logit);
        return m;
    }
    for (uint32_t begin = 0; begin < c->ranking.n; begin += PEAK_VALUES) {
        const float *x = rank_block(&c->ranking, begin, own);
        for (uint32_t i = 0; x && i < rank_block_length(&c->ranking, begin); i++)
            add_moment(&m, x[i]);
    }
    return m;
}

/* The deviation of the window's logits from their mean. */
static double logit_deviation(struct chain *c)
{
    struct moments m = moments_around(c, 0);
    m = moments_around(c, m.n ? m.sum / m.n : 0);
    return m.n ? sqrt(m.sum_squares / m.n) : 0;
}

void sample_top_n_sigma(struct chain *c)
{
    double n = (double)c->in->sampling->top_n_sigma, sum = 0;
    if (n <= 0 || !chain_open(c))
        return;
    double least = (double)c->top - n * logit_deviation(c);
    uint32_t i = c->begin;
    float logit;
    int32_t id;
    for (; i < c->end && rank_get(&c->ranking, i, &logit, &id) && (double)logit >= least; i++)
        sum += chain_weight(c, logit);
    c->end = i;
    c->total = sum;
}

void sample_xtc(struct chain *c)
{
    const struct sampling *p = c->in->sampling;
    float logit;
    int32_t id;
    if (p->xtc_probability <= 0 || p->xtc_threshold > 0.5F)
        return;
    double u =
        rng_unit(c->rng); /* drawn whether anything goes or not: a token takes the same number of draws */
    if (u >= (double)p->xtc_probability || !chain_open(c))
        return;
    double least = (double)p->xtc_threshold * chain_total(c);
    uint32_t i = c->begin;
    while (i < c->end && rank_get(&c->ranking, i, &logit, &id) && chain_weight(c, logit) >= least)
        i++;
    if (i < c->begin + 2 || !rank_get(&c->ranking, i - 2 + n_kept_least(c), &logit, &id) ||
        i - 2 + n_kept_least(c) >= c->end)
        return;
    c->begin = i - 1;
    c->has_top = false;
    c->total = -1;
}
