/* The laboratory of check.c: who is compared, buffers between forbidden pages, numbers to fill them with, and
 * how a difference is told. */
#ifndef LK_TESTS_KERNELS_LAB_H
#define LK_TESTS_KERNELS_LAB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels.h"

#define MAX_ISAS 5U
#define PAGE 4096U

struct lab {
    const struct kernels *isa[2][MAX_ISAS]; /* [act_mode][i], scalar first */
    unsigned n_isas;
    uint64_t random;
    unsigned n_checks, n_wrong;
};

enum fill { FILL_RANDOM, FILL_ZEROS, FILL_EXTREMES, FILL_DENORMALS, FILL_COUNT };
static const char *const fill_names[FILL_COUNT] = {"random", "zeros", "extremes", "denormals"};

static const enum dtype weight_types[] = {DTYPE_F32,   DTYPE_F16,     DTYPE_BF16, DTYPE_Q8_0,   DTYPE_Q4_0,
                                          DTYPE_Q4_1,  DTYPE_Q5_0,    DTYPE_Q5_1, DTYPE_Q4_K,   DTYPE_Q5_K,
                                          DTYPE_Q6_K,  DTYPE_Q2_K,    DTYPE_Q3_K, DTYPE_IQ4_NL, DTYPE_IQ4_XS,
                                          DTYPE_MXFP4, DTYPE_F8_E4M3, DTYPE_I8};
#define N_WEIGHT_TYPES (sizeof weight_types / sizeof *weight_types)

/* ---- buffers between forbidden pages ---- */

struct guarded {
    uint8_t *map;
    size_t map_bytes;
    void *p;
};

/* size_bytes that end at a forbidden page (at_end) or begin behind one. The end is exact when size_bytes is a
 * multiple of `align`. */
static inline struct guarded guarded_create(size_t size_bytes, size_t align, bool at_end)
{
    size_t padded = (size_bytes + align - 1) / align * align, inner = (padded + PAGE - 1) / PAGE * PAGE;
    struct guarded g = {.map_bytes = inner + 2UL * PAGE};
    g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(g.map != MAP_FAILED);
    require(mprotect(g.map + PAGE, inner, PROT_READ | PROT_WRITE) == 0);
    g.p = g.map + PAGE + (at_end ? inner - padded : 0);
    return g;
}

static inline void guarded_destroy(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
    g->p = NULL;
}

/* ---- numbers ---- */

static inline uint64_t random_u64(struct lab *lab) /* splitmix64 */
{
    uint64_t z = lab->random += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static inline float random_float(struct lab *lab) /* in [-1, 1) */
{
    return (float)((double)(int64_t)random_u64(lab) * 0x1p-63);
}

static inline float fill_value(struct lab *lab, enum fill fill)
{
    static const float extremes[] = {3.4e38f, -3.4e38f, 1e-38f, 65504.0f, -1e30f, 0.0f, -0.0f, 1.0f};
    switch (fill) {
    case FILL_ZEROS:
        return 0;
    case FILL_EXTREMES:
        return extremes[random_u64(lab) % 8];
    case FILL_DENORMALS:
        return random_float(lab) * 1e-39f;
    default:
        return random_float(lab);
    }
}

static inline void fill_floats(struct lab *lab, enum fill fill, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = fill_value(lab, fill);
}

static inline bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

static inline void wrong(struct lab *lab, const char *isa, const char *op, const char *what)
{
    if (lab->n_wrong++ < 40)
        printf("WRONG %-7s %-20s %s\n", isa, op, what);
}

static inline void expect(struct lab *lab, bool ok, const char *isa, const char *op, const char *what)
{
    lab->n_checks++;
    if (!ok)
        wrong(lab, isa, op, what);
}

static inline void expect_same(struct lab *lab, const float *got, const float *want, size_t n,
                               const char *where[3])
{
    lab->n_checks++;
    for (size_t i = 0; i < n; i++) {
        if (!same_bits(got[i], want[i])) {
            char text[200];
            snprintf(text, sizeof text, "%s: value %zu of %zu is %.9g, scalar %.9g", where[2], i, n,
                     (double)got[i], (double)want[i]);
            wrong(lab, where[0], where[1], text);
            return;
        }
    }
}

#endif
