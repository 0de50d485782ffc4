/* What models say, taken apart: each format of calls, reasoning, what only looks like it; and the same
 * however the bytes are cut. The texts are written as the public chat templates of these models make them. */
#include "../test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "made_tokenizers.h"
#include "reply.h"

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\"},"
    "\"opts\":{\"type\":[\"object\",\"null\"]},\"all\":{\"type\":\"boolean\"},\"any\":{\"anyOf\":[]}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"now\"}}]";

/* Templates: what is in them of each family that says how it calls. */
#define HERMES "<tool_call></tool_call>"
#define CODER "<tool_call>\n<function=x>"
#define LLAMA "Environment: ipython <|python_tag|>"
#define MISTRAL "[AVAILABLE_TOOLS] [TOOL_CALLS]"
#define DEEPSEEK "<｜tool▁calls▁begin｜>"
#define GRANITE "<|tool_call|>"
#define PHI "<|tool|>"
#define PYTHONIC "[func_name1(params_name1=params_value1)] ipython"
#define OLMO "<function_calls>"
#define LFM "<|tool_call_start|>"
#define GEMMA "<start_function_call>"
#define GLM "<tool_call>{name}<arg_key>"
#define COMMAND "<|START_ACTION|> <|START_THINKING|>"
#define NEMOTRON "<TOOLCALL>"
#define FUNCTIONARY "'>>>all\n' + message.content"
#define MINICPM "<function name=\"function-name\">"
#define XLAM "[{\"name\": \"tool_call_name\", \"arguments\": {}}] ipython"
#define FIRE "functools[{\"name\": [function name]}]"
#define NONE "tools"

struct shown {
    struct buf content, reasoning, calls;
};

/* Takes out what is there, as a stream does. */
static void drain(struct reply *p, struct shown *s, bool last)
{
    buf_append(&s->content, p->content.data ? p->content.data : "", p->content.length);
    buf_append(&s->reasoning, p->reasoning.data ? p->reasoning.data : "", p->reasoning.length);
    buf_clear(&p->content);
    buf_clear(&p->reasoning);
    for (uint32_t i = 0; i < p->n_calls; i++) {
        struct reply_call *c = &p->calls[i];
        if (!c->shown)
            buf_printf(&s->calls, "%s%s(", s->calls.length ? ")" : "", c->name.data);
        assert_true(strlen(c->id) == 9 || strncmp(c->id, "call_", 5) == 0);
        c->shown = true;
        buf_append(&s->calls, c->arguments.data ? c->arguments.data : "", c->arguments.length);
        buf_clear(&c->arguments);
    }
    if (last && s->calls.length)
        buf_putc(&s->calls, ')');
}

/* "reasoning|content|calls" of a text that comes in pieces of at most `most` bytes (0: of random sizes). */
static char *take_apart(const struct reply_format *f, const char *text, size_t most, bool streams)
{
    struct reply p;
    struct shown s;
    struct buf out;
    size_t n = strlen(text);
    buf_init(&s.content, 0);
    buf_init(&s.reasoning, 0);
    buf_init(&s.calls, 0);
    buf_init(&out, 0);
    reply_init(&p, f);
    for (size_t at = 0; at < n;) {
        size_t piece = most ? most : 1 + (size_t)(rand() % 9);
        piece = piece < n - at ? piece : n - at;
        reply_push(&p, text + at, piece);
        if (streams)
            drain(&p, &s, false);
        at += piece;
    }
    reply_end(&p);
    assert_true(p.pending.length == 0 && p.space.length == 0);
    drain(&p, &s, true);
    assert_false(reply_failed(&p) || reply_has_news(&p));
    buf_printf(&out, "%s|%s|%s", s.reasoning.data, s.content.data, s.calls.data);
    reply_fini(&p);
    buf_fini(&s.content);
    buf_fini(&s.reasoning);
    buf_fini(&s.calls);
    return buf_take(&out, &n);
}

static void check_format(const struct reply_format *f, const char *text, const char *want, bool streams)
{
    for (size_t most = 0; most < 40; most++) {
        char *got = take_apart(f, text, most, streams);
        if (strcmp(got, want) != 0)
            fail_msg("in pieces of %zu%s: %s\n gave     %s\n expected %s", most, streams ? ", streamed" : "",
                     text, got, want);
        free(got);
    }
    char *got = take_apart(f, text, strlen(text) + 1, streams);
    assert_string_equal(got, want);
    free(got);
}

static struct reply_format format_of(const char *template, const json_t *tools)
{
    return (struct reply_format){
        .calls = call_syntax_of(template), .thought = thought_syntax_of(template, NULL), .tools = tools};
}

/* Whole and streamed give the same, but for broken calls. */
static void check(const char *template, const char *text, const char *want)
{
    json_t *tools = json_loads(tools_json, 0, NULL);
    struct reply_format f = format_of(template, tools);
    check_format(&f, text, want, false);
    check_format(&f, text, want, true);
    json_decref(tools);
}

static void check_whole(const char *template, const char *text, const char *want)
{
    json_t *tools = json_loads(tools_json, 0, NULL);
    struct reply_format f = format_of(template, tools);
    check_format(&f, text, want, false);
    json_decref(tools);
}

static void hermes(void **state)
{
    (void)state;
    check(HERMES,
          "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
          "||get_weather({\"city\": \"Paris\"})");
    check(HERMES,
          "I'll look.\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
          "\"A\"}}\n</tool_call>\n"
          "<tool_call>\n{\"arguments\": {\"days\": [1, -2.5e3, {\"x\": null}]}, \"name\": "
          "\"unknown\"}\n</tool_call>\n",
          "|I'll look.|get_weather({\"city\": \"A\"})unknown({\"days\": [1, -2.5e3, {\"x\": null}]})");
    check(HERMES, "<tool_call>{\"name\": \"now\"}</tool_call>", "||now({})");
    check(HERMES, "<tool_call>{\"name\": \"now\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
          "||now({\"a\": 1})");
    check(HERMES,
          "<tool_call>\n[{\"name\": \"now\", \"arguments\": {}}, {\"name\": \"now\", \"arguments\": "
          "{}}]\n</tool_call>",
          "||now({})now({})");
    check(HERMES, "<tool_call>{\"name\": \"now\", \"arguments\": {\"s\": \"a\nb\"}}</tool_call> Done.",
          "|Done.|now({\"s\": \"a\\u000ab\"})");
    check(HERMES,
          "<tool_call>{\"function\": {\"name\": \"now\", \"arguments\": {\"a\": {}}}, \"type\": "
          "\"function\"}</tool_call>",
          "||now({\"a\": {}})");
    check(HERMES, "<tool_call>\n<function=now>\n</function>\n</tool_call>", "||now({})");
    check(HERMES, "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n",
          "||now({})"); /* no closing marker */
}

static void what_only_looks_like_a_call_is_content(void **state)
{
    (void)state;
    check(HERMES, "a < b, <tool and <tool_cal", "|a < b, <tool and <tool_cal|");
    check(HERMES, "  plain \n text \n ", "|  plain \n text \n |");
    check(HERMES, " \n ", "| \n |");
    check(HERMES, "", "||");
    check_whole(HERMES, "x <tool_call>\n{\"name\": \"now\", \"arguments\": {'a': 1}}\n</tool_call> y",
                "|x <tool_call>\n{\"name\": \"now\", \"arguments\": {'a': 1}}\n</tool_call> y|");
    check(HERMES, "<tool_call>hello</tool_call>", "|<tool_call>hello</tool_call>|");
    check(HERMES, "<tool_call></tool_call>", "|<tool_call></tool_call>|");
    check(HERMES, "<tool_call>{\"arguments\": {}}</tool_call>",
          "|<tool_call>{\"arguments\": {}}</tool_call>|");
    check_whole(HERMES, "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": ",
                "|<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": |");
    check_whole(HERMES,
                "<tool_call>{\"name\": \"now\"}</tool_call><tool_call>{\"name\": \"now\", x}</tool_call>",
                "|<tool_call>{\"name\": \"now\", x}</tool_call>|now({})");
    check(HERMES, "<tool_call>{\"name\": \"\"}</tool_call>", "|<tool_call>{\"name\": \"\"}</tool_call>|");
}

static void a_stream_keeps_what_it_has_shown(void **state)
{
    (void)state;
    json_t *tools = json_loads(tools_json, 0, NULL);
    struct reply_format f = format_of(HERMES, tools);
    check_format(&f, "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 12", "||now({\"a\": 12)", true);
    json_decref(tools);
}

static void llama(void **state)
{
    (void)state;
    check(LLAMA, "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}",
          "||get_weather({\"city\": \"Oslo\"})");
    check(LLAMA,
          "\n\n{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}; {\"name\": \"now\", "
          "\"parameters\": {}}",
          "||now({})now({})");
    check(LLAMA,
          "<|python_tag|>{\"type\": \"function\", \"function\": \"now\", \"parameters\": {\"a\": true}}",
          "||now({\"a\": true})");
    check(LLAMA, "<function=get_weather>{\"city\": \"Rome\"}</function>",
          "||get_weather({\"city\": \"Rome\"})");
    /* JSON that is no call of a tool is an answer */
    check(LLAMA, "{\"name\": \"Ada\", \"parameters\": {}} is she",
          "|{\"name\": \"Ada\", \"parameters\": {}} is she|");
    check(LLAMA, " {\"answer\": [1, 2]} ", "| {\"answer\": [1, 2]} |");
    check(LLAMA, "[1, 2]", "|[1, 2]|");
    check(LLAMA, "see {\"name\": \"now\", \"parameters\": {}}",
          "|see {\"name\": \"now\", \"parameters\": {}}|");
    check(LLAMA, "<|python_tag|>print(1)", "|<|python_tag|>print(1)|");
    /* those that it knew before */
    check(LLAMA, "<|python_tag|>get_weather.call(city=\"New \\\"York\\\"\", days=3)",
          "||get_weather({\"city\": \"New \\\"York\\\"\", \"days\": 3})");
    check(LLAMA, "So <|python_tag|>now.call()", "|So|now({})");
    check(LLAMA, "<|python_tag|>math.call(x=1)", "|<|python_tag|>math.call(x=1)|");
    check(LLAMA, "<|python_tag|>now(x=1)", "|<|python_tag|>now(x=1)|");
    check(LLAMA, "now.call()", "|now.call()|");
}

static void mistral(void **state)
{
    (void)state;
    check(MISTRAL,
          "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\"}}, {\"name\": \"now\", "
          "\"arguments\": {}, \"id\": \"abcdefghi\"}]",
          "||get_weather({\"city\": \"x\"})now({})");
    check(MISTRAL,
          "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"[ARGS]\"}[TOOL_CALLS]now[CALL_ID]a1b2c3d4e[ARGS]{}",
          "||get_weather({\"city\": \"[ARGS]\"})now({})");
    check(MISTRAL, "Let me see.[TOOL_CALLS]now{\"a\": 1}", "|Let me see.|now({\"a\": 1})");
    check(MISTRAL, "[TOOL_CALLS] nothing at all", "|[TOOL_CALLS] nothing at all|");
    check(MISTRAL, "[TOOL_CALLS] []", "|[TOOL_CALLS] []|");
    check(MISTRAL "[THINK]", "[THINK]hm[/THINK]yes", "hm|yes|");
    json_t *tools = json_loads(tools_json, 0, NULL);
    struct reply_format f = format_of(MISTRAL, tools);
    struct reply p;
    reply_init(&p, &f);
    reply_push(&p, "[TOOL_CALLS]now{}", 17);
    assert_int_equal(strlen(p.calls[0].id), 9); /* its templates want no other */
    reply_fini(&p);
    json_decref(tools);
}

static void function_tags(void **state)
{
    (void)state;
    check(CODER,
          "Sure.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nNew \"York\"\n\n</parameter>\n"
          "<parameter=days>\n 3 \n</parameter>\n<parameter=opts>\n{\"a\": [1]}\n</parameter>\n"
          "<parameter=all>\nTrue\n</parameter>\n</function>\n</tool_call>",
          "|Sure.|get_weather({\"city\": \"New \\\"York\\\"\\n\", \"days\": 3, \"opts\": {\"a\": [1]}, "
          "\"all\": true})");
    check(CODER, "<function=now>\n<parameter=a>\n1\n</parameter>\n</function>\n<function=now></function>",
          "||now({\"a\": \"1\"})now({})");
    check(CODER,
          "<function=get_weather><parameter=days>soon</parameter><parameter=any>\n[1]\n</"
          "parameter><parameter=city>\n\n</parameter></function>",
          "||get_weather({\"days\": \"soon\", \"any\": [1], \"city\": \"\"})");
    check(CODER,
          "<tool_call><function=now><parameter=code>\nif a < b:\n</param\n  "
          "x</parameter></function></tool_call>",
          "||now({\"code\": \"if a < b:\\n</param\\n  x\"})");
    check(CODER,
          "<function=get_weather><parameter=opts>\n {\"a\": "
          "\"</parameter>\\\"</parameter>\"}\n</parameter><parameter=days>{'a</"
          "parameter><parameter=any>\"x\"</parameter></function>",
          "||get_weather({\"opts\": {\"a\": \"</parameter>\\\"</parameter>\"}, \"days\": \"{'a\", \"any\": "
          "\"x\"})");
    check_whole(CODER, "<tool_call><function=now>oops", "|<tool_call><function=now>oops|");
    check_whole(CODER, "<tool_call>\n<function=now>\n<parameter=a>\n1",
                "|<tool_call>\n<function=now>\n<parameter=a>\n1|");
}

static void others(void **state)
{
    (void)state;
    check(DEEPSEEK,
          "Ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"
          "\"city\": \"x\"}\n```"
          "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<"
          "｜tool▁call▁end｜><｜tool▁calls▁end｜>",
          "|Ok|get_weather({\"city\": \"x\"})now({})");
    check(DEEPSEEK,
          "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{\"a\": "
          "1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
          "||now({\"a\": 1})");
    check(GRANITE, "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]", "||now({})");
    check(PHI, "functools[{\"name\": \"now\", \"arguments\": {\"a\": 1}}]", "||now({\"a\": 1})");
    check(PHI,
          "<|tool_call|>[{\"type\": \"function\", \"function\": {\"name\": \"now\", \"parameters\": "
          "{}}}]<|/tool_call|>",
          "||now({})");
    check(PHI, "functools[0] is a module", "|functools[0] is a module|");
    check(NONE, "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>", "||now({})");
    check(NONE, "{\"name\": \"now\", \"arguments\": {}}", "||now({})");
}

/* Python's literals, as JSON. */
static void pythonic(void **state)
{
    (void)state;
    check(PYTHONIC, "[get_weather(city=\"New \\\"York\\\"\", days=3), now()]",
          "||get_weather({\"city\": \"New \\\"York\\\"\", \"days\": 3})now({})");
    check(PYTHONIC,
          " [ now( a = True , b=None,c=false,) ,now(d={'k': [1, -2.5e3, (1, 'x',)], \"é\": {}}, e=[])\n]\n",
          "||now({\"a\": true, \"b\": null, \"c\": false})now({\"d\": {\"k\": [1, -2.5e3, [1, \"x\"]], "
          "\"é\": {}}, "
          "\"e\": []})");
    check(
        PYTHONIC,
        "[now(a='it\\'s \"q\"\\n\\x41\\u00e9\\U0001F600\\101\\d\ttab', b='''x'y''', c='', d=\"\"\"\"\"\", "
        "e=1_000, f=+.5, "
        "g=0x1F, h=5.)]",
        "||now({\"a\": \"it's \\\"q\\\"\\n\\u0041\\u00e9\\ud83d\\ude00\\u0041\\\\d\\ttab\", \"b\": \"x'y\", "
        "\"c\": \"\", \"d\": \"\", \"e\": 1000, \"f\": 0.5, \"g\": 31, \"h\": 5})");
    check(PYTHONIC, "[now(**{'a': 1, \"b\": true}), now(a={1: 2, True: 'x', 'c': 'd'})] Done.",
          "|Done.|now({\"a\": 1, \"b\": true})now({\"a\": {\"1\": 2, \"true\": \"x\", \"c\": \"d\"}})");
    check(PYTHONIC, "<|python_tag|>[now(a=1)]", "||now({\"a\": 1})");
    check(PYTHONIC, "<|python_tag|>other(a=1)", "||other({\"a\": 1})");
    check("<|python_start|>", "Sure.<|python_start|>[now(a=[[1], []])]<|python_end|>",
          "|Sure.|now({\"a\": [[1], []]})");
    check(PYTHONIC, "[{\"name\": \"now\", \"parameters\": {}}]", "||now({})");
    /* lists that call nothing are an answer */
    check(PYTHONIC, "[1, 2]", "|[1, 2]|");
    check(PYTHONIC, "[other(a=1)]", "|[other(a=1)]|");
    check(PYTHONIC, "see [now()]", "|see [now()]|");
    check(PYTHONIC, "[now the time](link)", "|[now the time](link)|");
    check_whole(PYTHONIC, "[now(1)]", "|[now(1)]|");
    check_whole(PYTHONIC, "[now(a=b)]", "|[now(a=b)]|");
    check_whole(PYTHONIC, "[now(a=f(1))]", "|[now(a=f(1))]|");
    check_whole(PYTHONIC, "[now(a={1})]", "|[now(a={1})]|");
    check_whole(PYTHONIC, "[now(a='x' 'y')]", "|[now(a='x' 'y')]|");
    check_whole(PYTHONIC, "[now(a=1]", "|[now(a=1]|");
    check_whole(PYTHONIC, "[now(a='\\u12g4')]", "|[now(a='\\u12g4')]|");
    check_whole(PYTHONIC, "[now(a=1_0_x)]", "|[now(a=1_0_x)]|");
    check_whole(PYTHONIC, "[now(a=\"cut", "|[now(a=\"cut|");
    check(OLMO, "<function_calls>\nget_weather(city='x')\nnow()\n</function_calls>",
          "||get_weather({\"city\": \"x\"})now({})");
    check(OLMO, "Well <function_calls>nothing</function_calls>",
          "|Well <function_calls>nothing</function_calls>|");
    check(LFM, "<|tool_call_start|>[now(a='b', c=\"\\/\")]<|tool_call_end|>Now.",
          "|Now.|now({\"a\": \"b\", \"c\": \"/\"})");
}

static void gemmas(void **state)
{
    (void)state;
    check(GEMMA,
          "<start_function_call>call:get_weather{city:<escape>New "
          "{\"York\"},<escape>,days:2}<end_function_call>",
          "||get_weather({\"city\": \"New {\\\"York\\\"},\", \"days\": 2})");
    check(
        GEMMA,
        "Ok.<start_function_call>call:now{}<end_function_call><start_function_call>call:now{a:[<escape>x<"
        "escape>,1.5,{b:"
        "true,c:null}],d:{},e:New York}<end_function_call>",
        "|Ok.|now({})now({\"a\": [\"x\", 1.5, {\"b\": true, \"c\": null}], \"d\": {}, \"e\": \"New York\"})");
    check(GEMMA,
          "<start_function_call>call:now{\"a\": {\"b\": \"c\\u00e9\\n\"}, "
          "<escape>d<escape>:1}<end_function_call>",
          "||now({\"a\": {\"b\": \"c\\u00e9\\n\"}, \"d\": 1})");
    check(GEMMA, "<start_function_call>now{}<end_function_call>",
          "|<start_function_call>now{}<end_function_call>|");
    check_whole(GEMMA, "<start_function_call>call:now{a:<escape>b",
                "|<start_function_call>call:now{a:<escape>b|");
    check_whole(GEMMA, "<start_function_call>call:now{a:(1)}", "|<start_function_call>call:now{a:(1)}|");
}

static void glms(void **state)
{
    (void)state;
    check(GLM,
          "So.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>New "
          "<b>\n</arg_value>\n<arg_key>days</arg_key>\n"
          "<arg_value>2</arg_value>\n</tool_call>\n<tool_call>now</tool_call>",
          "|So.|get_weather({\"city\": \"New <b>\\n\", \"days\": 2})now({})");
    check(GLM, "<tool_call>get_weather<arg_key>opts</arg_key><arg_value>{\"a\": [1]}</arg_value></tool_call>",
          "||get_weather({\"opts\": {\"a\": [1]}})");
    check(GLM, "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>", "||now({})");
    check_whole(GLM, "<tool_call>what is this</tool_call>", "|<tool_call>what is this</tool_call>|");
    check_whole(GLM, "<tool_call>now<arg_key>a</arg_key>b", "|<tool_call>now<arg_key>a</arg_key>b|");
    check_whole(GLM, "<tool_call>now<arg_key>a", "|<tool_call>now<arg_key>a|");
}

static void lists_in_other_tags(void **state)
{
    (void)state;
    check(COMMAND,
          "<|START_THINKING|>I will look.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", "
          "\"tool_name\": "
          "\"get_weather\", \"parameters\": {\"city\": \"x\"}},\n    {\"tool_call_id\": \"1\", "
          "\"tool_name\": \"now\", "
          "\"parameters\": {}}\n]<|END_ACTION|>",
          "I will look.||get_weather({\"city\": \"x\"})now({})");
    check(NEMOTRON,
          "<TOOLCALL>[{\"name\": \"now\", \"arguments\": {\"a\": 1}}, {\"name\": \"now\", \"arguments\": "
          "{}}]</TOOLCALL>",
          "||now({\"a\": 1})now({})");
}

/* Each part says for whom it is; the prompt has the first mark. */
static void functionary(void **state)
{
    (void)state;
    json_t *tools = json_loads(tools_json, 0, NULL);
    struct reply_format f = format_of(FUNCTIONARY, tools);
    static const char *const rows[][2] = {
        {"all\nHello >>> there", "|Hello >>> there|"},
        {"get_weather\n{\"city\": \"Oslo\"}>>>now\n{}", "||get_weather({\"city\": \"Oslo\"})now({})"},
        {"all\nI look.\n>>>get_weather\n{\"city\": \">>>all\\n\"}",
         "|I look.|get_weather({\"city\": \">>>all\\n\"})"},
        {"now\n{\"a\": 1}\n>>>all\nDone", "|Done|now({\"a\": 1})"},
        {"unknown\n {}", "||unknown({})"},
        {"all\nSay:\n>>> print(1)\n>>>x = {}\n", "|Say:\n>>> print(1)\n>>>x = {}\n|"},
        {"all", "||"},
        {"all the same", "|all the same|"},
        {"all\nnow\n{}", "|now\n{}|"},
        {"", "||"},
    };
    assert_true(block_is_open(f.calls, "assistant\n\n>>>", 14));
    assert_false(block_is_open(f.calls, "assistant\n\n", 11) ||
                 block_is_open(call_syntax_named("hermes"), "<tool_call>", 11));
    f.in_block = true;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_format(&f, rows[i][0], rows[i][1], true);
    f.only_text = true;
    check_format(&f, "all\nNo.>>>now\n{}", "|No.>>>now\n{}|", true);
    f.only_text = false;
    f.one_call = true;
    check_format(&f, "now\n{}>>>now\n{}", "||now({})", true);
    json_decref(tools);
    check(FUNCTIONARY, "Hi>>>now\n{}", "|Hi|now({})"); /* where the prompt has no mark */
    check(FUNCTIONARY, ">>>all\nHi", "|Hi|");
}

static void minicpm(void **state)
{
    (void)state;
    check(MINICPM,
          "So.\n<function name=\"get_weather\"><param name=\"city\"><![CDATA[a <b>\n</param> & "
          "\"c\"]]></param><param name=\"days\">3</param><param name=\"opts\">{'all': [1.5, 'x'], 'no': None}"
          "</param></function>\n<function name=\"now\"></function>",
          "|So.|get_weather({\"city\": \"a <b>\\n</param> & \\\"c\\\"\", \"days\": 3, \"opts\": "
          "{\"all\": [1.5, \"x\"], \"no\": null}})now({})");
    check(MINICPM,
          "<function name=\"get_weather\">\n<param name=\"all\">True</param>\n<param name=\"city\"> x\n"
          "</param>\n<param name=\"days\">[soon]</param></function>",
          "||get_weather({\"all\": true, \"city\": \" x\\n\", \"days\": \"[soon]\"})");
    check(MINICPM, "<function name=\"get_weather\"><param name=\"opts\">{'a': 1}), w(b={}</param></function>",
          "||get_weather({\"opts\": \"{'a': 1}), w(b={}\"})");
    check_whole(MINICPM, "<function name=\"now\">oops", "|<function name=\"now\">oops|");
    check(MINICPM, "<function name=x>", "|<function name=x>|");
}

static void lists_alone(void **state)
{
    (void)state;
    check(XLAM, "[{\"name\": \"now\", \"arguments\": {}}, {\"name\": \"now\", \"arguments\": {\"a\": 1}}]",
          "||now({})now({\"a\": 1})");
    check(FIRE, "functools[{\"name\": \"now\", \"arguments\": {}}]", "||now({})");
}

static void one_call_is_enough(void **state)
{
    (void)state;
    json_t *tools = json_loads(tools_json, 0, NULL);
    struct reply_format f = format_of(LLAMA, tools);
    const char *two =
        "{\"name\": \"now\", \"parameters\": {\"a\": 1}}; {\"name\": \"now\", \"parameters\": {}} x";
    check_format(&f, two, "|x|now({\"a\": 1})now({})", true);
    f.one_call = true;
    check_format(&f, two, "||now({\"a\": 1})", true);
    json_decref(tools);
}

static void write_parts(struct buf *out, const struct call_part *parts)
{
    for (; parts->kind; parts++)
        buf_puts(out, parts->kind == CALL_PART_NAME   ? "get_weather"
                      : parts->kind == CALL_PART_ID   ? "a1B2c3D4e"
                      : parts->kind == CALL_PART_JSON ? "{\"city\": \"<x>\"}"
                                                      : parts->text);
}

/* Each row's own way to write a call, as a grammar makes it, is read back. */
static void what_grammars_write_is_read(void **state)
{
    (void)state;
    static const char *const names[] = {"deepseek",  "mistral",       "mistral_list",    "qwen3_coder",
                                        "hermes",    "granite",       "phi4_mini",       "llama",
                                        "any",       "functiongemma", "olmo3",           "nemotron_json",
                                        "command_r", "lfm2",          "functionary_v31", "apriel",
                                        "pythonic",  "glm45",         "functionary_v32", "minicpm5",
                                        "xlam",      "firefunction",  "mistral_v11"};
    json_t *tools = json_loads(tools_json, 0, NULL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct reply_format f = {.calls = call_syntax_named(names[i]), .tools = tools};
        struct buf text;
        buf_init(&text, 0);
        assert_non_null(f.calls);
        const struct call_syntax *c = f.calls;
        bool two = c->separator || c->block_separator;
        for (int n = two ? 2 : 1; n; n--) {
            if (n == 1 + two || c->block_separator)
                write_parts(&text, c->begin);
            write_parts(&text, c->parts);
            if (n == 1 || c->block_separator)
                write_parts(&text, c->end);
            if (n > 1)
                buf_puts(&text, c->separator ? c->separator : c->block_separator);
        }
        check_format(&f, text.data,
                     two ? "||get_weather({\"city\": \"<x>\"})get_weather({\"city\": \"<x>\"})"
                         : "||get_weather({\"city\": \"<x>\"})",
                     true);
        buf_fini(&text);
    }
    assert_null(call_syntax_named("nothing"));
    assert_ptr_equal(call_syntax_named("llama3_json"), call_syntax_of(LLAMA));
    json_decref(tools);
}

static void reasoning(void **state)
{
    (void)state;
    check(HERMES "<think>", "<think>\nIt is\n  so.\n</think>\n\nYes.\n", "It is\n  so.|Yes.\n|");
    check(HERMES "</think>", "<think>\n\n</think>\n\nYes.", "|Yes.|");
    check(HERMES "<think>", "<think>call it</think>\n<tool_call>{\"name\": \"now\"}</tool_call>",
          "call it||now({})");
    check(HERMES "<think>", "<think>cut off </thin", "cut off </thin||");
    check(HERMES "<think>", "no <think> here", "|no <think> here|");
    check(HERMES "<think>", "<think><tool_call>{\"name\": \"now\"}</tool_call>",
          "<tool_call>{\"name\": \"now\"}</tool_call>||");
    check(LLAMA "<think>", "<think>a</think>{\"name\": \"now\", \"parameters\": {}}", "a||now({})");
    struct reply_format f = {.thought = thought_syntax_of("x<think>", NULL), .in_thought = true};
    check_format(&f, "so </think>\nYes  \n", "so|Yes  \n|", true);
    check_format(&f, "<think>\nso</think>Yes", "so|Yes|", true);
    f.in_thought = false;
    check_format(&f, "  Yes </think>", "|  Yes </think>|", true);
    struct reply_format plain = {0};
    check_format(&plain, " <think>a</think> <tool_call> ", "| <think>a</think> <tool_call> |", true);
    assert_true(thought_is_open(f.thought, "user\nassistant\n<think>\n", 23));
    assert_false(thought_is_open(f.thought, "<think>\n\n</think>\n", 18) ||
                 thought_is_open(f.thought, "ink>", 4));
    assert_null(thought_syntax_of("nothing of that kind", NULL));
    assert_null(thought_syntax_of(NULL, NULL));
}

static void thinking_is_told_while_it_lasts(void **state)
{
    (void)state;
    struct reply_format f = {.thought = thought_syntax_of("<think>", NULL)};
    struct reply p;
    reply_init(&p, &f);
    assert_false(reply_is_thinking(&p));
    reply_push(&p, "<think>", 7);
    assert_true(reply_is_thinking(&p));
    reply_push(&p, "a</thi", 6);
    assert_true(reply_is_thinking(&p));
    reply_push(&p, "nk>", 3);
    assert_false(reply_is_thinking(&p));
    reply_fini(&p);
}

/* The bytes that aren't white space. */
static void strip(const char *from, char *to)
{
    for (; *from; from++)
        if (!strchr(" \n", *from))
            *to++ = *from;
    *to = '\0';
}

/* Where no call and no reasoning was found, all is content. */
static void check_nothing_lost(const char *text, const char *got)
{
    char want[800], have[800];
    size_t n = strlen(got);
    if (got[0] != '|' || got[n - 1] != '|' || strstr(text, "think>"))
        return;
    strip(text, want);
    strip(got + 1, have);
    have[strlen(have) - 1] = '\0';
    assert_string_equal(have, want);
}

/* Random pieces of markers and JSON: no way of cutting changes anything, and nothing is lost. */
static void any_cut_gives_the_same(void **state)
{
    (void)state;
    static const char *const parts[] = {"<tool_call>",
                                        "</tool_call>",
                                        "{\"name\": ",
                                        "\"now\"",
                                        "\"get_weather\"",
                                        ", \"arguments\": ",
                                        "{}",
                                        "}",
                                        "{\"a\": 1",
                                        "\n",
                                        " ",
                                        "text",
                                        "<think>",
                                        "</think>",
                                        "<function=now>",
                                        "</function>",
                                        "<parameter=a>",
                                        "</parameter>",
                                        "[TOOL_CALLS]",
                                        "[",
                                        "]",
                                        ",",
                                        "now",
                                        "[ARGS]",
                                        "[CALL_ID]",
                                        "<｜tool▁call▁begin｜>",
                                        "<｜tool▁sep｜>",
                                        "```json",
                                        "```",
                                        "\"",
                                        "é",
                                        "<|python_tag|>",
                                        "now.call(",
                                        "functools[",
                                        "\\u00",
                                        "-1e",
                                        "null",
                                        "<",
                                        "{\"name\": \"now\", \"arguments\": {}}",
                                        "[now(",
                                        "now(",
                                        "a=",
                                        ")",
                                        "'",
                                        "\\",
                                        "'''",
                                        "**{",
                                        "(",
                                        "True",
                                        "1.5",
                                        ":",
                                        "<function_calls>",
                                        "</function_calls>",
                                        "<start_function_call>call:now{",
                                        "<escape>",
                                        "<end_function_call>",
                                        "<tool_call>now",
                                        "<arg_key>",
                                        "</arg_key>",
                                        "<arg_value>",
                                        "</arg_value>",
                                        ">>>",
                                        "all\n",
                                        "now\n{}",
                                        "<function name=\"now\">",
                                        "<param name=\"a\">",
                                        "<![CDATA[",
                                        "]]></param>",
                                        "</param>"};
    static const char *const templates[] = {
        HERMES "<think>", CODER, LLAMA, MISTRAL, DEEPSEEK,    GRANITE, PHI,           GLM,
        PYTHONIC,         GEMMA, OLMO,  MINICPM, FUNCTIONARY, XLAM,    NONE "<think>"};
    json_t *tools = json_loads(tools_json, 0, NULL);
    srand(7);
    for (int round = 0; round < 12000; round++) {
        char text[800] = "";
        struct reply_format f =
            format_of(templates[(size_t)rand() % (sizeof templates / sizeof *templates)], tools);
        f.in_thought = f.thought && rand() % 4 == 0;
        f.one_call = rand() % 8 == 0;
        f.in_block = f.calls->to_all && rand() % 2;
        for (int n = 1 + rand() % 14; n; n--)
            strcat(text, parts[(size_t)rand() % (sizeof parts / sizeof parts[0])]);
        char *whole = take_apart(&f, text, sizeof text, false);
        if (!f.one_call && !f.in_thought && !f.calls->to_all)
            check_nothing_lost(text, whole);
        for (size_t most = 0; most < 4; most++) {
            char *got = take_apart(&f, text, most, false);
            if (strcmp(got, whole) != 0)
                fail_msg("%s\n in pieces of %zu: %s\n whole: %s", text, most, got, whole);
            free(got);
            free(take_apart(&f, text, most, true));
        }
        free(whole);
    }
    json_decref(tools);
}

static void many_calls_are_bounded(void **state)
{
    (void)state;
    struct reply_format f = format_of(HERMES, NULL);
    struct reply p;
    reply_init(&p, &f);
    for (int i = 0; i < 300; i++)
        reply_push(&p, "<tool_call>{\"name\": \"a\"}</tool_call>", 36);
    reply_end(&p);
    assert_int_equal(p.n_calls, REPLY_CALLS_MAX);
    assert_int_equal(p.content.length, (300 - REPLY_CALLS_MAX) * 36);
    reply_fini(&p);
}

/* Any JSON text is one for the scan as well, in whatever pieces; what jansson refuses the scan refuses. */
static void scan_agrees_with_the_parser(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",    "[]",         "[1,2]", "{\"a\":[{}, [\"\\u00e9\\n\"]], \"b\": -0.5e+7}",
        "true",  "null ",      "-",     "[01]",
        "1. ",   "1e ",        "[1,]",  "{\"a\" 1}",
        "{a:1}", "\"\\x\"",    "[",     "nul1",
        "}",     "{]",         "0.5 ",  "1E-2 ",
        "[1 2]", "{\"a\":1,}", ",",     "\"a",
        "[tru]", "-0 "};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct json_scan s;
        enum scan_result r = SCAN_MORE;
        json_scan_begin(&s);
        for (const char *c = texts[i]; *c && r == SCAN_MORE; c++)
            r = json_scan_byte(&s, (unsigned char)*c);
        json_t *v = json_loads(texts[i], JSON_DECODE_ANY, NULL);
        assert_int_equal(v != NULL, r == SCAN_END || r == SCAN_PAST);
        json_decref(v);
    }
    struct json_scan deep;
    json_scan_begin(&deep);
    for (int i = 0; i < 64; i++)
        assert_int_equal(json_scan_byte(&deep, '['), SCAN_MORE);
    assert_int_equal(json_scan_byte(&deep, '['), SCAN_BAD);
}

static void special_markers_are_kept(void **state)
{
    (void)state;
    struct tokenizer *t =
        open_json("{\"added_tokens\":[{\"id\":1,\"content\":\"[TOOL_CALLS]\",\"special\":true},"
                  "{\"id\":2,\"content\":\"[ARGS]\",\"special\":true},{\"id\":3,\"content\":\"[THINK]\","
                  "\"special\":true},"
                  "{\"id\":4,\"content\":\"[/THINK]\",\"special\":false},{\"id\":5,\"content\":\"</"
                  "s>\",\"special\":true}],"
                  "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":0}}}");
    int32_t ids[KEPT_TOKENS_MAX];
    struct reply_format f = {.calls = call_syntax_of(MISTRAL), .thought = thought_syntax_of(NULL, t)};
    assert_non_null(f.thought);
    assert_int_equal(reply_format_tokens(&f, t, ids), 3);
    assert_true(ids[0] == 1 && ids[1] == 2 && ids[2] == 3);
    assert_int_equal(reply_format_tokens(&(struct reply_format){0}, t, ids), 0);
    tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hermes),
        cmocka_unit_test(what_only_looks_like_a_call_is_content),
        cmocka_unit_test(a_stream_keeps_what_it_has_shown),
        cmocka_unit_test(llama),
        cmocka_unit_test(mistral),
        cmocka_unit_test(function_tags),
        cmocka_unit_test(others),
        cmocka_unit_test(pythonic),
        cmocka_unit_test(gemmas),
        cmocka_unit_test(glms),
        cmocka_unit_test(lists_in_other_tags),
        cmocka_unit_test(functionary),
        cmocka_unit_test(minicpm),
        cmocka_unit_test(lists_alone),
        cmocka_unit_test(one_call_is_enough),
        cmocka_unit_test(what_grammars_write_is_read),
        cmocka_unit_test(reasoning),
        cmocka_unit_test(thinking_is_told_while_it_lasts),
        cmocka_unit_test(any_cut_gives_the_same),
        cmocka_unit_test(many_calls_are_bounded),
        cmocka_unit_test(scan_agrees_with_the_parser),
        cmocka_unit_test(special_markers_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
