/* From results to events: text, stops, ends. Order within a generation:
 *
 *   STARTED, PROMPT*, (TOKEN, TEXT*)*, DONE | FAILED
 *
 * The text of a token is what the detokeniser completes with it, less what may yet turn out to be a stop
 * string. A token that ends the generation has its TOKEN event too (its text only with include_stop). Stop
 * strings are looked for in the text behind the first min_tokens tokens. */
#include <string.h>

#include "base/clock.h"
#include "engine_inner.h"

static void emit(struct engine *e, const struct event *event)
{
    bool put = queue_put_wait(e->outbox, event);
    require(put); /* only this thread closes the outbox, after its last event */
}

void engine_publish(struct engine *e)
{
    uint32_t n_running = 0, n_paused = 0;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        n_running += e->sequences[i].state == SEQUENCE_RUNNING;
        n_paused += e->sequences[i].state == SEQUENCE_PAUSED;
    }
    int64_t oldest_ns = 0;
    for (uint32_t i = 0; i < e->n_waiting; i++)
        if (oldest_ns == 0 || e->waiting[i]->submitted_ns < oldest_ns)
            oldest_ns = e->waiting[i]->submitted_ns;
    atomic_store_explicit(&e->counters.oldest_ns, (uint64_t)oldest_ns, memory_order_relaxed);
    atomic_store_explicit(&e->counters.n_running, n_running, memory_order_relaxed);
    atomic_store_explicit(&e->counters.n_paused, n_paused, memory_order_relaxed);
    atomic_store_explicit(&e->counters.kv_pages_free, prefix_cache_n_free(e->prefix), memory_order_relaxed);
    atomic_store_explicit(&e->counters.prefix_pages, prefix_cache_n_pages(e->prefix), memory_order_relaxed);
    atomic_store_explicit(&e->counters.n_prefix_evictions, prefix_cache_n_evictions(e->prefix),
                          memory_order_relaxed);
}

void engine_emit_started(struct engine *e, const struct submission *s, bool merged)
{
    struct event event = {.id = s->id, .kind = EVENT_STARTED, .n_prompt = s->g.n_prompt};
    event.merged = merged;
    emit(e, &event);
    if (s->g.n_prompt_logprobs < 0)
        return;
    /* Nothing predicts the first token: its event comes for completeness, with logprob 0. */
    event = (struct event){.id = s->id, .kind = EVENT_PROMPT, .token = s->g.prompt[0]};
    emit(e, &event);
}

void engine_score_row(struct engine *e, const struct row *r)
{
    struct sequence *q = r->sequence;
    struct event event = {.id = q->submission->id,
                          .kind = EVENT_PROMPT,
                          .merged = engine_step_is_merged(e),
                          .token = r->token,
                          .logprob = r->logprobs.logprob,
                          .rank = r->logprobs.rank,
                          .n_top = r->logprobs.n_top};
    memcpy(event.top, r->logprobs.top, r->logprobs.n_top * sizeof event.top[0]);
    emit(e, &event);
    q->n_scored++;
    if (q->submission->g.max_tokens == 0 && q->n_scored + 1 == q->submission->g.n_prompt)
        engine_end_sequence(e, q, FINISH_LENGTH, NULL);
}

/* ---- text ---- */

/* As much of the text as an event holds, cut between characters. */
static uint32_t piece_length(const char *text, size_t n)
{
    if (n <= EVENT_TEXT_BYTES)
        return (uint32_t)n;
    n = EVENT_TEXT_BYTES;
    while (n > EVENT_TEXT_BYTES - 4 && ((unsigned char)text[n] & 0xC0U) == 0x80U)
        n--;
    return (uint32_t)n;
}

/* Sends `event` with the beginning of the text, and the rest behind it as EVENT_TEXT. A TEXT event without
 * text is not sent. */
static void emit_text(struct engine *e, struct event *event, const char *text, size_t n)
{
    while (n > 0 || event->kind != EVENT_TEXT) {
        event->n_text = piece_length(text, n);
        memcpy(event->text, text, event->n_text);
        emit(e, event);
        text += event->n_text;
        n -= event->n_text;
        event->kind = EVENT_TEXT;
        event->n_top = 0;
    }
}

/* What is left at an end: half a character (as U+FFFD), and text that was held for a stop string. */
static void flush_text(struct engine *e, struct sequence *q)
{
    struct event event = {.id = q->submission->id, .kind = EVENT_TEXT, .token = q->tokens[q->n_tokens - 1]};
    size_t n = stop_end(&q->hold, e->text_out);
    n += detokenizer_end(&q->detokenizer, e->text_out + n);
    emit_text(e, &event, e->text_out, n);
}

/* ---- ends ---- */

/* The final event. The adapter's reference is given back first: who has seen the event may count on that. */
static void end(struct engine *e, struct submission *s, struct event *event, const struct error *err)
{
    event->id = s->id;
    event->kind = err ? EVENT_FAILED : EVENT_DONE;
    event->n_prompt = s->g.n_prompt;
    if (err)
        event->error = *err;
    submission_destroy(s);
    atomic_fetch_sub_explicit(&e->counters.n_live, 1, memory_order_relaxed);
    engine_publish(e);
    emit(e, event);
}

void engine_end_waiting(struct engine *e, struct submission *s, enum finish_reason reason,
                        const struct error *err)
{
    struct event event = {.reason = reason, .stop_token = -1, .stop_string_index = -1};
    event.queued_ns = clock_now_ns() - s->submitted_ns;
    end(e, s, &event, err);
}

static void end_sequence(struct engine *e, struct sequence *q, struct event *event, const struct error *err)
{
    int64_t now = clock_now_ns(), first = q->first_token_ns ? q->first_token_ns : now;
    struct submission *s = q->submission;
    event->n_generated = q->n_generated;
    event->n_cached = q->n_cached;
    event->n_merged_tokens = q->n_merged;
    event->n_unmerged_tokens = q->n_unmerged;
    event->shadow = q->follower.score;
    event->queued_ns = q->started_ns - s->submitted_ns;
    event->prefill_ns = first - q->started_ns;
    event->decode_ns = now - first;
    event->n_drafted = q->draft.n_all;
    event->n_drafts_right = q->draft.n_all_right;
    if (!q->aside)
        fair_ends(&e->fair, &s->g);
    q->aside = false;
    engine_drafts_end(e, q);
    sequence_give_pages(q, e->prefix);
    engine_shadow_end(e, q, false);
    q->state = SEQUENCE_FREE;
    q->submission = NULL;
    end(e, s, event, err);
}

void engine_end_sequence(struct engine *e, struct sequence *q, enum finish_reason reason,
                         const struct error *err)
{
    struct event event = {.reason = reason, .stop_token = -1, .stop_string_index = -1};
    flush_text(e, q);
    end_sequence(e, q, &event, err);
}

/* ---- a new token ---- */

static void fail_without_token(struct engine *e, struct sequence *q, const struct row *r)
{
    struct event event = {.stop_token = -1, .stop_string_index = -1, .non_finite = r->non_finite};
    struct error err;
    if (r->grammar != GRAMMAR_GOES_ON)
        engine_grammar_error(q, r->grammar, &err);
    else if (r->non_finite)
        fail(&err, STATUS_INTERNAL, "the model gave no finite logit after %u tokens", q->n_tokens);
    else
        fail(&err, STATUS_INVALID, "logit_bias and min_tokens together ban every token %s",
             q->submission->g.grammar ? "that the grammar allows" : "of the vocabulary");
    flush_text(e, q);
    end_sequence(e, q, &event, &err);
}

/* The follower's pages are its own and stay. */
static void forget_computed(struct engine *e, struct sequence *q)
{
    sequence_give_pages(q, e->prefix);
    q->follower.n_computed = 0;
}

void engine_accept_row(struct engine *e, const struct row *r)
{
    struct sequence *q = r->sequence;
    const struct generation *g = &q->submission->g;
    if (r->grammar == GRAMMAR_COMPLETE) {
        engine_end_sequence(e, q, FINISH_STOP, NULL);
        return;
    }
    if (r->token < 0) {
        fail_without_token(e, q, r);
        return;
    }
    q->tokens[q->n_tokens++] = r->token;
    if (q->n_tokens - 1 == model_length_limit(e->model))
        forget_computed(e, q); /* the next token needs all K and V anew */
    q->n_generated++;
    if (q->first_token_ns == 0)
        q->first_token_ns = clock_now_ns();
    counter_add(&e->counters.n_generated_tokens, 1);
    fair_generates(&e->fair, g, 1);
    bool stops = sequence_is_stop_token(q, r->token);
    size_t n = stops && !g->include_stop ? 0 : detokenizer_push(&q->detokenizer, r->token, e->text_in);
    const char *text = e->text_in;
    struct stop_found found = {n, -1};
    if (g->n_stop_strings && q->n_generated > g->min_tokens) {
        const struct stop_strings strings = {g->stop_strings, g->n_stop_strings, g->include_stop};
        found = stop_push(&q->hold, &strings, e->text_in, n, e->text_out);
        text = e->text_out;
    }
    struct event event = {.id = q->submission->id,
                          .kind = EVENT_TOKEN,
                          .merged = engine_step_is_merged(e),
                          .token = r->token,
                          .logprob = r->logprobs.logprob,
                          .rank = r->logprobs.rank,
                          .n_top = r->logprobs.n_top};
    memcpy(event.top, r->logprobs.top, r->logprobs.n_top * sizeof event.top[0]);
    emit_text(e, &event, text, found.n_shown);
    bool whole = !stops && found.match < 0 && engine_grammar_ends(q);
    if (!stops && !whole && found.match < 0 && q->n_generated < g->max_tokens)
        return;
    if (found.match < 0)
        flush_text(e, q); /* behind a stop string nothing is shown */
    event = (struct event){.reason = stops || whole || found.match >= 0 ? FINISH_STOP : FINISH_LENGTH,
                           .stop_token = found.match < 0 && stops ? r->token : -1,
                           .stop_string_index = found.match};
    end_sequence(e, q, &event, NULL);
}
