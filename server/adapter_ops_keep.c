/* The state file's side of adapter_ops: what the registry says of a name is written by a worker, one
 * transaction at a time; changes that come while one is written share the next. An operation is answered
 * when its name is on the disk. */
#include <string.h>

#include "adapter_ops_inner.h"
#include "base/clock.h"
#include "base/mem.h"
#include "server.h"
#include "state.h"
#include "voice_expr.h"

struct wish_to_keep {
    struct wish_to_keep *next;
    char name[ADAPTER_NAME_MAX + 1];
    struct keep_note note;
    char by[64];
    char *outcome;                                                    /* note's */
    void (*done)(enum status s, const struct error *err, void *data); /* or NULL */
    void *data;
    /* of the transaction */
    struct state_name *snapshot; /* NULL: the name is gone */
};

struct keeper {
    struct adapter_ops *ops;
    struct state *state;
    struct wish_to_keep *waiting, **last;
    struct wish_to_keep *writing;   /* a worker has these */
    struct state_counters counters; /* written now, or last */
    bool is_writing;
    bool counters_due; /* without any name's change */
    enum status status;
    struct error err;
};

/* ---- on a worker */

static void write_batch(void *data)
{
    struct keeper *k = data;
    size_t n = 0, i = 0;
    if (!k->writing) {
        k->status = state_apply(k->state, NULL, 0, &k->counters, &k->err);
        return;
    }
    for (const struct wish_to_keep *w = k->writing; w; w = w->next)
        n++;
    struct state_change *changes = mem_array(n, sizeof *changes);
    if (!changes) {
        k->status = fail(&k->err, STATUS_NO_MEMORY, "no memory to keep the change");
        return;
    }
    for (const struct wish_to_keep *w = k->writing; w; w = w->next, i++)
        changes[i] = (struct state_change){.name = w->name,
                                           .put = w->snapshot,
                                           .remove = !w->snapshot && !w->outcome,
                                           .operation = w->note.operation,
                                           .by = w->by,
                                           .generation = w->note.generation,
                                           .outcome = w->outcome};
    k->status = state_apply(k->state, changes, n, &k->counters, &k->err);
    mem_free(changes);
}

/* ---- on the front thread */

static void next_batch(struct keeper *k);

/* What the command line says of a name; NULL: nothing. */
static const struct conf_adapter *on_command_line(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->n_adapters; i++)
        if (strcmp(c->adapters[i].name, name) == 0)
            return &c->adapters[i];
    return NULL;
}

static void written(void *data)
{
    struct keeper *k = data;
    struct wish_to_keep *w = k->writing;
    if (k->status != STATUS_OK)
        LOG_EVENT(&k->ops->server->log, LOG_ERROR, "a change is in force but not kept",
                  LOG_TEXT("adapter", w ? w->name : "(counters)"), LOG_TEXT("why", k->err.text));
    if (k->status != STATUS_OK)
        k->counters.generation = 0; /* the next tick tries again */
    k->writing = NULL;
    k->is_writing = false;
    while (w) {
        struct wish_to_keep *next = w->next;
        if (w->done)
            w->done(k->status, k->status == STATUS_OK ? NULL : &k->err, w->data);
        state_name_destroy(w->snapshot);
        mem_free(w->outcome);
        mem_free(w);
        w = next;
    }
    next_batch(k);
}

static void next_batch(struct keeper *k)
{
    const struct registry *r = k->ops->server->registry;
    if (k->is_writing || (!k->waiting && !k->counters_due))
        return;
    k->is_writing = true;
    k->counters_due = false;
    k->writing = k->waiting;
    k->waiting = NULL;
    k->last = &k->waiting;
    registry_counters(r, &k->counters.revision, &k->counters.generation);
    k->status = STATUS_OK;
    for (struct wish_to_keep *w = k->writing; w; w = w->next) {
        const struct adapter *a = w->outcome ? NULL : registry_find(r, w->name);
        w->snapshot = a ? state_name_of(a) : NULL;
        if (a && !w->snapshot)
            k->status = fail(&k->err, STATUS_NO_MEMORY, "no memory to keep the change");
        const struct conf_adapter *c = on_command_line(k->ops->server->conf, w->name);
        if (w->snapshot && c)
            w->snapshot->start_source = c->path;
    }
    if (k->status != STATUS_OK) {
        written(k);
    } else if (!server_work(k->ops->server, write_batch, written, k)) {
        k->status = fail(&k->err, STATUS_NO_MEMORY, "no memory for a worker's task");
        written(k);
    }
}

static struct wish_to_keep *make_wish(const char *name, const struct keep_note *note)
{
    struct wish_to_keep *w = mem_zalloc(sizeof *w);
    if (!w)
        return NULL;
    snprintf(w->name, sizeof w->name, "%s", name);
    snprintf(w->by, sizeof w->by, "%s", note->by ? note->by : "");
    w->note = *note;
    w->outcome = note->outcome ? mem_strdup(note->outcome) : NULL;
    if (!note->outcome || w->outcome)
        return w;
    mem_free(w);
    return NULL;
}

static void append_wish(struct keeper *k, struct wish_to_keep *w)
{
    *k->last = w;
    k->last = &w->next;
    next_batch(k);
}

void adapter_ops_keep(struct adapter_ops *o, const char *name, const struct keep_note *note,
                      void (*done)(enum status s, const struct error *err, void *data), void *data)
{
    struct keeper *k = o->keeper;
    if (!note->outcome)
        ops_disown(o, name);
    if (!k) {
        if (done)
            done(STATUS_OK, NULL, data);
        return;
    }
    struct wish_to_keep *w = make_wish(name, note);
    if (!w) {
        struct error err;
        enum status s = fail(&err, STATUS_NO_MEMORY, "no memory to keep the change");
        if (done)
            done(s, &err, data);
        return;
    }
    w->done = done;
    w->data = data;
    append_wish(k, w);
}

bool adapter_ops_keeps(const struct adapter_ops *o)
{
    return o->keeper != NULL;
}

bool ops_is_keeping(const struct adapter_ops *o)
{
    return o->keeper && (o->keeper->is_writing || o->keeper->waiting);
}

void ops_keeper_tick(struct adapter_ops *o)
{
    uint64_t revision, generation;
    struct keeper *k = o->keeper;
    if (!k)
        return;
    registry_counters(o->server->registry, &revision, &generation);
    k->counters_due = generation / STATE_GENERATIONS_A_RUN > k->counters.generation / STATE_GENERATIONS_A_RUN;
    next_batch(k);
}

/* ---- start and end */

enum status ops_keeper_open(struct adapter_ops *o, struct error *err)
{
    const char *path = o->server->conf->state;
    if (!path)
        return STATUS_OK;
    struct keeper *k = mem_zalloc(sizeof *k);
    if (!k)
        return fail(err, STATUS_NO_MEMORY, "no memory for the state file");
    enum status s = state_open(path, &k->state, err);
    if (s != STATUS_OK) {
        mem_free(k);
        return s;
    }
    k->ops = o;
    k->last = &k->waiting;
    o->keeper = k;
    return STATUS_OK;
}

void ops_keeper_close(struct adapter_ops *o)
{
    mem_free(o->edited);
    o->edited = NULL;
    if (!o->keeper)
        return;
    state_close(o->keeper->state);
    mem_free(o->keeper);
    o->keeper = NULL;
}

static enum status restore_name(const struct state_name *n, void *data, struct error *err)
{
    struct adapter_ops *o = data;
    struct server *s = o->server;
    struct registry *r = s->registry;
    struct adapter *a = NULL;
    if (voice_is_base(n->wish.name, s->base.name)) {
        LOG_EVENT(&s->log, LOG_WARN, "a kept name is now the base's own and is left out",
                  LOG_TEXT("adapter", n->wish.name));
        return STATUS_OK;
    }
    const struct conf_adapter *c = on_command_line(s->conf, n->wish.name);
    if (c)
        o->edited[c - s->conf->adapters] = strcmp(c->path, n->start_source) != 0;
    enum status st = registry_register(r, &n->wish, &a, err);
    for (uint32_t i = 0; i < n->n_versions && st == STATUS_OK; i++) {
        const struct state_version *v = &n->versions[i];
        const struct version_restored kept = {.generation = v->generation,
                                              .source = v->source,
                                              .scale = v->scale,
                                              .published_wall_ms = v->published_wall_ms};
        st = registry_restore(r, a, &kept, v->digest, err);
    }
    if (st == STATUS_OK)
        registry_restore_roles(a, n->stable, n->previous, n->shadow);
    if (st == STATUS_OK && n->n_splits)
        st = registry_set_traffic(r, a, n->splits, n->n_splits, err);
    return st;
}

enum status ops_restore(struct adapter_ops *o, struct error *err)
{
    struct state_counters c = {0};
    if (!o->keeper)
        return STATUS_OK;
    struct keeper *k = o->keeper;
    o->edited = mem_array(o->server->conf->n_adapters, sizeof *o->edited);
    if (!o->edited)
        return fail(err, STATUS_NO_MEMORY, "no memory for the kept state");
    enum status s = state_load(k->state, &c, restore_name, o, err);
    if (s != STATUS_OK)
        return s;
    /* Numbers that the run before gave out beyond the last kept change are not given again. */
    uint64_t begin =
        c.generation ? (c.generation / STATE_GENERATIONS_A_RUN + 1) * STATE_GENERATIONS_A_RUN : 0;
    registry_set_counters(o->server->registry, c.revision, begin);
    k->counters = (struct state_counters){.revision = c.revision, .generation = begin + 1};
    return state_apply(k->state, NULL, 0, &k->counters, err);
}
