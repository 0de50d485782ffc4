/* Calls in tags, as Qwen3-Coder writes them, GLM, and MiniCPM 5:
 *
 *   <function=NAME> <parameter=KEY>  NAME                            <function name="NAME">
 *   value                            <arg_key>KEY</arg_key>          <param name="KEY">value</param> …
 *   </parameter> … </function>       <arg_value>value</arg_value> …  </function>
 *
 * or with JSON between the outer tags, as Llama 3.1 does. Values are plain text (MiniCPM's may stand in
 * <![CDATA[…]]>); the tool's schema says which of them are to be strings. Those are passed on as they come,
 * others when they are whole: they stay strings if they are neither JSON nor one of Python's literals. */
#include "reply_inner.h"

#include <ctype.h>
#include <jansson.h>
#include <string.h>

#include "api_render.h"
#include "base/error.h"

#define KEY_BYTES_MAX 256U
#define VALUE_BYTES_MAX (1U << 20)

enum function_state { FUNCTION_NAME, FUNCTION_BODY, FUNCTION_KEY, FUNCTION_VALUE, FUNCTION_VALUE_OPEN };

struct tags {
    const char *name_end;
    const char *body[MARKERS_MAX]; /* a key's, then those at the end: the call's own and the block's */
    const char *key_end, *value;   /* value: NULL, if nothing stands between */
    const char *value_ends[MARKERS_MAX],
        *cdata_ends[MARKERS_MAX]; /* the second: behind CDATA, if it may come */
    bool keeps_space;             /* a string's value begins behind its tag */
};
static const struct tags coder = {.name_end = ">",
                                  .body = {"<parameter=", "</function>", "</tool_call>"},
                                  .key_end = ">",
                                  .value_ends = {"\n</parameter>", "</parameter>"}};
static const struct tags glm = {.body = {"<arg_key>", "</tool_call>"},
                                .key_end = "</arg_key>",
                                .value = "<arg_value>",
                                .value_ends = {"</arg_value>"},
                                .keeps_space = true};
static const struct tags minicpm = {.name_end = "\">",
                                    .body = {"<param name=\"", "</function>"},
                                    .key_end = "\">",
                                    .value_ends = {"</param>"},
                                    .cdata_ends = {"]]></param>"},
                                    .keeps_space = true};

/* A call that has begun without <function= is GLM's. */
static const struct tags *tags_of(const struct reply *p)
{
    return p->call.is_plain ? &glm : p->format.calls->style == CALLS_PARAM ? &minicpm : &coder;
}

static size_t broken(struct reply *p)
{
    p->outcome = CALL_BROKEN;
    return 0;
}

static bool may_be_text(const json_t *type)
{
    return json_is_string(type) && strcmp(json_string_value(type), "string") == 0;
}

/* A value is a string where its schema says so, or where there is none. */
static bool is_text(const struct call_reader *c)
{
    const json_t *property = NULL, *properties = json_object_get(c->schema, "properties");
    if (c->token.length)
        property = json_object_getn(properties, c->token.data, c->token.length);
    if (!json_is_object(property))
        return true;
    const json_t *type = json_object_get(property, "type");
    return may_be_text(type) ||
           (json_is_array(type) && json_array_size(type) == 1 && may_be_text(json_array_get(type, 0)));
}

/* A word and what ends it: false until it is complete. */
static bool read_word(struct reply *p, struct span at, const char *end, size_t *taken)
{
    struct call_reader *c = &p->call;
    for (size_t i = 0; i < at.n; i++) {
        enum match m = match_marker((struct span){at.s + i, at.n - i, at.final}, end);
        *taken = i + (m == MATCH_WHOLE ? strlen(end) : 0);
        if (m != MATCH_NONE)
            return m == MATCH_WHOLE;
        if (at.s[i] == '<' || at.s[i] == '\n' || c->token.length == KEY_BYTES_MAX) {
            broken(p);
            return false;
        }
        buf_putc(&c->token, at.s[i]);
    }
    *taken = at.n;
    return false;
}

/* A name that a line break or a tag ends. */
static bool read_plain_name(struct reply *p, struct span at, size_t *taken)
{
    struct call_reader *c = &p->call;
    size_t i = 0;
    while (i < at.n && at.s[i] && (isalnum((unsigned char)at.s[i]) || strchr("_-.:/", at.s[i])))
        i++;
    buf_append(&c->token, at.s, i);
    *taken = i;
    bool ends = i < at.n && (is_json_space(at.s[i]) || at.s[i] == '<');
    if ((i < at.n && !ends) || c->token.length > REPLY_NAME_MAX)
        broken(p);
    return ends && p->outcome == CALL_GOES_ON;
}

static size_t read_function_name(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    size_t taken = 0;
    bool whole =
        c->is_plain ? read_plain_name(p, at, &taken) : read_word(p, at, tags_of(p)->name_end, &taken);
    if (!whole)
        return taken;
    if (!reply_call_named(p, c->token.data, c->token.length)) {
        broken(p);
        return c->is_plain ? taken : 0;
    }
    c->state = FUNCTION_BODY;
    return taken;
}

static size_t read_key(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    size_t taken = 0;
    if (!read_word(p, at, tags_of(p)->key_end, &taken))
        return taken;
    struct buf *out = &reply_call_now(p)->arguments;
    buf_puts(out, c->has_arguments ? ", \"" : "{\"");
    json_escape(out, c->token.data ? c->token.data : "", c->token.length);
    c->has_arguments = true;
    c->is_text = is_text(c);
    buf_puts(out, c->is_text ? "\": \"" : "\": ");
    buf_clear(&c->token);
    json_scan_begin(&c->scan);
    c->scans = true;
    c->scan_began = false;
    c->value_began = tags_of(p)->keeps_space;
    c->may_be_cdata = tags_of(p)->cdata_ends[0] != NULL;
    c->is_cdata = false;
    c->state = tags_of(p)->value ? FUNCTION_VALUE_OPEN : FUNCTION_VALUE;
    return taken;
}

static size_t read_value_open(struct reply *p, struct span at)
{
    const char *tag = tags_of(p)->value;
    require(tag != NULL); /* else no key leads here */
    if (at.n == 0 || is_json_space(at.s[0]))
        return at.n != 0;
    enum match m = match_marker(at, tag);
    if (m == MATCH_WHOLE)
        p->call.state = FUNCTION_VALUE;
    return m == MATCH_WHOLE ? strlen(tag) : m == MATCH_PART ? 0 : broken(p);
}

/* Something between the tags of a function. */
static size_t read_body(struct reply *p, struct span at)
{
    const char *const *tags = tags_of(p)->body;
    struct call_reader *c = &p->call;
    const char *found;
    if (at.n == 0 || is_json_space(at.s[0]))
        return at.n != 0;
    if (at.s[0] == '{' && !c->has_arguments) {
        json_scan_begin(&c->scan);
        p->state = IN_ARGUMENTS;
        return 0;
    }
    enum match m = match_any(at, tags, &found);
    if (m != MATCH_WHOLE)
        return m == MATCH_PART ? 0 : broken(p);
    if (found == tags[0]) {
        buf_clear(&c->token);
        c->state = FUNCTION_KEY;
        return strlen(found);
    }
    buf_puts(&reply_call_now(p)->arguments, c->has_arguments ? "}" : "{}");
    p->outcome = CALL_DONE;
    return found == tags[1] && !c->is_plain ? strlen(found) : 0; /* the end of the block is the block's */
}

/* A literal of Python's that isn't JSON, read as the only argument of a call. False: it is none. */
static bool put_literal(struct buf *out, const struct buf *v)
{
    static const char before[] = "<function_calls>v(v=", behind[] = ")</function_calls>", key[] = "{\"v\": ";
    const struct reply_format python = {.calls = call_syntax_named("olmo3")};
    struct reply p;
    if (!v->length || !strchr("[{", v->data[0]))
        return false;
    reply_init(&p, &python);
    reply_push(&p, before, sizeof before - 1);
    reply_push(&p, v->data, v->length);
    reply_push(&p, behind, sizeof behind - 1);
    reply_end(&p);
    const struct buf *got = p.n_calls == 1 && !p.has_content ? &p.calls[0].arguments : NULL;
    json_t *json = got ? json_loadb(got->data, got->length, JSON_ALLOW_NUL, NULL) : NULL;
    bool fits = json_object_size(json) == 1 && json_object_get(json, "v") && !reply_failed(&p);
    if (fits)
        buf_append(out, got->data + sizeof key - 1, got->length - sizeof key);
    json_decref(json);
    reply_fini(&p);
    return fits;
}

static bool is_word(const struct buf *b, const char *word)
{
    return b->length == strlen(word) && strncasecmp(b->data, word, b->length) == 0;
}

/* What a whole value is: JSON, or the string that it looks like. */
static void put_value(struct reply *p)
{
    struct buf *v = &p->call.token, *out = &reply_call_now(p)->arguments;
    while (v->length && is_json_space(v->data[v->length - 1]))
        v->data[--v->length] = '\0';
    while (v->length && is_json_space(v->data[0]))
        buf_drop_front(v, 1);
    json_t *json = v->length ? json_loadb(v->data, v->length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    bool plain = json != NULL;
    json_decref(json);
    if (is_word(v, "true") || is_word(v, "false")) { /* Python's have capitals */
        buf_puts(out, is_word(v, "true") ? "true" : "false");
    } else if (is_word(v, "none")) {
        buf_puts(out, "null");
    } else if (plain) {
        buf_append(out, v->data, v->length);
    } else if (!put_literal(out, v)) {
        buf_putc(out, '"');
        json_escape(out, v->data ? v->data : "", v->length);
        buf_putc(out, '"');
    }
}

/* A tag inside of a JSON value's string ends nothing; of a value that is no JSON any tag does. */
static bool in_quotes(const struct call_reader *c)
{
    return !c->is_text && c->scans && json_scan_in_string(&c->scan);
}

static void follow_quotes(struct call_reader *c, unsigned char byte)
{
    if (c->scans && (c->scan_began || !is_json_space((char)byte))) {
        c->scan_began = true;
        c->scans = json_scan_byte(&c->scan, byte) == SCAN_MORE;
    }
}

/* CDATA in front of a value: how many bytes it has; *waits: it can't be told yet. */
static size_t read_cdata(struct call_reader *c, struct span at, bool *waits)
{
    enum match m = match_marker(at, CDATA);
    *waits = m == MATCH_PART;
    c->may_be_cdata = m == MATCH_PART;
    c->is_cdata = m == MATCH_WHOLE;
    return m == MATCH_WHOLE ? sizeof CDATA - 1 : 0;
}

static size_t read_value(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    const char *found;
    if (c->may_be_cdata) {
        bool waits;
        size_t n = read_cdata(c, at, &waits);
        if (n || waits)
            return n;
    }
    const char *const *ends = c->is_cdata ? tags_of(p)->cdata_ends : tags_of(p)->value_ends;
    struct buf *out = &reply_call_now(p)->arguments;
    size_t i = 0;
    enum match m = MATCH_NONE;
    if (at.n && !c->value_began) {
        c->value_began = true;
        if (at.s[0] == '\n')
            return 1; /* the line break behind the opening tag */
    }
    for (; i < at.n && m == MATCH_NONE; i += m == MATCH_NONE) {
        if (!in_quotes(c))
            m = match_any((struct span){at.s + i, at.n - i, at.final}, ends, &found);
        if (m == MATCH_NONE && !c->is_text)
            follow_quotes(c, (unsigned char)at.s[i]);
    }
    if (i) {
        if (c->is_text)
            json_escape(out, at.s, i);
        else
            buf_append(&c->token, at.s, i);
        return c->token.length > VALUE_BYTES_MAX ? broken(p) : i;
    }
    if (m != MATCH_WHOLE)
        return 0;
    if (c->is_text)
        buf_putc(out, '"');
    else
        put_value(p);
    c->state = FUNCTION_BODY;
    return strlen(found);
}

size_t reply_read_function(struct reply *p, struct span at)
{
    switch ((enum function_state)p->call.state) {
    case FUNCTION_NAME:
        return read_function_name(p, at);
    case FUNCTION_KEY:
        return read_key(p, at);
    case FUNCTION_VALUE:
        return read_value(p, at);
    case FUNCTION_VALUE_OPEN:
        return read_value_open(p, at);
    case FUNCTION_BODY:
        break;
    }
    return read_body(p, at);
}
