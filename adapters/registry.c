/* Names and their current versions: an array sorted by name. Owner: front thread, so no locks. Publishing is
 * one pointer's swap; a version that requests still use lives on by their references. */
#include <stdio.h>
#include <string.h>

#include "adapters.h"
#include "base/mem.h"

struct registry {
    uint32_t n_max;
    size_t n;
    uint64_t generation;             /* of the latest publication */
    struct adapter_version *items[]; /* [n_max], sorted by name */
};

struct registry *registry_create(uint32_t n_adapters_max)
{
    struct registry *r = mem_zalloc(sizeof *r + n_adapters_max * sizeof r->items[0]);
    if (r)
        r->n_max = n_adapters_max;
    return r;
}

void registry_destroy(struct registry *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        adapter_release(r->items[i]);
    mem_free(r);
}

/* The name's place, or where it would go. */
static bool find(const struct registry *r, const char *name, size_t *index)
{
    size_t low = 0, high = r->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(r->items[middle]->name, name);
        if (order == 0) {
            *index = middle;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *index = low;
    return false;
}

enum status registry_publish(struct registry *r, struct adapter_version *v, bool in_place, bool *replaced,
                             struct error *err)
{
    size_t i;
    bool taken = find(r, v->name, &i);
    if (replaced)
        *replaced = false;
    if (taken && !in_place)
        return fail(err, STATUS_EXISTS, "adapter '%s' exists already", v->name);
    if (!taken && r->n >= r->n_max)
        return fail(err, STATUS_FULL, "%zu adapters are loaded, which is the limit; unload one first", r->n);
    if (!taken) {
        memmove(&r->items[i + 1], &r->items[i], (r->n - i) * sizeof r->items[0]);
        r->n++;
        v->generation = ++r->generation;
        r->items[i] = v;
        return STATUS_OK;
    }
    struct adapter_version *old = r->items[i];
    bool same = memcmp(old->digest, v->digest, sizeof v->digest) == 0 && old->user_scale == v->user_scale;
    /* The same content again keeps its number. The new object takes over all the same, so that the caller's
     * pointer stays good and says what is current. */
    v->generation = same ? old->generation : ++r->generation;
    r->items[i] = v;
    if (replaced)
        *replaced = !same;
    adapter_release(old);
    return STATUS_OK;
}

struct adapter_version *registry_acquire(struct registry *r, const char *name)
{
    size_t i;
    return find(r, name, &i) ? adapter_acquire(r->items[i]) : NULL;
}

enum status registry_remove(struct registry *r, const char *name, struct error *err)
{
    size_t i;
    if (!find(r, name, &i))
        return fail(err, STATUS_NOT_FOUND, "adapter '%.80s' does not exist", name);
    adapter_release(r->items[i]);
    r->n--;
    memmove(&r->items[i], &r->items[i + 1], (r->n - i) * sizeof r->items[0]);
    return STATUS_OK;
}

size_t registry_count(const struct registry *r)
{
    return r->n;
}

const struct adapter_version *registry_at(const struct registry *r, size_t index)
{
    return index < r->n ? r->items[index] : NULL;
}
