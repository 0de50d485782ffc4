/* adapters: which modules a PEFT configuration means. Expected values are those of PEFT 0.21's
 * check_target_module_exists, _set_trainable and get_pattern_key over the same paths. */
#include "tests/test.h"

#include <jansson.h>
#include <string.h>

#include "format.h"
#include "peft_rules.h"

#define L0 "model.layers.0.self_attn.q_proj"
#define L1 "model.layers.1.self_attn.q_proj"
#define E3 "model.layers.1.mlp.experts.3.gate_proj"

static struct peft_rules *make(const char *text)
{
    json_t *j;
    struct error err = {0};
    struct peft_rules *r;
    assert_int_equal(json_parse(text, strlen(text), "c", 8, &j, &err), STATUS_OK);
    if (peft_rules_create(j, "c", &r, &err) != STATUS_OK)
        fail_msg("%s: %s", text, err.text);
    json_decref(j);
    return r;
}

static const struct {
    const char *config, *path;
    bool head, targeted;
} targets[] = {
    {"{\"target_modules\":[\"q_proj\"]}", L0, false, true},
    {"{\"target_modules\":[\"q_proj\"]}", "q_proj", false, true},
    {"{\"target_modules\":[\"q_proj\"]}", "model.xq_proj", false, false}, /* behind a dot */
    {"{\"target_modules\":[\"proj\",\"self_attn.q_proj\"]}", L0, false, true},
    {"{\"target_modules\":[\"layers.1.self_attn\"]}", L1, false, false},
    {"{\"target_modules\":[]}", L0, false, false},
    {"{\"target_modules\":\".*layers\\\\.(0|2).*q_proj\"}", L0, false, true},
    {"{\"target_modules\":\".*layers\\\\.(0|2).*q_proj\"}", L1, false, false},
    {"{\"target_modules\":\"q_proj\"}", L0, false, false}, /* the whole path */
    {"{\"target_modules\":\"a|.*q_proj\"}", L0, false, true},
    {"{\"target_modules\":\"all-linear\"}", L0, false, true},
    {"{\"target_modules\":\"All-Linear\"}", "lm_head", true, false},
    {"{\"target_modules\":[\"q_proj\"],\"exclude_modules\":[\"0.self_attn.q_proj\"]}", L0, false, false},
    {"{\"target_modules\":[\"q_proj\"],\"exclude_modules\":[\"0.self_attn.q_proj\"]}", L1, false, true},
    {"{\"target_modules\":[\"q_proj\"],\"exclude_modules\":\".*\\\\.0\\\\..*\"}", L0, false, false},
    {"{\"target_modules\":[\"q_proj\"],\"exclude_modules\":\"0\"}", L0, false, true},
    {"{\"target_modules\":[\"q_proj\"],\"modules_to_save\":[\"self_attn\"]}", L0, false, false},
    {"{\"target_modules\":[\"q_proj\"],\"modules_to_save\":[\"attn\"]}", L0, false, true},
    {"{\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[1]}", L0, false, false},
    {"{\"target_modules\":[\"q_proj\"],\"layers_to_transform\":1}", L1, false, true},
    {"{\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[]}", L0, false, true},
    {"{\"target_modules\":[\"" L0 "\"],\"layers_to_transform\":[1]}", L0, false,
     true}, /* by its whole path */
    {"{\"target_modules\":[\"gate_proj\"],\"layers_to_transform\":[1]}", E3, false,
     true}, /* the first number */
    {"{\"target_modules\":[\"gate_proj\"],\"layers_to_transform\":[3]}", E3, false, false},
    {"{\"target_modules\":[\"gate_proj\"],\"layers_to_transform\":[3],\"layers_pattern\":\"experts\"}", E3,
     false, true},
    {"{\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[1],\"layers_pattern\":[\"h\",\"layers\"]}",
     L1, false, true},
    {"{\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[1],\"layers_pattern\":[\"h\"]}", L1, false,
     false},
    {"{\"target_modules\":[\"lm_head\"],\"layers_to_transform\":[1]}", "x.lm_head", true,
     false}, /* no layer */
    {"{\"target_parameters\":[\"experts.down_proj\"]}", L0, false, false},
};

static void modules_are_targeted_as_peft_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        struct peft_rules *r = make(targets[i].config);
        struct error err = {0};
        bool targeted;
        assert_true(peft_rules_have_targets(r));
        assert_int_equal(peft_is_targeted(r, targets[i].path, targets[i].head, &targeted, &err), STATUS_OK);
        if (targeted != targets[i].targeted)
            fail_msg("%s: %s: %d", targets[i].config, targets[i].path, targeted);
        peft_rules_destroy(r);
    }
    struct peft_rules *r = make("{}");
    assert_false(peft_rules_have_targets(r));
    assert_false(peft_rules_have_parameters(r));
    peft_rules_destroy(r);
    peft_rules_destroy(NULL);
}

static void parameters_and_saved_modules_are_named(void **state)
{
    (void)state;
    struct peft_rules *r =
        make("{\"target_parameters\":[\"experts.down_proj\",\"gate.weight\"],\"modules_to_save\":"
             "[\"norm\",\"lm_head\",\"mlp\"]}");
    assert_true(peft_rules_have_parameters(r));
    assert_true(peft_is_parameter(r, "model.layers.0.mlp.experts.down_proj"));
    assert_true(peft_is_parameter(r, "model.layers.0.mlp.gate.weight"));
    assert_false(peft_is_parameter(r, "model.layers.0.mlp.experts.gate_up_proj"));
    assert_true(peft_is_saved(r, "model.norm") &&
                peft_is_saved(r, "model.layers.0.input_layernorm")); /* no dot */
    assert_true(peft_is_saved(r, "model.layers.0.mlp.up_proj"));     /* within one */
    assert_false(peft_is_saved(r, "model.layers.0.self_attn.q_proj"));
    bool saved, targeted;
    struct error err;
    assert_int_equal(peft_names_embedding(r, &saved, &targeted, &err), STATUS_OK);
    assert_true(saved && !targeted);
    peft_rules_destroy(r);
    r = make("{\"target_modules\":\".*embed_tokens\"}");
    assert_int_equal(peft_names_embedding(r, &saved, &targeted, &err), STATUS_OK);
    assert_true(!saved && targeted);
    peft_rules_destroy(r);
    r = make("{\"target_modules\":[\"wte\"]}"); /* not one of PEFT's names of embeddings */
    assert_int_equal(peft_names_embedding(r, &saved, &targeted, &err), STATUS_OK);
    assert_true(!saved && !targeted);
    peft_rules_destroy(r);
}

static void ranks_follow_any_pattern_that_matches(void **state)
{
    (void)state;
    struct peft_rules *r = make("{\"rank_pattern\":{\"q_proj\":4,\"layers\\\\.1\\\\..*q_proj\":6,\"^q\":9}}");
    struct peft_rank_found found;
    struct error err;
    assert_int_equal(peft_pattern_rank(r, L1, 6, &found, &err), STATUS_OK);
    assert_true(found.any && found.fits && found.first == 4);
    assert_int_equal(peft_pattern_rank(r, L0, 6, &found, &err), STATUS_OK);
    assert_true(found.any && !found.fits);
    assert_int_equal(peft_pattern_rank(r, "model.layers.1.v_proj", 6, &found, &err), STATUS_OK);
    assert_false(found.any);
    peft_rules_destroy(r);
}

static void patterns_are_bounded(void **state)
{
    (void)state;
    struct error err = {0};
    bool targeted;
    struct peft_rules *r = make("{\"target_modules\":\"((a+)+)+b\"}");
    assert_int_equal(
        peft_is_targeted(r, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaacb", false, &targeted, &err),
        STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "target_modules '((a+)+)+b' takes too long to match"));
    peft_rules_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modules_are_targeted_as_peft_does),
        cmocka_unit_test(parameters_and_saved_modules_are_named),
        cmocka_unit_test(ranks_follow_any_pattern_that_matches),
        cmocka_unit_test(patterns_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
