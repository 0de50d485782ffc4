/* Operators, publishers of files, the state file and kills. The model of a name's roles is kept here, from
 * the rules in registry.h and not from its code. */
#include <string.h>

#include "sim.h"

/* ---- the model of roles */

bool model_is_routed(const struct name_model *m, uint64_t generation)
{
    bool routed = generation == m->stable || generation == m->shadow;
    for (uint32_t i = 0; i < m->n_splits; i++)
        routed |= generation == m->splits[i].generation;
    return routed;
}

static void model_set_stable(struct world *w, struct name_model *m, uint64_t generation)
{
    if (m->stable == generation)
        return;
    m->previous = m->stable;
    m->kept_from = (uint64_t)w->now_ns;
    m->stable = generation;
    m->n_splits = 0;
    if (m->shadow == generation)
        m->shadow = 0;
}

static bool contents_equal(struct content a, struct content b)
{
    return a.id == b.id && a.scale == b.scale;
}

void model_publish(struct world *w, uint32_t name, const struct load *l, uint64_t generation)
{
    struct name_model *m = &w->models[name];
    bool is_new = generation >= w->n_generations || w->generations[generation].content.id == 0;
    if (is_new) {
        CHECK(w, generation == w->n_generations, "generation %llu after %llu", (unsigned long long)generation,
              (unsigned long long)w->n_generations - 1);
        sim_learn(w, generation, name, l->content);
    }
    const struct generation_info *g = &w->generations[generation];
    CHECK(w, g->name == name && contents_equal(g->content, l->content),
          "%s: generation %llu was published with other content", sim_name(name),
          (unsigned long long)generation);
    bool wanted_stable = l->as == PUBLISH_AGAIN && (l->generation == 0 || l->generation == m->stable);
    if (m->stable == 0 || l->as == PUBLISH_STABLE || wanted_stable)
        model_set_stable(w, m, generation);
    else if (l->as == PUBLISH_AGAIN)
        CHECK(w, generation == l->generation, "%s: asked for generation %llu, %llu was published",
              sim_name(name), (unsigned long long)l->generation, (unsigned long long)generation);
    else if (l->as == PUBLISH_SHADOW && generation != m->stable)
        m->shadow = generation;
}

/* ---- the state file: a write takes time; who asked is answered when it is done */

static void keep_name(struct world *w, uint32_t name, struct kept_name *k)
{
    const struct adapter *a = sim_find(w, name);
    *k = (struct kept_name){.model = w->models[name], .name = a ? state_name_of(a) : NULL};
    CHECK(w, !a || k->name, "no memory");
}

static void finish_writes(struct world *w, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct kept_name *k = &w->durable[w->writes[i].name];
        state_name_destroy(k->name);
        *k = w->writes[i].kept;
        if (w->writes[i].generation > w->durable_generation)
            w->durable_generation = w->writes[i].generation;
    }
    w->n_writes -= n;
    memmove(w->writes, w->writes + n, w->n_writes * sizeof w->writes[0]);
}

void operator_keep(struct world *w, uint32_t name)
{
    uint64_t revision;
    if (w->n_writes == WRITES_MAX)
        finish_writes(w, 1); /* the operator waits */
    struct write *x = &w->writes[w->n_writes++];
    *x = (struct write){.name = name, .due_ns = w->now_ns + (int64_t)sim_below(w, 50) * MS};
    keep_name(w, name, &x->kept);
    registry_counters(w->registry, &revision, &x->generation);
}

void operator_writes(struct world *w)
{
    uint32_t n = 0;
    while (n < w->n_writes && w->writes[n].due_ns <= w->now_ns)
        n++;
    finish_writes(w, n);
}

void operator_forget(struct world *w, bool durable)
{
    for (uint32_t i = 0; i < w->n_writes; i++)
        state_name_destroy(w->writes[i].kept.name);
    w->n_writes = 0;
    for (uint32_t i = 0; i < w->n_names && durable; i++)
        state_name_destroy(w->durable[i].name);
}

/* ---- a kill, and the next start */

static void restore(struct world *w, const struct state_name *n)
{
    struct adapter *a = NULL;
    struct error err;
    CHECK(w, registry_register(w->registry, &n->wish, &a, &err) == STATUS_OK, "%s", err.text);
    for (uint32_t i = 0; i < n->n_versions; i++) {
        const struct state_version *v = &n->versions[i];
        const struct version_restored old = {.generation = v->generation,
                                             .source = v->source,
                                             .scale = v->scale,
                                             .published_wall_ms = v->published_wall_ms};
        CHECK(w, registry_restore(w->registry, a, &old, v->digest, &err) == STATUS_OK, "%s", err.text);
    }
    registry_restore_roles(a, n->stable, n->previous, n->shadow);
    CHECK(w, registry_set_traffic(w->registry, a, n->splits, n->n_splits, &err) == STATUS_OK, "%s", err.text);
}

static bool wishes_equal(const struct adapter_wish *a, const struct adapter_wish *b)
{
    return strcmp(a->source, b->source) == 0 && a->scale == b->scale && a->pinned == b->pinned;
}

static bool versions_equal(const struct state_version *a, const struct state_version *b)
{
    return a->generation == b->generation && memcmp(a->digest, b->digest, sizeof a->digest) == 0 &&
           a->scale == b->scale && strcmp(a->source, b->source) == 0 &&
           a->published_wall_ms == b->published_wall_ms;
}

/* check_all compares roles and traffic with the model. */
static void check_survival(struct world *w, uint32_t name)
{
    struct kept_name now;
    const struct state_name *before = w->durable[name].name;
    keep_name(w, name, &now);
    CHECK(w, !now.name == !before, "%s: %s after a kill", sim_name(name), before ? "gone" : "there again");
    bool same = !before ||
                (wishes_equal(&before->wish, &now.name->wish) && before->n_versions == now.name->n_versions);
    for (uint32_t i = 0; same && before && i < before->n_versions; i++)
        same = versions_equal(&before->versions[i], &now.name->versions[i]);
    CHECK(w, same, "%s: what was acknowledged didn't survive a kill", sim_name(name));
    state_name_destroy(now.name);
}

static void on_change(const struct registry_change *c, void *data)
{
    struct world *w = data;
    CHECK(w, c->revision == w->last_revision + 1, "revision %llu after %llu", (unsigned long long)c->revision,
          (unsigned long long)w->last_revision);
    w->last_revision = c->revision;
    if (c->kind != CHANGE_EVICTED)
        return;
    w->n_evicted++;
    CHECK(w, w->cause != CAUSE_OTHER, "%s: generation %llu left, and nobody asked for it", c->name,
          (unsigned long long)c->generation);
}

void operator_kill(struct world *w)
{
    const struct registry_options o = {.n_names_max = NAMES_MAX,
                                       .resident_bytes = w->budget,
                                       .keep_ns = w->keep_ns,
                                       .changed = on_change,
                                       .data = w};
    if (w->registry) {
        finish_writes(w, (uint32_t)sim_below(w, w->n_writes + 1)); /* on the disk, but nobody was told */
        front_drop_everything(w);
        engine_drop_everything(w);
        registry_destroy(w->registry);
        w->n_kills++;
    }
    operator_forget(w, false);
    /* A number is one content for good: clients have seen those, too, that no change has kept. */
    uint64_t begin = w->durable_generation
                         ? (w->durable_generation / STATE_GENERATIONS_A_RUN + 1) * STATE_GENERATIONS_A_RUN
                         : 0;
    for (uint64_t g = 0; g < w->generations_capacity; g++)
        w->generations[g].n_requests = w->generations[g].n_failures = 0;
    w->n_generations = begin + 1;
    w->durable_generation = begin + 1;
    w->last_revision = 0;
    w->registry = registry_create(&o);
    CHECK(w, w->registry, "no memory");
    for (uint32_t i = 0; i < w->n_names; i++) {
        w->models[i] = w->durable[i].model;
        if (w->durable[i].name)
            restore(w, w->durable[i].name);
    }
    w->durable_revision += 1000000;
    registry_set_counters(w->registry, w->durable_revision, begin);
    w->last_revision = w->durable_revision;
    for (uint32_t i = 0; i < w->n_names; i++)
        check_survival(w, i);
}

/* ---- operators */

static void ask_load(struct world *w, uint32_t name)
{
    static const enum publish_as as[] = {PUBLISH_STABLE, PUBLISH_STABLE, PUBLISH_CANARY, PUBLISH_SHADOW};
    struct load l = {.name = name,
                     .as = as[sim_below(w, 4)],
                     .is_operators = true,
                     .path = name * PATHS_OF_NAME + (uint32_t)sim_below(w, PATHS_OF_NAME),
                     .scale = sim_chance(w, 10) ? 2 : 1};
    front_load(w, &l);
}

static void set_traffic(struct world *w, uint32_t name, struct adapter *a)
{
    struct name_model *m = &w->models[name];
    struct traffic_split s[REGISTRY_SPLITS_MAX];
    struct error err;
    uint32_t n = 0, left = 100;
    for (uint32_t i = 0; i < a->n_records && n < REGISTRY_SPLITS_MAX && sim_chance(w, 80); i++) {
        if (!a->records[i].version)
            continue;
        uint32_t percent = n == REGISTRY_SPLITS_MAX - 1 ? left : (uint32_t)sim_below(w, left + 1);
        s[n++] = (struct traffic_split){.generation = a->records[i].generation, .percent = percent};
        left -= percent;
    }
    if (n)
        s[n - 1].percent += left;
    CHECK(w, registry_set_traffic(w->registry, a, s, n, &err) == STATUS_OK, "%s", err.text);
    m->n_splits = n == 1 && s[0].generation == m->stable ? 0 : n;
    memcpy(m->splits, s, sizeof m->splits);
}

static void promote(struct world *w, uint32_t name, struct adapter *a)
{
    struct name_model *m = &w->models[name];
    struct error err;
    if (a->n_records == 0)
        return;
    const struct version_record *v = &a->records[sim_below(w, a->n_records)];
    bool resident = v->version != NULL;
    uint64_t generation = v->generation;
    enum status s = registry_promote(w->registry, a, generation, w->now_ns, &err);
    CHECK(w, s == (resident ? STATUS_OK : STATUS_UNAVAILABLE), "%s: promoted: %s", sim_name(name), err.text);
    if (s != STATUS_OK)
        return;
    model_set_stable(w, m, generation);
    m->n_splits = 0;
}

static void roll_back(struct world *w, uint32_t name, struct adapter *a)
{
    struct name_model *m = &w->models[name];
    struct error err;
    const struct version_record *v = registry_record(a, m->previous);
    enum status expected = m->previous == 0 ? STATUS_NOT_FOUND : v->version ? STATUS_OK : STATUS_UNAVAILABLE;
    enum status s = registry_rollback(w->registry, a, w->now_ns, &err);
    CHECK(w, s == expected, "%s: rollback: %s, expected %s", sim_name(name), status_name(s),
          status_name(expected));
    if (s != STATUS_OK)
        return;
    w->n_rollbacks++;
    m->shadow = 0;
    model_set_stable(w, m, m->previous);
}

static void remove_or_register(struct world *w, uint32_t name, struct adapter *a)
{
    struct error err;
    if (!a) {
        w->models[name] = (struct name_model){.exists = true, .path = name * PATHS_OF_NAME, .scale = 1};
        struct adapter_wish wish = sim_wish(w, name);
        CHECK(w, registry_register(w->registry, &wish, NULL, &err) == STATUS_OK, "%s", err.text);
        return;
    }
    bool loading = a->loading;
    enum status s = registry_remove(w->registry, sim_name(name), &err);
    CHECK(w, s == (loading ? STATUS_EXISTS : STATUS_OK), "%s: removed: %s", sim_name(name), status_name(s));
    if (s == STATUS_OK)
        w->models[name] = (struct name_model){0};
}

/* Whatever was asked is in the state file before it is acknowledged. */
void operator_act(struct world *w)
{
    uint32_t name = (uint32_t)sim_below(w, w->n_names);
    struct adapter *a = sim_find(w, name);
    uint64_t what = sim_below(w, 100);
    w->cause = CAUSE_OPERATOR;
    if (!a || what < 4) {
        remove_or_register(w, name, a);
    } else if (what < 54) {
        ask_load(w, name);
    } else if (what < 66) {
        set_traffic(w, name, a);
    } else if (what < 74) {
        promote(w, name, a);
    } else if (what < 84) {
        roll_back(w, name, a);
    } else if (what < 88) {
        registry_end_shadow(w->registry, a);
        w->models[name].shadow = 0;
    } else if (what < 94) {
        registry_evict(w->registry, a);
    } else {
        w->models[name].pinned = !w->models[name].pinned && sim_chance(w, 30);
        registry_set_pinned(w->registry, a, w->models[name].pinned);
    }
    w->cause = CAUSE_OTHER;
    operator_keep(w, name);
}

/* New files at a path: other ones, those of before, or another path's. */
void operator_publisher(struct world *w)
{
    uint32_t n = w->n_names * PATHS_OF_NAME, path = (uint32_t)sim_below(w, n);
    if (sim_chance(w, 60))
        w->disk[path].id = w->n_contents++;
    else if (sim_chance(w, 50))
        w->disk[path].id = 1 + (uint32_t)sim_below(w, w->n_contents - 1);
    else
        w->disk[path] = w->disk[path ^ 1U];
}
