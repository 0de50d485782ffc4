/* What the room's files share: one stored block taken apart, and the functions of each instruction set. */
#ifndef LK_KERNELS_INNER_H
#define LK_KERNELS_INNER_H

#include "kernels.h"

/* One stored block of any quantised type as plain numbers, values before the code book. 32-value types use
 * u[0..31], d (MXFP4: the exponent byte) and (as the f16 min) dmin; 256-value types their sub-scales and mins
 * too: 8 or 16 of them, as their panel_kind says. */
struct q_block {
    uint16_t d, dmin; /* f16 */
    uint8_t scale[16], min[16];
    uint8_t u[256];
};
void q_block_split(enum dtype type, const uint8_t *p, struct q_block *out);

/* Lowest 1-bit work: which instruction sets this machine can run (with the system's leave). */
bool cpu_has_avx2(void);
bool cpu_has_avxvnni(void); /* AVX2 with it */
bool cpu_has_avx512(void);
bool cpu_has_neon(void);

#define DECLARE_INT8(isa)                                                                                    \
    matmul_fn matmul_Q8_0_int8_##isa, matmul_Q4_0_int8_##isa, matmul_Q4_1_int8_##isa,                        \
        matmul_Q5_0_int8_##isa, matmul_Q5_1_int8_##isa, matmul_Q4_K_int8_##isa, matmul_Q5_K_int8_##isa,      \
        matmul_Q6_K_int8_##isa, matmul_Q2_K_int8_##isa, matmul_Q3_K_int8_##isa, matmul_IQ4_NL_int8_##isa,    \
        matmul_IQ4_XS_int8_##isa, matmul_MXFP4_int8_##isa;

#define DECLARE_ISA(isa)                                                                                     \
    DECLARE_INT8(isa)                                                                                        \
    matmul_fn matmul_f32_##isa, matmul_f16_##isa, matmul_bf16_##isa, matmul_f8_##isa, matmul_i8_##isa;       \
    matmul_fn matmul_Q8_0_f32_##isa, matmul_Q4_0_f32_##isa, matmul_Q4_1_f32_##isa, matmul_Q5_0_f32_##isa,    \
        matmul_Q5_1_f32_##isa, matmul_Q4_K_f32_##isa, matmul_Q5_K_f32_##isa, matmul_Q6_K_f32_##isa,          \
        matmul_Q2_K_f32_##isa, matmul_Q3_K_f32_##isa, matmul_IQ4_NL_f32_##isa, matmul_IQ4_XS_f32_##isa,      \
        matmul_MXFP4_f32_##isa;                                                                              \
    void quantize_rows_##isa(const struct acts *a, uint32_t row_begin, uint32_t row_end);                    \
    void rms_norm_##isa(const float *x, const float *w, float w_offset, float eps, uint32_t n, float *y);    \
    void layer_norm_##isa(const float *x, const float *w, const float *b, float eps, uint32_t n, float *y);  \
    void rope_##isa(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cos,         \
                    const float *sin);                                                                       \
    void silu_mul_##isa(const float *gate, const float *up, uint32_t n, float *y);                           \
    void gelu_tanh_mul_##isa(const float *gate, const float *up, uint32_t n, float *y);                      \
    void add_##isa(const float *a, const float *b, uint32_t n, float *y);                                    \
    void scale_##isa(const float *a, float s, uint32_t n, float *y);                                         \
    void to_f16_##isa(const float *x, uint32_t n, uint16_t *y);                                              \
    uint32_t argmax_##isa(const float *x, uint32_t n);                                                       \
    void put_keys_##isa(const struct kv_row *r, const float *x);                                             \
    void put_values_##isa(const struct kv_row *r, const float *x);                                           \
    void peaks_##isa(const float *x, uint32_t n, float *y);                                                  \
    void peak_sums_##isa(const float *x, const float *peaks, float factor, uint32_t n, double *y);           \
    double sum_exp_masked_##isa(const float *x, const uint64_t *mask, float shift, float factor,             \
                                uint32_t n);                                                                 \
    void attention_##isa(const struct attention_args *a);                                                    \
    void attention_parts_##isa(const struct attention_args *a, uint32_t begin, uint32_t end, float *parts);  \
    void attention_join_##isa(const struct attention_args *a, const float *parts);                           \
    void expand_##isa(const struct expand_args *a);

/* Shared by all instruction sets. */
void gelu_mul_scalar(const float *gate, const float *up, uint32_t n, float *y);
void relu_mul_scalar(const float *gate, const float *up, uint32_t n, float *y);
void softmax_scalar(float *x, uint32_t n);

DECLARE_ISA(scalar)
DECLARE_ISA(avx2)
DECLARE_INT8(avxvnni)
DECLARE_ISA(avx512)
DECLARE_ISA(neon)

#endif
