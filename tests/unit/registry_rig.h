/* Versions made for the registry's tests, and loads, uses and looks in a line each. */
#ifndef LK_TESTS_UNIT_REGISTRY_RIG_H
#define LK_TESTS_UNIT_REGISTRY_RIG_H

#include "tests/test.h"

#include "base/mem.h"
#include "registry.h"

#define S 1000000000LL

/* A version whose digest begins with `content`, of so many bytes. */
static inline struct adapter_version *make_version(uint32_t content, size_t bytes)
{
    struct adapter_version *v = mem_zalloc(sizeof *v);
    struct lora *l = mem_zalloc(sizeof *l);
    assert_true(v && l);
    atomic_init(&v->refs, 1);
    atomic_init(&l->refs, 1);
    l->size_bytes = bytes;
    v->lora = l;
    v->user_scale = 1;
    for (int i = 0; i < 4; i++)
        v->digest[i] = (uint8_t)(content >> (24 - 8 * i));
    return v;
}

static inline struct registry *create(uint64_t budget, int64_t keep_ns)
{
    struct registry *r = registry_create(
        &(struct registry_options){.n_names_max = 100, .resident_bytes = budget, .keep_ns = keep_ns});
    assert_non_null(r);
    return r;
}

static inline struct adapter *name(struct registry *r, const char *text)
{
    struct adapter *a = registry_find(r, text);
    struct error err;
    if (!a)
        assert_int_equal(
            registry_register(r, &(struct adapter_wish){.name = text, .source = "/x", .scale = 1}, &a, &err),
            STATUS_OK);
    return a;
}

/* A load that goes as it should; the generation. */
static inline uint64_t publish_as(struct registry *r, struct adapter *a, struct publication *p,
                                  uint32_t content, size_t bytes, uint64_t tenant, int64_t now)
{
    struct error err = {0};
    enum status s = registry_reserve(r, a, bytes, tenant, now, &err);
    if (s == STATUS_OK)
        s = registry_publish(r, a, make_version(content, bytes), p, now, &err);
    if (s != STATUS_OK)
        fail_msg("%s: %s", a->wish.name, err.text);
    return p->generation;
}
static inline uint64_t publish(struct registry *r, const char *text, uint32_t content, size_t bytes,
                               int64_t now)
{
    struct publication p = {.as = PUBLISH_STABLE};
    return publish_as(r, name(r, text), &p, content, bytes, 0, now);
}
static inline enum status load(struct registry *r, const char *text, uint32_t content, size_t bytes,
                               uint64_t tenant, int64_t now)
{
    struct error err = {0};
    struct publication p = {.as = PUBLISH_AGAIN};
    struct adapter *a = name(r, text);
    enum status s = registry_reserve(r, a, bytes, tenant, now, &err);
    return s == STATUS_OK ? registry_publish(r, a, make_version(content, bytes), &p, now, &err) : s;
}

/* As a request does it, and at once gives it back. */
static inline bool use(struct registry *r, const char *text, int64_t now)
{
    struct adapter *a = name(r, text);
    struct adapter_version *v = registry_acquire(r, a, a->stable, now);
    registry_release(r, v, false);
    return v != NULL;
}
static inline bool is_resident(struct registry *r, const char *text)
{
    const struct adapter *a = name(r, text);
    const struct version_record *v = registry_record(a, a->stable);
    return v && v->version;
}
static inline bool has_bytes(const struct adapter *a, uint64_t generation)
{
    const struct version_record *v = registry_record(a, generation);
    return v && v->version;
}
static inline struct registry_usage usage(const struct registry *r)
{
    struct registry_usage u;
    registry_usage(r, &u);
    return u;
}

#endif
