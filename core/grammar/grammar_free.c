/* Free text: anything, but for some strings that it may not have in it or begin with; up to one of them where
 * that is asked. An automaton of its own kind: what was read last decides (Aho and Corasick's), each of its
 * states a rule that ends in the next one, so that no frames grow.
 *
 * Special tokens may come in it. One that is hidden from the text would let two halves of a string meet
 * behind it, so where a string has begun only those come that are such a string as a whole. */
#include <jansson.h>
#include <string.h>

#include "format.h"
#include "grammar_inner.h"

#define NODES_LIMIT 1024U /* bytes of all strings */
#define STATES_LIMIT 4096U
#define NO_STATE UINT32_MAX
#define DONE_STATE (UINT32_MAX - 1)

enum ending { ENDS_NOTHING, ENDS_TEXT, ENDS_NEVER };

struct trie_node {
    uint16_t child, next; /* 0: none */
    uint16_t parent, fail, depth;
    uint8_t byte, ends;
};
struct trie {
    struct trie_node nodes[NODES_LIMIT];
    uint32_t n;
};

/* Where a text stands: in the strings that may come anywhere, and in those that may not come first. */
struct place {
    uint16_t any, first;
    bool begins;          /* it may still be one of `first` */
    bool special;         /* inside of a special token, which must be one of `any` */
    uint8_t more, lo, hi; /* plain text: bytes that its character still has, the next of them from lo to hi */
};

struct free_text {
    struct maker *m;
    struct trie any, first;
    bool until, plain;
    struct place places[STATES_LIMIT];
    uint32_t rules[STATES_LIMIT];
    uint32_t n_places;
};

static uint16_t child_of(const struct trie *t, uint16_t node, uint8_t byte)
{
    uint16_t c = t->nodes[node].child;
    while (c && t->nodes[c].byte != byte)
        c = t->nodes[c].next;
    return c;
}

static void add(struct free_text *f, struct trie *t, const json_t *text, enum ending ends)
{
    const char *s = json_string_value(text);
    uint16_t node = 0;
    for (size_t i = 0; i < json_string_length(text); i++) {
        uint16_t c = child_of(t, node, (uint8_t)s[i]);
        if (!c && t->n == NODES_LIMIT) {
            maker_fail(f->m, STATUS_TOO_LARGE, "free text: its strings have more than %u bytes", NODES_LIMIT);
            return;
        }
        if (!c) {
            c = (uint16_t)t->n++;
            t->nodes[c] = (struct trie_node){.next = t->nodes[node].child,
                                             .parent = node,
                                             .depth = (uint16_t)(t->nodes[node].depth + 1),
                                             .byte = (uint8_t)s[i]};
            t->nodes[node].child = c;
        }
        node = c;
    }
    if (node == 0)
        maker_fail(f->m, STATUS_INVALID, "free text: expected strings that aren't empty");
    t->nodes[node].ends = (uint8_t)ends;
}

static uint16_t follow(const struct trie *t, uint16_t node, uint8_t byte)
{
    for (;;) {
        uint16_t c = child_of(t, node, byte);
        if (c || node == 0)
            return c;
        node = t->nodes[node].fail;
    }
}

/* The longest end of each string's beginning that is a string's beginning, too; shorter ones first. */
static void find_fails(struct trie *t)
{
    bool more = true;
    for (uint16_t depth = 1; more; depth++) {
        more = false;
        for (uint32_t i = 1; i < t->n; i++) {
            struct trie_node *x = &t->nodes[i];
            more |= x->depth > depth;
            if (x->depth != depth)
                continue;
            x->fail = depth > 1 ? follow(t, t->nodes[x->parent].fail, x->byte) : 0;
            x->ends = x->ends ? x->ends : t->nodes[x->fail].ends; /* a whole string before its own end */
        }
    }
}

static bool is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* White space doesn't count in front of `first`, and behind a bracket in it. */
static bool may_have_space(const struct trie *t, uint16_t node)
{
    return node == 0 || t->nodes[node].byte == '[' || t->nodes[node].byte == '{';
}

/* False: no text goes there. */
static bool step_first(const struct free_text *f, struct place *x, uint8_t byte)
{
    bool open = may_have_space(&f->first, x->first);
    uint16_t c = child_of(&f->first, x->first, byte);
    if (is_space(byte) && open)
        return true;
    if (!c && byte == '\\' && !open)
        return false; /* an escape may stand for the next character */
    x->begins = c != 0;
    x->first = c;
    return !f->first.nodes[c].ends;
}

/* Plain text is UTF-8 without U+0000, as JSON strings in grammars are. */
static bool step_character(struct place *x, uint8_t byte)
{
    if (x->more) {
        bool fine = byte >= x->lo && byte <= x->hi;
        x->more--;
        x->lo = x->more ? 0x80 : 0;
        x->hi = x->more ? 0xBF : 0;
        return fine;
    }
    if (byte < 0x80)
        return byte != 0;
    x->more = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
    x->lo = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    x->hi = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
    return byte >= 0xC2 && byte <= 0xF4;
}

/* False: no text goes there. *done: it ends there. */
static bool step(const struct free_text *f, struct place *x, uint8_t byte, bool *done)
{
    *done = false;
    if (byte == SPECIAL_MARK) {
        bool fine = !x->special && !x->more;
        *x = (struct place){.special = x->any || x->begins || f->plain};
        return fine;
    }
    if (f->plain && !step_character(x, byte))
        return false;
    x->any = x->special ? child_of(&f->any, x->any, byte) : follow(&f->any, x->any, byte);
    if ((x->special && !x->any) || f->any.nodes[x->any].ends == ENDS_NEVER)
        return false;
    *done = f->any.nodes[x->any].ends == ENDS_TEXT;
    return *done || !x->begins || step_first(f, x, byte);
}

static uint32_t state_of(struct free_text *f, struct place x)
{
    for (uint32_t i = 0; i < f->n_places; i++) {
        const struct place *p = &f->places[i];
        if (p->any == x.any && p->first == x.first && p->begins == x.begins && p->special == x.special &&
            p->more == x.more && p->lo == x.lo && p->hi == x.hi)
            return i;
    }
    if (f->n_places == STATES_LIMIT) {
        maker_fail(f->m, STATUS_TOO_LARGE, "free text: its strings make more than %u states", STATES_LIMIT);
        return NO_STATE;
    }
    f->places[f->n_places] = x;
    f->rules[f->n_places] = rule_new(f->m, NULL);
    return f->n_places++;
}

/* The bytes that lead to one state, behind it that state. */
static const struct expr *way(struct free_text *f, const uint32_t to[256], uint32_t state)
{
    struct byte_set set = {{0}};
    for (unsigned b = 0; b < 256; b++)
        if (to[b] == state)
            set_add_range(&set, b, b);
    const struct expr *x = expr_set(f->m, &set);
    return state == DONE_STATE ? x : expr_seq2(f->m, x, expr_call(f->m, f->rules[state]));
}

static const struct expr *state_expr(struct free_text *f, uint32_t state)
{
    uint32_t to[256];
    struct expr_list ways = {0};
    for (unsigned b = 0; b < 256; b++) {
        struct place x = f->places[state];
        bool done, lives = step(f, &x, (uint8_t)b, &done);
        to[b] = !lives ? NO_STATE : done ? DONE_STATE : state_of(f, x);
    }
    for (unsigned b = 0; b < 256; b++) {
        bool is_new = to[b] != NO_STATE;
        for (unsigned k = 0; k < b && is_new; k++)
            is_new = to[k] != to[b];
        if (is_new)
            list_add(f->m, &ways, way(f, to, to[b]));
    }
    if (!f->until && !f->places[state].special && !f->places[state].more)
        list_add(f->m, &ways, expr_empty());
    return expr_alt(f->m, &ways);
}

static void add_all(struct free_text *f, struct trie *t, const json_t *list, enum ending ends)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        add(f, t, json_array_get(list, i), ends);
}

const struct expr *free_text_parse(struct maker *m, const char *text, size_t length)
{
    json_t *asked = NULL;
    struct error err;
    struct free_text *f = maker_alloc(m, sizeof *f);
    if (!f || json_parse(text, length, "free text", 3, &asked, &err) != STATUS_OK) {
        maker_fail(m, STATUS_INVALID, "%s", f ? err.text : "no memory");
        return expr_never();
    }
    const json_t *until = json_object_get(asked, "until");
    *f = (struct free_text){.m = m, .any.n = 1, .first.n = 1, .until = until != NULL};
    f->plain = json_is_true(json_object_get(asked, "plain"));
    add_all(f, &f->any, json_object_get(asked, "without"), ENDS_NEVER);
    add_all(f, &f->first, json_object_get(asked, "not_first"), ENDS_NEVER);
    if (until)
        add(f, &f->any, until, ENDS_TEXT);
    json_decref(asked);
    find_fails(&f->any);
    uint32_t start = state_of(f, (struct place){.begins = f->first.n > 1});
    for (uint32_t i = 0; i < f->n_places && maker_goes_on(m); i++)
        rule_define(m, f->rules[i], state_expr(f, i));
    return m->status == STATUS_OK ? expr_call(m, f->rules[start]) : expr_never();
}
