/* The parser's ground: the token stream, nodes with their height, names, errors with line and column. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "jinja_parser.h"

void jinja_position(const struct chat_template *t, size_t pos, unsigned *line, unsigned *column)
{
    size_t line_start = 0;
    *line = 1;
    for (size_t i = 0; i < pos && i < t->length; i++) {
        if (t->source[i] != '\n')
            continue;
        ++*line;
        line_start = i + 1;
    }
    if (pos > t->length)
        pos = t->length;
    *column = 1 + (unsigned)jstr_count_chars(t->source + line_start, pos - line_start);
}

static enum status vfail_at(const struct chat_template *t, size_t pos, struct error *err, enum status status,
                            const char *text)
{
    unsigned line, column;
    jinja_position(t, pos, &line, &column);
    return fail(err, status, "%s: line %u, column %u: %s", t->shown, line, column, text);
}

enum status jinja_fail_at(const struct chat_template *t, size_t pos, struct error *err, enum status status,
                          const char *format, ...)
{
    char text[320];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return vfail_at(t, pos, err, status, text);
}

const struct jstr *jinja_const_str(struct arena *a, const char *data, size_t len)
{
    struct jstr *s = arena_alloc(a, sizeof *s);
    char *copy = s ? arena_strndup(a, data, len) : NULL;
    if (!copy)
        return NULL;
    *s = (struct jstr){.data = copy, .len = (uint32_t)len, .n_chars = (uint32_t)jstr_count_chars(copy, len)};
    return s;
}

struct node *parse_fail(struct parser *p, size_t pos, const char *format, ...)
{
    char text[320];
    va_list args;
    if (p->failed)
        return NULL;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->failed = true;
    vfail_at(p->t, pos, p->err, STATUS_FORMAT, text);
    return NULL;
}

struct node *parser_no_memory(struct parser *p)
{
    if (!p->failed)
        fail(p->err, STATUS_NO_MEMORY, "%s: the template needs too much memory", p->t->shown);
    p->failed = true;
    return NULL;
}

void *parser_alloc(struct parser *p, size_t size)
{
    void *memory = arena_alloc(p->t->arena, size);
    if (!memory)
        parser_no_memory(p);
    return memory;
}

const char *token_text(const struct token *t, char buffer[80])
{
    static const char *const names[] = {
        [T_EOF] = "end of template",
        [T_DATA] = "text",
        [T_VAR_BEGIN] = "{{",
        [T_VAR_END] = "end of print statement",
        [T_BLOCK_BEGIN] = "{%",
        [T_BLOCK_END] = "end of statement block",
        [T_NAME] = "name",
        [T_STRING] = "string",
        [T_INTEGER] = "integer",
        [T_FLOAT] = "float",
        [T_ADD] = "+",
        [T_SUB] = "-",
        [T_MUL] = "*",
        [T_DIV] = "/",
        [T_FLOORDIV] = "//",
        [T_MOD] = "%",
        [T_POW] = "**",
        [T_TILDE] = "~",
        [T_EQ] = "==",
        [T_NE] = "!=",
        [T_LT] = "<",
        [T_LE] = "<=",
        [T_GT] = ">",
        [T_GE] = ">=",
        [T_IN] = "in",
        [T_NOT_IN] = "not in",
        [T_ASSIGN] = "=",
        [T_DOT] = ".",
        [T_COLON] = ":",
        [T_COMMA] = ",",
        [T_PIPE] = "|",
        [T_SEMICOLON] = ";",
        [T_LPAREN] = "(",
        [T_RPAREN] = ")",
        [T_LBRACKET] = "[",
        [T_RBRACKET] = "]",
        [T_LBRACE] = "{",
        [T_RBRACE] = "}",
    };
    if (t->type != T_NAME || t->value.tag != JV_STR)
        return names[t->type];
    snprintf(buffer, 80, "%.*s", (int)t->value.s->len, t->value.s->data);
    return buffer;
}

bool token_is_name(const struct token *t, const char *name)
{
    size_t len = strlen(name);
    return t->type == T_NAME && t->value.s->len == len && memcmp(t->value.s->data, name, len) == 0;
}

bool skip_if(struct parser *p, enum token_type type)
{
    if (peek(p)->type != type)
        return false;
    skip(p);
    return true;
}

bool skip_if_name(struct parser *p, const char *name)
{
    if (!token_is_name(peek(p), name))
        return false;
    skip(p);
    return true;
}

bool expect(struct parser *p, enum token_type type)
{
    char buffer[80];
    if (skip_if(p, type))
        return true;
    struct token wanted = {.type = type};
    parse_fail(p, peek(p)->pos, "expected '%s', got '%s'", token_text(&wanted, NULL),
               token_text(peek(p), buffer));
    return false;
}

const struct jstr *expect_name(struct parser *p)
{
    const struct token *t = peek(p);
    return expect(p, T_NAME) ? t->value.s : NULL;
}

struct node *node_new(struct parser *p, enum node_kind kind, size_t pos)
{
    struct node *n = parser_alloc(p, sizeof *n);
    if (n) {
        n->kind = kind;
        n->pos = (uint32_t)pos;
    }
    return n;
}

static void raise_height(struct node *n, const struct node *child)
{
    if (child && child->height >= n->height)
        n->height = (uint16_t)(child->height + 1);
}

static void raise_by_args(struct node *n, const struct arg_nodes *args)
{
    for (size_t i = 0; i < args->n_pos; i++)
        raise_height(n, args->pos[i]);
    for (size_t i = 0; i < args->n_kw; i++)
        raise_height(n, args->kw[i].value);
    raise_height(n, args->star);
    raise_height(n, args->star_star);
}

struct node *node_seal(struct parser *p, struct node *n)
{
    if (p->failed)
        return NULL;
    n->height = 1;
    raise_height(n, n->a);
    raise_height(n, n->b);
    raise_height(n, n->c);
    for (size_t i = 0; i < n->n_list; i++)
        raise_height(n, n->list[i]);
    for (size_t i = 0; n->params && i < n->params->n; i++)
        raise_height(n, n->params->items[i].initial);
    if (n->args)
        raise_by_args(n, n->args);
    if (n->height <= JINJA_MAX_HEIGHT)
        return n;
    p->failed = true;
    jinja_fail_at(p->t, n->pos, p->err, STATUS_TOO_LARGE, "expressions and blocks nest deeper than %d",
                  JINJA_MAX_HEIGHT);
    return NULL;
}

bool parser_enter(struct parser *p)
{
    if (p->failed)
        return false;
    if (p->nesting < JINJA_MAX_NESTING) {
        p->nesting++;
        return true;
    }
    p->failed = true;
    jinja_fail_at(p->t, peek(p)->pos, p->err, STATUS_TOO_LARGE, "expressions and blocks nest deeper than %d",
                  JINJA_MAX_NESTING);
    return false;
}

size_t pending_count(const struct parser *p)
{
    return p->pending.length / sizeof(struct node *);
}

bool pending_push(struct parser *p, struct node *child)
{
    if (!child)
        return false;
    if (buf_append(&p->pending, &child, sizeof child))
        return true;
    parser_no_memory(p);
    return false;
}

bool pending_take(struct parser *p, size_t from, struct node *parent)
{
    size_t start = from * sizeof(struct node *), size = p->pending.length - start;
    parent->n_list = pending_count(p) - from;
    parent->list = size ? parser_alloc(p, size) : NULL;
    if (parent->list)
        memcpy(parent->list, p->pending.data + start, size);
    p->pending.length = start;
    return !size || parent->list;
}

uint32_t parser_intern(struct parser *p, const struct jstr *name)
{
    struct name_table *t = &p->t->names;
    for (size_t i = 0; i < t->n; i++)
        if (jstr_equal(t->names[i], name))
            return (uint32_t)i;
    if (t->n >= JINJA_MAX_NAMES && !p->failed) {
        p->failed = true;
        jinja_fail_at(p->t, peek(p)->pos, p->err, STATUS_TOO_LARGE, "more than %d different names",
                      JINJA_MAX_NAMES);
        return 0;
    }
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 64;
        const struct jstr **names = parser_alloc(p, capacity * sizeof(*names));
        if (!names)
            return 0;
        if (t->n)
            memcpy(names, t->names, t->n * sizeof(*names));
        t->names = names;
        t->capacity = capacity;
    }
    t->names[t->n] = name;
    return (uint32_t)t->n++;
}
