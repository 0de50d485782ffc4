/* The server's shared state and the order of its life: listen → load the base and the first adapters (a
 * worker does the work, probes are answered meanwhile) → serve → drain → stop.
 *
 * Owner: front thread, all of it. Workers and the engine's thread see only what is passed to them. */
#ifndef LK_SERVER_H
#define LK_SERVER_H

#include <uv.h>

#include "base/log.h"
#include "base_load.h"
#include "conf.h"
#include "engine.h"
#include "http.h"
#include "metrics.h"
#include "model.h"
#include "registry.h"
#include "sources.h"
#include "text.h"

struct bridge;
struct adapter_ops;
struct admin_events;
struct grammar_store;
struct merges;
struct completion;
struct response_store;
struct tenant_keeper;
struct tenants;
struct voices;
struct languages;
struct watch;

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING, SERVER_STOPPING };

struct server {
    const struct conf *conf;
    struct log log;
    uv_loop_t loop;
    enum server_state state;
    int exit_code;
    int64_t started_wall_ms, ready_wall_ms;

    struct http *listeners[2 * CONF_LISTEN_MAX];
    size_t n_listeners;

    struct base base; /* from SERVER_READY on; base.name as soon as it is known */
    struct engine *engine;
    struct source_options sources; /* of remote adapters */
    atomic_bool sources_end;       /* downloads give up */
    bool settling;                 /* settle.h */
    atomic_bool settle_stop;
    uint32_t context; /* tokens of a sequence that the engine allows */
    struct registry *registry;
    struct voices *voices;
    struct languages *languages; /* for "auto", or NULL */
    struct bridge *bridge;
    struct adapter_ops *adapter_ops;
    struct admin_events *events;
    struct merges *merges;
    struct watch *watch; /* of the adapters folder, or NULL */
    struct grammar_store *grammars;
    struct response_store *response_store; /* of OpenAI's Responses */
    struct tenants *tenants;
    struct tenant_keeper *tenant_keeper;
    struct metrics *metrics;
    struct completion *completions; /* all that are not finished */
    size_t pooled_bytes;            /* of vectors that they wait for */

    uv_signal_t sigterm, sigint, sighup;
    uv_timer_t second; /* pings, drain deadline */
    int64_t drain_deadline_ns;
};

/* Runs until a signal or a hopeless start; the process's exit code. */
int server_run(const struct conf *conf);

/* Ends a start that can't succeed: message, exit code 1. */
void server_start_failed(struct server *s, const struct error *err);
/* Called when no adapter is left to load. */
void server_adapters_loaded(struct server *s);

/* STATUS_UNAVAILABLE unless requests are served now. */
LK_MUST_USE enum status server_serving(const struct server *s, struct error *err);

/* Runs work(data) on a worker, then done(data) here. False when memory is short. */
bool server_work(struct server *s, void (*work)(void *data), void (*done)(void *data), void *data);

#endif
