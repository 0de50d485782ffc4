/* The engine's door: what the front calls. Submissions and cancellations go into the inbox, events come out
 * of the outbox; everything between belongs to the engine thread (engine_loop.c).
 *
 * The front keeps a table of live ids. It bounds what can be in flight, so a put into the inbox always finds
 * room and a cancellation is never lost, and it makes cancelling twice, or too late, do nothing.
 *
 *   front     submit ──▶ inbox ──▶ waiting ──▶ sequences ──▶ step ──▶ outbox ──▶ poll
 *                                    engine thread
 *
 * It knows no requests, connections, adapters' names or tenants. */
#include "engine_inner.h"

#include "base/clock.h"
#include "base/mem.h"

static void live_release(struct engine *e, uint64_t id)
{
    uint32_t index = (uint32_t)id & ID_SLOT_MASK;
    require(index < e->n_live_slots && e->live[index].id == id);
    e->live[index] = (struct live_slot){.next_free = e->first_free};
    e->first_free = index;
}

static void send(struct engine *e, struct message m)
{
    bool sent = queue_put(e->inbox, &m);
    require(sent); /* the inbox is as long as the table of live ids allows */
}

enum status engine_submit(struct engine *e, const struct generation *g, uint64_t *id, struct error *err)
{
    /* relaxed: only the front adds, so the engine can but make room behind our back */
    uint32_t n_live = atomic_load_explicit(&e->counters.n_live, memory_order_relaxed);
    if (n_live >= e->n_sequences + e->queue_limit || e->first_free == e->n_live_slots)
        return fail(err, STATUS_FULL, "%u generations run or wait, the limits are %u running and %u waiting",
                    n_live, e->n_sequences, e->queue_limit);
    struct submission *s;
    enum status status = submission_create(g, &e->limits, &s, err);
    if (status != STATUS_OK)
        return status;
    uint32_t index = e->first_free;
    e->first_free = e->live[index].next_free;
    s->id = ++e->serial << ID_SLOT_BITS | index;
    s->submitted_ns = clock_now_ns();
    e->live[index] = (struct live_slot){.id = s->id};
    *id = s->id; /* the submission may be gone after send */
    atomic_fetch_add_explicit(&e->counters.n_live, 1, memory_order_relaxed);
    send(e, (struct message){.id = *id, .submission = s});
    return STATUS_OK;
}

void engine_cancel(struct engine *e, uint64_t id)
{
    uint32_t index = (uint32_t)id & ID_SLOT_MASK;
    if (id == 0 || index >= e->n_live_slots || e->live[index].id != id || e->live[index].cancelled)
        return;
    e->live[index].cancelled = true;
    send(e, (struct message){.id = id});
}

bool engine_wait(struct engine *e, struct event *out, int64_t timeout_ns)
{
    if (!queue_get_wait(e->outbox, out, timeout_ns))
        return false;
    if (out->kind == EVENT_DONE || out->kind == EVENT_FAILED)
        live_release(e, out->id);
    return true;
}

bool engine_poll(struct engine *e, struct event *out)
{
    return engine_wait(e, out, 0);
}

void engine_stats(const struct engine *e, struct engine_stats *out)
{
    const struct counters *c = &e->counters;
#define COUNTER(name) atomic_load_explicit(&c->name, memory_order_relaxed)
    uint32_t n_live = COUNTER(n_live), n_running = COUNTER(n_running), n_paused = COUNTER(n_paused);
    *out = (struct engine_stats){
        .n_running = n_running,
        .n_waiting = n_live > n_running + n_paused ? n_live - n_running - n_paused : 0,
        .n_paused = n_paused,
        .kv_pages = e->n_pages,
        .kv_pages_free = COUNTER(kv_pages_free),
        .context = e->limits.context,
        .n_steps = COUNTER(n_steps),
        .n_prompt_tokens = COUNTER(n_prompt_tokens),
        .n_generated_tokens = COUNTER(n_generated_tokens),
        .n_preemptions = COUNTER(n_preemptions),
        .batch_rows = COUNTER(batch_rows),
        .sum_batch_rows = COUNTER(sum_batch_rows),
        .step_ns = COUNTER(step_ns),
        .step_allocations = COUNTER(step_allocations),
        .prefix_pages = COUNTER(prefix_pages),
        .n_prefix_hits = COUNTER(n_prefix_hits),
        .n_prefix_tokens = COUNTER(n_prefix_tokens),
        .n_prefix_evictions = COUNTER(n_prefix_evictions),
        .n_merged_steps = COUNTER(n_merged_steps),
        .n_merged_tokens = COUNTER(n_merged_tokens),
        .n_shadow_rows = COUNTER(n_shadow_rows),
        .n_shadow_drops = COUNTER(n_shadow_drops),
        .n_drafted = COUNTER(n_drafted),
        .n_drafts_right = COUNTER(n_drafts_right),
        .wait_max_ns = COUNTER(wait_max_ns),
        .wait_bound_ns = (uint64_t)e->wait_bound_ns,
        .class_wait_max_ns = {COUNTER(class_wait_max_ns[0]), COUNTER(class_wait_max_ns[1])},
        .voice_wait_max_ns = {COUNTER(voice_wait_max_ns[0]), COUNTER(voice_wait_max_ns[1])},
        .n_late = COUNTER(n_late),
        .n_yields = COUNTER(n_yields),
    };
    out->threads = engine_watch_threads(e);
    uint64_t oldest_ns = COUNTER(oldest_ns), now_ns = (uint64_t)clock_now_ns();
    out->oldest_wait_ns = oldest_ns && oldest_ns < now_ns ? now_ns - oldest_ns : 0;
#undef COUNTER
}

size_t kv_bytes_in_use(const struct engine *e)
{
    uint32_t n_free = atomic_load_explicit(&e->counters.kv_pages_free, memory_order_relaxed);
    return (size_t)(e->n_pages - n_free) * e->page_bytes;
}

/* Ends the thread. It may be waiting for room in the outbox, so that is emptied until the thread closes it.
 */
static void stop_thread(struct engine *e)
{
    struct event event;
    /* release: pairs with the thread's acquire; closing the inbox wakes it if it sleeps */
    atomic_store_explicit(&e->stopping, true, memory_order_release);
    queue_close(e->inbox);
    while (queue_get_wait(e->outbox, &event, -1)) {
    }
    pthread_join(e->thread, NULL);
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    engine_watch_stop(e);
    if (e->has_thread)
        stop_thread(e);
    for (uint32_t i = 0; e->scratch && i < team_size(e->team); i++)
        sampler_scratch_fini(&e->scratch[i]);
    engine_watch_destroy(e->watch);
    engine_merged_fini(e);
    engine_drafts_fini(e);
    step_space_destroy(e->space);
    prefix_cache_destroy(e->prefix);
    kv_cache_destroy(e->kv);
    team_destroy(e->team);
    queue_destroy(e->inbox);
    queue_destroy(e->outbox);
    mem_free(e->scratch);
    mem_free(e->live);
    mem_free(e->sequences);
    mem_free(e->token_table);
    mem_free(e->page_table);
    mem_free(e->users);
    mem_free(e->nexts);
    mem_free(e->waiting);
    fair_fini(&e->fair);
    mem_free(e->entries);
    mem_free(e->batch);
    mem_free(e->batch_owner);
    mem_free(e->rows);
    mem_free(e->text_in);
    mem_free(e->text_out);
    mem_free(e);
}
