/* A folder with adapter_config.json: PEFT's or MLX's, which the configuration tells. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "loader.h"

#define CONFIG_BYTES_MAX ((size_t)16 << 20) /* all-linear is written out: a path for each module */
#define CONFIG_DEPTH 16

static enum status read_config(const struct opened *o, json_t **out, struct error *err)
{
    struct private_copy copy = o->copy;
    char *text = NULL, shown[600];
    size_t n = 0;
    copy.limit_bytes = CONFIG_BYTES_MAX;
    *out = NULL;
    snprintf(shown, sizeof shown, "%s/adapter_config.json", o->folder);
    enum status s = private_copy_read(&copy, o->dir_fd, o->folder, "adapter_config.json", &text, &n, err);
    if (s == STATUS_NOT_FOUND)
        return fail(err, s, "%s: no adapter_config.json: expected a PEFT or MLX folder or a .gguf file",
                    o->folder);
    if (s == STATUS_OK)
        s = json_parse(text, n, shown, CONFIG_DEPTH, out, err);
    mem_free(text);
    return s;
}

enum status folder_tensors(const struct opened *o, const char *name, struct content *c, struct tensors **keep,
                           struct error *err)
{
    struct tensors_limits limits = {
        .header_bytes = ADAPTER_HEADER_BYTES_MAX, .n_tensors = ADAPTER_TENSORS_MAX, .copy = &o->copy};
    const char *tensor, *type;
    enum status s = tensors_open_folder(o->dir_fd, o->folder, name, &limits, keep, err);
    if (s != STATUS_OK)
        return s;
    c->tensors = *keep;
    if (tensors_foreign_at(c->tensors, 0, &tensor, &type))
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s' is %s, expected F32, F16 or BF16", c->shown,
                    tensor, type);
    return STATUS_OK;
}

static enum status load(const struct opened *o, struct content *c, void **keep, struct error *err)
{
    json_t *config;
    struct tensors *tensors = NULL;
    c->shown = o->shown;
    enum status s = read_config(o, &config, err);
    c->config = json_incref(config);
    if (s == STATUS_OK && mlx_is_config(config))
        s = mlx_load(o, config, c, &tensors, err);
    else if (s == STATUS_OK)
        s = peft_load(o, config, c, &tensors, err);
    *keep = tensors;
    json_decref(config);
    return s;
}

static void release(void *keep)
{
    tensors_close(keep);
}

const struct adapter_format adapter_format_folder = {.load = load, .release = release};
