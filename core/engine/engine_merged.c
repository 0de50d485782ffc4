/* Merged copies: what the front wants stands in a box under a lock; the engine thread takes it over between
 * two steps and works with a table of its own. Each table holds its own reference of every copy, so a copy
 * that is taken away lives until the step on it is over.
 *
 * Adapters are told apart by content (digest), never by address: the same bytes loaded twice are one. */
#include "engine_inner.h"

#include <math.h>
#include <string.h>

/* ---- tables ---- */

static struct merged_entry *find(struct merged_table *t, const uint8_t digest[32])
{
    for (uint32_t i = 0; i < t->n; i++)
        if (memcmp(t->entries[i].digest, digest, sizeof t->entries[i].digest) == 0)
            return &t->entries[i];
    return NULL;
}

static void release_all(struct merged_table *t)
{
    for (uint32_t i = 0; i < t->n; i++)
        merged_copy_release(t->entries[i].copy);
    t->n = 0;
}

/* ---- traffic ---- */

#define TRAFFIC_RATE (1.0 / TRAFFIC_STEPS)

/* The share after the steps since then, which were others'. */
static double share_now(const struct traffic *t, const struct traffic_entry *entry)
{
    return entry->share * pow(1 - TRAFFIC_RATE, (double)(t->n_steps - entry->step));
}

static struct traffic_entry *find_traffic(struct traffic *t, const uint8_t digest[32])
{
    for (uint32_t i = 0; i < t->n; i++)
        if (memcmp(t->entries[i].digest, digest, sizeof t->entries[i].digest) == 0)
            return &t->entries[i];
    return NULL;
}

/* The adapter's entry, or one in the place of the least wanted. */
static struct traffic_entry *traffic_of(struct traffic *t, const uint8_t digest[32])
{
    struct traffic_entry *entry = find_traffic(t, digest);
    if (entry)
        return entry;
    if (t->n < MERGED_COPIES_MAX) {
        entry = &t->entries[t->n++];
    } else {
        entry = &t->entries[0];
        for (uint32_t i = 1; i < t->n; i++)
            if (share_now(t, &t->entries[i]) < share_now(t, entry))
                entry = &t->entries[i];
    }
    *entry = (struct traffic_entry){.step = t->n_steps};
    memcpy(entry->digest, digest, sizeof entry->digest);
    return entry;
}

/* A step of n_rows that wanted `lora` as a whole (NULL: none did). */
static void count_traffic(struct engine *e, const struct lora *lora, uint32_t n_rows)
{
    struct traffic *t = &e->merged_box.traffic;
    pthread_mutex_lock(&e->merged_box.lock);
    t->n_steps++;
    if (lora) {
        struct traffic_entry *entry = traffic_of(t, lora->digest);
        bool is_new = entry->n_rows == 0;
        entry->share = share_now(t, entry) + TRAFFIC_RATE;
        entry->step = t->n_steps;
        /* of its own steps: as fast as the share, but right from the beginning */
        entry->n_rows += (n_rows - entry->n_rows) * (is_new ? 1 : TRAFFIC_RATE * 8);
    }
    pthread_mutex_unlock(&e->merged_box.lock);
}

struct cost_load engine_traffic(struct engine *e, const uint8_t lora_digest[32])
{
    struct cost_load load = {0};
    pthread_mutex_lock(&e->merged_box.lock);
    const struct traffic_entry *entry = find_traffic(&e->merged_box.traffic, lora_digest);
    if (entry)
        load = (struct cost_load){share_now(&e->merged_box.traffic, entry), entry->n_rows};
    pthread_mutex_unlock(&e->merged_box.lock);
    return load;
}

/* ---- the front's side ---- */

enum status engine_merged_init(struct engine *e, struct error *err)
{
    if (pthread_mutex_init(&e->merged_box.lock, NULL) != 0)
        return fail(err, STATUS_NO_MEMORY, "no lock for merged copies");
    e->merged_box.has_lock = true;
    return STATUS_OK;
}

void engine_merged_fini(struct engine *e)
{
    release_all(&e->merged);
    release_all(&e->merged_box.wanted);
    if (e->merged_box.has_lock)
        pthread_mutex_destroy(&e->merged_box.lock);
}

/* Wakes an idle engine, so that it lets go of what was taken away. */
static void tell(struct engine *e)
{
    const struct message m = {0};
    /* relaxed: only a hint that saves a step the lock */
    atomic_fetch_add_explicit(&e->merged_box.version, 1, memory_order_relaxed);
    /* acq_rel: pairs with the thread's; a message that is on its way finds this change in the box */
    if (atomic_exchange_explicit(&e->merged_box.told, true, memory_order_acq_rel))
        return;
    bool sent = queue_put(e->inbox, &m);
    require(sent); /* the inbox has room for one such message */
}

void engine_set_costs(struct engine *e, const struct cost_model *costs)
{
    struct cost_curve curve;
    if (e->has_costs)
        return;
    e->costs = *costs;
    e->has_costs = true;
    cost_curve(costs, e->model, NULL, &curve);
    pthread_mutex_lock(&e->merged_box.lock);
    e->merged_box.curve = curve;
    pthread_mutex_unlock(&e->merged_box.lock);
    tell(e);
}

enum status engine_set_merged(struct engine *e, struct merged_copy *copy, enum merged_use use,
                              struct error *err)
{
    struct merged_box *box = &e->merged_box;
    const struct lora *lora = merged_copy_lora(copy);
    struct merged_entry made = {.copy = copy, .use = use};
    struct merged_copy *before = NULL;
    if (lora->model != e->model)
        return fail(err, STATUS_MISMATCH,
                    "the merged copy is one of another base model than the one that runs");
    memcpy(made.digest, lora->digest, sizeof made.digest);
    if (use == MERGED_AUTO && e->has_costs) {
        cost_curve(&e->costs, e->model, lora, &made.unmerged);
        cost_curve(&e->costs, merged_copy_model(copy), NULL, &made.merged);
    }
    pthread_mutex_lock(&box->lock);
    struct merged_entry *entry = find(&box->wanted, lora->digest);
    bool full = !entry && box->wanted.n == MERGED_COPIES_MAX;
    if (entry)
        before = entry->copy;
    else if (!full)
        entry = &box->wanted.entries[box->wanted.n++];
    if (entry) {
        *entry = made;
        merged_copy_acquire(copy);
    }
    pthread_mutex_unlock(&box->lock);
    merged_copy_release(before);
    if (full)
        return fail(err, STATUS_FULL, "%u merged copies are in use already", MERGED_COPIES_MAX);
    tell(e);
    return STATUS_OK;
}

void engine_drop_merged(struct engine *e, const uint8_t lora_digest[32])
{
    struct merged_box *box = &e->merged_box;
    struct merged_copy *copy = NULL;
    pthread_mutex_lock(&box->lock);
    struct merged_entry *entry = find(&box->wanted, lora_digest);
    if (entry) {
        copy = entry->copy;
        *entry = box->wanted.entries[--box->wanted.n];
    }
    pthread_mutex_unlock(&box->lock);
    merged_copy_release(copy);
    if (copy)
        tell(e);
}

/* ---- the engine thread's side ---- */

static void take_over(struct engine *e)
{
    struct merged_box *box = &e->merged_box;
    struct merged_table before = e->merged;
    struct error err;
    pthread_mutex_lock(&box->lock);
    struct cost_curve curve = box->curve;
    box->curve = (struct cost_curve){{0}};
    e->merged = box->wanted;
    for (uint32_t i = 0; i < e->merged.n; i++)
        merged_copy_acquire(e->merged.entries[i].copy);
    pthread_mutex_unlock(&box->lock);
    release_all(&before);
    if (curve.ns[0] > 0)
        engine_drafts_curve(e, &curve);
    for (uint32_t i = e->merged.n; i-- > 0;) {
        struct merged_entry *entry = &e->merged.entries[i];
        if (step_reserve_model(e->space, merged_copy_model(entry->copy), &err) == STATUS_OK)
            continue;
        merged_copy_release(entry->copy); /* no scratch for it: its adapter stays unmerged */
        *entry = e->merged.entries[--e->merged.n];
    }
}

void engine_merged_told(struct engine *e)
{
    /* acq_rel: reads what the front wrote, so all changes that it sent no message for are in the box */
    atomic_exchange_explicit(&e->merged_box.told, false, memory_order_acq_rel);
    take_over(e);
}

void engine_merged_sync(struct engine *e)
{
    /* relaxed: a change that isn't seen yet has a message on its way */
    unsigned version = atomic_load_explicit(&e->merged_box.version, memory_order_relaxed);
    if (version == e->merged_version)
        return;
    e->merged_version = version;
    take_over(e);
}

/* The adapter that all rows want, or NULL. */
static const struct lora *wanted_by_all(const struct engine *e)
{
    const struct lora *first = e->batch[0].lora;
    for (uint32_t i = 0; i < e->n_batch; i++) {
        const struct lora *l = e->batch[i].lora;
        if (!l || e->batch[i].lora_begin > 0)
            return NULL;
        if (l != first && memcmp(l->digest, first->digest, sizeof l->digest) != 0)
            return NULL;
    }
    return first;
}

static bool is_worth_it(const struct merged_entry *entry, uint32_t n_rows)
{
    if (entry->use == MERGED_ALWAYS)
        return true;
    return cost_curve_at(&entry->merged, n_rows) < cost_curve_at(&entry->unmerged, n_rows);
}

const struct model *engine_merged_choose(struct engine *e, uint32_t n_rows)
{
    const struct lora *lora = wanted_by_all(e);
    count_traffic(e, lora, n_rows);
    const struct merged_entry *entry = lora ? find(&e->merged, lora->digest) : NULL;
    if (!entry || !is_worth_it(entry, n_rows))
        return e->model;
    for (uint32_t i = 0; i < e->n_batch; i++)
        e->batch[i].lora = NULL;
    return merged_copy_model(entry->copy);
}
