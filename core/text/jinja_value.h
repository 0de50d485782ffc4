/* The values of a template while it renders: Python's, as far as a chat template can see them.
 *
 * A value is 16 bytes and points into the render's arena; all but namespaces, cyclers, joiners, loops and
 * iterators is immutable, so values are shared freely and nothing is freed before the render ends. A failed
 * call returns the value JV_ERROR after it has written the render's error. Inner header of core/text. */
#ifndef LK_JINJA_VALUE_H
#define LK_JINJA_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct render;
struct scope;
struct node;
struct loop;
struct builtin;
struct json_t;

enum jv_tag {
    JV_MISSING, /* no value: an absent argument, an empty slot; never seen by a template */
    JV_ERROR,
    JV_UNDEFINED,
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_FLOAT,
    JV_STR,
    JV_LIST,
    JV_TUPLE,
    JV_DICT,
    JV_VIEW, /* dict.keys(), .values(), .items() */
    JV_RANGE,
    JV_ITER, /* a generator: consumed once, always true */
    JV_NAMESPACE,
    JV_LOOP,
    JV_MACRO,
    JV_BUILTIN,
    JV_METHOD,
    JV_CYCLER,
    JV_JOINER,
    JV_SELF, /* the template: its attributes would be blocks, which a chat template has none of */
};

enum jview_kind { JVIEW_KEYS, JVIEW_VALUES, JVIEW_ITEMS };

struct jv {
    enum jv_tag tag;
    uint32_t kind; /* JV_VIEW: enum jview_kind */
    union {
        bool b;
        int64_t i;
        double f;
        const struct jstr *s;
        struct jseq *seq;   /* JV_LIST, JV_TUPLE */
        struct jdict *dict; /* JV_DICT, JV_VIEW, JV_NAMESPACE */
        const struct jrange *range;
        struct jiter *iter;
        const struct jundef *undef;
        struct loop *loop;
        const struct jmacro *macro;
        const struct builtin *builtin;
        const struct jmethod *method;
        struct jcycler *cycler;
        struct jjoiner *joiner;
    };
};

/* UTF-8, not NUL-terminated. Grown strings share one block: see jstr_cat. */
struct jstr {
    const char *data;
    uint32_t len, n_chars;
    struct jstr_tail *tail; /* of the block that data lies in, if it can grow */
    bool safe;              /* Python's Markup: what is added to it is escaped */
};

struct jseq {
    struct jv *items;
    size_t n;
    struct jseq_tail *tail;
    bool group; /* a tuple of groupby: has .grouper and .list */
};

struct jentry {
    struct jv key, value;
};

/* In order of insertion. index: open addressing, entry number + 1; made when there are more than a few. */
struct jdict {
    struct jentry *entries;
    size_t n, capacity;
    uint32_t *index;
    size_t index_size;
};

struct jrange {
    int64_t start, stop, step, n;
};

/* A generator, computed when it was made; an error met then is raised where the reader would have met it. */
struct jiter {
    const char *type_name;
    struct jseq *items;
    size_t at;
    const char *error; /* or NULL */
};

struct jundef {
    const char *hint; /* or NULL */
    struct jv obj;    /* JV_MISSING: a name */
    struct jv name;
    bool unsafe;                  /* SecurityError */
    const struct node *condition; /* the x if y without else that was false; or NULL */
};

struct jmacro {
    const struct node *node;
    struct scope *scope; /* where it was defined */
};

struct jmethod {
    struct jv self;
    const struct builtin *fn;
};

struct jcycler {
    struct jseq *items;
    size_t at;
};

struct jjoiner {
    struct jv sep;
    bool used;
};

/* ---- making values */

static inline struct jv jv_tagged(enum jv_tag tag)
{
    return (struct jv){.tag = tag};
}
static inline struct jv jv_none(void)
{
    return jv_tagged(JV_NONE);
}
static inline struct jv jv_bool(bool b)
{
    return (struct jv){.tag = JV_BOOL, .b = b};
}
static inline struct jv jv_int(int64_t i)
{
    return (struct jv){.tag = JV_INT, .i = i};
}
static inline struct jv jv_float(double f)
{
    return (struct jv){.tag = JV_FLOAT, .f = f};
}
static inline bool jv_is_error(struct jv v)
{
    return v.tag == JV_ERROR;
}
static inline bool jv_is_seq(struct jv v)
{
    return v.tag == JV_LIST || v.tag == JV_TUPLE;
}
static inline bool jv_is_int(struct jv v) /* Python's bool is an int */
{
    return v.tag == JV_INT || v.tag == JV_BOOL;
}
static inline bool jv_is_number(struct jv v)
{
    return jv_is_int(v) || v.tag == JV_FLOAT;
}
static inline int64_t jv_as_int(struct jv v)
{
    return v.tag == JV_BOOL ? v.b : v.i;
}
static inline double jv_as_float(struct jv v)
{
    return v.tag == JV_FLOAT ? v.f : (double)jv_as_int(v);
}
static inline struct jv jv_of_str(const struct jstr *s)
{
    return s ? (struct jv){.tag = JV_STR, .s = s} : jv_tagged(JV_ERROR);
}
static inline struct jv jv_of_seq(enum jv_tag tag, struct jseq *s)
{
    return s ? (struct jv){.tag = tag, .seq = s} : jv_tagged(JV_ERROR);
}
static inline struct jv jv_of_dict(struct jdict *d)
{
    return d ? (struct jv){.tag = JV_DICT, .dict = d} : jv_tagged(JV_ERROR);
}

/* ---- memory and errors (jinja_value.c) */

void *jv_alloc(struct render *r, size_t size); /* zeroed; NULL after the error is written */
/* Writes "class: text"; returns JV_ERROR. class NULL: the text alone. Later errors don't overwrite it. */
struct jv jv_raise(struct render *r, const char *class, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct jv jv_too_large(struct render *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool jv_steps(struct render *r, uint64_t n); /* false: the bound is reached, error written */
bool jv_step_bytes(struct render *r, size_t n_bytes);

const char *jv_type_name(struct jv v);
struct jv jv_undefined(struct render *r, struct jv obj, struct jv name);
struct jv jv_undefined_hint(struct render *r, const char *hint);
struct jv jv_raise_undefined(struct render *r, struct jv undefined);

bool jv_truth(struct jv v);
struct jv jv_len(struct render *r, struct jv v); /* int or error */

struct jseq *jseq_new(struct render *r, size_t n); /* n items, JV_MISSING */
struct jseq *jseq_copy(struct render *r, const struct jv *items, size_t n);
struct jseq *jseq_pair(struct render *r, struct jv a, struct jv b);
bool jseq_push(struct render *r, struct jseq *s, struct jv v); /* for its maker only */
struct jseq *jseq_cat(struct render *r, const struct jseq *a, const struct jseq *b);
struct jv jiter_new(struct render *r, const char *type_name, struct jseq *items);

/* ---- equality, order, dicts (jinja_dict.c) */

struct jv jv_equal(struct render *r, struct jv a, struct jv b); /* bool or error (nesting) */
bool jv_same(struct jv a, struct jv b);                         /* Python's `is` */
/* a < b as Python orders them; bool or error ("'<' not supported …"). op is for the message. */
struct jv jv_less(struct render *r, struct jv a, struct jv b, const char *op);
bool jstr_equal(const struct jstr *a, const struct jstr *b);
int jstr_compare(const struct jstr *a, const struct jstr *b);

struct jdict *jdict_new(struct render *r, size_t capacity);
bool jdict_set(struct render *r, struct jdict *d, struct jv key, struct jv value);
/* 1: found, 0: not, -1: error (unhashable key). */
int jdict_get(struct render *r, const struct jdict *d, struct jv key, struct jv *value);
const struct jv *jdict_get_text(struct render *r, const struct jdict *d, const char *key);

/* ---- iteration and subscription (jinja_iter.c) */

struct jcursor {
    struct jv source;
    size_t at;
};
bool jcursor_begin(struct render *r, struct jcursor *c, struct jv v); /* false: not iterable, error written */
int jcursor_next(struct render *r, struct jcursor *c, struct jv *item); /* 1 item, 0 end, -1 error */
bool jv_iterable(struct jv v);
struct jseq *jv_items(struct render *r, struct jv v); /* everything that iterating gives */
struct jv jv_contains(struct render *r, struct jv container, struct jv item);
struct jv jv_item(struct render *r, struct jv v,
                  struct jv key); /* v[key] of Python; JV_MISSING: LookupError */
struct jv jv_slice(struct render *r, struct jv v, const struct jv bounds[3]);
struct jv jv_reversed(struct render *r, struct jv v);
bool jv_sort(struct render *r, struct jv *items, struct jv *keys, size_t n, bool reverse);

/* ---- strings (jinja_str.c); NULL after an error */

const struct jstr *jstr_new(struct render *r, const char *data, size_t len);    /* copies */
const struct jstr *jstr_borrow(struct render *r, const char *data, size_t len); /* data outlives the render */
const struct jstr *jstr_literal(struct render *r, const char *text);            /* a C string that stays */
const struct jstr *jstr_part(struct render *r, const struct jstr *s, size_t from, size_t to); /* bytes */
const struct jstr *jstr_cat(struct render *r, const struct jstr *a, const struct jstr *b);
const struct jstr *jstr_repeat(struct render *r, const struct jstr *s, int64_t times);
const struct jstr *jstr_mark(struct render *r, const struct jstr *s, bool safe);
const struct jstr *jstr_escape(struct render *r, const struct jstr *s); /* & < > ' " unless safe; safe */
size_t jstr_offset(const struct jstr *s, size_t char_index);            /* byte offset of a character */
#define JSTR_NONE SIZE_MAX
size_t jstr_find(const struct jstr *s, size_t from, const struct jstr *what); /* byte offset */
/* Ends at or before to; JSTR_NONE also after an error. */
size_t jstr_rfind(struct render *r, const struct jstr *s, size_t to, const struct jstr *what);
const struct jstr *jstr_strip(struct render *r, const struct jstr *s, const struct jstr *chars, int sides);
#define STRIP_LEFT 1
#define STRIP_RIGHT 2
const struct jstr *jstr_replace(struct render *r, const struct jstr *s, const struct jstr *const pair[2],
                                int64_t count);
struct jseq *jstr_splitlines(struct render *r, const struct jstr *s, bool keep_ends);
size_t jstr_count_chars(const char *data, size_t len);

enum jcase { JCASE_UPPER, JCASE_LOWER, JCASE_TITLE, JCASE_CAPITAL, JCASE_SWAP, JCASE_FOLD };
const struct jstr *jstr_case(struct render *r, const struct jstr *s, enum jcase how); /* jinja_case.c */

/* ---- characters (jinja_char.c) */

uint32_t jchar_decode(const char *s, size_t len, size_t *n_bytes); /* s is valid UTF-8, len > 0 */
size_t jchar_encode(uint32_t c, char out[4]);
bool jchar_is_space(uint32_t c); /* str.isspace, \s */
bool jchar_is_alpha(uint32_t c);
bool jchar_is_decimal(uint32_t c);
bool jchar_is_digit(uint32_t c);
bool jchar_is_numeric(uint32_t c);
bool jchar_is_upper(uint32_t c);
bool jchar_is_lower(uint32_t c);
bool jchar_is_title(uint32_t c);
bool jchar_is_printable(uint32_t c);
int jchar_decimal_value(uint32_t c);                  /* -1: none */
size_t jchar_space_prefix(const char *s, size_t len); /* bytes of leading white space */
size_t jchar_space_suffix(const char *s, size_t len);

/* ---- text of values (jinja_repr.c, jinja_json.c): appended to the render's output, see render_mark */

bool jv_put(struct render *r, const char *data, size_t len);
bool jv_puts(struct render *r, const char *text);
bool jv_put_str(struct render *r, struct jv v);  /* str(v) */
bool jv_put_repr(struct render *r, struct jv v); /* repr(v) */
bool jv_put_float(struct render *r, double f);
const struct jstr *jv_to_str(struct render *r, struct jv v); /* str(v); a string as it is */
const struct jstr *jv_repr(struct render *r, struct jv v);
const struct jstr *jv_ascii(struct render *r, struct jv v); /* repr with escapes for all that is not ASCII */
struct jv jv_from_json(struct render *r, const struct json_t *json, uint32_t depth);
struct json_style {
    bool ascii, sort;
    const struct jstr *indent; /* NULL: one line */
    const struct jstr *item_separator, *key_separator;
};
bool jv_put_json(struct render *r, struct jv v, const struct json_style *style);

/* ---- operators (jinja_ops.c, jinja_format.c) */

struct jv jv_binary(struct render *r, int op, struct jv a, struct jv b); /* op: enum token_type */
struct jv jv_negate(struct render *r, struct jv v);
struct jv jv_compare(struct render *r, int op, struct jv a, struct jv b);
struct jv jv_format_percent(struct render *r, const struct jstr *format, struct jv args);
struct jv jv_round(struct render *r, struct jv v, int64_t digits);

#endif
