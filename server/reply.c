/* The outermost reading: text until a marker, then a block of calls, then text again. A step looks at the
 * front of the bytes that wait, takes what it can decide, and leaves the rest; it may decide nothing by how
 * many there happen to be.
 *
 *   TEXT ──marker──▶ BLOCK ──▶ CALL ──done──▶ BLOCK ──closing marker──▶ TEXT
 *    ▲ ▲                        └─────── broken: its bytes are content ────┘
 *    └─┴── THOUGHT
 *
 * CALL: OBJECT | NAME → ARGUMENTS | FUNCTION | LITERAL */
#include "reply_inner.h"

#include <ctype.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/mem.h"

static void begin_block(struct reply *p, const char *marker);

void reply_init(struct reply *p, const struct reply_format *format)
{
    *p = (struct reply){.format = *format};
    struct buf *bufs[] = {&p->content, &p->reasoning, &p->pending, &p->space, &p->raw, &p->call.token};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        buf_init(bufs[i], 0);
    p->state = p->format.thought && p->format.in_thought ? IN_THOUGHT : IN_TEXT;
    if (p->format.calls && p->format.in_block)
        begin_block(p, p->format.calls->open[0]);
}

void reply_fini(struct reply *p)
{
    struct buf *bufs[] = {&p->content, &p->reasoning, &p->pending, &p->space, &p->raw, &p->call.token};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        buf_fini(bufs[i]);
    for (uint32_t i = 0; i < p->calls_capacity; i++) {
        buf_fini(&p->calls[i].name);
        buf_fini(&p->calls[i].arguments);
    }
    mem_free(p->calls);
}

/* ---- markers */

enum match match_marker(struct span at, const char *marker)
{
    size_t n = strlen(marker);
    if (at.n >= n)
        return memcmp(at.s, marker, n) == 0 ? MATCH_WHOLE : MATCH_NONE;
    return !at.final && memcmp(at.s, marker, at.n) == 0 ? MATCH_PART : MATCH_NONE;
}

enum match match_any(struct span at, const char *const *markers, const char **found)
{
    for (size_t i = 0; i < MARKERS_MAX && markers[i]; i++) {
        enum match m = at.n && at.s[0] != markers[i][0] ? MATCH_NONE : match_marker(at, markers[i]);
        if (m == MATCH_NONE)
            continue;
        *found = markers[i];
        return m; /* where one is the beginning of another the longer one stands first */
    }
    return MATCH_NONE;
}

bool is_json_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static struct span from(struct span at, size_t offset)
{
    return (struct span){at.s + offset, at.n - offset, at.final};
}

static size_t count_space(struct span at)
{
    size_t n = 0;
    while (n < at.n && is_json_space(at.s[n]))
        n++;
    return n;
}

/* ---- text and reasoning: white space waits for what follows it */

static void put(struct reply *p, struct buf *out, const char *s, size_t n)
{
    size_t solid = n;
    while (solid && is_json_space(s[solid - 1]))
        solid--;
    if (solid) {
        buf_append(out, p->space.data ? p->space.data : "", p->space.length);
        buf_clear(&p->space);
        buf_append(out, s, solid);
    }
    buf_append(&p->space, s + solid, n - solid);
}

static void put_content(struct reply *p, const char *s, size_t n)
{
    if (!p->format.calls && p->has_content) {
        buf_append(&p->content, s, n); /* no call can follow */
        return;
    }
    put(p, &p->content, s, n);
    if (p->has_content || p->content.length == 0)
        return;
    p->has_content = true;
    if (!p->format.calls) {
        buf_append(&p->content, p->space.data ? p->space.data : "", p->space.length);
        buf_clear(&p->space);
    }
}

static size_t read_thought(struct reply *p, struct span at)
{
    const struct thought_syntax *t = p->format.thought;
    if (!p->has_thought) {
        size_t n = count_space(at);
        enum match m = n || p->thought_began ? MATCH_NONE : match_marker(at, t->open);
        if (n || m == MATCH_PART || at.n == 0)
            return n;
        p->thought_began = true;
        if (m == MATCH_WHOLE)
            return strlen(t->open); /* once more, behind the prompt's */
    }
    size_t i = 0;
    for (; i < at.n; i++) {
        enum match m = at.s[i] == t->close[0] ? match_marker(from(at, i), t->close) : MATCH_NONE;
        if (m == MATCH_NONE)
            continue;
        if (i || m == MATCH_PART)
            break;
        buf_clear(&p->space);
        p->skips_space = p->after_thought = true;
        p->state = IN_TEXT;
        return strlen(t->close);
    }
    put(p, &p->reasoning, at.s, i);
    p->has_thought |= i > 0;
    return i;
}

static void begin_call(struct reply *p, enum reply_state state)
{
    struct reply_call *call = reply_call_building(p);
    if (call)
        buf_clear(&call->arguments);
    call_reader_begin(&p->call);
    p->state = (uint8_t)state;
}

/* Its name follows, and its arguments in tags of their own. */
static bool begins_function(const struct reply *p, const char *marker)
{
    return strcmp(marker, FUNCTION_MARK) == 0 ||
           (p->format.calls->style == CALLS_PARAM && marker == p->format.calls->open[0]);
}

static void begin_block(struct reply *p, const char *marker)
{
    buf_clear(&p->raw);
    buf_append(&p->raw, p->space.data ? p->space.data : "", p->space.length); /* content, if it's no call */
    buf_clear(&p->space);
    p->n_in_block = 0;
    p->is_marked = marker != NULL;
    p->in_array = marker && marker[strlen(marker) - 1] == '[';
    p->state = IN_BLOCK;
    if (marker && begins_function(p, marker))
        begin_call(p, IN_FUNCTION);
}

/* What may stand only at the beginning of a reply: white space, reasoning, a bare call. False: text begins.
 */
static bool read_beginning(struct reply *p, struct span at, size_t *taken)
{
    const struct reply_format *f = &p->format;
    *taken = count_space(at);
    if (*taken) {
        if (!p->skips_space)
            buf_append(&p->space, at.s, *taken);
        return true;
    }
    enum match m = f->thought && !p->after_thought ? match_marker(at, f->thought->open) : MATCH_NONE;
    if (m == MATCH_WHOLE) {
        buf_clear(&p->space);
        p->state = IN_THOUGHT;
        *taken = strlen(f->thought->open);
        return true;
    }
    if (m == MATCH_PART || at.n == 0)
        return true;
    if (!f->calls || !f->calls->bare || (at.s[0] != '{' && at.s[0] != '['))
        return false;
    begin_block(p, NULL);
    return true;
}

static size_t read_text(struct reply *p, struct span at)
{
    const char *found;
    size_t i = 0;
    if (!p->has_content && !p->n_calls && read_beginning(p, at, &i))
        return i;
    if (p->skips_space) {
        i = count_space(at);
        enum match m = p->n_calls && !i ? match_any(at, p->format.calls->close, &found) : MATCH_NONE;
        if (i || m != MATCH_NONE) /* the end of a list of blocks */
            return i ? i : m == MATCH_WHOLE ? strlen(found) : 0;
        p->skips_space = at.n == 0;
    }
    for (; i < at.n && p->format.calls; i++) {
        enum match m = match_any(from(at, i), p->format.calls->open, &found);
        if (m == MATCH_NONE)
            continue;
        if (i || m == MATCH_PART)
            break;
        begin_block(p, found);
        return strlen(found);
    }
    if (!p->format.calls)
        i = at.n;
    put_content(p, at.s, i);
    return i;
}

/* ---- blocks */

static size_t end_block(struct reply *p, size_t taken)
{
    p->state = IN_TEXT;
    p->outcome = p->n_in_block ? BLOCK_DONE : CALL_BROKEN;
    return taken;
}

/* A marker in front of, between or behind calls: how many bytes it has. */
static enum match read_marker(struct reply *p, struct span at, size_t *taken)
{
    static const char *const fences[MARKERS_MAX] = {"```json", "```"};
    static const char *const tags[MARKERS_MAX] = {FUNCTION_MARK, "</function>"};
    const struct call_syntax *c = p->format.calls;
    const char *found;
    require(c != NULL); /* else no block begins */
    enum match m = match_any(at, c->close, &found);
    if (m == MATCH_WHOLE) {
        *taken = end_block(p, strlen(found));
        return m;
    }
    enum match function = match_any(at, tags, &found);
    if (function == MATCH_WHOLE) {
        *taken = strlen(found);
        if (found == tags[0])
            begin_call(p, IN_FUNCTION);
        return function;
    }
    enum match open = match_any(at, c->open, &found);
    enum match fence = open != MATCH_WHOLE && c->separators[0] ? match_any(at, fences, &found) : MATCH_NONE;
    if (open == MATCH_WHOLE || fence == MATCH_WHOLE) {
        *taken = strlen(found);
        if (open == MATCH_WHOLE && begins_function(p, found))
            begin_call(p, IN_FUNCTION);
        return MATCH_WHOLE;
    }
    return m || open || fence || function ? MATCH_PART : MATCH_NONE;
}

/* A call in the format's own notation, which is no JSON. */
static bool begin_styled(struct reply *p, char first)
{
    enum call_style style = p->format.calls->style;
    bool is_name = isalnum((unsigned char)first) || first == '_';
    if (p->format.calls->builtin && is_name && p->is_marked && !p->in_array && !p->n_in_block) {
        begin_call(p, IN_LITERAL);
        return true;
    }
    if (style == CALLS_JSON || style == CALLS_CODER || style == CALLS_PARAM || !is_name ||
        (style == CALLS_PYTHON && !p->in_array && !p->is_marked) || (style == CALLS_TAGGED && p->n_in_block))
        return false;
    begin_call(p, style == CALLS_TAGGED ? IN_FUNCTION : IN_LITERAL);
    p->call.is_plain = style == CALLS_TAGGED;
    return true;
}

/* Between calls; what can't stand there ends the block. */
static size_t read_block(struct reply *p, struct span at)
{
    size_t taken;
    if (at.n == 0)
        return 0;
    char first = at.s[0];
    require(p->format.calls != NULL); /* else no block begins */
    if (p->format.calls->to_all) {
        if (!is_name_char(first))
            return end_block(p, 0);
        begin_call(p, IN_NAME);
        return 0;
    }
    if (is_json_space(first) || (p->n_in_block && (first == ',' || first == ';')))
        return 1;
    enum match m = p->is_marked || p->n_in_block ? read_marker(p, at, &taken) : MATCH_NONE;
    if (m != MATCH_NONE)
        return m == MATCH_WHOLE ? taken : 0;
    bool opens = first == '[' && !p->in_array && !p->n_in_block;
    if (opens || (first == ']' && p->in_array)) {
        p->in_array = opens;
        return 1;
    }
    if (first == '{')
        begin_call(p, IN_OBJECT);
    else if (p->format.calls->separators[0] && !p->in_array)
        begin_call(p, IN_NAME);
    else if (!begin_styled(p, first))
        return end_block(p, 0);
    return 0;
}

/* ---- calls */

struct reply_call *reply_call_building(struct reply *p)
{
    if (p->n_calls == p->calls_capacity) {
        uint32_t more = p->calls_capacity ? p->calls_capacity * 2 : 4;
        struct reply_call *calls = mem_realloc(p->calls, more * sizeof *calls);
        if (!calls) {
            p->failed = true;
            return NULL;
        }
        for (uint32_t i = p->calls_capacity; i < more; i++) {
            calls[i] = (struct reply_call){0};
            buf_init(&calls[i].name, 0);
            buf_init(&calls[i].arguments, 0);
        }
        p->calls = calls;
        p->calls_capacity = more;
    }
    return &p->calls[p->n_calls];
}

struct reply_call *reply_call_now(struct reply *p)
{
    return p->call.has_name ? &p->calls[p->n_calls - 1] : reply_call_building(p);
}

static void make_id(char id[40], bool is_short)
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t n = is_short ? 9 : 24;
    uint8_t random[24];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        for (size_t i = 0; i < sizeof random; i++)
            random[i] = (uint8_t)((uint64_t)clock_now_ns() >> (i % 8 * 8)) ^ (uint8_t)(i * 37);
    char *at = id;
    if (!is_short) {
        memcpy(at, "call_", 5);
        at += 5;
    }
    for (size_t i = 0; i < n; i++)
        at[i] = letters[random[i] % (sizeof letters - 1)];
    at[n] = '\0';
}

bool reply_call_named(struct reply *p, const char *name, size_t length)
{
    struct reply_call *call = reply_call_building(p);
    bool known;
    p->call.schema = tool_parameters(p->format.tools, name, length, &known);
    if (!call || length == 0 || length > REPLY_NAME_MAX || (!p->is_marked && !known) ||
        p->n_calls == REPLY_CALLS_MAX || p->format.only_text)
        return false;
    buf_clear(&call->name);
    buf_append(&call->name, name, length);
    call->shown = false;
    make_id(call->id, p->format.calls->short_ids);
    p->call.has_name = true;
    p->n_calls++;
    return true;
}

/* ---- all */

/* What was no call is content, but for a part that is shown already. */
static void give_back(struct reply *p)
{
    bool in_call = p->call.has_name && p->state > IN_BLOCK;
    bool shown = in_call && p->calls[p->n_calls - 1].shown;
    if (in_call && !shown)
        p->n_calls--;
    p->state = IN_TEXT;
    if (!shown)
        put_content(p, p->raw.data ? p->raw.data : "", p->raw.length);
    buf_clear(&p->raw);
}

static void call_done(struct reply *p)
{
    p->n_in_block++;
    p->state = p->format.one_call ? IN_NOTHING : p->format.calls->to_all ? IN_TEXT : IN_BLOCK;
    p->skips_space |= p->state == IN_TEXT;
    p->call.has_name = false;
}

static size_t step(struct reply *p, struct span at)
{
    switch ((enum reply_state)p->state) {
    case IN_TEXT:
        return read_text(p, at);
    case IN_THOUGHT:
        return read_thought(p, at);
    case IN_BLOCK:
        return read_block(p, at);
    case IN_OBJECT:
        return reply_read_object(p, at);
    case IN_NAME:
        return reply_read_name(p, at);
    case IN_ARGUMENTS:
        return reply_read_arguments(p, at);
    case IN_FUNCTION:
        return reply_read_function(p, at);
    case IN_LITERAL:
        return reply_read_literal(p, at);
    case IN_NOTHING:
        break;
    }
    return at.n;
}

static void advance(struct reply *p, bool final)
{
    size_t done = 0, n;
    uint8_t before;
    do {
        struct span at = {p->pending.data + done, p->pending.length - done, final};
        before = p->state;
        p->outcome = CALL_GOES_ON;
        n = step(p, at);
        if (before >= IN_BLOCK || p->state >= IN_BLOCK)
            buf_append(&p->raw, at.s, n);
        if (p->outcome == CALL_DONE)
            call_done(p);
        if (p->outcome == BLOCK_DONE)
            p->skips_space = true;
        if (p->outcome == CALL_BROKEN)
            give_back(p);
        else if (p->outcome != CALL_GOES_ON || p->state == IN_NOTHING)
            buf_clear(&p->raw);
        done += n;
    } while (n || before != p->state);
    buf_drop_front(&p->pending, done);
}

void reply_push(struct reply *p, const char *text, size_t length)
{
    if (!p->format.calls && !p->format.thought) {
        buf_append(&p->content, text, length);
        return;
    }
    buf_append(&p->pending, text, length);
    if (p->pending.length)
        advance(p, false);
}

void reply_end(struct reply *p)
{
    if (!p->format.calls && !p->format.thought)
        return;
    advance(p, true);
    while (p->state >= IN_BLOCK && p->state != IN_NOTHING) {
        if (p->state == IN_BLOCK && p->n_in_block)
            break; /* its closing marker is missing, no more */
        give_back(p);
        advance(p, true);
    }
    if (p->state == IN_TEXT && p->n_calls == 0)
        buf_append(&p->content, p->space.data ? p->space.data : "", p->space.length);
    buf_clear(&p->space);
}

bool reply_has_news(const struct reply *p)
{
    bool news = p->content.length || p->reasoning.length;
    for (uint32_t i = 0; i < p->n_calls; i++)
        news |= !p->calls[i].shown || p->calls[i].arguments.length;
    return news;
}

bool reply_is_thinking(const struct reply *p)
{
    return p->state == IN_THOUGHT;
}

bool reply_failed(const struct reply *p)
{
    bool failed = p->failed || p->content.failed || p->reasoning.failed || p->pending.failed ||
                  p->space.failed || p->raw.failed || p->call.token.failed;
    for (uint32_t i = 0; i < p->n_calls; i++)
        failed |= p->calls[i].name.failed || p->calls[i].arguments.failed;
    return failed;
}
