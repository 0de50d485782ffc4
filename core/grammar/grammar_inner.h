/* What the files of this room share.
 *
 *   JSON schema ─┐
 *   regex        ├─▶ expressions and rules ─▶ nodes (program) ─▶ states, made when met ─▶ masks
 *   GBNF, choice ┘     struct maker             struct program      struct states          struct vocab */
#ifndef LK_GRAMMAR_INNER_H
#define LK_GRAMMAR_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "grammar.h"

#define CODE_POINT_MAX 0x10FFFFU
#define SPECIAL_MARK 0xFFU /* stands before a special token's content; no UTF-8 has it */

/* ---- expressions */

struct byte_set {
    uint64_t bits[4];
};
static inline bool set_has(const struct byte_set *s, unsigned byte)
{
    return s->bits[byte / 64] >> byte % 64 & 1;
}
static inline void set_add_range(struct byte_set *s, unsigned lo, unsigned hi)
{
    for (unsigned b = lo; b <= hi; b++)
        s->bits[b / 64] |= (uint64_t)1 << b % 64;
}

#define REPEAT_FOREVER UINT32_MAX

enum expr_kind { EXPR_NEVER, EXPR_BYTES, EXPR_SET, EXPR_SEQ, EXPR_ALT, EXPR_REPEAT, EXPR_CALL };

/* Immutable once made; lives in the maker's arena. An empty EXPR_BYTES is the empty text. */
struct expr {
    enum expr_kind kind;
    uint32_t min, max; /* REPEAT; max REPEAT_FOREVER: no end */
    uint32_t rule;     /* CALL */
    uint32_t n;        /* bytes of BYTES, items of SEQ and ALT */
    union {
        const uint8_t *bytes;
        const struct expr *const *items;
        const struct expr *child; /* REPEAT */
    };
    struct byte_set set; /* SET */
};

struct expr_list {
    const struct expr **items;
    uint32_t n, capacity;
};

struct rule {
    const struct expr *body; /* NULL: named, not defined yet */
};

/* Gathers expressions and rules. The first failure stays, and all that is made later is EXPR_NEVER, so
 * callers may check `status` at the end. */
struct maker {
    struct arena *arena;
    struct rule *rules; /* in the arena, doubled when full */
    uint32_t n_rules, rules_capacity, n_exprs;
    int64_t deadline_ns;
    bool compact; /* the JSON that is being made has no white space */
    enum status status;
    struct error *err;
};

LK_MUST_USE enum status maker_init(struct maker *m, struct error *err);
void maker_fini(struct maker *m);
void maker_fail(struct maker *m, enum status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* False after a failure, or once the deadline has passed (which is then the failure). */
bool maker_goes_on(struct maker *m);
void *maker_alloc(struct maker *m, size_t size_bytes); /* NULL after a failure */

const struct expr *expr_never(void);
const struct expr *expr_empty(void);
const struct expr *expr_bytes(struct maker *m, const void *bytes, size_t n); /* copies */
const struct expr *expr_text(struct maker *m, const char *text);
const struct expr *expr_set(struct maker *m, const struct byte_set *set);
const struct expr *expr_call(struct maker *m, uint32_t rule);
const struct expr *expr_repeat(struct maker *m, const struct expr *x, uint32_t min, uint32_t max);
const struct expr *expr_seq2(struct maker *m, const struct expr *a, const struct expr *b);
const struct expr *expr_alt2(struct maker *m, const struct expr *a, const struct expr *b);
void list_add(struct maker *m, struct expr_list *l, const struct expr *x);
const struct expr *expr_seq(struct maker *m, const struct expr_list *l);
const struct expr *expr_alt(struct maker *m, const struct expr_list *l);
/* One of the texts: alternatives that begin alike share their beginning. */
struct text_slice {
    const char *text;
    size_t length;
};
const struct expr *expr_any_text(struct maker *m, struct text_slice *texts, uint32_t n); /* sorts them */
uint32_t rule_new(struct maker *m, const struct expr *body); /* body may be NULL and be set later */
void rule_define(struct maker *m, uint32_t rule, const struct expr *body);

/* grammar_sets.c: texts of both, and of a that b hasn't, for expressions that don't call themselves. NULL:
 * they do, or it takes more sets than are allowed. */
const struct expr *expr_both(struct maker *m, const struct expr *a, const struct expr *b);
const struct expr *expr_without(struct maker *m, const struct expr *a, const struct expr *b);
/* Whether x has a text, which is EXPR_BYTES; *known false: as above. */
bool expr_matches(struct maker *m, const struct expr *x, const struct expr *text, bool *known);

/* ---- characters */

struct range {
    uint32_t lo, hi;
};
/* Code points; ranges in any order until ranges_tidy. */
struct ranges {
    struct range *items;
    uint32_t n, capacity;
};
void ranges_add(struct maker *m, struct ranges *r, uint32_t lo, uint32_t hi);
void ranges_add_all(struct maker *m, struct ranges *r, const struct ranges *more);
void ranges_tidy(struct ranges *r); /* sorted, joined, without surrogates */
void ranges_invert(struct maker *m, struct ranges *r);
/* How a character is written. */
enum spelling {
    SPELL_UTF8,
    SPELL_JSON /* inside of a JSON string, each in exactly one way: as itself, or \" \\ \b \t \n \f \r, or
                  \u00XX for other controls; never U+0000 */
};
const struct expr *expr_ranges(struct maker *m, struct ranges *r, enum spelling spelling);
const struct expr *expr_code_point(struct maker *m, uint32_t c, enum spelling spelling);
/* UTF-8 text, spelled. */
const struct expr *expr_spelled(struct maker *m, const char *text, size_t length, enum spelling spelling);
/* The next code point of valid UTF-8 text at *at, which moves; false at the end or where it is not valid. */
bool next_code_point(const char *text, size_t length, size_t *at, uint32_t *c);

/* ---- front ends: each gives an expression, or fails */

struct regex_options {
    enum spelling spelling;
    bool search;      /* the text contains a match (JSON schema's pattern); else all of it matches */
    const char *name; /* in errors */
};
/* n_min, n_max (may be NULL): fewest and most characters of a match of the whole text. */
const struct expr *regex_parse(struct maker *m, const char *text, size_t length,
                               const struct regex_options *o, uint64_t *n_min, uint64_t *n_max);
const struct expr *gbnf_parse(struct maker *m, const char *text, size_t length);
const struct expr *schema_parse(struct maker *m, const char *text, size_t length);
const struct expr *json_object_expr(struct maker *m); /* any */
const struct expr *choice_parse(struct maker *m, const char *text, size_t length);
const struct expr *free_text_parse(struct maker *m, const char *text, size_t length);

/* ---- program */

enum node_kind { NODE_END, NODE_FAIL, NODE_BYTE, NODE_SPLIT, NODE_CALL };
struct node {
    uint32_t kind : 3, a : 29; /* BYTE: set; SPLIT: one way; CALL: rule */
    uint32_t b;                /* BYTE, CALL: what follows; SPLIT: the other way */
};
#define END_NODE 0U
#define FAIL_NODE 1U
#define NODES_MAX (1U << 18)
#define RULES_MAX (1U << 15)
#define EXPRS_MAX (1U << 20)

struct program {
    struct node *nodes;
    uint16_t *depths; /* frames that the way from this node to its rule's end needs at least; UNREACHABLE */
    uint32_t n_nodes, nodes_capacity;
    struct byte_set *sets;
    uint32_t n_sets, sets_capacity;
    uint32_t *starts; /* [n_rules] */
    uint32_t *ends;   /* [n_rules] behind the last of a rule's nodes, which lie together */
    uint32_t n_rules;
    uint8_t class_of[256]; /* bytes that all sets treat alike */
    uint8_t class_byte[256];
    uint32_t n_classes;
};
#define UNREACHABLE UINT16_MAX

/* Rules of the maker, beginning with `root`, as nodes. */
LK_MUST_USE enum status program_create(struct maker *m, uint32_t root, struct program *p);
void program_fini(struct program *p);
size_t program_bytes(const struct program *p);
/* program_check.c: what each node needs, and that no rule calls itself before it has read a byte. */
void program_check(struct maker *m, struct program *p);

/* ---- vocabulary */

#define NO_TOKEN UINT32_MAX
struct vocab_node {
    uint32_t skip;  /* the next node that is not below this one */
    uint32_t token; /* the first one that ends here, or NO_TOKEN */
    uint16_t depth; /* bytes before this one's */
    uint8_t byte;
};
struct vocab_tree {
    struct vocab_node *nodes; /* in the order of a walk */
    uint32_t n_nodes;
};
/* Plain: whole characters that JSON strings spell as themselves, at most so many. Most tokens are, and in the
 * middle of a string their number of characters alone decides (grammar_states.c). */
#define PLAIN_CHARS_MAX 16U
struct grammar_vocab {
    uint32_t n_vocab;
    struct vocab_tree all;
    /* Tokens that aren't plain, by how many plain characters they begin with (the last: so many or more):
     * only what stands behind these, so that one node is all tokens that go on alike. */
    struct vocab_tree rest[PLAIN_CHARS_MAX + 1];
    uint64_t *plain; /* [PLAIN_CHARS_MAX + 1, words] the plain tokens of at most so many characters */
    uint32_t n_plain[PLAIN_CHARS_MAX + 1];
    uint32_t *same;      /* [n_vocab] the next token of the same bytes, or NO_TOKEN */
    uint32_t *same_rest; /* [n_vocab] the next token that ends at the same node of `rest`, or NO_TOKEN */
    uint32_t *offsets;   /* [n_vocab + 1] of each token's bytes */
    uint8_t *bytes;
    uint64_t *drops_space; /* a bit a token: at the start of a text its leading space isn't shown */
    uint32_t n_drops_space, longest;
};

/* ---- states */

struct states;
LK_MUST_USE enum status states_create(const struct program *p, const struct grammar_vocab *v,
                                      struct states **out, struct error *err);
void states_destroy(struct states *s);
size_t states_bytes(const struct states *s);
uint64_t states_epoch(const struct states *s);
void states_reset(struct states *s); /* forgets all; the epoch changes */
#define STATE_FULL 0U                /* no room: reset and begin again */
#define STATE_DEAD UINT32_MAX
uint32_t states_start(struct states *s);
uint32_t states_step(struct states *s, uint32_t state, uint8_t byte);
bool states_may_end(const struct states *s, uint32_t state);
bool states_goes_on(const struct states *s, uint32_t state); /* some byte may follow */
/* The mask of a state; `first`: the text begins here. NULL: no room. n: tokens in it. */
const uint64_t *states_mask(struct states *s, uint32_t state, bool first, uint32_t *n);

struct grammar {
    atomic_uint refs;
    struct program program;
    const struct grammar_vocab *vocab;
    pthread_mutex_t lock; /* around `states`; a leaf, held for a mask at most */
    bool has_lock;
    struct states *states;
};

#endif
