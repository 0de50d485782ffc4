/* The loop, signals, and the order of start and end.
 *
 *   start: listen, then a worker opens the base while probes are answered; then the adapters; then requests.
 *   end:   SIGTERM or SIGINT → draining (not ready, running requests finish, a deadline) → stopping (what is
 * left is cancelled) → the engine's thread, the listeners, the loop. A second signal skips the draining. */
#include "server.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "adapter_ops.h"
#include "admin_events.h"
#include "api_grammar.h"
#include "auto.h"
#include "base/clock.h"
#include "base/mem.h"
#include "bridge.h"
#include "completion.h"
#include "language.h"
#include "merges.h"
#include "response_store.h"
#include "router.h"
#include "settle.h"
#include "tenant_keeper.h"
#include "tenants.h"
#include "tls.h"
#include "voices.h"
#include "watch.h"

#define TICK_MS 1000
#define END_TICK_MS 20
#define FLUSH_NS (500 * NS_PER_MS)   /* for last answers to leave after everything has ended */
#define END_LIMIT_NS (20 * NS_PER_S) /* an end that takes longer is forced */

/* ---- workers */

struct work {
    uv_work_t request;
    void (*work)(void *data);
    void (*done)(void *data);
    void *data;
};

static void on_work(uv_work_t *request)
{
    struct work *w = request->data;
    w->work(w->data);
}

static void on_worked(uv_work_t *request, int status)
{
    (void)status; /* nothing is ever cancelled */
    struct work *w = request->data;
    void (*done)(void *data) = w->done;
    void *data = w->data;
    mem_free(w);
    done(data);
}

bool server_work(struct server *s, void (*work)(void *data), void (*done)(void *data), void *data)
{
    struct work *w = mem_zalloc(sizeof *w);
    if (!w)
        return false;
    *w = (struct work){.work = work, .done = done, .data = data};
    w->request.data = w;
    if (uv_queue_work(&s->loop, &w->request, on_work, on_worked) == 0)
        return true;
    mem_free(w);
    return false;
}

enum status server_serving(const struct server *s, struct error *err)
{
    if (s->state == SERVER_READY)
        return STATUS_OK;
    return fail(err, STATUS_UNAVAILABLE, "%s",
                s->state == SERVER_LOADING ? "the model is being loaded; try again in a moment"
                                           : "the server is going down; ask another one");
}

/* ---- the end */

static void on_tick(uv_timer_t *t);

static size_t n_requests(const struct server *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_listeners; i++)
        n += http_n_requests(s->listeners[i]);
    return n;
}

static void remove_sockets(const struct server *s)
{
    const struct conf *c = s->conf;
    for (size_t i = 0; i < c->n_listen + c->n_admin_listen; i++) {
        const char *address = i < c->n_listen ? c->listen[i] : c->admin_listen[i - c->n_listen];
        if (i < s->n_listeners && strncmp(address, "unix:", 5) == 0)
            unlink(address + 5);
    }
}

static void close_all(struct server *s)
{
    engine_destroy(s->engine);
    s->engine = NULL;
    admin_events_close(s->events);
    for (size_t i = 0; i < s->n_listeners; i++)
        http_close(s->listeners[i]);
    remove_sockets(s);
    s->n_listeners = 0;
    bridge_close(s->bridge);
    adapter_ops_close(s->adapter_ops);
    merges_close(s->merges);
    watch_close(s->watch);
    uv_close((uv_handle_t *)&s->sigterm, NULL);
    uv_close((uv_handle_t *)&s->sigint, NULL);
    uv_close((uv_handle_t *)&s->sighup, NULL);
    uv_close((uv_handle_t *)&s->second, NULL);
}

static void stop(struct server *s)
{
    if (s->state == SERVER_STOPPING)
        return;
    s->state = SERVER_STOPPING;
    s->drain_deadline_ns = clock_now_ns();
    for (struct completion *c = s->completions, *next; c; c = next) {
        next = c->next;
        completion_cancel(c);
    }
    atomic_store(&s->sources_end, true);
    atomic_store(&s->settle_stop, true);
    adapter_ops_stop(s->adapter_ops);
    uv_timer_start(&s->second, on_tick, 0, END_TICK_MS);
}

static void drain(struct server *s)
{
    s->state = SERVER_DRAINING;
    s->drain_deadline_ns = clock_now_ns() + s->conf->drain_timeout_ms * NS_PER_MS;
    for (size_t i = 0; i < s->n_listeners; i++)
        http_set_closing(s->listeners[i]);
    admin_events_end(s->events);
    LOG_EVENT(&s->log, LOG_INFO, "draining", LOG_NUMBER("requests", n_requests(s)),
              LOG_NUMBER("deadline_ms", s->conf->drain_timeout_ms));
    uv_timer_start(&s->second, on_tick, 0, END_TICK_MS);
}

/* One look at how far the end is. */
static void tick_stopping(struct server *s, int64_t now)
{
    if (now - s->drain_deadline_ns > END_LIMIT_NS) {
        log_line(&s->log, LOG_ERROR, "the end takes too long; leaving at once");
        remove_sockets(s);
        _exit(1);
    }
    bool busy = bridge_n_open(s->bridge) || s->completions || adapter_ops_busy(s->adapter_ops) ||
                merges_busy(s->merges) || tenant_keeper_busy(s->tenant_keeper) || s->settling;
    bool flushing = n_requests(s) && now - s->drain_deadline_ns < FLUSH_NS;
    if (busy || flushing)
        return;
    uv_timer_stop(&s->second);
    log_line(&s->log, LOG_INFO, "stopped");
    close_all(s);
}

static void on_tick(uv_timer_t *t)
{
    struct server *s = t->data;
    int64_t now = clock_now_ns();
    for (struct completion *c = s->completions, *next; c; c = next) {
        next = c->next;
        completion_tick(c, now);
    }
    adapter_ops_tick(s->adapter_ops, now);
    admin_events_tick(s->events, now);
    tenant_keeper_tick(s->tenant_keeper, now, s->state == SERVER_STOPPING);
    merges_tick(s->merges);
    if (s->state == SERVER_DRAINING) {
        bool idle = n_requests(s) == 0 && !s->completions;
        if (!idle && now >= s->drain_deadline_ns)
            LOG_EVENT(&s->log, LOG_WARN, "drain deadline: cancelling", LOG_NUMBER("requests", n_requests(s)));
        if (idle || now >= s->drain_deadline_ns)
            stop(s);
    }
    if (s->state == SERVER_STOPPING)
        tick_stopping(s, now);
}

static void on_terminate(uv_signal_t *signal, int number)
{
    struct server *s = signal->data;
    (void)number;
    if (s->state == SERVER_LOADING) {
        /* A worker is deep in a load that can't be interrupted, and nobody is served yet. */
        log_line(&s->log, LOG_INFO, "stopped while loading");
        remove_sockets(s);
        _exit(s->exit_code);
    }
    if (s->state == SERVER_READY)
        drain(s);
    else
        stop(s);
}

static void on_hangup(uv_signal_t *signal, int number)
{
    struct server *s = signal->data;
    (void)number;
    tenant_keeper_reload(s->tenant_keeper);
    tls_reload(s);
    if (s->state != SERVER_READY)
        return;
    log_line(&s->log, LOG_INFO, "SIGHUP: looking at the adapters folder");
    adapter_ops_scan(s->adapter_ops);
}

/* ---- the start */

void server_start_failed(struct server *s, const struct error *err)
{
    log_line(&s->log, LOG_ERROR, "can't start: %s", err->text);
    s->exit_code = 1;
    stop(s);
}

static void log_ready(const struct server *s)
{
    static const char *const sources[] = {"packed", "mapped", "read"};
    const struct model_info *info = model_info(s->base.model);
    const struct base_times *t = &s->base.times;
    char text[256];
    const char *prefetch = model_prefetch_text(s->base.model, text, sizeof text);
    if (info->not_mapped[0])
        LOG_EVENT(&s->log, LOG_INFO, "weights were packed anew", LOG_TEXT("why", info->not_mapped));
    LOG_EVENT(&s->log, LOG_INFO, "ready", LOG_TEXT("base", s->base.name), LOG_TEXT("family", info->family),
              LOG_NUMBER("parameters", info->n_parameters), LOG_NUMBER("bytes", info->size_bytes),
              LOG_NUMBER("context", s->context), LOG_NUMBER("adapters", registry_count(s->registry)),
              LOG_TEXT("isa", s->base.kernels->isa), LOG_TEXT("prefetch", prefetch),
              LOG_TEXT("weights", sources[info->source]), LOG_NUMBER("files_ms", (double)t->files_ns / 1e6),
              LOG_NUMBER("tokenizer_ms", (double)t->text_ns / 1e6),
              LOG_NUMBER("weights_ms", (double)t->weights_ns / 1e6),
              LOG_NUMBER("ms", s->ready_wall_ms - s->started_wall_ms));
}

void server_adapters_loaded(struct server *s)
{
    struct error err;
    if (s->state != SERVER_LOADING)
        return;
    if (voices_start(s, &err) != STATUS_OK || auto_start(s, &s->languages, &err) != STATUS_OK) {
        server_start_failed(s, &err);
        return;
    }
    s->state = SERVER_READY;
    s->ready_wall_ms = clock_wall_ms();
    if (!adapter_ops_keeps(s->adapter_ops) && s->conf->n_admin_listen)
        log_line(&s->log, LOG_INFO, "what operators change is forgotten at the end: --state FILE keeps it");
    log_ready(s);
    settle_begin(s);
}

/* What a worker brings back from the start. */
struct start {
    struct server *server;
    struct base base;
    struct engine *engine;
    enum status status;
    struct error err;
};

/* Thread: one of the engine's. */
static void threads_changed(void *data, const struct engine_threads *now)
{
    const struct log *log = data;
    LOG_EVENT(log, LOG_INFO, "threads of a step", LOG_NUMBER("threads", now->n), LOG_NUMBER("of", now->n_max),
              LOG_TEXT("limited_by", thread_limit_name(now->limit)),
              LOG_TEXT("pinned", now->pinned ? "true" : "false"));
}

static void load_base(void *data)
{
    struct start *st = data;
    const struct conf *c = st->server->conf;
    struct error ignored; /* a fetch says it again */
    if (c->n_source_allow && sources_sweep(&st->server->sources, &ignored) != STATUS_OK)
        log_line(&st->server->log, LOG_WARN, "%s", ignored.text);
    st->status = base_open(c, &st->base, &st->err);
    if (st->status != STATUS_OK)
        return;
    struct engine_options o = {.n_sequences = c->n_sequences,
                               .queue_limit = c->queue_limit,
                               .context = c->context,
                               .kv_bytes = c->kv_bytes,
                               .kv_type = c->kv_type,
                               .prefix_cache_off = strcmp(c->prefix_cache, "off") == 0,
                               .step_tokens = c->step_tokens,
                               .chunk_tokens = c->chunk_tokens,
                               .n_threads = c->n_threads,
                               .wait_bound_ns = c->wait_bound_ms * NS_PER_MS,
                               .on_threads = threads_changed,
                               .on_threads_data = &st->server->log,
                               .speculation =
                                   strcmp(c->speculate, "off") == 0 ? SPECULATION_OFF : SPECULATION_AUTO};
    st->status = engine_create(st->base.model, st->base.text, &o, bridge_wake, st->server->bridge,
                               &st->engine, &st->err);
}

static void on_folder_changed(void *data)
{
    struct server *s = data;
    if (s->state == SERVER_LOADING || s->state == SERVER_READY)
        adapter_ops_scan(s->adapter_ops);
}

/* Before the first scan, so that nothing that changes meanwhile is missed. */
static enum status watch_folder(struct server *s, struct error *err)
{
    const struct conf *c = s->conf;
    const struct watch_options o = {.dir = c->adapters_dir,
                                    .log = &s->log,
                                    .poll_ms = c->adapters_poll_ms,
                                    .on_change = on_folder_changed,
                                    .data = s};
    if (!c->adapters_dir || !c->adapters_watch)
        return STATUS_OK;
    return watch_create(&s->loop, &o, &s->watch, err);
}

static void base_loaded(void *data)
{
    struct start *st = data;
    struct server *s = st->server;
    struct error err = st->err;
    enum status status = st->status;
    s->base = st->base;
    s->engine = st->engine;
    mem_free(st);
    if (s->engine) {
        struct engine_stats stats;
        engine_stats(s->engine, &stats);
        s->context = stats.context;
    }
    if (status == STATUS_OK)
        status = watch_folder(s, &err);
    if (status == STATUS_OK)
        status = adapter_ops_start(s->adapter_ops, &err);
    if (status != STATUS_OK) {
        server_start_failed(s, &err);
        return;
    }
    if (!adapter_ops_busy(s->adapter_ops))
        server_adapters_loaded(s);
}

static void on_request_finished(struct request *r)
{
    struct server *s = r->server;
    metrics_count_http(s->metrics, r->status);
    LOG_EVENT(&s->log, LOG_DEBUG, "request", LOG_TEXT("request", r->id), LOG_TEXT("method", r->method),
              LOG_TEXT("path", r->path), LOG_NUMBER("status", r->status),
              LOG_NUMBER("ms", (double)(clock_now_ns() - r->started_ns) / 1e6));
}

/* A socket in the file system needs no TLS. */
static enum status open_listener(struct server *s, const char *address, enum plane plane,
                                 const struct tls_files *tls, struct error *err)
{
    bool secure = tls->cert.length && strncmp(address, "unix:", 5) != 0;
    const struct conf *c = s->conf;
    struct http_options o = {.plane = plane,
                             .server = s,
                             .log = &s->log,
                             .handle = router_dispatch,
                             .finished = on_request_finished,
                             .form_of = router_error_form,
                             .trusted = &c->trusted_proxies,
                             .body_bytes_max = c->body_bytes_max,
                             .connections_max = c->connections_max,
                             .header_timeout_ms = c->header_timeout_ms,
                             .body_timeout_ms = c->body_timeout_ms,
                             .idle_timeout_ms = c->idle_timeout_ms,
                             .write_timeout_ms = c->write_timeout_ms,
                             .output_bytes_soft = c->output_bytes_soft,
                             .output_bytes_hard = c->output_bytes_hard,
                             .tls_cert = secure ? tls->cert.data : NULL,
                             .tls_key = secure ? tls->key.data : NULL};
    char shown[200];
    int fd;
    enum status st = http_listen(address, &fd, shown, sizeof shown, err);
    if (st == STATUS_OK)
        st = http_open(&s->loop, fd, &o, &s->listeners[s->n_listeners], err);
    if (st != STATUS_OK)
        return st;
    s->n_listeners++;
    LOG_EVENT(&s->log, LOG_INFO, plane == PLANE_DATA ? "listening" : "listening for operators",
              LOG_TEXT("address", &shown[0]));
    return STATUS_OK;
}

static enum status open_listeners(struct server *s, struct error *err)
{
    struct tls_files tls;
    enum status st = tls_read(s->conf, &tls, err);
    for (size_t i = 0; i < s->conf->n_listen && st == STATUS_OK; i++)
        st = open_listener(s, s->conf->listen[i], PLANE_DATA, &tls, err);
    for (size_t i = 0; i < s->conf->n_admin_listen && st == STATUS_OK; i++)
        st = open_listener(s, s->conf->admin_listen[i], PLANE_ADMIN, &tls, err);
    tls_fini(&tls);
    if (st == STATUS_OK && s->conf->n_admin_listen == 0)
        log_line(&s->log, LOG_INFO, "no admin listener: --admin-listen ADDRESS makes one");
    return st;
}

static void on_change(const struct registry_change *change, void *data)
{
    const struct server *s = data;
    (void)change;
    admin_events_notify(s->events);
    merges_notify(s->merges);
}

/* Beside the state; a server that forgets that at its end forgets these, too. */
static struct response_store *open_responses(struct server *s)
{
    char path[4096 + 16];
    if (!s->conf->state)
        return response_store_create(s, NULL, RESPONSE_STORE_BYTES_MEMORY);
    snprintf(path, sizeof path, "%s.responses", s->conf->state);
    return response_store_create(s, path, RESPONSE_STORE_BYTES_FILE);
}

static enum status begin(struct server *s, struct error *err)
{
    s->metrics = metrics_create();
    s->voices = voices_create();
    s->grammars = grammar_store_create(GRAMMAR_STORE_BYTES);
    s->bridge = bridge_create(s);
    s->events = admin_events_create(s);
    s->merges = merges_create(s);
    s->response_store = open_responses(s);
    s->tenants = tenants_create();
    struct registry_options o = {.n_names_max = s->conf->adapters_max,
                                 .resident_bytes = s->conf->resident_bytes,
                                 .keep_ns = s->conf->keep_last_good_ms * NS_PER_MS,
                                 .changed = on_change,
                                 .data = s};
    s->registry = registry_create(&o);
    if (!s->metrics || !s->grammars || !s->registry || !s->voices || !s->bridge || !s->events || !s->merges ||
        !s->response_store || !s->tenants)
        return fail(err, STATUS_NO_MEMORY, "no memory for the server");
    enum status st = adapter_ops_create(s, &s->adapter_ops, err);
    if (st == STATUS_OK) /* behind adapter_ops, which has opened and checked the state file */
        st = tenant_keeper_create(s, &s->tenant_keeper, err);
    if (st == STATUS_OK)
        st = open_listeners(s, err);
    if (st != STATUS_OK)
        return st;
    struct start *start = mem_zalloc(sizeof *start);
    if (start)
        start->server = s;
    if (!start || !server_work(s, load_base, base_loaded, start)) {
        mem_free(start);
        return fail(err, STATUS_NO_MEMORY, "no memory for the start");
    }
    return STATUS_OK;
}

static void open_handles(struct server *s)
{
    uv_signal_init(&s->loop, &s->sigterm);
    uv_signal_init(&s->loop, &s->sigint);
    uv_signal_init(&s->loop, &s->sighup);
    uv_timer_init(&s->loop, &s->second);
    s->sigterm.data = s->sigint.data = s->sighup.data = s->second.data = s;
    uv_signal_start(&s->sigterm, on_terminate, SIGTERM);
    uv_signal_start(&s->sigint, on_terminate, SIGINT);
    uv_signal_start(&s->sighup, on_hangup, SIGHUP);
    uv_timer_start(&s->second, on_tick, TICK_MS, TICK_MS);
}

static void prepare_process(void)
{
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a failed write, not an end */
    /* libuv's pool has four threads, which downloads alone could take; most of them sleep most of the time.
     */
    setenv("UV_THREADPOOL_SIZE", "12", 0);
    json_object_seed(0);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

int server_run(const struct conf *conf)
{
    struct server *s = mem_zalloc(sizeof *s);
    if (!s)
        return 1;
    prepare_process();
    if (!sources_begin()) {
        mem_free(s);
        return 1;
    }
    s->conf = conf;
    conf_sources(conf, &s->sources);
    s->sources.cancel = &s->sources_end;
    s->log = (struct log){.fd = STDERR_FILENO, .json = conf->log_json, .level = conf->log_level};
    s->started_wall_ms = clock_wall_ms();
    struct error err;
    if (uv_loop_init(&s->loop) != 0) {
        mem_free(s);
        return 1;
    }
    open_handles(s);
    if (begin(s, &err) != STATUS_OK) {
        log_line(&s->log, LOG_ERROR, "can't start: %s", err.text);
        s->exit_code = 1;
        s->state = SERVER_STOPPING;
        close_all(s);
    }
    uv_run(&s->loop, UV_RUN_DEFAULT); /* until every handle is closed and every worker's task is done */
    uv_loop_close(&s->loop);
    response_store_destroy(s->response_store);
    tenant_keeper_destroy(s->tenant_keeper);
    tenants_destroy(s->tenants);
    adapter_ops_destroy(s->adapter_ops);
    voices_destroy(s->voices);
    languages_close(s->languages);
    merges_destroy(s->merges);
    registry_destroy(s->registry);
    admin_events_destroy(s->events);
    grammar_store_destroy(s->grammars);
    base_close(&s->base);
    metrics_destroy(s->metrics);
    sources_end();
    int code = s->exit_code;
    mem_free(s);
    return code;
}
