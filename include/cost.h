/* What a step costs on this machine, with an adapter beside the base and on a merged copy: measured
 * constants, sums over a model's matrices, and the choice between the two. It predicts time only; no numbers
 * of a model depend on it but through the choice. */
#ifndef LK_COST_H
#define LK_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/team.h"
#include "model.h"

#define COST_ROW_POINTS 6U
#define COST_RANK_POINTS 3U
/* Rows of a step, and ranks, at which is measured; between them lines, beyond the last proportional. */
#define COST_ROWS_AT                                                                                         \
    {                                                                                                        \
        1, 2, 4, 8, 16, 32                                                                                   \
    }
#define COST_RANKS_AT                                                                                        \
    {                                                                                                        \
        8, 64, 256                                                                                           \
    }

/* Nanoseconds of a team of this size, weights streaming from memory as far as the base's do. A plain value.
 */
struct cost_model {
    unsigned n_workers;
    double barrier_ns;
    double weight_ns[DTYPE_COUNT][COST_ROW_POINTS];     /* of one weight of W x; 0: not measured */
    double panel_ns[COST_RANK_POINTS][COST_ROW_POINTS]; /* of 16 rows of a bf16 B, y += scale * B t */
    int64_t spent_ns;                                   /* on measuring */
};

#define COST_BUDGET_NS (140 * 1000 * 1000LL)

/* Measures with the kernels and types of `base`, on `team` (the size that the engine's will have; free
 * meanwhile), in about budget_ns (down to an eighth for a small base): at start-up, while the machine has
 * nothing else to do (processor time is counted, so others disturb it only through the memory that they
 * read). The base is not read. Thread: any. STATUS_NO_MEMORY: no room for stand-in weights: twice
 * the last cache, at most 128 MiB. */
LK_MUST_USE enum status cost_measure(const struct model *base, struct team *team, int64_t budget_ns,
                                     struct cost_model *out, struct error *err);

/* A step of n_rows decoding rows on `m`, all with the adapter `l` beside it, or without one (NULL; on a
 * merged copy always). What both ways have in common is left out: attention, norms, sampling. */
double cost_step_ns(const struct cost_model *c, const struct model *m, const struct lora *l, uint32_t n_rows);
/* The same on a copy of `base` with `l` inside, stored as `type`, that doesn't exist yet. */
double cost_merged_ns(const struct cost_model *c, const struct model *base, const struct lora *l,
                      enum dtype type, uint32_t n_rows);

/* cost_step_ns over all numbers of rows. */
struct cost_curve {
    double ns[COST_ROW_POINTS];
};
void cost_curve(const struct cost_model *c, const struct model *m, const struct lora *l,
                struct cost_curve *out);
static inline double cost_curve_at(const struct cost_curve *c, double n_rows)
{
    static const uint32_t rows[] = COST_ROWS_AT;
    uint32_t i = 1;
    if (n_rows >= rows[COST_ROW_POINTS - 1])
        return c->ns[COST_ROW_POINTS - 1] * n_rows / rows[COST_ROW_POINTS - 1];
    while (n_rows > rows[i])
        i++;
    double t = (n_rows - rows[i - 1]) / (rows[i] - rows[i - 1]);
    return c->ns[i - 1] + (t > 0 ? t : 0) * (c->ns[i] - c->ns[i - 1]);
}

/* ---- the choice ---- */

/* A copy is faithful if what storing it rounds away is at most this share of what the adapter adds, as norms
 * over all merged matrices. docs/EVAL.md: at 20 % a merged adapter is as far from itself unmerged (mean KL
 * 0.007) as --quant q8_0 of the base is (0.004), and 97 % of the likeliest tokens are the same; on a 4-bit
 * grid, near 100 %, nine tenths of the adapter are lost. The rounding is noise that hardly points along the
 * adapter (0.13 % of it lost at 20 %), so a quarter in norm is a sixteenth in energy. */
#define MERGE_ERROR_MAX 0.25
bool cost_is_faithful(const struct merge_report *r);

/* A copy takes memory, so auto wants it to save at least this share of all step time. */
#define MERGE_GAIN_MIN 0.02

struct cost_load {
    double share;  /* of steps whose rows all want the adapter, 0 to 1 */
    double n_rows; /* rows of such a step, on average */
};
struct cost_choice {
    bool merge;                    /* a copy of this type is faster, and gains enough */
    enum dtype type;               /* the best of those not refused; meaningful without `merge`, too */
    bool none;                     /* all types are refused: there is no faithful copy */
    double unmerged_ns, merged_ns; /* of a step of load.n_rows rows */
    double ratio;                  /* merged_ns / unmerged_ns: below 1 the copy is faster */
    double gain;                   /* share of all step time that the copy saves: load.share * (1 - ratio) */
};
/* Which copy of `base` with `l` inside is worth having. Types on offer: bf16 and Q8_0 (with scales of its
 * own), on an f32 base f32 and bf16. The fastest is taken, among equals (within 5 %) that of fewer bytes;
 * whether it is faithful shows its report when it is made: if it isn't, free it and choose again with that
 * type refused. refused: bits 1 << type. */
void cost_choose(const struct cost_model *c, const struct model *base, const struct lora *l,
                 const struct cost_load *load, unsigned refused, struct cost_choice *out);

#endif
