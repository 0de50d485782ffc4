/* Rotary position embedding: frequencies of each kind of scaling, and cos/sin of a position (RoFormer, arXiv
 * 2104.09864). The formulas are those of transformers' modeling_rope_utils.py; frequencies and angles are
 * float there, so they are here: the angle of a late position would differ visibly in double.
 *
 * Angles are a function of the position, but for two kinds, which look at the sequence's length. Neither sees
 * how a prompt was cut into chunks, and both give what transformers' generate() gives:
 *
 *   longrope   the long factors for all positions of a sequence longer than the original context. A sequence
 *              that grows past it is computed again from its start (model_length_limit), as Phi3 does there.
 *   dynamic    beyond the trained length, frequencies for the whole prompt's length, and for a generated
 *              token for the length that it makes; K and V of tokens before it stay as they were.
 *              (transformers keeps those of the longest sequence that it has seen; here each stands alone.)
 */
#include <math.h>

#include "model_inner.h"

#define TWO_PI 6.283185307179586

static void plain_frequencies(struct rope *r, double theta)
{
    uint32_t n_rot = 2 * r->n_half;
    for (uint32_t i = 0; i < r->n_half; i++)
        r->inv_freq[i] = 1.0F / powf((float)theta, (float)(2 * i) / (float)n_rot);
}

/* Llama 3.1: long wavelengths are stretched, short ones kept, those between blended. */
static void llama3_frequencies(struct rope *r, const struct rope_config *c)
{
    double low_wavelength = c->original_max_position / c->low_freq_factor;
    double high_wavelength = c->original_max_position / c->high_freq_factor;
    for (uint32_t i = 0; i < r->n_half; i++) {
        double f = r->inv_freq[i], wavelength = TWO_PI / f;
        double smooth = (c->original_max_position / wavelength - c->low_freq_factor) /
                        (c->high_freq_factor - c->low_freq_factor);
        if (wavelength > low_wavelength)
            f /= c->factor;
        else if (wavelength >= high_wavelength)
            f = (1 - smooth) * f / c->factor + smooth * f;
        r->inv_freq[i] = (float)f;
    }
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

/* The (fractional) pair that turns n_rotations times within the trained length; YaRN, arXiv 2309.00071, 3.2.
 */
static double yarn_dim(const struct rope_config *c, double n_rot, double n_rotations)
{
    return n_rot * log(c->original_max_position / (n_rotations * TWO_PI)) / (2 * log(c->theta));
}

static void yarn_frequencies(struct rope *r, const struct rope_config *c)
{
    double n_rot = 2.0 * r->n_half;
    double low = yarn_dim(c, n_rot, c->beta_fast > 0 ? c->beta_fast : 32);
    double high = yarn_dim(c, n_rot, c->beta_slow > 0 ? c->beta_slow : 1);
    if (c->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, n_rot - 1);
    if (low == high)
        high += 0.001;
    for (uint32_t i = 0; i < r->n_half; i++) {
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
        double f = r->inv_freq[i];
        r->inv_freq[i] = (float)(f / c->factor * ramp + f * (1 - ramp));
    }
    if (c->attention_factor > 0)
        r->scale = (float)c->attention_factor;
    else if (c->mscale != 0 && c->mscale_all_dim != 0)
        r->scale = (float)(yarn_mscale(c->factor, c->mscale) / yarn_mscale(c->factor, c->mscale_all_dim));
    else
        r->scale = (float)yarn_mscale(c->factor, 1);
}

/* Divisors that the file spells out (GGUF's rope_freqs) take the place of Llama 3's formula: they are its
 * result. */
static bool has_divisors(const struct rope_config *c)
{
    return c->type == ROPE_LLAMA3 && c->n_factors > 0;
}

static enum status check(const struct rope_config *c, const struct rope *r, uint32_t head_dim,
                         struct error *err)
{
    if (r->n_half == 0 || r->n_half > ROPE_HALF_MAX)
        return fail(err, STATUS_UNSUPPORTED,
                    "rope: %u of %u values of a head are rotated, expected 2 to %u of them", 2 * r->n_half,
                    head_dim, 2 * ROPE_HALF_MAX);
    if (!(c->theta > 1) || !isfinite(c->theta))
        return fail(err, STATUS_INVALID, "rope_theta is %g, expected a number above 1", c->theta);
    if (c->n_factors != 0 && c->n_factors != r->n_half)
        return fail(err, STATUS_MISMATCH, "rope: %u frequency factors, expected %u", c->n_factors, r->n_half);
    for (uint32_t i = 0; i < c->n_factors; i++)
        if (!(c->long_factors[i] > 0) || !isfinite(c->long_factors[i]))
            return fail(err, STATUS_INVALID, "rope: frequency factor %u is %g, expected a number above 0", i,
                        (double)c->long_factors[i]);
    if (has_divisors(c))
        return STATUS_OK;
    if (c->type != ROPE_DEFAULT && (!(c->factor > 0) || !isfinite(c->factor)))
        return fail(err, STATUS_INVALID, "rope scaling: factor is %g, expected a number above 0", c->factor);
    if ((c->type == ROPE_LLAMA3 || c->type == ROPE_YARN || c->type == ROPE_LONGROPE) &&
        !(c->original_max_position > 0))
        return fail(err, STATUS_INVALID, "rope scaling: original_max_position_embeddings is missing");
    if (c->type == ROPE_LLAMA3 && !(c->low_freq_factor > 0 && c->high_freq_factor > c->low_freq_factor))
        return fail(err, STATUS_INVALID,
                    "rope scaling: low_freq_factor %g and high_freq_factor %g, expected 0 < low < high",
                    c->low_freq_factor, c->high_freq_factor);
    if (c->type == ROPE_LONGROPE && c->n_factors == 0)
        return fail(err, STATUS_INVALID, "rope scaling: longrope has no long and short factors");
    for (uint32_t i = 0; c->type == ROPE_LONGROPE && i < c->n_factors; i++)
        if (!(c->short_factors[i] > 0) || !isfinite(c->short_factors[i]))
            return fail(err, STATUS_INVALID,
                        "rope: short frequency factor %u is %g, expected a number above 0", i,
                        (double)c->short_factors[i]);
    return STATUS_OK;
}

/* LongRoPE (arXiv 2402.13753) as transformers has it: divisors for either length, and one factor on cos and
 * sin from the ratio of the context lengths. */
static void longrope_frequencies(struct rope *r, const struct rope_config *c)
{
    r->max_position = c->original_max_position;
    for (uint32_t i = 0; i < r->n_half; i++) {
        float power = powf((float)c->theta, (float)(2 * i) / (float)(2 * r->n_half));
        r->inv_freq[i] = 1.0F / (c->short_factors[i] * power);
        r->long_freq[i] = 1.0F / (c->long_factors[i] * power);
    }
    if (c->attention_factor > 0)
        r->scale = (float)c->attention_factor;
    else if (c->factor > 1)
        r->scale = (float)sqrt(1 + log(c->factor) / log(c->original_max_position));
}

enum status rope_init(struct rope *r, const struct rope_config *c, uint32_t head_dim, uint32_t max_position,
                      struct error *err)
{
    double share = c->partial_factor > 0 && c->partial_factor <= 1 ? c->partial_factor : 1;
    *r = (struct rope){.type = c->type,
                       .n_half = (uint32_t)(head_dim * share) / 2,
                       .scale = 1,
                       .theta = c->theta,
                       .factor = c->factor,
                       .max_position = max_position};
    enum status status = check(c, r, head_dim, err);
    if (status != STATUS_OK)
        return status;
    plain_frequencies(r, c->theta);
    if (c->type == ROPE_LINEAR)
        for (uint32_t i = 0; i < r->n_half; i++)
            r->inv_freq[i] /= (float)c->factor;
    else if (c->type == ROPE_LLAMA3 && !has_divisors(c))
        llama3_frequencies(r, c);
    else if (c->type == ROPE_YARN)
        yarn_frequencies(r, c);
    else if (c->type == ROPE_LONGROPE)
        longrope_frequencies(r, c);
    for (uint32_t i = 0; has_divisors(c) && i < c->n_factors; i++)
        r->inv_freq[i] /= c->long_factors[i];
    return STATUS_OK;
}

void rope_row(const struct rope *r, uint32_t position, struct rope_length length, float *cos_out,
              float *sin_out)
{
    uint32_t n_rot = 2 * r->n_half, seen = length.n_prompt > position ? length.n_prompt : position + 1;
    bool stretched = r->type == ROPE_DYNAMIC && seen > r->max_position && n_rot > 2;
    bool is_long = r->type == ROPE_LONGROPE && length.n_known > r->max_position;
    const float *freq = is_long ? r->long_freq : r->inv_freq;
    float theta = 0;
    if (stretched) {
        double growth = r->factor * seen / r->max_position - (r->factor - 1);
        theta = (float)(r->theta * pow(growth, n_rot / (n_rot - 2.0)));
    }
    for (uint32_t i = 0; i < r->n_half; i++) {
        float f = stretched ? 1.0F / powf(theta, (float)(2 * i) / (float)n_rot) : freq[i];
        float angle = (float)position * f;
        cos_out[i] = cosf(angle) * r->scale;
        sin_out[i] = sinf(angle) * r->scale;
    }
}
