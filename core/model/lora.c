/* An adapter's life: names of sites, references, compositions. Building is in lora_build.c.
 *
 * A composition has no weights of its own: it holds references to its members and their weights, and the step
 * walks over them (lora_apply.c). Only sums compose: what stands in the place of a base's tensor is all or
 * nothing. */
#include "lora.h"

#include <string.h>

#include "base/mem.h"
#include "model_inner.h"

const char *lora_site_name(enum lora_site s)
{
    static const char *const names[] = {
#define SITE_NAME(name, text) text,
        LORA_SITE_LIST(SITE_NAME)
#undef SITE_NAME
    };
    return (unsigned)s < LORA_SITE_COUNT ? names[s] : "?";
}

bool lora_site_find(const char *name, enum lora_site *out)
{
    for (unsigned s = 0; s < LORA_SITE_COUNT; s++)
        if (strcmp(lora_site_name((enum lora_site)s), name) == 0) {
            *out = (enum lora_site)s;
            return true;
        }
    return false;
}

/* ---- composition ---- */

static enum status check_member(const struct lora *l, float weight, const struct lora *first, uint32_t n,
                                struct error *err)
{
    if (l->model != first->model)
        return fail(err, STATUS_MISMATCH, "composition: its adapters were built for different bases");
    if (l->n_members > 0)
        return fail(err, STATUS_UNSUPPORTED, "composition: one of its adapters is a composition itself");
    if (!(weight - weight == 0)) /* NaN or infinite */
        return fail(err, STATUS_INVALID, "composition: a weight is not a finite number");
    if (l->replaces && weight != 0 && (n > 1 || weight != 1))
        return fail(err, STATUS_UNSUPPORTED,
                    "composition: an adapter that replaces tensors (modules_to_save, biases, token rows) "
                    "stands alone, "
                    "with weight 1");
    if (l->n_invocation > 0 && n > 1)
        return fail(
            err, STATUS_UNSUPPORTED,
            "composition: an adapter with invocation tokens begins inside a prompt, so it stands alone");
    return STATUS_OK;
}

static void add_member(struct lora *l, struct lora *member, float weight)
{
    l->members[l->n_members++] = (struct lora_member){lora_acquire(member), weight};
    l->rank_max = member->rank_max > l->rank_max ? member->rank_max : l->rank_max;
    l->t_max += member->t_max;
    l->n_parameters += member->n_parameters;
}

enum status lora_compose(struct lora *const *loras, const float *weights, uint32_t n, struct lora **out,
                         struct error *err)
{
    *out = NULL;
    if (n == 0 || n > LORA_MEMBERS_MAX)
        return fail(err, STATUS_INVALID, "composition of %u adapters, expected 1 to %u", n, LORA_MEMBERS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        enum status status = check_member(loras[i], weights[i], loras[0], n, err);
        if (status != STATUS_OK)
            return status;
    }
    struct lora *l = mem_zalloc(sizeof *l);
    if (!l)
        return fail(err, STATUS_NO_MEMORY, "composition");
    atomic_init(&l->refs, 1);
    l->model = loras[0]->model;
    l->n_layers = loras[0]->n_layers;
    l->size_bytes = sizeof *l;
    for (uint32_t i = 0; i < n; i++)
        add_member(l, loras[i], weights[i]);
    enum status status = members_digest(l, err);
    if (status != STATUS_OK) {
        lora_release(l);
        return status;
    }
    *out = l;
    return STATUS_OK;
}

uint32_t lora_begin(const struct lora *l, const int32_t *prompt, uint32_t n_prompt)
{
    if (l->n_members == 1)
        l = l->members[0].lora;
    if (l->n_invocation == 0)
        return 0;
    for (uint32_t at = n_prompt; at >= l->n_invocation; at--)
        if (memcmp(prompt + (at - l->n_invocation), l->invocation, l->n_invocation * sizeof *prompt) == 0)
            return at - l->n_invocation;
    return UINT32_MAX;
}

/* ---- references ---- */

struct lora *lora_acquire(struct lora *l)
{
    if (l) /* relaxed: who acquires holds a reference already */
        atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void lora_release(struct lora *l)
{
    /* release: our reads are over before the count falls; acquire: the one who frees sees all others' reads
     * over. */
    if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < l->n_members; i++)
        lora_release(l->members[i].lora);
    for (uint32_t i = 0; l->layers && i < l->n_layers; i++) {
        mem_free(l->layers[i].experts);
        mem_free(l->layers[i].replaced);
    }
    mem_free(l->ends);
    mem_free(l->invocation);
    mem_free(l->memory);
    mem_free(l->layers);
    mem_free(l);
}
