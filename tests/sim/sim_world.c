/* The world's matter: contents of files with their sizes and faults, names, versions made of contents. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sim.h"

void sim_fail(struct world *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(w->why, sizeof w->why, format, args);
    va_end(args);
    longjmp(w->failed, 1);
}

/* splitmix64 */
uint64_t sim_random(struct world *w)
{
    return sim_mix(w->random++, w->seed);
}

const char *sim_name(uint32_t name)
{
    static const char *const names[NAMES_MAX] = {
        "pt",    "de",    "bikeshop", "safety", "it",    "ja",     "legal", "poet",
        "kids",  "terse", "sql",      "ops",    "nurse", "quiz",   "chef",  "travel",
        "music", "chess", "news",     "maths",  "latin", "sailor", "bank",  "zoo",
    };
    return names[name];
}

const char *sim_path(uint32_t path)
{
    static char texts[NAMES_MAX * PATHS_OF_NAME][16];
    if (!texts[path][0])
        snprintf(texts[path], sizeof texts[path], "/adapters/%u", path);
    return texts[path];
}

/* ---- contents: everything follows from the number */

uint64_t content_bytes(struct content c)
{
    return 20 + sim_mix(c.id, 1) % 100;
}

/* One in five is larger than its files look. */
uint64_t content_promise(struct content c)
{
    uint64_t bytes = content_bytes(c);
    return sim_mix(c.id, 2) % 5 == 0 ? bytes * 2 / 3 : bytes;
}

bool content_is_broken(struct content c)
{
    return c.id == 0 || sim_mix(c.id, 3) % 8 == 0;
}

uint64_t content_mark(struct content c)
{
    return c.id == 0 ? 0 : sim_mix(sim_mix(c.id, 4), (uint64_t)(uint32_t)c.scale) | 1;
}

struct adapter_version *version_make(struct world *w, uint32_t name, struct content c)
{
    struct adapter_version *v = mem_zalloc(sizeof *v);
    struct lora *l = mem_zalloc(sizeof *l);
    CHECK(w, v && l, "no memory");
    uint64_t key = content_mark(c);
    atomic_init(&v->refs, 1);
    atomic_init(&l->refs, 1);
    l->size_bytes = content_bytes(c);
    l->n_parameters = key; /* the fake model reads it out of this memory for each token */
    memcpy(l->digest, &key, sizeof key);
    v->lora = l;
    v->user_scale = c.scale;
    for (size_t i = 0; i < sizeof v->digest; i++)
        v->digest[i] = (uint8_t)(sim_mix(c.id, 5) >> (i % 8 * 8));
    v->digest[31] = (uint8_t)c.id;
    v->loaded_wall_ms = w->now_ns / MS;
    snprintf(v->name, sizeof v->name, "%s", sim_name(name));
    return v;
}

/* ---- names and generations */

struct adapter *sim_find(struct world *w, uint32_t name)
{
    struct adapter *a = registry_find(w->registry, sim_name(name));
    CHECK(w, !a == !w->models[name].exists, "%s: %s in the registry", sim_name(name), a ? "still" : "not");
    return a;
}

struct adapter_wish sim_wish(const struct world *w, uint32_t name)
{
    const struct name_model *m = &w->models[name];
    return (struct adapter_wish){
        .name = sim_name(name), .source = sim_path(m->path), .scale = m->scale, .pinned = m->pinned};
}

void sim_learn(struct world *w, uint64_t generation, uint32_t name, struct content c)
{
    CHECK(w, generation < (1U << 28), "generation %llu", (unsigned long long)generation);
    if (generation >= w->generations_capacity) {
        uint64_t capacity = generation * 2 + 64;
        w->generations = realloc(w->generations, capacity * sizeof *w->generations);
        CHECK(w, w->generations, "no memory");
        memset(w->generations + w->generations_capacity, 0,
               (capacity - w->generations_capacity) * sizeof *w->generations);
        w->generations_capacity = capacity;
    }
    struct content before = w->generations[generation].content; /* of this run, or one before a kill */
    CHECK(w,
          before.id == 0 ||
              (before.id == c.id && before.scale == c.scale && w->generations[generation].name == name),
          "%s: generation %llu was other content before a kill", sim_name(name),
          (unsigned long long)generation);
    w->generations[generation] = (struct generation_info){.content = c, .name = name};
    if (generation >= w->n_generations)
        w->n_generations = generation + 1;
}

/* ---- a seed's world */

void world_open(struct world *w, uint64_t seed)
{
    struct error err = {0};
    static const uint64_t budgets[] = {0, 150, 300, 600, 1200, 2400};
    static const int64_t keeps[] = {0, 200 * MS, 5000 * MS, 600000 * MS};
    w->seed = seed;
    w->random = 1;
    w->n_generations = 1;
    w->n_names = 2 + (uint32_t)sim_below(w, NAMES_MAX - 1);
    w->n_tenants = 1 + (uint32_t)sim_below(w, TENANTS_MAX);
    w->n_slots = 1 + (uint32_t)sim_below(w, 16);
    w->budget = budgets[sim_below(w, sizeof budgets / sizeof budgets[0])];
    w->keep_ns = keeps[sim_below(w, sizeof keeps / sizeof keeps[0])];
    w->bound_ns = (seed % 2 ? 2000 : 100) * MS;
    w->arrivals_percent = 5 + (uint32_t)sim_below(w, 35);
    w->now_ns = 1000 * MS;
    w->n_contents = 1;
    for (uint32_t i = 0; i < w->n_names * PATHS_OF_NAME; i++)
        w->disk[i].id = w->n_contents++;
    struct kv_shape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 2, .type = DTYPE_F32};
    uint32_t n_pages = PAGES_MAX + (uint32_t)sim_below(w, sim_chance(w, 50) ? 4 : 24);
    CHECK(w, kv_cache_create(&shape, n_pages, &w->kv, &err) == STATUS_OK, "%s", err.text);
    CHECK(w, prefix_cache_create(w->kv, seed, &w->prefix, &err) == STATUS_OK, "%s", err.text);
    CHECK(w, fair_init(&w->fair, ENGINE_CALLERS_MAX, REQUESTS_MAX, w->bound_ns, w->n_slots), "no memory");
    operator_kill(w);
    for (uint32_t i = 0; i < w->n_names; i++) {
        struct adapter_wish wish;
        w->models[i] = (struct name_model){.exists = true, .path = i * PATHS_OF_NAME, .scale = 1};
        wish = sim_wish(w, i);
        CHECK(w, registry_register(w->registry, &wish, NULL, &err) == STATUS_OK, "%s", err.text);
        operator_keep(w, i);
    }
}

void world_close(struct world *w)
{
    if (w->registry) {
        front_drop_everything(w);
        engine_drop_everything(w);
        registry_destroy(w->registry);
    }
    operator_forget(w, true);
    fair_fini(&w->fair);
    prefix_cache_destroy(w->prefix);
    kv_cache_destroy(w->kv);
    free(w->generations);
}
