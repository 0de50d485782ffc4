/* A random adapter in memory, for benches: bf16 pairs on the linear modules of the layers. */
#ifndef LK_TESTS_BENCH_MADE_LORA_H
#define LK_TESTS_BENCH_MADE_LORA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "lora.h"
#include "model.h"

struct made_lora {
    uint32_t rank;
    bool only_qv;  /* q and v alone; else all seven */
    float a, b;    /* A's and B's numbers are uniform in [-a, a) and [-b, b) */
    float scale;   /* of B A x */
    uint64_t seed; /* of the numbers, and the digest */
    enum lora_store store;
};

static inline uint16_t *made_matrix(size_t n, float size, uint64_t *state)
{
    uint16_t *m = mem_alloc(n * sizeof *m);
    for (size_t i = 0; m && i < n; i++) {
        *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
        m[i] = f32_to_bf16(((float)(*state >> 40) / (float)(1 << 23) - 1) * size);
    }
    return m;
}

/* One reference; ends the program where there is no memory for it. */
static inline struct lora *made_lora(const struct model *m, const struct made_lora *how)
{
    uint32_t n_layers = model_config(m)->n_layers, n = 0;
    uint64_t state = how->seed;
    struct lora_pair *pairs = mem_array((size_t)n_layers * LORA_SITE_LM_HEAD, sizeof *pairs);
    for (uint32_t i = 0; pairs && i < n_layers * LORA_SITE_LM_HEAD; i++) {
        struct model_module module;
        enum lora_site site = (enum lora_site)(i % LORA_SITE_LM_HEAD);
        if ((how->only_qv && site != LORA_SITE_Q && site != LORA_SITE_V) ||
            !model_module_of(m, site, i / LORA_SITE_LM_HEAD, &module) || module.site != site)
            continue;
        pairs[n++] = (struct lora_pair){.module = module,
                                        .a_type = DTYPE_BF16,
                                        .b_type = DTYPE_BF16,
                                        .a = made_matrix((size_t)how->rank * module.in, how->a, &state),
                                        .b = made_matrix((size_t)how->rank * module.out, how->b, &state),
                                        .rank = how->rank,
                                        .in = module.in,
                                        .out = module.out,
                                        .scale = how->scale};
    }
    uint8_t digest[32] = {0};
    struct lora *l;
    struct error err = {0};
    const struct lora_spec spec = {.store = how->store, .pairs = pairs, .n_pairs = n};
    memcpy(digest, &how->seed, sizeof how->seed);
    memcpy(digest + sizeof how->seed, &how->rank, sizeof how->rank);
    if (!pairs || lora_build(m, &spec, digest, &l, &err) != STATUS_OK) {
        fprintf(stderr, "an adapter of rank %u: %s\n", how->rank, pairs ? err.text : "no memory");
        exit(1);
    }
    for (uint32_t i = 0; i < n; i++) {
        mem_free((void *)(uintptr_t)pairs[i].a);
        mem_free((void *)(uintptr_t)pairs[i].b);
    }
    mem_free(pairs);
    return l;
}

#endif
