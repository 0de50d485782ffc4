/* A list of the sums in use, found by their members' addresses: an address can't come again while the sum
 * holds a reference. */
#include "blends.h"

#include <string.h>

#include "base/mem.h"

struct blend {
    struct blend *prev, *next;
    struct lora *lora; /* one reference for all users */
    size_t n_users;
};

struct blends {
    struct blend *first;
    size_t n;
};

struct blends *blends_create(void)
{
    return mem_zalloc(sizeof(struct blends));
}

void blends_destroy(struct blends *b)
{
    require(!b || !b->first);
    mem_free(b);
}

size_t blends_count(const struct blends *b)
{
    return b->n;
}

/* ---- members in their one order ---- */

struct members {
    uint32_t n;
    struct lora *loras[LORA_MEMBERS_MAX];
    float weights[LORA_MEMBERS_MAX];
};

static bool stands_before(const struct lora *l, float weight, const struct lora *other, float other_weight)
{
    int order = memcmp(l->digest, other->digest, sizeof l->digest);
    if (order == 0 && weight == other_weight)
        return l < other; /* equal content: either order gives the same numbers */
    return order ? order < 0 : weight < other_weight;
}

static enum status add(struct members *m, struct lora *l, float weight, struct error *err)
{
    if (weight == 0)
        return STATUS_OK;
    if (m->n == LORA_MEMBERS_MAX)
        return fail(err, STATUS_INVALID, "composition: more than %u adapters", LORA_MEMBERS_MAX);
    uint32_t i = m->n++;
    for (; i > 0 && stands_before(l, weight, m->loras[i - 1], m->weights[i - 1]); i--) {
        m->loras[i] = m->loras[i - 1];
        m->weights[i] = m->weights[i - 1];
    }
    m->loras[i] = l;
    m->weights[i] = weight;
    return STATUS_OK;
}

/* An adapter that was loaded with a scale of its own may be a composition itself: its members take its place.
 */
static enum status add_part(struct members *m, const struct lora_member *part, struct error *err)
{
    enum status s = STATUS_OK;
    struct lora *l = part->lora;
    if (l->n_members == 0)
        return add(m, l, part->weight, err);
    for (uint32_t i = 0; i < l->n_members && s == STATUS_OK; i++)
        s = add(m, l->members[i].lora, part->weight * l->members[i].weight, err);
    return s;
}

/* ---- sums ---- */

static bool is_sum_of(const struct lora *l, const struct members *m)
{
    bool same = l->n_members == m->n;
    for (uint32_t i = 0; same && i < m->n; i++)
        same = l->members[i].lora == m->loras[i] && l->members[i].weight == m->weights[i];
    return same;
}

static enum status find_or_make(struct blends *b, const struct members *m, struct lora **out,
                                struct error *err)
{
    struct blend *e = b->first;
    while (e && !is_sum_of(e->lora, m))
        e = e->next;
    if (!e) {
        struct lora *l;
        enum status s = lora_compose(m->loras, m->weights, m->n, &l, err);
        if (s != STATUS_OK)
            return s;
        e = mem_zalloc(sizeof *e);
        if (!e) {
            lora_release(l);
            return fail(err, STATUS_NO_MEMORY, "composition");
        }
        *e = (struct blend){.lora = l, .next = b->first};
        if (e->next)
            e->next->prev = e;
        b->first = e;
        b->n++;
    }
    e->n_users++;
    *out = lora_acquire(e->lora);
    return STATUS_OK;
}

enum status blends_acquire(struct blends *b, const struct lora_member *parts, uint32_t n, struct lora **out,
                           struct error *err)
{
    struct members m = {0};
    enum status s = STATUS_OK;
    *out = NULL;
    if (n == 1 && parts[0].weight == 1) {
        *out = lora_acquire(parts[0].lora); /* with a scale of its own: as it was loaded */
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < n && s == STATUS_OK; i++)
        s = add_part(&m, &parts[i], err);
    if (s != STATUS_OK || m.n == 0)
        return s;
    if (m.n == 1 && m.weights[0] == 1) {
        *out = lora_acquire(m.loras[0]);
        return STATUS_OK;
    }
    return find_or_make(b, &m, out, err);
}

void blends_release(struct blends *b, struct lora *l)
{
    struct blend *e = l && l->n_members ? b->first : NULL;
    while (e && e->lora != l)
        e = e->next;
    lora_release(l);
    if (!e || --e->n_users)
        return;
    if (e->prev)
        e->prev->next = e->next;
    else
        b->first = e->next;
    if (e->next)
        e->next->prev = e->prev;
    b->n--;
    lora_release(e->lora);
    mem_free(e);
}
