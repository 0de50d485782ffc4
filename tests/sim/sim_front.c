/* The front: requests bind to a version at admission and hold it until the connection has ended and the final
 * event has been seen; cold ones wait for a load, which many share; loads take time, fail, and are larger
 * than they looked. */
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define TRIES_MAX 4U

/* ---- requests */

static void end_request(struct world *w, struct request *r)
{
    if (r->version) {
        CHECK(w, w->generations[r->generation].name == (uint32_t)r->name, "generation of another name");
        registry_release(w->registry, r->version, r->failed);
        w->generations[r->generation].n_failures += r->failed;
    }
    registry_release(w->registry, r->other, false);
    *r = (struct request){0};
}

/* The one final event. Its client may go on reading for a while. */
static void final(struct world *w, struct request *r)
{
    CHECK(w, r->n_finals++ == 0, "request %llu ends twice", (unsigned long long)r->arrival);
    w->n_finals++;
    r->state = REQUEST_FINISHED;
    r->load = -1;
    if (!r->connected || sim_chance(w, 85))
        end_request(w, r);
}

/* What choose must say, from what the operators did. */
static uint64_t expected_choice(const struct world *w, const struct request *r)
{
    const struct name_model *m = &w->models[r->name];
    uint64_t point = r->sticky % 10000;
    for (uint32_t i = 0; i < m->n_splits; i++) {
        if (point < m->splits[i].percent * 100ULL)
            return m->splits[i].generation;
        point -= m->splits[i].percent * 100ULL;
    }
    return m->stable;
}

/* The shadow of its version, or another name's: sums hold several. */
static void bind_other(struct world *w, struct request *r, struct adapter *a)
{
    uint32_t name = (uint32_t)sim_below(w, w->n_names);
    struct adapter *b = sim_chance(w, 50) ? a : sim_find(w, name);
    uint64_t generation = b == a ? a->shadow : b ? b->stable : 0;
    if (!b || !sim_chance(w, 20))
        return;
    r->other = registry_acquire(w->registry, b, generation, w->now_ns);
    r->other_generation = generation;
    w->generations[generation].n_requests += r->other != NULL;
}

static bool bind(struct world *w, struct request *r, struct adapter *a)
{
    r->version = registry_acquire(w->registry, a, r->generation, w->now_ns);
    if (!r->version)
        return false;
    const struct generation_info *g = &w->generations[r->generation];
    CHECK(w, r->version->generation == r->generation, "asked for generation %llu, got %llu",
          (unsigned long long)r->generation, (unsigned long long)r->version->generation);
    CHECK(w, r->version->lora->n_parameters == content_mark(g->content), "generation %llu with other content",
          (unsigned long long)r->generation);
    w->generations[r->generation].n_requests++;
    bind_other(w, r, a);
    r->state = REQUEST_SUBMITTED;
    engine_submit_request(w, r);
    return true;
}

static void wait_for_load(struct world *w, struct request *r)
{
    struct load asked = {
        .name = (uint32_t)r->name, .as = PUBLISH_AGAIN, .generation = r->generation, .tenant = r->tenant};
    r->state = REQUEST_COLD;
    r->load = r->n_tries++ < TRIES_MAX ? front_load(w, &asked) : -1;
    if (r->load < 0)
        final(w, r); /* 503 */
}

static void admit(struct world *w, struct request *r)
{
    struct error err;
    r->load = -1;
    if (r->name < 0) {
        r->state = REQUEST_SUBMITTED;
        engine_submit_request(w, r);
        return;
    }
    struct adapter *a = sim_find(w, (uint32_t)r->name);
    if (!a) {
        final(w, r); /* 404 */
        return;
    }
    enum status s = registry_choose(a, r->pin, r->sticky, &r->generation, &err);
    if (!r->pin[0])
        CHECK(w, s == STATUS_OK && r->generation == expected_choice(w, r),
              "%s: traffic gives generation %llu, expected %llu", sim_name((uint32_t)r->name),
              (unsigned long long)r->generation, (unsigned long long)expected_choice(w, r));
    if (s != STATUS_OK) {
        w->n_gone++;
        final(w, r);
    } else if (!bind(w, r, a)) {
        wait_for_load(w, r);
    }
}

static struct request *free_request(struct world *w)
{
    for (struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
        if (r->state == REQUEST_NONE)
            return r;
    return NULL;
}

static void make_pin(struct world *w, struct request *r)
{
    const struct adapter *a = r->name < 0 ? NULL : sim_find(w, (uint32_t)r->name);
    if (sim_chance(w, 5))
        snprintf(r->pin, sizeof r->pin, "%llu", (unsigned long long)sim_below(w, w->n_generations + 2));
    if (!a || a->n_records == 0 || r->pin[0])
        return;
    const struct version_record *v = &a->records[sim_below(w, a->n_records)];
    if (sim_chance(w, 50))
        snprintf(r->pin, sizeof r->pin, "%llu", (unsigned long long)v->generation);
    else
        snprintf(r->pin, sizeof r->pin, "%.16s", v->digest_hex);
}

void front_arrival(struct world *w)
{
    struct request *r = free_request(w);
    if (!r)
        return;
    /* Few names get most of it. */
    uint32_t name = (uint32_t)sim_below(w, 1 + sim_below(w, w->n_names));
    *r = (struct request){.arrival = ++w->arrivals,
                          .name = sim_chance(w, 8) ? -1 : (int32_t)name,
                          .tenant = sim_below(w, w->n_tenants + 1),
                          .sticky = sim_below(w, 12) * 888,
                          .connected = true,
                          .load = -1};
    if (sim_chance(w, 15))
        make_pin(w, r);
    admit(w, r);
}

void front_events(struct world *w, uint32_t n)
{
    for (; n && w->events_out < w->events_in; n--) {
        struct sim_event e = w->events[w->events_out++ % EVENTS_MAX];
        struct request *r = &w->requests[e.request];
        CHECK(w, r->arrival == e.arrival && r->state == REQUEST_SUBMITTED, "an event after the final one");
        if (e.type == SIM_TOKEN) {
            uint64_t key = r->version ? content_mark(w->generations[r->generation].content) : 0;
            w->n_tokens++;
            CHECK(w, e.content == key,
                  "request %llu was admitted with generation %llu; another made its token",
                  (unsigned long long)r->arrival, (unsigned long long)r->generation);
            continue;
        }
        r->failed = e.type == SIM_FAILED;
        final(w, r);
    }
}

/* A client goes: while it waits for a load, while its answer is made, or after it. */
void front_hang_up(struct world *w)
{
    struct request *r = &w->requests[sim_below(w, REQUESTS_MAX)];
    if (r->state == REQUEST_NONE || !r->connected)
        return;
    r->connected = false;
    if (r->state == REQUEST_COLD)
        final(w, r);
    else if (r->state == REQUEST_SUBMITTED)
        r->cancel = true;
    else
        end_request(w, r);
}

/* ---- loads */

int32_t front_load(struct world *w, const struct load *asked)
{
    int32_t unused = -1;
    for (int32_t i = 0; i < (int32_t)LOADS_MAX; i++) {
        struct load *l = &w->loads[i];
        if (!l->used)
            unused = i;
        else if (l->as == PUBLISH_AGAIN && asked->as == PUBLISH_AGAIN && l->name == asked->name &&
                 l->generation == asked->generation) {
            w->n_shared_loads++;
            return i; /* one load for all of them */
        }
    }
    if (unused < 0)
        return -1;
    w->loads[unused] = *asked;
    w->loads[unused].used = true;
    w->loads[unused].order = ++w->load_order;
    w->loads[unused].deadline_ns = w->now_ns + 3000 * MS;
    return unused;
}

/* Who waited asks again. After a success the version is there for all of them: nobody comes between. */
static void end_load(struct world *w, struct load *l, uint64_t published)
{
    int32_t index = (int32_t)(l - w->loads);
    l->used = false;
    l->reserved = 0;
    for (struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++) {
        if (r->state != REQUEST_COLD || r->load != index)
            continue;
        uint64_t wanted = r->generation;
        r->load = -1;
        if (!published) {
            final(w, r); /* the load's error */
            continue;
        }
        admit(w, r);
        CHECK(w, wanted != published || r->generation != published || r->version || r->state != REQUEST_COLD,
              "%s: generation %llu was loaded for a request that doesn't get it", sim_name(l->name),
              (unsigned long long)published);
    }
}

static bool name_is_busy(const struct world *w, const struct load *l)
{
    for (const struct load *o = w->loads; o < w->loads + LOADS_MAX; o++)
        if (o != l && o->used && o->name == l->name && o->phase != LOAD_QUEUED)
            return true;
    return false;
}

static uint32_t find_path(const struct adapter *a, uint64_t generation)
{
    const struct version_record *v = registry_record(a, generation);
    const char *path = v ? v->source : a->wish.source;
    for (uint32_t i = 0; i < NAMES_MAX * PATHS_OF_NAME; i++)
        if (strcmp(path, sim_path(i)) == 0)
            return i;
    return 0;
}

static void reserve(struct world *w, struct load *l, struct adapter *a)
{
    struct error err;
    struct room_check check;
    struct content c = {.id = w->disk[l->path].id, .scale = l->scale};
    uint64_t bytes = l->took ? l->took : content_promise(c), routable = check_routable(w);
    l->asked = bytes;
    check_before_room(w, &check, l->tenant);
    w->cause = CAUSE_ROOM;
    enum status s = registry_reserve(w->registry, a, bytes, l->tenant, w->now_ns, &err);
    w->cause = CAUSE_OTHER;
    check_after_room(w, &check, l, s, false);
    CHECK(w, check_routable(w) == routable, "%s: a reservation changed who gets which version",
          sim_name(l->name));
    if (s == STATUS_OK) {
        l->phase = LOAD_WORKING;
        l->reserved = bytes;
        l->content = c;
        l->due_ns = w->now_ns + (int64_t)sim_below(w, 150) * MS;
        if (sim_chance(w, 20)) /* somebody tries a second one */
            CHECK(w, registry_reserve(w->registry, a, 1, 0, w->now_ns, &err) == STATUS_EXISTS,
                  "%s: two loads of one name", sim_name(l->name));
        return;
    }
    CHECK(w, s == STATUS_FULL || s == STATUS_TOO_LARGE, "%s: %s", sim_name(l->name), err.text);
    CHECK(w, s == STATUS_FULL || bytes > w->budget, "%s: too large for an empty house", sim_name(l->name));
    w->n_full++;
    if (s == STATUS_FULL && w->now_ns < l->deadline_ns) {
        w->n_waited += l->phase == LOAD_QUEUED;
        l->phase = LOAD_ROOM;
    } else {
        end_load(w, l, 0);
    }
}

static void begin(struct world *w, struct load *l)
{
    struct adapter *a = sim_find(w, l->name);
    if (!a) {
        end_load(w, l, 0);
        return;
    }
    if (l->as == PUBLISH_AGAIN) {
        const struct version_record *v = registry_record(a, l->generation);
        if (v && v->version) { /* somebody was faster */
            end_load(w, l, l->generation);
            return;
        }
        l->path = find_path(a, l->generation);
        l->scale = v ? (int32_t)v->scale : (int32_t)a->wish.scale;
    }
    if (sim_chance(w, 80))
        l->tenant = l->is_operators ? 0 : l->tenant;
    reserve(w, l, a);
}

static void fail_load(struct world *w, struct load *l, struct adapter *a)
{
    struct error err;
    uint64_t routable = check_routable(w);
    fail(&err, STATUS_FORMAT, "content %u is broken", l->content.id);
    registry_load_failed(w->registry, a, &err, w->now_ns / MS);
    CHECK(w, check_routable(w) == routable, "%s: a failed load changed something", sim_name(l->name));
    CHECK(w, a->last_error && strcmp(a->last_error, err.text) == 0, "%s: the reason is lost",
          sim_name(l->name));
    w->n_failed++;
    end_load(w, l, 0);
}

/* What the operator wished besides takes effect with the publication. */
static void put_wish(struct world *w, const struct load *l)
{
    struct error err;
    struct name_model *m = &w->models[l->name];
    if (!l->is_operators)
        return;
    m->path = l->path;
    m->scale = l->scale;
    struct adapter_wish wish = sim_wish(w, l->name);
    CHECK(w, registry_register(w->registry, &wish, NULL, &err) == STATUS_OK, "%s", err.text);
    operator_keep(w, l->name);
}

static void publish(struct world *w, struct load *l, struct adapter *a)
{
    struct error err;
    struct room_check check;
    struct publication p = {.as = l->as, .generation = l->generation, .source = sim_path(l->path)};
    struct adapter_version *v = version_make(w, l->name, l->content);
    uint64_t routable = check_routable(w), known_as = 0;
    for (uint32_t i = 0; i < a->n_records; i++)
        if (content_mark(w->generations[a->records[i].generation].content) == content_mark(l->content))
            known_as = a->records[i].generation;
    check_before_room(w, &check, l->tenant);
    w->cause = CAUSE_ROOM;
    l->reserved = 0;
    l->phase = LOAD_QUEUED;
    enum status s = registry_publish(w->registry, a, v, &p, w->now_ns, &err);
    w->cause = CAUSE_OTHER;
    if (s != STATUS_OK) {
        check_after_room(w, &check, l, s, true);
        CHECK(w, check_routable(w) == routable, "%s: a failed publication changed something",
              sim_name(l->name));
        CHECK(w, a->last_status == s && a->last_error, "%s: the reason is lost", sim_name(l->name));
        CHECK(w, s != STATUS_UNAVAILABLE || (l->as == PUBLISH_AGAIN && known_as != p.generation), "%s: %s",
              sim_name(l->name), err.text);
        w->n_failed++;
        if (s == STATUS_FULL && w->now_ns < l->deadline_ns) { /* waits for as much as it takes */
            l->took = content_bytes(l->content);
            l->phase = LOAD_ROOM;
        } else {
            end_load(w, l, 0);
        }
        return;
    }
    w->n_published++;
    CHECK(w, p.version && p.version->lora->n_parameters == content_mark(l->content),
          "%s: published one content, another is resident", sim_name(l->name));
    CHECK(w, known_as == 0 || p.generation == known_as, "%s: generation %llu again became %llu",
          sim_name(l->name), (unsigned long long)known_as, (unsigned long long)p.generation);
    model_publish(w, l->name, l, p.generation);
    for (struct live *x = w->live; x < w->live + w->n_live; x++)
        CHECK(w, x->v != p.version || !x->resident || x->generation == p.generation,
              "one version under two generations");
    bool known = false;
    for (uint32_t i = 0; i < w->n_live; i++)
        known |= w->live[i].v == p.version;
    CHECK(w, known || p.version == v, "a version from nowhere");
    if (!known) {
        CHECK(w, w->n_live < LIVE_MAX, "too many versions live");
        w->live[w->n_live++] = (struct live){.v = v,
                                             .name = l->name,
                                             .generation = p.generation,
                                             .tenant = l->tenant,
                                             .bytes = content_bytes(l->content)};
    }
    check_after_room(w, &check, l, s, true);
    put_wish(w, l);
    end_load(w, l, p.generation);
}

static uint32_t n_working(const struct world *w)
{
    uint32_t n = 0;
    for (const struct load *l = w->loads; l < w->loads + LOADS_MAX; l++)
        n += l->used && l->phase == LOAD_WORKING;
    return n;
}

static struct load *next_queued(struct world *w)
{
    struct load *first = NULL;
    for (struct load *l = w->loads; l < w->loads + LOADS_MAX; l++)
        if (l->used && l->phase == LOAD_QUEUED && (!first || l->order < first->order) && !name_is_busy(w, l))
            first = l;
    return first;
}

/* A load that nobody waits for any more goes on: the next request has it. */
void front_loads(struct world *w)
{
    for (struct load *l = w->loads; l < w->loads + LOADS_MAX; l++) {
        if (!l->used || (l->phase == LOAD_WORKING && l->due_ns > w->now_ns) || l->phase == LOAD_QUEUED)
            continue;
        struct adapter *a = sim_find(w, l->name);
        if (l->phase == LOAD_ROOM && !a)
            end_load(w, l, 0); /* removed meanwhile */
        else if (l->phase == LOAD_ROOM)
            reserve(w, l, a);
        else if (content_is_broken(l->content) || sim_chance(w, 5))
            fail_load(w, l, a);
        else
            publish(w, l, a);
    }
    for (struct load *l; n_working(w) < 3 && (l = next_queued(w)) != NULL;)
        begin(w, l);
}

void front_drop_everything(struct world *w)
{
    for (struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
        registry_release(w->registry, r->version, false), registry_release(w->registry, r->other, false);
    for (struct load *l = w->loads; l < w->loads + LOADS_MAX; l++)
        *l = (struct load){0};
    w->n_live = 0;
}
