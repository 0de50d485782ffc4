/* Calls whose arguments are JSON: {"name": …, "arguments": {…}} with its members in any order, and NAME with
 * the arguments behind it. Arguments are passed on as they come; only control characters inside of strings,
 * which models write and JSON forbids, are escaped. */
#include "reply_inner.h"

#include <ctype.h>
#include <jansson.h>
#include <string.h>

#define KEY_BYTES_MAX 1024U
#define TEXT_ARGUMENTS_MAX (1U << 20)

enum object_state {
    OBJECT_BEGIN,
    OBJECT_KEY_OR_END,
    OBJECT_KEY,
    OBJECT_COLON,
    OBJECT_VALUE, /* its first byte */
    OBJECT_NAME,
    OBJECT_TEXT, /* arguments as a string that contains JSON */
    OBJECT_ARGUMENTS,
    OBJECT_OTHER,
    OBJECT_COMMA
};

enum field { FIELD_OTHER, FIELD_NAME, FIELD_ARGUMENTS, FIELD_FUNCTION };

void call_reader_begin(struct call_reader *c)
{
    struct buf token = c->token;
    *c = (struct call_reader){.token = token};
    buf_clear(&c->token);
}

static enum field field_of(const char *key)
{
    if (strcmp(key, "name") == 0 || strcmp(key, "tool_name") == 0) /* the second is Command R's */
        return FIELD_NAME;
    if (strcmp(key, "function") == 0)
        return FIELD_FUNCTION;
    return strcmp(key, "arguments") == 0 || strcmp(key, "parameters") == 0 ? FIELD_ARGUMENTS : FIELD_OTHER;
}

/* The string that the token is, decoded; NULL: it is none. */
static json_t *decode_token(const struct call_reader *c)
{
    return json_loadb(c->token.data, c->token.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

static bool key_known(struct reply *p)
{
    struct call_reader *c = &p->call;
    json_t *key = decode_token(c);
    enum field f = key ? field_of(json_string_value(key)) : FIELD_OTHER;
    bool fits = key && (p->is_marked || f != FIELD_OTHER || strcmp(json_string_value(key), "type") == 0 ||
                        strcmp(json_string_value(key), "id") == 0);
    json_decref(key);
    if ((f == FIELD_NAME || f == FIELD_FUNCTION) && c->has_name)
        f = FIELD_OTHER;
    c->field = (uint8_t)f;
    return fits && !(f == FIELD_ARGUMENTS && c->has_arguments);
}

static bool name_known(struct reply *p)
{
    json_t *name = decode_token(&p->call);
    bool ok = name && reply_call_named(p, json_string_value(name), json_string_length(name));
    json_decref(name);
    return ok;
}

static bool text_known(struct reply *p)
{
    json_t *text = decode_token(&p->call);
    if (text)
        buf_append(&reply_call_now(p)->arguments, json_string_value(text), json_string_length(text));
    json_decref(text);
    p->call.has_arguments = true;
    return text != NULL;
}

static void pass_on(struct reply *p, unsigned char c)
{
    struct reply_call *call = reply_call_now(p);
    if (call && json_scan_in_string(&p->call.scan) && c < 0x20)
        buf_printf(&call->arguments, "\\u%04x", c);
    else if (call)
        buf_putc(&call->arguments, (char)c);
}

/* The end of an object: of the call, or of "function" inside of it. */
static enum reply_outcome object_ended(struct reply *p)
{
    struct call_reader *c = &p->call;
    if (c->nested) {
        c->nested--;
        c->state = OBJECT_COMMA;
        return CALL_GOES_ON;
    }
    if (!c->has_name)
        return CALL_BROKEN;
    if (!c->has_arguments)
        buf_puts(&reply_call_now(p)->arguments, "{}");
    return CALL_DONE;
}

static enum reply_outcome begin_value(struct reply *p, unsigned char byte)
{
    struct call_reader *c = &p->call;
    bool text = byte == '"';
    if (c->field == FIELD_FUNCTION && byte == '{') {
        c->state = OBJECT_KEY_OR_END;
        return c->nested++ ? CALL_BROKEN : CALL_GOES_ON;
    }
    if (c->field == FIELD_NAME || c->field == FIELD_FUNCTION)
        c->state = text ? OBJECT_NAME : OBJECT_OTHER;
    else if (c->field == FIELD_ARGUMENTS)
        c->state = text ? OBJECT_TEXT : OBJECT_ARGUMENTS;
    else
        c->state = OBJECT_OTHER;
    json_scan_begin(&c->scan);
    buf_clear(&c->token);
    return CALL_GOES_ON;
}

/* A string that is gathered whole. */
static enum reply_outcome gather(struct reply *p, unsigned char byte)
{
    struct call_reader *c = &p->call;
    enum scan_result r = json_scan_byte(&c->scan, byte);
    size_t limit = c->state == OBJECT_TEXT ? TEXT_ARGUMENTS_MAX : KEY_BYTES_MAX;
    if (r == SCAN_BAD || c->token.length == limit)
        return CALL_BROKEN;
    if (byte < 0x20)
        buf_printf(&c->token, "\\u%04x", byte);
    else
        buf_putc(&c->token, (char)byte);
    if (r != SCAN_END)
        return CALL_GOES_ON;
    bool ok = c->state == OBJECT_KEY ? key_known(p) : c->state == OBJECT_NAME ? name_known(p) : text_known(p);
    c->state = c->state == OBJECT_KEY ? OBJECT_COLON : OBJECT_COMMA;
    return ok ? CALL_GOES_ON : CALL_BROKEN;
}

/* A byte of a value that is passed on, or passed over; *past: it belongs to what follows. */
static enum reply_outcome scan_value(struct reply *p, unsigned char byte, bool *past)
{
    struct call_reader *c = &p->call;
    bool passes = c->state == OBJECT_ARGUMENTS;
    enum scan_result r = json_scan_byte(&c->scan, byte);
    *past = r == SCAN_PAST;
    if (r == SCAN_BAD)
        return CALL_BROKEN;
    if (passes && !*past)
        pass_on(p, byte);
    if (r != SCAN_MORE) {
        c->has_arguments |= passes;
        c->state = OBJECT_COMMA;
    }
    return CALL_GOES_ON;
}

/* Between keys and values. */
static enum reply_outcome punctuation(struct reply *p, unsigned char byte)
{
    struct call_reader *c = &p->call;
    if (is_json_space((char)byte))
        return CALL_GOES_ON;
    if (c->state == OBJECT_BEGIN || c->state == OBJECT_COLON) {
        bool begins = c->state == OBJECT_BEGIN;
        c->state = begins ? OBJECT_KEY_OR_END : OBJECT_VALUE;
        return byte == (begins ? '{' : ':') ? CALL_GOES_ON : CALL_BROKEN;
    }
    if (byte == '}')
        return object_ended(p);
    if (c->state == OBJECT_COMMA) {
        c->state = OBJECT_KEY_OR_END;
        return byte == ',' ? CALL_GOES_ON : CALL_BROKEN;
    }
    if (byte != '"')
        return CALL_BROKEN;
    c->state = OBJECT_KEY;
    json_scan_begin(&c->scan);
    buf_clear(&c->token);
    return gather(p, byte);
}

static enum reply_outcome object_byte(struct reply *p, unsigned char byte)
{
    struct call_reader *c = &p->call;
    bool past = false;
    if (c->state == OBJECT_VALUE) {
        if (is_json_space((char)byte))
            return CALL_GOES_ON;
        enum reply_outcome o = begin_value(p, byte);
        if (o != CALL_GOES_ON || c->state == OBJECT_KEY_OR_END)
            return o;
    }
    switch (c->state) {
    case OBJECT_KEY:
    case OBJECT_NAME:
    case OBJECT_TEXT:
        return gather(p, byte);
    case OBJECT_ARGUMENTS:
    case OBJECT_OTHER: {
        enum reply_outcome o = scan_value(p, byte, &past);
        return past ? punctuation(p, byte) : o;
    }
    default:
        return punctuation(p, byte);
    }
}

size_t reply_read_object(struct reply *p, struct span at)
{
    size_t i = 0;
    while (i < at.n && p->outcome == CALL_GOES_ON) {
        p->outcome = object_byte(p, (unsigned char)at.s[i]);
        i += p->outcome != CALL_BROKEN;
    }
    return i;
}

/* ---- NAME separator {arguments} */

bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("_-.:/", c));
}

/* The word stands for the caller, not for a tool: text begins. */
static bool is_to_all(struct reply *p)
{
    const char *all = p->format.calls->to_all;
    const struct buf *word = &p->call.token;
    if (!all || word->length != strlen(all) || memcmp(word->data, all, word->length) != 0)
        return false;
    buf_clear(&p->raw);
    p->state = IN_TEXT;
    return true;
}

/* A word's next byte: of the model's own id, which isn't used, or of the name. Behind a separator the word
 * before wasn't the name ("function" in front of it). */
static size_t name_byte(struct reply *p, char byte)
{
    struct call_reader *c = &p->call;
    if (c->word_is_id)
        return 1;
    if (c->word_ended)
        buf_clear(&c->token);
    c->word_ended = false;
    if (c->token.length == REPLY_NAME_MAX) {
        p->outcome = CALL_BROKEN;
        return 0;
    }
    buf_putc(&c->token, byte);
    return 1;
}

/* NAME, a line break, {arguments}; or whom else the text behind the line break is for. */
static size_t read_header(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    char byte = at.n ? at.s[0] : '\0';
    if (at.n == 0) {
        if (at.final && !c->word_ended)
            (void)is_to_all(p);
        return 0;
    }
    if (!c->word_ended && is_name_char(byte))
        return name_byte(p, byte);
    if (!c->word_ended && byte == '\n') {
        c->word_ended = true;
        (void)is_to_all(p);
        return 1;
    }
    if (c->word_ended && is_json_space(byte))
        return 1;
    if (!c->word_ended || byte != '{' || !reply_call_named(p, c->token.data, c->token.length)) {
        p->outcome = CALL_BROKEN;
        return 0;
    }
    json_scan_begin(&c->scan);
    p->state = IN_ARGUMENTS;
    return 0;
}

size_t reply_read_name(struct reply *p, struct span at)
{
    static const char *const fences[MARKERS_MAX] = {"```json", "```"};
    const struct call_syntax *s = p->format.calls;
    struct call_reader *c = &p->call;
    const char *found;
    if (s->to_all)
        return read_header(p, at);
    if (at.n == 0)
        return 0;
    enum match id = s->id_mark ? match_marker(at, s->id_mark) : MATCH_NONE;
    enum match m = match_any(at, s->separators, &found);
    if (m != MATCH_WHOLE && id == MATCH_NONE) {
        enum match fence = match_any(at, fences, &found);
        if (fence == MATCH_WHOLE)
            return strlen(found);
        m = fence > m ? fence : m;
    }
    if (id == MATCH_WHOLE || m == MATCH_WHOLE) {
        c->word_is_id = id == MATCH_WHOLE;
        c->word_ended = true;
        return strlen(id == MATCH_WHOLE ? s->id_mark : found);
    }
    if (id == MATCH_PART || m == MATCH_PART)
        return 0;
    if (is_json_space(at.s[0]))
        return 1;
    if (is_name_char(at.s[0]))
        return name_byte(p, at.s[0]);
    if (at.s[0] != '{' || !reply_call_named(p, c->token.data, c->token.length)) {
        p->outcome = CALL_BROKEN;
        return 0;
    }
    json_scan_begin(&c->scan);
    p->state = IN_ARGUMENTS;
    return 0;
}

size_t reply_read_arguments(struct reply *p, struct span at)
{
    size_t i = 0;
    while (i < at.n && p->outcome == CALL_GOES_ON) {
        unsigned char byte = (unsigned char)at.s[i];
        enum scan_result r = json_scan_byte(&p->call.scan, byte);
        p->outcome = r == SCAN_BAD ? CALL_BROKEN : r == SCAN_MORE ? CALL_GOES_ON : CALL_DONE;
        if (p->outcome == CALL_BROKEN)
            break;
        pass_on(p, byte);
        i++;
    }
    return i;
}
