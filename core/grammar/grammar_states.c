/* The states of a program that were met, and what follows them: made when first asked for, kept in tables of
 * a fixed size, all forgotten when one is full (the caller finds its place again from the start).
 *
 *   state    a set of (BYTE node, frame) pairs, sorted, and whether the text may end here
 *   frame    where a called rule goes on, and the frame below; equal ones are one
 *   row      [n_classes] the state behind each class of bytes: 0 not known yet, STATE_DEAD none
 *   mask     the tokens of the vocabulary that lead somewhere; a pool of them goes round
 *
 * Owner: whoever holds the grammar's lock. Nothing is allocated after states_create. */
#include <string.h>

#include "base/mem.h"
#include "grammar_inner.h"

#define FRAMES_MAX 32768U
#define FRAME_SLOTS (2U * FRAMES_MAX)
#define STATES_MAX 16384U
#define STATE_SLOTS (2U * STATES_MAX)
#define PAIRS_MAX (1U << 18)
#define SEED_SLOTS 8192U
#define ROWS_BYTES_MAX ((size_t)6 << 20)
#define CLOSURE_MAX 8192U /* pairs of one state, and all that leads to them */
#define CLOSURE_SLOTS (4U * CLOSURE_MAX)
#define MASKS_BYTES ((size_t)4 << 20)
#define MASKS_MIN 16U
#define MASKS_MAX 1024U
#define WORK_MAX (4U << 20) /* pairs looked at for one mask */

struct frame {
    uint32_t ret, parent; /* parent 0: the bottom */
    uint32_t depth;       /* frames with this one */
};

struct state {
    uint32_t pairs, n_pairs; /* in the pool */
    uint32_t mask;           /* 0: none, else its number + 1 */
    uint32_t n_allowed;      /* tokens in the mask */
    uint32_t plain_next;     /* 0: not known; else the state behind each plain character, or one of these: */
    bool may_end;
};

/* The state that a single pair leads to without a byte. */
struct seed {
    uint64_t pair;
    uint32_t state; /* 0: not known */
};

#define PLAIN_DEAD STATE_DEAD        /* no plain character may come */
#define PLAIN_MIXED (STATE_DEAD - 1) /* it depends on the character */

struct states {
    const struct program *p;
    const struct grammar_vocab *v;
    uint64_t epoch;
    uint32_t n_frames, n_states, n_pairs, states_max;
    struct frame *frames;     /* [FRAMES_MAX] from 1 */
    uint32_t *frame_slots;    /* [FRAME_SLOTS] */
    struct state *states;     /* [states_max + 1] from 1 */
    uint32_t *state_slots;    /* [STATE_SLOTS] */
    uint32_t *rows;           /* [states_max + 1, n_classes] */
    uint64_t *pairs;          /* [PAIRS_MAX] node << 32 | frame */
    struct seed *seeds;       /* [SEED_SLOTS] */
    uint64_t work, work_most; /* pairs looked at; where the mask that is made must end */

    /* one closure */
    uint64_t *seen;        /* [CLOSURE_SLOTS] pairs + 1 */
    uint32_t *seen_used;   /* slots to clear */
    uint64_t *todo, *made; /* [CLOSURE_MAX] */
    uint32_t n_seen, n_todo, n_made;
    bool ends;

    /* masks */
    uint64_t *masks;   /* [n_masks, words] */
    uint32_t *holders; /* [n_masks] the state of each, 0: none */
    uint32_t n_masks, next_mask, n_masks_used;
    uint64_t *first_mask; /* of the start, where the vocabulary drops spaces */
    uint32_t n_first;
    bool has_first;
    uint32_t start;
    uint32_t *way; /* [longest token + 2] states of a walk */
};

static size_t words_of(const struct states *s)
{
    return grammar_mask_words(s->v->n_vocab);
}

enum status states_create(const struct program *p, const struct grammar_vocab *v, struct states **out,
                          struct error *err)
{
    struct states *s = mem_zalloc(sizeof *s);
    *out = s;
    if (!s)
        return fail(err, STATUS_NO_MEMORY, "no memory for a grammar's states");
    size_t words = grammar_mask_words(v->n_vocab), row_bytes = p->n_classes * sizeof(uint32_t);
    s->p = p;
    s->v = v;
    s->epoch = 1;
    s->states_max =
        ROWS_BYTES_MAX / row_bytes < STATES_MAX ? (uint32_t)(ROWS_BYTES_MAX / row_bytes) : STATES_MAX;
    size_t n_masks = MASKS_BYTES / (words * sizeof(uint64_t) + 1);
    s->n_masks = (uint32_t)(n_masks < MASKS_MIN ? MASKS_MIN : n_masks > MASKS_MAX ? MASKS_MAX : n_masks);
    /* zeroed, so that the system gives pages when they are used */
    s->frames = mem_array(FRAMES_MAX + 1, sizeof *s->frames);
    s->frame_slots = mem_array(FRAME_SLOTS, sizeof *s->frame_slots);
    s->states = mem_array(s->states_max + 1, sizeof *s->states);
    s->state_slots = mem_array(STATE_SLOTS, sizeof *s->state_slots);
    s->rows = mem_array(s->states_max + 1, row_bytes);
    s->pairs = mem_array(PAIRS_MAX, sizeof *s->pairs);
    s->seeds = mem_array(SEED_SLOTS, sizeof *s->seeds);
    s->seen = mem_array(CLOSURE_SLOTS, sizeof *s->seen);
    s->seen_used = mem_array(CLOSURE_MAX, sizeof *s->seen_used);
    s->todo = mem_array(CLOSURE_MAX, sizeof *s->todo);
    s->made = mem_array(CLOSURE_MAX, sizeof *s->made);
    s->masks = mem_array(s->n_masks, words * sizeof *s->masks);
    s->holders = mem_array(s->n_masks, sizeof *s->holders);
    s->first_mask = mem_array(words, sizeof *s->first_mask);
    s->way = mem_array(v->longest + 2, sizeof *s->way);
    if (s->frames && s->frame_slots && s->states && s->state_slots && s->rows && s->pairs && s->seeds &&
        s->seen && s->seen_used && s->todo && s->made && s->masks && s->holders && s->first_mask && s->way)
        return STATUS_OK;
    return fail(err, STATUS_NO_MEMORY, "no memory for a grammar's states");
}

void states_destroy(struct states *s)
{
    if (!s)
        return;
    mem_free(s->frames);
    mem_free(s->frame_slots);
    mem_free(s->states);
    mem_free(s->state_slots);
    mem_free(s->rows);
    mem_free(s->pairs);
    mem_free(s->seeds);
    mem_free(s->seen);
    mem_free(s->seen_used);
    mem_free(s->todo);
    mem_free(s->made);
    mem_free(s->masks);
    mem_free(s->holders);
    mem_free(s->first_mask);
    mem_free(s->way);
    mem_free(s);
}

/* What is in use: the rest of the tables was never touched. */
size_t states_bytes(const struct states *s)
{
    return sizeof *s + s->n_frames * sizeof *s->frames + s->n_pairs * sizeof *s->pairs +
           s->n_states * (sizeof *s->states + s->p->n_classes * sizeof *s->rows) +
           (size_t)s->n_masks_used * words_of(s) * sizeof *s->masks + SEED_SLOTS * sizeof *s->seeds + 65536;
}

uint64_t states_epoch(const struct states *s)
{
    return s->epoch;
}

void states_reset(struct states *s)
{
    memset(s->frame_slots, 0, FRAME_SLOTS * sizeof *s->frame_slots);
    memset(s->state_slots, 0, STATE_SLOTS * sizeof *s->state_slots);
    memset(s->seeds, 0, SEED_SLOTS * sizeof *s->seeds);
    memset(s->holders, 0, s->n_masks * sizeof *s->holders);
    s->n_frames = s->n_states = s->n_pairs = s->start = 0;
    s->has_first = false;
    s->epoch++;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15U;
    return x ^ x >> 29;
}

/* ---- closures */

/* 0: no room. */
static uint32_t frame_of(struct states *s, uint32_t ret, uint32_t parent)
{
    uint32_t at = (uint32_t)mix((uint64_t)ret << 32 | parent) % FRAME_SLOTS;
    for (; s->frame_slots[at]; at = (at + 1) % FRAME_SLOTS) {
        const struct frame *f = &s->frames[s->frame_slots[at]];
        if (f->ret == ret && f->parent == parent)
            return s->frame_slots[at];
    }
    if (s->n_frames == FRAMES_MAX)
        return 0;
    uint32_t id = ++s->n_frames;
    s->frames[id] = (struct frame){ret, parent, (parent ? s->frames[parent].depth : 0) + 1};
    s->frame_slots[at] = id;
    return id;
}

/* Whether from this node, with so many frames below, a text can end within the bound. */
static bool is_finishable(const struct states *s, uint32_t node, uint32_t frame)
{
    uint32_t depth = frame ? s->frames[frame].depth : 0;
    return depth + s->p->depths[node] <= GRAMMAR_FRAMES_MAX;
}

/* Adds a pair that wasn't there; false: no room. */
static bool see(struct states *s, uint32_t node, uint32_t frame)
{
    if (!is_finishable(s, node, frame))
        return true;
    uint64_t pair = (uint64_t)node << 32 | frame;
    uint32_t at = (uint32_t)mix(pair) % CLOSURE_SLOTS;
    for (; s->seen[at]; at = (at + 1) % CLOSURE_SLOTS)
        if (s->seen[at] == pair + 1)
            return true;
    if (s->n_seen == CLOSURE_MAX)
        return false;
    s->seen[at] = pair + 1;
    s->seen_used[s->n_seen++] = at;
    s->todo[s->n_todo++] = pair;
    return true;
}

static bool follow(struct states *s, uint32_t id, uint32_t frame)
{
    const struct node *n = &s->p->nodes[id];
    switch ((enum node_kind)n->kind) {
    case NODE_FAIL:
        return true;
    case NODE_BYTE:
        s->made[s->n_made++] = (uint64_t)id << 32 | frame;
        return true;
    case NODE_SPLIT:
        return see(s, n->a, frame) && see(s, n->b, frame);
    case NODE_CALL:
        if (n->b == END_NODE)
            return see(s, s->p->starts[n->a], frame);
        if (!is_finishable(s, id, frame))
            return true;
        frame = frame_of(s, n->b, frame);
        return frame && see(s, s->p->starts[n->a], frame);
    case NODE_END:
        if (frame)
            return see(s, s->frames[frame].ret, s->frames[frame].parent);
        s->ends = true;
        return true;
    }
    return true;
}

/* All that is reached from what was seen without a byte, into `made`. */
static bool close_all(struct states *s)
{
    while (s->n_todo) {
        uint64_t pair = s->todo[--s->n_todo];
        s->work++;
        if (!follow(s, (uint32_t)(pair >> 32), (uint32_t)pair))
            return false;
    }
    return true;
}

static void closure_begin(struct states *s)
{
    for (uint32_t i = 0; i < s->n_seen; i++)
        s->seen[s->seen_used[i]] = 0;
    s->n_seen = s->n_todo = s->n_made = 0;
    s->ends = false;
}

static void sort_pairs(uint64_t *k, uint32_t n)
{
    for (uint32_t gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11) /* Shell's: nothing allocated */
        for (uint32_t i = gap; i < n; i++) {
            uint64_t x = k[i];
            uint32_t j = i;
            for (; j >= gap && k[j - gap] > x; j -= gap)
                k[j] = k[j - gap];
            k[j] = x;
        }
}

/* The state of what is in `made`. */
static uint32_t state_of_made(struct states *s)
{
    if (s->n_made == 0 && !s->ends)
        return STATE_DEAD;
    sort_pairs(s->made, s->n_made);
    uint64_t h = s->ends;
    for (uint32_t i = 0; i < s->n_made; i++)
        h = mix(h ^ s->made[i]) + i;
    uint32_t at = (uint32_t)mix(h) % STATE_SLOTS;
    for (; s->state_slots[at]; at = (at + 1) % STATE_SLOTS) {
        const struct state *x = &s->states[s->state_slots[at]];
        if (x->n_pairs == s->n_made && x->may_end == s->ends &&
            memcmp(s->pairs + x->pairs, s->made, s->n_made * sizeof *s->made) == 0)
            return s->state_slots[at];
    }
    if (s->n_states == s->states_max || s->n_pairs + s->n_made > PAIRS_MAX)
        return STATE_FULL;
    uint32_t id = ++s->n_states;
    memcpy(s->pairs + s->n_pairs, s->made, s->n_made * sizeof *s->made);
    s->states[id] = (struct state){.pairs = s->n_pairs, .n_pairs = s->n_made, .may_end = s->ends};
    s->n_pairs += s->n_made;
    memset(s->rows + (size_t)id * s->p->n_classes, 0, s->p->n_classes * sizeof *s->rows);
    s->state_slots[at] = id;
    return id;
}

uint32_t states_start(struct states *s)
{
    if (s->start)
        return s->start;
    closure_begin(s);
    if (!see(s, s->p->starts[0], 0) || !close_all(s))
        return STATE_FULL;
    s->start = state_of_made(s);
    return s->start;
}

/* The pairs that a state's bytes lead to, before what follows them without a byte. Returns how many, of which
 * *only is the last one. */
static uint32_t seeds_of(struct states *s, uint32_t state, unsigned byte, uint64_t *only)
{
    const struct state *x = &s->states[state];
    uint32_t n_seeds = 0;
    s->work += x->n_pairs;
    for (uint32_t i = 0; i < x->n_pairs; i++) {
        uint64_t pair = s->pairs[x->pairs + i];
        const struct node *n = &s->p->nodes[pair >> 32];
        if (!set_has(&s->p->sets[n->a], byte))
            continue;
        *only = (uint64_t)n->b << 32 | (uint32_t)pair;
        s->todo[n_seeds++] = *only;
    }
    return n_seeds;
}

static uint32_t close_seeds(struct states *s, uint32_t n_seeds)
{
    closure_begin(s);
    for (uint32_t i = 0; i < n_seeds; i++) /* a seed's place is read before `see` can write there */
        if (!see(s, (uint32_t)(s->todo[i] >> 32), (uint32_t)s->todo[i]))
            return STATE_FULL;
    return close_all(s) ? state_of_made(s) : STATE_FULL;
}

/* Most steps have one seed, and many have the same: the characters of a string, whatever they begin with. */
static uint32_t make_step(struct states *s, uint32_t state, uint32_t class)
{
    uint64_t only = 0;
    uint32_t n_seeds = seeds_of(s, state, s->p->class_byte[class], &only), next = STATE_DEAD;
    struct seed *known = &s->seeds[mix(only) % SEED_SLOTS];
    if (n_seeds == 1 && known->state && known->pair == only)
        next = known->state;
    else if (n_seeds)
        next = close_seeds(s, n_seeds);
    if (n_seeds == 1 && next != STATE_FULL)
        *known = (struct seed){only, next};
    if (next != STATE_FULL)
        s->rows[(size_t)state * s->p->n_classes + class] = next;
    return next;
}

static inline uint32_t step(struct states *s, uint32_t state, uint8_t byte)
{
    uint32_t class = s->p->class_of[byte];
    uint32_t next = s->rows[(size_t)state * s->p->n_classes + class];
    return next ? next : make_step(s, state, class);
}

uint32_t states_step(struct states *s, uint32_t state, uint8_t byte)
{
    return step(s, state, byte);
}

bool states_may_end(const struct states *s, uint32_t state)
{
    return s->states[state].may_end;
}

bool states_goes_on(const struct states *s, uint32_t state)
{
    return s->states[state].n_pairs > 0;
}

/* ---- masks */

static uint32_t set_tokens(const uint32_t *same, uint32_t token, uint64_t *mask)
{
    uint32_t n = 0;
    for (; token != NO_TOKEN; token = same[token], n++)
        mask[token / 64] |= (uint64_t)1 << token % 64;
    return n;
}

/* Nodes [begin, end) of a tree, and what follows each token in its list. */
struct part {
    const struct vocab_node *nodes;
    uint32_t begin, end;
    const uint32_t *same;
};

/* The tokens of a part that `state` allows, where the bytes above it are read already; *n counts them. False:
 * no room. */
static bool walk(struct states *s, uint32_t state, struct part part, uint64_t *mask, uint32_t *n)
{
    const struct vocab_node *nodes = part.nodes;
    uint32_t begin = part.begin, end = part.end, base = begin < end ? nodes[begin].depth : 0;
    s->way[0] = state;
    for (uint32_t i = begin; i < end;) {
        const struct vocab_node *x = &nodes[i];
        uint32_t depth = x->depth - base, next = step(s, s->way[depth], x->byte);
        if (next == STATE_FULL || s->work > s->work_most)
            return false;
        if (next == STATE_DEAD) {
            i = x->skip;
            continue;
        }
        s->way[depth + 1] = next;
        if (x->token != NO_TOKEN)
            *n += set_tokens(part.same, x->token, mask);
        i++;
    }
    return true;
}

/* ---- plain characters
 *
 * In the middle of a JSON string every character but the quote, the backslash and controls leads to the same
 * state, and so on from there: then plain tokens needn't be walked, as their length decides. */

/* The bytes that a character may have after its first: each of them in [lo, hi] leads on. */
struct lead {
    uint8_t lo, hi;           /* of the first byte */
    uint8_t n_more;           /* bytes behind it */
    uint8_t next_lo, next_hi; /* of the second; those behind are 80 to BF */
};
static const struct lead leads[] = {
    {' ', '!', 0, 0, 0},         {'#', '[', 0, 0, 0},         {']', 0x7F, 0, 0, 0},
    {0xC2, 0xDF, 1, 0x80, 0xBF}, {0xE0, 0xE0, 2, 0xA0, 0xBF}, {0xE1, 0xEC, 2, 0x80, 0xBF},
    {0xED, 0xED, 2, 0x80, 0x9F}, {0xEE, 0xEF, 2, 0x80, 0xBF}, {0xF0, 0xF0, 3, 0x90, 0xBF},
    {0xF1, 0xF3, 3, 0x80, 0xBF}, {0xF4, 0xF4, 3, 0x80, 0x8F},
};

/* Joins what one more character leads to with what the others do; false: they differ, or there is no room. */
static bool join(uint32_t *all, uint32_t next)
{
    if (next == STATE_FULL || (*all && *all != next))
        *all = next == STATE_FULL ? STATE_FULL : PLAIN_MIXED;
    else
        *all = next;
    return *all != STATE_FULL && *all != PLAIN_MIXED;
}

/* Bytes from lo to hi, each followed by n_more continuation bytes; the first of those within [next_lo,
 * next_hi]. */
static bool join_bytes(struct states *s, uint32_t state, struct lead x, uint32_t *all)
{
    uint32_t last = UINT32_MAX;
    for (unsigned byte = x.lo; byte <= x.hi; byte++) {
        uint32_t class = s->p->class_of[byte];
        if (class == last)
            continue;
        last = class;
        uint32_t next = step(s, state, (uint8_t)byte);
        bool leaf = x.n_more == 0 || next == STATE_FULL || next == STATE_DEAD;
        struct lead behind = {x.next_lo, x.next_hi, (uint8_t)(x.n_more - 1), 0x80, 0xBF};
        if (leaf ? !join(all, next) : !join_bytes(s, next, behind, all))
            return false;
    }
    return true;
}

/* STATE_FULL: no room. */
static uint32_t plain_next(struct states *s, uint32_t state)
{
    uint32_t all = 0;
    if (s->states[state].plain_next)
        return s->states[state].plain_next;
    for (size_t i = 0; i < sizeof leads / sizeof *leads; i++)
        if (!join_bytes(s, state, leads[i], &all))
            break;
    if (all != STATE_FULL)
        s->states[state].plain_next = all;
    return all;
}

/* Plain tokens of how many characters may come, where that is all that decides; *known false: it isn't. ways:
 * the state behind each number of them. */
static uint32_t plain_run(struct states *s, uint32_t state, uint32_t ways[PLAIN_CHARS_MAX + 1], bool *known)
{
    uint32_t n = 0;
    ways[0] = state;
    for (; n < PLAIN_CHARS_MAX; n++) {
        uint32_t next = plain_next(s, state);
        *known = next != PLAIN_MIXED && next != STATE_FULL;
        if (!*known || next == PLAIN_DEAD)
            return n;
        ways[n + 1] = state = next;
    }
    return n;
}

/* The mask of a state, and how many tokens are in it. False: no room. */
static bool fill_mask(struct states *s, uint32_t state, uint64_t *mask, uint32_t *n)
{
    const struct grammar_vocab *v = s->v;
    uint32_t ways[PLAIN_CHARS_MAX + 1];
    bool known = false, fits = true;
    uint32_t run = plain_run(s, state, ways, &known);
    s->work_most = s->work + WORK_MAX;
    *n = known ? v->n_plain[run] : 0;
    memcpy(mask, v->plain + (known ? run : 0) * words_of(s), words_of(s) * sizeof *mask);
    if (!known)
        return walk(s, state, (struct part){v->all.nodes, 0, v->all.n_nodes, v->same}, mask, n);
    for (uint32_t i = 0; i <= run && fits; i++)
        fits =
            walk(s, ways[i], (struct part){v->rest[i].nodes, 0, v->rest[i].n_nodes, v->same_rest}, mask, n);
    return fits;
}

/* At the start of a text some tokens are shown without their leading space. */
static bool make_first(struct states *s, uint32_t state)
{
    const struct grammar_vocab *v = s->v;
    size_t words = words_of(s);
    uint64_t *mask = s->first_mask, *short_mask = s->masks + (size_t)s->next_mask * words;
    const struct vocab_node *nodes = v->all.nodes;
    uint32_t n = 0, space = 0;
    if (!fill_mask(s, state, mask, &n))
        return false;
    while (space < v->all.n_nodes && nodes[space].byte != ' ')
        space = nodes[space].skip;
    /* the pool's next mask serves as scratch */
    if (s->holders[s->next_mask])
        s->states[s->holders[s->next_mask]].mask = 0;
    s->holders[s->next_mask] = 0;
    memset(short_mask, 0, words * sizeof *mask);
    struct part below = {nodes, space + 1, space < v->all.n_nodes ? nodes[space].skip : 0, v->same};
    if (space < v->all.n_nodes && !walk(s, state, below, short_mask, &n))
        return false;
    s->n_first = 0;
    for (size_t i = 0; i < words; i++) {
        mask[i] = (mask[i] & ~v->drops_space[i]) | (short_mask[i] & v->drops_space[i]);
        s->n_first += (uint32_t)__builtin_popcountll(mask[i]);
    }
    s->has_first = true;
    return true;
}

static bool make_mask(struct states *s, uint32_t state)
{
    uint32_t slot = s->next_mask, n = 0;
    uint64_t *mask = s->masks + (size_t)slot * words_of(s);
    if (s->holders[slot])
        s->states[s->holders[slot]].mask = 0;
    s->holders[slot] = 0;
    if (!fill_mask(s, state, mask, &n))
        return false;
    s->holders[slot] = state;
    s->states[state].mask = slot + 1;
    s->states[state].n_allowed = n;
    s->next_mask = (slot + 1) % s->n_masks;
    s->n_masks_used = s->n_masks_used > slot ? s->n_masks_used : slot + 1;
    return true;
}

const uint64_t *states_mask(struct states *s, uint32_t state, bool first, uint32_t *n)
{
    if (first && s->v->n_drops_space && state == s->start) {
        if (!s->has_first && !make_first(s, state))
            return NULL;
        *n = s->n_first;
        return s->first_mask;
    }
    if (!s->states[state].mask && !make_mask(s, state))
        return NULL;
    *n = s->states[state].n_allowed;
    return s->masks + (size_t)(s->states[state].mask - 1) * words_of(s);
}
