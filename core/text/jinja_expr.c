/* Expressions, weakest binding first:
 *
 *   a if b else c, or, and, not, == != < > <= >= in, + -, ~, * / // %, **, - +, then .x [x] (x) |f is t
 *
 * Chains of one level become one node with many operands, so that long sums don't make deep trees. */
#include <string.h>

#include "jinja_parser.h"

static struct node *parse_unary(struct parser *p, bool with_filter);

struct level {
    enum node_kind kind;
    struct node *(*operand)(struct parser *p);
    bool (*take)(struct parser *p, unsigned char *op); /* reads an operator of this level if one is here */
};

/* operand (op operand)*: the operand alone, or one node with all of them. */
static struct node *parse_level(struct parser *p, const struct level *level)
{
    size_t from = pending_count(p), pos = peek(p)->pos, n_ops = 0, capacity = 0;
    unsigned char *ops = NULL, op = 0;
    struct node *first = level->operand(p);
    if (!first || !level->take(p, &op))
        return first;
    if (!pending_push(p, first))
        return NULL;
    do {
        if (n_ops == capacity) {
            capacity = capacity ? capacity * 2 : 4;
            unsigned char *more = parser_alloc(p, capacity);
            if (!more)
                return NULL;
            if (n_ops)
                memcpy(more, ops, n_ops);
            ops = more;
        }
        ops[n_ops++] = op;
        if (!pending_push(p, level->operand(p)))
            return NULL;
    } while (level->take(p, &op));
    struct node *n = node_new(p, level->kind, pos);
    if (!n || !pending_take(p, from, n))
        return NULL;
    n->ops = ops;
    return node_seal(p, n);
}

static bool take_of(struct parser *p, unsigned char *op, const enum token_type *types, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (skip_if(p, types[i])) {
            *op = (unsigned char)types[i];
            return true;
        }
    return false;
}

#define TAKE_OF(p, op, ...)                                                                                  \
    take_of(p, op, (const enum token_type[]){__VA_ARGS__},                                                   \
            sizeof((const enum token_type[]){__VA_ARGS__}) / sizeof(enum token_type))

static bool take_pow(struct parser *p, unsigned char *op)
{
    return TAKE_OF(p, op, T_POW);
}
static bool take_mul(struct parser *p, unsigned char *op)
{
    return TAKE_OF(p, op, T_MUL, T_DIV, T_FLOORDIV, T_MOD);
}
static bool take_tilde(struct parser *p, unsigned char *op)
{
    return TAKE_OF(p, op, T_TILDE);
}
static bool take_add(struct parser *p, unsigned char *op)
{
    return TAKE_OF(p, op, T_ADD, T_SUB);
}
static bool take_compare(struct parser *p, unsigned char *op)
{
    if (TAKE_OF(p, op, T_EQ, T_NE, T_LT, T_LE, T_GT, T_GE))
        return true;
    if (skip_if_name(p, "in")) {
        *op = T_IN;
        return true;
    }
    if (!token_is_name(peek(p), "not") || !token_is_name(peek_second(p), "in"))
        return false;
    skip(p);
    skip(p);
    *op = T_NOT_IN;
    return true;
}
static bool take_and(struct parser *p, unsigned char *op)
{
    (void)op;
    return skip_if_name(p, "and");
}
static bool take_or(struct parser *p, unsigned char *op)
{
    (void)op;
    return skip_if_name(p, "or");
}

static struct node *operand_unary(struct parser *p)
{
    return parse_unary(p, true);
}
static struct node *parse_pow(struct parser *p)
{
    return parse_level(p, &(struct level){N_CHAIN, operand_unary, take_pow});
}
static struct node *parse_mul(struct parser *p)
{
    return parse_level(p, &(struct level){N_CHAIN, parse_pow, take_mul});
}
static struct node *parse_concat(struct parser *p)
{
    return parse_level(p, &(struct level){N_CONCAT, parse_mul, take_tilde});
}
static struct node *parse_add(struct parser *p)
{
    return parse_level(p, &(struct level){N_CHAIN, parse_concat, take_add});
}
static struct node *parse_compare(struct parser *p)
{
    return parse_level(p, &(struct level){N_COMPARE, parse_add, take_compare});
}

static struct node *parse_not(struct parser *p)
{
    size_t pos = peek(p)->pos;
    if (!skip_if_name(p, "not"))
        return parse_compare(p);
    if (!parser_enter(p))
        return NULL;
    struct node *a = parse_not(p), *n = a ? node_new(p, N_NOT, pos) : NULL;
    p->nesting--;
    if (!n)
        return NULL;
    n->a = a;
    return node_seal(p, n);
}

static struct node *parse_and(struct parser *p)
{
    return parse_level(p, &(struct level){N_AND, parse_not, take_and});
}
static struct node *parse_or(struct parser *p)
{
    return parse_level(p, &(struct level){N_OR, parse_and, take_or});
}

static struct node *parse_condition(struct parser *p)
{
    struct node *value = parse_or(p);
    while (value && token_is_name(peek(p), "if")) {
        struct node *n = node_new(p, N_COND, peek(p)->pos);
        skip(p);
        if (!n)
            return NULL;
        n->b = value;
        n->a = parse_or(p);
        if (!n->a)
            return NULL;
        if (skip_if_name(p, "else")) {
            n->c = parse_expression(p, true);
            if (!n->c)
                return NULL;
        }
        value = node_seal(p, n);
    }
    return value;
}

struct node *parse_expression(struct parser *p, bool with_condition)
{
    if (!parser_enter(p))
        return NULL;
    struct node *n = with_condition ? parse_condition(p) : parse_or(p);
    p->nesting--;
    return n;
}

/* ---- primaries */

static void note_special_name(struct parser *p, uint32_t name)
{
    const struct known_names *k = &p->t->known;
    for (struct body_context *b = p->body; b; b = b->outer) {
        b->wants_caller |= name == k->caller;
        b->wants_varargs |= name == k->varargs;
        b->wants_kwargs |= name == k->kwargs;
    }
}

static struct node *parse_name(struct parser *p, const struct token *t)
{
    static const struct {
        const char *name;
        enum jv_tag tag;
        bool value;
    } constants[] = {{"true", JV_BOOL, true},   {"True", JV_BOOL, true},  {"false", JV_BOOL, false},
                     {"False", JV_BOOL, false}, {"none", JV_NONE, false}, {"None", JV_NONE, false}};
    struct node *n = node_new(p, N_NAME, t->pos);
    if (!n)
        return NULL;
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (token_is_name(t, constants[i].name)) {
            n->kind = N_CONST;
            n->value = constants[i].tag == JV_NONE ? jv_none() : jv_bool(constants[i].value);
            return node_seal(p, n);
        }
    n->name = parser_intern(p, t->value.s);
    note_special_name(p, n->name);
    return node_seal(p, n);
}

/* Strings that stand side by side are one. */
static struct node *parse_strings(struct parser *p, const struct token *first)
{
    struct node *n = node_new(p, N_CONST, first->pos);
    struct buf text;
    if (!n)
        return NULL;
    n->value = first->value;
    if (peek(p)->type != T_STRING)
        return node_seal(p, n);
    buf_init(&text, 0);
    buf_append(&text, first->value.s->data, first->value.s->len);
    for (; peek(p)->type == T_STRING; skip(p))
        buf_append(&text, peek(p)->value.s->data, peek(p)->value.s->len);
    const struct jstr *joined = text.failed ? NULL : jinja_const_str(p->t->arena, text.data, text.length);
    buf_fini(&text);
    if (!joined)
        return parser_no_memory(p);
    n->value = jv_of_str(joined);
    return node_seal(p, n);
}

static struct node *parse_list(struct parser *p, size_t pos)
{
    size_t from = pending_count(p);
    while (peek(p)->type != T_RBRACKET) {
        if (pending_count(p) > from && !expect(p, T_COMMA))
            return NULL;
        if (peek(p)->type == T_RBRACKET)
            break;
        if (!pending_push(p, parse_expression(p, true)))
            return NULL;
    }
    struct node *n = expect(p, T_RBRACKET) ? node_new(p, N_LIST, pos) : NULL;
    return n && pending_take(p, from, n) ? node_seal(p, n) : NULL;
}

static struct node *parse_dict(struct parser *p, size_t pos)
{
    size_t from = pending_count(p);
    while (peek(p)->type != T_RBRACE) {
        if (pending_count(p) > from && !expect(p, T_COMMA))
            return NULL;
        if (peek(p)->type == T_RBRACE)
            break;
        if (!pending_push(p, parse_expression(p, true)) || !expect(p, T_COLON) ||
            !pending_push(p, parse_expression(p, true)))
            return NULL;
    }
    struct node *n = expect(p, T_RBRACE) ? node_new(p, N_DICT, pos) : NULL;
    return n && pending_take(p, from, n) ? node_seal(p, n) : NULL;
}

static bool tuple_ends(const struct parser *p, const char *stop)
{
    enum token_type type = peek(p)->type;
    return type == T_VAR_END || type == T_BLOCK_END || type == T_RPAREN ||
           (stop && token_is_name(peek(p), stop));
}

static struct node *parse_tuple_items(struct parser *p, bool with_condition, const char *stop, bool in_parens)
{
    size_t from = pending_count(p), pos = peek(p)->pos;
    bool is_tuple = false;
    char buffer[80];
    while (!tuple_ends(p, stop)) {
        if (!pending_push(p, parse_expression(p, with_condition)))
            return NULL;
        if (!skip_if(p, T_COMMA))
            break;
        is_tuple = true;
    }
    if (!is_tuple && pending_count(p) > from) {
        struct node holder = {.kind = N_TUPLE};
        return pending_take(p, from, &holder) ? holder.list[0] : NULL;
    }
    if (!is_tuple && !in_parens)
        return parse_fail(p, pos, "expected an expression, got '%s'", token_text(peek(p), buffer));
    struct node *n = node_new(p, N_TUPLE, pos);
    return n && pending_take(p, from, n) ? node_seal(p, n) : NULL;
}

struct node *parse_tuple(struct parser *p, bool with_condition, const char *stop)
{
    return parse_tuple_items(p, with_condition, stop, false);
}

static struct node *parse_primary(struct parser *p)
{
    const struct token *t = peek(p);
    struct node *n;
    char buffer[80];
    skip(p);
    switch (t->type) {
    case T_NAME:
        return parse_name(p, t);
    case T_STRING:
        return parse_strings(p, t);
    case T_INTEGER:
    case T_FLOAT:
        n = node_new(p, N_CONST, t->pos);
        if (!n)
            return NULL;
        n->value = t->value;
        return node_seal(p, n);
    case T_LPAREN:
        n = parse_tuple_items(p, true, NULL, true);
        return n && expect(p, T_RPAREN) ? n : NULL;
    case T_LBRACKET:
        return parse_list(p, t->pos);
    case T_LBRACE:
        return parse_dict(p, t->pos);
    default:
        return parse_fail(p, t->pos, "unexpected '%s'", token_text(t, buffer));
    }
}

/* ---- what follows a primary: .x [x] (x) |f is t */

static bool slice_part(struct parser *p, struct node **part)
{
    enum token_type type = peek(p)->type;
    if (type == T_COLON || type == T_RBRACKET || type == T_COMMA)
        return true;
    *part = parse_expression(p, true);
    return *part != NULL;
}

static struct node *parse_index(struct parser *p)
{
    size_t pos = peek(p)->pos;
    struct node *start = NULL;
    if (peek(p)->type != T_COLON) {
        start = parse_expression(p, true);
        if (!start || peek(p)->type != T_COLON)
            return start;
    }
    skip(p);
    struct node *n = node_new(p, N_SLICE, pos);
    if (!n)
        return NULL;
    n->a = start;
    if (!slice_part(p, &n->b))
        return NULL;
    if (skip_if(p, T_COLON) && !slice_part(p, &n->c))
        return NULL;
    return node_seal(p, n);
}

static struct node *parse_subscript(struct parser *p, struct node *object)
{
    const struct token *open = peek(p);
    struct node *n = node_new(p, N_GETITEM, open->pos);
    skip(p);
    if (!n)
        return NULL;
    n->a = object;
    if (open->type == T_DOT) {
        const struct token *t = peek(p);
        skip(p);
        n->value = t->value;
        n->pos = t->pos;
        if (t->type == T_NAME) {
            n->kind = N_GETATTR;
            return node_seal(p, n);
        }
        if (t->type != T_INTEGER)
            return parse_fail(p, t->pos, "expected a name or a number after '.'");
        n->b = node_new(p, N_CONST, t->pos);
        if (!n->b)
            return NULL;
        n->b->value = t->value;
        return node_seal(p, n);
    }
    size_t from = pending_count(p);
    while (peek(p)->type != T_RBRACKET) {
        if (!pending_push(p, parse_index(p)))
            return NULL;
        if (!skip_if(p, T_COMMA))
            break;
    }
    n->b = node_new(p, N_TUPLE, open->pos);
    if (!n->b || !pending_take(p, from, n->b) || !expect(p, T_RBRACKET))
        return NULL;
    n->b = n->b->n_list == 1 ? n->b->list[0] : node_seal(p, n->b);
    return n->b ? node_seal(p, n) : NULL;
}

static struct node *parse_call(struct parser *p, struct node *callee)
{
    struct node *n = node_new(p, N_CALL, peek(p)->pos);
    if (!n)
        return NULL;
    n->a = callee;
    n->args = parser_alloc(p, sizeof *n->args);
    return n->args && parse_args(p, n->args) ? node_seal(p, n) : NULL;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    while (n) {
        if (peek(p)->type == T_DOT || peek(p)->type == T_LBRACKET)
            n = parse_subscript(p, n);
        else if (peek(p)->type == T_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* name or name.name of a filter or test. */
static bool parse_dotted_name(struct parser *p, struct node *n)
{
    const struct jstr *name = expect_name(p);
    if (name && peek(p)->type == T_DOT) {
        parse_fail(p, n->pos, "no filter or test has a '.' in its name");
        return false;
    }
    n->value = jv_of_str(name);
    return name != NULL;
}

static struct node *parse_filter_one(struct parser *p, struct node *input)
{
    struct node *n = node_new(p, N_FILTER, peek(p)->pos);
    if (!n || !parse_dotted_name(p, n))
        return NULL;
    n->a = input;
    n->args = parser_alloc(p, sizeof *n->args);
    if (!n->args || (peek(p)->type == T_LPAREN && !parse_args(p, n->args)))
        return NULL;
    return node_seal(p, n);
}

struct node *parse_filter_chain(struct parser *p)
{
    struct node *n = parse_filter_one(p, NULL);
    while (n && skip_if(p, T_PIPE))
        n = parse_filter_one(p, n);
    return n;
}

static bool starts_test_argument(const struct token *t)
{
    switch (t->type) {
    case T_STRING:
    case T_INTEGER:
    case T_FLOAT:
    case T_LBRACKET:
    case T_LBRACE:
        return true;
    case T_NAME:
        return !token_is_name(t, "else") && !token_is_name(t, "or") && !token_is_name(t, "and");
    default:
        return false;
    }
}

static struct node *parse_test(struct parser *p, struct node *value)
{
    size_t pos = peek(p)->pos;
    skip(p);
    bool negated = skip_if_name(p, "not");
    struct node *n = node_new(p, N_TEST, peek(p)->pos);
    if (!n || !parse_dotted_name(p, n))
        return NULL;
    n->a = value;
    n->args = parser_alloc(p, sizeof *n->args);
    if (!n->args)
        return NULL;
    if (peek(p)->type == T_LPAREN) {
        if (!parse_args(p, n->args))
            return NULL;
    } else if (starts_test_argument(peek(p))) {
        if (token_is_name(peek(p), "is"))
            return parse_fail(p, peek(p)->pos, "tests can't be chained with 'is'");
        n->args->pos = parser_alloc(p, sizeof *n->args->pos);
        struct node *arg = n->args->pos ? parse_postfix(p, parse_primary(p)) : NULL;
        if (!arg)
            return NULL;
        n->args->pos[0] = arg;
        n->args->n_pos = 1;
    }
    n = node_seal(p, n);
    struct node *not = n && negated ? node_new(p, N_NOT, pos) : NULL;
    if (!not )
        return n;
    not ->a = n;
    return node_seal(p, not );
}

static struct node *parse_unary(struct parser *p, bool with_filter)
{
    const struct token *t = peek(p);
    struct node *n;
    if (t->type == T_SUB || t->type == T_ADD) {
        skip(p);
        n = parser_enter(p) ? node_new(p, t->type == T_SUB ? N_NEG : N_POS, t->pos) : NULL;
        if (!n)
            return NULL;
        n->a = parse_unary(p, false);
        p->nesting--;
        n = n->a ? node_seal(p, n) : NULL;
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    while (n && with_filter) {
        if (skip_if(p, T_PIPE))
            n = parse_filter_one(p, n);
        else if (token_is_name(peek(p), "is"))
            n = parse_test(p, n);
        else if (peek(p)->type == T_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* ---- arguments */

static bool push_kwarg(struct parser *p, struct arg_nodes *args, const struct jstr *name)
{
    struct node *value = parse_expression(p, true);
    struct kwarg_node *kw = value ? parser_alloc(p, (args->n_kw + 1) * sizeof *kw) : NULL;
    if (!kw)
        return false;
    if (args->n_kw)
        memcpy(kw, args->kw, args->n_kw * sizeof *kw);
    kw[args->n_kw++] = (struct kwarg_node){.name = name, .value = value};
    args->kw = kw;
    return true;
}

static bool parse_arg(struct parser *p, struct arg_nodes *args)
{
    const struct token *t = peek(p);
    const char *message = "this argument can't stand behind the ones before it";
    if (t->type == T_MUL || t->type == T_POW) {
        struct node **star = t->type == T_MUL ? &args->star : &args->star_star;
        if (*star || args->star_star)
            return parse_fail(p, t->pos, "%s", message) != NULL;
        skip(p);
        *star = parse_expression(p, true);
        return *star != NULL;
    }
    if (t->type == T_NAME && peek_second(p)->type == T_ASSIGN) {
        if (args->star_star)
            return parse_fail(p, t->pos, "%s", message) != NULL;
        skip(p);
        skip(p);
        return push_kwarg(p, args, t->value.s);
    }
    if (args->star || args->star_star || args->n_kw)
        return parse_fail(p, t->pos, "%s", message) != NULL;
    return pending_push(p, parse_expression(p, true));
}

bool parse_args(struct parser *p, struct arg_nodes *args)
{
    size_t from = pending_count(p);
    bool first = true;
    struct node holder = {.kind = N_TUPLE};
    if (!expect(p, T_LPAREN))
        return false;
    while (peek(p)->type != T_RPAREN) {
        if (!first && !expect(p, T_COMMA))
            return false;
        if (peek(p)->type == T_RPAREN)
            break;
        if (!parse_arg(p, args))
            return false;
        first = false;
    }
    if (!expect(p, T_RPAREN) || !pending_take(p, from, &holder))
        return false;
    args->pos = holder.list;
    args->n_pos = holder.n_list;
    return true;
}
