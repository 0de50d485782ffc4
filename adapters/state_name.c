/* A name of the registry as a value of its own, for the worker that writes it. Plain memory: the strings
 * stand behind the struct, in one block. */
#include "state.h"

#include <string.h>

#include "base/mem.h"

/* Copies `text` (NULL: "") to *at, moves *at behind it, and gives the copy. */
static const char *place(char **at, const char *text)
{
    char *copy = *at;
    size_t n = text ? strlen(text) : 0;
    if (n)
        memcpy(copy, text, n);
    copy[n] = '\0';
    *at += n + 1;
    return copy;
}

static size_t text_bytes(const struct adapter *a, uint32_t n_versions)
{
    const char *const texts[] = {a->wish.name, a->wish.source, a->wish.blend};
    size_t n = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        n += (texts[i] ? strlen(texts[i]) : 0) + 1;
    for (uint32_t i = 0; i < n_versions; i++)
        n += (a->records[i].source ? strlen(a->records[i].source) : 0) + 1;
    return n;
}

struct state_name *state_name_of(const struct adapter *a)
{
    uint32_t n_versions = a->n_records < REGISTRY_VERSIONS_MAX ? a->n_records : REGISTRY_VERSIONS_MAX;
    struct state_name *n = mem_zalloc(sizeof *n + text_bytes(a, n_versions));
    if (!n)
        return NULL;
    char *at = (char *)(n + 1);
    n->wish = a->wish;
    n->wish.name = place(&at, a->wish.name);
    n->wish.source = place(&at, a->wish.source);
    n->wish.blend = place(&at, a->wish.blend);
    n->stable = a->stable;
    n->previous = a->previous;
    n->shadow = a->shadow;
    n->revision = a->revision;
    n->n_versions = n_versions;
    for (uint32_t i = 0; i < n_versions; i++) {
        const struct version_record *r = &a->records[i];
        n->versions[i] = (struct state_version){.generation = r->generation,
                                                .source = place(&at, r->source),
                                                .scale = r->scale,
                                                .published_wall_ms = r->published_wall_ms};
        memcpy(n->versions[i].digest, r->digest, sizeof r->digest);
    }
    n->n_splits = a->n_splits;
    memcpy(n->splits, a->splits, sizeof n->splits);
    return n;
}

void state_name_destroy(struct state_name *n)
{
    mem_free(n);
}
