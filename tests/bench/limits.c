/* What this machine does at best, as one JSON line: the rate at which memory is read, and multiply-adds from
 * registers.
 *
 *   limits [--threads N] [--mib 512] [--loops 4000000]
 *
 * read_gbs: each thread reads a part of its own of a buffer far above the caches, in order, with prefetch.
 * int8_gmacs: products of 8 bits added up in 32, by the best instructions that are there (`int8_by`):
 * vpdpbusd; or vpmaddubsw, vpmaddwd and vpaddd. int8_signed_gmacs: the same for two signed bytes, one of
 * which is spread from memory: what weights of 8 bits take, without VNNI vpbroadcastd and vpsignb more.
 * int8_pairs_gmacs: the multiplication alone (vpmaddubsw), the limit of sums that stay in 16 bits for a
 * while. f32_gmacs: vfmadd. Medians. Elsewhere than on x86-64 plain C loops stand in. */
#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "base/mem.h"

#define TURNS 7U
#define THREADS_MAX 256U
#define PREFETCH_BYTES 4096U

enum kind { READ, INT8, INT8_SIGNED, INT8_PAIRS, F32, N_KINDS };
static const char *const names[N_KINDS] = {"read_gbs", "int8_gmacs", "int8_signed_gmacs", "int8_pairs_gmacs",
                                           "f32_gmacs"};

struct probe {
    pthread_barrier_t barrier;
    unsigned n_threads;
    uint64_t n_bytes; /* a thread's part of the buffer */
    uint8_t *buffer;
    uint64_t n_loops;
    const char *int8_by;
    double rates[N_KINDS];
};
struct worker {
    struct probe *probe;
    unsigned index;
    uint64_t sum; /* keeps the loops alive */
};

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_part(const uint8_t *p, uint64_t n)
{
    __m256i sum[4] = {_mm256_setzero_si256()};
    for (uint64_t at = 0; at + 128 <= n; at += 128) {
        _mm_prefetch((const char *)p + at + PREFETCH_BYTES, _MM_HINT_T0);
        _mm_prefetch((const char *)p + at + PREFETCH_BYTES + 64, _MM_HINT_T0);
        for (int i = 0; i < 4; i++)
            sum[i] = _mm256_add_epi64(sum[i], _mm256_load_si256((const __m256i *)(p + at + 32 * i)));
    }
    __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
    return (uint64_t)_mm256_extract_epi64(all, 0) + (uint64_t)_mm256_extract_epi64(all, 2);
}

/* Loops over registers alone; chains that do not wait for each other. */
#define EIGHT(one) one("0") one("1") one("2") one("3") one("4") one("5") one("6") one("7")
#define CLOBBERED                                                                                            \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",        \
        "xmm12", "xmm13", "xmm14", "xmm15"
#define LOOP(body, n)                                                                                        \
    __asm__ volatile("vzeroall\n1:\n" body "dec %0\njnz 1b\nvzeroupper\n"                                    \
                     : "+r"(n)                                                                               \
                     : "m"(spread)                                                                           \
                     : "cc", CLOBBERED)
#define MADDUBS_MADDWD(r)                                                                                    \
    "vpmaddubsw %%ymm14,%%ymm15,%%ymm8\n"                                                                    \
    "vpmaddwd %%ymm13,%%ymm8,%%ymm8\n"                                                                       \
    "vpaddd %%ymm8,%%ymm" r ",%%ymm" r "\n"
#define SIGNED_MADDUBS_MADDWD(r)                                                                             \
    "vpbroadcastd %1,%%ymm8\n"                                                                               \
    "vpsignb %%ymm14,%%ymm8,%%ymm8\n"                                                                        \
    "vpmaddubsw %%ymm8,%%ymm15,%%ymm8\n"                                                                     \
    "vpmaddwd %%ymm13,%%ymm8,%%ymm8\n"                                                                       \
    "vpaddd %%ymm8,%%ymm" r ",%%ymm" r "\n"
#define SPREAD_DPBUSD(r) "vpbroadcastd %1,%%zmm8\nvpdpbusd %%zmm8,%%zmm15,%%zmm" r "\n"
#define MADDUBS(r) "vpmaddubsw %%ymm14,%%ymm15,%%ymm" r "\n"
#define DPBUSD(r) "vpdpbusd %%zmm14,%%zmm15,%%zmm" r "\n"
#define FMADD(r) "vfmadd231ps %%ymm14,%%ymm15,%%ymm" r "\n"

static bool has_vnni(void)
{
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512f");
}

/* Multiply-adds of n passes. */
static double multiply(enum kind kind, uint64_t n)
{
    static const int32_t spread = 0x01010101;
    double passes = (double)n * 8;
    bool wide = has_vnni();
    if (kind == INT8_SIGNED && wide)
        LOOP(EIGHT(SPREAD_DPBUSD), n);
    else if (kind == INT8_SIGNED)
        LOOP(EIGHT(SIGNED_MADDUBS_MADDWD), n);
    else if (kind == INT8 && wide)
        LOOP(EIGHT(DPBUSD), n);
    else if (kind == INT8)
        LOOP(EIGHT(MADDUBS_MADDWD), n);
    if (kind == INT8 || kind == INT8_SIGNED)
        return passes * (wide ? 64 : 32);
    if (kind == INT8_PAIRS) {
        LOOP(EIGHT(MADDUBS), n);
        return passes * 32;
    }
    LOOP(EIGHT(FMADD) FMADD("8") FMADD("9"), n);
    return passes / 8 * 10 * 8;
}
static const char *int8_by(void)
{
    return has_vnni() ? "vpdpbusd of 64 bytes" : "vpmaddubsw + vpmaddwd + vpaddd of 32 bytes";
}
#else
static uint64_t read_part(const uint8_t *p, uint64_t n)
{
    uint64_t sum[8] = {0};
    for (uint64_t at = 0; at + 64 <= n; at += 64) {
        __builtin_prefetch(p + at + PREFETCH_BYTES);
        for (int i = 0; i < 8; i++)
            sum[i] += ((const uint64_t *)(const void *)(p + at))[i];
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}
static double multiply(enum kind kind, uint64_t n)
{
    float f[64], g[64];
    int8_t a[64], b[64];
    int32_t sum[64] = {0};
    for (int i = 0; i < 64; i++)
        f[i] = g[i] = (float)i, a[i] = b[i] = (int8_t)i;
    for (uint64_t pass = 0; pass < n; pass++) {
        for (int i = 0; i < 64; i++)
            if (kind == F32)
                f[i] = __builtin_fmaf(g[i], 0.5f, f[i]);
            else
                sum[i] += a[i] * b[i];
        __asm__ volatile("" : : "r"(f), "r"(sum) : "memory");
    }
    return (double)n * 64;
}
static const char *int8_by(void)
{
    return "plain C";
}
#endif

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct probe *p = w->probe;
    uint8_t *part = p->buffer + w->index * p->n_bytes;
    double rates[TURNS];
    memset(part, (int)w->index + 1, p->n_bytes);
    for (int kind = 0; kind < N_KINDS; kind++) {
        for (unsigned turn = 0; turn < TURNS; turn++) {
            pthread_barrier_wait(&p->barrier);
            int64_t begin = clock_now_ns();
            double done = (double)p->n_bytes;
            if (kind == READ)
                w->sum += read_part(part, p->n_bytes);
            else
                done = multiply((enum kind)kind, p->n_loops);
            pthread_barrier_wait(&p->barrier);
            rates[turn] = done * p->n_threads / (double)(clock_now_ns() - begin);
        }
        qsort(rates, TURNS, sizeof *rates, by_value);
        if (w->index == 0)
            p->rates[kind] = rates[TURNS / 2];
    }
    return NULL;
}

static int run(struct probe *p)
{
    static struct worker workers[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    if (pthread_barrier_init(&p->barrier, NULL, p->n_threads) != 0)
        return 1;
    for (unsigned i = 0; i < p->n_threads; i++) {
        workers[i] = (struct worker){.probe = p, .index = i};
        if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0)
            abort();
    }
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->n_threads; i++) {
        pthread_join(threads[i], NULL);
        sum += workers[i].sum;
    }
    printf("{\"threads\": %u, \"int8_by\": \"%s\", \"check\": %u", p->n_threads, int8_by(),
           (unsigned)sum & 1U);
    for (int kind = 0; kind < N_KINDS; kind++)
        printf(", \"%s\": %.2f", names[kind], p->rates[kind]);
    printf("}\n");
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"threads", required_argument, NULL, 't'},
                                            {"mib", required_argument, NULL, 'm'},
                                            {"loops", required_argument, NULL, 'l'},
                                            {0}};
    struct probe p = {.n_threads = 2, .n_bytes = 512, .n_loops = 4000000};
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;
        if (n == 0 || o == '?')
            return 2;
        p.n_threads = o == 't' ? (unsigned)n : p.n_threads;
        p.n_bytes = o == 'm' ? n : p.n_bytes;
        p.n_loops = o == 'l' ? n : p.n_loops;
    }
    if (p.n_threads > THREADS_MAX)
        return 2;
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        fprintf(stderr, "limits: this probe needs AVX2\n");
        return 1;
    }
#endif
    p.n_bytes = (p.n_bytes << 20) / p.n_threads / 4096 * 4096;
    p.buffer = mem_aligned(4096, p.n_bytes * p.n_threads + 2 * PREFETCH_BYTES);
    if (!p.buffer)
        return 1;
    int code = run(&p);
    mem_free(p.buffer);
    return code;
}
