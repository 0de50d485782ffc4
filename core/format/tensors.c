/* Sets of named tensors, whatever format they came from. Immutable once finished; reading is pread (or a copy
 * from private memory), so any number of threads may read at once. */
#include "tensors.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct tensors *tensors_create(const struct tensors_limits *limits)
{
    struct tensors *t = mem_zalloc(sizeof *t);
    if (!t)
        return NULL;
    t->arena = arena_create(0);
    if (!t->arena) {
        mem_free(t);
        return NULL;
    }
    t->header_bytes_max = limits && limits->header_bytes ? limits->header_bytes : HEADER_BYTES_DEFAULT;
    t->n_tensors_max = limits && limits->n_tensors ? limits->n_tensors : N_TENSORS_DEFAULT;
    return t;
}

void tensors_close(struct tensors *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; i < t->n_sources; i++)
        source_close(&t->sources[i]);
    mem_free(t->sources);
    mem_free(t->items);
    mem_free(t->foreign);
    mem_free(t->metadata);
    mem_free(t->by_name);
    arena_destroy(t->arena);
    mem_free(t);
}

/* Room for one more of n items; false when memory is short. */
static bool grow(void **items, size_t n, size_t *capacity, size_t item_bytes)
{
    if (n < *capacity)
        return true;
    size_t wanted = *capacity ? *capacity * 2 : 16, size;
    void *p = size_mul(wanted, item_bytes, &size) ? mem_realloc(*items, size) : NULL;
    if (!p)
        return false;
    *items = p;
    *capacity = wanted;
    return true;
}

static enum status no_memory(struct error *err)
{
    return fail(err, STATUS_NO_MEMORY, "no memory for the table of tensors");
}

enum status tensors_add_file(struct tensors *t, int dir_fd, const char *shown_dir, const char *name,
                             const struct private_copy *copy, uint32_t *file_index, struct error *err)
{
    size_t capacity = t->sources_capacity;
    void *p = t->sources;
    if (!grow(&p, t->n_sources, &capacity, sizeof *t->sources))
        return no_memory(err);
    t->sources = p;
    t->sources_capacity = (uint32_t)capacity;
    enum status s = source_open(&t->sources[t->n_sources], dir_fd, shown_dir, name, copy, err);
    if (s == STATUS_OK)
        *file_index = t->n_sources++;
    return s;
}

static enum status check_name(const struct tensors *t, const char *name, uint32_t file_index,
                              struct error *err)
{
    const char *shown = t->sources[file_index].file.path;
    size_t length = strlen(name);
    if (t->n_items + t->n_foreign >= t->n_tensors_max)
        return fail(err, STATUS_TOO_LARGE, "%s: more than %u tensors", shown, t->n_tensors_max);
    if (length == 0 || length > TENSOR_NAME_MAX)
        return fail(err, STATUS_FORMAT, "%s: tensor name '%.40s' has %zu bytes, expected 1 to %d", shown,
                    name, length, TENSOR_NAME_MAX);
    return STATUS_OK;
}

enum status tensors_add(struct tensors *t, const struct tensor *item, struct error *err)
{
    enum status s = check_name(t, item->name, item->file_index, err);
    if (s != STATUS_OK)
        return s;
    void *p = t->items;
    if (!grow(&p, t->n_items, &t->items_capacity, sizeof *t->items))
        return no_memory(err);
    t->items = p;
    struct tensor *slot = &t->items[t->n_items];
    *slot = *item;
    slot->name = arena_strdup(t->arena, item->name);
    if (!slot->name)
        return no_memory(err);
    t->n_items++;
    return STATUS_OK;
}

enum status tensors_add_foreign(struct tensors *t, const struct foreign *item, struct error *err)
{
    enum status s = check_name(t, item->name, item->file_index, err);
    if (s != STATUS_OK)
        return s;
    void *p = t->foreign;
    if (!grow(&p, t->n_foreign, &t->foreign_capacity, sizeof *t->foreign))
        return no_memory(err);
    t->foreign = p;
    struct foreign *slot = &t->foreign[t->n_foreign];
    *slot = *item;
    slot->name = arena_strdup(t->arena, item->name);
    slot->type = arena_strdup(t->arena, item->type);
    if (!slot->name || !slot->type)
        return no_memory(err);
    t->n_foreign++;
    return STATUS_OK;
}

enum status tensors_add_metadata(struct tensors *t, const char *key, const char *value, struct error *err)
{
    if (tensors_metadata(t, key)) /* a later shard's: the first one's stays */
        return STATUS_OK;
    if (t->n_metadata >= METADATA_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: more than %d metadata strings",
                    t->sources[t->n_sources - 1].file.path, METADATA_MAX);
    void *p = t->metadata;
    if (!grow(&p, t->n_metadata, &t->metadata_capacity, sizeof *t->metadata))
        return no_memory(err);
    t->metadata = p;
    struct metadata m = {.key = arena_strdup(t->arena, key), .value = arena_strdup(t->arena, value)};
    if (!m.key || !m.value)
        return no_memory(err);
    t->metadata[t->n_metadata++] = m;
    return STATUS_OK;
}

static int compare_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct tensor *const *)a)->name, (*(const struct tensor *const *)b)->name);
}

static int compare_name_with(const void *name, const void *item)
{
    return strcmp(name, (*(const struct tensor *const *)item)->name);
}

static enum status duplicate(const struct tensors *t, const char *name, uint32_t file_index,
                             struct error *err)
{
    return fail(err, STATUS_FORMAT, "%s: tensor '%s' is given twice", t->sources[file_index].file.path, name);
}

enum status tensors_finish(struct tensors *t, struct error *err)
{
    t->by_name = mem_array(t->n_items, sizeof *t->by_name);
    if (!t->by_name)
        return no_memory(err);
    for (size_t i = 0; i < t->n_items; i++)
        t->by_name[i] = &t->items[i];
    if (t->n_items)
        qsort(t->by_name, t->n_items, sizeof *t->by_name, compare_by_name);
    for (size_t i = 1; i < t->n_items; i++)
        if (strcmp(t->by_name[i - 1]->name, t->by_name[i]->name) == 0)
            return duplicate(t, t->by_name[i]->name, t->by_name[i]->file_index, err);
    for (size_t i = 0; i < t->n_foreign; i++)
        if (tensors_find(t, t->foreign[i].name))
            return duplicate(t, t->foreign[i].name, t->foreign[i].file_index, err);
    return STATUS_OK;
}

size_t tensors_count(const struct tensors *t)
{
    return t->n_items;
}

const struct tensor *tensors_at(const struct tensors *t, size_t index)
{
    require(index < t->n_items);
    return &t->items[index];
}

const struct tensor *tensors_find(const struct tensors *t, const char *name)
{
    const struct tensor **found = NULL;
    if (t->n_items)
        found = bsearch(name, t->by_name, t->n_items, sizeof *t->by_name, compare_name_with);
    return found ? *found : NULL;
}

uint32_t tensors_n_files(const struct tensors *t)
{
    return t->n_sources;
}

const char *tensors_file_name(const struct tensors *t, uint32_t file_index)
{
    require(file_index < t->n_sources);
    return t->sources[file_index].file.path;
}

bool tensors_file_state(const struct tensors *t, uint32_t file_index, struct copied_file *out)
{
    require(file_index < t->n_sources);
    return source_state(&t->sources[file_index], out);
}

void tensors_forget(const struct tensors *t)
{
    for (size_t i = 0; i < t->n_items; i++) {
        const struct tensor *item = &t->items[i];
        int fd = t->sources[item->file_index].file.fd;
        if (fd >= 0)
            (void)posix_fadvise(fd, (off_t)item->offset, (off_t)item->size_bytes, POSIX_FADV_DONTNEED);
    }
}

bool tensors_foreign_at(const struct tensors *t, size_t index, const char **name, const char **type)
{
    if (index >= t->n_foreign)
        return false;
    *name = t->foreign[index].name;
    *type = t->foreign[index].type;
    return true;
}

const char *tensors_metadata(const struct tensors *t, const char *key)
{
    for (size_t i = 0; i < t->n_metadata; i++)
        if (strcmp(t->metadata[i].key, key) == 0)
            return t->metadata[i].value;
    return NULL;
}

enum status tensor_read(const struct tensors *t, const struct tensor *tensor, uint64_t begin,
                        uint64_t n_bytes, void *dst, struct error *err)
{
    uint64_t end;
    require(u64_add(begin, n_bytes, &end) && end <= tensor->size_bytes && n_bytes <= SIZE_MAX);
    enum status s =
        source_read(&t->sources[tensor->file_index], tensor->offset + begin, dst, (size_t)n_bytes, err);
    return s == STATUS_OK ? s : fail_within(err, "tensor '%s'", tensor->name);
}

const void *tensor_data(const struct tensors *t, const struct tensor *tensor)
{
    const char *copy = t->sources[tensor->file_index].copy;
    return copy ? copy + tensor->offset : NULL;
}

static int compare_extents(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static uint64_t round_up(uint64_t n, uint64_t alignment)
{
    /* Callers' offsets lie inside a file, so far below the wrap. */
    return (n + alignment - 1) / alignment * alignment;
}

enum status tensors_check_extents(struct extent *e, size_t n, uint64_t alignment, uint64_t n_bytes,
                                  const char *shown, struct error *err)
{
    if (n)
        qsort(e, n, sizeof *e, compare_extents);
    uint64_t expected = 0, end = 0;
    for (size_t i = 0; i < n; i++) {
        if (e[i].end > n_bytes)
            return fail(err, STATUS_FORMAT,
                        "%s: cut short: tensor '%s' ends at data byte %llu, the file has %llu", shown,
                        e[i].name, (unsigned long long)e[i].end, (unsigned long long)n_bytes);
        if (e[i].begin != expected)
            return fail(err, STATUS_FORMAT, "%s: tensor '%s' begins at data byte %llu, expected %llu (%s)",
                        shown, e[i].name, (unsigned long long)e[i].begin, (unsigned long long)expected,
                        e[i].begin < expected ? "tensors overlap" : "a hole between tensors");
        end = e[i].end;
        expected = round_up(end, alignment);
    }
    if (n_bytes > expected)
        return fail(err, STATUS_FORMAT, "%s: %llu bytes behind the last tensor's end", shown,
                    (unsigned long long)(n_bytes - end));
    return STATUS_OK;
}
