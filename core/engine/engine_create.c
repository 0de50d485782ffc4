/* Sizes everything that the engine will ever need, and starts its thread. From here on nothing is allocated
 * but a block for each submission, and scratch when an adapter of a higher rank than ever arrives. */
#include "engine_inner.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define N_SEQUENCES_MAX 4096U
#define QUEUE_LIMIT_MAX (1U << 18)
#define STEP_TOKENS_MAX 65536U
#define PROMPT_TOKENS 64U       /* so many read the weights at the price of few, and take long enough */
#define MODEST_TOKENS 1024U     /* of a sequence, when the KV memory is sized by us */
#define SCORE_BYTES (32U << 20) /* of logits for prompts whose logprobs are wanted */
#define SCORE_ROWS_MIN 16U

static uint32_t pages_for(uint32_t n_tokens)
{
    return n_tokens / KV_PAGE_TOKENS + (n_tokens % KV_PAGE_TOKENS != 0);
}

/* Memory of the machine, or of the cgroup (v2) where that is less. */
static uint64_t memory_bytes(void)
{
    long n_pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t bytes = n_pages > 0 && page > 0 ? (uint64_t)n_pages * (uint64_t)page : (uint64_t)1 << 32;
    unsigned long long limit;
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "re");
    if (f && fscanf(f, "%llu", &limit) == 1 && limit < bytes) /* "max" is no number */
        bytes = limit;
    if (f)
        fclose(f);
    return bytes;
}

static enum status check_limit(const char *name, uint32_t value, uint32_t most, struct error *err)
{
    return value <= most ? STATUS_OK
                         : fail(err, STATUS_INVALID, "%s is %u, at most %u is taken", name, value, most);
}

static enum status take_options(struct engine *e, const struct engine_options *o, struct error *err)
{
    enum status s;
    if ((s = check_limit("n_sequences", o->n_sequences, N_SEQUENCES_MAX, err)) != STATUS_OK ||
        (s = check_limit("queue_limit", o->queue_limit, QUEUE_LIMIT_MAX, err)) != STATUS_OK ||
        (s = check_limit("step_tokens", o->step_tokens, STEP_TOKENS_MAX, err)) != STATUS_OK)
        return s;
    e->n_sequences = o->n_sequences ? o->n_sequences : ENGINE_SEQUENCES;
    e->n_slots = e->n_sequences + (e->n_sequences > FAIR_ASIDE_MIN ? e->n_sequences : FAIR_ASIDE_MIN);
    e->queue_limit = o->queue_limit ? o->queue_limit : 1024;
    e->wait_bound_ns = o->wait_bound_ns > 0 ? o->wait_bound_ns : ENGINE_WAIT_BOUND_NS;
    e->prompt_tokens = o->step_tokens ? o->step_tokens : PROMPT_TOKENS;
    e->step_tokens = o->step_tokens ? o->step_tokens : e->n_sequences + PROMPT_TOKENS;
    if (e->step_tokens < e->n_sequences) /* a step takes all decoding sequences */
        e->step_tokens = e->n_sequences;
    e->chunk_tokens = o->chunk_tokens && o->chunk_tokens < e->step_tokens ? o->chunk_tokens : e->step_tokens;
    const struct model_config *c = model_config(e->model);
    uint32_t longest = c->max_position ? c->max_position : 2048;
    if (o->context > longest)
        return fail(err, STATUS_INVALID, "context is %u tokens, but the model was made for %u", o->context,
                    longest);
    e->has_costs = o->costs != NULL;
    e->prefix_off = o->prefix_cache_off;
    if (o->costs)
        e->costs = *o->costs;
    e->limits.wanted_context = o->context ? o->context : longest;
    uint32_t rows = SCORE_BYTES / (uint32_t)sizeof(float) / (c->vocab_size ? c->vocab_size : 1);
    e->score_rows = rows < SCORE_ROWS_MIN ? SCORE_ROWS_MIN : rows < e->step_tokens ? rows : e->step_tokens;
    return STATUS_OK;
}

static bool is_kv_type(const char *name)
{
    static const char *const known[] = {"auto", "f32", "f16", "bf16", "int8"};
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        found = found || strcmp(name, known[i]) == 0;
    return found;
}

static uint64_t random_seed(void)
{
    uint64_t seed;
    return getrandom(&seed, sizeof seed, 0) == sizeof seed ? seed : (uint64_t)clock_now_ns();
}

/* How many pages: the given memory's, or one whole context and a modest length for all sequences, but at most
 * a quarter of the machine. The context is what fits. */
static enum status create_cache(struct engine *e, const struct engine_options *o, struct error *err)
{
    const char *type = o->kv_type ? o->kv_type : "auto";
    if (!is_kv_type(type))
        return fail(err, STATUS_INVALID, "kv_type is \"%s\", expected auto, f32, f16, bf16 or int8", type);
    struct kv_shape shape = model_kv_shape(e->model, model_kv_type(e->model, type));
    e->page_bytes = kv_page_bytes(&shape);
    if (e->page_bytes == 0)
        return fail(err, STATUS_TOO_LARGE,
                    "a page of KV memory for this model has more bytes than can be addressed");
    uint32_t wanted = e->limits.wanted_context, modest = wanted < MODEST_TOKENS ? wanted : MODEST_TOKENS;
    uint64_t n = (uint64_t)e->n_sequences * pages_for(modest), most = memory_bytes() / 4 / e->page_bytes;
    n = n > pages_for(wanted) ? n : pages_for(wanted);
    n = n < most ? n : most;
    if (o->kv_bytes)
        n = o->kv_bytes / e->page_bytes;
    if (n == 0 || n > UINT32_MAX / KV_PAGE_TOKENS)
        return fail(err, STATUS_INVALID,
                    "kv_bytes is %llu, which holds %llu pages of %zu bytes; 1 to %u are taken",
                    (unsigned long long)o->kv_bytes, (unsigned long long)n, e->page_bytes,
                    UINT32_MAX / KV_PAGE_TOKENS);
    e->n_pages = (uint32_t)n;
    e->limits.kv_tokens = e->n_pages * KV_PAGE_TOKENS;
    e->limits.context = wanted < e->limits.kv_tokens ? wanted : e->limits.kv_tokens;
    if (e->limits.context < 2)
        return fail(err, STATUS_INVALID, "context is %u tokens, at least 2 are needed", e->limits.context);
    atomic_store_explicit(&e->counters.kv_pages_free, e->n_pages, memory_order_relaxed);
    enum status s = kv_cache_create(&shape, e->n_pages, &e->kv, err);
    return s != STATUS_OK ? s : prefix_cache_create(e->kv, random_seed(), &e->prefix, err);
}

/* Everything of fixed size; false when memory is short. */
static bool create_tables(struct engine *e)
{
    size_t context = e->limits.context, n_pages = pages_for(e->limits.context), n_tokens, n_table,
           n = e->n_sequences, n_slots = e->n_slots;
    size_t bound = 2 * detokenizer_bound(e->text->tokenizer) + 64;
    if (!size_mul(n_slots, context, &n_tokens) || !size_mul(2 * n_slots + CHOSEN_MAX, n_pages, &n_table))
        return false;
    e->sequences = mem_array(n_slots, sizeof *e->sequences);
    e->token_table = mem_array(n_tokens, sizeof *e->token_table);
    e->page_table = mem_array(n_table, sizeof *e->page_table);
    e->nexts = mem_array(n + CHOSEN_MAX, sizeof *e->nexts);
    e->users = mem_array(e->n_pages, sizeof *e->users);
    e->waiting = mem_array(n + e->queue_limit, sizeof(struct submission *));
    e->entries = mem_array(n_slots + CHOSEN_MAX, sizeof *e->entries);
    e->batch = mem_array(n + SHADOWS_MAX, sizeof *e->batch);
    e->batch_owner = mem_array(n + SHADOWS_MAX, sizeof(struct sequence *));
    e->rows = mem_array(n + e->score_rows, sizeof *e->rows);
    e->text_in = mem_alloc(bound);
    e->text_out = mem_alloc(bound + STOP_STRING_BYTES_MAX);
    if (!fair_init(&e->fair, ENGINE_CALLERS_MAX, (uint32_t)n + e->queue_limit, e->wait_bound_ns,
                   e->n_sequences) ||
        !e->sequences || !e->token_table || !e->page_table || !e->users || !e->nexts || !e->waiting ||
        !e->entries || !e->batch || !e->batch_owner || !e->rows || !e->text_in || !e->text_out)
        return false;
    for (size_t i = 0; i < n_slots; i++) {
        e->sequences[i].tokens = e->token_table + i * context;
        e->sequences[i].pages = e->page_table + i * n_pages;
        e->sequences[i].follower.pages = e->page_table + (n_slots + i) * n_pages;
    }
    e->found_table = e->page_table + 2 * n_slots * n_pages;
    e->pages_of_context = (uint32_t)n_pages;
    return true;
}

static bool create_queues(struct engine *e, void (*wake)(void *data), void *data)
{
    /* An id is live until its final event is polled: those that run or wait, and what the outbox holds. */
    e->n_live_slots = e->n_sequences + e->queue_limit + OUTBOX_LIMIT + 1;
    e->live = mem_array(e->n_live_slots, sizeof *e->live);
    e->inbox = queue_create(sizeof(struct message), 2 * (size_t)e->n_live_slots + 1, NULL, NULL);
    e->outbox = queue_create(sizeof(struct event), OUTBOX_LIMIT, wake, data);
    if (!e->live || !e->inbox || !e->outbox)
        return false;
    for (uint32_t i = 0; i < e->n_live_slots; i++)
        e->live[i].next_free = i + 1;
    return true;
}

static enum status create_scratch(struct engine *e, struct error *err)
{
    uint32_t n_vocab = model_config(e->model)->vocab_size;
    e->scratch = mem_array(team_size(e->team), sizeof *e->scratch);
    if (!e->scratch)
        return fail(err, STATUS_NO_MEMORY, "no memory for the sampler");
    for (uint32_t i = 0; i < team_size(e->team); i++) {
        enum status s = sampler_scratch_init(&e->scratch[i], n_vocab, model_kernels(e->model)->argmax, err);
        if (s != STATUS_OK)
            return s;
        e->scratch[i].kernels = model_kernels(e->model);
    }
    return STATUS_OK;
}

/* Threads inherit our signal mask; signals are the front's business. */
static enum status create_team(struct engine *e, unsigned n_threads, struct error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    e->team = team_create(n_threads);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e->team ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "the worker threads can't be started");
}

static enum status start_thread(struct engine *e, struct error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    e->has_thread = pthread_create(&e->thread, NULL, engine_main, e) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e->has_thread ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "the engine thread can't be started");
}

static enum status build(struct engine *e, const struct engine_options *o, struct error *err)
{
    enum status s;
    if ((s = create_cache(e, o, err)) != STATUS_OK)
        return s;
    if (!create_tables(e))
        return fail(err, STATUS_NO_MEMORY,
                    "no memory for %u sequences of %u tokens: lower n_sequences or context", e->n_sequences,
                    e->limits.context);
    if ((s = create_team(e, o->n_threads, err)) != STATUS_OK || (s = create_scratch(e, err)) != STATUS_OK ||
        (s = engine_watch_create(e, o, err)) != STATUS_OK || (s = engine_merged_init(e, err)) != STATUS_OK ||
        (s = engine_drafts_init(e, o->speculation, err)) != STATUS_OK)
        return s;
    struct kv_shape shape = *kv_cache_shape(e->kv);
    s = step_space_create(e->model, &shape, e->step_tokens, e->n_sequences + SHADOWS_MAX,
                          e->n_sequences + e->score_rows + SHADOWS_MAX, e->team, &e->space, err);
    if (s != STATUS_OK || (s = start_thread(e, err)) != STATUS_OK)
        return s;
    return engine_watch_start(e, err);
}

enum status engine_create(const struct model *m, const struct text_model *text,
                          const struct engine_options *options, void (*wake)(void *data), void *data,
                          struct engine **out, struct error *err)
{
    *out = NULL;
    struct engine *e = mem_zalloc(sizeof *e);
    if (!e)
        return fail(err, STATUS_NO_MEMORY, "no memory for the engine");
    e->model = e->limits.model = e->step_model = m;
    e->text = e->limits.text = text;
    enum status s = take_options(e, options, err);
    if (s == STATUS_OK && !create_queues(e, wake, data))
        s = fail(err, STATUS_NO_MEMORY, "no memory for a queue of %u requests", e->queue_limit);
    if (s == STATUS_OK)
        s = build(e, options, err);
    if (s == STATUS_OK)
        *out = e;
    else
        engine_destroy(e);
    return s;
}
