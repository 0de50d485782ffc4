/* Sequences and their grammars. What may come is a matter of the generated tokens alone: a sequence keeps
 * only where in the grammar it stands (struct grammar_matcher), so pauses and chunks change nothing, and a
 * draft's rows are masked as if its tokens had come one by one.
 *
 * The end isn't a token of the grammar: stop tokens may come where the text may end, and where nothing else
 * may come no token is needed. */
#include "engine_inner.h"

/* How many tokens were generated, drafts of this step counted that stand before the row. */
static enum grammar_answer ask(struct sequence *q, uint32_t depth, uint64_t *mask, bool *may_end)
{
    const struct generation *g = &q->submission->g;
    return grammar_next(g->grammar, &q->matcher, q->tokens + g->n_prompt, q->n_generated + depth, mask,
                        may_end);
}

enum grammar_answer engine_grammar_mask(struct sequence *q, uint32_t depth, bool early, uint64_t *mask)
{
    const struct generation *g = &q->submission->g;
    bool may_end;
    enum grammar_answer answer = ask(q, depth, mask, &may_end);
    if (answer != GRAMMAR_GOES_ON || !may_end || early)
        return answer;
    for (uint32_t i = 0; i < g->n_stop_tokens; i++)
        mask[g->stop_tokens[i] / 64] |= (uint64_t)1 << g->stop_tokens[i] % 64;
    return answer;
}

bool engine_grammar_ends(struct sequence *q)
{
    bool may_end;
    return q->submission->g.grammar && ask(q, 0, NULL, &may_end) == GRAMMAR_COMPLETE;
}

void engine_grammar_error(const struct sequence *q, enum grammar_answer answer, struct error *err)
{
    if (answer == GRAMMAR_TOO_LARGE)
        fail(err, STATUS_TOO_LARGE,
             "the grammar needs more states than one may have after %u tokens: make it less ambiguous",
             q->n_generated);
    else
        fail(err, STATUS_UNSUPPORTED,
             "after %u tokens the grammar asks for a text that no token of this model's vocabulary can go on",
             q->n_generated);
}
