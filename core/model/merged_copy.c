/* A merged copy behind a count of references, so that front and engine may hold it without knowing of each
 * other. What it is made of is in merge.c. */
#include <stdatomic.h>

#include "base/mem.h"
#include "model_inner.h"

struct merged_copy {
    atomic_uint refs; /* any thread */
    struct model *model;
    struct lora *lora; /* borrowed: the model has a reference */
    enum dtype type;
};

enum status merged_copy_create(const struct model *base, struct lora *l, enum dtype type, struct team *team,
                               struct merged_copy **out, struct error *err)
{
    *out = NULL;
    struct merged_copy *c = mem_zalloc(sizeof *c);
    if (!c)
        return fail(err, STATUS_NO_MEMORY, "merged copy");
    enum status s = model_merge(base, l, type, team, &c->model, err);
    if (s != STATUS_OK) {
        mem_free(c);
        return s;
    }
    atomic_init(&c->refs, 1);
    c->lora = l;
    c->type = type;
    *out = c;
    return STATUS_OK;
}

struct merged_copy *merged_copy_acquire(struct merged_copy *c)
{
    if (c) /* relaxed: who acquires holds a reference already */
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void merged_copy_release(struct merged_copy *c)
{
    /* release: our reads are over before the count falls; acquire: the one who frees sees all others' reads
     * over. */
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    model_close(c->model);
    mem_free(c);
}

unsigned merged_copy_refs(const struct merged_copy *c)
{
    /* acquire: who sees 1 sees the others' reads over, too */
    return atomic_load_explicit(&c->refs, memory_order_acquire);
}

const struct model *merged_copy_model(const struct merged_copy *c)
{
    return c->model;
}

struct lora *merged_copy_lora(const struct merged_copy *c)
{
    return c->lora;
}

enum dtype merged_copy_type(const struct merged_copy *c)
{
    return c->type;
}
