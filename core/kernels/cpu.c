/* What this machine can run. The compiler's feature test also asks the operating system (XGETBV), so a
 * feature that the kernel does not save across switches counts as absent. */
#include <stdio.h>
#include <string.h>

#include "kernels_inner.h"

#if defined(__x86_64__)

/* X(name): every feature that a kernel uses or that is worth a word in a report. */
#define X86_FEATURES(X)                                                                                      \
    X("sse4.2")                                                                                              \
    X("avx")                                                                                                 \
    X("avx2")                                                                                                \
    X("fma") X("f16c") X("avx512f") X("avx512bw") X("avx512dq") X("avx512vl") X("avx512vnni") X("avx512bf1"  \
                                                                                                "6")

bool cpu_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
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
    size_t used = 0;
    require(dst_bytes > 0);
    dst[0] = 0;
#define DESCRIBE(name)                                                                                       \
    if (__builtin_cpu_supports(name) && used < dst_bytes)                                                    \
        used += (size_t)snprintf(dst + used, dst_bytes - used, "%s%s", used ? " " : "", name);
    X86_FEATURES(DESCRIBE)
#undef DESCRIBE
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
