/* Low-rank pairs on their way from an adapter's files to a `struct lora`. Inner wall of adapters.
 *
 * A format's loader knows names; this knows places: one slot for each (site, layer), each with the tensors
 * found for it. A new kind of tensor (magnitudes, biases) is a new member of `struct slot`. */
#ifndef LK_ADAPTERS_CONTENT_H
#define LK_ADAPTERS_CONTENT_H

#include "adapters.h"
#include "base/arena.h"
#include "format.h"
#include "model.h"

#define ADAPTER_RANK_MAX 4096
#define SLOT_COUNT (LORA_SITE_COUNT * CONFIG_LAYERS_MAX)

struct slot {
    const char *path;       /* the module as the file calls it; NULL: the slot is empty */
    const struct tensor *a; /* [rank, in] */
    const struct tensor *b; /* [out, rank] */
};

struct content {
    const struct model *model; /* NULL: only looked at (inspect) */
    struct arena *arena;       /* names, rows brought into order, values brought into alignment */
    const struct tensors *tensors;
    const char *shown;
    struct slot slots[SLOT_COUNT];
    struct lora_pair *pairs; /* filled by content_add_pair */
    size_t n_pairs;
    struct adapter_report *report;
};

/* NULL when memory is short. */
struct content *content_create(const struct model *m, struct adapter_report *report);
void content_destroy(struct content *c); /* NULL is fine */

/* The slot of a place; layers are below CONFIG_LAYERS_MAX. */
struct slot *content_slot(struct content *c, enum lora_site site, uint32_t layer);
/* Puts a tensor into an empty member of a slot; a second one for the same place is refused. */
LK_MUST_USE enum status content_put(struct content *c, struct slot *slot, const char *path,
                                    const struct tensor **member, const struct tensor *t, struct error *err);
/* Shapes, types and finite values of a slot's pair; then it is appended to `pairs` with `scale`. */
LK_MUST_USE enum status content_add_pair(struct content *c, const struct slot *slot, float scale,
                                         struct error *err);
/* Sums up what the pairs are into the report (modules, ranks, parameters). */
void content_report(struct content *c);

static inline enum lora_site slot_site(const struct content *c, const struct slot *s)
{
    return (enum lora_site)((s - c->slots) / CONFIG_LAYERS_MAX);
}
static inline uint32_t slot_layer(const struct content *c, const struct slot *s)
{
    return (uint32_t)((s - c->slots) % CONFIG_LAYERS_MAX);
}

#endif
