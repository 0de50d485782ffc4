/* Looks for adapters directly below a directory: folders with adapter_config.json, and X.gguf files. Entries
 * are visited in order of their names, so that two scans of the same directory do the same. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "base/file.h"
#include "base/mem.h"

#define ENTRIES_MAX 131072 /* above adapters-max's own bound */

struct entries {
    char **names;
    size_t n, capacity;
};

static void entries_fini(struct entries *e)
{
    for (size_t i = 0; i < e->n; i++)
        mem_free(e->names[i]);
    mem_free(e->names);
}

static bool entries_add(struct entries *e, const char *name)
{
    if (e->n == e->capacity) {
        size_t capacity = e->capacity ? e->capacity * 2 : 32;
        char **names = mem_realloc(e->names, capacity * sizeof *names);
        if (!names)
            return false;
        e->names = names;
        e->capacity = capacity;
    }
    e->names[e->n] = mem_strdup(name);
    return e->names[e->n] && ++e->n;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum status list(const char *dir, struct entries *e, struct error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return fail(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: can't open the directory: %s",
                    dir, strerror(errno));
    enum status s = STATUS_OK;
    struct dirent *entry;
    while (s == STATUS_OK && (entry = readdir(d)) != NULL) {
        if (entry->d_name[0] == '.') /* hidden: half-written ones are named so on purpose */
            continue;
        if (e->n >= ENTRIES_MAX)
            s = fail(err, STATUS_TOO_LARGE, "%s: more than %d entries", dir, ENTRIES_MAX);
        else if (!entries_add(e, entry->d_name))
            s = fail(err, STATUS_NO_MEMORY, "%s: no memory", dir);
    }
    closedir(d);
    if (s == STATUS_OK && e->n)
        qsort(e->names, e->n, sizeof *e->names, compare_names);
    return s;
}

/* The adapter's name for an entry: a folder's own, X for X.gguf. NULL: no adapter, *why says it. */
static const char *name_entry(const char *path, const char *entry, char *name, size_t name_bytes,
                              const char **why)
{
    size_t n = strlen(entry);
    bool folder = path_is_folder(path), gguf = !folder && n > 5 && strcmp(entry + n - 5, ".gguf") == 0;
    if (!folder && !gguf)
        *why = "neither a folder nor a .gguf file";
    else if (!adapter_is_at(path))
        *why = folder ? "no adapter_config.json in it" : "not a GGUF adapter";
    else {
        n -= gguf ? 5 : 0;
        *why = "its name is no adapter name: letters, digits, '.', '_', '-', at most 64";
        if (n >= name_bytes)
            return NULL;
        memcpy(name, entry, n);
        name[n] = '\0';
        return adapter_name_is_valid(name) ? name : NULL;
    }
    return NULL;
}

enum status adapters_scan(const char *dir, void (*found)(const char *name, const char *path, void *data),
                          void (*skipped)(const char *entry, const char *why, void *data), void *data,
                          struct error *err)
{
    struct entries e = {0};
    enum status s = list(dir, &e, err);
    for (size_t i = 0; s == STATUS_OK && i < e.n; i++) {
        char path[512], name[ADAPTER_NAME_MAX + 1];
        const char *why = "its path is too long";
        bool ok = path_join(path, sizeof path, dir, e.names[i]) &&
                  name_entry(path, e.names[i], name, sizeof name, &why);
        if (ok)
            found(name, path, data);
        else if (skipped)
            skipped(e.names[i], why, data);
    }
    entries_fini(&e);
    return s;
}
