/* What this machine can run. The compiler's feature test also asks the operating system (XGETBV), so a
 * feature that the kernel does not save across switches counts as absent. */
#include <stdio.h>
#include <string.h>

#include "kernels_inner.h"

#if defined(__x86_64__)

#include <cpuid.h>

/* X(name): the features that kernels use, beside F16C and AVX-VNNI, for which not all compilers have a
 * word. */
#define X86_FEATURES(X)                                                                                      \
    X("avx2")                                                                                                \
    X("fma")                                                                                                 \
    X("avx512f")                                                                                             \
    X("avx512bw")                                                                                            \
    X("avx512dq")                                                                                            \
    X("avx512vl")                                                                                            \
    X("avx512vnni")                                                                                          \
    X("avx512bf16")

static bool has_f16c(void) /* leaf 1, ECX bit 29; its registers are AVX's, so AVX's leave is enough */
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1U);
}

bool cpu_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool cpu_has_avxvnni(void) /* leaf 7, subleaf 1, EAX bit 4 */
{
    unsigned last, a, b, c, d;
    return cpu_has_avx2() && __get_cpuid_count(7, 0, &last, &b, &c, &d) && last >= 1 &&
           __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1U);
}

bool cpu_has_avx512(void)
{
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

bool cpu_has_neon(void)
{
    return false;
}

void cpu_describe(char *dst, size_t dst_bytes)
{
    require(dst_bytes > 0);
    size_t used = (size_t)snprintf(dst, dst_bytes, "%s", has_f16c() ? "f16c" : "x86_64");
#define DESCRIBE(name)                                                                                       \
    if (__builtin_cpu_supports(name) && used < dst_bytes)                                                    \
        used += (size_t)snprintf(dst + used, dst_bytes - used, " %s", name);
    X86_FEATURES(DESCRIBE)
#undef DESCRIBE
    if (cpu_has_avxvnni() && used < dst_bytes)
        snprintf(dst + used, dst_bytes - used, " avxvnni");
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

#define HWCAP_BIT_FPHP (1UL << 9)
#define HWCAP_BIT_ASIMDHP (1UL << 10)
#define HWCAP_BIT_ASIMDDP (1UL << 20)

bool cpu_has_avx2(void)
{
    return false;
}

bool cpu_has_avxvnni(void)
{
    return false;
}

bool cpu_has_avx512(void)
{
    return false;
}

bool cpu_has_neon(void)
{
    unsigned long need = HWCAP_BIT_FPHP | HWCAP_BIT_ASIMDHP | HWCAP_BIT_ASIMDDP;
    return (getauxval(AT_HWCAP) & need) == need;
}

void cpu_describe(char *dst, size_t dst_bytes)
{
    unsigned long caps = getauxval(AT_HWCAP);
    require(dst_bytes > 0);
    snprintf(dst, dst_bytes, "asimd%s%s", caps & HWCAP_BIT_ASIMDHP ? " asimdhp" : "",
             caps & HWCAP_BIT_ASIMDDP ? " asimddp" : "");
}

#else

bool cpu_has_avx2(void)
{
    return false;
}

bool cpu_has_avxvnni(void)
{
    return false;
}

bool cpu_has_avx512(void)
{
    return false;
}

bool cpu_has_neon(void)
{
    return false;
}

void cpu_describe(char *dst, size_t dst_bytes)
{
    snprintf(dst, dst_bytes, "unknown architecture");
}

#endif
