/* The scratch of steps, allocated once, and the plan that lays a batch out in it. Owner: engine thread. */
#include "step.h"

#include "base/mem.h"

/* ---- allocation ---- */

/* count * each * item_bytes, remembered for the end; NULL when memory is short or the product overflows. */
static void *block(struct step_space *s, size_t count, size_t each, size_t item_bytes)
{
    size_t n;
    require(s->n_blocks < STEP_BLOCKS_MAX);
    if (!size_mul(count, each, &n) || !size_mul(n, item_bytes, &n))
        return NULL;
    return s->blocks[s->n_blocks++] = mem_aligned(64, n);
}

static bool any_quantized(const struct model *m)
{
    bool any = dtype_is_quantized(m->head.type);
    for (uint32_t i = 0; i < m->config.n_layers; i++)
        for (unsigned site = 0; site < N_LAYER_SITES; site++)
            any = any || dtype_is_quantized(m->layers[i].w[site].type);
    for (uint32_t i = 0; i < m->config.n_layers; i++)
        for (uint32_t e = 0; m->layers[i].experts && e < 3 * m->config.n_experts; e++)
            any = any || dtype_is_quantized(m->layers[i].experts[e].type);
    return any;
}

/* Rows that a matrix product may have: those of sparse layers are pairs of a row and an expert. */
static size_t products_max(const struct step_space *s)
{
    size_t n = (size_t)s->n_tokens_max * (s->m->config.n_experts ? s->m->config.n_experts_used : 1);
    return n > s->n_logit_rows_max ? n : s->n_logit_rows_max;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static bool has_room_for(const struct step_space *s, const struct model *m)
{
    return s->in || m->kernels->act_mode != ACT_MODE_INT8 || !any_quantized(m);
}

static void allocate_int8(struct step_space *s)
{
    const struct model_config *c = &s->m->config;
    size_t n = products_max(s), n_alone = (size_t)team_size(s->team) * STEP_ALONE_ROWS;
    uint32_t cols = larger(s->m->q_dim, larger(c->intermediate_size, c->expert_intermediate_size));
    s->alone_in = block(s, n_alone, acts_stride(c->hidden_size), sizeof *s->alone_in);
    s->mid = block(s, n, acts_stride(cols), sizeof *s->mid);
    s->in = block(s, n, acts_stride(c->hidden_size), sizeof *s->in);
}

static void allocate_experts(struct step_space *s)
{
    const struct model_config *c = &s->m->config;
    size_t n = s->n_tokens_max, n_pairs = n * c->n_experts_used;
    s->route = block(s, n, c->n_experts, sizeof(float));
    s->pick = block(s, n_pairs, 1, sizeof *s->pick);
    s->pick_weight = block(s, n_pairs, 1, sizeof *s->pick_weight);
    s->pair_of = block(s, n_pairs, 1, sizeof *s->pair_of);
    s->pair_row = block(s, n_pairs, 1, sizeof *s->pair_row);
    s->expert_begin = block(s, (size_t)c->n_experts + 1, 1, sizeof *s->expert_begin);
    s->expert_segment = block(s, (size_t)c->n_experts + 1, 1, sizeof *s->expert_segment);
    s->pair_segments = block(s, n_pairs, 1, sizeof *s->pair_segments);
    s->expert_next = block(s, c->n_experts, 1, sizeof *s->expert_next);
    s->pair = block(s, n_pairs, c->hidden_size, sizeof(float));
}

static bool allocate_activations(struct step_space *s)
{
    const struct model *m = s->m;
    const struct model_config *c = &m->config;
    size_t n = s->n_tokens_max, n_logits = s->n_logit_rows_max;
    s->x = block(s, n, c->hidden_size, sizeof(float));
    s->h = block(s, n, c->hidden_size, sizeof(float));
    s->y = block(s, n, c->hidden_size, sizeof(float));
    size_t n_alone = (size_t)team_size(s->team) * STEP_ALONE_ROWS;
    s->alone_x = block(s, n_alone, c->hidden_size, sizeof(float));
    s->alone_h = block(s, n_alone, c->hidden_size, sizeof(float));
    s->alone_y = block(s, n_alone, c->hidden_size, sizeof(float));
    s->q = block(s, n, m->q_dim, sizeof(float));
    s->k = block(s, n, m->kv_dim, sizeof(float));
    s->v = block(s, n, m->kv_dim, sizeof(float));
    s->att = block(s, n, m->q_dim, sizeof(float));
    size_t ffn = (size_t)(c->n_experts ? c->n_experts_used : 0) * c->expert_intermediate_size;
    ffn = ffn > c->intermediate_size ? ffn : c->intermediate_size;
    s->gate = block(s, n, ffn, sizeof(float));
    s->up = block(s, n, ffn, sizeof(float));
    for (int i = 0; i < 2 && m->rope[i].n_half > 0; i++) {
        s->cos[i] = block(s, n, m->rope[i].n_half, sizeof(float));
        s->sin[i] = block(s, n, m->rope[i].n_half, sizeof(float));
    }
    s->final = block(s, n_logits, c->hidden_size, sizeof(float));
    s->logits = block(s, n_logits, c->vocab_size, sizeof(float));
    s->peaks = block(s, n_logits, n_peaks_of(c->vocab_size), sizeof(float));
    s->sums = block(s, n_logits * STEP_SUMS, n_peaks_of(c->vocab_size), sizeof(double));
    if (c->n_experts)
        allocate_experts(s);
    if (!has_room_for(s, m))
        allocate_int8(s);
    for (uint32_t i = 0; i < s->n_blocks; i++)
        if (!s->blocks[i])
            return false;
    return true;
}

static bool allocate_plan(struct step_space *s)
{
    size_t n = s->n_tokens_max, n_seqs = s->n_seqs_max;
    uint32_t n_before = s->n_blocks;
    s->token = block(s, n, 1, sizeof *s->token);
    s->position = block(s, n, 1, sizeof *s->position);
    s->length = block(s, n, 1, sizeof *s->length);
    s->row_page = block(s, n, 1, sizeof *s->row_page);
    s->context = block(s, n, 1, sizeof *s->context);
    s->row_lora = block(s, n, 1, sizeof(const struct lora *));
    s->row_replacing = block(s, n, 1, sizeof(const struct lora *));
    s->seq_pages = block(s, n_seqs, 1, sizeof *s->seq_pages);
    s->first_row = block(s, n_seqs, 2, sizeof *s->first_row);
    s->placed = block(s, n_seqs, 2, sizeof *s->placed);
    s->logit_row = block(s, s->n_logit_rows_max, 1, sizeof *s->logit_row);
    s->factors = block(s, s->n_logit_rows_max, 1, sizeof *s->factors);
    s->segments = block(s, n_seqs, 2, sizeof *s->segments);
    s->head_segments = block(s, n_seqs, 2, sizeof *s->head_segments);
    s->claims = block(s, (size_t)s->m->config.n_layers * N_LAYER_CLAIMS + 1, 1, sizeof *s->claims);
    for (uint32_t i = n_before; i < s->n_blocks; i++)
        if (!s->blocks[i])
            return false;
    /* calloc's memory is given by the system as it is touched: most sequences never reach the longest
     * context. */
    size_t n_pages;
    s->pages = size_mul(n_seqs, s->pages_per_seq_max, &n_pages) ? mem_array(n_pages, sizeof *s->pages) : NULL;
    return s->pages != NULL;
}

enum status step_space_create(const struct model *m, const struct kv_shape *kv, uint32_t n_tokens_max,
                              uint32_t n_seqs_max, uint32_t n_logit_rows_max, struct team *team,
                              struct step_space **out, struct error *err)
{
    *out = NULL;
    require(n_tokens_max > 0 && n_seqs_max > 0 && n_logit_rows_max > 0 && team);
    struct step_space *s = mem_zalloc(sizeof *s);
    if (!s)
        return fail(err, STATUS_NO_MEMORY, "scratch of a step");
    s->m = m;
    s->team = team;
    s->kv = *kv;
    s->n_tokens_max = n_tokens_max;
    s->n_seqs_max = n_seqs_max;
    s->n_logit_rows_max = n_logit_rows_max;
    s->pages_per_seq_max = (m->config.max_position + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    if (!allocate_activations(s) || !allocate_plan(s) || !attend_plan_create(s)) {
        step_space_destroy(s);
        return fail(err, STATUS_NO_MEMORY, "scratch of a step of %u tokens and %u rows of logits",
                    n_tokens_max, n_logit_rows_max);
    }
    *out = s;
    return STATUS_OK;
}

void step_space_destroy(struct step_space *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_blocks; i++)
        mem_free(s->blocks[i]);
    attend_plan_destroy(s->attend);
    mem_free(s->pages);
    mem_free(s->t);
    mem_free(s->clocks);
    mem_free(s);
}

enum status step_reserve_rank(struct step_space *s, uint32_t t_max, struct error *err)
{
    if (t_max <= s->t_max)
        return STATUS_OK;
    size_t n, n_rows = products_max(s);
    float *t = size_mul(n_rows, t_max, &n) && size_mul(n, sizeof *t, &n) ? mem_aligned(64, n) : NULL;
    if (!t)
        return fail(err, STATUS_NO_MEMORY, "scratch for adapters of stacked rank %u and %zu rows", t_max,
                    n_rows);
    mem_free(s->t);
    s->t = t;
    s->t_max = t_max;
    return STATUS_OK;
}

/* A copy may have quantised matrices where the base has none. */
enum status step_reserve_model(struct step_space *s, const struct model *m, struct error *err)
{
    require(m == s->m || m->base == s->m);
    if (has_room_for(s, m))
        return STATUS_OK;
    uint32_t n_before = s->n_blocks;
    allocate_int8(s);
    if (s->in && s->mid && s->alone_in)
        return STATUS_OK;
    while (s->n_blocks > n_before)
        mem_free(s->blocks[--s->n_blocks]);
    s->in = NULL;
    return fail(err, STATUS_NO_MEMORY, "scratch of rounded activations for a merged copy");
}

/* ---- the plan ---- */

static void check_seq(const struct step_space *s, const struct batch_seq *q)
{
    require(q->n_tokens > 0 && q->n_tokens <= s->n_tokens_max && q->logits_begin <= q->n_tokens);
    require((uint64_t)q->position + q->n_tokens <= s->m->config.max_position);
    require(!q->lora || (q->lora->model == s->now && q->lora->t_max <= s->t_max));
    for (uint32_t i = 0; i < q->n_tokens; i++)
        require(q->tokens[i] >= 0 && (uint32_t)q->tokens[i] < s->m->config.vocab_size);
}

/* Page tables of all sequences, one after another. */
static void place_pages(struct step_space *s, const struct kv_cache *kv)
{
    size_t n_pages = 0;
    for (uint32_t i = 0; i < s->batch->n_seqs; i++) {
        const struct batch_seq *q = &s->batch->seqs[i];
        uint32_t n = (q->position + q->n_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
        s->seq_pages[i] = (const uint8_t *const *)(s->pages + n_pages);
        for (uint32_t k = 0; k < n; k++)
            s->pages[n_pages++] = kv_page_data(kv, q->pages[k]);
    }
}

/* A sequence's tokens in two parts: before its adapter acts (on the base) and behind. */
enum { PART_BASE, PART_LORA, N_PARTS };

static uint32_t n_base_tokens(const struct batch_seq *q)
{
    if (!q->lora || q->lora_begin >= q->position + q->n_tokens)
        return q->n_tokens;
    return q->lora_begin > q->position ? q->lora_begin - q->position : 0;
}

/* Tokens [*begin, *end) of the part, and its adapter. */
static const struct lora *part_of(const struct batch_seq *q, unsigned part, uint32_t *begin, uint32_t *end)
{
    uint32_t n = n_base_tokens(q);
    *begin = part == PART_BASE ? 0 : n;
    *end = part == PART_BASE ? n : q->n_tokens;
    return part == PART_BASE ? NULL : q->lora;
}

static void place_part(struct step_space *s, const struct kv_cache *kv, uint32_t seq_index, unsigned part)
{
    const struct batch_seq *q = &s->batch->seqs[seq_index];
    uint32_t begin, end;
    const struct lora *lora = part_of(q, part, &begin, &end);
    require(s->n_rows + (end - begin) <= s->n_tokens_max);
    s->first_row[N_PARTS * seq_index + part] = s->n_rows;
    for (uint32_t i = begin; i < end; i++) {
        uint32_t row = s->n_rows++, position = q->position + i;
        s->token[row] = q->tokens[i];
        s->position[row] = position;
        s->length[row] = (struct rope_length){q->n_prompt, q->n_known};
        if (q->n_known < q->position + q->n_tokens)
            s->length[row].n_known = q->position + q->n_tokens;
        s->row_page[row] = kv_page_data(kv, q->pages[position / KV_PAGE_TOKENS]);
        s->context[row] = s->seq_pages[seq_index];
        s->row_lora[row] = lora;
        s->row_replacing[row] = lora_replacing(lora);
    }
    s->placed[N_PARTS * seq_index + part] = true;
}

/* All parts of one adapter side by side. */
static void place_segment(struct step_space *s, const struct kv_cache *kv, const struct lora *lora)
{
    struct segment *g = &s->segments[s->n_segments++];
    *g = (struct segment){.lora = lora, .row_begin = s->n_rows};
    for (uint32_t i = 0; i < N_PARTS * s->batch->n_seqs; i++) {
        uint32_t begin, end;
        const struct lora *l = part_of(&s->batch->seqs[i / N_PARTS], i % N_PARTS, &begin, &end);
        if (!s->placed[i] && begin < end && l == lora)
            place_part(s, kv, i / N_PARTS, i % N_PARTS);
    }
    g->row_end = s->n_rows;
}

static void place_rows(struct step_space *s, const struct kv_cache *kv)
{
    for (uint32_t i = 0; i < N_PARTS * s->batch->n_seqs; i++) {
        uint32_t begin, end;
        const struct lora *lora = part_of(&s->batch->seqs[i / N_PARTS], i % N_PARTS, &begin, &end);
        if (!s->placed[i] && begin < end)
            place_segment(s, kv, lora);
    }
}

static void place_logit(struct step_space *s, uint32_t seq_index, uint32_t token_index)
{
    uint32_t n = n_base_tokens(&s->batch->seqs[seq_index]);
    unsigned part = token_index < n ? PART_BASE : PART_LORA;
    uint32_t row = s->first_row[N_PARTS * seq_index + part] + token_index - (part == PART_BASE ? 0 : n);
    struct segment *segments = s->head_segments;
    require(s->batch->logits_at + s->n_logit_rows < s->n_logit_rows_max);
    if (s->n_head_segments == 0 || segments[s->n_head_segments - 1].lora != s->row_lora[row])
        segments[s->n_head_segments++] =
            (struct segment){.lora = s->row_lora[row], .row_begin = s->n_logit_rows};
    s->factors[s->n_logit_rows] = s->batch->seqs[seq_index].sum_factors;
    s->logit_row[s->n_logit_rows++] = row;
    segments[s->n_head_segments - 1].row_end = s->n_logit_rows;
}

static void place_logits(struct step_space *s)
{
    for (uint32_t i = 0; i < s->batch->n_seqs; i++)
        for (uint32_t t = s->batch->seqs[i].logits_begin; t < s->batch->seqs[i].n_tokens; t++)
            place_logit(s, i, t);
}

void step_plan(struct step_space *s, const struct model *m, const struct kv_cache *kv,
               const struct batch *batch)
{
    const struct kv_shape *shape = kv_cache_shape(kv);
    require(m == s->m || (m->base == s->m && has_room_for(s, m)));
    require(batch->logits_at <= s->n_logit_rows_max);
    s->now = m;
    s->out = s->logits + (size_t)batch->logits_at * m->config.vocab_size;
    require(shape->type == s->kv.type && shape->n_layers == s->m->config.n_layers &&
            shape->n_kv_heads == s->m->config.n_kv_heads && shape->head_dim == s->m->config.head_dim);
    require(batch->n_seqs > 0 && batch->n_seqs <= s->n_seqs_max);
    s->batch = batch;
    s->n_rows = s->n_logit_rows = s->n_segments = s->n_head_segments = 0;
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        check_seq(s, &batch->seqs[i]);
        s->placed[N_PARTS * i + PART_BASE] = s->placed[N_PARTS * i + PART_LORA] = false;
    }
    place_pages(s, kv);
    place_rows(s, kv);
    place_logits(s);
    attend_plan_rows(s);
    for (uint32_t i = 0; i <= s->m->config.n_layers * N_LAYER_CLAIMS; i++)
        atomic_init(&s->claims[i], 0);
}
