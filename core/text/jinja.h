/* The template language: tokens, tree, and the state of one render. Inner header of core/text.
 *
 *   source → jinja_lex → tokens → jinja_parse → tree → jinja_scope, jinja_check   once, in
 * chat_template_compile tree + variables → jinja_exec (statements), jinja_eval (expressions)  each render
 */
#ifndef LK_JINJA_H
#define LK_JINJA_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "jinja_value.h"

/* Nesting that the parser follows, and the height of a tree: both bound the C stack. */
#define JINJA_MAX_NESTING 100
#define JINJA_MAX_HEIGHT 300
#define JINJA_MAX_SOURCE (1U << 20)
#define JINJA_MAX_NAMES 4096
#define JINJA_MAX_RANGE 100000
#define JINJA_MAX_WIDTH 100000 /* of a formatted field */

/* ---- tokens */

enum token_type {
    T_EOF,
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INTEGER,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_MUL,
    T_DIV,
    T_FLOORDIV,
    T_MOD,
    T_POW,
    T_TILDE,
    T_EQ,
    T_NE,
    T_LT,
    T_LE,
    T_GT,
    T_GE,
    T_IN,     /* made by the parser from names */
    T_NOT_IN, /* likewise */
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_COMMA,
    T_PIPE,
    T_SEMICOLON,
    T_LPAREN,
    T_RPAREN,
    T_LBRACKET,
    T_RBRACKET,
    T_LBRACE,
    T_RBRACE,
};

struct token {
    enum token_type type;
    uint32_t pos;    /* byte offset in the source */
    struct jv value; /* T_DATA, T_NAME, T_STRING: JV_STR; numbers */
};

/* ---- the tree */

enum node_kind {
    N_CONST,   /* value */
    N_NAME,    /* name */
    N_LIST,    /* list */
    N_TUPLE,   /* list */
    N_DICT,    /* list: key, value, … */
    N_CHAIN,   /* list[0] ops[0] list[1] …, from the left */
    N_CONCAT,  /* list */
    N_COMPARE, /* list[0] ops[0] list[1] … */
    N_AND,     /* list */
    N_OR,      /* list */
    N_NOT,     /* a */
    N_NEG,     /* a */
    N_POS,     /* a */
    N_COND,    /* a if b else c (or NULL) */
    N_GETATTR, /* a . value */
    N_GETITEM, /* a [ b ] */
    N_SLICE,   /* a : b : c */
    N_CALL,    /* a (args) */
    N_FILTER,  /* a | value (args); a NULL: the captured text */
    N_TEST,    /* a is value (args) */
    N_NSREF,   /* a target: name . value */
    N_DATA,    /* value */
    N_PRINT,   /* a */
    N_BODY,    /* list */
    N_IF,      /* list: test, body, …; c: else body or NULL */
    N_FOR, /* a: target, b: iterable, c: body, list: filter test or NULL, else body or NULL; flag: recursive
            */
    N_SET, /* a: target, b: value */
    N_SET_BLOCK,    /* a: target, b: filter or NULL, c: body */
    N_MACRO,        /* name, params, c: body */
    N_CALL_BLOCK,   /* a: call, params, c: body */
    N_FILTER_BLOCK, /* b: filter, c: body */
    N_WITH,         /* list: target, value, …; c: body */
    N_GENERATION,   /* params, c: body */
    N_SCOPE,        /* c: body */
    N_BREAK,
    N_CONTINUE,
};

struct kwarg_node {
    const struct jstr *name;
    struct node *value;
};

struct arg_nodes {
    struct node **pos;
    size_t n_pos;
    struct kwarg_node *kw;
    size_t n_kw;
    struct node *star, *star_star;
};

struct param {
    uint32_t name;
    struct node *initial; /* default, or NULL */
};

struct param_list {
    struct param *items;
    size_t n;
    bool wants_caller, wants_varargs, wants_kwargs; /* the body reads these names */
};

struct node {
    enum node_kind kind;
    uint32_t pos;
    uint32_t name;
    uint16_t height;
    bool flag;
    struct jv value;
    struct node *a, *b, *c;
    struct node **list;
    size_t n_list;
    unsigned char *ops;
    struct arg_nodes *args;
    struct param_list *params;
    uint32_t
        *blank; /* [n_blank], of a frame's body: names that it begins with, without a value (jinja_scope) */
    size_t n_blank;
    const struct builtin *def; /* of a filter or test; NULL: unknown, an error when it is reached */
};

struct name_table {
    const struct jstr **names;
    size_t n, capacity;
};

/* The names that the language itself looks up. */
struct known_names {
    uint32_t loop, caller, varargs, kwargs;
};

struct chat_template {
    struct arena *arena;
    const char *source; /* line ends normalised */
    size_t length;
    const char *shown;
    struct node *root;
    struct name_table names;
    struct known_names known;
};

/* All compile functions write "shown: line L, column C: …". */
enum status jinja_lex(struct chat_template *t, struct buf *tokens, struct error *err);
enum status jinja_parse(struct chat_template *t, const struct token *tokens, size_t n_tokens,
                        struct error *err);
enum status jinja_scope(struct chat_template *t, struct error *err);       /* each frame's blank names */
enum status jinja_check(const struct chat_template *t, struct error *err); /* unknown filters, functions … */
enum status jinja_fail_at(const struct chat_template *t, size_t pos, struct error *err, enum status status,
                          const char *format, ...) __attribute__((format(printf, 5, 6)));
void jinja_position(const struct chat_template *t, size_t pos, unsigned *line, unsigned *column);
const struct jstr *jinja_const_str(struct arena *a, const char *data, size_t len); /* NULL: memory */

/* Reads a string literal's inside; on error returns false with *message. (jinja_literal.c) */
bool jinja_unescape(const char *s, size_t len, struct buf *out, const char **message);

/* ---- calls */

struct kwarg {
    const struct jstr *name;
    struct jv value;
};

struct call {
    struct jv self;     /* the filtered or tested value, the method's object */
    const struct jv *a; /* bound parameters, JV_MISSING where not given */
    const struct jv *pos;
    size_t n_pos;
    const struct kwarg *kw;
    size_t n_kw;
};

/* A filter, test, method or global function. params: names, blank between; NULL: takes any arguments. */
struct builtin {
    const char *name;
    const char *params;
    unsigned n_required;
    struct jv (*fn)(struct render *r, const struct call *c);
};

/* Arguments of a call by number: out keeps its value where none was given. False: wrong type, error written.
 */
bool call_int(struct render *r, const struct call *c, int i, int64_t *out);
bool call_str(struct render *r, const struct call *c, int i, const struct jstr **out); /* None: not given */
static inline bool call_bool(const struct call *c, int i)
{
    return jv_truth(c->a[i]);
}

const struct builtin *builtin_find(const struct builtin *table, const char *name, size_t len);
struct jv builtin_call(struct render *r, const struct builtin *b, const struct call *c);

struct jv filter_wordwrap(struct render *r, const struct call *c); /* jinja_wrap.c */
const struct builtin *filter_find(const char *name, size_t len);
const struct builtin *test_find(const char *name, size_t len);
const struct builtin *global_find(const char *name, size_t len);
extern const struct builtin filters_text[], filters_sequence[], filters_value[], filters_select[];
extern const struct builtin methods_str_find[], methods_str_make[], methods_dict[], methods_list[],
    methods_tuple[], methods_range[], methods_int[], methods_float[], methods_loop[], methods_cycler[];

/* obj.name and obj[name] as the sandbox resolves them (jinja_attr.c) */
struct jv jv_getattr(struct render *r, struct jv obj, const struct jstr *name);
struct jv jv_getitem(struct render *r, struct jv obj, struct jv key);
bool method_exists(const struct jstr *name); /* some kind of value has it, forbidden ones included */
struct jv jv_attr_only(struct render *r, struct jv obj, const struct jstr *name); /* never an item */
struct jv jv_path(struct render *r, struct jv obj, struct jv path); /* "a.b.0" of map, sort, … */
struct jv jv_call(struct render *r, struct jv callee, const struct call *c);
struct jv jstr_format(struct render *r, const struct call *c); /* str.format */
struct jv jstr_format_map(struct render *r, const struct call *c);
bool jv_put_formatted(struct render *r, struct jv v, const char *spec, size_t len); /* format(v, spec) */

/* ---- one render */

struct var {
    uint32_t name;
    struct jv value;
};

struct scope {
    struct scope *parent; /* NULL: the root's variables come next */
    struct var *vars;
    uint32_t n, capacity;
};

struct render {
    const struct chat_template *t;
    struct arena *arena;
    size_t memory_limit;
    uint64_t n_steps, step_limit;
    uint32_t depth, depth_limit;     /* calls and loops */
    uint32_t nesting, nesting_limit; /* of evaluation: bounds the C stack */
    struct buf out;                  /* what is rendered; captures are cut off its end */
    struct scope *scope;             /* NULL: root */
    struct jv *root;                 /* [names.n] */
    int64_t now_ms;
    const struct node *where;
    bool fatal; /* a bound or memory: not to be deferred */
    struct error err;
};

/* What a generator computes ahead may fail later than Python would notice: the error is kept for its reader.
 */
struct deferral {
    uint32_t depth;
    size_t out_length;
};
static inline struct deferral defer_begin(const struct render *r)
{
    return (struct deferral){.depth = r->depth, .out_length = r->out.length};
}
/* The generator of items, complete or (ok false) up to an error. */
struct jv defer_end(struct render *r, const struct deferral *d, struct jseq *items, bool ok);

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_ERROR };

/* What has been written since a mark becomes a string: size_t mark = r->out.length; …; render_take(r, mark).
 */
const struct jstr *render_take(struct render *r, size_t mark);
void render_cut(struct render *r, size_t mark); /* forgets it */

struct jv jinja_eval(struct render *r, const struct node *n);
enum flow jinja_exec(struct render *r, const struct node *n);
struct jv jinja_filter(struct render *r, const struct node *n, struct jv input);
struct jv jinja_call_node(struct render *r, const struct node *n,
                          struct jv caller); /* caller: or JV_MISSING */
bool jinja_assign(struct render *r, const struct node *target, struct jv value);
bool scope_set(struct render *r, uint32_t name, struct jv value);
bool scope_push(struct render *r);
bool render_enter(struct render *r, const char *what); /* one call or loop deeper; error at the limit */
struct jv jinja_call_macro(struct render *r, const struct jmacro *m, const struct call *c);
struct jv jinja_call_loop(struct render *r, struct loop *l, const struct call *c);

/* ---- loops (jinja_loop.c) */

struct loop {
    const struct node *node;
    struct scope *outer; /* where the for stands */
    struct jcursor cursor;
    bool filtered;
    struct jv current, before, after; /* after: JV_MISSING unless peeked */
    bool ended;
    int64_t index0, length; /* length -1: not known yet */
    uint32_t depth0;
    struct jv changed; /* JV_MISSING, or what loop.changed was called with */
};
enum flow loop_exec(struct render *r, const struct node *n, struct jv iterable, uint32_t depth0);
struct jv loop_attr(struct render *r, struct loop *l, const struct jstr *name); /* JV_MISSING: none */

#endif
