/* How a model marks what it says: the tables of markers, and which of them a chat template stands for. A
 * model's name says nothing here: its template does, since it is what the model was trained with. Pure. */
#ifndef LK_REPLY_FORMAT_H
#define LK_REPLY_FORMAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"

struct tokenizer;

#define MARKERS_MAX 8U
#define NAMES_MAX 4U

/* What a call is made of, where a grammar writes it. */
enum call_part_kind {
    CALL_PART_NONE,
    CALL_PART_MARK,
    CALL_PART_TEXT,
    CALL_PART_SPACE, /* `text`, or another blank or line break, or none, where the model may choose */
    CALL_PART_NAME,
    CALL_PART_ID, /* nine letters and digits */
    CALL_PART_JSON,
    CALL_PART_FIELDS /* arguments in the notation of the style */
};
struct call_part {
    enum call_part_kind kind;
    const char *text; /* of a mark, a text, a space */
};
#define CALL_PARTS_MAX 16U /* with one of no kind behind the last */
#define BLOCK_PARTS_MAX 4U

enum call_style {
    CALLS_JSON,
    CALLS_PYTHON, /* NAME(KEY=VALUE, …) */
    CALLS_BRACED, /* call:NAME{KEY:VALUE,…} */
    CALLS_TAGGED, /* NAME <arg_key>KEY</arg_key><arg_value>VALUE</arg_value> … */
    CALLS_CODER,  /* <function=NAME><parameter=KEY>VALUE</parameter>…</function>, which is taken in any */
    CALLS_PARAM   /* <function name="NAME"><param name="KEY">VALUE</param>…</function> */
};
/* In front of a value of CALLS_PARAM that may have anything in it. */
#define CDATA "<![CDATA["

/* Calls of tools. A block begins with one of `open` and has a call or a list of them: a JSON object with name
 * and arguments, an array of such, <function=NAME>…</function>, NAME, a separator, JSON arguments, or what
 * the style says. */
struct call_syntax {
    const char *names[NAMES_MAX];      /* ours, and vLLM's for its parsers */
    const char *evidence[MARKERS_MAX]; /* a template with one of these means it */
    const char *open[MARKERS_MAX];     /* none is the beginning of another */
    const char *close[MARKERS_MAX];
    const char *separators[MARKERS_MAX]; /* behind a name that stands alone; none: names don't */
    const char *id_mark;                 /* behind a name: the model's own id follows */
    const char *builtin;                 /* behind the name of a tool that the model knew before: Python's
                                            arguments follow in parentheses */
    const char *to_all;                  /* a name in a call's place: text for the caller follows */
    enum call_style style;               /* besides JSON, which is taken in any */
    const char *quote;                   /* stands around strings of CALLS_BRACED */
    bool bare;                           /* a reply may begin with a call's JSON, without a marker */
    bool functions_text; /* the template has the tools as `functions`, a text, and wants `datetime` */
    bool short_ids;      /* nine letters and digits, as these templates want it; else "call_…" */

    /* how the model would write it: a block's begin, calls, end. A begin without a mark: only at the
     * beginning of a reply, or behind open[0] */
    struct call_part begin[BLOCK_PARTS_MAX], end[BLOCK_PARTS_MAX];
    struct call_part parts[CALL_PARTS_MAX]; /* a call; JSON: its arguments */
    /* what it would rather write, where a tool's schema allows it (tool_fields.c); of no kind: `parts` */
    struct call_part native[CALL_PARTS_MAX];
    const char *separator;       /* between two calls of a block; NULL: it has only one */
    const char *block_separator; /* between two blocks; NULL: only one comes */
};

struct thought_syntax {
    const char *open, *close;
};

/* What is looked for in a reply. All zero: nothing, all of it is content. */
struct reply_format {
    const struct call_syntax *calls;      /* NULL: no calls */
    const struct thought_syntax *thought; /* NULL: no reasoning */
    bool in_thought;                      /* the prompt has opened it */
    bool in_block;                        /* the prompt has said calls->open[0] */
    bool only_text;                       /* no call may come: what looks like one is content */
    bool one_call;                        /* what follows the first call is dropped */
    const json_t *tools;                  /* OpenAI's array, of the request: names and types; borrowed */
};

/* The calls that a template (its source) asks for; one that fits most where it says nothing. */
const struct call_syntax *call_syntax_of(const char *template_source);
/* By its name (an adapter.yaml's tool_format); NULL: there is none of that name. */
const struct call_syntax *call_syntax_named(const char *name);
/* The reasoning that a template or the vocabulary knows, or NULL. `source` may be NULL. */
const struct thought_syntax *thought_syntax_of(const char *source, const struct tokenizer *t);
/* The prompt ends with the mark behind which a call's name, or to_all, is expected. */
bool block_is_open(const struct call_syntax *s, const char *prompt, size_t length);
/* The prompt ends inside of a thought. */
bool thought_is_open(const struct thought_syntax *s, const char *prompt, size_t length);

/* Ids of special tokens that are markers of `f`, so that their text isn't left out of the output. */
uint32_t reply_format_tokens(const struct reply_format *f, const struct tokenizer *t,
                             int32_t ids[KEPT_TOKENS_MAX]);

/* The schema of a tool's parameters, or NULL; `found` tells whether there is such a tool. */
const json_t *tool_parameters(const json_t *tools, const char *name, size_t length, bool *found);

#endif
