/* What the two halves of the parser share: the token stream, node making and errors. Inner header. */
#ifndef LK_JINJA_PARSER_H
#define LK_JINJA_PARSER_H

#include "jinja.h"

/* One macro, call block or the template: which special names its body reads, and where break may stand. */
struct body_context {
    struct body_context *outer;
    bool wants_caller, wants_varargs, wants_kwargs;
    unsigned n_loops;
};

struct parser {
    struct chat_template *t;
    const struct token *tokens;
    size_t n_tokens, at;
    struct buf pending; /* stack of struct node *: the children of lists being read */
    unsigned nesting, n_for;
    struct body_context *body;
    const char *open_tag; /* innermost, for messages; NULL: none */
    struct error *err;
    bool failed;
};

/* All return NULL or false after the error is written. */
struct node *parse_expression(struct parser *p, bool with_condition);
/* An expression, or a tuple without parentheses; ends before a name `stop` where one is given. */
struct node *parse_tuple(struct parser *p, bool with_condition, const char *stop);
struct node *parse_filter_chain(struct parser *p); /* name(args)|name…: its innermost input is NULL */
struct node *parse_target(struct parser *p, bool with_namespace, const char *stop);
bool parse_args(struct parser *p, struct arg_nodes *args);

static inline const struct token *peek(const struct parser *p)
{
    return &p->tokens[p->at];
}
static inline const struct token *peek_second(const struct parser *p)
{
    return &p->tokens[p->at + 1 < p->n_tokens ? p->at + 1 : p->at];
}
static inline void skip(struct parser *p)
{
    if (p->at + 1 < p->n_tokens)
        p->at++;
}
bool token_is_name(const struct token *t, const char *name);
bool skip_if(struct parser *p, enum token_type type);
bool skip_if_name(struct parser *p, const char *name);
bool expect(struct parser *p, enum token_type type);
const struct jstr *expect_name(struct parser *p);
struct node *parse_fail(struct parser *p, size_t pos, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
const char *token_text(const struct token *t, char buffer[80]);

struct node *parser_no_memory(struct parser *p); /* NULL */
void *parser_alloc(struct parser *p, size_t size);
struct node *node_new(struct parser *p, enum node_kind kind, size_t pos);
struct node *node_seal(struct parser *p, struct node *n); /* when its children stand: height */
bool pending_push(struct parser *p, struct node *child);
bool pending_take(struct parser *p, size_t from, struct node *parent); /* parent->list = those since `from` */
size_t pending_count(const struct parser *p);
bool parser_enter(struct parser *p);
uint32_t parser_intern(struct parser *p, const struct jstr *name);

#endif
