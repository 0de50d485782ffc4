/* What base_open decides by the model's own figures. */
#include "tests/test.h"

#include <string.h>

#include "base_load.h"
#include "conf.h"
#include "kernels.h"

/* A tiny base (hidden size below 512) meets f32 activations unless it is told otherwise. */
static void small_bases_keep_f32_activations(void **state)
{
    static const struct {
        const char *act;
        enum act_mode mode;
    } cases[] = {
        {NULL, ACT_MODE_F32}, {"auto", ACT_MODE_F32}, {"int8", ACT_MODE_INT8}, {"f32", ACT_MODE_F32}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conf c;
        struct base b = {0};
        struct error err = {0};
        assert_true(conf_init(&c));
        c.model = "tests/golden/data/models/llama/f32";
        c.n_threads = 1;
        c.act = cases[i].act ? cases[i].act : c.act;
        enum status s = base_open(&c, &b, &err);
        assert_string_equal(err.text, "");
        assert_int_equal(s, STATUS_OK);
        assert_int_equal(b.kernels->act_mode, cases[i].mode);
        base_close(&b);
        conf_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_bases_keep_f32_activations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
