/* Paths of the API's become a root's descriptor and a path below it; the loader then resolves strictly
 * beneath it, so a path that leads out by ".." or a link is refused there. */
#include "adapter_roots.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "conf.h"

struct root {
    int fd;
    char path[PATH_MAX]; /* resolved */
};

struct adapter_roots {
    size_t n;
    struct root items[];
};

static enum status open_root(struct root *root, const char *path, struct error *err)
{
    enum status s = folder_open(-1, path, &root->fd, err);
    if (s != STATUS_OK)
        return fail_within(err, "adapter root");
    if (!realpath(path, root->path)) {
        close(root->fd);
        return fail(err, STATUS_IO, "adapter root %s: can't resolve its path", path);
    }
    return STATUS_OK;
}

enum status adapter_roots_open(const struct conf *c, struct adapter_roots **out, struct error *err)
{
    struct adapter_roots *r = mem_zalloc(sizeof *r + c->n_adapter_roots * sizeof r->items[0]);
    *out = r;
    if (!r)
        return fail(err, STATUS_NO_MEMORY, "no memory for the adapter roots");
    enum status st = STATUS_OK;
    for (size_t i = 0; i < c->n_adapter_roots && st == STATUS_OK; i++) {
        st = open_root(&r->items[i], c->adapter_roots[i], err);
        r->n += st == STATUS_OK;
    }
    return st;
}

void adapter_roots_close(struct adapter_roots *roots)
{
    for (size_t i = 0; roots && i < roots->n; i++)
        close(roots->items[i].fd);
    mem_free(roots);
}

enum status adapter_roots_find(const struct adapter_roots *roots, const char *path, int *root_fd,
                               const char **relative, struct error *err)
{
    if (roots->n == 0)
        return fail(
            err, STATUS_INVALID,
            "no adapter root is configured: start the server with --adapters DIR or --adapter-root DIR");
    for (size_t i = 0; i < roots->n; i++) {
        const struct root *root = &roots->items[i];
        const char *rest = path;
        struct stat st;
        if (path[0] == '/') {
            size_t n = strlen(root->path);
            if (strncmp(path, root->path, n) != 0 || path[n] != '/')
                continue;
            rest = path + n + strspn(path + n, "/");
        } else if (roots->n > 1 && fstatat(root->fd, path, &st, 0) != 0 && i + 1 < roots->n) {
            continue; /* perhaps in the next one; the load itself checks that it stays inside */
        }
        if (!rest[0])
            continue;
        *root_fd = root->fd;
        *relative = rest;
        return STATUS_OK;
    }
    return fail(err, STATUS_INVALID, "%s: is in none of the configured adapter roots", path);
}
