/* The table of modules and their tensors. It's made from the file, bounded by its number of tensors: a path
 * means nothing here. */
#include "content.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct content *content_create(const struct model *m, struct adapter_report *report)
{
    struct content *c = mem_zalloc(sizeof *c);
    if (!c)
        return NULL;
    c->model = m;
    c->report = report;
    c->shown = "";
    c->arena = arena_create(0);
    if (!c->arena) {
        content_destroy(c);
        return NULL;
    }
    return c;
}

void content_destroy(struct content *c)
{
    if (!c)
        return;
    arena_destroy(c->arena);
    mem_free(c->entries);
    mem_free(c->table);
    mem_free(c->pairs);
    mem_free(c->replaced);
    mem_free(c->file_pairs);
    json_decref(c->config);
    mem_free(c);
}

/* Room for one more item in a growing array. */
static bool make_room(void **items, size_t n, size_t *room, size_t item_bytes)
{
    if (n < *room)
        return true;
    size_t wanted = *room ? *room * 2 : 64, bytes;
    void *p = size_mul(wanted, item_bytes, &bytes) ? mem_realloc(*items, bytes) : NULL;
    if (!p)
        return false;
    *items = p;
    *room = wanted;
    return true;
}

/* FNV-1a, begun at an address that a stranger can't know: no file makes all its paths collide. */
static uint32_t hash_path(const struct content *c, const char *path)
{
    uint32_t h = 2166136261U ^ (uint32_t)((uintptr_t)c >> 4);
    for (; *path; path++)
        h = (h ^ (unsigned char)*path) * 16777619U;
    return h;
}

static size_t slot_of(const struct content *c, const char *path)
{
    size_t i = hash_path(c, path) & (c->table_size - 1);
    while (c->table[i] && strcmp(c->entries[c->table[i] - 1].path, path) != 0)
        i = (i + 1) & (c->table_size - 1);
    return i;
}

static bool grow_table(struct content *c)
{
    if (c->table && c->n_entries * 2 < c->table_size)
        return true;
    size_t size = c->table_size ? c->table_size * 2 : 128;
    uint32_t *table = mem_array(size, sizeof *table);
    if (!table)
        return false;
    mem_free(c->table);
    c->table = table;
    c->table_size = size;
    for (size_t i = 0; i < c->n_entries; i++)
        table[slot_of(c, c->entries[i].path)] = (uint32_t)i + 1;
    return true;
}

static struct entry *find_or_add(struct content *c, const char *path)
{
    if (!grow_table(c))
        return NULL;
    size_t slot = slot_of(c, path);
    if (c->table[slot])
        return &c->entries[c->table[slot] - 1];
    if (!make_room((void **)&c->entries, c->n_entries, &c->entries_room, sizeof *c->entries))
        return NULL;
    struct entry *e = &c->entries[c->n_entries];
    *e = (struct entry){.path = arena_strdup(c->arena, path)};
    if (!e->path)
        return NULL;
    c->table[slot] = (uint32_t)++c->n_entries;
    return e;
}

struct entry *content_find(struct content *c, const char *path)
{
    if (!c->table)
        return NULL;
    size_t slot = slot_of(c, path);
    return c->table[slot] ? &c->entries[c->table[slot] - 1] : NULL;
}

enum status content_put(struct content *c, const char *path, enum part part, const struct tensor *t,
                        struct error *err)
{
    struct entry *e = find_or_add(c, path);
    if (!e)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    if (e->part[part])
        return fail(err, STATUS_FORMAT, "%s: '%s' and '%s' are for the same module", c->shown,
                    e->part[part]->name, t->name);
    e->part[part] = t;
    return STATUS_OK;
}

const char *entry_tensor_name(const struct entry *e)
{
    for (int i = 0; i < PART_COUNT; i++)
        if (e->part[i])
            return e->part[i]->name;
    return e->path;
}

/* ---- what becomes of it */

static enum status no_fit(const struct content *c, const char *name, const struct matrix *m,
                          const char *needs, struct error *err)
{
    return fail(err, STATUS_MISMATCH,
                "%s: tensor '%s' is [%u, %u], this base needs %s: it was trained on another base", c->shown,
                name, m->rows, m->cols, needs);
}

enum status content_add_pair(struct content *c, const struct lora_pair *p, const struct pair_values *v,
                             struct error *err)
{
    const struct model_module *module = &p->module;
    bool embed = module->kind == MODULE_EMBED;
    const struct matrix *a = &v->a, *b = &v->b;
    uint32_t rank = embed ? a->cols : a->rows, in = embed ? a->rows : a->cols;
    char needs[40];
    if (in != module->in) {
        snprintf(needs, sizeof needs, embed ? "[%u, r]" : "[r, %u]", module->in);
        return no_fit(c, v->a_name, a, needs, err);
    }
    if (b->rows != module->out || b->cols != rank) {
        snprintf(needs, sizeof needs, "[%u, r]", module->out);
        return no_fit(c, v->b_name, b, needs, err);
    }
    if (!make_room((void **)&c->pairs, c->n_pairs, &c->pairs_room, sizeof *c->pairs))
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    struct lora_pair *new = &c->pairs[c->n_pairs++];
    *new = *p;
    new->a_type = a->type;
    new->b_type = b->type;
    new->a = a->data;
    new->b = b->data;
    new->rank = rank;
    new->in = in;
    new->out = b->rows;
    return STATUS_OK;
}

struct model_module content_expert(const struct model_module *experts, enum lora_site site, uint32_t n_sites)
{
    bool down = site == LORA_SITE_DOWN;
    return (struct model_module){.kind = MODULE_LINEAR,
                                 .layer = experts->layer,
                                 .site = site,
                                 .n_sites = n_sites,
                                 .out = down ? experts->in : n_sites * experts->out,
                                 .in = down ? experts->out : experts->in};
}

static struct matrix slice(const struct matrix *all, uint32_t i, uint32_t n)
{
    struct matrix one = *all;
    one.rows = all->rows / n;
    one.data = (const char *)all->data + (size_t)i * one.rows * one.cols * dtype_info(all->type)->block_bytes;
    return one;
}

enum status content_add_experts(struct content *c, const struct lora_pair *p, const struct pair_values *all,
                                uint32_t n, struct error *err)
{
    struct lora_pair pair = *p;
    enum status s = STATUS_OK;
    for (uint32_t e = 0; e < n && s == STATUS_OK; e++) {
        struct pair_values one = *all;
        one.a = slice(&all->a, e, n);
        one.b = slice(&all->b, e, n);
        pair.module.expert = (int32_t)e;
        s = content_add_pair(c, &pair, &one, err);
    }
    return s;
}

enum status content_add_tensor(struct content *c, const struct lora_tensor *t, const char *name,
                               struct error *err)
{
    const struct model_module *module = &t->module;
    bool vector = t->is_bias || module->kind == MODULE_NORM;
    uint32_t rows = module->kind == MODULE_EMBED ? module->in : module->out;
    uint32_t cols = vector ? 0 : module->kind == MODULE_EMBED ? module->out : module->in;
    if (t->rows != rows || t->cols != cols) {
        char found[32], needs[32];
        snprintf(found, sizeof found, t->cols ? "[%u, %u]" : "[%u]", t->rows, t->cols);
        snprintf(needs, sizeof needs, cols ? "[%u, %u]" : "[%u]", rows, cols);
        return fail(err, STATUS_MISMATCH,
                    "%s: tensor '%s' is %s, this base's module is %s: it was trained on another base, or its "
                    "vocabulary was resized; serve the base that it belongs to",
                    c->shown, name, found, needs);
    }
    if (!make_room((void **)&c->replaced, c->n_replaced, &c->replaced_room, sizeof *c->replaced))
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    c->replaced[c->n_replaced++] = *t;
    return STATUS_OK;
}

enum status content_keep_pair(struct content *c, const struct file_pair *p, struct error *err)
{
    const char *path = arena_strdup(c->arena, p->path);
    require((uint64_t)p->n * p->rank == p->a.rows && p->b.cols == p->rank && p->b.rows % p->n == 0);
    if (!path ||
        !make_room((void **)&c->file_pairs, c->n_file_pairs, &c->file_pairs_room, sizeof *c->file_pairs))
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    c->file_pairs[c->n_file_pairs] = *p;
    c->file_pairs[c->n_file_pairs++].path = path;
    return STATUS_OK;
}

/* ---- the report */

static void add_word(char *list, size_t list_bytes, const char *word, size_t n)
{
    size_t used = strlen(list);
    for (const char *at = list; *at; at += strcspn(at, " ") + (at[strcspn(at, " ")] == ' '))
        if (strcspn(at, " ") == n && memcmp(at, word, n) == 0)
            return;
    if (used + n + 2 <= list_bytes)
        snprintf(list + used, list_bytes - used, "%s%.*s", used ? " " : "", (int)n, word);
}

void content_kind(struct content *c, const char *kind)
{
    add_word(c->report->kinds, sizeof c->report->kinds, kind, strlen(kind));
}

/* The last part of a path that is a name: neither a number nor PEFT's own. */
static void note_name(struct content *c, const char *path)
{
    size_t n = strlen(path);
    static const char inner[] = ".base_layer";
    if (n > sizeof inner - 1 && strcmp(path + n - (sizeof inner - 1), inner) == 0)
        n -= sizeof inner - 1;
    size_t begin = n;
    while (begin && path[begin - 1] != '.')
        begin--;
    add_word(c->report->modules, sizeof c->report->modules, path + begin, n - begin);
}

void content_count(struct content *c, const struct entry *e, uint64_t rank)
{
    struct adapter_report *r = c->report;
    uint32_t shown = rank > UINT32_MAX ? UINT32_MAX : (uint32_t)rank;
    r->n_modules++;
    note_name(c, e->path);
    if (rank) {
        r->rank_min = r->rank_max == 0 || shown < r->rank_min ? shown : r->rank_min;
        r->rank_max = shown > r->rank_max ? shown : r->rank_max;
    }
    for (int i = 0; i < PART_COUNT; i++)
        if (e->part[i] && i != PART_BASE_COPY && i != PART_WEIGHT_AGAIN && i != PART_BIAS_AGAIN)
            r->n_parameters += e->part[i]->n_values;
}

void content_finish(struct content *c)
{
    c->spec.pairs = c->pairs;
    c->spec.n_pairs = c->n_pairs;
    c->spec.tensors = c->replaced;
    c->spec.n_tensors = c->n_replaced;
}
