/* The chat templates of a model, found as transformers finds them: chat_template.jinja and the folder
 * additional_chat_templates, or chat_template.json, or tokenizer_config.json's chat_template, which is one
 * text or a list of named ones; a GGUF file has them in its metadata. Of the named ones "default" is for
 * every conversation, and "tool_use" for those with tools; others are chosen by hand there and left alone
 * here. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "format.h"
#include "text_templates.h"

#define CONFIG_BYTES_MAX (16U << 20)
#define TEMPLATE_BYTES_MAX (1U << 20)
#define TOOL_FILE "additional_chat_templates/tool_use.jinja"

struct source {
    const char *text;
    size_t length;
};

static enum status compile(const struct source *s, const char *shown, struct chat_template **out,
                           struct error *err)
{
    if (s->length > TEMPLATE_BYTES_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: the chat template has %zu bytes; at most %u are allowed",
                    shown, s->length, TEMPLATE_BYTES_MAX);
    return chat_template_compile(s->text, s->length, shown, out, err);
}

static enum status keep_default(struct text_model *m, const struct source *s, const char *shown,
                                struct error *err)
{
    enum status status = compile(s, shown, &m->chat_template, err);
    if (status != STATUS_OK)
        return status;
    m->chat_template_source = mem_strndup(s->text, s->length);
    return m->chat_template_source
               ? STATUS_OK
               : fail(err, STATUS_NO_MEMORY, "%s: not enough memory for the chat template", shown);
}

static enum status keep_tool(struct text_model *m, const struct source *s, const char *shown,
                             struct error *err)
{
    enum status status = compile(s, shown, &m->tool_template, err);
    if (status != STATUS_OK)
        return status;
    m->tool_template_source = mem_strndup(s->text, s->length);
    return m->tool_template_source
               ? STATUS_OK
               : fail(err, STATUS_NO_MEMORY, "%s: not enough memory for the chat template", shown);
}

static enum status keep_named_tool(struct text_model *m, const struct source *s, const char *shown,
                                   struct error *err)
{
    char named[640];
    snprintf(named, sizeof named, "%s: tool_use", shown);
    return keep_tool(m, s, named, err);
}

/* ---- a folder */

static enum status from_list(struct text_model *m, const json_t *list, const char *shown, struct error *err)
{
    struct source sources[2] = {{0}}; /* default, tool_use: the last of a name counts */
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *text = json_object_get(item, "template");
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!name || !json_is_string(text))
            return fail(err, STATUS_FORMAT, "%s: chat_template: entry %zu: expected {name, template}", shown,
                        i);
        if (strcmp(name, "default") == 0 || strcmp(name, "tool_use") == 0)
            sources[name[0] == 't'] = (struct source){json_string_value(text), json_string_length(text)};
    }
    if (!sources[0].text)
        return fail(err, STATUS_FORMAT, "%s: chat_template is a list without one named \"default\"", shown);
    enum status status = keep_default(m, &sources[0], shown, err);
    return status == STATUS_OK && sources[1].text ? keep_named_tool(m, &sources[1], shown, err) : status;
}

static enum status from_json(struct text_model *m, const json_t *value, const char *shown, struct error *err)
{
    if (json_is_array(value))
        return from_list(m, value, shown, err);
    if (!json_is_string(value))
        return fail(err, STATUS_FORMAT, "%s: chat_template: expected a text, or a list of {name, template}",
                    shown);
    struct source s = {json_string_value(value), json_string_length(value)};
    return keep_default(m, &s, shown, err);
}

static enum status from_file(struct text_model *m, const struct model_files *files, const char *name,
                             struct error *err)
{
    struct buf text;
    char shown[600];
    if (!path_join(shown, sizeof shown, files->path, name))
        snprintf(shown, sizeof shown, "%s", name);
    buf_init(&text, TEMPLATE_BYTES_MAX);
    enum status status = file_read_all_at(files->dir_fd, files->path, name, TEMPLATE_BYTES_MAX, &text, err);
    struct source s = {text.data ? text.data : "", text.length};
    if (status == STATUS_OK && strcmp(name, TOOL_FILE) == 0)
        status = keep_tool(m, &s, shown, err);
    else if (status == STATUS_OK)
        status = keep_default(m, &s, shown, err);
    buf_fini(&text);
    return status;
}

static enum status from_config(struct text_model *m, const struct model_files *files, const json_t *config,
                               const char *name, struct error *err)
{
    char shown[600];
    const json_t *value = json_object_get(config, "chat_template");
    if (!value || json_is_null(value))
        return STATUS_OK;
    if (!path_join(shown, sizeof shown, files->path, name))
        snprintf(shown, sizeof shown, "%s", name);
    return from_json(m, value, shown, err);
}

enum status templates_from_folder(struct text_model *m, const struct model_files *files, const json_t *config,
                                  struct error *err)
{
    json_t *own = NULL;
    enum status status = STATUS_OK;
    if (file_exists_at(files->dir_fd, "chat_template.jinja")) {
        status = from_file(m, files, "chat_template.jinja", err);
        if (status == STATUS_OK && file_exists_at(files->dir_fd, TOOL_FILE))
            status = from_file(m, files, TOOL_FILE, err);
        return status;
    }
    if (!file_exists_at(files->dir_fd, "chat_template.json"))
        return from_config(m, files, config, "tokenizer_config.json", err);
    status = json_read_at(files->dir_fd, files->path, "chat_template.json", CONFIG_BYTES_MAX, &own, err);
    if (status == STATUS_OK)
        status = from_config(m, files, own, "chat_template.json", err);
    json_decref(own);
    return status;
}

/* ---- a GGUF file */

static enum status gguf_source(const struct gguf *g, const char *key, struct source *s, struct error *err)
{
    *s = (struct source){0};
    return gguf_has(g, key) ? gguf_get_string(g, key, &s->text, &s->length, err) : STATUS_OK;
}

enum status templates_from_gguf(struct text_model *m, const struct gguf *g, const char *shown,
                                struct error *err)
{
    struct source all, tool;
    enum status status = gguf_source(g, "tokenizer.chat_template", &all, err);
    if (status == STATUS_OK)
        status = gguf_source(g, "tokenizer.chat_template.tool_use", &tool, err);
    if (status == STATUS_OK && all.text)
        status = keep_default(m, &all, shown, err);
    return status == STATUS_OK && all.text && tool.text ? keep_named_tool(m, &tool, shown, err) : status;
}
