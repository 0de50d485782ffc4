/* The queue of loads: each task goes through its phases, with workers for what reads files. A name has one
 * task at a time, so what is asked in order happens in order; names don't wait for each other beyond the
 * number of workers, of which requests for cold voices have one more than the rest. */
#include "adapter_ops_inner.h"

#include <string.h>
#include <sys/stat.h>

#include "admin_json.h"
#include "base/clock.h"
#include "base/mem.h"
#include "server.h"
#include "tenant_room.h"

#define FETCHING_MAX 4U /* downloads: they wait for others, and hold nobody up who needs none */
#define WORKING_MAX 2U  /* a load packs with one thread: more at once take the engine's cores */

/* ---- tasks */

struct task *ops_append(struct adapter_ops *o, enum task_kind kind)
{
    struct task *t = mem_zalloc(sizeof *t);
    if (!t)
        return NULL;
    t->ops = o;
    t->kind = kind;
    t->fetched.lease = -1;
    *o->last = t;
    o->last = &t->next;
    o->n_tasks++;
    return t;
}

static void free_task(struct task *t)
{
    adapter_release(t->version);
    ops_free_found(t->found);
    mem_free(t->name);
    mem_free(t->source);
    mem_free(t->blend);
    fetched_release(&t->fetched);
    mem_free(t);
}

void ops_remove_task(struct adapter_ops *o, struct task *t)
{
    struct task **at = &o->first;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    if (o->last == &t->next)
        o->last = at;
    o->n_tasks--;
    free_task(t);
}

static bool is_first_of_its_name(const struct adapter_ops *o, const struct task *t)
{
    for (const struct task *other = o->first; other != t; other = other->next)
        if (other->kind == t->kind &&
            (t->kind == TASK_SCAN || strcmp(other->o.wish.name, t->o.wish.name) == 0))
            return false;
    return true;
}

/* ---- the end of a load */

static void tell_waiters(struct task *t, const struct error *err)
{
    while (t->waiters) {
        struct load_waiter *w = t->waiters;
        t->waiters = w->next;
        w->ready(w, err);
    }
}

static void log_end(const struct task *t)
{
    const struct load_order *l = &t->o;
    const struct log *log = &t->ops->server->log;
    if (l->status != STATUS_OK) {
        bool refused = l->status == STATUS_LIMITED || l->status == STATUS_FORBIDDEN; /* its tenant's limit */
        LOG_EVENT(log, refused ? LOG_INFO : LOG_ERROR,
                  l->dry_run ? "adapter would not load" : "adapter not loaded",
                  LOG_TEXT("adapter", l->wish.name), LOG_TEXT("path", l->wish.source), LOG_TEXT("by", l->by),
                  LOG_TEXT("why", l->err.text));
    } else if (l->version && !l->dry_run) {
        const struct adapter_version *v = l->version;
        LOG_EVENT(log, LOG_INFO,
                  l->as == PUBLISH_AGAIN && !l->replaced ? "adapter in memory"
                  : l->unchanged                         ? "adapter unchanged"
                  : l->replaced                          ? "adapter replaced"
                                                         : "adapter loaded",
                  LOG_TEXT("adapter", l->wish.name), LOG_NUMBER("generation", l->generation_now),
                  LOG_TEXT("digest", v->digest_hex), LOG_NUMBER("rank", v->report.rank_max),
                  LOG_NUMBER("bytes", v->lora ? v->lora->size_bytes : 0), LOG_TEXT("by", l->by),
                  LOG_NUMBER("ms", (double)v->load_ns / 1e6));
    }
}

static void finish(struct task *t)
{
    struct adapter_ops *o = t->ops;
    struct server *s = o->server;
    struct load_order *l = &t->o;
    struct error err = l->err;
    bool start_failed = l->required && l->status != STATUS_OK && s->state == SERVER_LOADING;
    log_end(t);
    if (l->status != STATUS_OK && !l->dry_run && l->who[0] && t->phase != PHASE_KEEP)
        adapter_ops_keep(o, l->wish.name,
                         &(struct keep_note){.operation = "load", .by = l->who, .outcome = l->err.text}, NULL,
                         NULL);
    if (!l->dry_run)
        metrics_count_load(s->metrics, l->status == STATUS_OK ? NULL
                                       : l->code              ? l->code
                                                              : admin_code(l->status));
    t->phase = PHASE_KEEP; /* who asks again isn't to join this one */
    if (l->done)
        l->done(l, l->data);
    tell_waiters(t, l->status == STATUS_OK ? NULL : &err);
    if (start_failed)
        fail_within(&err, "--adapter %s", l->wish.name);
    ops_remove_task(o, t);
    if (start_failed)
        server_start_failed(s, &err);
    else
        ops_next(o);
}

/* Nothing was changed by it, and nothing is. */
static void give_up(struct task *t)
{
    struct registry *r = t->ops->server->registry;
    struct load_order *l = &t->o;
    struct adapter *a = registry_find(r, l->wish.name);
    if (t->reserved && a)
        registry_load_failed(r, a, &l->err, clock_wall_ms());
    t->reserved = false;
    if (t->registered && !l->wish.from_folder) {
        struct error ignored;
        if (registry_remove(r, l->wish.name, &ignored) != STATUS_OK)
            LOG_EVENT(&t->ops->server->log, LOG_ERROR, "a name without files stays",
                      LOG_TEXT("adapter", l->wish.name), LOG_TEXT("why", ignored.text));
    }
    finish(t);
}

/* For a reason that says nothing of the adapter. */
static void drop(struct task *t)
{
    struct registry *r = t->ops->server->registry;
    struct adapter *a = registry_find(r, t->o.wish.name);
    if (t->reserved && a)
        registry_load_dropped(r, a);
    t->reserved = false;
    finish(t);
}

static bool is_overtaken(struct task *t)
{
    bool is = ops_is_overtaken(t);
    if (is)
        finish(t);
    return is;
}

static void kept(enum status s, const struct error *err, void *data)
{
    struct task *t = data;
    if (s != STATUS_OK) {
        t->o.err = *err;
        t->o.code = "not_persisted";
        t->o.status = fail_within(&t->o.err, "in force, but a restart would forget it");
    }
    finish(t);
}

/* What the API asked for is on the disk before its answer leaves. Of other new versions the number is kept,
 * so that it means the same bytes in the next run; nobody waits for that. */
static void keep_then_finish(struct task *t)
{
    const struct load_order *l = &t->o;
    bool by_api = strcmp(l->by, "api") == 0, by_request = strcmp(l->by, "request") == 0;
    t->phase = PHASE_KEEP;
    if (!by_api && (l->created || l->replaced))
        adapter_ops_keep(t->ops, l->wish.name,
                         &(struct keep_note){.operation = by_request ? NULL : "load",
                                             .by = l->by,
                                             .generation = l->generation_now},
                         NULL, NULL);
    if (by_api && !t->o.dry_run)
        adapter_ops_keep(
            t->ops, t->o.wish.name,
            &(struct keep_note){.operation = "load", .by = t->o.who, .generation = t->o.generation_now}, kept,
            t);
    else
        finish(t);
}

/* Whose memory a load takes decides what may leave for it. A start that has others to load goes on with them.
 */
static enum room_rule room_rule_of(const struct task *t)
{
    bool loading = t->ops->server->state == SERVER_LOADING;
    bool by_start =
        strcmp(t->o.by, "start") == 0 ? !t->o.required : loading && strcmp(t->o.by, "folder") == 0;
    return strcmp(t->o.by, "request") == 0 ? ROOM_REQUEST : by_start ? ROOM_START : ROOM_OPERATOR;
}

static enum status take_tenants_room(struct task *t, uint64_t bytes)
{
    return tenant_room_take(t->ops->server, t->o.wish.name, bytes, room_rule_of(t), &t->o.err);
}

/* Its bytes go without a record of their size: whoever asks next is refused before they are read again. */
static void note_size(const struct task *t)
{
    struct adapter *a = registry_find(t->ops->server->registry, t->o.wish.name);
    if (a)
        registry_set_load_bytes(a, t->version->lora->size_bytes);
}

static void reserve(struct task *t);

static void loaded(void *data)
{
    struct task *t = data;
    struct load_order *l = &t->o;
    t->ops->n_working--;
    if (l->effect.outcome != EFFECT_UNTESTED)
        metrics_count_effect_test(t->ops->server->metrics);
    if (is_overtaken(t))
        return;
    if (l->status == STATUS_OK && t->ops->stopping)
        l->status = fail(&l->err, STATUS_UNAVAILABLE, "the server is going down");
    if (l->status == STATUS_OK && l->dry_run) {
        l->version = t->version;
        finish(t);
        return;
    }
    uint64_t reserved = t->bytes;
    if (l->status == STATUS_OK && t->version->lora->size_bytes > reserved) {
        l->status = take_tenants_room(t, t->version->lora->size_bytes);
        if (l->status != STATUS_OK) {
            note_size(t);
            drop(t);
            return;
        }
    }
    if (l->status == STATUS_OK)
        l->status = ops_publish(t);
    if (l->status == STATUS_OK)
        keep_then_finish(t);
    else if (l->status == STATUS_FULL && t->bytes > reserved)
        reserve(t); /* waits for as much as it takes, then reads it again */
    else
        give_up(t);
}

/* ---- workers */

static const char *code_of(enum adapter_fault fault)
{
    switch (fault) {
    case ADAPTER_FAULT_NONE:
    case ADAPTER_FAULT_BASE: /* its status says so */
        return NULL;
    case ADAPTER_FAULT_CHANGED:
        return "busy";
    case ADAPTER_FAULT_SHA256:
        return "sha256_differs";
    case ADAPTER_FAULT_NO_EFFECT:
        return "no_effect";
    case ADAPTER_FAULT_NON_FINITE:
        return "non_finite";
    }
    return NULL;
}

static enum adapter_fault read_files(struct task *t, const char *sha256, enum effect_mode effect)
{
    struct load_order *l = &t->o;
    struct adapter_findings findings = {0};
    const struct effect_probes *probes = NULL;
    if (effect != EFFECT_OFF)
        l->status = base_probes(&t->ops->server->base, &probes, &l->err);
    if (effect != EFFECT_OFF && l->status != STATUS_OK) {
        l->code = code_of(ADAPTER_FAULT_NONE);
        return ADAPTER_FAULT_NONE;
    }
    struct adapter_source source = {.name = l->wish.name,
                                    .path = t->path,
                                    .root_fd = t->root_fd,
                                    .scale = l->wish.scale,
                                    .expected_sha256 = sha256[0] ? sha256 : NULL,
                                    .store = t->ops->server->conf->store,
                                    .base_policy = t->ops->server->conf->base_policy,
                                    .base_name = t->ops->server->base.name,
                                    .effect = effect,
                                    .probes = probes,
                                    .findings = &findings};
    l->status = adapter_load(&source, t->ops->server->base.model, &t->version, &l->err);
    l->effect = findings.effect;
    l->code = code_of(findings.fault);
    return findings.fault;
}

/* Bytes that come back were tested when they were published: whoever waits for them doesn't wait for that
 * again. If others are in their place now, these are tested. */
static void run_load(void *data)
{
    struct task *t = data;
    enum adapter_fault fault = ADAPTER_FAULT_SHA256;
    if (t->published_sha256[0])
        fault = read_files(t, t->published_sha256, EFFECT_OFF);
    if (fault == ADAPTER_FAULT_SHA256)
        read_files(t, t->o.sha256, t->o.wish.effect);
}

static void begin_load(struct task *t)
{
    struct adapter_ops *o = t->ops;
    t->phase = PHASE_LOAD;
    o->n_working++;
    if (server_work(o->server, run_load, loaded, t))
        return;
    t->o.status = fail(&t->o.err, STATUS_NO_MEMORY, "no memory for a worker's task");
    loaded(t);
}

/* Takes the bytes of the budget, or waits for them. */
static void reserve(struct task *t)
{
    struct registry *r = t->ops->server->registry;
    struct load_order *l = &t->o;
    int64_t now = clock_now_ns();
    struct adapter *a = registry_find(r, l->wish.name);
    if (!a) {
        l->status = fail(&l->err, STATUS_CONFLICT, "adapter '%s' was removed meanwhile", l->wish.name);
        finish(t);
        return;
    }
    l->status = take_tenants_room(t, t->bytes);
    if (l->status != STATUS_OK) {
        drop(t);
        return;
    }
    l->status = registry_reserve(r, a, t->bytes, l->tenant, now, &l->err);
    if (l->status == STATUS_OK) {
        t->reserved = true;
        begin_load(t);
    } else if (l->status == STATUS_FULL && now < t->room_deadline_ns && !t->ops->stopping) {
        t->phase = PHASE_ROOM;
    } else {
        give_up(t);
    }
}

static void look(void *data)
{
    struct task *t = data;
    struct load_order *l = &t->o;
    struct adapter_stat st = {0};
    l->status = STATUS_OK;
    if (source_is_remote(l->wish.source)) {
        l->status = source_fetch(&t->ops->server->sources, l->wish.source, &t->fetched, &l->err);
        l->code = t->fetched.code;
        t->path = t->fetched.path;
    }
    if (l->status == STATUS_OK)
        l->status = adapter_stat(t->path, t->root_fd, &st, &l->err);
    t->file_bytes = st.file_bytes;
}

static bool is_download(const struct task *t)
{
    return t->kind == TASK_LOAD && source_is_remote(t->o.wish.source);
}

/* How many are at what this task is about to do, or is doing. */
static size_t *n_at(const struct task *t)
{
    return is_download(t) ? &t->ops->n_fetching : &t->ops->n_working;
}

static bool has_place(const struct task *t)
{
    return is_download(t) ? t->ops->n_fetching < FETCHING_MAX
                          : t->ops->n_working < WORKING_MAX + ops_is_for_request(t);
}

static void looked(void *data)
{
    struct task *t = data;
    struct registry *r = t->ops->server->registry;
    struct load_order *l = &t->o;
    --*n_at(t);
    if (is_overtaken(t))
        return;
    if (l->status != STATUS_OK) {
        give_up(t);
        return;
    }
    if (l->dry_run) {
        begin_load(t);
        return;
    }
    struct adapter *a = registry_find(r, l->wish.name);
    if (a)
        registry_set_file_bytes(a, t->file_bytes);
    t->bytes = a ? adapter_ops_bytes(a, l->generation) : t->file_bytes;
    reserve(t);
}

static void begin_look(struct task *t)
{
    struct adapter_ops *o = t->ops;
    t->phase = PHASE_LOOK;
    ++*n_at(t);
    if (server_work(o->server, look, looked, t))
        return;
    t->o.status = fail(&t->o.err, STATUS_NO_MEMORY, "no memory for a worker's task");
    looked(t);
}

/* ---- the queue */

/* A task whose turn has come. */
static void begin(struct task *t)
{
    struct adapter_ops *o = t->ops;
    struct registry *r = o->server->registry;
    struct load_order *l = &t->o;
    struct adapter *a = registry_find(r, l->wish.name);
    const struct version_record *v = a ? registry_record(a, l->generation ? l->generation : a->stable) : NULL;
    t->room_deadline_ns = clock_now_ns() + o->server->conf->load_wait_ms * NS_PER_MS;
    l->status = ops_check_revision(t, a, &l->err);
    if (l->status == STATUS_OK && l->as == PUBLISH_AGAIN && v && v->version) { /* somebody was faster */
        finish(t);
        return;
    }
    if (l->as == PUBLISH_AGAIN && v && v->scale == l->wish.scale && !l->sha256[0])
        memcpy(t->published_sha256, v->digest_hex, sizeof t->published_sha256);
    if (l->status == STATUS_OK && !a && (l->as == PUBLISH_AGAIN || l->must_be_same))
        l->status = fail(&l->err, STATUS_NOT_FOUND, "adapter '%s' was removed meanwhile", l->wish.name);
    if (l->status == STATUS_OK && !a && !l->dry_run) {
        l->status = registry_register(r, &l->wish, &a, &l->err);
        t->registered = l->status == STATUS_OK;
    }
    t->root_fd = -1;
    t->path = l->wish.source;
    if (l->status == STATUS_OK && !source_is_remote(l->wish.source) && !ops_is_own_source(o, &l->wish))
        l->status = adapter_roots_find(o->roots, l->wish.source, &t->root_fd, &t->path, &l->err);
    if (l->status != STATUS_OK)
        give_up(t);
    else
        begin_look(t);
}

static void scan_done(void *data)
{
    struct task *t = data;
    struct adapter_ops *o = t->ops;
    o->n_working--;
    ops_scanned(t);
    ops_remove_task(o, t);
    ops_next(o);
}

static void run_scan(void *data)
{
    ops_run_scan(data);
}

static void begin_scan(struct task *t)
{
    struct adapter_ops *o = t->ops;
    t->phase = PHASE_LOOK;
    o->n_working++;
    if (server_work(o->server, run_scan, scan_done, t))
        return;
    t->o.status = fail(&t->o.err, STATUS_NO_MEMORY, "no memory for a worker's task");
    scan_done(t);
}

static struct task *whose_turn(struct adapter_ops *o)
{
    for (struct task *t = o->first; t; t = t->next)
        if (t->phase == PHASE_QUEUED && has_place(t) && is_first_of_its_name(o, t))
            return t;
    return NULL;
}

/* Those who wait for room, again. What ends here may wake requests, which may only add tasks. */
static void try_room(struct adapter_ops *o)
{
    for (struct task *t = o->first, *next; t; t = next) {
        next = t->next;
        if (t->phase == PHASE_ROOM)
            reserve(t);
    }
}

static void on_kick(uv_timer_t *kick)
{
    struct adapter_ops *o = kick->data;
    struct task *t;
    try_room(o);
    while ((t = whose_turn(o)) != NULL) {
        if (t->kind == TASK_SCAN)
            begin_scan(t);
        else
            begin(t);
    }
    if (!o->first)
        server_adapters_loaded(o->server);
}

/* In the loop's next turn: whoever asks is through with what it does by then. */
void ops_next(struct adapter_ops *o)
{
    if (!uv_is_closing((uv_handle_t *)&o->kick))
        uv_timer_start(&o->kick, on_kick, 0, 0);
}

static bool waits_for_room(const struct adapter_ops *o)
{
    for (const struct task *t = o->first; t; t = t->next)
        if (t->phase == PHASE_ROOM)
            return true;
    return false;
}

void adapter_ops_room(struct adapter_ops *o)
{
    if (waits_for_room(o))
        ops_next(o);
}

void adapter_ops_tick(struct adapter_ops *o, int64_t now_ns)
{
    registry_sweep(o->server->registry, now_ns);
    try_room(o);
    ops_keeper_tick(o);
}

struct task *ops_append_order(struct adapter_ops *o, const struct load_order *order, struct error *err)
{
    struct task *t = ops_append(o, TASK_LOAD);
    if (!t) {
        fail(err, STATUS_NO_MEMORY, "no memory to load an adapter");
        return NULL;
    }
    t->name = mem_strdup(order->wish.name);
    t->source = mem_strdup(order->wish.source);
    t->blend = mem_strdup(order->wish.blend);
    t->o = *order;
    t->o.status = STATUS_OK;
    t->o.wish.name = t->name;
    t->o.wish.source = t->source;
    t->o.wish.blend = t->blend;
    const struct adapter *a = registry_find(o->server->registry, order->wish.name);
    t->before = a ? a->wish : order->wish;
    if (t->name && t->source && t->blend)
        return t;
    ops_remove_task(o, t);
    fail(err, STATUS_NO_MEMORY, "no memory to load an adapter");
    return NULL;
}

enum status adapter_ops_load(struct adapter_ops *o, const struct load_order *order, struct error *err)
{
    bool own = strcmp(order->by, "start") == 0 || strcmp(order->by, "folder") == 0;
    if (o->stopping)
        return fail(err, STATUS_UNAVAILABLE, "the server is going down");
    if (!own && o->n_tasks >= o->server->conf->adapter_jobs_max)
        return fail(err, STATUS_FULL, "%zu adapters wait to be loaded already; try again later", o->n_tasks);
    struct task *t = ops_append_order(o, order, err);
    if (!t)
        return STATUS_NO_MEMORY;
    ops_next(o);
    return STATUS_OK;
}

/* ---- life */

enum status adapter_ops_create(struct server *s, struct adapter_ops **out, struct error *err)
{
    struct adapter_ops *o = mem_zalloc(sizeof *o);
    *out = o;
    if (!o)
        return fail(err, STATUS_NO_MEMORY, "no memory to load adapters");
    o->server = s;
    o->last = &o->first;
    uv_timer_init(&s->loop, &o->kick);
    o->kick.data = o;
    enum status st = adapter_roots_open(s->conf, &o->roots, err);
    return st == STATUS_OK ? ops_keeper_open(o, err) : st;
}

void adapter_ops_close(struct adapter_ops *o)
{
    if (o)
        uv_close((uv_handle_t *)&o->kick, NULL);
}

void adapter_ops_destroy(struct adapter_ops *o)
{
    if (!o)
        return;
    while (o->first)
        ops_remove_task(o, o->first);
    ops_free_found(o->folder);
    ops_keeper_close(o);
    adapter_roots_close(o->roots);
    mem_free(o);
}

void adapter_ops_stop(struct adapter_ops *o)
{
    if (!o)
        return;
    o->stopping = true;
    for (struct task *t = o->first, *next; t; t = next) {
        next = t->next;
        if (t->phase != PHASE_QUEUED && t->phase != PHASE_ROOM)
            continue;
        t->o.status = fail(&t->o.err, STATUS_UNAVAILABLE, "the server is going down");
        if (t->o.done)
            t->o.done(&t->o, t->o.data);
        tell_waiters(t, &t->o.err);
        ops_remove_task(o, t);
    }
}

bool adapter_ops_busy(const struct adapter_ops *o)
{
    return o->first || ops_is_keeping(o);
}

enum status adapter_ops_check_source(const struct adapter_ops *o, const char *source, const char **code,
                                     struct error *err)
{
    int root_fd;
    const char *relative;
    *code = NULL;
    if (source_is_remote(source))
        return source_validate(&o->server->sources, source, code, err);
    return adapter_roots_find(o->roots, source, &root_fd, &relative, err);
}
