/* Sources of the rows: the chat templates that these models come with. */
#include "reply_format.h"

#include <string.h>

#include "text.h"

#define DS_CALLS_BEGIN "<｜tool▁calls▁begin｜>"
#define DS_CALLS_END "<｜tool▁calls▁end｜>"
#define DS_CALL_BEGIN "<｜tool▁call▁begin｜>"
#define DS_CALL_END "<｜tool▁call▁end｜>"
#define DS_SEP "<｜tool▁sep｜>"

/* clang-format off */
#define MARK(text) {CALL_PART_MARK, text}
#define TEXT(text) {CALL_PART_TEXT, text}
#define NAME {CALL_PART_NAME, NULL}
#define JSON {CALL_PART_JSON, NULL}
#define SPACE(text) {CALL_PART_SPACE, text}
/* {"name": NAME, "arguments": JSON} */
#define OBJECT(arguments) \
    {TEXT("{"), SPACE(""), TEXT("\"name\":"), SPACE(" "), TEXT("\""), NAME, TEXT("\","), SPACE(" "), \
     TEXT("\"" arguments "\":"), SPACE(" "), JSON, SPACE(""), TEXT("}")}
#define HERMES_CALLS \
    .begin = {MARK("<tool_call>"), SPACE("\n")}, .parts = OBJECT("arguments"), \
    .end = {SPACE("\n"), MARK("</tool_call>")}, .block_separator = "\n"
#define FIELDS {CALL_PART_FIELDS, NULL}
#define PYTHON_CALLS \
    .parts = {NAME, TEXT("(**"), JSON, TEXT(")")}, .native = {NAME, TEXT("("), FIELDS, TEXT(")")}
#define MISTRAL_MARKS \
    .open = {"[TOOL_CALLS]"}, .close = {"[/TOOL_CALLS]"}, .separators = {"[ARGS]"}, .id_mark = "[CALL_ID]", \
    .short_ids = true
#define LIST_OF_CALLS .parts = OBJECT("arguments"), .separator = ", "

/* The first row whose evidence is found counts; the last one has none and fits most. */
static const struct call_syntax syntaxes[] = {
    {.names = {"deepseek", "deepseek_v3", "deepseek_v31"},
     .evidence = {DS_CALLS_BEGIN, DS_CALL_BEGIN},
     .open = {DS_CALLS_BEGIN, DS_CALL_BEGIN},
     .close = {DS_CALL_END, DS_CALLS_END},
     .separators = {DS_SEP},
     .begin = {MARK(DS_CALLS_BEGIN)},
     .parts = {MARK(DS_CALL_BEGIN), TEXT("function"), MARK(DS_SEP), NAME, TEXT("\n```json\n"), JSON,
               TEXT("\n```"), MARK(DS_CALL_END)},
     .end = {MARK(DS_CALLS_END)},
     .separator = "\n"},
    {.names = {"mistral_v11"}, /* its tokenizer's version: later ones leave the ids out */
     .evidence = {"[CALL_ID]"},
     MISTRAL_MARKS,
     .begin = {MARK("[TOOL_CALLS]")},
     .parts = {NAME, MARK("[CALL_ID]"), {CALL_PART_ID, NULL}, MARK("[ARGS]"), JSON},
     .block_separator = ""},
    {.names = {"mistral"},
     .evidence = {"[ARGS]"},
     MISTRAL_MARKS,
     .begin = {MARK("[TOOL_CALLS]")},
     .parts = {NAME, MARK("[ARGS]"), JSON},
     .block_separator = ""},
    {.names = {"mistral_list"}, /* before its tokenizer had [ARGS] */
     .evidence = {"[TOOL_CALLS]"},
     MISTRAL_MARKS,
     .begin = {MARK("[TOOL_CALLS]"), SPACE(" "), TEXT("[")},
     LIST_OF_CALLS,
     .end = {TEXT("]")}},
    {.names = {"functiongemma"},
     .evidence = {"<start_function_call>"},
     .open = {"<start_function_call>"},
     .close = {"<end_function_call>"},
     .style = CALLS_BRACED,
     .quote = "<escape>",
     .begin = {MARK("<start_function_call>")},
     .parts = {TEXT("call:"), NAME, JSON},
     .native = {TEXT("call:"), NAME, TEXT("{"), FIELDS, TEXT("}")},
     .end = {MARK("<end_function_call>")},
     .block_separator = ""},
    {.names = {"command_r", "cohere_command3"},
     .evidence = {"<|START_ACTION|>"},
     .open = {"<|START_ACTION|>"},
     .close = {"<|END_ACTION|>"},
     .begin = {MARK("<|START_ACTION|>"), TEXT("[")},
     .parts = {TEXT("{"), SPACE(""), TEXT("\"tool_name\":"), SPACE(" "), TEXT("\""), NAME, TEXT("\","),
               SPACE(" "), TEXT("\"parameters\":"), SPACE(" "), JSON, SPACE(""), TEXT("}")},
     .separator = ", ",
     .end = {TEXT("]"), MARK("<|END_ACTION|>")}},
    {.names = {"nemotron_json"},
     .evidence = {"<TOOLCALL>"},
     .open = {"<TOOLCALL>"},
     .close = {"</TOOLCALL>"},
     .begin = {MARK("<TOOLCALL>"), TEXT("[")},
     LIST_OF_CALLS,
     .end = {TEXT("]"), MARK("</TOOLCALL>")}},
    {.names = {"olmo3"},
     .evidence = {"<function_calls>"},
     .open = {"<function_calls>"},
     .close = {"</function_calls>"},
     .style = CALLS_PYTHON,
     .begin = {MARK("<function_calls>"), SPACE("\n")},
     PYTHON_CALLS,
     .separator = "\n",
     .end = {SPACE("\n"), MARK("</function_calls>")}},
    {.names = {"lfm2"},
     .evidence = {"<|tool_call_start|>"},
     .open = {"<|tool_call_start|>"},
     .close = {"<|tool_call_end|>"},
     .style = CALLS_PYTHON,
     .begin = {MARK("<|tool_call_start|>"), TEXT("[")},
     PYTHON_CALLS,
     .separator = ", ",
     .end = {TEXT("]"), MARK("<|tool_call_end|>")}},
    {.names = {"pythonic", "llama4_pythonic"}, /* Llama 3.2 and 4, Gemma 3, ToolACE: a list and nothing else */
     .evidence = {"<|python_start|>", "func_name1("},
     .open = {"<|python_tag|>", "<|python_start|>"},
     .close = {"<|python_end|>"},
     .style = CALLS_PYTHON,
     .bare = true,
     .begin = {TEXT("[")},
     PYTHON_CALLS,
     .separator = ", ",
     .end = {TEXT("]")}},
    {.names = {"functionary_v31"}, /* Llama 3.1's way, too, where it is told to */
     .evidence = {"<function=example_function_name>{"},
     .open = {"<function=", "<|python_tag|>"},
     .begin = {MARK("<function=")},
     .parts = {NAME, TEXT(">"), JSON},
     .end = {TEXT("</function>")},
     .block_separator = ""},
    {.names = {"functionary_v32"}, /* who is spoken to, in front of each part; the prompt has the first mark */
     .evidence = {">>>all"},
     .open = {">>>"},
     .to_all = "all",
     .begin = {MARK(">>>")},
     .parts = {NAME, TEXT("\n"), JSON},
     .block_separator = ""},
    {.names = {"apriel"},
     .evidence = {"<tool_calls>"},
     .open = {"<tool_calls>"},
     .close = {"</tool_calls>"},
     .begin = {MARK("<tool_calls>"), TEXT("[")},
     LIST_OF_CALLS,
     .end = {TEXT("]"), MARK("</tool_calls>")}},
    {.names = {"glm45", "glm47"},
     .evidence = {"<arg_key>"},
     .open = {"<tool_call>"},
     .close = {"</tool_call>"},
     .style = CALLS_TAGGED,
     .native = {NAME, TEXT("\n"), FIELDS},
     HERMES_CALLS},
    {.names = {"minicpm5"},
     .evidence = {"<function name=\""},
     .open = {"<function name=\""},
     .style = CALLS_PARAM,
     .begin = {MARK("<function name=\"")},
     .parts = {NAME, TEXT("\">"), JSON},
     .native = {NAME, TEXT("\">"), FIELDS},
     .end = {TEXT("</function>")},
     .block_separator = "\n"},
    {.names = {"qwen3_coder", "qwen3_xml"},
     .evidence = {"<function="},
     .open = {"<tool_call>", "<function="},
     .close = {"</tool_call>"},
     .style = CALLS_CODER,
     .native = {TEXT("<function="), NAME, TEXT(">\n"), FIELDS, TEXT("</function>")},
     HERMES_CALLS},
    {.names = {"hermes"}, /* Qwen2.5, Qwen3, SmolLM3, Granite 4, too */
     .evidence = {"<tool_call>"},
     .open = {"<tool_call>"},
     .close = {"</tool_call>"},
     HERMES_CALLS},
    {.names = {"granite"},
     .evidence = {"<|tool_call|>", "<|/tool_call|>"},
     .open = {"<|tool_call|>", "<tool_call>"},
     .close = {"<|/tool_call|>", "</tool_call>"},
     .begin = {MARK("<|tool_call|>"), TEXT("[")},
     LIST_OF_CALLS,
     .end = {TEXT("]")}},
    {.names = {"phi4_mini", "phi4_mini_json"},
     .evidence = {"<|tool|>", "<|/tool|>"},
     .open = {"<|tool_call|>", "functools["},
     .close = {"<|/tool_call|>"},
     .begin = {MARK("<|tool_call|>"), TEXT("[")},
     LIST_OF_CALLS,
     .end = {TEXT("]"), MARK("<|/tool_call|>")}},
    {.names = {"firefunction"},
     .evidence = {"functools["},
     .open = {"functools["},
     .functions_text = true,
     .begin = {MARK("functools[")},
     LIST_OF_CALLS,
     .end = {TEXT("]")}},
    {.names = {"xlam"}, /* a list and nothing else */
     .evidence = {"\"tool_call_name\", \"arguments\""},
     .open = {"[TOOL_CALLS]", "<tool_call>"},
     .close = {"[/TOOL_CALLS]", "</tool_call>"},
     .bare = true,
     .begin = {TEXT("[")},
     LIST_OF_CALLS,
     .end = {TEXT("]")}},
    {.names = {"llama", "llama3_json"},
     .evidence = {"<|python_tag|>", "\"parameters\": dictionary", "ipython"},
     .open = {"<|python_tag|>", "<function="},
     .builtin = ".call",
     .bare = true,
     .parts = OBJECT("parameters"),
     .separator = "; "},
    {.names = {"any"},
     .open = {"<tool_call>", "<|tool_call|>", "[TOOL_CALLS]", "<function=", "functools[", "<function_call>"},
     .close = {"</tool_call>", "<|/tool_call|>", "[/TOOL_CALLS]", "</function_call>"},
     .bare = true,
     HERMES_CALLS},
};
/* clang-format on */
#define N_SYNTAXES (sizeof syntaxes / sizeof syntaxes[0])

static const struct thought_syntax thoughts[] = {
    {"<think>", "</think>"},
    {"[THINK]", "[/THINK]"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"<seed:think>", "</seed:think>"},
};

const struct call_syntax *call_syntax_of(const char *source)
{
    for (size_t i = 0; source && i < N_SYNTAXES; i++)
        for (size_t k = 0; k < MARKERS_MAX && syntaxes[i].evidence[k]; k++)
            if (strstr(source, syntaxes[i].evidence[k]))
                return &syntaxes[i];
    return &syntaxes[N_SYNTAXES - 1];
}

const struct call_syntax *call_syntax_named(const char *name)
{
    for (size_t i = 0; i < N_SYNTAXES; i++)
        for (size_t k = 0; k < NAMES_MAX && syntaxes[i].names[k]; k++)
            if (strcmp(syntaxes[i].names[k], name) == 0)
                return &syntaxes[i];
    return NULL;
}

const struct thought_syntax *thought_syntax_of(const char *source, const struct tokenizer *t)
{
    for (size_t i = 0; i < sizeof thoughts / sizeof thoughts[0]; i++) {
        const struct thought_syntax *s = &thoughts[i];
        if (source && (strstr(source, s->open) || strstr(source, s->close)))
            return s;
        if (t && tokenizer_find(t, s->open, strlen(s->open)) >= 0 &&
            tokenizer_find(t, s->close, strlen(s->close)) >= 0)
            return s;
    }
    return NULL;
}

bool block_is_open(const struct call_syntax *s, const char *prompt, size_t length)
{
    size_t n = s->to_all ? strlen(s->open[0]) : 0;
    return n && length >= n && memcmp(prompt + length - n, s->open[0], n) == 0;
}

bool thought_is_open(const struct thought_syntax *s, const char *prompt, size_t length)
{
    size_t n = strlen(s->open);
    while (length && strchr(" \n\t\r", prompt[length - 1]))
        length--;
    return length >= n && memcmp(prompt + length - n, s->open, n) == 0;
}

struct kept {
    const struct tokenizer *tokenizer;
    int32_t *ids;
    uint32_t n;
};

static void keep(struct kept *k, const char *marker)
{
    int32_t id = marker ? tokenizer_find(k->tokenizer, marker, strlen(marker)) : -1;
    if (id >= 0 && tokenizer_is_special(k->tokenizer, id) && k->n < KEPT_TOKENS_MAX)
        k->ids[k->n++] = id;
}

uint32_t reply_format_tokens(const struct reply_format *f, const struct tokenizer *t,
                             int32_t ids[KEPT_TOKENS_MAX])
{
    struct kept k = {.tokenizer = t, .ids = ids};
    for (size_t i = 0; f->calls && i < MARKERS_MAX; i++) {
        keep(&k, f->calls->open[i]);
        keep(&k, f->calls->close[i]);
        keep(&k, f->calls->separators[i]);
    }
    if (f->calls) {
        keep(&k, f->calls->id_mark);
        keep(&k, f->calls->quote);
    }
    if (f->thought) {
        keep(&k, f->thought->open);
        keep(&k, f->thought->close);
    }
    return k.n;
}

const json_t *tool_parameters(const json_t *tools, const char *name, size_t length, bool *found)
{
    *found = false;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const json_t *n = json_object_get(function, "name");
        if (json_string_length(n) != length || memcmp(json_string_value(n), name, length) != 0)
            continue;
        *found = true;
        return json_object_get(function, "parameters");
    }
    return NULL;
}
