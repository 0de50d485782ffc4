/* A simulated server on one thread: the real registry, scheduler and KV pages; a fake model, loader, disk and
 * clients; a clock that is a number. Everything follows from a seed. After each step sim_check.c compares the
 * registry with what the simulation knows by itself. */
#ifndef LK_TESTS_SIM_H
#define LK_TESTS_SIM_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "fairness.h"
#include "kv_cache.h"
#include "prefix_cache.h"
#include "registry.h"
#include "state.h"

#define NAMES_MAX 24
#define PATHS_OF_NAME 2 /* where a name's files are, and a candidate's */
#define REQUESTS_MAX 40
#define LOADS_MAX 64
#define LIVE_MAX 256
#define TOKENS_MAX 112
#define PAGES_MAX 4
#define SIM_PAGES_MAX 64
#define EVENTS_MAX 4096
#define WRITES_MAX 64
#define TENANTS_MAX 5
#define MS 1000000LL

/* ---- what the simulation knows of generations and names, independently of the registry */

struct content { /* what an adapter's files say, and how they are read */
    uint32_t id; /* 0: nothing there */
    int32_t scale;
};
struct generation_info {
    struct content content;
    uint32_t name;
    uint64_t n_requests, n_failures;
};
struct name_model {
    bool exists, pinned;
    uint32_t path; /* wished: index into disk */
    int32_t scale;
    uint64_t stable, previous, shadow;
    uint64_t kept_from; /* previous: no sweep before that */
    struct traffic_split splits[REGISTRY_SPLITS_MAX];
    uint32_t n_splits;
};

/* A name as the state file has it: NULL: there is none. */
struct kept_name {
    struct name_model model;
    struct state_name *name;
};
struct write {
    uint32_t name;
    struct kept_name kept;
    uint64_t generation; /* the counter */
    int64_t due_ns;
};

/* ---- the server */

/* A version's bytes, from publication to the last use. */
struct live {
    struct adapter_version *v;
    uint32_t name;
    uint64_t generation, tenant, bytes;
    bool resident;
    uint32_t n_users;
    /* who may be evicted, since when: the order in which they must go */
    bool evictable;
    uint64_t evictable_since, n_requests_seen;
};

enum load_phase { LOAD_QUEUED, LOAD_ROOM, LOAD_WORKING };
struct load {
    bool used;
    uint64_t order;
    uint32_t name;
    enum publish_as as;
    bool is_operators;
    uint64_t generation, tenant;
    uint32_t path;
    int32_t scale;
    enum load_phase phase;
    struct content content; /* read from the disk when the worker began */
    uint64_t asked;         /* room that was asked for */
    uint64_t took;          /* it was loaded once, and was larger than it looked */
    uint64_t reserved;
    int64_t due_ns, deadline_ns;
};

enum request_state { REQUEST_NONE, REQUEST_COLD, REQUEST_SUBMITTED, REQUEST_FINISHED };
struct request {
    enum request_state state;
    /* the client's */
    uint64_t arrival;
    int32_t name; /* -1: the base */
    char pin[20];
    uint64_t tenant, sticky;
    bool connected, failed;
    uint32_t n_finals, n_tries;
    /* the front's */
    uint64_t generation;
    struct adapter_version *version;
    uint64_t other_generation; /* a second version that it needs: a shadow, another part of a sum */
    struct adapter_version *other;
    int32_t load; /* waits for it, or -1 */
    /* the engine's */
    struct generation g; /* as fairness sees it */
    bool in_engine, cancel, running, started, aside, has_turn;
    uint32_t n_yields, n_at_resume;
    int64_t paused_ns, resumed_ns;
    struct lora *lora;
    uint64_t marks[TOKENS_MAX]; /* of the positions: what their KV must hold */
    uint8_t tokens[TOKENS_MAX];
    uint32_t n_prompt, n_known, n_computed, n_max, fails_at;
    uint32_t pages[PAGES_MAX], n_pages;
};

enum event_type { SIM_TOKEN, SIM_DONE, SIM_CANCELLED, SIM_FAILED };
struct sim_event {
    uint32_t request;
    uint64_t arrival;
    enum event_type type;
    uint64_t content; /* which adapter made the token */
};

/* Why the registry is being called: what it may evict depends on it. */
enum cause { CAUSE_OTHER, CAUSE_ROOM, CAUSE_SWEEP, CAUSE_OPERATOR };

struct world {
    uint64_t seed, step, random;
    int64_t now_ns, swept_ns;
    bool quiet; /* no new work: comes to rest */
    /* of this seed */
    uint32_t n_names, n_tenants, n_slots, arrivals_percent;
    uint64_t budget;
    int64_t keep_ns, bound_ns;
    /* registry and what is known of it */
    struct registry *registry;
    enum cause cause;
    struct name_model models[NAMES_MAX];
    struct generation_info *generations; /* [n_generations], by number */
    uint64_t n_generations, generations_capacity;
    uint64_t last_revision;
    struct live live[LIVE_MAX];
    uint32_t n_live;
    uint64_t evictable_clock;
    struct content disk[NAMES_MAX * PATHS_OF_NAME];
    uint32_t n_contents;
    struct load loads[LOADS_MAX];
    uint64_t load_order;
    /* kept state */
    struct kept_name durable[NAMES_MAX];
    uint64_t durable_generation, durable_revision;
    struct write writes[WRITES_MAX];
    uint32_t n_writes;
    /* engine */
    struct kv_cache *kv;
    struct prefix_cache *prefix;
    struct fair fair;
    struct request requests[REQUESTS_MAX];
    uint64_t arrivals;
    struct sim_event events[EVENTS_MAX];
    uint64_t events_in, events_out;
    /* numbers to be shown: what a run exercised */
    uint64_t n_tokens, n_finals, n_published, n_failed, n_full, n_evicted, n_rollbacks, n_kills,
        n_shared_pages, n_shared_loads, n_paused, n_rests, n_gone, n_waited, n_late, n_taken_back, n_yields;
    int64_t voice_wait_max_ns;
    jmp_buf failed;
    char why[400];
};

/* Ends the run. */
_Noreturn void sim_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define CHECK(w, condition, ...) ((condition) ? (void)0 : sim_fail(w, __VA_ARGS__))
uint64_t sim_random(struct world *w);
static inline uint64_t sim_below(struct world *w, uint64_t n)
{
    return sim_random(w) % n;
}
static inline bool sim_chance(struct world *w, uint32_t percent)
{
    return sim_below(w, 100) < percent;
}
static inline uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15ULL ^ b;
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    return x * 0x94d049bb133111ebULL;
}

/* ---- sim_world.c: contents, names, versions */

const char *sim_name(uint32_t name);
const char *sim_path(uint32_t path);
uint64_t content_bytes(struct content c);
uint64_t content_promise(struct content c); /* what its files look like before they are read */
bool content_is_broken(struct content c);
uint64_t content_mark(struct content c);
struct adapter_version *version_make(struct world *w, uint32_t name, struct content c);
struct adapter *sim_find(struct world *w, uint32_t name);
struct adapter_wish sim_wish(const struct world *w, uint32_t name);
void sim_learn(struct world *w, uint64_t generation, uint32_t name, struct content c);
void world_open(struct world *w, uint64_t seed);
void world_close(struct world *w);

/* ---- sim_front.c: requests and loads */

void front_arrival(struct world *w);
void front_events(struct world *w, uint32_t n);
void front_hang_up(struct world *w);
void front_loads(struct world *w);
/* -1: too many wait. */
int32_t front_load(struct world *w, const struct load *asked);
void front_drop_everything(struct world *w); /* the process dies */

/* ---- sim_engine.c */

void engine_submit_request(struct world *w, struct request *r);
void engine_step(struct world *w);
void engine_drop_everything(struct world *w);
void engine_flush_cache(struct world *w);

/* ---- sim_operator.c */

void operator_act(struct world *w);
void operator_publisher(struct world *w); /* files change */
void operator_writes(struct world *w);    /* the state file */
void operator_keep(struct world *w, uint32_t name);
void operator_kill(struct world *w);
void operator_forget(struct world *w, bool durable); /* frees what is written, or all that was */
bool model_is_routed(const struct name_model *m, uint64_t generation);
/* What a name's roles must be after this publication. */
void model_publish(struct world *w, uint32_t name, const struct load *l, uint64_t generation);

/* ---- sim_check.c */

void check_all(struct world *w);
void check_rest(struct world *w);
uint64_t check_routable(struct world *w); /* a digest of all that decides which version a request gets */
/* Around a call that may make room: who was evicted, and was it right? */
struct room_check {
    struct live before[LIVE_MAX];
    uint32_t n_before;
    struct {
        bool resident, routed, protected_, kept, expired;
    } how[LIVE_MAX];
    uint64_t charges[TENANTS_MAX + 1], share;
    bool is_above;
};
void check_before_room(struct world *w, struct room_check *c, uint64_t tenant);
void check_after_room(struct world *w, const struct room_check *c, const struct load *l, enum status s,
                      bool is_publish);

#endif
