/* The table of tenants and keys. Tenants are few thousands at most, in the order of their names; keys in the
 * order of their digests, which random texts spread evenly, and in that of their ids. A file's are put in
 * force on the front thread: nothing here looks at all of them for one. */
#include "tenants.h"

#include <fnmatch.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"

#define MINUTE_NS (60 * NS_PER_S)
#define DAY_NS (24 * 60 * MINUTE_NS)

/* Few names match what stands before a pattern's first '*', or all of it. The owner is here as a number, so
 * that a match looks at no memory that another name doesn't. */
struct owned {
    uint32_t n_literal, owner;
    const char *pattern;
};

struct tenants {
    struct tenant **list; /* [n], sorted by name */
    size_t n, capacity;
    struct tenant_key **keys;  /* [n_keys], sorted by digest */
    struct tenant_key **by_id; /* [n_keys], the same */
    size_t n_keys, keys_capacity, by_id_capacity;
    struct owned *owned; /* [n_owned] all patterns of voices that are somebody's own */
    size_t n_owned;
    bool numbers[TENANTS_MAX + 1]; /* in use */
    bool closed;
};

struct tenants *tenants_create(void)
{
    return mem_zalloc(sizeof(struct tenants));
}

static void destroy_tenant(struct tenant *t)
{
    tenant_spec_release(t->specs[FROM_STATE]);
    tenant_spec_release(t->specs[FROM_FILE]);
    mem_free(t);
}

void tenants_destroy(struct tenants *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        destroy_tenant(t->list[i]);
    for (size_t i = 0; i < t->n_keys; i++)
        mem_free(t->keys[i]);
    mem_free(t->list);
    mem_free(t->owned);
    mem_free(t->keys);
    mem_free(t->by_id);
    mem_free(t);
}

bool tenants_closed(const struct tenants *t)
{
    return t->closed || t->n || t->n_keys;
}

void tenants_close(struct tenants *t)
{
    t->closed = true;
}

/* Room for so many pointers. */
static bool grow(void *list, size_t n, size_t *capacity)
{
    void **at = list;
    if (n <= *capacity)
        return true;
    size_t more = *capacity ? *capacity : 16;
    while (more < n)
        more *= 2;
    void *grown = mem_realloc(*at, more * sizeof(void *));
    if (!grown)
        return false;
    *at = grown;
    *capacity = more;
    return true;
}

/* ---- tenants ---- */

size_t tenants_count(const struct tenants *t)
{
    return t->n;
}

struct tenant *tenants_at(const struct tenants *t, size_t index)
{
    return index < t->n ? t->list[index] : NULL;
}

static const char *name_at(const struct tenants *t, size_t i)
{
    return t->list[i]->name;
}

static const char *id_at(const struct tenants *t, size_t i)
{
    return t->by_id[i]->id;
}

/* Where the text is, or would be, among n in its order. */
static size_t place_of_text(const struct tenants *t, size_t n, const char *text,
                            const char *(*text_at)(const struct tenants *t, size_t i))
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(text_at(t, middle), text) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t place_of(const struct tenants *t, const char *name)
{
    return place_of_text(t, t->n, name, name_at);
}

struct tenant *tenants_find(const struct tenants *t, const char *name)
{
    size_t at = place_of(t, name);
    return at < t->n && strcmp(t->list[at]->name, name) == 0 ? t->list[at] : NULL;
}

const struct tenant_spec *tenant_spec_of(const struct tenant *t)
{
    return t->specs[FROM_FILE] ? t->specs[FROM_FILE] : t->specs[FROM_STATE];
}

struct tenant *tenant_hold(struct tenant *t)
{
    t->refs++;
    return t;
}

void tenant_release(struct tenants *all, struct tenant *t)
{
    if (!t || --t->refs)
        return;
    all->numbers[t->number] = false;
    destroy_tenant(t);
}

/* There is room in the list, and a number. */
static struct tenant *place_tenant(struct tenants *t, struct tenant *new, const char *name,
                                   int64_t created_ms)
{
    const bool *unused = memchr(t->numbers + 1, false, TENANTS_MAX);
    require(unused && t->n < t->capacity);
    size_t at = place_of(t, name);
    memmove(&t->list[at + 1], &t->list[at], (t->n - at) * sizeof(struct tenant *));
    t->list[at] = new;
    t->n++;
    uint32_t number = (uint32_t)(unused - t->numbers);
    t->numbers[number] = true;
    *new = (struct tenant){.refs = 1, .created_ms = created_ms, .number = number};
    snprintf(new->name, sizeof new->name, "%s", name);
    window_init(&new->requests_minute, LIMIT_NONE, MINUTE_NS);
    window_init(&new->requests_day, LIMIT_NONE, DAY_NS);
    window_init(&new->tokens_minute, LIMIT_NONE, MINUTE_NS);
    window_init(&new->tokens_day, LIMIT_NONE, DAY_NS);
    window_init(&new->loads_minute, LIMIT_NONE, MINUTE_NS);
    return new;
}

static struct tenant *add_tenant(struct tenants *t, const char *name, int64_t created_ms, struct error *err)
{
    if (t->n == TENANTS_MAX || !memchr(t->numbers + 1, false, TENANTS_MAX)) {
        fail(err, STATUS_FULL, "there are %u tenants, which is the most", TENANTS_MAX);
        return NULL;
    }
    struct tenant *new = grow(&t->list, t->n + 1, &t->capacity) ? mem_zalloc(sizeof *new) : NULL;
    if (!new) {
        fail(err, STATUS_NO_MEMORY, "no memory for the tenant");
        return NULL;
    }
    return place_tenant(t, new, name, created_ms);
}

static void forget_if_empty(struct tenants *t, const char *name)
{
    size_t at = place_of(t, name);
    if (at == t->n || strcmp(t->list[at]->name, name) != 0 || tenant_spec_of(t->list[at]) ||
        t->list[at]->n_keys[FROM_STATE] || t->list[at]->n_keys[FROM_FILE])
        return;
    struct tenant *gone = t->list[at];
    memmove(&t->list[at], &t->list[at + 1], (t->n - at - 1) * sizeof(struct tenant *));
    t->n--;
    tenant_release(t, gone);
}

/* Room for the patterns of all settings there are, those that others' hide included, and `more`: taking
 * settings away needs no memory then. */
static struct owned *make_owned(const struct tenants *t, size_t more)
{
    size_t n = more + 1;
    for (size_t i = 0; i < t->n; i++)
        for (int k = FROM_STATE; k <= FROM_FILE; k++)
            n += t->list[i]->specs[k] ? t->list[i]->specs[k]->own_voices.n : 0;
    return mem_array(n, sizeof(struct owned));
}

static void list_owned(struct tenants *t)
{
    t->n_owned = 0;
    for (size_t i = 0; i < t->n; i++) {
        const struct tenant_spec *s = tenant_spec_of(t->list[i]);
        for (uint32_t k = 0; s && k < s->own_voices.n; k++) {
            const char *p = s->own_voices.items[k];
            t->owned[t->n_owned++] = (struct owned){(uint32_t)strcspn(p, "*"), s->tenant, p};
        }
    }
}

static void set_spec(struct tenant *one, enum tenant_origin origin, struct tenant_spec *spec)
{
    tenant_spec_release(one->specs[origin]);
    one->specs[origin] = spec;
    if (spec)
        spec->tenant = one->number;
    const struct tenant_spec *now = tenant_spec_of(one);
    one->requests_minute.limit = now ? now->requests_minute : LIMIT_NONE;
    one->requests_day.limit = now ? now->requests_day : LIMIT_NONE;
    one->tokens_minute.limit = now ? now->tokens_minute : LIMIT_NONE;
    one->tokens_day.limit = now ? now->tokens_day : LIMIT_NONE;
    one->loads_minute.limit = now ? now->loads_minute : LIMIT_NONE;
}

enum status tenants_put(struct tenants *t, const char *name, enum tenant_origin origin,
                        struct tenant_spec *spec, int64_t created_ms, struct error *err)
{
    struct tenant *one = tenants_find(t, name);
    if (!one && !spec)
        return STATUS_OK;
    /* What is taken away leaves room in the list that there is. */
    struct owned *owned = spec ? make_owned(t, spec->own_voices.n) : NULL;
    if (!one && owned)
        one = add_tenant(t, name, created_ms, err);
    if (!one || (spec && !owned)) {
        mem_free(owned);
        return owned ? err->status : fail(err, STATUS_NO_MEMORY, "no memory for the tenant");
    }
    set_spec(one, origin, spec);
    if (owned) {
        mem_free(t->owned);
        t->owned = owned;
    }
    list_owned(t);
    forget_if_empty(t, name);
    return STATUS_OK;
}

static int of_name(const void *name, const void *spec)
{
    return strcmp(name, (*(struct tenant_spec *const *)spec)->name);
}

static bool has_spec(struct tenant_spec *const *sorted, size_t n, const char *name)
{
    return n && bsearch(name, sorted, n, sizeof(struct tenant_spec *), of_name);
}

size_t tenants_with_file(const struct tenants *t, struct tenant_spec *const *specs, size_t n)
{
    size_t n_then = 0;
    for (size_t i = 1; i <= TENANTS_MAX; i++)
        n_then += t->numbers[i];
    for (size_t i = 0; i < t->n; i++) {
        const struct tenant *one = t->list[i];
        bool stays = one->specs[FROM_STATE] || one->n_keys[FROM_STATE] || one->refs > 1;
        n_then -= !stays && !has_spec(specs, n, one->name);
    }
    for (size_t i = 0; i < n; i++)
        n_then += !tenants_find(t, specs[i]->name);
    return n_then;
}

/* ---- keys ---- */

static void put_hex(char *dst, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        snprintf(dst + 2 * i, 3, "%02x", bytes[i]);
}

bool key_make(char text[KEY_TEXT_LENGTH + 1], char id[KEY_ID_LENGTH + 1])
{
    uint8_t bytes[KEY_ID_LENGTH / 2 + 32];
    char secret[65];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return false;
    put_hex(id, bytes, KEY_ID_LENGTH / 2);
    put_hex(secret, bytes + KEY_ID_LENGTH / 2, 32);
    snprintf(text, KEY_TEXT_LENGTH + 1, "lk_%s_%s", id, secret);
    gnutls_memset(bytes, 0, sizeof bytes);
    gnutls_memset(secret, 0, sizeof secret);
    return true;
}

void key_digest(const char *text, uint8_t digest[32])
{
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text, strlen(text), digest) < 0)
        memset(digest, 0, 32);
}

size_t tenants_n_keys(const struct tenants *t)
{
    return t->n_keys;
}

const struct tenant_key *tenants_key_at(const struct tenants *t, size_t index)
{
    return index < t->n_keys ? t->keys[index] : NULL;
}

static size_t place_of_id(const struct tenants *t, const char *id)
{
    return place_of_text(t, t->n_keys, id, id_at);
}

static struct tenant_key *find_key(const struct tenants *t, const char *id)
{
    size_t at = place_of_id(t, id);
    return at < t->n_keys && strcmp(t->by_id[at]->id, id) == 0 ? t->by_id[at] : NULL;
}

const struct tenant_key *tenants_key(const struct tenants *t, const char *id)
{
    return find_key(t, id);
}

uint32_t tenants_n_active(const struct tenants *t, const char *tenant, const char *name)
{
    uint32_t n = 0;
    for (size_t i = 0; i < t->n_keys; i++) {
        const struct tenant_key *k = t->keys[i];
        n += !k->revoked_ms && strcmp(k->tenant, tenant) == 0 && strcmp(k->name, name) == 0;
    }
    return n;
}

const struct tenant_key *tenants_oldest(const struct tenants *t, const char *tenant, const char *name)
{
    const struct tenant_key *oldest = NULL;
    for (size_t i = 0; i < t->n_keys; i++) {
        const struct tenant_key *k = t->keys[i];
        bool of_name = strcmp(k->tenant, tenant) == 0 && strcmp(k->name, name) == 0;
        if (of_name && !k->revoked_ms && k->origin == FROM_STATE &&
            (!oldest || k->created_ms < oldest->created_ms))
            oldest = k;
    }
    return oldest;
}

/* The first eight bytes decide nearly always; the order is no secret. */
static uint64_t order_of(const uint8_t digest[32])
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | digest[i];
    return v;
}

/* The first key whose digest begins with so much or more. As many steps for every text. */
static size_t first_key(const struct tenants *t, uint64_t order)
{
    size_t at = 0, n = t->n_keys;
    while (n) {
        size_t half = n / 2;
        bool less = order_of(t->keys[at + half]->digest) < order;
        at = less ? at + half + 1 : at;
        n = less ? n - half - 1 : half;
    }
    return at;
}

static const struct tenant_key *same_digest(const struct tenants *t, const uint8_t digest[32])
{
    uint64_t order = order_of(digest);
    for (size_t i = first_key(t, order); i < t->n_keys && order_of(t->keys[i]->digest) == order; i++)
        if (memcmp(t->keys[i]->digest, digest, sizeof t->keys[i]->digest) == 0)
            return t->keys[i];
    return NULL;
}

const struct tenant_key *tenants_clash(const struct tenants *t, const struct tenant_key *k,
                                       enum tenant_origin origin)
{
    const struct tenant_key *by_id = find_key(t, k->id), *by_digest = same_digest(t, k->digest);
    if (by_id && by_id->origin == origin)
        return by_id;
    return by_digest && by_digest->origin == origin ? by_digest : NULL;
}

static void insert_key(struct tenant_key **list, size_t n, size_t at, struct tenant_key *k)
{
    memmove(&list[at + 1], &list[at], (n - at) * sizeof(struct tenant_key *));
    list[at] = k;
}

static bool grow_keys(struct tenants *t, size_t n)
{
    return grow(&t->keys, n, &t->keys_capacity) && grow(&t->by_id, n, &t->by_id_capacity);
}

/* There is room in both lists. */
static void place_key(struct tenants *t, struct tenant_key *k, struct tenant *owner)
{
    insert_key(t->keys, t->n_keys, first_key(t, order_of(k->digest)), k);
    insert_key(t->by_id, t->n_keys, place_of_id(t, k->id), k);
    t->n_keys++;
    owner->n_keys[k->origin]++;
    owner->n_active_keys += !k->revoked_ms;
}

enum status tenants_add_key(struct tenants *t, const struct tenant_key *k, struct error *err)
{
    const struct tenant_key *same = same_digest(t, k->digest);
    if (find_key(t, k->id))
        return fail(err, STATUS_EXISTS, "there is a key %s", k->id);
    if (same)
        return fail(err, STATUS_EXISTS, "the keys %s and %s are the same", k->id, same->id);
    if (t->n_keys == TENANT_KEYS_MAX)
        return fail(err, STATUS_FULL, "there are %u keys, which is the most", TENANT_KEYS_MAX);
    struct tenant_key *copy = grow_keys(t, t->n_keys + 1) ? mem_alloc(sizeof *copy) : NULL;
    struct tenant *owner = copy ? tenants_find(t, k->tenant) : NULL;
    if (copy && !owner)
        owner = add_tenant(t, k->tenant, k->created_ms, err);
    if (!owner) {
        mem_free(copy);
        return copy ? err->status : fail(err, STATUS_NO_MEMORY, "no memory for the key");
    }
    *copy = *k;
    place_key(t, copy, owner);
    return STATUS_OK;
}

void tenants_revoke(struct tenants *t, const char *id, int64_t wall_ms)
{
    struct tenant_key *k = find_key(t, id);
    if (!k || k->revoked_ms)
        return;
    k->revoked_ms = wall_ms;
    tenants_find(t, k->tenant)->n_active_keys--;
}

static bool goes(const struct tenant_key *k, enum tenant_origin origin, const char *tenant)
{
    return k->origin == origin && (!tenant || strcmp(k->tenant, tenant) == 0);
}

void tenants_drop_keys(struct tenants *t, enum tenant_origin origin, const char *tenant)
{
    size_t n_by_id = 0, n = 0;
    for (size_t i = 0; i < t->n_keys; i++)
        if (!goes(t->by_id[i], origin, tenant))
            t->by_id[n_by_id++] = t->by_id[i];
    for (size_t i = 0; i < t->n_keys; i++) {
        struct tenant_key *k = t->keys[i];
        if (goes(k, origin, tenant)) {
            struct tenant *owner = tenants_find(t, k->tenant);
            owner->n_keys[origin]--;
            owner->n_active_keys -= !k->revoked_ms;
            mem_free(k);
        } else {
            t->keys[n++] = k;
        }
    }
    t->n_keys = n;
    for (size_t i = t->n; i-- > 0;)
        if (!tenant || strcmp(t->list[i]->name, tenant) == 0)
            forget_if_empty(t, t->list[i]->name);
}

const struct tenant_key *tenants_check(const struct tenants *t, const char *text, struct tenant **tenant)
{
    static const struct tenant_key nobody = {.revoked_ms = 1};
    uint8_t digest[32];
    key_digest(text, digest);
    size_t at = first_key(t, order_of(digest));
    const struct tenant_key *k = at < t->n_keys ? t->keys[at] : &nobody;
    bool right = gnutls_memcmp(k->digest, digest, sizeof digest) == 0;
    struct tenant *owner = tenants_find(t, k->tenant);
    *tenant = NULL;
    if (!right || k->revoked_ms || !owner || !tenant_spec_of(owner))
        return NULL;
    *tenant = owner;
    return k;
}

/* ---- the file's ---- */

/* Memory that a file takes. */
struct file_memory {
    struct owned *owned;
    struct tenant **tenants;  /* [n_tenants] new ones */
    struct tenant_key **keys; /* [n_keys] */
    size_t n_tenants, n_keys;
};

static void free_memory(struct file_memory *m)
{
    for (size_t i = 0; i < m->n_tenants; i++)
        mem_free(m->tenants[i]);
    for (size_t i = 0; i < m->n_keys; i++)
        mem_free(m->keys[i]);
    mem_free(m->tenants);
    mem_free(m->keys);
    mem_free(m->owned);
}

static bool take_memory(struct tenants *t, const struct tenants_file *f, struct file_memory *m)
{
    size_t n_owned = 0, n_new = 0;
    for (size_t i = 0; i < f->n; i++) {
        n_owned += f->specs[i]->own_voices.n;
        n_new += !tenants_find(t, f->specs[i]->name);
    }
    *m = (struct file_memory){.owned = make_owned(t, n_owned),
                              .tenants = mem_array(n_new + 1, sizeof(struct tenant *)),
                              .keys = mem_array(f->n_keys + 1, sizeof(struct tenant_key *))};
    bool ok = m->owned && m->tenants && m->keys && grow(&t->list, t->n + n_new, &t->capacity) &&
              grow_keys(t, t->n_keys + f->n_keys);
    while (ok && m->n_tenants < n_new && (m->tenants[m->n_tenants] = mem_zalloc(sizeof(struct tenant))))
        m->n_tenants++;
    while (ok && m->n_keys < f->n_keys && (m->keys[m->n_keys] = mem_alloc(sizeof(struct tenant_key))))
        m->n_keys++;
    return ok && m->n_tenants == n_new && m->n_keys == f->n_keys;
}

static void drop_file(struct tenants *t, const struct tenants_file *next)
{
    tenants_drop_keys(t, FROM_FILE, NULL);
    for (size_t i = t->n; i-- > 0;) {
        struct tenant *one = t->list[i];
        if (one->specs[FROM_FILE] && !has_spec(next->specs, next->n, one->name)) {
            set_spec(one, FROM_FILE, NULL);
            forget_if_empty(t, one->name);
        }
    }
}

enum status tenants_put_file(struct tenants *t, struct tenants_file *f, int64_t created_ms, struct error *err)
{
    struct file_memory m;
    if (!take_memory(t, f, &m)) {
        free_memory(&m);
        return fail(err, STATUS_NO_MEMORY, "no memory for the tenants");
    }
    drop_file(t, f);
    for (size_t i = 0; i < f->n; i++) {
        struct tenant *one = tenants_find(t, f->specs[i]->name);
        if (!one)
            one = place_tenant(t, m.tenants[--m.n_tenants], f->specs[i]->name, created_ms);
        set_spec(one, FROM_FILE, f->specs[i]);
        f->specs[i] = NULL;
    }
    while (m.n_keys) {
        struct tenant_key *k = m.keys[--m.n_keys];
        *k = f->keys[m.n_keys];
        place_key(t, k, tenants_find(t, k->tenant));
    }
    struct owned *before = t->owned;
    t->owned = m.owned;
    m.owned = before;
    list_owned(t);
    free_memory(&m);
    return STATUS_OK;
}

/* ---- voices ---- */

bool tenants_may_use(const struct tenants *t, const struct tenant_spec *spec, const char *name)
{
    bool others = false;
    size_t n_name = strlen(name);
    for (size_t i = 0; i < t->n_owned; i++) {
        const struct owned *o = &t->owned[i];
        if (o->n_literal > n_name || memcmp(o->pattern, name, o->n_literal) != 0)
            continue;
        bool matches =
            o->pattern[o->n_literal] ? fnmatch(o->pattern, name, FNM_NOESCAPE) == 0 : o->n_literal == n_name;
        others |= matches & (o->owner != spec->tenant);
    }
    bool own = text_list_matches(&spec->own_voices, name);
    bool named = text_list_matches(&spec->voices, name) | !spec->names_voices;
    return own | (named & !others);
}
