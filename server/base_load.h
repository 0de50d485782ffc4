/* The base and all that belongs to it, opened as the configuration says. Plain blocking code: workers and
 * `run`. */
#ifndef LK_BASE_LOAD_H
#define LK_BASE_LOAD_H

#include <stdint.h>

#include "base/error.h"

struct conf;
struct cost_model;
struct effect_probes;
struct kernels;
struct model;
struct text_model;
struct base_later;

/* How long the parts of opening took; tokenizer and weights are loaded at the same time. */
struct base_times {
    int64_t files_ns, text_ns, weights_ns;
};

struct base {
    char name[65]; /* how the API calls it: conf->name, or what the files say, made a valid name */
    const struct kernels *kernels;
    struct text_model *text;
    struct model *model;
    struct base_times times;
    struct base_later *later;
};

/* Zero-initialise `b` first; on failure nothing is left open. Thread: any. */
LK_MUST_USE enum status base_open(const struct conf *conf, struct base *b, struct error *err);
void base_close(struct base *b);

/* What is needed of a base later than its weights, made by the first call while others wait; *out is b's.
 * Thread: any worker. */

/* What steps cost here, measured with as many threads as the engine has. */
LK_MUST_USE enum status base_costs(const struct base *b, unsigned n_threads, const struct cost_model **out,
                                   struct error *err);
/* The effect test's built-in prompts with the base's own answers, for all loads: takes a pass of
 * the base. */
LK_MUST_USE enum status base_probes(const struct base *b, const struct effect_probes **out,
                                    struct error *err);

#endif
