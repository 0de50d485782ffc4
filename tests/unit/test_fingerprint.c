/* core/model/sketch.c, adapters/stamp.c, base_match.c: copies of a base in other types are told from siblings
 * and strangers; a stamp says it beside an adapter; names say what names can. */
#include "tests/test.h"

#include <math.h>

#include "adapters.h"
#include "base/mem.h"
#include "base/team.h"
#include "fingerprint.h"
#include "format.h"
#include "model_inner.h"
#include "tests/unit/made_files.h"
#include "tests/unit/plain_model.h"

#define DEMO "demo/model"
#define DATA "tests/golden/data/"
#define SHARED "../shared/goldens/"

static struct base_sketch sketch_of(const struct model *m)
{
    struct base_sketch s;
    struct error err;
    assert_int_equal(model_sketch(m, &s, &err), STATUS_OK);
    return s;
}

static struct sketch_distance compare_models(const struct model *a, const struct model *b)
{
    struct base_sketch x = sketch_of(a), y = sketch_of(b);
    struct sketch_distance there, back;
    sketch_compare(&x, &y, &there);
    sketch_compare(&y, &x, &back);
    assert_int_equal(there.relation, back.relation);
    assert_true(there.outside == back.outside);
    base_sketch_fini(&x);
    base_sketch_fini(&y);
    return there;
}

/* ---- grids ---- */

static void values_lie_within_half_a_step(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0};
    enum { ROWS = 18, COLS = 96 };
    float x[ROWS * COLS], row[COLS];
    uint32_t seed = 7;
    for (int i = 0; i < ROWS * COLS; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = ((float)(seed >> 8) / 8388608.0F - 1) * (i % 5 == 0 ? 3.0F : 0.4F);
    }
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct packed w;
        struct error err;
        size_t bytes;
        uint64_t row_bytes;
        assert_int_equal(packed_shape(types[t], ROWS, COLS, &w, &bytes, &err), STATUS_OK);
        assert_true(dtype_row_bytes(types[t], COLS, &row_bytes));
        w.data = mem_aligned(64, bytes);
        uint8_t *stored = malloc(ROWS * row_bytes);
        for (int r = 0; types[t] != DTYPE_F16 && r < ROWS; r++)
            assert_true(quantize_row(types[t], x + r * COLS, COLS, stored + (size_t)r * row_bytes));
        for (int i = 0; types[t] == DTYPE_F16 && i < ROWS * COLS; i++) {
            uint16_t h = f32_to_f16(x[i]);
            memcpy(stored + 2 * i, &h, 2);
        }
        packed_fill(&w, 0, ROWS, stored);
        for (uint32_t r = 0; r < ROWS; r++) {
            packed_row_f32(&w, r, row);
            for (uint32_t b = 0; b < COLS / 32; b++) {
                struct grid g;
                packed_grid(&w, r, b, &g);
                assert_int_equal(g.n, 32);
                for (uint32_t k = 0; k < 32; k++) {
                    double v = x[r * COLS + b * 32 + k];
                    assert_true(g.value[k] == row[b * 32 + k]);
                    if (!g.is_end[k] && fabs(v - g.value[k]) > 0.5 * g.step[k] + fabs(v) * 0x1p-10)
                        fail_msg("%s: %g stored as %g, step %g", dtype_name(types[t]), v, (double)g.value[k],
                                 (double)g.step[k]);
                }
            }
        }
        free(stored);
        mem_free(w.data);
    }
}

/* ---- copies, siblings, strangers ---- */

static void copies_in_other_types_are_known(void **state)
{
    (void)state;
    static const enum quant types[] = {QUANT_AUTO, QUANT_F32, QUANT_Q8_0, QUANT_Q4_0};
    struct model *base = open_as(DEMO, QUANT_AUTO); /* bf16 */
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct model *copy = open_as(DEMO, types[i]);
        struct sketch_distance d = compare_models(base, copy);
        /* f32 of bf16 has the same values */
        assert_int_equal(d.relation, i < 2 ? SKETCH_EQUAL : SKETCH_COPY);
        assert_true(d.outside == 0 && d.n_values > 1000);
        for (size_t k = 2; k < i; k++) { /* two roundings of one base */
            struct model *other = open_as(DEMO, types[k]);
            assert_int_equal(compare_models(other, copy).relation, SKETCH_COPY);
            model_close(other);
        }
        model_close(copy);
    }
    model_close(base);
}

static void files_of_other_tools_are_copies(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *file;
    } pairs[] = {{"llama", "llama-F32"},    {"llama", "llama-BF16"}, {"llama", "llama-F16"},
                 {"llama", "llama-Q8_0"},   {"llama", "llama-Q5_1"}, {"llama", "llama-Q5_0"},
                 {"llama", "llama-Q4_1"},   {"llama", "llama-Q4_0"}, {"gemma3", "gemma3-F16"},
                 {"gemma3", "gemma3-Q8_0"}, {"qwen2", "qwen2-Q4_0"}, {"qwen2", "qwen2-Q8_0"}};
    if (!path_is_folder(SHARED "models/llama")) {
        print_message("skip: " SHARED " is absent\n");
        skip();
    }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char folder[200], file[200];
        snprintf(folder, sizeof folder, SHARED "models/%s/f32", pairs[i].folder);
        if (!path_is_folder(folder))
            snprintf(folder, sizeof folder, SHARED "models/%s", pairs[i].folder);
        snprintf(file, sizeof file, SHARED "gguf/%s.gguf", pairs[i].file);
        struct model *a = open_as(folder, QUANT_AUTO), *b = open_as(file, QUANT_AUTO);
        struct sketch_distance d = compare_models(a, b);
        if (d.relation != SKETCH_COPY && d.relation != SKETCH_EQUAL)
            fail_msg("%s: relation %d, outside %g in %s, relative %g", pairs[i].file, (int)d.relation,
                     d.outside, d.where, d.relative);
        model_close(a);
        model_close(b);
    }
}

/* The base with the adapter merged, scaled so that it is small. */
static struct model *make_sibling(const struct model *base, double scale, enum dtype type,
                                  struct adapter_version **v)
{
    struct adapter_source s = {.name = "x", .path = "demo/adapters/pt", .root_fd = -1, .scale = scale};
    struct model *merged;
    struct error err;
    assert_int_equal(adapter_load(&s, base, v, &err), STATUS_OK);
    assert_int_equal(model_merge(base, (*v)->lora, type, NULL, &merged, &err), STATUS_OK);
    return merged;
}

static void siblings_are_told_from_copies(void **state)
{
    (void)state;
    /* |delta| is 23 % of |W| at scale 1; 0.02 makes it half a percent. */
    static const double scales[] = {1, 0.1, 0.02};
    struct model *base = open_as(DEMO, QUANT_F32);
    struct model *q8 = open_as(DEMO, QUANT_Q8_0), *q4 = open_as(DEMO, QUANT_Q4_0);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        struct adapter_version *v, *again;
        struct model *sibling = make_sibling(base, scales[i], DTYPE_F32, &v);
        struct model *sibling_q8 = make_sibling(base, scales[i], DTYPE_Q8_0, &again);
        const struct model *others[] = {base, q8, q4};
        for (size_t k = 0; k < 3; k++) {
            struct sketch_distance d = compare_models(sibling, others[k]);
            if (d.relation != SKETCH_SIBLING)
                fail_msg("scale %g, %s: relation %d, outside %g", scales[i],
                         dtype_name(model_info(others[k])->weight_type), (int)d.relation, d.outside);
            assert_true(d.outside > 0.005 && d.relative < 0.5);
        }
        assert_int_equal(compare_models(sibling_q8, base).relation, SKETCH_SIBLING);
        assert_int_equal(compare_models(sibling_q8, sibling).relation, SKETCH_COPY);
        model_close(sibling);
        model_close(sibling_q8);
        adapter_release(v);
        adapter_release(again);
    }
    model_close(base);
    model_close(q8);
    model_close(q4);
}

static void strangers_are_no_siblings(void **state)
{
    (void)state;
    struct model *llama = open_model(DATA "models/llama/f32"), *demo = open_as(DEMO, QUANT_AUTO);
    assert_int_equal(compare_models(llama, demo).relation, SKETCH_SHAPES);
    struct base_sketch a = sketch_of(demo), b = sketch_of(demo);
    struct sketch_distance d;
    b.digest[0] ^= 1;
    sketch_compare(&a, &b, &d);
    assert_int_equal(d.relation, SKETCH_EQUAL); /* all sampled weights are */
    for (uint32_t i = 0; i < b.n_spots; i++)
        for (uint32_t k = 0; k < 32; k++)
            b.spots[i].grid.value[k] = a.spots[i].grid.value[31 - k];
    sketch_compare(&a, &b, &d);
    assert_int_equal(d.relation, SKETCH_OTHER);
    assert_true(d.relative > 1);
    b.shape.vocab_size++;
    sketch_compare(&a, &b, &d);
    assert_int_equal(d.relation, SKETCH_SHAPES);
    base_sketch_fini(&a);
    base_sketch_fini(&b);
    model_close(llama);
    model_close(demo);
}

static void every_family_has_a_sketch(void **state)
{
    (void)state;
    static const char *const families[] = {"gpt2", "phi3", "mixtral", "qwen3_moe", "gemma3", "olmo2"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char path[100];
        snprintf(path, sizeof path, DATA "models/%s/f32", families[i]);
        struct model *a = open_model(path), *b = open_as(path, QUANT_BF16);
        struct sketch_distance d = compare_models(a, b);
        assert_int_equal(d.relation, SKETCH_COPY);
        model_close(a);
        model_close(b);
    }
}

/* ---- the stamp ---- */

static void a_stamp_says_what_the_sketch_says(void **state)
{
    (void)state;
    struct model *m = open_as(DEMO, QUANT_Q4_0);
    struct base_sketch s = sketch_of(m), back;
    struct sketch_distance d;
    struct buf text;
    struct error err;
    snprintf(s.name, sizeof s.name, "a \"name\", \xc3\xa9");
    buf_init(&text, 0);
    assert_int_equal(stamp_render(&s, &text, &err), STATUS_OK);
    if (stamp_parse(text.data, text.length, "x", &back, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_string_equal(back.name, s.name);
    assert_string_equal(back.weight_type, "q4_0");
    assert_memory_equal(back.digest, s.digest, 32);
    assert_int_equal(back.n_spots, s.n_spots);
    for (uint32_t i = 0; i < s.n_spots; i++) {
        const struct grid *a = &s.spots[i].grid, *b = &back.spots[i].grid;
        assert_memory_equal(a->value, b->value, sizeof a->value);
        assert_memory_equal(a->is_end, b->is_end, sizeof a->is_end);
        for (uint32_t k = 0; k < a->n; k++)
            assert_true(b->step[k] >= a->step[k] && b->step[k] <= a->step[k] * 1.01F);
    }
    sketch_compare(&s, &back, &d);
    assert_int_equal(d.relation, SKETCH_EQUAL);
    base_sketch_fini(&back);
    /* Cut anywhere, it is refused. */
    for (size_t n = 0; n < text.length - 2; n += n < 700 ? 1 : 997)
        assert_int_not_equal(stamp_parse(text.data, n, "x", &back, &err), STATUS_OK);
    buf_fini(&text);
    base_sketch_fini(&s);
    model_close(m);
}

static void replace_once(char *dst, size_t dst_bytes, const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    assert_non_null(at);
    snprintf(dst, dst_bytes, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static void malformed_stamps_are_refused(void **state)
{
    (void)state;
#define GOOD_SPOT "\"3 00000001 3f800000bf000000 3c003c00\""
    static const char good[] =
        "{\"format\":\"lorikeet-base\",\"version\":1,\"name\":\"\",\"digest\":"
        "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\",\"weight_type\":\"f32\","
        "\"model_type\":\"llama\",\"n_layers\":1,\"hidden_size\":1,\"intermediate_size\":1,\"n_heads\":1,"
        "\"n_kv_heads\":1,\"head_dim\":1,\"vocab_size\":1,\"n_experts\":0,\"spots\":[" GOOD_SPOT "]}";
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        {"lorikeet-base", "other", "format: expected \"lorikeet-base\""},
        {"\"version\":1", "\"version\":2", "version is 2, expected 1"},
        {"\"version\":1", "\"version\":\"1\"", "version"},
        {"\"n_layers\":1", "\"n_layers\":-1", "n_layers"},
        {"\"n_layers\":1", "\"n_layers\":4294967296", "n_layers"},
        {"\"n_layers\":1", "\"n_layer\":1", "n_layers"},
        {"\"n_experts\":0", "\"n_experts\":0,\"more\":1", "no others"},
        {"00112233", "0011223", "digest"},
        {"00112233", "0011223g", "digest"},
        {"\"llama\"",
         "\""
         "0123456789012345678901234567890123456789012345678901234567890123\"",
         "model_type"},
        {"\"f32\"", "\"f\\u0000\"", "x:1"},
        {"[" GOOD_SPOT "]", "[]", "spots"},
        {"[" GOOD_SPOT "]", "{}", "spots"},
        {GOOD_SPOT, "1", "spots: item 1"},
        {GOOD_SPOT, "\"\"", "spots: item 1"},
        {GOOD_SPOT, "\"3\"", "spots: item 1"},
        {GOOD_SPOT, "\"3 00000001\"", "spots: item 1"},
        {GOOD_SPOT, "\"3 00000001 \"", "spots: item 1"},
        {GOOD_SPOT, "\"99 00000001 3f800000bf000000 3c003c00\"", "spots: item 1"},
        {GOOD_SPOT, "\"3 00000001 3f800000 3c003c00\"", "spots: item 1"},
        {GOOD_SPOT, "\"3 00000001 7f800000bf000000 3c003c00\"", "spots: item 1"},
        {GOOD_SPOT, "\"3 00000001 3f800000bf000000 bc003c00\"", "spots: item 1"},
        {GOOD_SPOT, "\"3 00000001 3f800000bf000000 7fc03c00\"", "spots: item 1"},
        {GOOD_SPOT, "\"3 00000001 3f800000bf000000 3c003c000\"", "spots: item 1"},
        {GOOD_SPOT, GOOD_SPOT "," GOOD_SPOT ",1", "spots: item 3"},
    };
    struct base_sketch s;
    struct error err;
    if (stamp_parse(good, strlen(good), "x", &s, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(s.n_spots == 1 && s.spots[0].kind == 3 && s.spots[0].grid.n == 2);
    assert_true(s.spots[0].grid.value[1] == -0.5F && s.spots[0].grid.is_end[0] && !s.spots[0].grid.is_end[1]);
    base_sketch_fini(&s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[2000];
        replace_once(text, sizeof text, good, cases[i].from, cases[i].to);
        enum status st = stamp_parse(text, strlen(text), "x", &s, &err);
        if ((st != STATUS_FORMAT && st != STATUS_UNSUPPORTED) || !strstr(err.text, cases[i].words))
            fail_msg("case %zu: %s '%s'", i, status_name(st), err.text);
        assert_null(s.spots);
    }
}

/* ---- names, and adapters ---- */

static void names_are_compared_as_people_read_them(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"google/gemma-3-270m", "gemma-3-270m"},
        {"google/gemma-3-270m", "Gemma 3 270m"},
        {"unsloth/gemma-3-270m-bnb-4bit", "google/gemma-3-270m"},
        {"/models/Llama-3.2-1B/", "meta-llama/llama-3.2-1b"},
        {"Qwen/Qwen2.5-0.5B-GGUF", "qwen2.5-0.5b"},
        {"gemma-3-270m-q4_k_m.gguf", "gemma-3-270m"},
        {"gemma-3-270m-IQ4_XS", "gemma-3-270m-Q8_0"},
        {"x", "X"},
    };
    static const char *const different[][2] = {
        {"google/gemma-3-270m", "google/gemma-3-270m-it"},
        {"llama-3.2-1b", "llama-3.2-3b"},
        {"", ""},
        {"", "x"},
        {"/", "/"},
        {"gguf", "bf16"},
        {"phi-4", "phi-4-mini"},
        {"model-k", "model"},
        {"mistral-7b-v0.1", "mistral-7b-v0.3"},
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (!base_names_agree(same[i][0], same[i][1]))
            fail_msg("'%s' and '%s' should agree", same[i][0], same[i][1]);
    for (size_t i = 0; i < sizeof different / sizeof *different; i++)
        if (base_names_agree(different[i][0], different[i][1]))
            fail_msg("'%s' and '%s' should differ", different[i][0], different[i][1]);
}

static void policies_accept_from_the_strongest_on(void **state)
{
    (void)state;
    static const bool accepts[BASE_POLICY_COUNT][5] = {
        [BASE_POLICY_SHAPES] = {true, true, true, true, false},
        [BASE_POLICY_ANY] = {true, true, true, true, true},
        [BASE_POLICY_NAME] = {true, true, true, false, false},
        [BASE_POLICY_PROVEN] = {true, true, false, false, false},
        [BASE_POLICY_EXACT] = {true, false, false, false, false},
    };
    for (unsigned p = 0; p < BASE_POLICY_COUNT; p++) {
        enum base_policy found;
        for (unsigned o = 0; o < 5; o++)
            assert_int_equal(base_policy_accepts((enum base_policy)p, BASE_EXACT + (enum base_outcome)o),
                             accepts[p][o]);
        assert_false(base_policy_accepts((enum base_policy)p, BASE_UNCHECKED));
        assert_true(base_policy_find(base_policy_name((enum base_policy)p), &found) && found == p);
    }
    enum base_policy none;
    assert_false(base_policy_find("sure", &none));
}

static void copy_file(const char *from_dir, const char *to_dir, const char *name)
{
    struct buf b;
    char path[300];
    buf_init(&b, 0);
    assert_true(path_join(path, sizeof path, from_dir, name));
    assert_int_equal(file_read_all(path, 1 << 24, &b, NULL), STATUS_OK);
    put_file(to_dir, name, b.data, b.length);
    buf_fini(&b);
}

static enum status load(const struct model *m, const char *path, enum base_policy policy,
                        struct adapter_findings *found, struct error *err)
{
    struct adapter_version *v;
    struct adapter_source s = {.name = "x",
                               .path = path,
                               .root_fd = -1,
                               .scale = 1,
                               .base_policy = policy,
                               .base_name = "served",
                               .findings = found};
    *err = (struct error){0};
    enum status st = adapter_load(&s, m, &v, err);
    adapter_release(v);
    return st;
}

static void adapters_are_held_against_their_stamp(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct adapter_findings found;
    struct error err;
    struct model *bf16 = open_as(DEMO, QUANT_AUTO), *q4 = open_as(DEMO, QUANT_Q4_0);
    copy_file("demo/adapters/pt", f.path, "adapter_config.json");
    copy_file("demo/adapters/pt", f.path, "adapter_model.safetensors");

    /* No stamp: names. */
    assert_int_equal(load(bf16, f.path, BASE_POLICY_SHAPES, &found, &err), STATUS_OK);
    assert_int_equal(found.report.base.outcome, BASE_SHAPES);
    assert_non_null(strstr(found.report.base.how, "warning: it names \"lorikeet-demo\""));
    assert_int_equal(load(bf16, f.path, BASE_POLICY_NAME, &found, &err), STATUS_MISMATCH);
    assert_int_equal(found.fault, ADAPTER_FAULT_BASE);
    assert_non_null(strstr(err.text, "base-match is \"name\""));
    char digest[65];
    memcpy(digest, found.report.digest_hex, sizeof digest);

    struct base_sketch s = sketch_of(bf16);
    assert_int_equal(stamp_write(f.path, &s, &err), STATUS_OK);
    assert_int_equal(load(bf16, f.path, BASE_POLICY_EXACT, &found, &err), STATUS_OK);
    assert_int_equal(found.report.base.outcome, BASE_EXACT);
    assert_true(found.report.base.stamped);
    assert_string_equal(found.report.digest_hex, digest); /* stamped, it is the same adapter */
    assert_int_equal(load(q4, f.path, BASE_POLICY_PROVEN, &found, &err), STATUS_OK);
    assert_int_equal(found.report.base.outcome, BASE_QUANTISED);
    assert_non_null(strstr(found.report.base.how, "in bf16; these are the same weights in q4_0"));
    assert_int_equal(load(q4, f.path, BASE_POLICY_EXACT, &found, &err), STATUS_MISMATCH);

    /* Stamped for a sibling. */
    struct adapter_version *v;
    struct model *f32 = open_as(DEMO, QUANT_F32), *sibling = make_sibling(f32, 0.05, DTYPE_F32, &v);
    base_sketch_fini(&s);
    s = sketch_of(sibling);
    assert_int_equal(stamp_write(f.path, &s, &err), STATUS_OK);
    assert_int_equal(load(q4, f.path, BASE_POLICY_SHAPES, &found, &err), STATUS_MISMATCH);
    assert_int_equal(found.fault, ADAPTER_FAULT_BASE);
    assert_int_equal(found.report.base.outcome, BASE_MISMATCH);
    assert_non_null(strstr(err.text, "trained further, or merged?"));
    assert_int_equal(load(q4, f.path, BASE_POLICY_ANY, &found, &err), STATUS_OK);
    assert_int_equal(found.report.base.outcome, BASE_MISMATCH);
    model_close(sibling);
    adapter_release(v);
    model_close(f32);

    /* Malformed, and of shapes that don't fit. */
    put_text(f.path, STAMP_FILE, "{}");
    assert_int_equal(load(q4, f.path, BASE_POLICY_SHAPES, &found, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "lorikeet_base.json"));
    assert_int_equal(load(q4, f.path, BASE_POLICY_ANY, &found, &err), STATUS_OK);
    struct adapter_report about;
    assert_int_equal(adapter_inspect(f.path, &about, &err), STATUS_FORMAT);
    struct model *llama = open_model(DATA "models/llama/f32");
    assert_int_equal(load(llama, f.path, BASE_POLICY_ANY, &found, &err), STATUS_MISMATCH);
    assert_int_equal(found.fault, ADAPTER_FAULT_BASE);
    assert_int_equal(found.report.base.outcome, BASE_MISMATCH);
    model_close(llama);
    base_sketch_fini(&s);
    model_close(bf16);
    model_close(q4);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_lie_within_half_a_step),
        cmocka_unit_test(copies_in_other_types_are_known),
        cmocka_unit_test(files_of_other_tools_are_copies),
        cmocka_unit_test(siblings_are_told_from_copies),
        cmocka_unit_test(strangers_are_no_siblings),
        cmocka_unit_test(every_family_has_a_sketch),
        cmocka_unit_test(a_stamp_says_what_the_sketch_says),
        cmocka_unit_test(malformed_stamps_are_refused),
        cmocka_unit_test(names_are_compared_as_people_read_them),
        cmocka_unit_test(policies_accept_from_the_strongest_on),
        cmocka_unit_test(adapters_are_held_against_their_stamp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
