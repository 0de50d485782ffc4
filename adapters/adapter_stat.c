/* An adapter's files from outside, for thousands of names at start-up and for noticing changes: metadata
 * alone, so a file that is replaced by one of the same size and times goes unnoticed only if it has the same
 * inode, too. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "sidecar.h"

#define ENTRIES_MAX 4096U /* of a folder; adapters have a handful */

struct looking {
    const struct opened *place;
    struct adapter_stat *out;
    bool is_adapter;
};

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15U;
    return h ^ (h >> 32);
}

static uint64_t mix_name(const char *name)
{
    uint64_t h = 14695981039346656037U; /* FNV-1a */
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211U;
    return h;
}

static uint64_t sign(const char *name, const struct stat *st)
{
    uint64_t h = mix(mix_name(name), st->st_ino);
    h = mix(h, (uint64_t)st->st_size);
    h = mix(h, (uint64_t)st->st_mtim.tv_sec);
    h = mix(h, (uint64_t)st->st_mtim.tv_nsec);
    h = mix(h, (uint64_t)st->st_ctim.tv_sec);
    return mix(h, (uint64_t)st->st_ctim.tv_nsec);
}

/* What a link leads to counts, if it stays where the loader would follow it. */
static bool stat_link(const struct opened *o, const char *name, struct stat *st)
{
    char path[1024];
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    if (o->copy.root_fd < 0)
        return fstatat(o->dir_fd, name, st, 0) == 0;
    if (!path_join(path, sizeof path, o->folder, name))
        return false;
    int fd = (int)syscall(SYS_openat2, o->copy.root_fd, path, &how, sizeof how);
    bool ok = fd >= 0 && fstat(fd, st) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* The sum over the entries doesn't depend on their order. */
static void look_at(struct looking *l, const char *name)
{
    const struct opened *o = l->place;
    struct stat st;
    if (fstatat(o->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        (S_ISLNK(st.st_mode) && !stat_link(o, name, &st)) || !S_ISREG(st.st_mode))
        return;
    bool is_main = strcmp(name, o->file ? o->file : "adapter_config.json") == 0;
    l->is_adapter = l->is_adapter || is_main;
    l->out->signature += sign(name, &st);
    if (is_main || ends_with(name, ".safetensors"))
        l->out->file_bytes += (uint64_t)st.st_size;
}

static bool is_read(const char *name)
{
    return ends_with(name, ".safetensors") || ends_with(name, ".json") || ends_with(name, ".jsonl") ||
           strcmp(name, BUNDLE_FILE) == 0;
}

static enum status look_into_folder(struct looking *l, struct error *err)
{
    unsigned n = 0;
    int fd = dup(l->place->dir_fd); /* closedir closes it */
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return fail(err, STATUS_IO, "%s: can't list the folder", l->place->folder);
    }
    enum status s = STATUS_OK;
    for (const struct dirent *e; s == STATUS_OK && (e = readdir(d)) != NULL;) {
        if (++n > ENTRIES_MAX)
            s = fail(err, STATUS_TOO_LARGE, "%s: more than %u entries", l->place->folder, ENTRIES_MAX);
        else if (is_read(e->d_name))
            look_at(l, e->d_name);
    }
    closedir(d);
    return s;
}

static void look_at_file(struct looking *l)
{
    static const char *const beside[] = {PROBES_FILE, STAMP_FILE, BUNDLE_FILE};
    look_at(l, l->place->file);
    for (size_t i = 0; l->is_adapter && i < sizeof beside / sizeof *beside; i++) {
        char name[600];
        sidecar_name(l->place, beside[i], name, sizeof name);
        look_at(l, name);
    }
}

enum status adapter_stat(const char *path, int root_fd, struct adapter_stat *out, struct error *err)
{
    struct opened place;
    struct looking l = {.place = &place, .out = out};
    *out = (struct adapter_stat){0};
    enum status s = place_open(path, root_fd, &place, err);
    if (s != STATUS_OK)
        return s;
    out->is_file = place.file != NULL;
    if (place.file)
        look_at_file(&l);
    else
        s = look_into_folder(&l, err);
    close(place.dir_fd);
    if (s == STATUS_OK && !l.is_adapter)
        s = fail(err, STATUS_NOT_FOUND,
                 place.file ? "%s: not a regular file" : "%s: no adapter_config.json in it", path);
    return s;
}
