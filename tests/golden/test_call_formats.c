/* What each model's own template writes for a call of a tool, the reply reads as that call: templates of
 * ../shared/goldens/chat. Skipped where that folder is absent. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "api_tools.h"
#include "base/buf.h"
#include "reply.h"
#include "text.h"

#define FOLDER "../shared/goldens/chat"
#define USER "What is it, USERS-WORDS?"

static const char *const formats[][2] = {
    {"jinja-Qwen-Qwen2.5-7B-Instruct", "hermes"},
    {"jinja-Qwen-Qwen3-0.6B", "hermes"},
    {"jinja-NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes"},
    {"jinja-NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes"},
    {"jinja-ibm-granite-granite-4.1", "hermes"},
    {"jinja-Qwen3-Coder", "qwen3_coder"},
    {"jinja-Qwen3.5-4B", "qwen3_coder"},
    {"jinja-mistralai-Mistral-Nemo-Instruct-2407", "mistral_list"},
    {"jinja-mistralai-Ministral-3-14B-Reasoning-2512", "mistral"},
    {"jinja-unsloth-mistral-Devstral-Small-2507", "mistral"},
    {"jinja-meta-llama-Llama-3.1-8B-Instruct", "llama"},
    {"jinja-meta-llama-Llama-3.2-3B-Instruct", "llama"},
    {"jinja-meta-llama-Llama-3.3-70B-Instruct", "llama"},
    {"jinja-meetkai-functionary-medium-v3.1", "functionary_v31"},
    {"jinja-meetkai-functionary-medium-v3.2", "functionary_v32"},
    {"jinja-openbmb-MiniCPM5-1B", "minicpm5"},
    {"jinja-deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek"},
    {"jinja-deepseek-ai-DeepSeek-V3.1", "deepseek"},
    {"jinja-NVIDIA-Nemotron-Nano-v2", "nemotron_json"},
    {"jinja-LFM2.5-8B-A1B", "lfm2"},
    {"jinja-GLM-4.7-Flash", "glm45"},
    {"jinja-Spark2.5", "glm45"},
    {"jinja-unsloth-Apriel-1.5", "apriel"},
};

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"Weather\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":\"c\"}"
    ","
    "\"days\":{\"type\":\"integer\",\"description\":\"d\"},\"opts\":{\"type\":\"object\",\"description\":"
    "\"o\"}},"
    "\"required\":[\"city\"]}}}]";
static const char arguments_json[] =
    "{\"city\":\"New York, <the> {big} city\",\"days\":2,\"opts\":{\"all\":[1.5,\"x\"],\"none\":{}}}";

/* The messages of a chat in which the tool was called; arguments as an object, or as a text. content: or
 * NULL.
 */
static json_t *chat_of(const char *arguments, const char *content)
{
    json_t *a = arguments ? json_string(arguments) : json_loads(arguments_json, 0, NULL);
    return json_pack("[{s:s, s:s}, {s:s, s:s?, s:[{s:s, s:s, s:{s:s, s:o}}]}]", "role", "user", "content",
                     USER, "role", "assistant", "content", content, "tool_calls", "id", "abcdefghi", "type",
                     "function", "function", "name", "get_weather", "arguments", a);
}

static bool reads_back(const struct call_syntax *syntax, const char *text, const json_t *tools)
{
    struct reply p;
    const struct reply_format f = {.calls = syntax, .tools = tools};
    bool ok = false;
    reply_init(&p, &f);
    reply_push(&p, text, strlen(text));
    reply_end(&p);
    if (p.n_calls == 1) {
        json_t *got = json_loads(p.calls[0].arguments.data, 0, NULL),
               *want = json_loads(arguments_json, 0, NULL);
        ok = strcmp(p.calls[0].name.data, "get_weather") == 0 && json_equal(got, want);
        json_decref(got);
        json_decref(want);
    }
    if (!ok)
        print_message("%s\n %u calls, %s(%s), content %s\n", text, p.n_calls,
                      p.n_calls ? p.calls[0].name.data : "", p.n_calls ? p.calls[0].arguments.data : "",
                      p.content.data);
    reply_fini(&p);
    return ok;
}

/* What stands behind the assistant's header: the first thing that the format knows. */
static const char *begin_of(const struct call_syntax *syntax, const char *text)
{
    const char *first = NULL, *found;
    for (size_t i = 0; i < MARKERS_MAX && syntax->open[i]; i++)
        if ((found = strstr(text, syntax->open[i])) && (!first || found < first))
            first = found;
    return first ? first : syntax->bare ? strpbrk(text, "{[") : NULL;
}

static bool template_holds(const json_t *golden, const char *name)
{
    const char *source = json_string_value(json_object_get(golden, "template"));
    const struct call_syntax *syntax = call_syntax_of(source);
    struct chat_template *t;
    struct error err;
    struct buf out;
    if (strcmp(syntax->names[0], name) != 0) {
        print_message("is %s, not %s\n", syntax->names[0], name);
        return false;
    }
    assert_int_equal(chat_template_compile(source, strlen(source), "template", &t, &err), STATUS_OK);
    buf_init(&out, 0);
    bool ok = false;
    json_t *tools = json_loads(tools_json, 0, NULL);
    for (int way = 0; way < 4 && !ok; way++) {
        json_t *v = json_pack("{s:o, s:O, s:b, s:n}", "messages",
                              chat_of(way % 2 ? arguments_json : NULL, way < 2 ? "" : NULL), "tools", tools,
                              "add_generation_prompt", 0, "documents");
        json_object_update(v, json_object_get(golden, "special_tokens"));
        buf_clear(&out);
        enum status s = chat_template_render(t, v, 0, NULL, &out, &err);
        const char *behind = s == STATUS_OK ? strstr(out.data, USER) : NULL;
        const char *begin = behind ? begin_of(syntax, behind + strlen(USER)) : NULL;
        ok = begin && reads_back(syntax, begin, tools);
        if (!begin)
            print_message("nothing of the format in %s [%s]\n", behind ? behind : "", err.text);
        json_decref(v);
    }
    buf_fini(&out);
    json_decref(tools);
    chat_template_destroy(t);
    return ok;
}

static void what_templates_write_is_read(void **state)
{
    (void)state;
    unsigned n_failed = 0, n_read = 0;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s.json", FOLDER, formats[i][0]);
        json_t *golden = json_load_file(path, 0, NULL);
        if (!golden)
            continue;
        n_read++;
        if (!template_holds(golden, formats[i][1])) {
            print_message("%s (%s)\n", formats[i][0], formats[i][1]);
            n_failed++;
        }
        json_decref(golden);
    }
    if (n_read == 0)
        skip();
    assert_int_equal(n_failed, 0);
    assert_int_equal(n_read, sizeof formats / sizeof *formats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_templates_write_is_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
