/* Tools with `strict`: whatever tokens come out of the masks, the reply finds only calls in it that follow
 * the tools' schemas; and free text stays free. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "made_tokenizers.h"
#include "reply.h"
#include "tool_grammar.h"

#define WALK_TOKENS 240U

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"sum\",\"strict\":true,\"parameters\":{\"type\":"
    "\"object\","
    "\"properties\":{\"n\":{\"enum\":[1,2]},\"s\":{\"type\":\"string\"}},\"required\":[\"n\"],"
    "\"additionalProperties\":false}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"now\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"n\":{\"enum\":[1,2]}},\"sideways\":1}}}]";

static const char many_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"many\",\"strict\":true,\"parameters\":{\"type\":"
    "\"object\","
    "\"properties\":{\"on\":{\"type\":\"boolean\"},\"city\":{\"type\":\"string\",\"description\":\"Where\"},"
    "\"unit\":{\"type\":\"string\",\"enum\":[\"C\",\"it's 2\"]},\"count\":{\"$ref\":\"#/$defs/c\"},"
    "\"opts\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":20}},"
    "\"required\":[\"a\"]},"
    "\"list\":{\"type\":\"array\",\"items\":{\"enum\":[1,\"x\"]},\"maxItems\":2},"
    "\"odd\":{\"anyOf\":[{\"enum\":[\"a\",\"none\"]},{\"type\":\"null\"}]}},"
    "\"required\":[\"city\",\"unit\"],\"additionalProperties\":false,"
    "\"$defs\":{\"c\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}}}}}]";

/* What leads into calls, and what only looks like it. Bytes come first, special tokens last. */
static const char *const pieces[] = {"<｜tool▁calls▁begin｜>",
                                     "<start_function_call>",
                                     "<function_calls>",
                                     "[sum(",
                                     "[now",
                                     "**{",
                                     ")]",
                                     "n=",
                                     "<|START_ACTION|>",
                                     "<arg_key>",
                                     "many(city=",
                                     "many{city:",
                                     "<escape>",
                                     "<function=many",
                                     "\\n</parameter>\\n",
                                     "</arg_value>",
                                     "\\n</",
                                     "True",
                                     "none",
                                     "'",
                                     "<tool_calls>",
                                     ">>>",
                                     ">>>now\\n",
                                     "sum\\n{\\\"n\\\": ",
                                     "all\\n",
                                     "<function name=\\\"",
                                     "<function name=\\\"many\\\">",
                                     "<param name=\\\"",
                                     "<![CDATA[",
                                     "]]></param>",
                                     "</param>",
                                     "<｜tool▁call▁begin｜>",
                                     "<tool_call>",
                                     "</tool_call>",
                                     "<tool_",
                                     "call>",
                                     "<tool_call>\\n{\\\"name",
                                     "{\\\"name\\\": \\\"",
                                     "sum",
                                     "now",
                                     "\\\", \\\"",
                                     "other",
                                     "arguments\\\": ",
                                     "parameters\\\": ",
                                     "{\\\"n\\\": ",
                                     "}}",
                                     "}; ",
                                     "<think>",
                                     "</think>",
                                     "<function=sum>",
                                     "[TOOL_CALLS]",
                                     "[CALL_ID]abc",
                                     "[ARGS]",
                                     " {",
                                     "[{",
                                     "<|tool_call|>",
                                     "functools[",
                                     "<|python_tag|>",
                                     "}]",
                                     "\\n",
                                     "\\\"type\\\": \\\"function\\\", ",
                                     "hello "};
#define N_PIECES (sizeof pieces / sizeof *pieces)
static const char *const specials[] = {"<hidden>", "[TOOL_CALLS]", "[ARGS]", "<|tool_call|>", "<think>"};
#define N_SPECIALS (sizeof specials / sizeof *specials)
#define N_TOKENS (256 + N_PIECES + N_SPECIALS)

static struct tokenizer *make_tokenizer(bool with_specials)
{
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "{\"added_tokens\":[");
    for (size_t i = 0; i < N_SPECIALS; i++)
        buf_printf(&b, "%s{\"id\":%zu,\"content\":\"%s%s\",\"special\":true}", i ? "," : "",
                   256 + N_PIECES + i, specials[i], with_specials ? "" : "?");
    buf_puts(&b, "],\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],\"vocab\":{");
    put_byte_tokens(&b);
    for (size_t i = 0; i < N_PIECES; i++)
        buf_printf(&b, ",\"%s%s\":%zu", pieces[i],
                   with_specials && strcmp(pieces[i], "[ARGS]") == 0 ? "x" : "", 256 + i);
    return open_byte_tokenizer(&b, "null", "null");
}

struct rig {
    struct tokenizer *tokenizer;
    struct grammar_store *store;
    struct arena *arena;
    json_t *tools;
    struct tool_params params;
    struct reply_format format;
    struct grammar *grammar;
    int32_t kept[KEPT_TOKENS_MAX];
    uint32_t n_kept;
};

static enum status open_rig(struct rig *r, const char *format, const char *tools, struct error *err)
{
    enum tool_choice choice = r->params.choice ? r->params.choice : TOOL_AUTO;
    const struct grammar_scope scope = {r->store, r->tokenizer, N_TOKENS, NULL};
    r->tools = json_loads(tools, 0, NULL);
    r->params = (struct tool_params){.choice = choice, .tools = r->tools, .one_call = r->params.one_call};
    r->format.calls = call_syntax_named(format);
    r->format.tools = r->tools;
    r->format.one_call = r->params.one_call;
    r->n_kept = reply_format_tokens(&r->format, r->tokenizer, r->kept);
    r->arena = arena_create(0);
    const struct tool_grammar g = {.scope = &scope, .tools = &r->params, .format = &r->format};
    return tool_grammar_create(&g, r->arena, &r->grammar, err);
}

static void close_rig(struct rig *r)
{
    grammar_release(r->grammar);
    arena_destroy(r->arena);
    json_decref(r->tools);
    grammar_store_destroy(r->store);
    tokenizer_destroy(r->tokenizer);
}

static void begin_rig(struct rig *r, bool with_specials)
{
    *r = (struct rig){.tokenizer = make_tokenizer(with_specials),
                      .store = grammar_store_create(GRAMMAR_STORE_BYTES)};
}

/* One of the tokens that may come; those that lead somewhere more often. -1: none. */
static int32_t pick(const uint64_t *mask)
{
    int32_t list[N_TOKENS], n = 0;
    for (int rare = rand() % 4 == 0; n == 0 && rare < 2; rare++)
        for (int32_t t = 0; t < (int32_t)N_TOKENS; t++)
            if ((mask[t / 64] >> t % 64 & 1) && (rare || t >= 256 || (t > ' ' && t < 0x7F)))
                list[n++] = t;
    return n == 0 ? -1 : rand() % 2 ? list[rand() % n] : list[n - 1 - rand() % (n < 30 ? n : 30)];
}

/* As the engine writes it: special tokens that aren't kept are left out. */
static void write_token(const struct rig *r, int32_t token, struct buf *out)
{
    size_t n;
    bool shown = !tokenizer_is_special(r->tokenizer, token);
    const char *piece = tokenizer_piece(r->tokenizer, token, &n);
    for (uint32_t i = 0; i < r->n_kept; i++)
        shown |= r->kept[i] == token;
    if (shown)
        buf_append(out, piece, n);
}

/* The tool `many`, which has a field of each kind. */
static bool is_many(const json_t *a)
{
    static const char *const keys[] = {"city", "unit", "on", "count", "opts", "list", "odd"};
    const json_t *unit = json_object_get(a, "unit"), *on = json_object_get(a, "on"),
                 *count = json_object_get(a, "count"), *opts = json_object_get(a, "opts"),
                 *list = json_object_get(a, "list"), *odd = json_object_get(a, "odd");
    const char *u = json_string_value(unit);
    size_t n = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        n += json_object_get(a, keys[i]) != NULL;
    json_int_t c = json_integer_value(count);
    return n == json_object_size(a) && json_is_string(json_object_get(a, "city")) && u &&
           (strcmp(u, "C") == 0 || strcmp(u, "it's 2") == 0) && (!on || json_is_boolean(on)) &&
           (!count || (json_is_integer(count) && c >= 1 && c <= 9)) &&
           (!opts || (json_is_object(opts) && json_is_string(json_object_get(opts, "a")))) &&
           (!list || json_is_array(list)) && (!odd || json_is_string(odd) || json_is_null(odd));
}

static void check_call(const struct reply_call *c, const char *text)
{
    json_t *a = json_loadb(c->arguments.data, c->arguments.length, 0, NULL);
    if (!json_is_object(a) || (strcmp(c->name.data, "sum") != 0 && strcmp(c->name.data, "now") != 0 &&
                               strcmp(c->name.data, "many") != 0))
        fail_msg("%s\n has the call %s(%s)", text, c->name.data, c->arguments.data);
    if (strcmp(c->name.data, "many") == 0 && !is_many(a))
        fail_msg("%s\n has the call %s(%s)", text, c->name.data, c->arguments.data);
    json_int_t n = json_integer_value(json_object_get(a, "n"));
    const json_t *s = json_object_get(a, "s");
    if (strcmp(c->name.data, "sum") == 0 &&
        ((n != 1 && n != 2) || json_object_size(a) != 1U + (s != NULL) || (s && !json_is_string(s))))
        fail_msg("%s\n has the call %s(%s)", text, c->name.data, c->arguments.data);
    json_decref(a);
}

/* A random text of the grammar; how many calls were in it. */
static uint32_t walk(struct rig *r)
{
    struct grammar_matcher m = {0};
    struct reply p;
    struct buf text;
    uint64_t mask[(N_TOKENS + 63) / 64];
    int32_t tokens[WALK_TOKENS];
    uint32_t n = 0;
    bool may_end = false, whole = false;
    buf_init(&text, 0);
    while (n < WALK_TOKENS && !whole) {
        enum grammar_answer a = grammar_next(r->grammar, &m, tokens, n, mask, &may_end);
        assert_true(a == GRAMMAR_GOES_ON || a == GRAMMAR_COMPLETE);
        tokens[n] = a == GRAMMAR_GOES_ON ? pick(mask) : -1;
        whole = may_end && (tokens[n] < 0 || (n > 40 && rand() % 8 == 0));
        if (!whole && tokens[n] < 0)
            break;
        if (!whole)
            write_token(r, tokens[n++], &text);
    }
    reply_init(&p, &r->format);
    reply_push(&p, text.data ? text.data : "", text.length);
    reply_end(&p);
    uint32_t n_calls = p.n_calls, n_whole = whole ? n_calls : n_calls ? n_calls - 1 : 0;
    for (uint32_t i = 0; i < n_whole; i++)
        check_call(&p.calls[i], text.data);
    if (r->params.one_call)
        assert_true(n_calls <= 1);
    reply_fini(&p);
    buf_fini(&text);
    return n_calls;
}

static void only_strict_calls_come(void **state)
{
    (void)state;
    static const char *const names[] = {"hermes",     "mistral",       "mistral_list",    "qwen3_coder",
                                        "granite",    "phi4_mini",     "llama",           "any",
                                        "deepseek",   "functiongemma", "olmo3",           "pythonic",
                                        "glm45",      "command_r",     "functionary_v31", "apriel",
                                        "minicpm5",   "xlam",          "firefunction",    "functionary_v32",
                                        "mistral_v11"};
    static const struct {
        bool specials, thinks, in_thought, one_call;
    } ways[] = {{false, false, false, false}, {true, true, false, false}, {true, true, true, true}};
    srand(11);
    for (size_t i = 0; i < 3 * sizeof names / sizeof *names; i++) {
        struct rig r;
        struct error err;
        uint32_t n_calls = 0;
        begin_rig(&r, ways[i % 3].specials);
        r.params.one_call = ways[i % 3].one_call;
        r.format.thought = ways[i % 3].thinks ? thought_syntax_of("<think>", NULL) : NULL;
        r.format.in_thought = ways[i % 3].in_thought;
        if (call_syntax_named(names[i / 3])->to_all) {
            r.format.thought = NULL;
            r.format.in_thought = false;
            r.format.in_block = i % 3 > 0;
        }
        if (open_rig(&r, names[i / 3], tools_json, &err) != STATUS_OK)
            fail_msg("%s: %s", names[i / 3], err.text);
        for (int k = 0; k < 300; k++)
            n_calls += walk(&r);
        if (n_calls < 3)
            fail_msg("%s has %u calls", names[i / 3], n_calls);
        close_rig(&r);
    }
}

static void check_text(struct rig *r, const char *text, bool accepted)
{
    if (grammar_accepts(r->grammar, text, strlen(text)) != accepted)
        fail_msg("%s should%s be accepted", text, accepted ? "" : " not");
}

/* The notations that aren't JSON, forced and not. */
static void fields_follow_their_schemas(void **state)
{
    (void)state;
    static const char *const names[] = {"pythonic", "olmo3",  "functiongemma", "qwen3_coder",
                                        "glm45",    "hermes", "minicpm5"};
    srand(5);
    for (size_t i = 0; i < 2 * sizeof names / sizeof *names; i++) {
        struct rig r;
        struct error err;
        uint32_t n_calls = 0;
        begin_rig(&r, false);
        r.params.choice = i % 2 ? TOOL_AUTO : TOOL_REQUIRED;
        if (open_rig(&r, names[i / 2], many_json, &err) != STATUS_OK)
            fail_msg("%s: %s", names[i / 2], err.text);
        for (int k = 0; k < 400; k++)
            n_calls += walk(&r);
        if (n_calls < 3)
            fail_msg("%s has %u calls", names[i / 2], n_calls);
        close_rig(&r);
    }
}

static void check_text(struct rig *r, const char *text, bool accepted);

static void models_own_words_are_allowed(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "pythonic", many_json, &err), STATUS_OK);
    check_text(&r, "[many(on=True, city='São \"Paulo\"', unit=\"it's 2\", count=3)]", true);
    check_text(&r, " [many(city=\"x\",unit='C',opts={\"a\": \"b\"}), many(city='', unit='C')]", true);
    check_text(&r, "[many(city='x', unit='K')]", false);
    check_text(&r, "[many(unit='C')]", false);
    check_text(&r, "[many(city='x', unit='C', count=12)]", false);
    check_text(&r, "[other(city='x')]", true); /* no call */
    close_rig(&r);
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "functiongemma", many_json, &err), STATUS_OK);
    check_text(
        &r,
        "So <start_function_call>call:many{on:true,city:<escape>New, {York}<escape>,unit:<escape>C<escape>}"
        "<end_function_call><start_function_call>call:many{city:<escape><escape>,unit:<escape>C<escape>,"
        "count:9}"
        "<end_function_call>",
        true);
    check_text(
        &r,
        "<start_function_call>call:many{city:<escape>x<escape>,unit:<escape>K<escape>}<end_function_call>",
        false);
    close_rig(&r);
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "qwen3_coder", many_json, &err), STATUS_OK);
    check_text(&r,
               "<tool_call>\n<function=many>\n<parameter=city>\nNew\n</York>\n</"
               "parameter>\n<parameter=unit>\nC\n</parameter>\n"
               "<parameter=opts>\n{\"a\": \"b\"}\n</parameter>\n</function>\n</tool_call> Done.",
               true);
    check_text(&r,
               "<tool_call>\n<function=many>\n<parameter=city>\nNew\n</parameter>\n</function>\n</tool_call>",
               false);
    check_text(&r, "<function=many>", false);
    close_rig(&r);
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "glm45", many_json, &err), STATUS_OK);
    check_text(
        &r,
        "<tool_call>many\n<arg_key>city</arg_key>\n<arg_value>New\n</arg_value>\n<arg_key>unit</arg_key>\n"
        "<arg_value>C</arg_value>\n</tool_call>",
        true);
    check_text(&r,
               "<tool_call>many\n<arg_key>city</arg_key><arg_value>a</arg_value><arg_key>unit</"
               "arg_key><arg_value>C</arg_value>"
               "</tool_call>",
               true);
    close_rig(&r);
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "minicpm5", many_json, &err), STATUS_OK);
    check_text(&r,
               "So\n<function name=\"many\"><param name=\"city\"><![CDATA[New\n</param>]]></param><param "
               "name=\"unit\">C"
               "</param><param name=\"count\">3</param></function>\n<function name=\"many\"><param "
               "name=\"city\">x</param>"
               "<param name=\"unit\">it's 2</param></function>",
               true);
    check_text(
        &r,
        "<function name=\"many\"><param name=\"city\">New</param><param name=\"unit\">K</param></function>",
        false);
    check_text(&r,
               "<function name=\"many\"><param name=\"city\"><![CDATA[x</param><param "
               "name=\"unit\">C</param></function>",
               false);
    close_rig(&r);
    begin_rig(&r, false); /* what a notation can't say makes it JSON */
    assert_int_equal(
        open_rig(&r, "qwen3_coder",
                 "[{\"type\":\"function\",\"function\":{\"name\":\"p\",\"strict\":true,\"parameters\":"
                 "{\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"^x+$\"}},"
                 "\"required\":[\"a\"]}}}]",
                 &err),
        STATUS_OK);
    check_text(&r, "<tool_call>\n{\"name\": \"p\", \"arguments\": {\"a\": \"xx\"}}\n</tool_call>", true);
    check_text(&r, "<tool_call>\n{\"name\": \"p\", \"arguments\": {\"a\": \"y\"}}\n</tool_call>", false);
    check_text(&r, "<tool_call>\n<function=p>", false);
    close_rig(&r);
}

/* The prompt has the first mark, so the answer begins with the one to whom it speaks. */
static void functionary_says_to_whom(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    static const char two[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"sum\",\"strict\":true,\"parameters\":{\"type\":"
        "\"object\","
        "\"properties\":{\"n\":{\"enum\":[1,2]}},\"required\":[\"n\"],\"additionalProperties\":false}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"now\"}}]";
    for (int forced = 0; forced < 2; forced++) {
        begin_rig(&r, false);
        r.params.choice = forced ? TOOL_REQUIRED : TOOL_AUTO;
        r.format.in_block = true;
        assert_int_equal(open_rig(&r, "functionary_v32", two, &err), STATUS_OK);
        check_text(&r, "sum\n{\"n\": 1}", true);
        check_text(&r, "sum\n{\"n\": 2}>>>now\n{}", true);
        check_text(&r, "sum\n{\"n\": 3}", false);
        check_text(&r, ">>>sum\n{\"n\": 1}", false);
        check_text(&r, "all\nIt is >> so.", !forced);
        check_text(&r, "all\nI look.>>>sum\n{\"n\": 1}>>>now\n{}", !forced);
        check_text(&r, "all\nI look.>>>sum\n{\"n\": 3}", false);
        check_text(&r, "Hello", false);
        close_rig(&r);
    }
}

static void text_stays_free(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "hermes", tools_json, &err), STATUS_OK);
    check_text(&r, "", true);
    check_text(&r, "a < b <tool_cal <<tool \n {\"name\": 1}", true);
    check_text(&r, "x <tool_call>", false);
    check_text(&r, "x <tool_call>\n{\"name\": \"sum\", \"arguments\": {\"n\": 2}}\n</tool_call> and", true);
    check_text(&r, "<tool_call>{\"name\":\"now\",\"arguments\":{\"z\":[]}}</tool_call><tool_call>", false);
    check_text(&r, "<<tool_call>{\"name\": \"sum\", \"arguments\": {\"n\": 3}}</tool_call>", false);
    check_text(&r, "<tool_call>{\"name\": \"sum\", \"arguments\": {\"n\": 1, \"m\": 1}}</tool_call>", false);
    check_text(&r, "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>", false);
    close_rig(&r);
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "llama", tools_json, &err), STATUS_OK);
    check_text(&r,
               " {\"name\": \"sum\", \"parameters\": {\"n\": 2}}; {\"name\": \"now\", \"parameters\": {}}",
               true);
    check_text(&r, "{\"name\": \"sum\", \"parameters\": {\"n\": 3}}", false);
    check_text(&r, "{ \"name\" : \"Ada\"}", false);
    check_text(&r, "{ \"answer\" : {\"name\": 1}}", true);
    check_text(&r, "{\"n\\u0061me\": \"sum\"}", false);
    check_text(&r, "x {\"name\": \"sum\"} [1]", true);
    check_text(&r, "[ {\"type\"", false);
    check_text(&r, "[1, {\"type\": 2}]", true);
    check_text(&r, "so <|python_tag|>{\"name\": \"sum\", \"parameters\": {\"n\": 1}}", true);
    check_text(&r, "so <|python_tag|>print(1)", false);
    check_text(&r, "so <function=", false);
    close_rig(&r);
}

/* What a strict tool's schema has and grammars don't do is refused, and whose it is said; others may have it.
 */
static void refusals_name_the_tool(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    begin_rig(&r, false);
    assert_int_equal(open_rig(&r, "hermes",
                              "[{\"type\":\"function\",\"function\":{\"name\":\"fine\",\"strict\":true}},"
                              "{\"type\":\"function\",\"function\":{\"name\":\"odd\",\"strict\":true,"
                              "\"parameters\":{\"type\":\"object\",\"sideways\":1}}}]",
                              &err),
                     STATUS_UNSUPPORTED);
    assert_true(strstr(err.text, "odd: ") == err.text && strstr(err.text, "sideways"));
    close_rig(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_strict_calls_come),
        cmocka_unit_test(fields_follow_their_schemas),
        cmocka_unit_test(models_own_words_are_allowed),
        cmocka_unit_test(functionary_says_to_whom),
        cmocka_unit_test(text_stays_free),
        cmocka_unit_test(refusals_name_the_tool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
