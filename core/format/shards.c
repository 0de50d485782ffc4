/* A folder's safetensors: NAME.safetensors, or the shards that NAME.safetensors.index.json lists.
 *
 *     index = { "metadata": {…}, "weight_map": { tensor: shard file } }
 *
 * The index is a promise: each tensor is in the shard that it says, and no shard has others. Shard names are
 * plain file names of the same folder. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tensors.h"

#define INDEX_DEPTH 8
#define INDEX_BYTES_MAX ((uint64_t)64 << 20)
#define SHARDS_MAX 1024
#define FILE_NAME_MAX 255

static bool is_shard_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    size_t n = strlen(name);
    return n > sizeof suffix - 1 && n <= FILE_NAME_MAX && name[0] != '.' && !strchr(name, '/') &&
           strcmp(name + n - (sizeof suffix - 1), suffix) == 0;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names, sorted, as borrowed strings of `map`. */
static enum status list_shards(json_t *map, const char *shown, const char ***shards, size_t *n_shards,
                               struct error *err)
{
    const char *tensor;
    json_t *file;
    size_t n = 0, kept = 0;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return fail(err, STATUS_FORMAT, "%s: no weight_map", shown);
    const char **names = mem_array(json_object_size(map), sizeof *names);
    if (!names)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", shown);
    json_object_foreach(map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (!name || !is_shard_name(name)) {
            mem_free(names);
            return fail(
                err, STATUS_FORMAT,
                "%s: weight_map: '%.100s' is in '%.100s', expected a plain file name NAME.safetensors", shown,
                tensor, name ? name : "(no string)");
        }
        names[n++] = name;
    }
    qsort(names, n, sizeof *names, compare_strings);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[kept - 1]) != 0)
            names[kept++] = names[i];
    *shards = names;
    *n_shards = kept;
    if (kept > SHARDS_MAX) {
        mem_free(names);
        return fail(err, STATUS_TOO_LARGE, "%s: %zu shards, at most %d are supported", shown, kept,
                    SHARDS_MAX);
    }
    return STATUS_OK;
}

/* The file name part of the shard that holds a tensor. */
static const char *shard_of(const struct tensors *t, uint32_t file_index)
{
    const char *path = t->sources[file_index].file.path, *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static enum status check_listed(const struct tensors *t, const json_t *map, const char *name,
                                uint32_t file_index, struct error *err)
{
    const char *listed = json_string_value(json_object_get(map, name)), *found = shard_of(t, file_index);
    if (listed && strcmp(listed, found) == 0)
        return STATUS_OK;
    return fail(err, STATUS_FORMAT, "%s: tensor '%s': the index says it is in %.100s",
                t->sources[file_index].file.path, name, listed ? listed : "no shard");
}

/* Both directions: every tensor found is where the index says, and none listed is missing. */
static enum status check_index(const struct tensors *t, json_t *map, const char *shown, struct error *err)
{
    const char *name;
    json_t *file;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < t->n_items && s == STATUS_OK; i++)
        s = check_listed(t, map, t->items[i].name, t->items[i].file_index, err);
    for (size_t i = 0; i < t->n_foreign && s == STATUS_OK; i++)
        s = check_listed(t, map, t->foreign[i].name, t->foreign[i].file_index, err);
    if (s != STATUS_OK || json_object_size(map) == t->n_items + t->n_foreign)
        return s;
    json_object_foreach(map, name, file)
    {
        bool found = tensors_find(t, name) != NULL;
        for (size_t i = 0; i < t->n_foreign && !found; i++)
            found = strcmp(t->foreign[i].name, name) == 0;
        if (!found)
            return fail(err, STATUS_FORMAT, "%s: tensor '%.100s' is not in its shard %.100s", shown, name,
                        json_string_value(file));
    }
    return STATUS_OK;
}

static enum status open_shards(struct tensors *t, int dir_fd, const char *shown_dir, json_t *index,
                               const char *shown, const struct private_copy *copy, struct error *err)
{
    json_t *map = json_object_get(index, "weight_map");
    const char **shards = NULL;
    size_t n_shards = 0;
    enum status s = list_shards(map, shown, &shards, &n_shards, err);
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < n_shards && s == STATUS_OK; i++) {
        s = safetensors_add(t, dir_fd, shown_dir, shards[i], copy, err);
        if (s == STATUS_NOT_FOUND)
            s = fail(err, STATUS_FORMAT, "%s: shard %s is listed but not there", shown, shards[i]);
    }
    mem_free(shards);
    if (s == STATUS_OK)
        s = tensors_finish(t, err);
    return s == STATUS_OK ? check_index(t, map, shown, err) : s;
}

static enum status read_index(int dir_fd, const char *shown_dir, const char *name,
                              const struct private_copy *copy, json_t **index, struct error *err)
{
    struct source src;
    enum status s = source_open(&src, dir_fd, shown_dir, name, copy, err);
    if (s != STATUS_OK)
        return s;
    size_t n = (size_t)src.file.size_bytes;
    char *text = NULL;
    if (src.file.size_bytes > INDEX_BYTES_MAX)
        s = fail(err, STATUS_TOO_LARGE, "%s: larger than %llu bytes", src.file.path,
                 (unsigned long long)INDEX_BYTES_MAX);
    else if (!(text = mem_alloc(n)))
        s = fail(err, STATUS_NO_MEMORY, "%s: no memory", src.file.path);
    if (s == STATUS_OK)
        s = source_read(&src, 0, text, n, err);
    if (s == STATUS_OK)
        s = json_parse(text, n, src.file.path, INDEX_DEPTH, index, err);
    mem_free(text);
    source_close(&src);
    return s;
}

static enum status fill(struct tensors *t, int dir_fd, const char *shown_dir, const char *name,
                        const struct private_copy *copy, struct error *err)
{
    char single[FILE_NAME_MAX + 1], listed[FILE_NAME_MAX + 1], shown[512];
    json_t *index = NULL;
    if (snprintf(single, sizeof single, "%s.safetensors", name) >= (int)sizeof single ||
        snprintf(listed, sizeof listed, "%s.safetensors.index.json", name) >= (int)sizeof listed)
        return fail(err, STATUS_INVALID, "%s: the name is too long", name);
    enum status s = safetensors_add(t, dir_fd, shown_dir, single, copy, err);
    if (s == STATUS_OK)
        return tensors_finish(t, err);
    if (s != STATUS_NOT_FOUND)
        return s;
    s = read_index(dir_fd, shown_dir, listed, copy, &index, err);
    if (s == STATUS_NOT_FOUND)
        return fail(err, STATUS_NOT_FOUND, "%s: neither %s nor %s is there", shown_dir, single, listed);
    if (s != STATUS_OK)
        return s;
    snprintf(shown, sizeof shown, "%s/%s", shown_dir, listed);
    s = open_shards(t, dir_fd, shown_dir, index, shown, copy, err);
    json_decref(index);
    return s;
}

enum status tensors_open_folder(int dir_fd, const char *shown_dir, const char *name,
                                const struct tensors_limits *limits, struct tensors **out, struct error *err)
{
    *out = NULL;
    struct tensors *t = tensors_create(limits);
    if (!t)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", shown_dir);
    enum status s = fill(t, dir_fd, shown_dir, name, limits ? limits->copy : NULL, err);
    if (s == STATUS_OK)
        *out = t;
    else
        tensors_close(t);
    return s;
}
