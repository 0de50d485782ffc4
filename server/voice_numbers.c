/* Two sorted lists, ours and the registry's, are walked side by side whenever the registry has changed. */
#include "voice_numbers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define NO_ID UINT32_MAX

void voice_numbers_fini(struct voice_numbers *v)
{
    mem_free(v->items);
    mem_free(v->by_id);
    *v = (struct voice_numbers){0};
}

static struct numbered *find(struct numbered *items, size_t n, const char *name)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(items[middle].name, name);
        if (order == 0)
            return &items[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static int by_id(const void *a, const void *b, void *items)
{
    const struct numbered *all = items;
    uint32_t x = all[*(const uint32_t *)a].id, y = all[*(const uint32_t *)b].id;
    return (x > y) - (x < y);
}

void voice_numbers_update(struct voice_numbers *v, const struct registry *r, const char *const *first,
                          size_t n_first)
{
    if (v->revision && v->revision == registry_revision(r))
        return;
    size_t n = registry_count(r);
    struct numbered *items = mem_array(n ? n : 1, sizeof *items);
    uint32_t *order = mem_array(n ? n : 1, sizeof *order);
    if (!items || !order) {
        mem_free(items);
        mem_free(order);
        return;
    }
    for (size_t i = 0, old = 0; i < n; i++) {
        const char *name = registry_at(r, i)->wish.name;
        while (old < v->n && strcmp(v->items[old].name, name) < 0)
            old++;
        bool known = old < v->n && strcmp(v->items[old].name, name) == 0;
        items[i].id = known ? v->items[old].id : NO_ID;
        snprintf(items[i].name, sizeof items[i].name, "%s", name);
    }
    for (size_t i = 0; i < n_first; i++) {
        struct numbered *one = find(items, n, first[i]);
        if (one && one->id == NO_ID)
            one->id = v->next_id++;
    }
    for (size_t i = 0; i < n; i++) {
        if (items[i].id == NO_ID)
            items[i].id = v->next_id++;
        order[i] = (uint32_t)i;
    }
    qsort_r(order, n, sizeof *order, by_id, items);
    mem_free(v->items);
    mem_free(v->by_id);
    v->items = items;
    v->by_id = order;
    v->n = n;
    v->revision = registry_revision(r);
}

const struct numbered *voice_numbers_at(const struct voice_numbers *v, size_t index)
{
    return index < v->n ? &v->items[v->by_id[index]] : NULL;
}

const char *voice_numbers_name(const struct voice_numbers *v, int64_t id)
{
    size_t low = 0, high = v->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct numbered *one = &v->items[v->by_id[middle]];
        if (one->id == id)
            return one->name;
        if (one->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
