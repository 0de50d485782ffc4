/* Statements: from tokens to the tree that jinja_exec walks. */
#include <string.h>

#include "jinja_parser.h"

static struct node *parse_body(struct parser *p, const char *const *ends);

static bool at_any(const struct parser *p, const char *const *names)
{
    for (; names && *names; names++)
        if (token_is_name(peek(p), *names))
            return true;
    return false;
}

static bool seal_to(struct parser *p, struct node **n)
{
    *n = *n ? node_seal(p, *n) : NULL;
    return *n != NULL;
}

/* ---- targets of assignment: a name, namespace.attribute, or a tuple of these */

static struct node *parse_target_one(struct parser *p, bool with_namespace)
{
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None", NULL};
    const struct token *t = peek(p);
    char buffer[80];
    if (t->type == T_LPAREN) {
        skip(p);
        struct node *inner = parser_enter(p) ? parse_target(p, with_namespace, NULL) : NULL;
        p->nesting--;
        return inner && expect(p, T_RPAREN) ? inner : NULL;
    }
    if (t->type != T_NAME)
        return parse_fail(p, t->pos, "can't assign to '%s'", token_text(t, buffer));
    if (at_any(p, constants))
        return parse_fail(p, t->pos, "can't assign to '%s'", token_text(t, buffer));
    skip(p);
    struct node *n = node_new(p, N_NAME, t->pos);
    if (!n)
        return NULL;
    n->name = parser_intern(p, t->value.s);
    if (with_namespace && skip_if(p, T_DOT)) {
        n->kind = N_NSREF;
        n->value = peek(p)->value;
        if (!expect(p, T_NAME))
            return NULL;
    } else if (n->name == p->t->known.loop && p->n_for) {
        return parse_fail(p, t->pos, "can't assign to the special variable 'loop' inside a for block");
    }
    return node_seal(p, n);
}

struct node *parse_target(struct parser *p, bool with_namespace, const char *stop)
{
    size_t from = pending_count(p), pos = peek(p)->pos;
    bool is_tuple = false;
    do {
        enum token_type type = peek(p)->type;
        if (is_tuple && (type == T_RPAREN || type == T_ASSIGN || (stop && token_is_name(peek(p), stop))))
            break;
        if (!pending_push(p, parse_target_one(p, with_namespace)))
            return NULL;
    } while (skip_if(p, T_COMMA) && (is_tuple = true));
    struct node *n = node_new(p, N_TUPLE, pos);
    if (!n || !pending_take(p, from, n))
        return NULL;
    return is_tuple ? node_seal(p, n) : n->list[0];
}

/* ---- statements; each begins behind the tag's name and ends before the closing %} of its last tag */

static struct node *parse_statements(struct parser *p, const char *const *ends)
{
    skip_if(p, T_COLON);
    return expect(p, T_BLOCK_END) ? parse_body(p, ends) : NULL;
}

/* A body that must end with this one tag, whose name is skipped. */
static struct node *parse_until(struct parser *p, const char *end)
{
    struct node *body = parse_statements(p, (const char *const[]){end, NULL});
    if (body)
        skip(p);
    return body;
}

static struct node *parse_if(struct parser *p, size_t pos)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    size_t from = pending_count(p);
    struct node *n = node_new(p, N_IF, pos);
    do {
        if (!n || !pending_push(p, parse_tuple(p, false, NULL)) ||
            !pending_push(p, parse_statements(p, ends)))
            return NULL;
    } while (skip_if_name(p, "elif"));
    if (token_is_name(peek(p), "else")) {
        skip(p);
        n->c = parse_until(p, "endif");
        if (!n->c)
            return NULL;
    } else {
        skip(p);
    }
    return pending_take(p, from, n) ? node_seal(p, n) : NULL;
}

static struct node *parse_for_header(struct parser *p, struct node *n)
{
    n->list = parser_alloc(p, 2 * sizeof(struct node *));
    if (!n->list)
        return NULL;
    p->n_for++;
    n->a = parse_target(p, false, "in");
    p->n_for--;
    if (!n->a)
        return NULL;
    if (!skip_if_name(p, "in"))
        return parse_fail(p, peek(p)->pos, "expected 'in' in a for tag");
    n->b = parse_tuple(p, false, "recursive");
    if (n->b && skip_if_name(p, "if")) {
        n->list[0] = parse_expression(p, true);
        if (!n->list[0])
            return NULL;
    }
    n->flag = skip_if_name(p, "recursive");
    return n->b ? n : NULL;
}

static struct node *parse_for(struct parser *p, size_t pos)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    struct node *n = node_new(p, N_FOR, pos);
    if (!n || !parse_for_header(p, n))
        return NULL;
    p->n_for++;
    p->body->n_loops++;
    n->c = parse_statements(p, ends);
    p->body->n_loops--;
    if (n->c && token_is_name(peek(p), "else")) {
        skip(p);
        n->list[1] = parse_until(p, "endfor");
        if (!n->list[1])
            return NULL;
    } else {
        skip(p);
    }
    p->n_for--;
    if (!n->c || !seal_to(p, &n))
        return NULL;
    for (int i = 0; i < 2; i++) /* the list has holes, so its height is taken here */
        if (n->list[i] && n->list[i]->height >= n->height)
            n->height = (uint16_t)(n->list[i]->height + 1);
    return n;
}

static struct node *parse_set(struct parser *p, size_t pos)
{
    struct node *n = node_new(p, N_SET, pos);
    if (!n)
        return NULL;
    n->a = parse_target(p, true, NULL);
    if (!n->a)
        return NULL;
    if (skip_if(p, T_ASSIGN)) {
        n->b = parse_tuple(p, true, NULL);
        return n->b ? node_seal(p, n) : NULL;
    }
    n->kind = N_SET_BLOCK;
    if (skip_if(p, T_PIPE)) {
        n->b = parse_filter_chain(p);
        if (!n->b)
            return NULL;
    }
    n->c = parse_until(p, "endset");
    return n->c ? node_seal(p, n) : NULL;
}

static bool parse_param(struct parser *p, struct param_list *params)
{
    const struct token *t = peek(p);
    const struct jstr *name = expect_name(p);
    struct param *items = name ? parser_alloc(p, (params->n + 1) * sizeof *items) : NULL;
    if (!items)
        return false;
    if (params->n)
        memcpy(items, params->items, params->n * sizeof *items);
    struct param *param = &items[params->n];
    param->name = parser_intern(p, name);
    if (skip_if(p, T_ASSIGN)) {
        param->initial = parse_expression(p, true);
        if (!param->initial)
            return false;
    } else if (params->n && items[params->n - 1].initial) {
        return parse_fail(p, t->pos, "a parameter without default behind one with a default") != NULL;
    }
    params->items = items;
    params->n++;
    return true;
}

static bool parse_params(struct parser *p, struct param_list *params)
{
    bool first = true;
    if (!expect(p, T_LPAREN))
        return false;
    while (peek(p)->type != T_RPAREN) {
        if ((!first && !expect(p, T_COMMA)) || !parse_param(p, params))
            return false;
        first = false;
    }
    return expect(p, T_RPAREN);
}

/* The body of a macro or call block. */
static struct node *parse_macro_body(struct parser *p, struct node *n, const char *end)
{
    struct body_context context = {.outer = p->body};
    p->body = &context;
    n->c = parse_until(p, end);
    p->body = context.outer;
    n->params->wants_caller = context.wants_caller;
    n->params->wants_varargs = context.wants_varargs;
    n->params->wants_kwargs = context.wants_kwargs;
    return n->c ? node_seal(p, n) : NULL;
}

static struct node *parse_macro(struct parser *p, size_t pos)
{
    struct node *n = node_new(p, N_MACRO, pos);
    const struct jstr *name = n ? expect_name(p) : NULL;
    if (!name)
        return NULL;
    n->name = parser_intern(p, name);
    n->params = parser_alloc(p, sizeof *n->params);
    if (!n->params || !parse_params(p, n->params))
        return NULL;
    return parse_macro_body(p, n, "endmacro");
}

static struct node *parse_call_block(struct parser *p, size_t pos)
{
    struct node *n = node_new(p, N_CALL_BLOCK, pos);
    if (!n)
        return NULL;
    n->params = parser_alloc(p, sizeof *n->params);
    if (!n->params || (peek(p)->type == T_LPAREN && !parse_params(p, n->params)))
        return NULL;
    size_t call_pos = peek(p)->pos;
    n->a = parse_expression(p, true);
    if (!n->a)
        return NULL;
    if (n->a->kind != N_CALL)
        return parse_fail(p, call_pos, "expected a call");
    return parse_macro_body(p, n, "endcall");
}

static struct node *parse_filter_block(struct parser *p, size_t pos)
{
    struct node *n = node_new(p, N_FILTER_BLOCK, pos);
    if (!n)
        return NULL;
    n->b = parse_filter_chain(p);
    n->c = n->b ? parse_until(p, "endfilter") : NULL;
    return n->c ? node_seal(p, n) : NULL;
}

static struct node *parse_with(struct parser *p, size_t pos)
{
    size_t from = pending_count(p);
    struct node *n = node_new(p, N_WITH, pos);
    while (n && peek(p)->type != T_BLOCK_END && peek(p)->type != T_COLON) {
        if (pending_count(p) > from && !expect(p, T_COMMA))
            return NULL;
        if (!pending_push(p, parse_target(p, false, NULL)) || !expect(p, T_ASSIGN) ||
            !pending_push(p, parse_expression(p, true)))
            return NULL;
    }
    if (!n || !pending_take(p, from, n))
        return NULL;
    n->c = parse_until(p, "endwith");
    return n->c ? node_seal(p, n) : NULL;
}

/* As if it were a macro that is called at once, which is what it is in transformers. */
static struct node *parse_generation(struct parser *p, size_t pos)
{
    struct node *n = node_new(p, N_GENERATION, pos);
    if (!n)
        return NULL;
    n->params = parser_alloc(p, sizeof *n->params);
    return n->params ? parse_macro_body(p, n, "endgeneration") : NULL;
}

/* Chat templates are plain text: escaping is off, and can only be switched off again. */
static struct node *parse_autoescape(struct parser *p, size_t pos)
{
    struct node *n = node_new(p, N_SCOPE, pos), *value = n ? parse_expression(p, true) : NULL;
    if (!value)
        return NULL;
    if (value->kind != N_CONST || jv_truth(value->value))
        return parse_fail(p, pos, "autoescape can only be false in a chat template");
    n->c = parse_until(p, "endautoescape");
    return n->c ? node_seal(p, n) : NULL;
}

static struct node *parse_print(struct parser *p, size_t pos)
{
    size_t from = pending_count(p);
    struct node *n = node_new(p, N_BODY, pos);
    while (n && peek(p)->type != T_BLOCK_END) {
        if (pending_count(p) > from && !expect(p, T_COMMA))
            return NULL;
        struct node *print = node_new(p, N_PRINT, peek(p)->pos);
        if (!print)
            return NULL;
        print->a = parse_expression(p, true);
        if (!print->a || !pending_push(p, node_seal(p, print)))
            return NULL;
    }
    return n && pending_take(p, from, n) ? node_seal(p, n) : NULL;
}

static struct node *parse_loop_control(struct parser *p, size_t pos)
{
    bool is_break = token_is_name(&p->tokens[p->at - 1], "break");
    if (!p->body->n_loops)
        return parse_fail(p, pos, "'%s' outside a loop", is_break ? "break" : "continue");
    struct node *n = node_new(p, is_break ? N_BREAK : N_CONTINUE, pos);
    return n ? node_seal(p, n) : NULL;
}

static struct node *parse_other_template(struct parser *p, size_t pos)
{
    const char *name = p->tokens[p->at - 1].value.s->data;
    if (p->failed)
        return NULL;
    p->failed = true;
    jinja_fail_at(p->t, pos, p->err, STATUS_UNSUPPORTED,
                  "'%s' is for templates of several files or blocks; a chat template is one text", name);
    return NULL;
}

static const struct {
    const char *name;
    struct node *(*parse)(struct parser *p, size_t pos);
} statements[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"generation", parse_generation},
    {"autoescape", parse_autoescape},
    {"print", parse_print},
    {"break", parse_loop_control},
    {"continue", parse_loop_control},
    {"block", parse_other_template},
    {"extends", parse_other_template},
    {"include", parse_other_template},
    {"import", parse_other_template},
    {"from", parse_other_template},
};

static struct node *parse_statement(struct parser *p, const char *const *ends)
{
    const struct token *t = peek(p);
    if (t->type != T_NAME)
        return parse_fail(p, t->pos, "expected the name of a tag");
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        if (!token_is_name(t, statements[i].name))
            continue;
        const char *outer = p->open_tag;
        p->open_tag = statements[i].name;
        skip(p);
        struct node *n = parser_enter(p) ? statements[i].parse(p, t->pos) : NULL;
        p->nesting--;
        p->open_tag = outer;
        return n;
    }
    if (ends)
        return parse_fail(p, t->pos, "unknown tag '%.*s'; inside '%s', which '%s' would end",
                          (int)t->value.s->len, t->value.s->data, p->open_tag, ends[0]);
    return parse_fail(p, t->pos, "unknown tag '%.*s'", (int)t->value.s->len, t->value.s->data);
}

static struct node *parse_print_tag(struct parser *p, size_t pos)
{
    struct node *n = node_new(p, N_PRINT, pos);
    if (!n)
        return NULL;
    n->a = parse_tuple(p, true, NULL);
    return n->a && expect(p, T_VAR_END) ? node_seal(p, n) : NULL;
}

static struct node *parse_data(struct parser *p)
{
    struct node *n = node_new(p, N_DATA, peek(p)->pos);
    if (!n)
        return NULL;
    n->value = peek(p)->value;
    skip(p);
    return node_seal(p, n);
}

/* Up to a tag named in ends, whose name is then the current token; ends NULL: up to the end. */
static struct node *parse_body(struct parser *p, const char *const *ends)
{
    size_t from = pending_count(p);
    struct node *body = node_new(p, N_BODY, peek(p)->pos);
    while (body) {
        const struct token *t = peek(p);
        struct node *n;
        if (t->type == T_EOF) {
            if (ends)
                return parse_fail(p, t->pos, "unexpected end of template inside '%s', which needs '%s'",
                                  p->open_tag, ends[0]);
            break;
        }
        if (t->type == T_DATA) {
            n = parse_data(p);
        } else if (t->type == T_VAR_BEGIN) {
            skip(p);
            n = parse_print_tag(p, t->pos);
        } else {
            skip(p);
            if (at_any(p, ends))
                break;
            n = parse_statement(p, ends);
            n = n && expect(p, T_BLOCK_END) ? n : NULL;
        }
        if (!pending_push(p, n))
            return NULL;
    }
    return body && pending_take(p, from, body) ? node_seal(p, body) : NULL;
}

static uint32_t intern_text(struct parser *p, const char *text)
{
    const struct jstr *s = jinja_const_str(p->t->arena, text, strlen(text));
    return s ? parser_intern(p, s) : 0;
}

enum status jinja_parse(struct chat_template *t, const struct token *tokens, size_t n_tokens,
                        struct error *err)
{
    struct body_context top = {0};
    struct parser p = {.t = t, .tokens = tokens, .n_tokens = n_tokens, .err = err, .body = &top};
    struct error local = {0};
    if (!err)
        p.err = &local;
    t->known.loop = intern_text(&p, "loop");
    t->known.caller = intern_text(&p, "caller");
    t->known.varargs = intern_text(&p, "varargs");
    t->known.kwargs = intern_text(&p, "kwargs");
    if (t->names.n != 4)
        return fail(err, STATUS_NO_MEMORY, "%s: out of memory", t->shown);
    buf_init(&p.pending, 0);
    t->root = parse_body(&p, NULL);
    buf_fini(&p.pending);
    if (t->root)
        return STATUS_OK;
    return p.failed ? p.err->status : fail(err, STATUS_INTERNAL, "%s: the parser stopped", t->shown);
}
