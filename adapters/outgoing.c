/* Writes what an adapter's folder or file consists of: tensors, JSON, and copies of the texts that lie beside
 * it. No state; the place is the caller's, who commits or abandons it. */
#include "outgoing.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define TEXT_BYTES_MAX ((size_t)64 << 20) /* a big tokenizer.json has 33 MB */
#define TEXTS_MAX 64

void outgoing_fini(struct outgoing *o)
{
    mem_free(o->items);
    mem_free((void *)o->data);
    o->items = NULL;
    o->data = NULL;
}

static bool make_room(struct outgoing *o)
{
    if (o->n < o->room)
        return true;
    size_t room = o->room ? 2 * o->room : 64;
    struct tensor *items = mem_realloc(o->items, room * sizeof *items);
    if (items)
        o->items = items;
    const void **data = mem_realloc((void *)o->data, room * sizeof *data);
    if (data)
        o->data = data;
    if (items && data)
        o->room = room;
    return items && data;
}

enum status outgoing_add(struct outgoing *o, const char *name, const struct outgoing_shape *shape,
                         const void *data, struct error *err)
{
    const char *kept = arena_strdup(o->arena, name);
    if (!kept || !make_room(o))
        return fail(err, STATUS_NO_MEMORY, "no memory for tensor '%s'", name);
    enum status s = tensor_describe(&o->items[o->n], kept, shape->type, shape->n_dims, shape->d, err);
    o->items[o->n].file_index = (uint32_t)o->n;
    o->data[o->n] = data;
    o->n += s == STATUS_OK;
    return s;
}

static enum status put_all(const struct outgoing *o, struct tensor_writer *w, struct error *err)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < o->n && s == STATUS_OK; i++)
        s = tensor_writer_put(w, o->data[o->items[i].file_index], o->items[i].size_bytes, err);
    if (s == STATUS_OK)
        s = tensor_writer_finish(w, err);
    tensor_writer_close(w);
    return s;
}

enum status outgoing_write_peft(struct outgoing *o, const struct out_place *place, struct error *err)
{
    const struct text_pair metadata[] = {{"format", "pt"}};
    struct tensor_writer *w;
    tensors_order(o->items, o->n);
    const struct tensor_file file = {.name = "adapter_model.safetensors",
                                     .items = o->items,
                                     .n_items = o->n,
                                     .metadata = metadata,
                                     .n_metadata = 1};
    enum status s = safetensors_create(place, &file, &w, err);
    return s == STATUS_OK ? put_all(o, w, err) : s;
}

enum status outgoing_write_gguf(struct outgoing *o, const struct out_place *place, const char *name,
                                const struct gguf_pair *pairs, size_t n_pairs, struct error *err)
{
    struct tensor_writer *w;
    const struct tensor_file file = {
        .name = name, .items = o->items, .n_items = o->n, .pairs = pairs, .n_pairs = n_pairs};
    enum status s = gguf_create(place, &file, &w, err);
    return s == STATUS_OK ? put_all(o, w, err) : s;
}

double tidy_number(double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.7g", v);
    return strtod(text, NULL);
}

json_t *json_number(double v)
{
    return v == floor(v) && fabs(v) < 1e9 ? json_integer((json_int_t)v) : json_real(v);
}

/* 16 digits: 0.05 stays 0.05, and what they can't tell apart is below every use of these numbers. */
enum status out_put_json(const struct out_place *place, const char *name, const json_t *value,
                         struct error *err)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(16));
    if (!text)
        return fail(err, STATUS_NO_MEMORY, "%s/%s: no memory", place->path, name);
    enum status s = out_put(place, name, text, strlen(text), err);
    free(text);
    return s;
}

static bool is_text(const char *name)
{
    static const char *const endings[] = {".json", ".jsonl", ".md", ".txt", ".jinja", ".model"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof endings[0]; i++)
        if (strcmp(dot, endings[i]) == 0)
            return name[0] != '.';
    return false;
}

static enum status copy_text(const struct out_place *place, int dir_fd, const char *shown, const char *name,
                             struct error *err)
{
    struct buf text;
    buf_init(&text, 0);
    enum status s = file_read_all_at(dir_fd, shown, name, TEXT_BYTES_MAX, &text, err);
    if (s == STATUS_OK)
        s = out_put(place, name, text.data, text.length, err);
    buf_fini(&text);
    return s;
}

enum status out_copy_texts(const struct out_place *place, int dir_fd, const char *shown,
                           bool (*wanted)(const char *name), struct error *err)
{
    int n = 0, fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    enum status s = STATUS_OK;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return fail(err, STATUS_IO, "%s: can't list the folder", shown);
    }
    for (struct dirent *e = readdir(d); e && s == STATUS_OK; e = readdir(d)) {
        if (!is_text(e->d_name) || !wanted(e->d_name) || !file_exists_at(dir_fd, e->d_name))
            continue;
        s = ++n > TEXTS_MAX
                ? fail(err, STATUS_TOO_LARGE, "%s: more than %d text files to copy", shown, TEXTS_MAX)
                : copy_text(place, dir_fd, shown, e->d_name, err);
    }
    closedir(d);
    return s;
}
