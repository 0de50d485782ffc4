/* The base's matrices in one row, and their sizes. */
#include "matrices.h"

#include <math.h>

#include "model_inner.h"

static bool linear_at(const struct model_layer *l, size_t *index, struct model_matrix *out)
{
    for (unsigned s = 0; s < N_LAYER_SITES; s++) {
        if (!l->w[s].data)
            continue;
        if (*index == 0) {
            out->kind = MATRIX_LINEAR;
            out->site = (enum lora_site)s;
            out->w = &l->w[s];
            return true;
        }
        --*index;
    }
    return false;
}

static bool expert_at(const struct model_layer *l, uint32_t n_experts, size_t *index,
                      struct model_matrix *out)
{
    size_t n = l->experts ? (size_t)3 * n_experts : 0;
    if (*index >= n) {
        *index -= n;
        return false;
    }
    out->kind = MATRIX_EXPERT;
    out->site = LORA_SITE_GATE + (enum lora_site)(*index % 3);
    out->expert = (uint32_t)(*index / 3);
    out->w = &l->experts[*index];
    return true;
}

bool model_matrix_at(const struct model *m, size_t index, struct model_matrix *out)
{
    *out = (struct model_matrix){.kind = MATRIX_EMBED, .w = &m->embed};
    if (index-- == 0)
        return true;
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        out->layer = i;
        if (linear_at(&m->layers[i], &index, out) ||
            expert_at(&m->layers[i], m->config.n_experts, &index, out))
            return true;
    }
    *out = (struct model_matrix){.kind = MATRIX_HEAD, .site = LORA_SITE_LM_HEAD, .w = &m->head};
    return index == 0 && !m->tied;
}

double matrix_norm(const struct packed *w, uint32_t n_rows, float *row)
{
    uint32_t n = n_rows == 0 || n_rows > w->rows ? w->rows : n_rows;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        packed_row_f32(w, (uint32_t)((uint64_t)i * w->rows / n), row);
        for (uint32_t k = 0; k < w->cols; k++)
            sum += (double)row[k] * row[k];
    }
    return sqrt(sum / n * w->rows);
}
