/* The tables: one for each instruction set and activation mode, built at compile time, and the choice among
 * them. To add an instruction set: its files, one line in each list here, its test in cpu.c. One that betters
 * only the int8 products of another names that one, for all else. */
#include <string.h>

#include "kernels_inner.h"

/* q: whose products of quantised weights; set: whose all else. */
#define MATMULS(set, q, mode)                                                                                \
    {                                                                                                        \
        [DTYPE_F32] = matmul_f32_##set, [DTYPE_F16] = matmul_f16_##set, [DTYPE_BF16] = matmul_bf16_##set,    \
        [DTYPE_Q8_0] = matmul_Q8_0_##mode##_##q, [DTYPE_Q4_0] = matmul_Q4_0_##mode##_##q,                    \
        [DTYPE_Q4_1] = matmul_Q4_1_##mode##_##q, [DTYPE_Q5_0] = matmul_Q5_0_##mode##_##q,                    \
        [DTYPE_Q5_1] = matmul_Q5_1_##mode##_##q, [DTYPE_Q4_K] = matmul_Q4_K_##mode##_##q,                    \
        [DTYPE_Q5_K] = matmul_Q5_K_##mode##_##q, [DTYPE_Q6_K] = matmul_Q6_K_##mode##_##q,                    \
        [DTYPE_Q2_K] = matmul_Q2_K_##mode##_##q, [DTYPE_Q3_K] = matmul_Q3_K_##mode##_##q,                    \
        [DTYPE_IQ4_NL] = matmul_IQ4_NL_##mode##_##q, [DTYPE_IQ4_XS] = matmul_IQ4_XS_##mode##_##q,            \
        [DTYPE_MXFP4] = matmul_MXFP4_##mode##_##q, [DTYPE_F8_E4M3] = matmul_f8_##set,                        \
        [DTYPE_I8] = matmul_i8_##set,                                                                        \
    }

#define TABLE(name, set, q, mode, mode_enum)                                                                 \
    {                                                                                                        \
        .isa = #name, .act_mode = mode_enum, .matmul = MATMULS(set, q, mode),                                \
        .quantize_rows = quantize_rows_##set, .rms_norm = rms_norm_##set, .layer_norm = layer_norm_##set,    \
        .rope = rope_##set, .silu_mul = silu_mul_##set, .gelu_tanh_mul = gelu_tanh_mul_##set,                \
        .gelu_mul = gelu_mul_scalar, .relu_mul = relu_mul_scalar, .softmax = softmax_scalar,                 \
        .add = add_##set, .scale = scale_##set, .to_f16 = to_f16_##set, .put_keys = put_keys_##set,          \
        .put_values = put_values_##set, .attention = attention_##set,                                        \
        .attention_parts = attention_parts_##set, .attention_join = attention_join_##set,                    \
        .argmax = argmax_##set, .peaks = peaks_##set, .peak_sums = peak_sums_##set,                          \
        .sum_exp_masked = sum_exp_masked_##set, .expand = expand_##set,                                      \
    }

/* X(name, set, whether it is here), worst first: "auto" takes the last that the machine can run. */
#if defined(__x86_64__)
#define ISA_LIST(X)                                                                                          \
    X(scalar, scalar, true)                                                                                  \
    X(avx2, avx2, cpu_has_avx2())                                                                            \
    X(avxvnni, avx2, cpu_has_avxvnni())                                                                      \
    X(avx512, avx512, cpu_has_avx512())
#elif defined(__aarch64__)
#define ISA_LIST(X) X(scalar, scalar, true) X(neon, neon, cpu_has_neon())
#else
#define ISA_LIST(X) X(scalar, scalar, true)
#endif

enum isa {
#define ISA_ENUM(name, set, present) ISA_##name,
    ISA_LIST(ISA_ENUM)
#undef ISA_ENUM
        ISA_COUNT
};

static const struct kernels tables[ISA_COUNT][2] = {
#define ISA_TABLE(name, set, present)                                                                        \
    {TABLE(name, set, name, int8, ACT_MODE_INT8), TABLE(name, set, set, f32, ACT_MODE_F32)},
    ISA_LIST(ISA_TABLE)
#undef ISA_TABLE
};

enum status kernels_select(const char *limit, enum act_mode act_mode, const struct kernels **out,
                           struct error *err)
{
    static const char *const known[] = {"auto", "scalar", "avx2", "avxvnni", "avx512", "neon"};
    const bool present[ISA_COUNT] = {
#define ISA_PRESENT(name, set, test) test,
        ISA_LIST(ISA_PRESENT)
#undef ISA_PRESENT
    };
    size_t mode = act_mode == ACT_MODE_F32, is_known = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        is_known |= strcmp(limit, known[i]) == 0;
    if (!is_known)
        return fail(err, STATUS_INVALID, "isa \"%s\": expected auto, scalar, avx2, avxvnni, avx512 or neon",
                    limit);
    for (unsigned i = ISA_COUNT; i-- > 0;) {
        bool wanted = strcmp(limit, "auto") == 0 || strcmp(limit, tables[i][mode].isa) == 0;
        if (wanted && present[i]) {
            *out = &tables[i][mode];
            return STATUS_OK;
        }
    }
    char cpu[256];
    cpu_describe(cpu, sizeof cpu);
    return fail(err, STATUS_UNSUPPORTED, "isa \"%s\": this machine cannot run it (it has: %s); use auto",
                limit, cpu);
}
