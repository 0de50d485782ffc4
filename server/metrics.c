/* Counters and their text (Prometheus exposition format 0.0.4). Histograms have fixed buckets from 1 ms to
 * 100 s. The vLLM names are those that the Gateway API inference extension scrapes (its proposal 003):
 * exactly one series of lora_requests_info, with the time as its value. */
#include "metrics.h"

#include <stdio.h>
#include <string.h>

#include "admin_json.h"
#include "base/clock.h"
#include "base/mem.h"
#include "merges.h"
#include "server.h"

#define VOICES_MAX 1024U

static const double bounds[METRICS_BUCKETS] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                               1,     2,     5,     10,   20,   30,   50,  75,  100};

#define FAILURE_CODES 32     /* of loads; docs/ADMIN.md has fewer */
#define LAST_ERRORS_MAX 100U /* names whose last error is shown */

struct metrics {
    struct voice_metrics *voices; /* newest first */
    size_t n_voices;
    struct voice_metrics other; /* when memory or the bound is reached */
    uint64_t http[6];           /* by hundreds */
    uint64_t loads_ok, loads_failed, effect_tests;
    struct {
        const char *code;
        uint64_t n;
    } failures[FAILURE_CODES];
};

struct metrics *metrics_create(void)
{
    struct metrics *m = mem_zalloc(sizeof *m);
    if (m)
        snprintf(m->other.name, sizeof m->other.name, "other");
    return m;
}

void metrics_destroy(struct metrics *m)
{
    while (m && m->voices) {
        struct voice_metrics *v = m->voices;
        m->voices = v->next;
        mem_free(v);
    }
    mem_free(m);
}

struct voice_metrics *metrics_voice(struct metrics *m, const char *name)
{
    for (struct voice_metrics *v = m->voices; v; v = v->next)
        if (strcmp(v->name, name) == 0)
            return v;
    struct voice_metrics *v = m->n_voices < VOICES_MAX ? mem_zalloc(sizeof *v) : NULL;
    if (!v)
        return &m->other;
    snprintf(v->name, sizeof v->name, "%s", name);
    v->next = m->voices;
    m->voices = v;
    m->n_voices++;
    return v;
}

void metrics_count_request(struct voice_metrics *v, int http_status)
{
    for (int i = 0; i < METRICS_STATUSES; i++) {
        if (v->requests[i].status == 0 || i == METRICS_STATUSES - 1)
            v->requests[i].status = http_status;
        if (v->requests[i].status == http_status) {
            v->requests[i].n++;
            return;
        }
    }
}

void metrics_count_http(struct metrics *m, int http_status)
{
    int hundreds = http_status / 100;
    m->http[hundreds >= 1 && hundreds <= 5 ? hundreds : 0]++;
}

void metrics_count_load(struct metrics *m, const char *code)
{
    *(code ? &m->loads_failed : &m->loads_ok) += 1;
    for (size_t i = 0; code && i < FAILURE_CODES; i++)
        if (!m->failures[i].code || strcmp(m->failures[i].code, code) == 0) {
            m->failures[i].code = code;
            m->failures[i].n++;
            return;
        }
}

void metrics_count_effect_test(struct metrics *m)
{
    m->effect_tests++;
}

void histogram_add(struct histogram *h, double seconds)
{
    int i = 0;
    while (i < METRICS_BUCKETS && seconds > bounds[i])
        i++;
    h->counts[i]++;
    h->sum += seconds;
}

/* ---- text */

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(struct buf *out, const char *name, const char *type, const char *help, double v)
{
    head(out, name, type, help);
    buf_printf(out, "%s %.15g\n", name, v);
}

static void put_histogram(struct buf *out, const char *name, const char *voice, const struct histogram *h)
{
    uint64_t n = 0;
    for (int i = 0; i <= METRICS_BUCKETS; i++) {
        n += h->counts[i];
        buf_printf(out, "%s_bucket{adapter=\"%s\",le=\"", name, voice);
        if (i < METRICS_BUCKETS)
            buf_printf(out, "%g\"} %llu\n", bounds[i], (unsigned long long)n);
        else
            buf_printf(out, "+Inf\"} %llu\n", (unsigned long long)n);
    }
    buf_printf(out, "%s_sum{adapter=\"%s\"} %.9g\n", name, voice, h->sum);
    buf_printf(out, "%s_count{adapter=\"%s\"} %llu\n", name, voice, (unsigned long long)n);
}

static const struct voice_metrics *next_voice(const struct metrics *m, const struct voice_metrics *v)
{
    const struct voice_metrics *last = m->other.requests[0].status ? &m->other : NULL;
    if (!v)
        return m->voices ? m->voices : last;
    return v == &m->other ? NULL : v->next ? v->next : last;
}

static void put_requests(const struct metrics *m, struct buf *out)
{
    head(out, "lorikeet_requests_total", "counter",
         "Generation requests answered, by voice and HTTP status.");
    for (const struct voice_metrics *v = next_voice(m, NULL); v; v = next_voice(m, v))
        for (int i = 0; i < METRICS_STATUSES && v->requests[i].status; i++)
            buf_printf(out, "lorikeet_requests_total{adapter=\"%s\",status=\"%d\"} %llu\n", v->name,
                       v->requests[i].status, (unsigned long long)v->requests[i].n);
    head(out, "lorikeet_requests_cancelled_total", "counter", "Requests whose client left before the end.");
    for (const struct voice_metrics *v = next_voice(m, NULL); v; v = next_voice(m, v))
        buf_printf(out, "lorikeet_requests_cancelled_total{adapter=\"%s\"} %llu\n", v->name,
                   (unsigned long long)v->n_cancelled);
    head(out, "lorikeet_http_responses_total", "counter", "All answers, by the hundreds of their status.");
    for (int i = 1; i <= 5; i++)
        buf_printf(out, "lorikeet_http_responses_total{status=\"%dxx\"} %llu\n", i,
                   (unsigned long long)m->http[i]);
}

struct per_voice {
    const char *name, *type, *help;
    size_t offset;
    bool wide; /* uint64_t, else uint32_t */
};

static void put_voice_numbers(const struct metrics *m, struct buf *out)
{
    static const struct per_voice rows[] = {
        {"lorikeet_prompt_tokens_total", "counter", "Prompt tokens of finished generations.",
         offsetof(struct voice_metrics, prompt_tokens), true},
        {"lorikeet_cached_tokens_total", "counter", "Prompt tokens that needed no computing.",
         offsetof(struct voice_metrics, cached_tokens), true},
        {"lorikeet_generated_tokens_total", "counter", "Tokens generated.",
         offsetof(struct voice_metrics, generated_tokens), true},
        {"lorikeet_generations_waiting", "gauge", "Generations that wait for their first step.",
         offsetof(struct voice_metrics, n_waiting), false},
        {"lorikeet_generations_running", "gauge", "Generations in the batch.",
         offsetof(struct voice_metrics, n_running), false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        head(out, rows[i].name, rows[i].type, rows[i].help);
        for (const struct voice_metrics *v = next_voice(m, NULL); v; v = next_voice(m, v)) {
            const char *at = (const char *)v + rows[i].offset;
            uint64_t n =
                rows[i].wide ? *(const uint64_t *)(const void *)at : *(const uint32_t *)(const void *)at;
            buf_printf(out, "%s{adapter=\"%s\"} %llu\n", rows[i].name, v->name, (unsigned long long)n);
        }
    }
}

static void put_histograms(const struct metrics *m, struct buf *out)
{
    static const struct per_voice rows[] = {
        {"lorikeet_time_to_first_token_seconds", NULL, "From the request's headers to its first token.",
         offsetof(struct voice_metrics, ttft), false},
        {"lorikeet_inter_token_seconds", NULL, "Between two tokens of a generation.",
         offsetof(struct voice_metrics, inter_token), false},
        {"lorikeet_request_duration_seconds", NULL, "From the request's headers to the end of its answer.",
         offsetof(struct voice_metrics, duration), false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        head(out, rows[i].name, "histogram", rows[i].help);
        for (const struct voice_metrics *v = next_voice(m, NULL); v; v = next_voice(m, v)) {
            const char *at = (const char *)v + rows[i].offset;
            put_histogram(out, rows[i].name, v->name, (const struct histogram *)(const void *)at);
        }
    }
}

static void by_class(struct buf *out, const char *name, const char *help, const uint64_t ns[2])
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
    for (int batch = 0; batch < 2; batch++)
        buf_printf(out, "%s{class=\"%s\"} %.15g\n", name, batch ? "batch" : "interactive",
                   (double)ns[batch] / 1e9);
}

static void put_waits(const struct engine_stats *e, struct buf *out)
{
    number(
        out, "lorikeet_wait_bound_seconds", "gauge",
        "After so long something is started of each voice of a tenant that waits, if need be in the place of "
        "another.",
        (double)e->wait_bound_ns / 1e9);
    by_class(
        out, "lorikeet_voice_wait_max_seconds",
        "The longest for which nothing was started of a tenant's voice that waited: the bound, or more where "
        "nobody could be paused.",
        e->voice_wait_max_ns);
    by_class(out, "lorikeet_class_wait_max_seconds",
             "The longest that a generation has waited for its start.", e->class_wait_max_ns);
    number(out, "lorikeet_late_starts_total", "counter", "Generations started out of turn, for that bound.",
           (double)e->n_late);
    number(out, "lorikeet_bound_pauses_total", "counter",
           "Of the preemptions, those that made place for what waited, or was paused, beyond that bound.",
           (double)e->n_yields);
}

static void put_threads(const struct engine_threads *t, struct buf *out)
{
    number(out, "lorikeet_threads", "gauge", "Compute threads of a step.", t->n);
    number(out, "lorikeet_threads_max", "gauge", "Compute threads that there are.", t->n_max);
    head(out, "lorikeet_threads_limited", "gauge", "1 for the reason why a step has fewer.");
    for (unsigned i = 0; i < THREAD_LIMITS; i++)
        buf_printf(out, "lorikeet_threads_limited{by=\"%s\"} %d\n", thread_limit_name((enum thread_limit)i),
                   t->limit == (enum thread_limit)i);
    number(out, "lorikeet_threads_pinned", "gauge", "1: each stays on a CPU of its own.", t->pinned);
}

static void put_engine(const struct server *s, struct buf *out)
{
    struct engine_stats e;
    engine_stats(s->engine, &e);
    double used = e.kv_pages ? 1.0 - (double)e.kv_pages_free / e.kv_pages : 0;
    number(out, "lorikeet_queue_length", "gauge", "Generations that wait.", e.n_waiting);
    number(out, "lorikeet_sequences_running", "gauge", "Sequences in the batch.", e.n_running);
    number(out, "lorikeet_sequences_paused", "gauge",
           "Sequences that wait to go on: KV memory ran out, or others were beyond the bound.", e.n_paused);
    number(out, "lorikeet_preemptions_total", "counter", "Sequences paused so far.", (double)e.n_preemptions);
    number(out, "lorikeet_wait_max_seconds", "gauge",
           "The longest that a generation has waited for its start.", (double)e.wait_max_ns / 1e9);
    number(out, "lorikeet_wait_oldest_seconds", "gauge", "Of those that wait now, the longest wait.",
           (double)e.oldest_wait_ns / 1e9);
    number(out, "lorikeet_batch_wait_bound_seconds", "gauge",
           "How long interactive callers go before a batch one that waits.",
           (double)ENGINE_PATIENCE_NS / 1e9);
    put_waits(&e, out);
    number(out, "lorikeet_steps_total", "counter", "Steps of the engine.", (double)e.n_steps);
    number(out, "lorikeet_step_seconds_total", "counter", "Time in steps.", (double)e.step_ns / 1e9);
    number(out, "lorikeet_batch_rows", "gauge", "Token rows of the last step.", (double)e.batch_rows);
    number(out, "lorikeet_batch_rows_total", "counter", "Token rows of all steps.", (double)e.sum_batch_rows);
    number(out, "lorikeet_kv_usage_ratio", "gauge", "Share of the KV pages in use.", used);
    number(out, "lorikeet_kv_pages", "gauge", "KV pages in all.", e.kv_pages);
    number(out, "lorikeet_prefix_pages", "gauge", "KV pages kept for equal beginnings, used or not.",
           e.prefix_pages);
    number(out, "lorikeet_prefix_hits_total", "counter", "Generations that found some of their prompt there.",
           (double)e.n_prefix_hits);
    number(out, "lorikeet_prefix_tokens_total", "counter", "Prompt tokens found.", (double)e.n_prefix_tokens);
    number(out, "lorikeet_prefix_evictions_total", "counter", "Pages forgotten to make room.",
           (double)e.n_prefix_evictions);
    number(out, "lorikeet_merged_steps_total", "counter", "Steps that ran on a merged copy.",
           (double)e.n_merged_steps);
    number(out, "lorikeet_merged_tokens_total", "counter", "Tokens computed in them.",
           (double)e.n_merged_tokens);
    number(out, "lorikeet_drafted_tokens_total", "counter",
           "Tokens guessed and computed beside the next one.", (double)e.n_drafted);
    number(out, "lorikeet_accepted_drafts_total", "counter", "Those of them that were right.",
           (double)e.n_drafts_right);
    put_threads(&e.threads, out);
    number(out, "lorikeet_step_allocations_total", "counter", "Heap allocations inside steps (should be 0).",
           (double)e.step_allocations);
    number(out, "vllm:num_requests_running", "gauge", "As vLLM calls it.", e.n_running);
    number(out, "vllm:num_requests_waiting", "gauge", "As vLLM calls it.", e.n_waiting);
    number(out, "vllm:spec_decode_num_draft_tokens_total", "counter", "As vLLM calls it.",
           (double)e.n_drafted);
    number(out, "vllm:spec_decode_num_accepted_tokens_total", "counter", "As vLLM calls it.",
           (double)e.n_drafts_right);
    number(out, "vllm:kv_cache_usage_perc", "gauge", "As vLLM calls it: 0 to 1.", used);
    number(out, "vllm:prefix_cache_queries_total", "counter", "As vLLM calls it: prompt tokens.",
           (double)(e.n_prefix_tokens + e.n_prompt_tokens));
    number(out, "vllm:prefix_cache_hits_total", "counter", "As vLLM calls it: those found.",
           (double)e.n_prefix_tokens);
}

/* Names that are in memory, or (not in it yet) being loaded. */
static void put_names(const struct server *s, bool loading, struct buf *out)
{
    bool any = false;
    for (size_t i = 0; i < registry_count(s->registry); i++) {
        const struct adapter *a = registry_at(s->registry, i);
        const struct version_record *v = registry_record(a, a->stable);
        bool resident = v && v->version;
        if (loading ? resident || !a->loading : !resident)
            continue;
        buf_printf(out, "%s%s", any ? "," : "", a->wish.name);
        any = true;
    }
}

static void put_escaped(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            buf_putc(out, '\\');
        if (*text == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, *text);
    }
}

/* Why the last load of a name failed, in the words of the API's answer and the log. */
static void put_last_errors(const struct server *s, struct buf *out)
{
    uint32_t n = 0;
    head(out, "lorikeet_adapter_last_error", "gauge",
         "1 for each name whose last load failed, with the reason.");
    for (size_t i = 0; i < registry_count(s->registry) && n < LAST_ERRORS_MAX; i++) {
        const struct adapter *a = registry_at(s->registry, i);
        if (!a->last_error)
            continue;
        n++;
        buf_printf(out, "lorikeet_adapter_last_error{adapter=\"%s\",code=\"%s\",message=\"", a->wish.name,
                   admin_last_code(a));
        put_escaped(out, a->last_error);
        buf_puts(out, "\"} 1\n");
    }
}

static void put_residency(const struct server *s, struct buf *out)
{
    struct registry_usage u;
    registry_usage(s->registry, &u);
    number(out, "lorikeet_adapters_registered", "gauge", "Names that can be asked for.", u.n_names);
    number(out, "lorikeet_adapters_loaded", "gauge", "Versions in memory that requests may get.",
           u.n_resident);
    number(out, "lorikeet_adapters_retired", "gauge", "Versions replaced or removed, still in use.",
           u.n_retired);
    number(out, "lorikeet_adapter_memory_bytes", "gauge", "Memory of all versions.",
           (double)u.resident_bytes);
    number(out, "lorikeet_adapter_memory_reserved_bytes", "gauge", "Memory promised to loads.",
           (double)u.reserved_bytes);
    number(out, "lorikeet_adapter_memory_limit_bytes", "gauge", "The budget; 0: none.",
           (double)u.budget_bytes);
    number(out, "lorikeet_adapter_evictions_total", "counter", "Versions that left to make room.",
           (double)u.n_evictions);
    head(out, "lorikeet_adapter_loads_total", "counter", "Loads tried so far.");
    buf_printf(out, "lorikeet_adapter_loads_total{result=\"ok\"} %llu\n",
               (unsigned long long)s->metrics->loads_ok);
    buf_printf(out, "lorikeet_adapter_loads_total{result=\"failed\"} %llu\n",
               (unsigned long long)s->metrics->loads_failed);
    number(out, "lorikeet_adapter_effect_tests_total", "counter", "Loads that were tested for effect.",
           (double)s->metrics->effect_tests);
    head(out, "lorikeet_adapter_load_failures_total", "counter", "Failed loads, by docs/ADMIN.md's codes.");
    for (size_t i = 0; i < FAILURE_CODES && s->metrics->failures[i].code; i++)
        buf_printf(out, "lorikeet_adapter_load_failures_total{code=\"%s\"} %llu\n",
                   s->metrics->failures[i].code, (unsigned long long)s->metrics->failures[i].n);
    put_last_errors(s, out);
}

struct merge_column {
    struct buf *out;
    const char *name;
    size_t offset; /* of a double in struct merge_shown; SIZE_MAX: is_ready */
};

static void put_merge(const struct merge_shown *c, void *data)
{
    const struct merge_column *column = data;
    double v = c->is_ready;
    if (column->offset != SIZE_MAX)
        memcpy(&v, (const char *)c + column->offset, sizeof v);
    buf_printf(column->out, "%s{adapter=\"%s\"} %.9g\n", column->name, c->name, v);
}

/* What the cost model said of each name that wants a copy. */
static void put_choices(const struct server *s, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } columns[] = {
        {"lorikeet_merge_chosen", "1: a merged copy serves it; 0: it would not pay.", SIZE_MAX},
        {"lorikeet_merge_predicted_ratio", "Time of a step on the copy against beside the base.",
         offsetof(struct merge_shown, ratio)},
        {"lorikeet_merge_predicted_gain", "Share of all step time that it saves.",
         offsetof(struct merge_shown, gain)},
        {"lorikeet_merge_error_ratio", "Rounded away in the copy, against what the adapter adds.",
         offsetof(struct merge_shown, error)},
    };
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        struct merge_column c = {.out = out, .name = columns[i].name, .offset = columns[i].offset};
        head(out, c.name, "gauge", columns[i].help);
        merges_each(s->merges, put_merge, &c);
    }
}

static void put_merges(const struct server *s, struct buf *out)
{
    struct merges_usage u;
    merges_usage(s->merges, &u);
    number(out, "lorikeet_merged_copies", "gauge", "Copies of the base with an adapter inside.", u.n_ready);
    number(out, "lorikeet_merged_copies_waiting", "gauge", "Copies wanted, not there yet.", u.n_waiting);
    number(out, "lorikeet_merged_bytes", "gauge", "Memory of merged copies.", (double)u.bytes);
    number(out, "lorikeet_merged_limit_bytes", "gauge", "Their budget.", (double)u.budget_bytes);
    number(out, "lorikeet_merged_built_total", "counter", "Copies made so far.", (double)u.n_built);
    number(out, "lorikeet_merged_failed_total", "counter", "Copies that could not be made.",
           (double)u.n_failed);
    number(out, "lorikeet_merged_dropped_total", "counter", "Copies given up.", (double)u.n_dropped);
}

/* Names with a shadow, or that had one: few. */
static void put_shadows(const struct server *s, struct buf *out)
{
    static const char *const names[] = {"lorikeet_shadow_tokens_total",
                                        "lorikeet_shadow_agreeing_tokens_total", "lorikeet_shadow_kl_sum"};
    static const char *const helps[] = {"Served tokens that a shadow has scored.",
                                        "Those for which the shadow's likeliest token was the same.",
                                        "KL(served || shadow) over them, nats."};
    for (int k = 0; k < 3; k++) {
        head(out, names[k], "counter", helps[k]);
        for (size_t i = 0; i < registry_count(s->registry); i++) {
            const struct adapter *a = registry_at(s->registry, i);
            for (uint32_t j = 0; j < a->n_records; j++) {
                const struct shadow_totals *t = &a->records[j].shadow;
                double v = k == 0 ? (double)t->n_tokens : k == 1 ? (double)t->n_agree : t->kl_sum;
                if (t->n_replies)
                    buf_printf(out, "%s{adapter=\"%s\",generation=\"%llu\"} %.17g\n", names[k], a->wish.name,
                               (unsigned long long)a->records[j].generation, v);
            }
        }
    }
}

/* Of thousands only those in memory: a scrape must stay small. */
static void put_adapters(const struct server *s, struct buf *out)
{
    put_residency(s, out);
    put_merges(s, out);
    put_choices(s, out);
    put_shadows(s, out);
    head(out, "lorikeet_adapter_bytes", "gauge", "Memory of each adapter's current version.");
    for (size_t i = 0; i < registry_count(s->registry); i++) {
        const struct adapter *a = registry_at(s->registry, i);
        const struct version_record *v = registry_record(a, a->stable);
        if (v && v->version)
            buf_printf(out, "lorikeet_adapter_bytes{adapter=\"%s\",generation=\"%llu\"} %llu\n", a->wish.name,
                       (unsigned long long)v->generation, (unsigned long long)v->size_bytes);
    }
    /* Resident adapters can all share a batch: none waits for a place. */
    head(out, "vllm:lora_requests_info", "gauge",
         "Adapters in memory, and being loaded; the value is the time.");
    buf_printf(out, "vllm:lora_requests_info{max_lora=\"%u\",running_lora_adapters=\"",
               s->conf->adapters_max);
    put_names(s, false, out);
    buf_puts(out, "\",waiting_lora_adapters=\"");
    put_names(s, true, out);
    buf_printf(out, "\"} %.3f\n", (double)clock_wall_ms() / 1000);
}

/* How long the way here was, and which way the weights took. */
static void put_start(const struct server *s, struct buf *out)
{
    static const char *const sources[] = {"packed", "mapped", "read"};
    const struct base_times *t = &s->base.times;
    number(out, "lorikeet_start_seconds", "gauge", "From the start until requests were taken.",
           (double)(s->ready_wall_ms - s->started_wall_ms) / 1e3);
    head(out, "lorikeet_start_part_seconds", "gauge",
         "Its parts; tokenizer and weights are loaded side by side. Weights are packed, or mapped or read as "
         "kept.");
    buf_printf(out, "lorikeet_start_part_seconds{part=\"files\"} %.3f\n", (double)t->files_ns / 1e9);
    buf_printf(out, "lorikeet_start_part_seconds{part=\"tokenizer\"} %.3f\n", (double)t->text_ns / 1e9);
    buf_printf(out, "lorikeet_start_part_seconds{part=\"weights\",weights=\"%s\"} %.3f\n",
               sources[model_info(s->base.model)->source], (double)t->weights_ns / 1e9);
}

void metrics_render(const struct server *s, struct buf *out)
{
    size_t n_connections = 0;
    for (size_t i = 0; i < s->n_listeners; i++)
        n_connections += http_n_connections(s->listeners[i]);
    head(out, "lorikeet_info", "gauge", "Version and base.");
    buf_printf(out, "lorikeet_info{version=\"%s\",base=\"%s\"} 1\n", LORIKEET_VERSION, s->base.name);
    number(out, "lorikeet_ready", "gauge", "1 while requests are taken.", s->state == SERVER_READY);
    if (s->state == SERVER_READY)
        put_start(s, out);
    number(out, "lorikeet_connections", "gauge", "Open connections.", (double)n_connections);
    put_requests(s->metrics, out);
    put_voice_numbers(s->metrics, out);
    put_histograms(s->metrics, out);
    if (s->engine)
        put_engine(s, out);
    put_adapters(s, out);
}
