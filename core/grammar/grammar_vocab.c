/* The vocabulary as a tree of bytes, in one array in the order of a walk: below a node are those that follow
 * it until `skip`. Special tokens stand in it behind SPECIAL_MARK, which no text has, so that only a grammar
 * that asks for one meets it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "grammar_inner.h"
#include "text.h"

#define TOKEN_BYTES_MAX 4096U

struct entry {
    const uint8_t *bytes;
    uint32_t n, token;
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    uint32_t n = x->n < y->n ? x->n : y->n;
    int c = n ? memcmp(x->bytes, y->bytes, n) : 0;
    if (c == 0)
        c = (x->n > y->n) - (x->n < y->n);
    return c ? c : (x->token > y->token) - (x->token < y->token);
}

/* Whether the tokenizer's texts follow each other as they are: some decoders put a space between two. */
static enum status check_joins(const struct tokenizer *t, struct error *err)
{
    int32_t ids[2] = {-1, -1};
    uint32_t n_found = 0;
    size_t n_a, n_b;
    for (uint32_t id = 0; id < tokenizer_n_tokens(t) && n_found < 2; id++) {
        size_t n;
        const char *piece = tokenizer_piece(t, (int32_t)id, &n);
        if (piece && n == 1 && piece[0] >= 'a' && piece[0] <= 'z' && !tokenizer_is_special(t, (int32_t)id))
            ids[n_found++] = (int32_t)id;
    }
    if (n_found < 2)
        return STATUS_OK;
    struct buf text;
    buf_init(&text, 0);
    enum status s = tokenizer_decode(t, ids, 2, false, &text, err);
    const char *a = tokenizer_piece(t, ids[0], &n_a), *b = tokenizer_piece(t, ids[1], &n_b);
    if (s == STATUS_OK && (text.length != 2 || text.data[0] != a[0] || text.data[1] != b[0]))
        s = fail(err, STATUS_UNSUPPORTED,
                 "this model's tokenizer changes what stands between two tokens: a grammar can't follow it");
    buf_fini(&text);
    return s;
}

/* The texts of all tokens behind each other; specials marked. */
static bool gather(const struct tokenizer *t, struct grammar_vocab *v)
{
    struct buf all;
    uint32_t n = tokenizer_n_tokens(t);
    buf_init(&all, 1U << 30);
    for (uint32_t id = 0; id < v->n_vocab; id++) {
        size_t length = 0;
        const char *piece = id < n ? tokenizer_piece(t, (int32_t)id, &length) : NULL;
        v->offsets[id] = (uint32_t)all.length;
        if (!piece || length == 0 || length > TOKEN_BYTES_MAX)
            continue;
        if (tokenizer_is_special(t, (int32_t)id))
            buf_putc(&all, (char)SPECIAL_MARK);
        else if (memchr(piece, (int)SPECIAL_MARK, length))
            continue; /* a stray byte token: no text has it */
        buf_append(&all, piece, length);
    }
    v->offsets[v->n_vocab] = (uint32_t)all.length;
    bool failed = all.failed;
    v->bytes = failed ? NULL : (uint8_t *)buf_take(&all, NULL);
    buf_fini(&all);
    return v->bytes != NULL;
}

/* Some decoders take a leading space off the first token's text. */
static bool find_dropped_spaces(const struct tokenizer *t, struct grammar_vocab *v)
{
    char *text = mem_alloc(detokenizer_bound(t) + 1);
    for (uint32_t id = 0; text && id < v->n_vocab; id++) {
        uint32_t n = v->offsets[id + 1] - v->offsets[id];
        const uint8_t *piece = v->bytes + v->offsets[id];
        struct detokenizer d;
        if (n == 0 || piece[0] != ' ')
            continue;
        detokenizer_init(&d, t, true);
        size_t shown = detokenizer_push(&d, (int32_t)id, text);
        if (shown > 0 && text[0] == ' ')
            continue;
        if (n > 1 && shown == 0 && d.n_pending == 0)
            continue; /* not shown for another reason */
        v->drops_space[id / 64] |= (uint64_t)1 << id % 64;
        v->n_drops_space++;
    }
    mem_free(text);
    return text != NULL;
}

static uint32_t shared_bytes(const struct entry *a, const struct entry *b)
{
    uint32_t n = 0;
    while (n < a->n && n < b->n && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Entries are sorted and not empty. */
static bool build_tree(struct vocab_tree *tree, const struct entry *entries, uint32_t n, uint32_t *same,
                       uint32_t *longest)
{
    size_t n_nodes = 0;
    uint32_t open[TOKEN_BYTES_MAX + 2]; /* the way to the last node */
    for (uint32_t i = 0; i < n; i++)
        n_nodes += entries[i].n - (i ? shared_bytes(&entries[i - 1], &entries[i]) : 0);
    tree->nodes = n_nodes < NO_TOKEN ? mem_array(n_nodes + 1, sizeof *tree->nodes) : NULL;
    if (!tree->nodes)
        return false;
    uint32_t depth = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct entry *e = &entries[i];
        uint32_t shared = i ? shared_bytes(&entries[i - 1], e) : 0;
        if (i && shared == e->n) { /* the same bytes again */
            same[e->token] = tree->nodes[open[depth - 1]].token;
            tree->nodes[open[depth - 1]].token = e->token;
            continue;
        }
        while (depth > shared)
            tree->nodes[open[--depth]].skip = tree->n_nodes;
        for (; depth < e->n; depth++) {
            open[depth] = tree->n_nodes;
            tree->nodes[tree->n_nodes++] =
                (struct vocab_node){.token = NO_TOKEN, .depth = (uint16_t)depth, .byte = e->bytes[depth]};
        }
        tree->nodes[tree->n_nodes - 1].token = e->token;
        *longest = e->n > *longest ? e->n : *longest;
    }
    while (depth > 0)
        tree->nodes[open[--depth]].skip = tree->n_nodes;
    return true;
}

/* Plain characters that a token begins with, at most PLAIN_CHARS_MAX, and their bytes. */
static uint32_t plain_prefix(const struct entry *e, size_t *n_bytes)
{
    size_t at = 0;
    uint32_t n = 0, c;
    for (*n_bytes = 0; n < PLAIN_CHARS_MAX && next_code_point((const char *)e->bytes, e->n, &at, &c); n++) {
        if (c < 0x20 || c == '"' || c == '\\')
            break;
        *n_bytes = at;
    }
    return n;
}

static void take_plain(struct grammar_vocab *v, uint32_t token, uint32_t length)
{
    size_t words = grammar_mask_words(v->n_vocab);
    for (uint32_t most = length; most <= PLAIN_CHARS_MAX; most++) {
        v->plain[most * words + token / 64] |= (uint64_t)1 << token % 64;
        v->n_plain[most]++;
    }
}

/* Plain ones into their sets, what is behind the plain beginning of the others into trees. Entries change. */
static bool build_rest(struct grammar_vocab *v, struct entry *entries, uint32_t n)
{
    struct entry *rest = mem_array((size_t)n + 1, sizeof *rest);
    uint8_t *lengths = mem_array((size_t)n + 1, 1);
    uint32_t longest = 0;
    bool fine = rest && lengths;
    for (uint32_t i = 0; i < n && fine; i++) {
        size_t n_bytes;
        lengths[i] = (uint8_t)plain_prefix(&entries[i], &n_bytes);
        entries[i].bytes += n_bytes;
        entries[i].n -= (uint32_t)n_bytes;
        if (entries[i].n == 0)
            take_plain(v, entries[i].token, lengths[i]);
    }
    for (uint32_t length = 0; length <= PLAIN_CHARS_MAX && fine; length++) {
        uint32_t n_rest = 0;
        for (uint32_t i = 0; i < n; i++)
            if (lengths[i] == length && entries[i].n)
                rest[n_rest++] = entries[i];
        qsort(rest, n_rest, sizeof *rest, compare_entries);
        fine = build_tree(&v->rest[length], rest, n_rest, v->same_rest, &longest);
    }
    mem_free(rest);
    mem_free(lengths);
    return fine;
}

static bool build(struct grammar_vocab *v)
{
    uint32_t n = 0;
    struct entry *entries = mem_array((size_t)v->n_vocab + 1, sizeof *entries);
    if (!entries)
        return false;
    for (uint32_t id = 0; id < v->n_vocab; id++) {
        v->same[id] = v->same_rest[id] = NO_TOKEN;
        if (v->offsets[id + 1] > v->offsets[id])
            entries[n++] = (struct entry){v->bytes + v->offsets[id], v->offsets[id + 1] - v->offsets[id], id};
    }
    qsort(entries, n, sizeof *entries, compare_entries);
    bool fine = build_tree(&v->all, entries, n, v->same, &v->longest) && build_rest(v, entries, n);
    mem_free(entries);
    return fine;
}

enum status grammar_vocab_create(const struct tokenizer *t, uint32_t n_vocab, struct grammar_vocab **out,
                                 struct error *err)
{
    *out = NULL;
    enum status s = check_joins(t, err);
    struct grammar_vocab *v = s == STATUS_OK ? mem_zalloc(sizeof *v) : NULL;
    if (v) {
        v->n_vocab = n_vocab;
        v->same = mem_array((size_t)n_vocab + 1, sizeof *v->same);
        v->same_rest = mem_array((size_t)n_vocab + 1, sizeof *v->same_rest);
        v->offsets = mem_array((size_t)n_vocab + 1, sizeof *v->offsets);
        v->drops_space = mem_array(grammar_mask_words(n_vocab), sizeof *v->drops_space);
        v->plain = mem_array((PLAIN_CHARS_MAX + 1) * grammar_mask_words(n_vocab), sizeof *v->plain);
    }
    if (s != STATUS_OK)
        return s;
    if (!v || !v->same || !v->same_rest || !v->offsets || !v->drops_space || !v->plain || !gather(t, v) ||
        !find_dropped_spaces(t, v) || !build(v)) {
        grammar_vocab_destroy(v);
        return fail(err, STATUS_NO_MEMORY, "no memory for the tree of %u tokens", n_vocab);
    }
    *out = v;
    return STATUS_OK;
}

void grammar_vocab_destroy(struct grammar_vocab *v)
{
    if (!v)
        return;
    mem_free(v->all.nodes);
    for (uint32_t i = 0; i <= PLAIN_CHARS_MAX; i++)
        mem_free(v->rest[i].nodes);
    mem_free(v->same_rest);
    mem_free(v->plain);
    mem_free(v->same);
    mem_free(v->offsets);
    mem_free(v->bytes);
    mem_free(v->drops_space);
    mem_free(v);
}

size_t grammar_vocab_bytes(const struct grammar_vocab *v)
{
    size_t n_nodes = v->all.n_nodes;
    for (uint32_t i = 0; i <= PLAIN_CHARS_MAX; i++)
        n_nodes += v->rest[i].n_nodes;
    return sizeof *v + n_nodes * sizeof *v->all.nodes +
           (size_t)v->n_vocab * (2 * sizeof *v->same + sizeof *v->offsets) +
           grammar_mask_words(v->n_vocab) * (PLAIN_CHARS_MAX + 2) * sizeof *v->plain + v->offsets[v->n_vocab];
}
