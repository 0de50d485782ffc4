/* A model on disk: a Hugging Face folder or one GGUF file, opened and understood but not loaded. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "format.h"

#define CONFIG_BYTES_MAX ((size_t)4 << 20)

/* The folder's own name for a model whose config has none: the last part of the path. */
static void name_from_path(struct model_files *f)
{
    size_t end = strlen(f->path);
    while (end > 1 && f->path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && f->path[begin - 1] != '/')
        begin--;
    snprintf(f->config.name, sizeof f->config.name, "%.*s", (int)(end - begin), f->path + begin);
}

static enum status explain_missing_config(const struct model_files *f, struct error *err)
{
    if (file_exists_at(f->dir_fd, "adapter_config.json"))
        return fail(err, STATUS_INVALID,
                    "%s: this is an adapter (adapter_config.json), expected a model; an "
                    "adapter goes to --adapter",
                    f->path);
    return fail(err, STATUS_NOT_FOUND,
                "%s: no config.json: expected a Hugging Face model folder or a .gguf file", f->path);
}

static enum status explain_missing_weights(const struct model_files *f, struct error *err)
{
    if (file_exists_at(f->dir_fd, "pytorch_model.bin") ||
        file_exists_at(f->dir_fd, "pytorch_model.bin.index.json"))
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: pytorch_model.bin can run code when it is read; save the model "
                    "as safetensors: AutoModelForCausalLM.from_pretrained(d).save_pretrained(d)",
                    f->path);
    return err ? err->status : STATUS_NOT_FOUND;
}

static enum status open_folder(struct model_files *f, struct error *err)
{
    char shown[sizeof f->path + 16];
    json_t *config = NULL, *generation = NULL;
    enum status s = folder_open(-1, f->path, &f->dir_fd, err);
    if (s != STATUS_OK)
        return s;
    s = json_read_at(f->dir_fd, f->path, "config.json", CONFIG_BYTES_MAX, &config, err);
    if (s == STATUS_NOT_FOUND)
        return explain_missing_config(f, err);
    if (s == STATUS_OK) {
        s = json_read_at(f->dir_fd, f->path, "generation_config.json", CONFIG_BYTES_MAX, &generation, err);
        s = s == STATUS_NOT_FOUND ? STATUS_OK : s;
    }
    snprintf(shown, sizeof shown, "%s/config.json", f->path);
    if (s == STATUS_OK)
        s = model_config_from_json(config, generation, shown, &f->config, err);
    json_decref(config);
    json_decref(generation);
    if (s != STATUS_OK)
        return s;
    s = tensors_open_folder(f->dir_fd, f->path, "model", NULL, &f->own_tensors, err);
    if (s == STATUS_NOT_FOUND)
        return explain_missing_weights(f, err);
    f->tensors = f->own_tensors;
    return s;
}

static enum status open_gguf(struct model_files *f, struct error *err)
{
    enum status s = gguf_open(f->path, NULL, &f->gguf, err);
    if (s != STATUS_OK)
        return s;
    f->tensors = gguf_tensors(f->gguf);
    return model_config_from_gguf(f->gguf, &f->config, err);
}

enum status model_files_open(const char *path, struct model_files **out, struct error *err)
{
    *out = NULL;
    struct model_files *f = mem_zalloc(sizeof *f);
    if (!f)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    f->dir_fd = -1;
    enum status s;
    if (snprintf(f->path, sizeof f->path, "%s", path) >= (int)sizeof f->path)
        s = fail(err, STATUS_INVALID, "the model's path has more than %zu bytes", sizeof f->path - 1);
    else
        s = path_is_folder(path) ? open_folder(f, err) : open_gguf(f, err);
    if (s == STATUS_OK && !f->config.name[0])
        name_from_path(f);
    if (s == STATUS_OK)
        *out = f;
    else
        model_files_close(f);
    return s;
}

void model_files_close(struct model_files *f)
{
    if (!f)
        return;
    gguf_close(f->gguf);
    tensors_close(f->own_tensors);
    if (f->dir_fd >= 0)
        close(f->dir_fd);
    mem_free(f);
}
