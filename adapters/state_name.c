/* A name of the registry as a value of its own, for the worker that writes it. Plain memory: the strings
 * stand behind the struct, in one block. */
#include "state.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "state_inner.h"

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

const char *state_name_fault(const struct state_name *n)
{
    uint32_t percent = 0;
    if (!n->wish.name || !adapter_name_is_valid(n->wish.name))
        return "name";
    if (!n->wish.source || strlen(n->wish.source) > STATE_SOURCE_MAX)
        return "source";
    if (!n->wish.blend || strlen(n->wish.blend) > STATE_SOURCE_MAX)
        return "blend";
    if (n->start_source && strlen(n->start_source) > STATE_SOURCE_MAX)
        return "start_source";
    if (!isfinite(n->wish.scale))
        return "scale";
    if (n->wish.merge < MERGE_NEVER || n->wish.merge > MERGE_ALWAYS)
        return "merge";
    if (n->wish.effect < EFFECT_OFF || n->wish.effect > EFFECT_ENFORCE)
        return "effect";
    if (n->stable > INT64_MAX || n->previous > INT64_MAX || n->shadow > INT64_MAX || n->revision > INT64_MAX)
        return "stable, previous, shadow or revision";
    if (n->n_versions > REGISTRY_VERSIONS_MAX)
        return "number of versions";
    for (uint32_t i = 0; i < n->n_versions; i++)
        if (n->versions[i].generation == 0 || n->versions[i].generation > INT64_MAX ||
            !isfinite(n->versions[i].scale) ||
            (n->versions[i].source && strlen(n->versions[i].source) > STATE_SOURCE_MAX))
            return "version's generation, scale or source";
    if (n->n_splits > REGISTRY_SPLITS_MAX)
        return "number of shares of traffic";
    for (uint32_t i = 0; i < n->n_splits; i++) {
        if (n->splits[i].generation == 0 || n->splits[i].generation > INT64_MAX || n->splits[i].percent > 100)
            return "share of traffic";
        percent += n->splits[i].percent;
    }
    return n->n_splits && percent != 100 ? "traffic (its shares must sum to 100)" : NULL;
}
