/* Where packed weights are kept, and when. The file itself is the model's business (model_write_packed). */
#include "pack_cache.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "conf.h"
#include "format.h"
#include "model.h"

#define AUTO_BYTES_MIN ((size_t)64 << 20) /* smaller models are packed before anyone notices */
#define PLACES_MAX 2

struct places {
    char path[PLACES_MAX][PACK_PATH_BYTES];
    unsigned n;
};

static bool is_auto(const struct conf *c)
{
    return strcmp(c->pack_cache, "auto") == 0;
}

/* "" or ".q8_0": a file for each --quant. */
static void add_ending(const struct conf *c, char *name, size_t name_bytes)
{
    size_t n = strlen(name);
    bool as_file = strcmp(c->quant, "auto") == 0;
    snprintf(name + n, name_bytes - n, "%s%s.lkpack", as_file ? "" : ".", as_file ? "" : c->quant);
}

/* MODEL.gguf.lkpack, or lorikeet.lkpack in a model's folder. */
static void beside(const struct conf *c, struct places *p)
{
    char *path = p->path[p->n];
    int n = snprintf(path, PACK_PATH_BYTES, "%s%s", c->model, path_is_folder(c->model) ? "/lorikeet" : "");
    if (n >= (int)PACK_PATH_BYTES - 16)
        return;
    add_ending(c, path, PACK_PATH_BYTES);
    p->n++;
}

/* In a folder for many models, named after the whole path; of a very long one its end. */
static void in_folder(const struct conf *c, const char *folder, struct places *p)
{
    char *whole = realpath(c->model, NULL);
    if (!whole)
        return;
    size_t length = strlen(whole);
    char *from = length > 200 ? whole + length - 200 : whole;
    for (char *at = from; *at; at++)
        if (*at == '/')
            *at = '%';
    char *path = p->path[p->n];
    int n = snprintf(path, PACK_PATH_BYTES, "%s/%s", folder, from + (*from == '%'));
    if (n < (int)PACK_PATH_BYTES - 16) {
        add_ending(c, path, PACK_PATH_BYTES);
        p->n++;
    }
    free(whole);
}

static bool cache_folder(char *dst, size_t dst_bytes)
{
    const char *service = getenv("CACHE_DIRECTORY"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = 0;
    if (service && service[0] == '/')
        n = snprintf(dst, dst_bytes, "%.*s/packed", (int)strcspn(service, ":"), service);
    else if (xdg && xdg[0] == '/')
        n = snprintf(dst, dst_bytes, "%s/lorikeet/packed", xdg);
    else if (home && home[0] == '/')
        n = snprintf(dst, dst_bytes, "%s/.cache/lorikeet/packed", home);
    return n > 0 && n < (int)dst_bytes;
}

/* The better place first. */
static void find_places(const struct conf *c, struct places *p)
{
    char folder[PACK_PATH_BYTES];
    p->n = 0;
    if (strcmp(c->pack_cache, "off") == 0)
        return;
    if (!is_auto(c)) {
        in_folder(c, c->pack_cache, p);
        return;
    }
    beside(c, p);
    if (cache_folder(folder, sizeof folder))
        in_folder(c, folder, p);
}

bool pack_cache_find(const struct conf *c, char path[PACK_PATH_BYTES])
{
    struct places p;
    struct stat st;
    struct timespec newest = {0};
    bool found = false;
    find_places(c, &p);
    for (unsigned i = 0; i < p.n; i++) {
        if (stat(p.path[i], &st) != 0)
            continue;
        bool newer = st.st_mtim.tv_sec > newest.tv_sec ||
                     (st.st_mtim.tv_sec == newest.tv_sec && st.st_mtim.tv_nsec > newest.tv_nsec);
        if (found && !newer)
            continue;
        memcpy(path, p.path[i], PACK_PATH_BYTES);
        newest = st.st_mtim;
        found = true;
    }
    return found;
}

/* ---- writing ---- */

/* The folder of a file, made where it is missing, its parents too. */
static bool make_folder(const char *path)
{
    char folder[PACK_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            return false;
        *slash = '/';
    }
    return true;
}

/* Memory is no place to keep memory in. */
static bool can_keep(const char *path)
{
    char folder[PACK_PATH_BYTES];
    struct statfs fs;
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    const char *shown = slash ? folder : ".";
    return access(shown, W_OK | X_OK) == 0 && statfs(shown, &fs) == 0 && fs.f_type != TMPFS_MAGIC &&
           fs.f_type != RAMFS_MAGIC;
}

static enum status choose_place(const struct conf *c, char path[PACK_PATH_BYTES], struct error *err)
{
    struct places places;
    find_places(c, &places);
    for (unsigned i = 0; i < places.n; i++) {
        bool is_beside = is_auto(c) && i == 0;
        if (!is_beside && !make_folder(places.path[i]))
            continue;
        if (is_auto(c) && !can_keep(places.path[i]))
            continue;
        memcpy(path, places.path[i], PACK_PATH_BYTES);
        return STATUS_OK;
    }
    return fail(err, STATUS_NOT_FOUND,
                "neither the model's folder nor a cache folder can be written; name one: --pack-cache DIR");
}

/* What was packed is read from the packed file next time: the source needn't stay in the kernel's cache. */
static void forget_source(const struct conf *c)
{
    struct model_files *files;
    if (model_files_open(c->model, &files, NULL) != STATUS_OK)
        return;
    tensors_forget(files->tensors);
    model_files_close(files);
}

void pack_cache_write(const struct conf *c, const struct model *m, bool (*stop)(void *data), void *data,
                      struct pack_cache_result *out)
{
    const struct model_info *info = model_info(m);
    const struct packed_write_options o = {.path = out->path, .stop = stop, .data = data};
    struct stat st;
    int64_t begin = clock_now_ns();
    *out = (struct pack_cache_result){.size_bytes = 0};
    if (info->source != WEIGHTS_PACKED || strcmp(c->pack_cache, "off") == 0 ||
        (is_auto(c) && info->size_bytes < AUTO_BYTES_MIN))
        return;
    enum status s = choose_place(c, out->path, &out->err);
    if (s == STATUS_OK)
        s = model_write_packed(m, &o, &out->err);
    if (s != STATUS_OK)
        return;
    forget_source(c);
    out->size_bytes = stat(out->path, &st) == 0 ? (uint64_t)st.st_size : 0;
    out->spent_ns = clock_now_ns() - begin;
}
