/* Added tokens: found in a text before anything else happens to it, leftmost first and longest among those.
 * The set is a trie of bytes; most positions of a text are passed by one look at its roots. */
#include <string.h>

#include "tokenizer_inner.h"
#include "utf8.h"

static uint32_t *find_child(struct added_set *s, uint32_t parent, uint8_t byte)
{
    uint32_t *link = &s->nodes[parent].child;
    while (*link && s->nodes[*link].byte != byte)
        link = &s->nodes[*link].sibling;
    return link;
}

static enum status insert(struct added_set *s, uint32_t index, struct error *err)
{
    struct text_ref p = s->tokens[index].pattern;
    uint32_t node = 0;
    for (uint32_t i = 0; i < p.length; i++) {
        uint8_t byte = (uint8_t)p.text[i];
        uint32_t *link = i == 0 ? &s->roots[byte] : find_child(s, node, byte);
        if (!*link) {
            *link = s->n_nodes;
            s->nodes[s->n_nodes++].byte = byte;
        }
        node = *link;
    }
    if (s->nodes[node].token_plus_1)
        return fail(err, STATUS_FORMAT, "added_tokens: two tokens are found by the same text \"%.*s\"",
                    SHOWN(p));
    s->nodes[node].token_plus_1 = index + 1;
    return STATUS_OK;
}

enum status added_set_finish(struct added_set *s, struct arena *a, struct error *err)
{
    size_t n_nodes = 1; /* node 0 is nobody's */
    for (uint32_t i = 0; i < s->n_tokens; i++)
        n_nodes += s->tokens[i].pattern.length;
    if (n_nodes > 1U << 24)
        return fail(err, STATUS_TOO_LARGE, "added_tokens: %zu bytes of text; at most %u are allowed", n_nodes,
                    1U << 24);
    s->nodes = arena_array(a, n_nodes, sizeof *s->nodes);
    if (!s->nodes)
        return fail(err, STATUS_NO_MEMORY, "added_tokens: not enough memory");
    s->n_nodes = 1;
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        enum status status = s->tokens[i].pattern.length ? insert(s, i, err) : STATUS_OK;
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* The longest token at text[at]; *end is where it ends. */
static const struct added_token *longest_at(const struct added_set *s, struct text_ref text, size_t at,
                                            size_t *end)
{
    const struct added_token *found = NULL;
    uint32_t node = s->roots[(uint8_t)text.text[at]];
    while (node) {
        at++;
        if (s->nodes[node].token_plus_1) {
            found = &s->tokens[s->nodes[node].token_plus_1 - 1];
            *end = at;
        }
        if (at == text.length)
            break;
        uint8_t byte = (uint8_t)text.text[at];
        for (node = s->nodes[node].child; node && s->nodes[node].byte != byte;)
            node = s->nodes[node].sibling;
    }
    return found;
}

static uint32_t character_before(struct text_ref text, size_t at)
{
    uint32_t c;
    do
        at--;
    while (at > 0 && ((unsigned char)text.text[at] & 0xC0) == 0x80);
    utf8_step(text.text + at, text.length - at, &c);
    return c;
}

static bool is_inside_word(struct text_ref text, size_t start, size_t end)
{
    uint32_t c;
    if (start > 0 && char_is_word(character_before(text, start)))
        return true;
    if (end == text.length)
        return false;
    utf8_step(text.text + end, text.length - end, &c);
    return char_is_word(c);
}

static size_t spaces_begin(struct text_ref text, size_t at, size_t lowest)
{
    while (at > lowest && char_is_space(character_before(text, at))) {
        do
            at--;
        while (((unsigned char)text.text[at] & 0xC0) == 0x80);
    }
    return at;
}

static size_t spaces_end(struct text_ref text, size_t at)
{
    while (at < text.length) {
        uint32_t c;
        unsigned n = utf8_step(text.text + at, text.length - at, &c);
        if (!char_is_space(c))
            break;
        at += n;
    }
    return at;
}

bool added_next(struct added_cursor *c, struct span *piece, const struct added_token **token)
{
    struct text_ref text = c->text;
    *token = NULL;
    if (c->waiting) {
        *piece = (struct span){c->done, c->waiting_end};
        *token = c->waiting;
        c->done = c->waiting_end;
        c->waiting = NULL;
        return true;
    }
    while (c->set->n_tokens > 0 && c->searched < text.length) {
        size_t start = c->searched, end = 0;
        const struct added_token *found = longest_at(c->set, text, start, &end);
        if (!found) {
            c->searched++;
            continue;
        }
        c->searched = end;
        if ((found->special && !c->parse_special) || (found->single_word && is_inside_word(text, start, end)))
            continue;
        if (found->left_strip)
            start = c->done < start ? spaces_begin(text, start, c->done) : c->done;
        if (found->right_strip)
            end = spaces_end(text, end);
        if (start >= end)
            continue; /* all of it was white space that a token before has swallowed */
        if (c->done < start) {
            *piece = (struct span){c->done, start};
            c->done = start;
            c->waiting = found;
            c->waiting_end = end;
            return true;
        }
        *piece = (struct span){start, end};
        *token = found;
        c->done = end;
        return true;
    }
    *piece = (struct span){c->done, text.length};
    c->done = text.length;
    c->searched = text.length;
    return piece->start < piece->end;
}
