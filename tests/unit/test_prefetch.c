/* core/model/prefetch_policy.c: every type has one of the distances, whatever was measured; what a small
 * model has is not left to chance; and when a measured one takes the usual one's place. No time is asserted.
 */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "model_inner.h"
#include "plain_model.h"

#define USUAL (N_PREFETCH_CHOICES - 1)

static const uint16_t choices[N_PREFETCH_CHOICES] = PREFETCH_CHOICES;

static void expect_choices(const struct prefetch_policy *p)
{
    for (unsigned t = 0; t < DTYPE_COUNT; t++)
        for (unsigned r = 0; r < PREFETCH_ROWS; r++) {
            bool known = false;
            for (unsigned c = 0; c < N_PREFETCH_CHOICES; c++)
                known = known || p->bytes[t][r] == choices[c];
            assert_true(known);
        }
}

static void clearly_faster_takes_the_place(void **state)
{
    (void)state;
    assert_int_equal(prefetch_best((double[]){97, 98, 99, 100}, USUAL), USUAL);
    assert_int_equal(prefetch_best((double[]){95, 98, 99, 100}, USUAL), 0);
    assert_int_equal(prefetch_best((double[]){95, 90, 92, 100}, USUAL), 1);
    assert_int_equal(prefetch_best((double[]){100, 90, 80, 70}, 0), 3);
    assert_int_equal(prefetch_best((double[]){100, 99, 98, 97}, 0), 0);
    assert_int_equal(prefetch_best((double[]){120, 110, 105, 100}, USUAL), USUAL);
    assert_int_equal(prefetch_best((double[]){0, 0, 0, 0}, USUAL), USUAL); /* nothing was measured */
    assert_int_equal(prefetch_best((double[]){0, 120, 90, 100}, USUAL), 2);
}

/* Twice the same, measured by nobody. */
static void small_models_have_the_usual(void **state)
{
    (void)state;
    static const char *const paths[] = {"tests/golden/data/models/llama/f32",
                                        "tests/golden/data/models/mixtral/f32"};
    for (int i = 0; i < 2; i++)
        for (int quantised = 0; quantised < 2; quantised++) {
            enum quant quant = quantised ? QUANT_Q8_0 : QUANT_AUTO;
            struct model *m = open_as(paths[i], quant), *again = open_as(paths[i], quant);
            const struct prefetch_policy *p = model_prefetch(m);
            char text[256], few[6];
            expect_choices(p);
            assert_true(p->has[model_info(m)->weight_type]);
            assert_false(p->has[DTYPE_Q4_K]);
            for (unsigned t = 0; t < DTYPE_COUNT; t++)
                assert_false(p->measured[t]);
            assert_memory_equal(p->bytes, model_prefetch(again)->bytes, sizeof p->bytes);
            assert_int_equal(prefetch_bytes(m, DTYPE_Q8_0, 4), 8704);
            assert_int_equal(prefetch_bytes(m, DTYPE_Q8_0, 1), p->bytes[DTYPE_Q8_0][PREFETCH_ONE]);
            assert_int_equal(prefetch_bytes(m, DTYPE_Q8_0, 3), p->bytes[DTYPE_Q8_0][PREFETCH_FEW]);
            assert_ptr_equal(model_prefetch_text(m, text, sizeof text), text);
            assert_non_null(strstr(text, dtype_name(model_info(m)->weight_type)));
            model_prefetch_text(m, few, sizeof few); /* cut */
            assert_int_equal(strlen(few), 5);
            model_close(m);
            model_close(again);
        }
}

static struct packed made(enum dtype type, uint32_t rows, uint32_t cols)
{
    struct packed w;
    size_t size;
    assert_int_equal(packed_shape(type, rows, cols, &w, &size, NULL), STATUS_OK);
    w.data = aligned_alloc(64, (size + 63) / 64 * 64);
    assert_non_null(w.data);
    memset(w.data, 0x3c, size);
    return w;
}

/* Matrices that are measured: several of a shape, whose last slices are short; one alone; and one of a type
 * that has too few of them. With a team and without; the scalar kernels, which never ask, and who has no time
 * measure nothing. The weights stay as they are. */
static void large_models_are_measured(void **state)
{
    (void)state;
    struct model_layer layers[2] = {0};
    struct model m = {.config = {.n_layers = 2}, .layers = layers, .info = {.size_bytes = 1}};
    struct team *team = team_create(3);
    assert_non_null(team);
    m.embed = made(DTYPE_F32, 40, 64);
    m.head = made(DTYPE_BF16, 4099, 1030);
    for (int i = 0; i < 2; i++) {
        layers[i].w[LORA_SITE_UP] = made(DTYPE_Q8_0, 3003, 1536);
        layers[i].w[LORA_SITE_O] = made(DTYPE_Q4_K, 64, 256);
    }
    static const char *const isas[] = {"scalar", "auto"};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(kernels_select(isas[i > 1], ACT_MODE_INT8, &m.kernels, NULL), STATUS_OK);
        prefetch_policy_choose(&m, i % 2 ? team : NULL, i < 4 ? 600 * NS_PER_S : 0);
        bool measures = strcmp(m.kernels->isa, "scalar") != 0 && i < 4;
        expect_choices(&m.prefetch);
        assert_true(m.prefetch.has[DTYPE_Q8_0] && m.prefetch.has[DTYPE_Q4_K] && m.prefetch.has[DTYPE_BF16]);
        assert_false(m.prefetch.has[DTYPE_F32]); /* no product reads an embedding alone */
        assert_false(m.prefetch.measured[DTYPE_Q4_K]);
        assert_int_equal(prefetch_bytes(&m, DTYPE_Q4_K, 4), 8704);
        assert_int_equal(m.prefetch.measured[DTYPE_Q8_0], measures);
        assert_int_equal(m.prefetch.measured[DTYPE_BF16], measures);
        if (!measures)
            assert_int_equal(prefetch_bytes(&m, DTYPE_Q8_0, 4), 8704);
    }
    assert_int_equal(m.head.data[0], 0x3c);
    for (int i = 0; i < 2; i++) {
        free(layers[i].w[LORA_SITE_UP].data);
        free(layers[i].w[LORA_SITE_O].data);
    }
    free(m.head.data);
    free(m.embed.data);
    team_destroy(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clearly_faster_takes_the_place),
        cmocka_unit_test(small_models_have_the_usual),
        cmocka_unit_test(large_models_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
