/* Frames, the JSON writer inside them, and log-probabilities in both forms: what a reader parses again is
 * what was written. */
#include "../test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api_render.h"
#include "base/file.h"
#include "logprobs_json.h"
#include "sse.h"
#include "text.h"

static void writer(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    struct jw w = {.out = &b};
    jw_begin(&w, '{');
    jw_key_text(&w, "quote\"back\\", "a\"b\\c\n\t\r\x01\x7f");
    jw_key_text(&w, "null", NULL);
    jw_key_int(&w, "int", INT64_MIN);
    jw_key_bool(&w, "no", false);
    jw_key_float(&w, "float", (double)0.1f);
    jw_key_float(&w, "whole", 2);
    jw_key_float(&w, "inf", INFINITY);
    jw_key(&w, "list");
    jw_begin(&w, '[');
    jw_begin(&w, '[');
    jw_end(&w, ']');
    jw_raw(&w, "1,2", 3);
    jw_raw(&w, "", 0);
    jw_bytes(&w, "\xff\xc3\xa9\xc3", 4);
    jw_end(&w, ']');
    jw_end(&w, '}');
    assert_false(b.failed);
    json_t *v = json_loadb(b.data, b.length, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(v);
    assert_string_equal(json_string_value(json_object_get(v, "quote\"back\\")), "a\"b\\c\n\t\r\x01\x7f");
    assert_true(json_is_null(json_object_get(v, "null")) && json_is_null(json_object_get(v, "inf")));
    assert_int_equal(json_integer_value(json_object_get(v, "int")), INT64_MIN);
    assert_true((float)json_real_value(json_object_get(v, "float")) == 0.1f);
    assert_true(json_is_real(json_object_get(v, "whole")));
    const json_t *list = json_object_get(v, "list");
    assert_int_equal(json_array_size(list), 4);
    assert_string_equal(json_string_value(json_array_get(list, 3)), "\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd");
    json_decref(v);
    buf_fini(&b);
}

static void floats_survive(void **state)
{
    (void)state;
    uint32_t bits = 1;
    for (int i = 0; i < 20000; i++) {
        bits = bits * 1664525U + 1013904223U;
        float f;
        memcpy(&f, &bits, sizeof f);
        if (!isfinite(f))
            continue;
        struct buf b;
        buf_init(&b, 0);
        struct jw w = {.out = &b};
        jw_begin(&w, '[');
        jw_float(&w, (double)f);
        jw_end(&w, ']');
        json_t *v = json_loadb(b.data, b.length, 0, NULL);
        if (!v || (float)json_real_value(json_array_get(v, 0)) != f)
            fail_msg("%a became %s", (double)f, b.data);
        json_decref(v);
        buf_fini(&b);
    }
}

static void frames(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    sse_frame_begin(&b);
    struct jw w = {.out = &b};
    jw_text(&w, "line\nbreak");
    sse_frame_end(&b);
    assert_string_equal(b.data, "data: \"line\\nbreak\"\n\n");
    buf_clear(&b);
    render_error(&b, 404, "no \"x\"", "model", "model_not_found");
    assert_string_equal(b.data, "{\"error\":{\"message\":\"no \\\"x\\\"\",\"type\":\"invalid_request_error\","
                                "\"param\":\"model\",\"code\":\"model_not_found\"}}");
    buf_clear(&b);
    render_error(&b, 503, "full", "", NULL);
    assert_non_null(strstr(b.data, "\"type\":\"service_unavailable_error\",\"param\":null,\"code\":null"));
    buf_fini(&b);
}

/* Every status has a code, and no fault of the client's is a 5xx. */
static void statuses(void **state)
{
    (void)state;
    for (int s = 0; s < STATUS_COUNT; s++)
        assert_true(http_status_of((enum status)s) >= 200);
    assert_int_equal(http_status_of(STATUS_INVALID), 400);
    assert_int_equal(http_status_of(STATUS_UNSUPPORTED), 400);
    assert_int_equal(http_status_of(STATUS_NOT_FOUND), 404);
    assert_int_equal(http_status_of(STATUS_FULL), 503);
    assert_int_equal(http_status_of(STATUS_INTERNAL), 500);
}

/* ---- log-probabilities, with the tokenizer of our small golden model */

static json_t *written(struct logprob_list *l, enum api api)
{
    struct buf b;
    buf_init(&b, 0);
    struct jw w = {.out = &b};
    logprob_list_write(l, api, &w);
    json_error_t e;
    json_t *v = json_loadb(b.data, b.length, JSON_REJECT_DUPLICATES, &e);
    if (!v)
        fail_msg("%s: %s", e.text, b.data);
    buf_fini(&b);
    return v;
}

static struct tokenizer *open_tokenizer(void)
{
    static const char path[] = "tests/golden/data/models/llama/f32/tokenizer.json";
    struct buf text;
    struct error err;
    struct tokenizer *t = NULL;
    buf_init(&text, 0);
    if (file_read_all(path, 1 << 20, &text, &err) != STATUS_OK ||
        tokenizer_from_json(text.data, text.length, path, &t, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    buf_fini(&text);
    return t;
}

/* Tokens of half a character, which all look the same to a careless reader. */
static void find_halves(const struct tokenizer *t, int32_t halves[2])
{
    int n = 0;
    for (int32_t i = 0; n < 2 && i < (int32_t)tokenizer_n_tokens(t); i++) {
        size_t length = 0;
        const char *piece = tokenizer_piece(t, i, &length);
        if (piece && utf8_valid_prefix(piece, length) != length)
            halves[n++] = i;
    }
    assert_int_equal(n, 2);
}

static void logprobs(void **state)
{
    (void)state;
    struct tokenizer *t = open_tokenizer();
    int32_t a = tokenizer_find(t, "A", 1), special = tokenizer_find(t, "<|im_end|>", 10), halves[2];
    assert_true(a >= 0 && special >= 0);
    find_halves(t, halves);
    struct event e = {.token = halves[0],
                      .logprob = -INFINITY,
                      .n_top = 3,
                      .top = {{a, -0.5F}, {halves[1], -1}, {special, -2}}};
    struct event plain = {.token = a, .logprob = -0.25F, .n_top = 1, .top = {{a, -0.25F}}};
    struct logprob_list l;
    logprob_list_init(&l);

    struct logprob_style style = {.api = API_COMPLETIONS, .tokenizer = t, .skip_special = true};
    struct event end = {.token = special};
    logprob_list_add(&l, &style, &plain, false);
    logprob_list_add(&l, &style, &e, true);
    logprob_list_add(&l, &style, &end, true);
    logprob_list_add(&l, &style, &plain, true);
    json_t *v = written(&l, API_COMPLETIONS);
    json_t *tops = json_object_get(v, "top_logprobs"), *values = json_object_get(v, "token_logprobs");
    assert_string_equal(json_string_value(json_array_get(json_object_get(v, "tokens"), 0)), "A");
    assert_true(json_is_null(json_array_get(tops, 0)) && json_is_null(json_array_get(values, 0)));
    assert_int_equal(json_object_size(json_array_get(tops, 1)), 4); /* three and the chosen one */
    assert_true(json_real_value(json_array_get(values, 1)) == -9999);
    static const int offsets[] = {0, 1, 2, 2}; /* half a character shows as one; a special token not at all */
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(json_integer_value(json_array_get(json_object_get(v, "text_offset"), i)),
                         offsets[i]);
    json_decref(v);

    v = written(&l, API_COMPLETIONS); /* forgotten when written */
    assert_int_equal(json_array_size(json_object_get(v, "tokens")), 0);
    json_decref(v);

    style.api = API_CHAT;
    logprob_list_add(&l, &style, &e, true);
    v = written(&l, API_CHAT);
    const json_t *item = json_array_get(json_object_get(v, "content"), 0);
    size_t n = 0;
    const char *bytes = tokenizer_piece(t, halves[0], &n);
    assert_int_equal(json_array_size(json_object_get(item, "bytes")), n);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(item, "bytes"), 0)),
                     (unsigned char)bytes[0]);
    assert_int_equal(json_array_size(json_object_get(item, "top_logprobs")), 3);
    json_decref(v);
    logprob_list_fini(&l);
    tokenizer_destroy(t);
}

/* {text: value} can't hold a text twice: the chosen token's value is the one that must not be lost. */
static void texts_that_collide(void **state)
{
    (void)state;
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],\"vocab\":{\"<0x41>\":0,\"A\":1,"
        "\"<0x42>\":2,\"B\":3,\"C\":4}},\"decoder\":{\"type\":\"ByteFallback\"}}";
    struct tokenizer *t = NULL;
    struct error err;
    if (tokenizer_from_json(json, sizeof json - 1, "made", &t, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    struct event e = {.token = 1, /* A, behind the byte A; and B twice */
                      .logprob = -3,
                      .n_top = 4,
                      .top = {{0, -0.5F}, {2, -1}, {3, -2}, {4, -2.5F}}};
    struct logprob_style style = {.api = API_COMPLETIONS, .tokenizer = t};
    struct logprob_list l;
    logprob_list_init(&l);
    logprob_list_add(&l, &style, &e, true);
    e.n_top = 1; /* A's byte alone */
    logprob_list_add(&l, &style, &e, true);
    e.token = 0;
    e.logprob = -0.5F;
    e.n_top = 4;
    e.top[1] = (struct token_logprob){1, -0.75F};
    logprob_list_add(&l, &style, &e, true);
    style.as_ids = true;
    logprob_list_add(&l, &style, &e, true);
    json_t *v = written(&l, API_COMPLETIONS), *tops = json_object_get(v, "top_logprobs");
    static const struct {
        int size;
        const char *key;
        double value;
    } expected[] = {{3, "A", -3}, {1, "A", -3}, {3, "A", -0.5}, {4, "token_id:1", -0.75}};
    for (size_t i = 0; i < 4; i++) {
        const json_t *top = json_array_get(tops, i);
        assert_int_equal(json_object_size(top), expected[i].size);
        assert_float_equal(json_number_value(json_object_get(top, expected[i].key)), expected[i].value, 1e-6);
    }
    assert_float_equal(json_number_value(json_object_get(json_array_get(tops, 0), "B")), -1, 1e-6);
    json_decref(v);
    logprob_list_fini(&l);
    tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(writer),   cmocka_unit_test(floats_survive),
                                       cmocka_unit_test(frames),   cmocka_unit_test(statuses),
                                       cmocka_unit_test(logprobs), cmocka_unit_test(texts_that_collide)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
