/* Names in an array sorted by name, what is wished of them, which version a request gets, and the log of
 * changes. Versions and their roles are in registry_versions.c, their bytes in registry_residency.c. Owner:
 * front thread, so no locks. */
#include "registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "registry_inner.h"

#define PIN_DIGITS_MIN 8U

struct registry *registry_create(const struct registry_options *o)
{
    struct registry *r = mem_zalloc(sizeof *r);
    if (!r)
        return NULL;
    r->o = *o;
    r->keep_min_ns = INT64_MAX;
    r->now_ns = INT64_MIN;
    return r;
}

static void entry_destroy(struct registry *r, struct entry *e)
{
    for (uint32_t i = 0; i < e->a.n_records; i++)
        if (e->a.records[i].version)
            holding_drop(r, &e->a.records[i]);
    reservation_end(r, e);
    records_free(e);
    mem_free(e->a.last_error);
    mem_free(e->texts);
    mem_free(e);
}

void registry_destroy(struct registry *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        entry_destroy(r, r->entries[i]);
    require(r->n_retired == 0); /* a version is still in use */
    mem_free(r->entries);
    mem_free(r->tenants);
    mem_free(r);
}

void registry_tick(struct registry *r, int64_t now_ns)
{
    if (now_ns > r->now_ns)
        r->now_ns = now_ns;
}

int64_t registry_time_after(const struct registry *r, int64_t ns)
{
    int64_t t;
    if (__builtin_add_overflow(r->now_ns, ns, &t) || t == INT64_MAX)
        return INT64_MAX - 1;
    return t ? t : 1;
}

/* ---- names */

/* The name's place, or where it would go. */
static bool find(const struct registry *r, const char *name, size_t *index)
{
    size_t low = 0, high = r->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(r->entries[middle]->name, name);
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

struct adapter *registry_find(const struct registry *r, const char *name)
{
    size_t i;
    return find(r, name, &i) ? &r->entries[i]->a : NULL;
}

size_t registry_count(const struct registry *r)
{
    return r->n;
}

struct adapter *registry_at(const struct registry *r, size_t index)
{
    return index < r->n ? &r->entries[index]->a : NULL;
}

/* Source and blend in one block of the entry's. */
static enum status copy_wish(struct entry *e, const struct adapter_wish *w, struct error *err)
{
    const char *source = w->source ? w->source : "", *blend = w->blend ? w->blend : "";
    size_t n_source = strlen(source) + 1, n_blend = strlen(blend) + 1;
    char *texts = mem_alloc(n_source + n_blend);
    if (!texts)
        return fail(err, STATUS_NO_MEMORY, "adapter '%s': no memory to register it", w->name);
    memcpy(texts, source, n_source);
    memcpy(texts + n_source, blend, n_blend);
    mem_free(e->texts);
    e->texts = texts;
    e->a.wish = *w;
    e->a.wish.name = e->name;
    e->a.wish.source = texts;
    e->a.wish.blend = texts + n_source;
    return STATUS_OK;
}

static bool wishes_equal(const struct adapter_wish *a, const struct adapter_wish *b)
{
    return strcmp(a->source, b->source ? b->source : "") == 0 &&
           strcmp(a->blend, b->blend ? b->blend : "") == 0 && a->scale == b->scale &&
           a->pinned == b->pinned && a->from_folder == b->from_folder && a->merge == b->merge &&
           a->effect == b->effect;
}

static enum status grow(struct registry *r, struct error *err)
{
    if (r->n < r->capacity)
        return STATUS_OK;
    size_t capacity = r->capacity ? r->capacity * 2 : 64;
    struct entry **more = mem_realloc(r->entries, capacity * sizeof *more);
    if (!more)
        return fail(err, STATUS_NO_MEMORY, "no memory for another adapter's name");
    r->entries = more;
    r->capacity = capacity;
    return STATUS_OK;
}

static enum status add(struct registry *r, size_t index, const struct adapter_wish *w, struct error *err)
{
    if (!adapter_name_is_valid(w->name))
        return fail(
            err, STATUS_INVALID,
            "'%.80s' is no adapter name: letters, digits, '.', '_', '-', at most %d, a letter or digit first",
            w->name, ADAPTER_NAME_MAX);
    if (r->n >= r->o.n_names_max)
        return fail(err, STATUS_FULL, "%zu adapters are registered, which is the limit; remove one first",
                    r->n);
    enum status s = grow(r, err);
    if (s != STATUS_OK)
        return s;
    struct entry *e = mem_zalloc(sizeof *e);
    if (!e)
        return fail(err, STATUS_NO_MEMORY, "adapter '%s': no memory to register it", w->name);
    snprintf(e->name, sizeof e->name, "%s", w->name);
    s = copy_wish(e, w, err);
    if (s != STATUS_OK) {
        mem_free(e);
        return s;
    }
    memmove(&r->entries[index + 1], &r->entries[index], (r->n - index) * sizeof *r->entries);
    r->entries[index] = e;
    r->n++;
    registry_tell(r, e, CHANGE_REGISTERED, 0);
    return STATUS_OK;
}

enum status registry_register(struct registry *r, const struct adapter_wish *w, struct adapter **out,
                              struct error *err)
{
    size_t i;
    enum status s = STATUS_OK;
    if (!find(r, w->name, &i)) {
        s = add(r, i, w, err);
    } else if (!wishes_equal(&r->entries[i]->a.wish, w)) {
        struct entry *e = r->entries[i];
        s = copy_wish(e, w, err);
        if (s == STATUS_OK) {
            entry_settle(r, e);
            registry_tell(r, e, CHANGE_SETTINGS, e->a.stable);
        }
    }
    if (s == STATUS_OK && out)
        *out = &r->entries[i]->a;
    return s;
}

enum status registry_remove(struct registry *r, const char *name, struct error *err)
{
    size_t i;
    if (!find(r, name, &i))
        return fail(err, STATUS_NOT_FOUND, "adapter '%.80s' does not exist", name);
    struct entry *e = r->entries[i];
    if (e->a.loading)
        return fail(err, STATUS_EXISTS, "adapter '%s' is being loaded; remove it when that is over", name);
    r->n--;
    memmove(&r->entries[i], &r->entries[i + 1], (r->n - i) * sizeof *r->entries);
    registry_tell(r, e, CHANGE_REMOVED, e->a.stable);
    entry_destroy(r, e);
    return STATUS_OK;
}

void registry_set_file_bytes(struct adapter *a, uint64_t file_bytes)
{
    if (a->file_bytes != file_bytes)
        a->load_bytes = 0;
    a->file_bytes = file_bytes;
}

void registry_set_load_bytes(struct adapter *a, uint64_t load_bytes)
{
    a->load_bytes = load_bytes;
}

void registry_note_shadow(struct adapter *a, uint64_t generation, const struct shadow_totals *more)
{
    struct version_record *v = registry_record(a, generation);
    if (!v)
        return;
    v->shadow.n_tokens += more->n_tokens;
    v->shadow.n_agree += more->n_agree;
    v->shadow.n_served += more->n_served;
    v->shadow.n_failed += more->n_failed;
    v->shadow.n_replies += more->n_replies;
    v->shadow.n_dropped += more->n_dropped;
    v->shadow.kl_sum += more->kl_sum;
    v->n_failures += more->n_failed > 0;
}

void registry_set_pinned(struct registry *r, struct adapter *a, bool pinned)
{
    if (a->wish.pinned == pinned)
        return;
    a->wish.pinned = pinned;
    entry_settle(r, entry_of(a));
    registry_tell(r, entry_of(a), CHANGE_SETTINGS, a->stable);
}

/* ---- which version */

/* The canonical form alone: "007" may be a digest's beginning. */
static bool parse_generation(const char *pin, uint64_t *out)
{
    size_t n = strspn(pin, "0123456789");
    if (n == 0 || pin[n] || n > 19 || pin[0] == '0')
        return false;
    *out = strtoull(pin, NULL, 10);
    return true;
}

static enum status choose_by_digest(const struct adapter *a, const char *pin, size_t n, uint64_t *generation,
                                    struct error *err)
{
    const struct version_record *found = NULL;
    for (uint32_t i = 0; i < a->n_records; i++) {
        const struct version_record *v = &a->records[i];
        if (strncasecmp(v->digest_hex, pin, n) != 0)
            continue;
        /* The same files with another scale: the one in force, else the newest. */
        if (found && memcmp(found->digest, v->digest, sizeof v->digest) == 0) {
            found = v->generation == a->stable ? v : found;
            continue;
        }
        if (found)
            return fail(
                err, STATUS_INVALID,
                "adapter '%s': '%s' begins the digests of generations %llu and %llu; give more digits",
                a->wish.name, pin, (unsigned long long)found->generation, (unsigned long long)v->generation);
        found = v;
    }
    if (!found)
        return fail(err, STATUS_NOT_FOUND, "adapter '%s' has no version '%s'", a->wish.name, pin);
    *generation = found->generation;
    return STATUS_OK;
}

static uint64_t choose_by_traffic(const struct adapter *a, uint64_t sticky_hash)
{
    uint64_t point = sticky_hash % 10000;
    for (uint32_t i = 0; i < a->n_splits; i++) {
        uint64_t share = (uint64_t)a->splits[i].percent * 100;
        if (point < share)
            return a->splits[i].generation;
        point -= share;
    }
    return a->stable;
}

enum status registry_choose(const struct adapter *a, const char *pin, uint64_t sticky_hash,
                            uint64_t *generation, struct error *err)
{
    uint64_t number;
    if (!pin || !pin[0]) {
        *generation = choose_by_traffic(a, sticky_hash);
        return STATUS_OK;
    }
    bool is_number = parse_generation(pin, &number);
    if (is_number && registry_record(a, number)) {
        *generation = number;
        return STATUS_OK;
    }
    size_t n = strlen(pin), n_hex = strspn(pin, "0123456789abcdefABCDEF");
    if (n_hex == n && n >= PIN_DIGITS_MIN && n <= 64)
        return choose_by_digest(a, pin, n, generation, err);
    if (is_number)
        return fail(err, STATUS_NOT_FOUND, "adapter '%s' has no generation %s", a->wish.name, pin);
    return fail(err, STATUS_INVALID,
                "adapter '%s': '%.80s' names no version: expected a generation or 8 to 64 hex digits of a "
                "digest",
                a->wish.name, pin);
}

/* ---- changes */

const char *change_name(enum change_kind kind)
{
    static const char *const names[] = {
        [CHANGE_REGISTERED] = "registered",
        [CHANGE_PUBLISHED] = "published",
        [CHANGE_LOADED_AGAIN] = "loaded_again",
        [CHANGE_EVICTED] = "evicted",
        [CHANGE_FAILED] = "failed",
        [CHANGE_ROLLED_BACK] = "rolled_back",
        [CHANGE_TRAFFIC] = "traffic",
        [CHANGE_SETTINGS] = "settings",
        [CHANGE_REMOVED] = "removed",
    };
    return (size_t)kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

void registry_tell(struct registry *r, struct entry *e, enum change_kind kind, uint64_t generation)
{
    uint64_t revision = ++r->revision;
    struct registry_change *c = &r->changes[revision % REGISTRY_CHANGES_MAX];
    const struct version_record *v = registry_record(&e->a, generation);
    if (revision > REGISTRY_CHANGES_MAX && revision - REGISTRY_CHANGES_MAX > r->forgotten)
        r->forgotten = revision - REGISTRY_CHANGES_MAX;
    *c = (struct registry_change){.revision = revision, .kind = kind, .generation = generation};
    snprintf(c->name, sizeof c->name, "%s", e->name);
    if (v)
        snprintf(c->digest_hex, sizeof c->digest_hex, "%.16s", v->digest_hex);
    if (kind != CHANGE_LOADED_AGAIN && kind != CHANGE_EVICTED && kind != CHANGE_FAILED)
        e->a.revision = revision;
    if (r->o.changed)
        r->o.changed(c, r->o.data);
}

uint64_t registry_revision(const struct registry *r)
{
    return r->revision;
}

bool registry_changes(const struct registry *r, uint64_t since,
                      void (*each)(const struct registry_change *c, void *data), void *data)
{
    uint64_t first = since < r->forgotten ? r->forgotten : since;
    for (uint64_t n = first + 1; n <= r->revision; n++)
        each(&r->changes[n % REGISTRY_CHANGES_MAX], data);
    return since >= r->forgotten && since <= r->revision;
}

void registry_counters(const struct registry *r, uint64_t *revision, uint64_t *generation)
{
    *revision = r->revision;
    *generation = r->generation;
}

void registry_set_counters(struct registry *r, uint64_t revision, uint64_t generation)
{
    if (generation > r->generation)
        r->generation = generation;
    if (revision <= r->revision)
        return;
    r->revision = r->forgotten = revision;
    for (size_t i = 0; i < r->n; i++)
        r->entries[i]->a.revision = revision;
}
