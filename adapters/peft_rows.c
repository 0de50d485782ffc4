/* trainable_token_indices: single rows that stand in the place of the embedding's (despite their name,
 * "delta", they are the new values), in the order of the configuration's list. With the list the module is
 * the token embedding; with an object, the modules that its keys end. A tied head follows the embedding,
 * unless it has rows of its own. (PEFT 0.21, utils/other.py set_additional_trainable_modules,
 * tuners/trainable_tokens/layer.py.) */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "peft.h"

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* The list of ids for a module, or NULL. */
static const json_t *ids_of(const struct peft *p, const char *path)
{
    const char *key;
    json_t *value;
    if (json_is_array(p->config.tokens))
        return strcmp(path, "lm_head") == 0 ? NULL : p->config.tokens;
    json_object_foreach(p->config.tokens, key, value) if (key[0] && ends_with(path, key)) return value;
    return NULL;
}

static int compare_ids(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static enum status read_ids(const struct peft *p, const json_t *list, int32_t *ids, struct error *err)
{
    size_t n = json_array_size(list);
    int64_t limit = p->c->model ? model_config(p->c->model)->vocab_size : INT32_MAX;
    int32_t *sorted = arena_array(p->c->arena, n, sizeof *sorted);
    if (!sorted)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", p->c->shown);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= limit)
            return fail(err, STATUS_MISMATCH,
                        "%s: trainable_token_indices: item %zu is no token id of this base (0 to %" PRId64
                        ")",
                        p->c->shown, i, limit - 1);
        ids[i] = sorted[i] = (int32_t)id;
    }
    qsort(sorted, n, sizeof *sorted, compare_ids);
    for (size_t i = 1; i < n; i++)
        if (sorted[i] == sorted[i - 1])
            return fail(err, STATUS_FORMAT, "%s: trainable_token_indices has token %d twice", p->c->shown,
                        (int)sorted[i]);
    return STATUS_OK;
}

static enum status check_module(const struct peft *p, const struct entry *e, const struct matrix *m,
                                bool *is_head, struct error *err)
{
    struct model_module module;
    const char *name = e->part[PART_ROWS]->name;
    enum status s = content_module(p->c, e, &module, err);
    if (s != STATUS_OK)
        return s;
    *is_head = module.kind == MODULE_LINEAR && module.site == LORA_SITE_LM_HEAD;
    if (!*is_head && module.kind != MODULE_EMBED)
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: tensor '%s': token rows are supported of the embedding and of lm_head only",
                    p->c->shown, name);
    uint32_t hidden = model_config(p->c->model)->hidden_size;
    return m->cols == hidden
               ? STATUS_OK
               : fail(err, STATUS_MISMATCH,
                      "%s: tensor '%s' has rows of %u, this base of %u: it was trained on another "
                      "base",
                      p->c->shown, name, m->cols, hidden);
}

enum status peft_add_rows(struct peft *p, const struct entry *e, struct error *err)
{
    struct content *c = p->c;
    const struct tensor *t = e->part[PART_ROWS];
    const json_t *list = ids_of(p, e->path);
    struct matrix m;
    const float *rows;
    bool is_head = false;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s': trainable_token_indices has no list for it",
                    c->shown, t->name);
    enum status s = content_matrix(c, t, &m, err);
    if (s == STATUS_OK && m.rows != json_array_size(list))
        s = fail(err, STATUS_FORMAT, "%s: tensor '%s' has %u rows, trainable_token_indices has %zu tokens",
                 c->shown, t->name, m.rows, json_array_size(list));
    int32_t *ids = s == STATUS_OK ? arena_array(c->arena, m.rows, sizeof *ids) : NULL;
    if (s == STATUS_OK && !ids)
        s = fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    if (s == STATUS_OK)
        s = read_ids(p, list, ids, err);
    if (s == STATUS_OK)
        s = content_floats(c, &m, &rows, err);
    if (s == STATUS_OK && c->model)
        s = check_module(p, e, &m, &is_head, err);
    if (s != STATUS_OK)
        return s;
    content_kind(c, "tokens");
    *(is_head ? &c->spec.head_row_ids : &c->spec.row_ids) = ids;
    *(is_head ? &c->spec.head_rows : &c->spec.rows) = rows;
    *(is_head ? &c->spec.n_head_rows : &c->spec.n_rows) = m.rows;
    return STATUS_OK;
}

/* Every list has its rows; only a head that is tied to the embedding may have been left out. */
enum status peft_check_rows(struct peft *p, struct error *err)
{
    const char *key = "embed_tokens";
    json_t *value;
    struct content *c = p->c;
    size_t n = 0;
    for (size_t i = 0; i < c->n_entries; i++)
        n += c->entries[i].part[PART_ROWS] != NULL;
    bool missing = p->config.tokens && n == 0;
    bool may_lack = n && (!c->model || model_config(c->model)->tie_word_embeddings);
    if (json_is_object(p->config.tokens) && !may_lack) {
        json_object_foreach(p->config.tokens, key, value)
        {
            bool found = false;
            for (size_t i = 0; i < c->n_entries && !found; i++)
                found = c->entries[i].part[PART_ROWS] && ends_with(c->entries[i].path, key);
            missing = missing || !found;
        }
    }
    return missing ? fail(err, STATUS_FORMAT,
                          "%s: trainable_token_indices is set, but the file lacks rows "
                          "(token_adapter.trainable_tokens_delta) for some of it",
                          c->shown)
                   : STATUS_OK;
}
