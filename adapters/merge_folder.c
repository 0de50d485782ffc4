/* A model folder with an adapter inside it. model_merge makes the matrices, model_export says what the files
 * are to hold; here they are rounded, cut into shards, and written, with the configuration and the
 * tokenizer's files. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "kernels.h"
#include "model.h"
#include "outgoing.h"
#include "rank_tools.h"

#define SHARD_BYTES_DEFAULT ((uint64_t)5000000000)
#define CHUNK_VALUES ((uint64_t)1 << 20)
#define CONFIG_BYTES_MAX ((size_t)4 << 20)
#define SHARDS_MAX 1024U

struct merging {
    const struct merge_options *o;
    struct merge_folder_report *report;
    struct out_place *place;
    struct model_export *export;
    struct tensor *items; /* [n] in order of the export; file_index: the index there */
    size_t *shard_end;    /* [n_shards] items before this are in it or an earlier one */
    size_t n;
    double error_squares;
};

/* ---- tensors ---- */

static enum status describe(struct merging *m, struct error *err)
{
    enum status s = STATUS_OK;
    m->n = model_export_count(m->export);
    m->items = mem_array(m->n, sizeof *m->items);
    m->shard_end = mem_array(m->n, sizeof *m->shard_end);
    if (!m->items || !m->shard_end)
        return fail(err, STATUS_NO_MEMORY, "no memory for %zu tensors", m->n);
    for (size_t i = 0; i < m->n && s == STATUS_OK; i++) {
        const struct export_tensor *t = model_export_at(m->export, i);
        enum dtype type = m->o->type == DTYPE_COUNT ? t->type : m->o->type;
        s = tensor_describe(&m->items[i], t->name, type, t->n_dims, t->shape, err);
        m->items[i].file_index = (uint32_t)i;
        m->report->n_bytes += m->items[i].size_bytes;
    }
    m->report->n_tensors = (uint32_t)m->n;
    return s;
}

/* Shards in the model's order, each as full as may be. */
static enum status cut(struct merging *m, struct error *err)
{
    uint64_t limit = m->o->shard_bytes ? m->o->shard_bytes : SHARD_BYTES_DEFAULT, used = 0;
    uint32_t n_files = 1;
    for (size_t i = 0; i < m->n; i++) {
        if (used > 0 && m->items[i].size_bytes > limit - (used < limit ? used : limit)) {
            n_files++;
            used = 0;
        }
        used += m->items[i].size_bytes;
        if (n_files > SHARDS_MAX)
            return fail(err, STATUS_TOO_LARGE,
                        "more than %u files of %" PRIu64 " bytes: use a larger shard size", SHARDS_MAX,
                        limit);
        m->shard_end[n_files - 1] = i + 1;
    }
    m->report->n_files = n_files;
    return STATUS_OK;
}

static uint64_t count_rows(const struct tensor *t, uint64_t *cols)
{
    *cols = t->n_dims == 1 ? 1 : t->shape[t->n_dims - 1];
    return t->n_values / *cols;
}

/* Rows at a time, but a turned matrix whole: each row of it is read from all of its rows. */
static uint64_t chunk_rows(const struct tensor *t, uint64_t rows, uint64_t cols)
{
    uint64_t n = t->n_dims == 2 ? 8 * CHUNK_VALUES / cols : CHUNK_VALUES / cols;
    return n == 0 ? 1 : n < rows ? n : rows;
}

/* What rounding to the file's type takes from a tensor's values. */
static void add_error(struct merging *m, const float *values, const float *back, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        m->error_squares += ((double)back[i] - (double)values[i]) * ((double)back[i] - (double)values[i]);
}

static enum status check_finite(const struct tensor *t, const float *back, uint64_t n, struct error *err)
{
    for (uint64_t i = 0; t->dtype == DTYPE_F16 && i < n; i++)
        if (!isfinite(back[i]))
            return fail(err, STATUS_UNSUPPORTED, "%s: a value is too large for f16: use --type bf16 or f32",
                        t->name);
    return STATUS_OK;
}

static enum status write_tensor(struct merging *m, const struct tensor *t, struct tensor_writer *w,
                                struct error *err)
{
    uint64_t cols, rows = count_rows(t, &cols), step = chunk_rows(t, rows, cols);
    size_t n_values = (size_t)(step * cols);
    float *values = mem_array(n_values, sizeof *values), *back = mem_array(n_values, sizeof *back);
    void *stored = mem_array(n_values, sizeof(float));
    enum status s = values && back && stored
                        ? STATUS_OK
                        : fail(err, STATUS_NO_MEMORY, "%s: no memory for its rows", t->name);
    for (uint64_t row = 0; row < rows && s == STATUS_OK; row += step) {
        uint64_t n = rows - row < step ? rows - row : step, row_bytes = 0;
        s = model_export_rows(m->export, t->file_index, row, n, values, err);
        if (s != STATUS_OK)
            break;
        require(dtype_row_bytes(t->dtype, n * cols, &row_bytes) &&
                quantize_row(t->dtype, values, n * cols, stored));
        dequantize_row(t->dtype, stored, n * cols, back);
        add_error(m, values, back, n * cols);
        s = check_finite(t, back, n * cols, err);
        if (s == STATUS_OK)
            s = tensor_writer_put(w, stored, row_bytes, err);
    }
    mem_free(values);
    mem_free(back);
    mem_free(stored);
    return s;
}

static void shard_name(const struct merging *m, uint32_t i, char *name, size_t name_bytes)
{
    if (m->report->n_files == 1)
        snprintf(name, name_bytes, "model.safetensors");
    else
        snprintf(name, name_bytes, "model-%05u-of-%05u.safetensors", i + 1, m->report->n_files);
}

static enum status write_shard(struct merging *m, uint32_t i, json_t *map, struct error *err)
{
    static const struct text_pair metadata[] = {{"format", "pt"}};
    size_t begin = i ? m->shard_end[i - 1] : 0, n = m->shard_end[i] - begin;
    struct tensor_writer *w;
    char name[64];
    shard_name(m, i, name, sizeof name);
    tensors_order(m->items + begin, n);
    const struct tensor_file file = {
        .name = name, .items = m->items + begin, .n_items = n, .metadata = metadata, .n_metadata = 1};
    enum status s = safetensors_create(m->place, &file, &w, err);
    for (size_t k = begin; k < begin + n && s == STATUS_OK; k++) {
        json_object_set_new(map, m->items[k].name, json_string(name));
        s = write_tensor(m, &m->items[k], w, err);
    }
    if (s == STATUS_OK)
        s = tensor_writer_finish(w, err);
    tensor_writer_close(w);
    return s;
}

static enum status write_tensors(struct merging *m, struct error *err)
{
    json_t *map = json_object(), *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size",
                                                    (json_int_t)m->report->n_bytes, "weight_map", map);
    enum status s = index ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "no memory for the index");
    for (uint32_t i = 0; i < m->report->n_files && s == STATUS_OK; i++)
        s = write_shard(m, i, map, err);
    if (s == STATUS_OK && m->report->n_files > 1)
        s = out_put_json(m->place, "model.safetensors.index.json", index, err);
    json_decref(index);
    return s;
}

/* ---- the rest of the folder ---- */

/* The key that the file has for the type; new ones call it dtype. */
static void set_type(json_t *config, enum dtype type)
{
    static const char *const names[] = {
        [DTYPE_F32] = "float32", [DTYPE_F16] = "float16", [DTYPE_BF16] = "bfloat16"};
    const char *key = json_object_get(config, "torch_dtype") ? "torch_dtype" : "dtype";
    json_object_set_new(config, key, json_string(names[type]));
}

static enum status write_config(struct merging *m, int dir_fd, const char *shown, struct error *err)
{
    struct export_changes changes = model_export_changes(m->export);
    json_t *config;
    enum status s = json_read_at(dir_fd, shown, "config.json", CONFIG_BYTES_MAX, &config, err);
    if (s != STATUS_OK)
        return s;
    bool quantised = json_object_get(config, "quantization_config") != NULL;
    if (m->o->type != DTYPE_COUNT || quantised)
        set_type(config, m->o->type != DTYPE_COUNT ? m->o->type : DTYPE_BF16);
    json_object_del(config, "quantization_config"); /* what was quantised is not any more */
    if (changes.untied)
        json_object_set_new(config, "tie_word_embeddings", json_false());
    if (changes.attention_bias)
        json_object_set_new(config, "attention_bias", json_true());
    if (changes.mlp_bias)
        json_object_set_new(config, "mlp_bias", json_true());
    m->report->untied = changes.untied;
    m->report->biases = changes.attention_bias || changes.mlp_bias;
    s = out_put_json(m->place, "config.json", config, err);
    json_decref(config);
    return s;
}

static bool is_wanted(const char *name)
{
    const char *dot = strrchr(name, '.');
    return strcmp(name, "config.json") != 0 && strstr(name, ".index.json") == NULL &&
           strncmp(name, "adapter_", 8) != 0 && dot && strcmp(dot, ".md") != 0;
}

static enum status write_texts(struct merging *m, struct error *err)
{
    int dir_fd = m->o->files->dir_fd;
    const char *shown = m->o->like ? m->o->like : m->o->files->path;
    enum status s = m->o->like ? folder_open(-1, m->o->like, &dir_fd, err) : STATUS_OK;
    if (s != STATUS_OK)
        return s;
    s = write_config(m, dir_fd, shown, err);
    if (s == STATUS_OK)
        s = out_copy_texts(m->place, dir_fd, shown, is_wanted, err);
    if (m->o->like)
        close(dir_fd);
    return s;
}

/* The result as a server would open it; headers only. */
static enum status check_result(const struct merging *m, struct error *err)
{
    char path[64];
    struct model_files *files;
    /* The open folder, by its descriptor: it has no name of its own yet. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", m->place->dir_fd);
    enum status s = model_files_open(path, &files, err);
    if (s == STATUS_OK)
        s = model_check(files, err);
    model_files_close(files);
    return s == STATUS_OK ? s : fail_within(err, "%s: what was to be written would not load", m->place->path);
}

static bool all_bf16(const struct merging *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->items[i].dtype != DTYPE_BF16 && m->items[i].n_dims > 1)
            return false;
    return true;
}

static enum status write_folder(struct merging *m, struct error *err)
{
    enum status s = cut(m, err);
    if (s == STATUS_OK)
        s = write_texts(m, err);
    if (s == STATUS_OK)
        s = write_tensors(m, err);
    if (s == STATUS_OK)
        s = check_result(m, err);
    return s == STATUS_OK ? out_commit_folder(m->place, err) : s;
}

/* Full floats, unless all the files will be bf16: then half the memory does. */
static enum status merge(struct merging *m, struct error *err)
{
    const struct merge_options *o = m->o;
    struct model *merged = NULL;
    enum status s = model_export_create(o->base, o->files, &m->export, err);
    if (s == STATUS_OK)
        s = describe(m, err);
    bool narrow = s == STATUS_OK && all_bf16(m);
    model_export_destroy(m->export);
    m->export = NULL;
    mem_free(m->items);
    mem_free(m->shard_end);
    m->items = NULL;
    m->shard_end = NULL;
    *m->report = (struct merge_folder_report){.n_files = 0};
    if (s == STATUS_OK)
        s = model_merge(o->base, o->lora, narrow ? DTYPE_BF16 : DTYPE_F32, o->team, &merged, err);
    if (s == STATUS_OK)
        s = model_export_create(merged, o->files, &m->export, err);
    if (s == STATUS_OK)
        s = describe(m, err);
    if (s == STATUS_OK)
        s = write_folder(m, err);
    if (s == STATUS_OK) {
        const struct merge_report *r = model_merge_report(merged);
        m->report->n_matrices = r->n_matrices;
        m->report->delta_norm = r->delta_norm;
        m->report->error_norm = sqrt(r->error_norm * r->error_norm + m->error_squares);
    }
    model_export_destroy(m->export);
    mem_free(m->items);
    mem_free(m->shard_end);
    model_close(merged);
    return s;
}

static enum status check_options(const struct merge_options *o, struct error *err)
{
    if (o->type != DTYPE_COUNT && !dtype_is_float(o->type))
        return fail(err, STATUS_INVALID, "type: found %s, expected f32, f16 or bf16", dtype_name(o->type));
    if (!o->like && o->files->dir_fd < 0)
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: a GGUF base has no config.json and tokenizer files to copy, and none are derived "
                    "from it: give "
                    "--like FOLDER, a Hugging Face folder of the same model (its weights are not read), or "
                    "merge into "
                    "that folder itself",
                    o->files->path);
    return STATUS_OK;
}

enum status adapter_merge_folder(const char *out, const struct merge_options *o,
                                 struct merge_folder_report *report, struct error *err)
{
    struct out_place place = {.parent_fd = -1, .stop = o->stop};
    struct merging m = {.o = o, .report = report, .place = &place};
    *report = (struct merge_folder_report){.n_files = 0};
    enum status s = check_options(o, err);
    if (s == STATUS_OK)
        s = out_begin(&place, out, err);
    if (s == STATUS_OK)
        s = merge(&m, err);
    out_abandon(&place);
    return s;
}
