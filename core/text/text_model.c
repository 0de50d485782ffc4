/* All of a model's text, opened together: its tokenizer, the texts of its first and last token, its chat
 * template. A Hugging Face folder says these in up to five files of which later ones win; a GGUF file in its
 * metadata. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "format.h"
#include "text_templates.h"
#include "tokenizer_inner.h"

#define TOKENIZER_BYTES_MAX (64U << 20)
#define CONFIG_BYTES_MAX (16U << 20) /* tokenizer_config.json repeats the added tokens */

static enum status copy_text(const char *text, size_t length, char dst[64], const char *field,
                             struct error *err)
{
    if (length >= 64)
        return fail(err, STATUS_TOO_LARGE, "%s: %zu bytes; at most 63 are allowed", field, length);
    memcpy(dst, text, length);
    dst[length] = '\0';
    return STATUS_OK;
}

static void token_text(const struct text_model *m, int32_t id, char dst[64])
{
    const struct vocab *v = &m->tokenizer->vocab;
    if (id >= 0 && (uint32_t)id < v->n_ids && v->texts[id].text && v->texts[id].length < 64)
        snprintf(dst, 64, "%s", v->texts[id].text);
}

static void set_add_bos(struct text_model *m)
{
    const struct tokenizer *t = m->tokenizer;
    m->add_bos = t->n_before > 0 && (int32_t)t->before[0] == m->bos_token;
}

/* ---- a folder */

struct folder {
    const struct model_files *files;
    struct text_model *m;
    struct error *err;
};

static enum status open_tokenizer(struct folder *f)
{
    struct buf json;
    char shown[600];
    const char *dir = f->files->path;
    if (!file_exists_at(f->files->dir_fd, "tokenizer.json")) {
        bool other = file_exists_at(f->files->dir_fd, "tokenizer.model") ||
                     file_exists_at(f->files->dir_fd, "vocab.json");
        return fail(
            f->err, STATUS_NOT_FOUND,
            other
                ? "%s: no tokenizer.json, only an older form of it; convert once with Python's transformers: "
                  "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
                : "%s: no tokenizer.json; expected one beside config.json",
            dir);
    }
    buf_init(&json, TOKENIZER_BYTES_MAX);
    enum status s =
        file_read_all_at(f->files->dir_fd, dir, "tokenizer.json", TOKENIZER_BYTES_MAX, &json, f->err);
    if (!path_join(shown, sizeof shown, dir, "tokenizer.json"))
        snprintf(shown, sizeof shown, "tokenizer.json");
    if (s == STATUS_OK)
        s = tokenizer_from_json(json.data, json.length, shown, &f->m->tokenizer, f->err);
    buf_fini(&json);
    return s;
}

static enum status read_optional(struct folder *f, const char *name, json_t **out)
{
    *out = NULL;
    if (!file_exists_at(f->files->dir_fd, name))
        return STATUS_OK;
    return json_read_at(f->files->dir_fd, f->files->path, name, CONFIG_BYTES_MAX, out, f->err);
}

/* "text" or {"content": "text", …}; null: the model has none. False: the key is absent. */
static bool find_token(const json_t *config, const char *key, const char **text, size_t *length)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v))
        v = json_object_get(v, "content");
    *text = json_string_value(v);
    *length = *text ? json_string_length(v) : 0;
    return v != NULL;
}

/* The token's text from the configuration, or from the map of special tokens, or by config.json's id. */
static enum status read_token(struct folder *f, const json_t *const configs[2], const char *key,
                              int32_t fallback, char text[64])
{
    const char *found;
    size_t length;
    for (int i = 0; i < 2; i++) {
        if (!find_token(configs[i], key, &found, &length))
            continue;
        return found ? copy_text(found, length, text, key, f->err) : STATUS_OK;
    }
    token_text(f->m, fallback, text);
    return STATUS_OK;
}

static enum status read_tokens(struct folder *f, const json_t *config)
{
    struct text_model *m = f->m;
    const struct model_config *c = &f->files->config;
    json_t *map = NULL;
    enum status s = read_optional(f, "special_tokens_map.json", &map);
    const json_t *const configs[2] = {config, map};
    if (s == STATUS_OK)
        s = read_token(f, configs, "bos_token", c->bos_token, m->bos_text);
    if (s == STATUS_OK)
        s = read_token(f, configs, "eos_token", c->n_eos ? c->eos_tokens[0] : -1, m->eos_text);
    json_decref(map);
    if (s != STATUS_OK)
        return s;
    m->bos_token = m->bos_text[0] ? tokenizer_find(m->tokenizer, m->bos_text, strlen(m->bos_text)) : -1;
    m->eos_token = m->eos_text[0] ? tokenizer_find(m->tokenizer, m->eos_text, strlen(m->eos_text)) : -1;
    set_add_bos(m);
    return STATUS_OK;
}

static enum status open_folder(struct folder *f)
{
    json_t *config = NULL;
    enum status s = open_tokenizer(f);
    if (s == STATUS_OK)
        s = read_optional(f, "tokenizer_config.json", &config);
    if (s == STATUS_OK)
        s = read_tokens(f, config);
    if (s == STATUS_OK)
        s = templates_from_folder(f->m, f->files, config, f->err);
    json_decref(config);
    return s;
}

/* ---- a GGUF file */

static enum status open_gguf(struct text_model *m, const struct gguf *g, const char *shown, struct error *err)
{
    enum status s = tokenizer_from_gguf(g, &m->tokenizer, err);
    if (s != STATUS_OK) {
        fail_within(err, "%s", shown);
        return s;
    }
    m->bos_token = m->tokenizer->bos;
    m->eos_token = m->tokenizer->eos;
    token_text(m, m->bos_token, m->bos_text);
    token_text(m, m->eos_token, m->eos_text);
    set_add_bos(m);
    return templates_from_gguf(m, g, shown, err);
}

/* ---- the door */

enum status text_model_open(const struct model_files *files, struct text_model **out, struct error *err)
{
    struct text_model *m = mem_zalloc(sizeof *m);
    if (!m)
        return fail(err, STATUS_NO_MEMORY, "%s: not enough memory", files->path);
    m->bos_token = m->eos_token = -1;
    struct folder f = {.files = files, .m = m, .err = err};
    enum status s = files->gguf ? open_gguf(m, files->gguf, files->path, err) : open_folder(&f);
    if (s != STATUS_OK) {
        text_model_close(m);
        return s;
    }
    *out = m;
    return STATUS_OK;
}

void text_model_close(struct text_model *t)
{
    if (!t)
        return;
    chat_template_destroy(t->chat_template);
    chat_template_destroy(t->tool_template);
    mem_free(t->chat_template_source);
    mem_free(t->tool_template_source);
    tokenizer_destroy(t->tokenizer);
    mem_free(t);
}

const struct chat_template *text_model_template(const struct text_model *t, bool has_tools)
{
    return has_tools && t->tool_template ? t->tool_template : t->chat_template;
}
