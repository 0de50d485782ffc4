/* Where names come from at start and afterwards: the command line, and the adapters folder. A folder of a few
 * is loaded at once, so that what is broken in it shows; of thousands the names are registered, and each is
 * loaded when it is asked for first. */
#include "adapter_ops_inner.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server.h"
#include "voice_expr.h"
#include "watch.h"

#define LOADED_AT_ONCE_MAX 64U

void ops_free_found(struct found *list)
{
    while (list) {
        struct found *f = list;
        list = f->next;
        mem_free(f);
    }
}

/* ---- on a worker */

struct scan {
    struct task *t;
    struct found **last;
};

static void on_found(const char *name, const char *path, void *data)
{
    struct scan *s = data;
    struct found *f = mem_zalloc(sizeof *f + strlen(path) + 1);
    if (!f)
        return;
    struct adapter_stat st = {0};
    struct error ignored; /* a load says it again */
    if (adapter_stat(path, -1, &st, &ignored) != STATUS_OK)
        st.signature = 0;
    f->signature = st.signature;
    f->file_bytes = st.file_bytes;
    snprintf(f->name, sizeof f->name, "%s", name);
    memcpy(f->path, path, strlen(path) + 1);
    *s->last = f;
    s->last = &f->next;
    s->t->n_found++;
}

static void on_skipped(const char *entry, const char *why, void *data)
{
    const struct scan *s = data;
    LOG_EVENT(&s->t->ops->server->log, LOG_WARN, "not an adapter", LOG_TEXT("entry", entry),
              LOG_TEXT("why", why));
}

static int by_name(const struct found *a, const struct found *b)
{
    return strcmp(a->name, b->name);
}

/* Entries come in the order of files' names, in which "a.gguf" may stand elsewhere than its name "a". */
static struct found *sort_found(struct found *list, size_t n)
{
    if (n < 2)
        return list;
    struct found *a = list, *b = list;
    for (size_t i = 1; i < n / 2; i++)
        b = b->next;
    struct found *middle = b;
    b = b->next;
    middle->next = NULL;
    a = sort_found(a, n / 2);
    b = sort_found(b, n - n / 2);
    struct found *out = NULL, **last = &out;
    while (a && b) {
        struct found **less = by_name(a, b) <= 0 ? &a : &b;
        *last = *less;
        *less = (*less)->next;
        last = &(*last)->next;
    }
    *last = a ? a : b;
    return out;
}

/* A folder "pt" beside a file "pt.gguf": the first one counts. */
static void drop_doubles(struct task *t)
{
    for (struct found *f = t->found; f && f->next;) {
        struct found *next = f->next;
        if (by_name(f, next) != 0) {
            f = next;
            continue;
        }
        LOG_EVENT(&t->ops->server->log, LOG_WARN, "two entries of one name: this one is left out",
                  LOG_TEXT("path", next->path));
        f->next = next->next;
        mem_free(next);
        t->n_found--;
    }
}

void ops_run_scan(struct task *t)
{
    struct scan s = {.t = t, .last = &t->found};
    t->o.status = adapters_scan(t->ops->server->conf->adapters_dir, on_found, on_skipped, &s, &t->o.err);
    t->found = sort_found(t->found, t->n_found);
    drop_doubles(t);
}

/* ---- on the front thread */

static void queue_load(struct adapter_ops *o, const struct adapter_wish *w)
{
    struct error err;
    struct load_order order = {.wish = *w, .as = PUBLISH_STABLE, .must_be_same = true, .by = "folder"};
    if (adapter_ops_load(o, &order, &err) != STATUS_OK)
        LOG_EVENT(&o->server->log, LOG_ERROR, "adapter not loaded", LOG_TEXT("adapter", w->name),
                  LOG_TEXT("why", err.text));
}

/* False: it stays, for now if it is being loaded. */
static bool remove_name(struct adapter_ops *o, const struct adapter *a)
{
    char name[ADAPTER_NAME_MAX + 1];
    struct error err;
    snprintf(name, sizeof name, "%s", a->wish.name); /* goes with the adapter */
    if (!a->wish.from_folder || registry_remove(o->server->registry, name, &err) != STATUS_OK)
        return false;
    LOG_EVENT(&o->server->log, LOG_INFO, "adapter removed: gone from its folder",
              LOG_TEXT("adapter", &name[0]));
    adapter_ops_keep(o, name, &(struct keep_note){.operation = "remove", .by = "folder"}, NULL, NULL);
    return true;
}

/* The folder's names that it no longer has: since the last look, or since an earlier run. Both lists are in
 * order of names. */
static void remove_gone(struct adapter_ops *o, const struct found *f)
{
    const struct registry *r = o->server->registry;
    for (size_t i = 0; i < registry_count(r);) {
        const struct adapter *a = registry_at(r, i);
        while (f && strcmp(f->name, a->wish.name) < 0)
            f = f->next;
        bool there = f && strcmp(f->name, a->wish.name) == 0;
        i += there || !remove_name(o, a);
    }
}

static bool is_resident(const struct adapter *a)
{
    const struct version_record *v = registry_record(a, a->stable);
    return v && v->version;
}

/* One that is there: new, changed or as before. */
static void take_found(struct adapter_ops *o, const struct found *f, bool changed, bool at_once)
{
    struct server *s = o->server;
    struct adapter *a = registry_find(s->registry, f->name);
    struct error err;
    bool taken = voice_is_base(f->name, s->base.name) || (a && !a->wish.from_folder);
    if (taken) {
        if (changed)
            LOG_EVENT(&s->log, LOG_WARN, "adapter in the folder left out: its name is taken",
                      LOG_TEXT("adapter", f->name));
        return;
    }
    if (!changed) /* if an operator has removed the name, it stays away until its files change */
        return;
    struct adapter_wish w = {.name = f->name,
                             .source = f->path,
                             .blend = "",
                             .scale = 1,
                             .from_folder = true,
                             .effect = s->conf->effect};
    if (a)
        w = a->wish;
    if (registry_register(s->registry, &w, &a, &err) != STATUS_OK) {
        LOG_EVENT(&s->log, LOG_ERROR, "adapter not registered", LOG_TEXT("adapter", f->name),
                  LOG_TEXT("why", err.text));
        return;
    }
    registry_set_file_bytes(a, f->file_bytes);
    if (at_once || is_resident(a) || a->wish.pinned)
        queue_load(o, &w);
}

/* What is being written stays as it was (or unknown) until the watch says that it is whole. At the start
 * everything is tried: there is nothing better to go on with. */
static void leave_unsettled(struct adapter_ops *o, struct task *t)
{
    if (o->server->state == SERVER_LOADING)
        return;
    const struct found *before = o->folder; /* both are in order of names */
    for (struct found **at = &t->found, *f; (f = *at);) {
        const char *slash = strrchr(f->path, '/');
        bool settled = watch_is_settled(o->server->watch, slash ? slash + 1 : f->path);
        while (before && by_name(before, f) < 0)
            before = before->next;
        bool known = before && by_name(before, f) == 0;
        if (!settled && known)
            f->signature = before->signature;
        if (settled || known) {
            at = &f->next;
            continue;
        }
        *at = f->next;
        mem_free(f);
        t->n_found--;
    }
}

void ops_scanned(struct task *t)
{
    struct adapter_ops *o = t->ops;
    if (t->o.status != STATUS_OK) {
        LOG_EVENT(&o->server->log, LOG_ERROR, "adapters folder not read", LOG_TEXT("why", t->o.err.text));
        return;
    }
    leave_unsettled(o, t);
    remove_gone(o, t->found);
    bool at_once = t->n_found <= LOADED_AT_ONCE_MAX;
    const struct found *before = o->folder;
    for (const struct found *f = t->found; f; f = f->next) {
        while (before && by_name(before, f) < 0)
            before = before->next;
        bool known = before && by_name(before, f) == 0;
        take_found(o, f, !known || before->signature != f->signature, at_once);
    }
    ops_free_found(o->folder);
    o->folder = t->found;
    t->found = NULL;
}

void adapter_ops_scan(struct adapter_ops *o)
{
    if (!o->server->conf->adapters_dir || o->stopping || !ops_append(o, TASK_SCAN))
        return;
    ops_next(o);
}

bool ops_is_own_source(const struct adapter_ops *o, const struct adapter_wish *w)
{
    const struct conf *c = o->server->conf;
    for (size_t i = 0; i < c->n_adapters; i++)
        if (strcmp(c->adapters[i].name, w->name) == 0 && strcmp(c->adapters[i].path, w->source) == 0)
            return true;
    return w->from_folder;
}

/* What was in force when the last run ended is in memory again, or comes with its first request. */
static enum status load_kept(struct adapter_ops *o, struct error *err)
{
    const struct registry *r = o->server->registry;
    size_t n = registry_count(r);
    enum status st = STATUS_OK;
    for (size_t i = 0; i < n && st == STATUS_OK; i++) {
        const struct adapter *a = registry_at(r, i);
        if (!a->stable || (n > LOADED_AT_ONCE_MAX && !a->wish.pinned))
            continue;
        struct load_order order = {
            .wish = a->wish, .as = PUBLISH_AGAIN, .generation = a->stable, .by = "start"};
        const struct version_record *v = registry_record(a, a->stable);
        if (v && v->source) {
            order.wish.source = v->source;
            order.wish.scale = v->scale;
        }
        st = adapter_ops_load(o, &order, err);
    }
    return st;
}

/* --adapter, unless an operator has since said otherwise: what was acknowledged counts, as long as the
 * command line says what it said then. A changed one wins, with the kept settings. */
static enum status load_named(struct adapter_ops *o, size_t index, struct error *err)
{
    struct server *s = o->server;
    const struct conf_adapter *c = &s->conf->adapters[index];
    const struct adapter *kept = registry_find(s->registry, c->name);
    struct load_order order = {
        .wish = {.effect = s->conf->effect}, .as = PUBLISH_STABLE, .required = true, .by = "start"};
    if (voice_is_base(c->name, s->base.name))
        return fail(err, STATUS_EXISTS, "--adapter %s: that is the base's own name", c->name);
    bool edited = o->edited && o->edited[index];
    if (kept && !edited && (kept->stable || kept->wish.blend[0])) {
        if (strcmp(kept->wish.source, c->path) != 0)
            LOG_EVENT(&s->log, LOG_WARN, "--adapter is overruled by what was loaded in its place and kept",
                      LOG_TEXT("adapter", c->name), LOG_TEXT("source", kept->wish.source));
        return STATUS_OK; /* load_kept has it */
    }
    if (kept)
        order.wish = kept->wish;
    order.wish.name = c->name;
    order.wish.source = c->path;
    order.wish.blend = "";
    order.wish.scale = c->scale;
    return adapter_ops_load(o, &order, err);
}

enum status adapter_ops_start(struct adapter_ops *o, struct error *err)
{
    const struct conf *c = o->server->conf;
    enum status st = ops_restore(o, err);
    for (size_t i = 0; i < c->n_adapters && st == STATUS_OK; i++)
        st = load_named(o, i, err);
    if (st == STATUS_OK)
        st = load_kept(o, err);
    if (st == STATUS_OK)
        adapter_ops_scan(o);
    return st;
}
