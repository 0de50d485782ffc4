#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "kernels.h"

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void test_table(void **state)
{
    (void)state;
    enum dtype t;
    uint64_t bytes = 7;
    assert_true(dtype_from_name("q6_k", &t));
    assert_int_equal(t, DTYPE_Q6_K);
    assert_false(dtype_from_name("Q6_K", &t));
    assert_true(dtype_from_ggml(30, &t));
    assert_int_equal(t, DTYPE_BF16);
    assert_true(dtype_from_ggml(10, &t));
    assert_int_equal(t, DTYPE_Q2_K);
    assert_true(dtype_from_ggml(39, &t));
    assert_int_equal(t, DTYPE_MXFP4);
    assert_false(dtype_from_ggml(16, &t)); /* IQ2_XXS: not ours */
    assert_false(dtype_from_ggml(UINT32_MAX, &t));
    assert_true(dtype_row_bytes(DTYPE_Q4_K, 512, &bytes));
    assert_int_equal(bytes, 288);
    assert_false(dtype_row_bytes(DTYPE_Q4_K, 500, &bytes));
    assert_false(dtype_row_bytes(DTYPE_I64, UINT64_MAX, &bytes));
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        assert_true(dtype_from_name(dtype_name((enum dtype)i), &t));
        assert_int_equal(t, i);
    }
}

static void test_f16_there_and_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000U; h++) {
        float f = f16_to_f32((uint16_t)h);
        bool nan = (h & 0x7fffU) > 0x7c00U;
        assert_int_equal(f32_to_f16(f), nan ? h | 0x200U : h);
        assert_true(isnan(f) == nan);
    }
    assert_int_equal(bits(f16_to_f32(0x3555)), 0x3eaaa000U);
    assert_int_equal(bits(f16_to_f32(0x0001)), 0x33800000U);
}

/* Each float half way between two halves must go to the even one, its neighbours to the nearer one. */
static void test_f16_ties(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bffU; h++) {
        float low = f16_to_f32((uint16_t)h), high = f16_to_f32((uint16_t)(h + 1));
        float middle = (float)(((double)low + (double)high) / 2);
        assert_int_equal(f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(f32_to_f16(-nextafterf(middle, 0)), 0x8000U | h);
    }
    assert_int_equal(f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
}

static void test_bf16(void **state)
{
    (void)state;
    assert_int_equal(f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(f32_to_bf16(1.00390625f), 0x3f80); /* a tie, to even */
    assert_int_equal(f32_to_bf16(1.01171875f), 0x3f82);
    assert_int_equal(f32_to_bf16(3.4028235e38f), 0x7f80);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
    for (uint32_t h = 0; h < 0x7f80U; h++)
        assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)h)), h);
}

static void test_f8(void **state)
{
    (void)state;
    assert_true(f8_e4m3_to_f32(0x38) == 1.0f);
    assert_true(f8_e4m3_to_f32(0xc4) == -3.0f);
    assert_true(f8_e4m3_to_f32(0x7e) == 448.0f); /* the largest */
    assert_true(f8_e4m3_to_f32(0x08) == 0x1p-6f);
    assert_true(f8_e4m3_to_f32(0x01) == 0x1p-9f); /* the least denormal */
    assert_int_equal(bits(f8_e4m3_to_f32(0x80)), 0x80000000U);
    for (unsigned b = 0; b < 256; b++) {
        unsigned exponent = b >> 3 & 15, mantissa = b & 7;
        float want =
            exponent ? ldexpf(1 + (float)mantissa / 8, (int)exponent - 7) : ldexpf((float)mantissa, -9);
        if ((b & 0x7f) == 0x7f)
            assert_true(isnan(f8_e4m3_to_f32((uint8_t)b)));
        else
            assert_true(f8_e4m3_to_f32((uint8_t)b) == (b & 128 ? -want : want));
    }
}

static void test_quantize_row(void **state)
{
    (void)state;
    float x[64], y[64], edge[32] = {127, -127, 0.5f, -0.5f, 1.5f, 0.49999997f};
    uint8_t stored[68];
    for (int i = 0; i < 64; i++)
        x[i] = (float)(i * i % 37 - 18) * 0.11f;
    assert_true(quantize_row(DTYPE_Q8_0, x, 64, stored));
    dequantize_row(DTYPE_Q8_0, stored, 64, y);
    for (int i = 0; i < 64; i++)
        assert_true(fabsf(x[i] - y[i]) < 18 * 0.11f / 127 * 0.57f); /* half a step, and the scale as f16 */
    assert_true(quantize_row(DTYPE_Q4_0, x, 64, stored));
    dequantize_row(DTYPE_Q4_0, stored, 64, y);
    for (int i = 0; i < 64; i++)
        assert_true(fabsf(x[i] - y[i]) < 18 * 0.11f / 8 * 1.01f); /* +max does not fit: one step at most */
    assert_true(quantize_row(DTYPE_Q8_0, edge, 32, stored));
    const int8_t want[6] = {127, -127, 1, -1, 2, 0};
    assert_memory_equal(stored + 2, want, 6);
    assert_false(quantize_row(DTYPE_Q4_K, x, 0, stored));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),    cmocka_unit_test(test_f16_there_and_back),
        cmocka_unit_test(test_f16_ties), cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_f8),       cmocka_unit_test(test_quantize_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
