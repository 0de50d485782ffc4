/* Embeddings: generations that want the hidden states of their prompt and no token. They share steps with all
 * others. States are added up in the order of positions, in doubles, so that chunks, pauses and company don't
 * show in the sum. */
#include <math.h>

#include "engine_inner.h"

static enum pooling pooling_of(const struct row *r)
{
    return r->sequence->submission->g.pooling;
}

enum step_rows engine_pooling(const struct engine *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_rows; i++)
        n += pooling_of(&e->rows[i]) != POOLING_NONE;
    return n == 0 ? STEP_LOGITS : n == e->n_rows && !e->n_followers ? STEP_HIDDEN : STEP_LOGITS_AND_HIDDEN;
}

void engine_pool(struct engine *e)
{
    uint32_t hidden = model_config(e->model)->hidden_size;
    for (uint32_t i = 0; i < e->n_rows; i++) {
        const float *h = step_hidden(e->space) + (size_t)i * hidden;
        double *pooled = e->rows[i].sequence->submission->g.pooled;
        for (uint32_t k = 0; pooling_of(&e->rows[i]) != POOLING_NONE && k < hidden; k++)
            pooled[k] += (double)h[k];
    }
}

void engine_end_pooled(struct engine *e, struct sequence *q)
{
    const struct generation *g = &q->submission->g;
    struct error err;
    bool finite = true;
    if (++q->n_scored < g->n_prompt && g->pooling == POOLING_MEAN)
        return;
    for (uint32_t k = 0; k < model_config(e->model)->hidden_size; k++)
        finite &= isfinite(g->pooled[k]) != 0;
    if (!finite)
        fail(&err, STATUS_INTERNAL, "the model gave no finite hidden states for %u tokens", g->n_prompt);
    engine_end_sequence(e, q, FINISH_LENGTH, finite ? NULL : &err);
}
