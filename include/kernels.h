/* Arithmetic: one table of functions, chosen once for the machine. No threads, no allocation, no policy in
 * here.
 *
 * The promise all others build on (batch-invariance): every output number is summed in an order that depends
 * on nothing but the two rows it is made of: not on how many other rows are in the batch, not on the panel
 * range, not on the thread. Scalar files are the definition; other instruction sets repeat their additions in
 * the same order, so all give the same bits (NaN payloads aside).
 *
 * Packed weights ("P16"): 16 output rows form a panel, K runs inside it, panel after panel:
 *
 *   F32, F16        [panel][k][16 rows]
 *   BF16            [panel][k/2][16 rows][2]
 *   F8_E4M3         [panel][128 k: scales f32 [16 rows] | [k][16 rows]]
 *   I8              [panel][128 k: scales f32 [16 rows] | [k/4][16 rows][4]]
 *   quantised       [panel][32 k: [k/4][16 rows][4] | scales | mins], drawn in core/kernels/panel.h
 *
 * The exact layout of a type belongs to its pack function; nobody outside core/kernels looks inside. Rows are
 * padded to 16 with zeros, K must be a multiple of the type's block (float types: any K). Base addresses are
 * 64-byte aligned. */
#ifndef LK_KERNELS_H
#define LK_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

#define PANEL_ROWS 16U
/* Raised with every change of what packed_fill writes: packed files of before are made anew then.
 * tests/unit/test_pack.c notices a change. */
#define PACKED_LAYOUT_VERSION 1U
#define ACT_BLOCK 32U /* activations are quantised per 32 values */

/* A weight matrix [rows, cols] packed for streaming. Immutable. The struct does not own `data`. */
struct packed {
    enum dtype type; /* of the stored weights: any of base/dtype.h but the integers */
    uint32_t rows, cols;
    uint32_t n_panels; /* ceil(rows / 16) */
    size_t panel_bytes;
    uint8_t *data; /* [n_panels, panel_bytes], 64-byte aligned */
};

/* How activations meet quantised weights. Float weights always meet f32 activations. */
enum act_mode { ACT_MODE_INT8, ACT_MODE_F32 };

/* 32 activations as int8, x ~ d * q, with the sums that weights' offsets and mins are multiplied by. A row's
 * last block is filled up with zeros. */
struct act_block {
    int8_t q[ACT_BLOCK];
    float d;
    float d_sum;     /* d * (float)sum */
    int16_t half[2]; /* sums of q[0..15] and q[16..31] */
    int32_t sum;     /* of both */
};

/* Activations of a batch of rows, in both forms; made once, shared by all matrices that read them. */
struct acts {
    const float *x; /* [n_rows, x_stride], x_stride >= cols */
    size_t x_stride;
    uint32_t n_rows, cols;
    struct act_block *blocks; /* int8 form, filled by quantize_rows: [n_rows, acts_stride(cols)]; may be NULL
                                 when no matrix wants it */
};

/* Blocks from one row's int8 form to the next one's: never a multiple of a cache's way, so that a tile's rows
 * don't push each other out (48 bytes * 4 modulo 8 are an odd number of lines). */
static inline size_t acts_stride(uint32_t cols)
{
    size_t n_blocks = (cols + ACT_BLOCK - 1) / ACT_BLOCK;
    return (n_blocks + 3) / 8 * 8 + 4;
}
static inline struct act_block *acts_row(const struct acts *a, uint32_t row)
{
    return a->blocks + row * acts_stride(a->cols);
}

/* Rows of the next chunk of `left` rows that meet panel after panel: as even as can be, so many whose int8
 * form takes at most n_bytes of a cache, and no more than most, but never fewer than 8 for want of either. */
#define ACTS_CHUNK_STEP 8U
#define ACTS_CHUNK_BYTES (192U * 1024U) /* of the second-level cache */
static inline uint32_t acts_chunk(uint32_t cols, uint32_t left, uint32_t most, size_t n_bytes)
{
    size_t fit = n_bytes / (acts_stride(cols) * sizeof(struct act_block)) / ACTS_CHUNK_STEP * ACTS_CHUNK_STEP;
    uint32_t max = fit < most ? (uint32_t)fit : most;
    max = max < ACTS_CHUNK_STEP ? ACTS_CHUNK_STEP : max;
    uint32_t n_chunks = (left + max - 1) / max;
    uint32_t even = n_chunks ? (left + n_chunks - 1) / n_chunks : 0;
    even = (even + ACTS_CHUNK_STEP - 1) / ACTS_CHUNK_STEP * ACTS_CHUNK_STEP;
    return even < left ? even : left;
}

/* y[row, panel_begin*16 .. panel_end*16) = W x (accumulate: += scale * W x) for all rows of x; columns >=
 * w->rows are not written. y: [n_rows, y_stride] float. */
struct matmul_args {
    const struct packed *w;
    const struct acts *x;
    uint32_t row_begin, row_end;     /* rows of x */
    uint32_t panel_begin, panel_end; /* panels of w */
    float *y;                        /* row `row` starts at y + row*y_stride, column = output row of w */
    size_t y_stride;
    bool accumulate;
    float scale; /* used with accumulate only */
    /* Weights are asked for so many bytes before their turn, where rows meet them first; 0: not at all. It
     * may reach behind the matrix, and no result depends on it. */
    uint32_t prefetch_bytes;
};
typedef void matmul_fn(const struct matmul_args *a);

/* y[row, panel_begin*16 .. panel_end*16) += scale * B t for rows [row_begin, row_end): B of the low-rank part
 * as I8, and each row's t rounded to int8 with one step for the row, so that whole numbers meet. */
#define EXPAND_COLS_MAX 4096U
struct expand_args {
    const struct packed *b; /* I8, at most EXPAND_COLS_MAX columns */
    const float *t;         /* row `row` starts at t + row*t_stride, [b->cols] */
    size_t t_stride;
    uint32_t row_begin, row_end;
    uint32_t panel_begin, panel_end;
    float *y;
    size_t y_stride;
    float scale;
    const uint8_t *next; /* next_bytes of memory that are read after this: asked for meanwhile; or NULL */
    size_t next_bytes;
};

/* Keys and values of one kv head in one page are a block each, of F32, F16, BF16 or I8:
 *
 *   keys     [page_tokens/16][head_dim][16 tokens]     what lanes take is 16 tokens' values side by side
 *   values   [head_dim/16][page_tokens][16]            or 16 values of one token; the last line may be
 * narrower I8       behind it f32 [page_tokens]: value = int8 * the token's scale, scale = largest magnitude
 * / 127
 *
 * page_tokens is a multiple of 16. */
#define ATTN_LANES 16U
struct kv_row {
    uint8_t *block;
    enum dtype type;
    uint32_t head_dim, page_tokens;
    uint32_t token; /* in the page */
};
static inline bool kv_block_has(enum dtype type)
{
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16 || type == DTYPE_I8;
}
static inline size_t kv_value_bytes(enum dtype type)
{
    return type == DTYPE_F32 ? 4 : type == DTYPE_I8 ? 1 : 2;
}
static inline uint32_t kv_padded(uint32_t head_dim)
{
    return (head_dim + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
}
/* A token's bytes of a block; the block has page_tokens times as many. head_dim below 2^28. */
static inline size_t kv_token_bytes(enum dtype type, uint32_t head_dim)
{
    return (size_t)head_dim * kv_value_bytes(type) + (type == DTYPE_I8 ? sizeof(float) : 0);
}

/* Attention of a few neighbouring tokens of one sequence with the query heads that share a kv head: all rows
 * (token, head) share each load of K and V. Token t stands at position + t and attends to
 * [max(0, position + t + 1 - window), position + t + 1). Positions are cut into splits at multiples of
 * ATTN_SPLIT; a split gives a part: its maximum, its sum and its sum of p V; parts are joined in ascending
 * order. So a row's result depends on its q, K, V, position and window alone: not on its neighbours, nor on
 * who computes which split. Numerically: online softmax, arXiv 1805.02867. */
#define ATTN_SPLIT 256U
struct attention_args {
    const float *q; /* token t's heads at q + t*stride: [n_group, head_dim], not yet scaled */
    float *out;     /* likewise */
    size_t stride;
    uint32_t n_tokens, n_group, head_dim;
    uint32_t position, window;   /* window 0: none */
    float scale;                 /* logits = scale * q.k */
    float softcap;               /* 0: none; else cap*tanh(logit/cap) before softmax */
    const uint8_t *const *pages; /* page of position p: pages[p / page_tokens] */
    uint32_t page_tokens;
    size_t k_offset, v_offset; /* from a page's start to its blocks of this layer and kv head */
    enum dtype kv_type;
    float *scratch; /* attention_scratch_floats(n_tokens * n_group, head_dim) */
};
/* A part of one row: [kv_padded(head_dim)] sums of p V, then maximum and sum, then room. */
static inline size_t attention_part_floats(uint32_t head_dim)
{
    return kv_padded(head_dim) + (size_t)ATTN_LANES;
}
static inline size_t attention_scratch_floats(uint32_t n_rows, uint32_t head_dim)
{
    return n_rows * (2 * attention_part_floats(head_dim) + head_dim) + 16 * ((size_t)ATTN_SPLIT + 16);
}
static inline uint32_t attention_first_split(const struct attention_args *a)
{
    return a->window && a->position + 1 > a->window ? (a->position + 1 - a->window) / ATTN_SPLIT : 0;
}
static inline uint32_t attention_last_split(const struct attention_args *a)
{
    return (a->position + a->n_tokens - 1) / ATTN_SPLIT;
}

/* Values of a row of logits that have one peak. */
#define PEAK_VALUES 256U
static inline uint32_t n_peaks_of(uint32_t n)
{
    return (n + PEAK_VALUES - 1) / PEAK_VALUES;
}

struct kernels {
    const char *isa; /* "scalar", "avx2", "avxvnni", "avx512", "neon" */
    enum act_mode act_mode;

    /* Matrix products by weight type; with act_mode F32 the quantised ones dequantise in registers. */
    matmul_fn *matmul[DTYPE_COUNT]; /* NULL for types that are not weights */

    /* Rounds rows [row_begin, row_end) of a->x per 32 values: d = amax/127, q = round-half-away(x * (1/d)),
     * ggml's Q8_0. */
    void (*quantize_rows)(const struct acts *a, uint32_t row_begin, uint32_t row_end);

    /* y = x / sqrt(mean(x^2) + eps) * (w + w_offset); arXiv 1910.07467 eq. 4. w_offset 1 for Gemma's HF
     * files. */
    void (*rms_norm)(const float *x, const float *w, float w_offset, float eps, uint32_t n, float *y);
    /* y = (x - mean) / sqrt(variance + eps) * w + b; arXiv 1607.06450 eq. 4. y may be x. */
    void (*layer_norm)(const float *x, const float *w, const float *b, float eps, uint32_t n, float *y);
    /* Rotates pairs (i, i + n_rot/2) of each of n_heads heads: "NEOX" order; cos/sin: [n_rot/2]. RoFormer,
     * arXiv 2104.09864. */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cos,
                 const float *sin);
    /* y = act(gate) * up; up NULL: act(gate). gelu_mul is the exact one, with erf. */
    void (*silu_mul)(const float *gate, const float *up, uint32_t n, float *y);
    void (*gelu_tanh_mul)(const float *gate, const float *up, uint32_t n, float *y);
    void (*gelu_mul)(const float *gate, const float *up, uint32_t n, float *y);
    void (*relu_mul)(const float *gate, const float *up, uint32_t n, float *y);
    /* x = softmax(x) in place: exp(x - max) / sum. */
    void (*softmax)(float *x, uint32_t n);
    void (*add)(const float *a, const float *b, uint32_t n, float *y);
    void (*scale)(const float *a, float s, uint32_t n, float *y);
    void (*to_f16)(const float *x, uint32_t n, uint16_t *y);
    /* Writes a token's head_dim values into a block of keys, or of values. */
    void (*put_keys)(const struct kv_row *r, const float *x);
    void (*put_values)(const struct kv_row *r, const float *x);
    void (*attention)(const struct attention_args *a);
    /* The same in two steps: the parts [n_tokens, n_group] of splits [begin, end), one split after another,
     * and the join of those of all splits from attention_first_split to attention_last_split. */
    void (*attention_parts)(const struct attention_args *a, uint32_t begin, uint32_t end, float *parts);
    void (*attention_join)(const struct attention_args *a, const float *parts);
    uint32_t (*argmax)(const float *x, uint32_t n); /* lowest index among equals; NaN never wins */
    /* y[i] = the largest of x[PEAK_VALUES * i …], -INFINITY where there are only NaN. */
    void (*peaks)(const float *x, uint32_t n, float *y);
    /* y[i] = the sum of exp((x - p) * factor) over the values of peak p = peaks[i]; 0 where p is -INFINITY,
     * NaN where one of them or p's own difference is. Each exp is an f32; what adding them up in f32 loses is
     * added too, so that the sum is theirs to about 2^-44. */
    void (*peak_sums)(const float *x, const float *peaks, float factor, uint32_t n, double *y);
    /* Sum of exp((x - shift) * factor) over those whose bit is set (i % 64 of word i / 64; bits from n on are
     * 0), in f32 for PEAK_VALUES values at a time and in double over these. */
    double (*sum_exp_masked)(const float *x, const uint64_t *mask, float shift, float factor, uint32_t n);
    void (*expand)(const struct expand_args *a);
};

/* CPU features, as text: "avx2 fma f16c avx512f …". */
void cpu_describe(char *dst, size_t dst_bytes);
/* The table for this machine limited to `limit`: "auto", "scalar", "avx2", "avxvnni", "avx512", "neon".
 * STATUS_UNSUPPORTED if the machine lacks it. The table is static and immutable. act_mode picks the quantised
 * matmuls' variant. */
LK_MUST_USE enum status kernels_select(const char *limit, enum act_mode act_mode, const struct kernels **out,
                                       struct error *err);

/* ---- packing ---- */

/* Bytes of a packed [rows, cols] matrix and its geometry (data stays NULL). STATUS_UNSUPPORTED for a type
 * without a kernel; STATUS_MISMATCH if cols is not whole blocks. */
LK_MUST_USE enum status packed_shape(enum dtype type, uint32_t rows, uint32_t cols, struct packed *out,
                                     size_t *size_bytes, struct error *err);
/* Packs source rows (in the file's row-major layout of the same type, row r at src + (r -
 * row_begin)*row_bytes) into rows [row_begin, row_end) of w; row_begin a multiple of 16. Panels are zeroed as
 * they are begun. Thread: any, on disjoint panels. */
void packed_fill(const struct packed *w, uint32_t row_begin, uint32_t row_end, const void *src);
/* Scales of a packed F8_E4M3 or I8 row, one for each 128 values: its weights become value * scale, rounded
 * once. packed_fill sets them to 1. scales: [ceil(cols / 128)]. Thread: any, after the row was filled. */
void packed_set_scales(const struct packed *w, uint32_t row, const float *scales);
/* One row back as floats, exactly the values that the matmul uses: embeddings, tests. y: [cols]. */
void packed_row_f32(const struct packed *w, uint32_t row, float *y);

/* ---- conversion of plain rows (the definition of each stored type) ---- */

/* n_values floats from a stored row; exact per the block layout. */
void dequantize_row(enum dtype type, const void *src, uint64_t n_values, float *y);
/* Floats to a stored row: F32 F16 BF16 Q8_0 Q4_0 (ggml's reference rounding). False for other types. */
bool quantize_row(enum dtype type, const float *x, uint64_t n_values, void *dst);

/* ---- dense products outside a step: merging, DoRA's norms ---- */

/* y += scale * B A by OpenBLAS, in the calling thread. b: [rows, k], a: [k, cols], y: [rows, cols], row-major
 * without gaps; sizes below 2^31, 0 changes nothing. |error| of a value <= (k + 4) * 2^-24 * (|scale| sum
 * |b_i a_i| + |y|), to first order. The order of the additions is the library's (it differs between
 * machines), but the same operands of the same shape give the same bits, with any number of callers at once.
 * Thread: any. */
void gemm_add_f32(uint32_t rows, uint32_t cols, uint32_t k, float scale, const float *b, const float *a,
                  float *y);

/* Bound on |kernel - f64 reference| for one float dot product of length n with sum of |a_i b_i| = s: the f32
 * summation error n*eps*s (Higham, Accuracy and Stability, eq. 3.5) with a factor of 2 for conversions. */
static inline double kernel_tolerance(uint32_t n, double s)
{
    return 2.0 * (n + 8) * 5.9604644775390625e-8 * s + 1e-30;
}

#endif
