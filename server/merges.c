/* The wish `merge` of each name, made true: the stable, resident version of a name that wants it gets a copy
 * of the base with itself inside, as long as the budget lasts. "always" goes before "auto", then the more
 * recently used. A copy goes when its version is no longer the stable resident one, when the wish ends, or
 * when one with a better claim needs the room; sequences then go on unmerged.
 *
 * A copy keeps its adapter's matrices alive, so it is dropped first when its version leaves memory. */
#include "merges.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

#include "admin_json.h"
#include "base/clock.h"
#include "base/mem.h"
#include "server.h"

#define BUILDER_NICE 10

enum copy_state { COPY_WAITING, COPY_BUILDING, COPY_READY, COPY_DECLINED, COPY_FAILED, COPY_LEAVING };
static const char *const state_names[] = {"waiting", "building", "ready", "declined", "failed", "leaving"};

#define RECONSIDER_NS (10 * NS_PER_S) /* traffic has changed by then */

struct copy {
    struct copy *next;
    struct merges *merges;
    char name[ADAPTER_NAME_MAX + 1];
    uint64_t generation;
    enum copy_state state;
    enum merge_mode mode;
    bool wanted;       /* by the look that is being made */
    int64_t used_ns;   /* its version's */
    struct lora *lora; /* a reference, until it is built */
    uint8_t digest[32];
    struct merged_copy *merged;
    uint64_t size_bytes;
    const struct cost_model *costs; /* the base's, once they were needed */
    struct cost_load load;          /* its traffic, as the choice saw it */
    struct cost_choice choice;      /* the last one */
    /* The worker's while it builds, when the wish may change and the choice be shown. */
    enum merge_mode build_mode;
    struct cost_choice build_choice;
    int64_t declined_ns; /* auto: a copy would not pay */
    struct error err;
};

struct merges {
    struct server *server;
    struct copy *copies;
    bool working;   /* a worker builds or frees one */
    uint64_t bytes; /* of those that have a copy */
    uint64_t n_built, n_failed, n_dropped;
    uv_timer_t soon;
};

static void look(struct merges *m);

/* ---- building, in a thread of its own that may be nice */

/* The fastest faithful type, for "always" even where the copy costs more than it saves. */
static enum status build_copy(struct copy *c)
{
    const struct server *s = c->merges->server;
    unsigned refused = 0;
    if (s->conf->always)
        return fail(&c->err, STATUS_UNSUPPORTED,
                    "--always adds \"%s\" to every voice, and a copy has one adapter alone", s->conf->always);
    enum status measured = base_costs(&s->base, s->conf->n_threads, &c->costs, &c->err);
    if (measured != STATUS_OK)
        return measured;
    for (;;) {
        cost_choose(c->costs, s->base.model, c->lora, &c->load, refused, &c->build_choice);
        if (c->build_choice.none)
            return fail(
                &c->err, STATUS_UNSUPPORTED,
                "no faithful copy: storing the sum rounds away more than %.0f %% of what the adapter adds",
                MERGE_ERROR_MAX * 100);
        if (c->build_mode == MERGE_AUTO && !c->build_choice.merge)
            return STATUS_OK; /* declined: no copy */
        enum status st =
            merged_copy_create(s->base.model, c->lora, c->build_choice.type, NULL, &c->merged, &c->err);
        if (st != STATUS_OK)
            return st;
        const struct merge_report *report = model_merge_report(merged_copy_model(c->merged));
        if (cost_is_faithful(report))
            return STATUS_OK;
        refused |= 1U << c->build_choice.type;
        merged_copy_release(c->merged);
        c->merged = NULL;
    }
}

static void *build(void *data)
{
    struct copy *c = data;
    setpriority(PRIO_PROCESS, 0, BUILDER_NICE); /* of this thread alone, on Linux */
    c->err.status = build_copy(c);
    return NULL;
}

static void run_build(void *data)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, build, data) == 0)
        pthread_join(thread, NULL);
    else
        build(data);
}

/* ---- on the front thread */

static void built(void *data)
{
    struct copy *c = data;
    struct merges *m = c->merges;
    const struct log *log = &m->server->log;
    struct error err;
    m->working = false;
    c->choice = c->build_choice;
    if (c->err.status == STATUS_OK && !c->merged) {
        c->state = COPY_DECLINED;
        c->declined_ns = clock_now_ns();
        look(m);
        return;
    }
    lora_release(c->lora);
    c->lora = NULL;
    if (c->err.status == STATUS_OK && !m->server->engine)
        c->err.status = fail(&c->err, STATUS_UNAVAILABLE, "the server is going down");
    if (c->err.status == STATUS_OK) {
        enum merged_use use = c->mode == MERGE_ALWAYS ? MERGED_ALWAYS : MERGED_AUTO;
        c->size_bytes = model_info(merged_copy_model(c->merged))->size_bytes;
        m->bytes += c->size_bytes;
        engine_set_costs(m->server->engine, c->costs);
        c->err.status = engine_set_merged(m->server->engine, c->merged, use, &err);
        if (c->err.status != STATUS_OK)
            c->err = err;
    }
    c->state = c->err.status == STATUS_OK ? COPY_READY : COPY_FAILED;
    if (c->state == COPY_READY) {
        m->n_built++;
        LOG_EVENT(log, LOG_INFO, "adapter merged", LOG_TEXT("adapter", c->name),
                  LOG_NUMBER("generation", c->generation), LOG_NUMBER("bytes", c->size_bytes));
    } else {
        m->n_failed++;
        LOG_EVENT(log, LOG_WARN, "adapter not merged: it goes on unmerged", LOG_TEXT("adapter", c->name),
                  LOG_TEXT("why", c->err.text));
    }
    look(m);
}

static void freed(void *data)
{
    struct copy *c = data;
    struct merges *m = c->merges;
    m->working = false;
    mem_free(c);
    look(m);
}

static void run_free(void *data)
{
    struct copy *c = data;
    merged_copy_release(c->merged);
}

/* From now on nobody begins a step on it. */
static void leave(struct merges *m, struct copy *c)
{
    if (c->state == COPY_READY && m->server->engine)
        engine_drop_merged(m->server->engine, c->digest);
    m->n_dropped += c->state == COPY_READY;
    c->state = COPY_LEAVING;
}

static void unlink_copy(struct merges *m, struct copy *c)
{
    struct copy **at = &m->copies;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

/* Frees one that the engine has let go of, on a worker: it takes milliseconds. */
static void free_one(struct merges *m)
{
    for (struct copy *c = m->copies; c && !m->working; c = c->next) {
        if (c->state != COPY_LEAVING || (c->merged && merged_copy_refs(c->merged) > 1))
            continue;
        unlink_copy(m, c);
        lora_release(c->lora);
        m->bytes -= c->merged ? c->size_bytes : 0;
        if (!c->merged) {
            mem_free(c);
            return;
        }
        m->working = true;
        if (!server_work(m->server, run_free, freed, c)) {
            run_free(c);
            freed(c);
        }
        return;
    }
}

static struct copy *find(struct merges *m, const char *name, uint64_t generation)
{
    for (struct copy *c = m->copies; c; c = c->next)
        if (c->state != COPY_LEAVING && c->generation == generation && strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static void want(struct merges *m, const struct adapter *a, const struct version_record *v)
{
    struct copy *c = find(m, a->wish.name, v->generation);
    if (!c) {
        c = mem_zalloc(sizeof *c);
        if (!c)
            return; /* the next look tries again */
        *c = (struct copy){.merges = m, .generation = v->generation, .next = m->copies};
        snprintf(c->name, sizeof c->name, "%s", a->wish.name);
        memcpy(c->digest, v->version->lora->digest, sizeof c->digest);
        c->lora = lora_acquire(v->version->lora);
        m->copies = c;
    }
    bool again = c->build_mode != a->wish.merge || clock_now_ns() - c->declined_ns > RECONSIDER_NS;
    if (c->state == COPY_DECLINED && again)
        c->state = COPY_WAITING;
    if (c->state == COPY_READY && c->mode != a->wish.merge) { /* the engine must hear of it */
        struct error ignored;
        if (engine_set_merged(m->server->engine, c->merged,
                              a->wish.merge == MERGE_ALWAYS ? MERGED_ALWAYS : MERGED_AUTO,
                              &ignored) != STATUS_OK)
            return;
    }
    c->mode = a->wish.merge;
    c->used_ns = v->used_ns;
    c->wanted = true;
}

static bool has_better_claim(const struct copy *a, const struct copy *b)
{
    return a->mode != b->mode ? a->mode == MERGE_ALWAYS : a->used_ns > b->used_ns;
}

/* Room for one more like the base: what has a worse claim goes. */
static bool make_room(struct merges *m, const struct copy *wanted)
{
    uint64_t budget = m->server->conf->merge_bytes;
    uint64_t need = model_info(m->server->base.model)->size_bytes; /* at most about this */
    if (budget == 0 || m->bytes + need <= budget)
        return true;
    struct copy *worst = NULL;
    bool leaving = false;
    for (struct copy *c = m->copies; c; c = c->next) {
        leaving |= c->state == COPY_LEAVING && c->merged;
        if (c->state == COPY_READY && has_better_claim(wanted, c) && (!worst || has_better_claim(worst, c)))
            worst = c;
    }
    if (worst && !leaving)
        leave(m, worst);
    return false;
}

static void build_one(struct merges *m)
{
    struct copy *best = NULL;
    for (struct copy *c = m->copies; c; c = c->next)
        if (c->state == COPY_WAITING && (!best || has_better_claim(c, best)))
            best = c;
    if (!best || m->working || m->server->state != SERVER_READY || !make_room(m, best))
        return;
    best->state = COPY_BUILDING;
    best->build_mode = best->mode;
    best->build_choice = best->choice;
    best->load = engine_traffic(m->server->engine, best->digest);
    m->working = true;
    if (server_work(m->server, run_build, built, best))
        return;
    best->state = COPY_WAITING;
    m->working = false;
}

static void look(struct merges *m)
{
    const struct registry *r = m->server->registry;
    for (struct copy *c = m->copies; c; c = c->next)
        c->wanted = false;
    for (size_t i = 0; i < registry_count(r); i++) {
        const struct adapter *a = registry_at(r, i);
        const struct version_record *v = a->wish.merge == MERGE_NEVER ? NULL : registry_record(a, a->stable);
        if (v && v->version && v->version->lora)
            want(m, a, v);
    }
    for (struct copy *c = m->copies; c; c = c->next)
        if (!c->wanted && c->state != COPY_LEAVING && c->state != COPY_BUILDING)
            leave(m, c);
    free_one(m);
    build_one(m);
}

static void on_soon(uv_timer_t *soon)
{
    look(soon->data);
}

void merges_notify(struct merges *m)
{
    if (!uv_is_closing((uv_handle_t *)&m->soon))
        uv_timer_start(&m->soon, on_soon, 0, 0);
}

void merges_tick(struct merges *m)
{
    if (m->copies)
        look(m);
}

/* ---- what is shown */

void merges_put(struct jw *w, const struct merges *m, const struct adapter *a)
{
    const struct copy *c = m->copies;
    while (c &&
           (c->state == COPY_LEAVING || c->generation != a->stable || strcmp(c->name, a->wish.name) != 0))
        c = c->next;
    if (!c) {
        jw_null(w);
        return;
    }
    jw_begin(w, '{');
    jw_key_text(w, "state", state_names[c->state]);
    jw_key_int(w, "bytes", (int64_t)c->size_bytes);
    if (c->choice.unmerged_ns > 0) {
        jw_key_float(w, "share", c->load.share);
        jw_key_float(w, "rows", c->load.n_rows);
        jw_key_float(w, "ratio", c->choice.ratio);
        jw_key_float(w, "gain", c->choice.gain);
    }
    if (c->state == COPY_READY) {
        const struct merge_report *report = model_merge_report(merged_copy_model(c->merged));
        jw_key_text(w, "type", dtype_name(merged_copy_type(c->merged)));
        jw_key_float(w, "error", report->delta_norm > 0 ? report->error_norm / report->delta_norm : 0);
    }
    if (c->state == COPY_FAILED)
        jw_key_text(w, "why", c->err.text);
    jw_end(w, '}');
}

void merges_each(const struct merges *m, void (*each)(const struct merge_shown *c, void *data), void *data)
{
    for (const struct copy *c = m->copies; c; c = c->next) {
        if (c->state != COPY_READY && c->state != COPY_DECLINED)
            continue;
        const struct merge_report *r = c->merged ? model_merge_report(merged_copy_model(c->merged)) : NULL;
        const struct merge_shown shown = {.name = c->name,
                                          .is_ready = c->state == COPY_READY,
                                          .bytes = c->size_bytes,
                                          .ratio = c->choice.ratio,
                                          .gain = c->choice.gain,
                                          .error =
                                              r && r->delta_norm > 0 ? r->error_norm / r->delta_norm : 0};
        each(&shown, data);
    }
}

void merges_usage(const struct merges *m, struct merges_usage *out)
{
    *out = (struct merges_usage){.bytes = m->bytes,
                                 .budget_bytes = m->server->conf->merge_bytes,
                                 .n_built = m->n_built,
                                 .n_failed = m->n_failed,
                                 .n_dropped = m->n_dropped};
    for (const struct copy *c = m->copies; c; c = c->next) {
        out->n_ready += c->state == COPY_READY;
        out->n_waiting += c->state == COPY_WAITING || c->state == COPY_BUILDING;
    }
}

/* ---- life */

struct merges *merges_create(struct server *s)
{
    struct merges *m = mem_zalloc(sizeof *m);
    if (!m)
        return NULL;
    m->server = s;
    uv_timer_init(&s->loop, &m->soon);
    m->soon.data = m;
    return m;
}

void merges_close(struct merges *m)
{
    if (m)
        uv_close((uv_handle_t *)&m->soon, NULL);
}

bool merges_busy(const struct merges *m)
{
    return m->working;
}

void merges_destroy(struct merges *m)
{
    if (!m)
        return;
    while (m->copies) {
        struct copy *c = m->copies;
        m->copies = c->next;
        lora_release(c->lora);
        merged_copy_release(c->merged);
        mem_free(c);
    }
    mem_free(m);
}
