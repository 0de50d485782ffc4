/* Unigram: of all ways to cut a word into tokens of the vocabulary, the one with the highest sum of scores.
 * One pass from left to right keeps the best way to reach each position; a character that no token covers
 * costs more than any token. Source: Kudo 2018 (arXiv 1804.10959), as in Hugging Face tokenizers. */
#include <string.h>

#include "base/mem.h"
#include "tokenizer_inner.h"
#include "utf8.h"

#define UNKNOWN_PENALTY 10.0

static struct unigram_edge *find_edge(const struct unigram *u, uint32_t node, uint8_t byte)
{
    uint64_t h = ((uint64_t)node << 8 | byte) * 0x9E3779B97F4A7C15U;
    for (uint32_t i = (uint32_t)(h >> 32) & u->edges_mask;; i = (i + 1) & u->edges_mask) {
        struct unigram_edge *e = &u->edges[i];
        if (e->child == 0 || (e->node == node && e->byte == byte))
            return e;
    }
}

enum status unigram_finish(struct unigram *u, struct arena *a, struct error *err)
{
    const struct text_ref *texts = u->vocab->texts;
    size_t n_bytes = 0, n_slots = 16;
    double lowest = 0;
    for (uint32_t id = 0; id < u->n_model_ids; id++) {
        n_bytes += texts[id].length;
        if (id == 0 || u->scores[id] < lowest)
            lowest = u->scores[id];
    }
    if (n_bytes > 1U << 28)
        return fail(err, STATUS_TOO_LARGE, "model.vocab: %zu bytes of text; at most %u are allowed", n_bytes,
                    1U << 28);
    while (n_slots < n_bytes * 2)
        n_slots *= 2;
    u->unknown_score = lowest - UNKNOWN_PENALTY;
    u->edges_mask = (uint32_t)(n_slots - 1);
    u->edges = arena_array(a, n_slots, sizeof *u->edges);
    u->node_ids = arena_array(a, n_bytes + 1, sizeof *u->node_ids);
    if (!u->edges || !u->node_ids)
        return fail(err, STATUS_NO_MEMORY, "model.vocab: not enough memory");
    uint32_t n_nodes = 1;
    for (uint32_t id = 0; id < u->n_model_ids; id++) {
        uint32_t node = 0;
        for (uint32_t i = 0; i < texts[id].length; i++) {
            struct unigram_edge *e = find_edge(u, node, (uint8_t)texts[id].text[i]);
            if (e->child == 0)
                *e = (struct unigram_edge){node, n_nodes++, (uint8_t)texts[id].text[i]};
            node = e->child;
        }
        if (node)
            u->node_ids[node] = id + 1;
    }
    for (unsigned i = 0; i < 256; i++) {
        static const char digits[] = "0123456789ABCDEF";
        char text[] = {'<', '0', 'x', digits[i >> 4], digits[i & 15], '>'};
        u->bytes[i] = text_map_find(&u->vocab->map, texts, text, sizeof text);
    }
    return STATUS_OK;
}

/* A way to reach `end` that goes through `start`, if it is better than the one we have. */
static void offer(struct unigram_node *node, double score, uint32_t start, int32_t id)
{
    if (node->start == UINT32_MAX || score > node->score)
        *node = (struct unigram_node){score, start, id};
}

static bool find_best(const struct unigram *u, struct unigram_node *nodes, const char *word, size_t length)
{
    for (size_t i = 0; i <= length; i++)
        nodes[i] = (struct unigram_node){0, UINT32_MAX, -1};
    for (size_t at = 0; at < length;) {
        double score = nodes[at].score;
        unsigned size = utf8_size((unsigned char)word[at]);
        bool covered = false;
        uint32_t node = 0;
        for (size_t end = at; end < length;) {
            node = find_edge(u, node, (uint8_t)word[end])->child;
            if (!node)
                break;
            end++;
            if (!u->node_ids[node])
                continue;
            uint32_t id = u->node_ids[node] - 1;
            offer(&nodes[end], score + u->scores[id], (uint32_t)at, (int32_t)id);
            covered = covered || end - at == size;
        }
        if (!covered && u->unknown < 0)
            return false;
        if (!covered)
            offer(&nodes[at + size], score + u->unknown_score, (uint32_t)at, u->unknown);
        at += size;
    }
    return true;
}

/* An unknown stretch: its bytes if the vocabulary has them all, or one unknown token. */
static enum status push_unknown(const struct unigram *u, struct encoder *e, const char *text, size_t length)
{
    int32_t id = text_map_find(&u->vocab->map, u->vocab->texts, text, length);
    if (id >= 0 && (uint32_t)id < u->n_model_ids)
        return encoder_push(e, (uint32_t)id);
    bool bytes = u->byte_fallback;
    for (size_t i = 0; i < length && bytes; i++)
        bytes = u->bytes[(uint8_t)text[i]] >= 0;
    enum status s = bytes ? STATUS_OK : encoder_push(e, (uint32_t)u->unknown);
    for (size_t i = 0; i < length && bytes && s == STATUS_OK; i++)
        s = encoder_push(e, (uint32_t)u->bytes[(uint8_t)text[i]]);
    return s;
}

enum status unigram_encode(const struct unigram *u, struct encoder *e, const char *word, size_t length)
{
    struct unigram_scratch *scratch = &e->unigram;
    if (scratch->capacity < length + 1) {
        struct unigram_node *nodes = mem_realloc(scratch->nodes, (length + 1) * 2 * sizeof *nodes);
        if (!nodes)
            return encoder_no_memory(e);
        scratch->nodes = nodes;
        scratch->capacity = (length + 1) * 2;
    }
    struct unigram_node *nodes = scratch->nodes;
    if (!find_best(u, nodes, word, length))
        return fail(e->err, STATUS_INVALID,
                    "a character of the text is not in the vocabulary, which has no unk_id");
    /* Walk back, turning the chain round: `start` of a node becomes where the next token ends. */
    size_t next = SIZE_MAX;
    for (size_t end = length; end > 0;) {
        size_t start = nodes[end].start;
        nodes[end].start = next == SIZE_MAX ? UINT32_MAX : (uint32_t)next;
        next = end;
        end = start;
    }
    enum status s = STATUS_OK;
    for (size_t start = 0, end = next; start < length && s == STATUS_OK;) {
        if (nodes[end].id != u->unknown) {
            s = encoder_push(e, (uint32_t)nodes[end].id);
        } else {
            while (nodes[end].start != UINT32_MAX && nodes[nodes[end].start].id == u->unknown)
                end = nodes[end].start;
            s = push_unknown(u, e, word + start, end - start);
        }
        start = end;
        end = nodes[end].start;
    }
    return s;
}
