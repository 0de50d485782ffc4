/* Element types of tensors, as files store them: plain floats and the block-quantised types of GGUF.
 * A quantised row is a row of blocks: `block_size` values in `block_bytes` bytes; rows are whole blocks. */
#ifndef LK_BASE_DTYPE_H
#define LK_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* enum, name, GGML type number (-1: none), values a block, bytes a block.
 * Block layouts: ggml-common.h of llama.cpp, types block_q8_0 and so on. F8_E4M3 is safetensors': one byte a
 * value, its scales are a tensor of their own. */
#define DTYPE_LIST(X)                                                                                        \
    X(F32, "f32", 0, 1, 4)                                                                                   \
    X(F16, "f16", 1, 1, 2)                                                                                   \
    X(BF16, "bf16", 30, 1, 2)                                                                                \
    X(Q4_0, "q4_0", 2, 32, 18)                                                                               \
    X(Q4_1, "q4_1", 3, 32, 20)                                                                               \
    X(Q5_0, "q5_0", 6, 32, 22)                                                                               \
    X(Q5_1, "q5_1", 7, 32, 24)                                                                               \
    X(Q8_0, "q8_0", 8, 32, 34)                                                                               \
    X(Q2_K, "q2_k", 10, 256, 84)                                                                             \
    X(Q3_K, "q3_k", 11, 256, 110)                                                                            \
    X(Q4_K, "q4_k", 12, 256, 144)                                                                            \
    X(Q5_K, "q5_k", 13, 256, 176)                                                                            \
    X(Q6_K, "q6_k", 14, 256, 210)                                                                            \
    X(IQ4_NL, "iq4_nl", 20, 32, 18)                                                                          \
    X(IQ4_XS, "iq4_xs", 23, 256, 136)                                                                        \
    X(MXFP4, "mxfp4", 39, 32, 17)                                                                            \
    X(F8_E4M3, "f8_e4m3", -1, 1, 1)                                                                          \
    X(I8, "i8", 24, 1, 1)                                                                                    \
    X(I32, "i32", 26, 1, 4)                                                                                  \
    X(I64, "i64", 27, 1, 8)

enum dtype {
#define DTYPE_ENUM(name, text, ggml, size, bytes) DTYPE_##name,
    DTYPE_LIST(DTYPE_ENUM)
#undef DTYPE_ENUM
        DTYPE_COUNT
};

struct dtype_info {
    const char *name;
    int ggml_type;
    uint32_t block_size;  /* values */
    uint32_t block_bytes; /* bytes */
};

const struct dtype_info *dtype_info(enum dtype t); /* static */
const char *dtype_name(enum dtype t);
bool dtype_is_quantized(enum dtype t); /* block_size > 1 */
bool dtype_is_float(enum dtype t);     /* F32, F16 or BF16 */
bool dtype_from_ggml(uint32_t ggml_type, enum dtype *out);
bool dtype_from_name(const char *name, enum dtype *out); /* "q8_0"; case matters */

/* Bytes of n_values in a row of type t; false when n_values is not whole blocks or the product overflows. */
bool dtype_row_bytes(enum dtype t, uint64_t n_values, uint64_t *out_bytes);

/* Conversions of single values, exact or round-to-nearest-even. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}
uint16_t f32_to_bf16(float f);
/* E4M3 as OCP's 8-bit floating point specification has it: bias 7, no infinities, 0x7f and 0xff are NaN. */
float f8_e4m3_to_f32(uint8_t b);

#endif
