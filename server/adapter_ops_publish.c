/* The end of a load: what it makes of its name, beside what operators have made of that meanwhile. */
#include "adapter_ops_inner.h"

#include <string.h>

#include "base/clock.h"
#include "server.h"

void ops_disown(struct adapter_ops *o, const char *name)
{
    for (struct task *t = o->first; t; t = t->next)
        if (t->registered && strcmp(t->o.wish.name, name) == 0)
            t->registered = false;
}

static bool is_same_wish(const struct adapter_wish *a, const struct adapter_wish *b)
{
    return strcmp(a->source, b->source) == 0 && a->scale == b->scale && !a->blend[0] &&
           a->from_folder == b->from_folder;
}

bool ops_is_overtaken(struct task *t)
{
    struct registry *r = t->ops->server->registry;
    struct load_order *l = &t->o;
    struct adapter *a = registry_find(r, l->wish.name);
    bool is_first = l->as == PUBLISH_AGAIN && a && a->stable == 0;
    if (!a || l->dry_run || !(is_first || l->must_be_same))
        return false;
    if (is_same_wish(&a->wish, &l->wish))
        return false;
    if (t->reserved)
        registry_load_dropped(r, a);
    t->reserved = false;
    l->status = is_first ? STATUS_OK
                         : fail(&l->err, STATUS_CONFLICT, "adapter '%s' was changed while it was loaded",
                                l->wish.name);
    return true;
}

enum status ops_check_revision(const struct task *t, const struct adapter *a, struct error *err)
{
    const struct load_order *l = &t->o;
    bool exists = a && !t->registered;
    uint64_t now = exists ? a->revision : 0;
    if (l->must_be_new && exists)
        return fail(err, STATUS_EXISTS, "adapter '%s' exists already", l->wish.name);
    if (l->has_revision && l->revision != now)
        return fail(err, STATUS_CONFLICT,
                    "adapter '%s' is at revision %llu, not %llu: somebody else changed it; look, then decide",
                    l->wish.name, (unsigned long long)now, (unsigned long long)l->revision);
    return STATUS_OK;
}

/* Bytes of a version newer than the stable one, met where the stable one was looked for: an operator has
 * rolled back from them, and only an operator brings them back. */
static enum status check_not_rolled_back(const struct task *t, const struct adapter *a, struct error *err)
{
    const struct load_order *l = &t->o;
    bool asked_for = strcmp(l->by, "api") == 0 || (l->as == PUBLISH_AGAIN && l->generation != a->stable);
    for (uint32_t i = 0; i < a->n_records && !asked_for; i++) {
        const struct version_record *v = &a->records[i];
        if (v->generation > a->stable && memcmp(v->digest, t->version->digest, sizeof v->digest) == 0)
            return fail(
                err, STATUS_CONFLICT,
                "adapter '%s': its files are those of generation %llu, from which it was rolled back to "
                "%llu; publish them again to use them",
                l->wish.name, (unsigned long long)v->generation, (unsigned long long)a->stable);
    }
    return STATUS_OK;
}

/* Settings that the order leaves as they were when it came are as they are now: somebody may have changed
 * them while it was being loaded. */
static void follow_settings(struct task *t, const struct adapter_wish *now)
{
    struct adapter_wish *w = &t->o.wish;
    if (w->pinned == t->before.pinned)
        w->pinned = now->pinned;
    if (w->merge == t->before.merge)
        w->merge = now->merge;
    if (w->effect == t->before.effect)
        w->effect = now->effect;
}

enum status ops_publish(struct task *t)
{
    struct registry *r = t->ops->server->registry;
    struct load_order *l = &t->o;
    struct adapter *a = registry_find(r, l->wish.name);
    enum status s = ops_check_revision(t, a, &l->err);
    if (s == STATUS_OK && a->stable)
        s = check_not_rolled_back(t, a, &l->err);
    if (s != STATUS_OK)
        return s;
    follow_settings(t, &a->wish);
    struct publication p = {.as = l->as, .generation = l->generation, .source = l->wish.source};
    uint64_t before = a->stable;
    t->reserved = false; /* ends with the publication, whatever comes of it */
    struct adapter_version *v = t->version;
    uint64_t bytes = v->lora->size_bytes;
    t->version = NULL;
    s = registry_publish(r, a, v, &p, clock_now_ns(), &l->err);
    if (s == STATUS_FULL)
        t->bytes = bytes; /* more than was reserved */
    if (s != STATUS_OK)
        return s;
    if (l->as == PUBLISH_STABLE || before == 0)
        s = registry_register(r, &l->wish, NULL, &l->err);
    l->unchanged = p.unchanged;
    l->generation_now = p.generation;
    /* Held until the answer is written: the name may be gone before its state is on the disk. */
    l->version = t->version = p.version ? adapter_acquire(p.version) : NULL;
    l->created = before == 0;
    l->replaced = before != 0 && a->stable != before;
    return s;
}
