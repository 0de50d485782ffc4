/* What a generation's text must follow, in the words of all dialects, and the grammars made of it.
 *
 * A store keeps the compiled grammars that were used last, up to a number of bytes, and the tree of the
 * model's vocabulary that all of them walk; the tree is made by the first worker that needs it. Callers are
 * told apart: what one has compiled, another compiles again; and where the bytes are all taken, only those
 * lose what they used longest ago who have more than an equal share of them (bytes / callers that have any).
 */
#ifndef LK_API_GRAMMAR_H
#define LK_API_GRAMMAR_H

#include <stddef.h>

#include "api_parse.h"
#include "grammar.h"

struct grammar_store;

#define GRAMMAR_STORE_BYTES ((size_t)128 << 20)

struct grammar_store *grammar_store_create(size_t limit_bytes); /* NULL: no memory */
/* No request may be left. */
void grammar_store_destroy(struct grammar_store *s);

/* Who asks, and for which model: the same for all calls of a store but `caller`. */
struct grammar_scope {
    struct grammar_store *store; /* NULL: there are no grammars here */
    const struct tokenizer *tokenizer;
    uint32_t n_vocab;
    const char *caller; /* the tenant's name, else the key that came; NULL: none */
};
/* The grammar of `spec`, compiled or found; the caller's reference. Errors as grammar_compile. Thread: a
 * worker, as it may take long; waits for another call only while the vocabulary's tree is made or a list is
 * looked through. */
LK_MUST_USE enum status grammar_store_get(const struct grammar_scope *scope, const struct grammar_spec *spec,
                                          struct grammar **out, struct error *err);

/* The fields that ask for one, in the order in which they are read; NULL behind the last. */
const char *grammar_field(size_t index);
/* The part of a grammar that these fields ask for; which field does, or NULL. Texts are the body's or the
 * arena's. */
const char *read_grammar_part(struct reader *r, struct arena *arena, struct grammar_part *out);
/* The same, compiled into *out, NULL where none of them asks for anything; its reference ends with the arena.
 * More than one of them, and what isn't done in one, is refused by name. */
void read_grammar(struct reader *r, const struct grammar_scope *scope, struct arena *arena,
                  struct grammar **out);

#endif
