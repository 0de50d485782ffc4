/* The engine thread: take messages, plan, compute, sample, deliver; sleep when there is nothing to do.
 *
 * A step is one plan of the scheduler: its sequences' tokens go through the model together, then the workers
 * turn the rows of logits into tokens (each row by itself, so nothing depends on their number), and the
 * results become events in order. In a step nothing is allocated; that is counted, and a test reads the
 * count. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine_inner.h"

/* ---- inbox ---- */

static void enqueue(struct engine *e, struct submission *s)
{
    uint32_t at = e->n_waiting++;
    require(at < e->n_sequences + e->queue_limit);
    for (; at > 0 && submission_is_before(s, e->waiting[at - 1]); at--)
        e->waiting[at] = e->waiting[at - 1];
    e->waiting[at] = s;
    fair_arrives(&e->fair, &s->g, clock_now_ns());
}

static void receive_submission(struct engine *e, struct submission *s)
{
    const struct generation *g = &s->g;
    struct error err;
    s->shadow_refused =
        g->shadow_lora && step_reserve_rank(e->space, g->shadow_lora->t_max, &err) != STATUS_OK;
    if (g->lora && step_reserve_rank(e->space, g->lora->t_max, &err) != STATUS_OK) {
        engine_end_waiting(e, s, FINISH_CANCELLED, &err);
    } else if (!generation_computes_all(g) && (g->n_prompt_logprobs < 0 || g->n_prompt == 1)) {
        engine_emit_started(e, s, false); /* nothing to compute */
        engine_end_waiting(e, s, FINISH_LENGTH, NULL);
    } else {
        enqueue(e, s);
    }
}

static void cancel(struct engine *e, uint64_t id)
{
    for (uint32_t i = 0; i < e->n_waiting; i++) {
        struct submission *s = e->waiting[i];
        if (s->id != id)
            continue;
        e->n_waiting--;
        memmove(&e->waiting[i], &e->waiting[i + 1], (e->n_waiting - i) * sizeof(struct submission *));
        fair_leaves(&e->fair, &s->g);
        engine_end_waiting(e, s, FINISH_CANCELLED, NULL);
        return;
    }
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct sequence *q = &e->sequences[i];
        if (q->state != SEQUENCE_FREE && q->submission->id == id)
            engine_end_sequence(e, q, FINISH_CANCELLED, NULL);
    }
}

static void handle(struct engine *e, const struct message *m)
{
    if (m->submission)
        receive_submission(e, m->submission);
    else if (m->id)
        cancel(e, m->id);
    else
        engine_merged_told(e);
}

static bool is_idle(const struct engine *e)
{
    bool idle = e->n_waiting == 0;
    for (uint32_t i = 0; i < e->n_slots && idle; i++)
        idle = e->sequences[i].state == SEQUENCE_FREE;
    return idle;
}

static void receive(struct engine *e)
{
    struct message m;
    if (is_idle(e) && queue_get_wait(e->inbox, &m, -1)) {
        engine_watch_busy(e);
        handle(e, &m);
    }
    while (queue_get(e->inbox, &m))
        handle(e, &m);
}

/* ---- a plan is carried out ---- */

static struct sequence *free_slot(struct engine *e)
{
    uint32_t i = 0;
    while (e->sequences[i].state != SEQUENCE_FREE) {
        i++;
        require(i < e->n_slots);
    }
    return &e->sequences[i];
}

static void enact_pause(struct engine *e, const struct schedule_entry *p)
{
    require(p->index < e->n_slots); /* who waits has nothing to give back */
    struct sequence *q = &e->sequences[p->index];
    q->state = SEQUENCE_PAUSED;
    q->paused_ns = clock_now_ns();
    q->aside = p->aside;
    q->n_yields += p->aside;
    counter_add(&e->counters.n_preemptions, 1);
    counter_add(&e->counters.n_yields, p->aside);
    if (p->aside)
        fair_ends(&e->fair, &q->submission->g);
    sequence_give_pages(q, e->prefix);
    engine_shadow_end(e, q, q->follower.active);
}

static void note_most(atomic_uint_fast64_t *most, int64_t ns)
{
    if (ns > 0 && (uint64_t)ns > atomic_load_explicit(most, memory_order_relaxed))
        atomic_store_explicit(most, (uint64_t)ns, memory_order_relaxed);
}

/* It leaves the queue from this place. */
static void note_start(struct engine *e, const struct submission *s, const struct schedule_entry *p,
                       int64_t now_ns)
{
    uint32_t place = p->index - e->n_slots;
    int64_t waited_ns = now_ns - s->submitted_ns;
    struct counters *c = &e->counters;
    note_most(&c->wait_max_ns, waited_ns);
    note_most(&c->class_wait_max_ns[s->g.caller.batch], waited_ns);
    note_most(&c->voice_wait_max_ns[s->g.caller.batch],
              fair_starts(&e->fair, &s->g, place, p->n_known - p->n_computed, now_ns));
    for (uint32_t k = 0; k < e->n_chosen; k++)
        if (e->chosen[k].place == place && e->chosen[k].late)
            counter_add(&c->n_late, 1);
}

/* Begins or resumes, with the pages that were found. The entry is its sequence's from now on. */
static void enact_start(struct engine *e, struct schedule_entry *p)
{
    bool waits = p->index >= e->n_slots;
    struct sequence *q = waits ? free_slot(e) : &e->sequences[p->index];
    if (waits) {
        struct submission **s = &e->waiting[p->index - e->n_slots];
        int64_t now_ns = clock_now_ns();
        note_start(e, *s, p, now_ns);
        sequence_begin(q, *s, e->text, now_ns);
        q->keeps = false;
        q->n_yields = 0;
        engine_shadow_begin(e, q);
        engine_drafts_begin(e, q);
        *s = NULL;
        memcpy(q->pages, p->pages, p->n_pages * sizeof *q->pages);
        p->index = (uint32_t)(q - e->sequences);
    }
    q->state = SEQUENCE_RUNNING;
    q->aside = false;
    q->has_turn = p->overdue;
    q->resumed_ns = clock_now_ns();
    q->n_at_resume = q->n_generated;
    engine_prefix_take(e, q, p->n_pages);
}

static void forget_started(struct engine *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_waiting; i++)
        if (e->waiting[i])
            e->waiting[n++] = e->waiting[i];
    e->n_waiting = n;
}

/* The sums that a step's rows of q come with: of factor 1 for log-probabilities, and what sampling asks for.
 * Where rows of the prompt are scored too, the one that is sampled makes its own. */
static void want_sums(const struct sequence *q, bool scores, float factors[STEP_SUMS])
{
    const struct generation *g = &q->submission->g;
    bool logprobs = g->n_logprobs >= 0 || g->n_prompt_logprobs >= 0, plain = !scores && !g->grammar;
    float factor = plain && !g->pooling ? sampler_sum_factor(&g->sampling) : 0;
    factors[0] = logprobs && !g->pooling ? 1 : 0;
    factors[1] = factor != factors[0] ? factor : 0;
}

/* Adds n tokens of a sequence and its drafts to the batch, and the rows of logits that they will give. */
static void batch_add(struct engine *e, struct sequence *q, uint32_t n)
{
    const struct generation *g = &q->submission->g;
    uint32_t begin = q->n_computed, end = begin + n + q->draft.n, from = sequence_logits_from(q);
    from = from < begin ? begin : from < end ? from : end;
    uint32_t n_pages = (end + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    if (n_pages > q->n_pages)
        engine_shadow_make_room(e, n_pages - q->n_pages);
    sequence_take_pages(q, e->prefix, end);
    e->batch_owner[e->n_batch] = q;
    e->batch[e->n_batch++] = (struct batch_seq){.lora = g->lora,
                                                .tokens = q->tokens + begin,
                                                .n_tokens = end - begin,
                                                .position = begin,
                                                .pages = q->pages,
                                                .n_prompt = g->n_prompt,
                                                .n_known = q->n_tokens,
                                                .logits_begin = from - begin,
                                                .lora_begin = q->submission->lora_begin};
    float *factors = e->batch[e->n_batch - 1].sum_factors;
    want_sums(q, from + 1 < g->n_prompt, factors);
    for (uint32_t p = from; p < end; p++) {
        struct row *r = &e->rows[e->n_rows++];
        r->sequence = q;
        r->shadow = ROW_NONE;
        r->non_finite = false;
        memcpy(r->factors, factors, sizeof r->factors);
        r->scored = p + 1 < g->n_prompt && !g->pooling ? q->tokens[p + 1] : -1;
        r->depth = p < q->n_tokens ? 0 : p + 1 - q->n_tokens;
    }
    uint32_t reached = end < g->n_prompt ? end : g->n_prompt;
    if (reached > q->n_counted) { /* computing it again after a pause doesn't count, nor what was found */
        counter_add(&e->counters.n_prompt_tokens, reached - q->n_counted);
        q->n_counted = reached;
    }
}

/* ---- rows ---- */

/* Row i of a step, with sums of all factors. */
static struct logits logits_of(const struct engine *e, uint32_t i)
{
    uint32_t n = model_config(e->model)->vocab_size, n_peaks = n_peaks_of(n);
    const float *peaks = step_peaks(e->space);
    const double *sums = step_sums(e->space);
    return (struct logits){.row = e->logits + (size_t)i * n,
                           .peaks = peaks ? peaks + (size_t)i * n_peaks : NULL,
                           .sums = sums ? sums + (size_t)i * STEP_SUMS * n_peaks : NULL,
                           .n = n};
}

static void compute_row(const struct engine *e, struct row *r, struct sampler_scratch *scratch)
{
    struct logits x = logits_of(e, (uint32_t)(r - e->rows));
    struct sequence *q = r->sequence;
    const struct generation *g = &q->submission->g;
    bool scores = r->scored >= 0, early = q->n_generated + r->depth < g->min_tokens;
    int32_t n_top = scores ? g->n_prompt_logprobs : g->n_logprobs;
    bool masked = !scores && g->grammar;
    r->token = r->scored;
    r->grammar = masked ? engine_grammar_mask(q, r->depth, early, scratch->mask) : GRAMMAR_GOES_ON;
    if (!scores && r->grammar == GRAMMAR_GOES_ON) {
        const struct sampler_input in = {.sampling = &g->sampling,
                                         .logits = x.row,
                                         .peaks = x.peaks,
                                         .sums = x.sums,
                                         .factors = r->factors,
                                         .tokens = q->tokens,
                                         .n_tokens = q->n_tokens + r->depth,
                                         .n_prompt = g->n_prompt,
                                         .mask = masked ? scratch->mask : NULL,
                                         .banned = g->stop_tokens,
                                         .n_banned = early ? g->n_stop_tokens : 0,
                                         .breaks = sequence_breaks,
                                         .breaks_data = q,
                                         .mirostat_mu = &q->mirostat_mu};
        r->token = sampler_pick(&in, &q->rng, scratch);
        if (r->token >= 0 && !isfinite(x.row[r->token])) /* plus infinity beats all others: no answer */
            r->token = -1;
        r->non_finite = r->token < 0 && !row_is_finite(x.row, x.n);
    }
    r->logprobs.logprob = 0;
    r->logprobs.n_top = r->logprobs.rank = 0;
    if (n_top >= 0 && r->token >= 0)
        logprobs_row(&x, r->token, (uint32_t)n_top, &r->logprobs); /* the first sums are of factor 1 */
}

/* A row, and behind it the drafts' rows as long as each was sampled: what the sampler sees is then the same
 * as if they had come one by one. */
static void compute_drafts(const struct engine *e, struct row *r, struct sampler_scratch *scratch)
{
    struct sequence *q = r->sequence;
    uint32_t i = 0;
    compute_row(e, r, scratch);
    while (i < q->draft.n && r[i].token == q->tokens[q->n_tokens + i] &&
           !sequence_is_stop_token(q, r[i].token)) {
        i++;
        compute_row(e, &r[i], scratch);
    }
    if (q->draft.n) /* else rows of a prompt: others have more of them */
        q->draft.n_right = i;
}

/* Every row is one worker's, with that worker's scratch; all sampled rows of a sequence are the same one's.
 */
static void compute_rows(void *arg, unsigned worker, unsigned n_workers)
{
    struct engine *e = arg;
    struct sampler_scratch *scratch = &e->scratch[worker];
    for (uint32_t i = worker; i < e->n_rows; i += n_workers) {
        struct row *r = &e->rows[i];
        if (r->sequence->submission->g.pooling)
            continue;
        if (r->depth == 0)
            compute_drafts(e, r, scratch);
        if (r->shadow != ROW_NONE)
            engine_shadow_score(r, logits_of(e, i).row, logits_of(e, r->shadow).row, scratch);
    }
}

/* STARTED says which way the first step takes, so it waits for the choice. */
static void announce(struct engine *e)
{
    for (uint32_t i = 0; i < e->n_batch; i++) {
        struct sequence *q = e->batch_owner[i];
        if (!q->announced)
            engine_emit_started(e, q->submission, engine_step_is_merged(e));
        q->announced = true;
    }
}

static void deliver_row(struct engine *e, const struct row *r)
{
    struct sequence *q = r->sequence;
    if (q->state != SEQUENCE_FREE && q->submission->g.pooling) {
        engine_end_pooled(e, q);
        return;
    }
    if (r->scored >= 0) {
        engine_score_row(e, r);
        return;
    }
    if (r->depth == 0)
        engine_drafts_note(e, r);
    else if (q->state == SEQUENCE_FREE || r->depth > q->draft.n_right)
        return; /* its text has ended with a token before, or went another way */
    engine_accept_row(e, r);
}

static void deliver(struct engine *e)
{
    bool merged = engine_step_is_merged(e);
    for (uint32_t i = 0; i < e->n_batch; i++) {
        struct sequence *q = e->batch_owner[i];
        uint32_t n = e->batch[i].n_tokens - (q->draft.n - q->draft.n_right);
        q->n_computed += n;
        *(merged ? &q->n_merged : &q->n_unmerged) += n;
        engine_prefix_offer(e, q);
    }
    for (uint32_t i = e->n_batch; i < e->n_batch + e->n_followers; i++)
        e->batch_owner[i]->follower.n_computed += e->batch[i].n_tokens;
    for (uint32_t i = 0; i < e->n_rows; i++)
        deliver_row(e, &e->rows[i]);
}

/* ---- step ---- */

/* The way of the sequences doesn't depend on their followers: where those can't come along on a merged copy,
 * they run on the base behind. */
static void run_model(struct engine *e)
{
    bool apart = e->n_followers > 0 && engine_step_is_merged(e);
    const struct batch batch = {
        .seqs = e->batch, .n_seqs = e->n_batch + (apart ? 0 : e->n_followers), .rows = engine_pooling(e)};
    model_step(e->step_model, e->space, e->kv, &batch, &e->logits);
    if (batch.rows != STEP_LOGITS)
        engine_pool(e);
    if (apart) {
        float *behind;
        const struct batch followers = {
            .seqs = e->batch + e->n_batch, .n_seqs = e->n_followers, .logits_at = e->n_rows};
        model_step(e->model, e->space, e->kv, &followers, &behind);
    }
}

static void step(struct engine *e)
{
    int64_t begin_ns = clock_now_ns();
    atomic_store_explicit(&e->counters.step_began_ns, (uint64_t)begin_ns, memory_order_relaxed);
    uint64_t n_allocations = mem_count();
    struct schedule s = engine_plan(e);
    uint32_t n_tokens = schedule_tokens(&s);
    n_tokens += engine_drafts_plan(e, &s, n_tokens);
    e->n_batch = e->n_rows = e->n_followers = 0;
    for (uint32_t i = 0; i < s.n_entries; i++) /* pages go back before others take them, */
        if (s.entries[i].pause)
            enact_pause(e, &s.entries[i]);
    for (uint32_t i = 0; i < s.n_entries; i++) /* and what was found is used before room is made */
        if (s.entries[i].start)
            enact_start(e, &s.entries[i]);
    for (uint32_t i = 0; i < s.n_entries; i++) {
        if (s.entries[i].n_tokens)
            batch_add(e, &e->sequences[s.entries[i].index], s.entries[i].n_tokens);
    }
    forget_started(e);
    engine_publish(e);
    require(e->n_batch > 0); /* the scheduler's promise; without it we would spin */
    engine_shadow_add(e, e->step_tokens - n_tokens);
    e->step_model = engine_merged_choose(e, n_tokens);
    announce(e);
    int64_t computing_ns = clock_now_ns();
    run_model(e);
    if (e->n_rows > 1)
        team_run(e->team, compute_rows, e);
    else
        compute_rows(e, 0, 1);
    engine_drafts_timed(e, n_tokens, clock_now_ns() - computing_ns);
    deliver(e);
    struct counters *c = &e->counters;
    counter_add(&c->n_steps, 1);
    counter_add(&c->sum_batch_rows, n_tokens);
    counter_add(&c->n_merged_steps, engine_step_is_merged(e));
    counter_add(&c->n_merged_tokens, engine_step_is_merged(e) ? n_tokens : 0);
    atomic_store_explicit(&c->step_began_ns, 0, memory_order_relaxed);
    counter_add(&c->step_ns, (uint64_t)(clock_now_ns() - begin_ns));
    counter_add(&c->step_allocations, mem_count() - n_allocations);
    atomic_store_explicit(&c->batch_rows, n_tokens, memory_order_relaxed);
    engine_publish(e);
}

/* Everything that was submitted gets its final event; the closed outbox tells the destroyer that we are done.
 */
static void end_all(struct engine *e)
{
    struct message m;
    while (queue_get(e->inbox, &m))
        if (m.submission)
            engine_end_waiting(e, m.submission, FINISH_CANCELLED, NULL);
    while (e->n_waiting) /* what is ended is looked at no more */
        engine_end_waiting(e, e->waiting[--e->n_waiting], FINISH_CANCELLED, NULL);
    for (uint32_t i = 0; i < e->n_slots; i++)
        if (e->sequences[i].state != SEQUENCE_FREE)
            engine_end_sequence(e, &e->sequences[i], FINISH_CANCELLED, NULL);
    queue_close(e->outbox);
}

void *engine_main(void *engine)
{
    struct engine *e = engine;
    engine_watch_joined(e);
    for (;;) {
        receive(e);
        /* acquire: pairs with the destroyer's release */
        if (atomic_load_explicit(&e->stopping, memory_order_acquire))
            break;
        if (is_idle(e))
            continue;
        engine_merged_sync(e);
        engine_watch_apply(e);
        step(e);
    }
    end_all(e);
    return NULL;
}
