/* Attention for check.c: keys and values in pages, softmax in double, and tiles against single rows. */
#ifndef LK_TESTS_KERNELS_ATTENTION_CASE_H
#define LK_TESTS_KERNELS_ATTENTION_CASE_H

#include <math.h>

#include "lab.h"

#define MAX_PAGES 80U

struct attention_case {
    uint32_t n_tokens, n_group, head_dim, page_tokens, position, window;
    float cap;
    enum dtype type;
};

/* Keys and values of all positions: as plain numbers that the blocks stand for, and in each instruction set's
 * pages. */
struct attention_lab {
    struct attention_case c;
    uint32_t n_positions, n_pages;
    size_t block_bytes;
    float *kv[2]; /* [n_positions, head_dim] */
    struct guarded pages[MAX_PAGES];
    const uint8_t *data[MAX_PAGES];
    struct guarded q, scratch, parts, want, got;
    size_t stride, n_floats; /* of q and out */
};

/* What is stored of a row, by the words of kernels.h. */
static inline void stored_values(enum dtype type, const float *x, uint32_t n, float *y)
{
    float largest = 0;
    for (uint32_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    float scale = largest / 127.0f;
    for (uint32_t i = 0; i < n; i++) {
        if (type == DTYPE_F16)
            y[i] = f16_to_f32(f32_to_f16(x[i]));
        else if (type == DTYPE_BF16)
            y[i] = bf16_to_f32(f32_to_bf16(x[i]));
        else if (type == DTYPE_I8)
            y[i] = scale >= 0x1p-126f ? roundf(x[i] * (1.0f / scale)) * scale : 0;
        else
            y[i] = x[i];
    }
}

/* Softmax over all positions at once, in double. */
static inline void attention_reference(const struct attention_args *a, const float *const *kv, uint32_t row,
                                       double *out)
{
    uint32_t token = row / a->n_group, end = a->position + token + 1;
    uint32_t begin = a->window && end > a->window ? end - a->window : 0;
    const float *q = a->q + token * a->stride + (size_t)(row % a->n_group) * a->head_dim;
    double max = -INFINITY, sum = 0, logits[2048];
    for (uint32_t t = begin; t < end; t++) {
        double dot = 0;
        for (uint32_t i = 0; i < a->head_dim; i++)
            dot += (double)q[i] * (double)kv[0][(size_t)t * a->head_dim + i];
        dot *= (double)a->scale;
        logits[t] = a->softcap > 0 ? (double)a->softcap * tanh(dot / (double)a->softcap) : dot;
        max = logits[t] > max ? logits[t] : max;
    }
    for (uint32_t i = 0; i < a->head_dim; i++)
        out[i] = 0;
    for (uint32_t t = begin; t < end; t++) {
        double p = exp(logits[t] - max);
        sum += p;
        for (uint32_t i = 0; i < a->head_dim; i++)
            out[i] += p * (double)kv[1][(size_t)t * a->head_dim + i];
    }
    for (uint32_t i = 0; i < a->head_dim; i++)
        out[i] /= sum;
}

/* A token's keys and values, the same for all instruction sets: row t of `which`. */
static inline void put_row(const struct kernels *k, struct attention_lab *l, unsigned which, uint32_t t,
                           const float *x)
{
    uint8_t *page = l->pages[t / l->c.page_tokens].p;
    struct kv_row r = {.block = page + which * l->block_bytes,
                       .type = l->c.type,
                       .head_dim = l->c.head_dim,
                       .page_tokens = l->c.page_tokens,
                       .token = t % l->c.page_tokens};
    (which == 0 ? k->put_keys : k->put_values)(&r, x);
}

/* Each instruction set writes the pages; all must be the same. Bytes that nobody writes make NaNs. */
static inline void fill_pages(struct lab *lab, struct attention_lab *l)
{
    struct guarded row = guarded_create(l->c.head_dim * 4UL, 4, true);
    uint8_t *scalar = malloc(l->n_pages * 2 * l->block_bytes);
    uint64_t random = lab->random;
    require(scalar);
    for (unsigned isa = 0; isa < lab->n_isas; isa++) {
        lab->random = random;
        for (uint32_t i = 0; i < l->n_pages; i++)
            memset(l->pages[i].p, 0xff, 2 * l->block_bytes);
        for (uint32_t n = 0; n < 2 * l->n_positions; n++) {
            float *x = row.p, *y = l->kv[n % 2] + (size_t)(n / 2) * l->c.head_dim;
            fill_floats(lab, n == 8 ? FILL_ZEROS : n == 9 ? FILL_DENORMALS : FILL_RANDOM, x, l->c.head_dim);
            for (uint32_t i = 0; i < l->c.head_dim; i++)
                x[i] *= 2;
            stored_values(l->c.type, x, l->c.head_dim, y);
            put_row(lab->isa[0][isa], l, n % 2, n / 2, x);
        }
        for (uint32_t i = 0; i < l->n_pages; i++) {
            uint8_t *first = scalar + i * 2 * l->block_bytes;
            if (isa == 0)
                memcpy(first, l->pages[i].p, 2 * l->block_bytes);
            expect(lab, memcmp(first, l->pages[i].p, 2 * l->block_bytes) == 0, lab->isa[0][isa]->isa,
                   "put_keys, put_values", dtype_name(l->c.type));
        }
    }
    free(scalar);
    guarded_destroy(&row);
}

static inline void attention_create(struct lab *lab, struct attention_lab *l)
{
    const struct attention_case *c = &l->c;
    uint32_t n_rows = c->n_tokens * c->n_group;
    l->n_positions = c->position + c->n_tokens;
    l->n_pages = (l->n_positions + c->page_tokens - 1) / c->page_tokens;
    l->block_bytes = c->page_tokens * kv_token_bytes(c->type, c->head_dim);
    l->stride = (size_t)c->n_group * c->head_dim + 3;
    l->n_floats = (c->n_tokens - 1) * l->stride + (size_t)c->n_group * c->head_dim;
    require(l->n_pages <= MAX_PAGES);
    for (uint32_t i = 0; i < l->n_pages; i++) {
        l->pages[i] = guarded_create(2 * l->block_bytes, 2, true);
        l->data[i] = l->pages[i].p;
    }
    for (unsigned i = 0; i < 2; i++) {
        l->kv[i] = malloc((size_t)l->n_positions * c->head_dim * sizeof(float));
        require(l->kv[i]);
    }
    fill_pages(lab, l);
    size_t n_splits = (l->n_positions + ATTN_SPLIT - 1) / ATTN_SPLIT;
    l->q = guarded_create(l->n_floats * 4, 4, true);
    l->want = guarded_create(l->n_floats * 4, 4, true);
    l->got = guarded_create(l->n_floats * 4, 4, true);
    l->scratch = guarded_create(attention_scratch_floats(n_rows, c->head_dim) * 4, 4, true);
    l->parts = guarded_create(n_splits * n_rows * attention_part_floats(c->head_dim) * 4, 4, true);
    fill_floats(lab, FILL_RANDOM, l->q.p, l->n_floats);
}

static inline void attention_destroy(struct attention_lab *l)
{
    struct guarded *all[] = {&l->q, &l->want, &l->got, &l->scratch, &l->parts};
    for (uint32_t i = 0; i < l->n_pages; i++)
        guarded_destroy(&l->pages[i]);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        guarded_destroy(all[i]);
    free(l->kv[0]);
    free(l->kv[1]);
}

/* One instruction set: all rows at once, in parts, and each row alone. */
static inline void attention_compare(struct lab *lab, struct attention_lab *l,
                                     const struct attention_args *all, const struct kernels *k)
{
    char text[160];
    struct attention_args a = *all;
    snprintf(text, sizeof text, "%u x %u heads of %u at %u, window %u, %s", a.n_tokens, a.n_group, a.head_dim,
             a.position, a.window, dtype_name(a.kv_type));
    const char *where[4][3] = {{k->isa, "attention", text},
                               {k->isa, "attention in parts", text},
                               {k->isa, "a token's attention", text},
                               {k->isa, "a head's attention", text}};
    a.out = l->got.p;
    memset(l->got.p, 0, l->n_floats * 4);
    k->attention(&a);
    expect_same(lab, l->got.p, l->want.p, l->n_floats, where[0]);
    uint32_t first = attention_first_split(&a), end = attention_last_split(&a) + 1,
             middle = (first + end) / 2;
    size_t split_floats = a.n_tokens * a.n_group * attention_part_floats(a.head_dim);
    memset(l->got.p, 0, l->n_floats * 4);
    k->attention_parts(&a, middle, end, (float *)l->parts.p + (middle - first) * split_floats);
    k->attention_parts(&a, first, middle, l->parts.p);
    k->attention_join(&a, l->parts.p);
    expect_same(lab, l->got.p, l->want.p, l->n_floats, where[1]);
    for (uint32_t row = 0; row < all->n_tokens * all->n_group; row++) {
        uint32_t token = row / all->n_group, head = row % all->n_group;
        size_t at = token * all->stride + (size_t)head * all->head_dim;
        a.n_tokens = 1;
        a.position = all->position + token;
        a.q = all->q + at;
        a.n_group = head == 0 ? all->n_group : 1;
        memset((float *)l->got.p + at, 0, a.n_group * a.head_dim * 4UL);
        a.out = (float *)l->got.p + at;
        k->attention(&a);
        expect_same(lab, a.out, (float *)l->want.p + at, (size_t)a.n_group * a.head_dim, where[head ? 3 : 2]);
    }
}

static inline void check_attention_one(struct lab *lab, const struct attention_case *c)
{
    struct attention_lab l = {.c = *c};
    attention_create(lab, &l);
    struct attention_args a = {.q = l.q.p,
                               .out = l.want.p,
                               .stride = l.stride,
                               .n_tokens = c->n_tokens,
                               .n_group = c->n_group,
                               .head_dim = c->head_dim,
                               .position = c->position,
                               .window = c->window,
                               .scale = 0.5f,
                               .softcap = c->cap,
                               .pages = l.data,
                               .page_tokens = c->page_tokens,
                               .v_offset = l.block_bytes,
                               .kv_type = c->type,
                               .scratch = l.scratch.p};
    double worst = 0, *reference = malloc(c->head_dim * sizeof *reference);
    require(reference);
    memset(l.want.p, 0, l.n_floats * 4);
    lab->isa[0][0]->attention(&a);
    for (uint32_t row = 0; row < c->n_tokens * c->n_group; row++) {
        const float *out = a.out + row / c->n_group * l.stride + (size_t)(row % c->n_group) * c->head_dim;
        attention_reference(&a, (const float *const *)l.kv, row, reference);
        for (uint32_t i = 0; i < c->head_dim; i++)
            worst = fmax(worst, fabs(reference[i] - (double)out[i]));
    }
    char text[120];
    snprintf(text, sizeof text, "differs by %.2g from softmax in double: heads of %u, window %u, %s", worst,
             c->head_dim, c->window, dtype_name(c->type));
    expect(lab, worst < 1e-5, "scalar", "attention", text);
    for (unsigned i = 0; i < lab->n_isas; i++)
        attention_compare(lab, &l, &a, lab->isa[0][i]);
    free(reference);
    attention_destroy(&l);
}

static inline void check_attention(struct lab *lab)
{
    static const struct attention_case cases[] = {
        {1, 1, 8, 16, 0, 0, 0, 0},    {1, 2, 16, 16, 16, 0, 0, 0},      {5, 3, 20, 16, 35, 35, 0, 0},
        {1, 7, 64, 32, 256, 0, 0, 0}, {3, 8, 128, 16, 512, 265, 0, 0},  {2, 4, 256, 32, 298, 0, 50, 0},
        {8, 5, 96, 16, 254, 1, 0, 0}, {2, 1, 80, 32, 1023, 768, 30, 0}, {23, 1, 64, 32, 250, 0, 0, 0},
        {9, 6, 32, 48, 0, 0, 0, 0},   {12, 2, 40, 32, 509, 3, 0, 0},
    };
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8};
    for (unsigned i = 0; i < 4 * sizeof cases / sizeof *cases; i++) {
        struct attention_case c = cases[i / 4];
        c.type = types[i % 4];
        check_attention_one(lab, &c);
    }
}

#endif
