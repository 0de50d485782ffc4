/* What check.c --bench compares with: the time, and what this machine multiplies at best. */
#ifndef LK_TESTS_KERNELS_SPEED_H
#define LK_TESTS_KERNELS_SPEED_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "kernels_inner.h"

static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Products of 8 bits added up in 32, from registers: multiply-adds a second of the best instructions that
 * this program's kernels may use; 0: no loop for this machine. Machines that are shared change their speed,
 * so it is measured beside each product. */
static inline double peak(void)
{
    double best = 0;
#if defined(__x86_64__)
    bool vnni = cpu_has_avx512(), half = !vnni && cpu_has_avxvnni(); /* half: 32 bytes */
    if (!cpu_has_avx2())
        return 0;
    for (unsigned turn = 0; turn < 5; turn++) {
        uint64_t n = 200000;
        double start = seconds();
#define ONE(r)                                                                                               \
    "vpmaddubsw %%ymm14,%%ymm15,%%ymm8\nvpmaddwd %%ymm13,%%ymm8,%%ymm8\nvpaddd %%ymm8,%%ymm" r ",%%ymm" r "\n"
#define DOT(r) "vpdpbusd %%zmm14,%%zmm15,%%zmm" r "\n"
#define HALF_DOT(r) "%{vex%} vpdpbusd %%ymm14,%%ymm15,%%ymm" r "\n"
#define LOOP(op)                                                                                             \
    __asm__ volatile("vzeroall\n1:\n" op("0") op("1") op("2") op("3") op("4") op("5") op("6")                \
                         op("7") "dec %0\njnz 1b\nvzeroupper\n"                                              \
                     : "+r"(n)                                                                               \
                     :                                                                                       \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",         \
                       "xmm13", "xmm14", "xmm15")
        if (vnni)
            LOOP(DOT);
        else if (half)
            LOOP(HALF_DOT);
        else
            LOOP(ONE);
        best = fmax(best, 200000.0 * 8 * (vnni ? 64 : 32) / (seconds() - start));
    }
#endif
    return best;
}

#endif
