/* References by URI and anchor. Before a schema is compiled its document is walked once: every $id begins a
 * resource with a base of its own, $anchor and $dynamicAnchor name places in it, and each $ref that isn't
 * just a place in the root's is put down as the number of its target, since copies of its schema forget where
 * they stood. What isn't in the document stays as it is, and is refused when it is met.
 *
 * A $dynamicRef is a $ref where the document has at most one $dynamicAnchor of its name. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_json.h"

#define NAMED_MAX 1024U
#define URI_BYTES 512U

/* A resource (no anchor), or a place in one. */
struct named {
    const char *uri, *anchor; /* the maker's */
    const json_t *schema;
    bool dynamic;
};
struct refs {
    struct schema *sc;
    struct named list[NAMED_MAX];
    uint32_t n;
    bool resolves; /* the second walk: all names are known */
};

/* ---- URIs: as much of RFC 3986 as schemas use */

static size_t scheme_length(const char *uri)
{
    size_t n = 0;
    while (isalnum((unsigned char)uri[n]) || strchr("+-.", uri[n] ? uri[n] : ' '))
        n++;
    return n && uri[n] == ':' && isalpha((unsigned char)uri[0]) ? n + 1 : 0;
}

/* Where the path begins. */
static size_t authority_end(const char *uri)
{
    size_t n = scheme_length(uri);
    if (strncmp(uri + n, "//", 2) != 0)
        return n;
    return n + 2 + strcspn(uri + n + 2, "/");
}

/* `ref` without its fragment, seen from `base`; false: too long. */
static bool join_uris(const char *base, const char *ref, char out[URI_BYTES])
{
    size_t n_ref = strcspn(ref, "#"), keep;
    while (n_ref >= 2 && strncmp(ref, "./", 2) == 0) {
        ref += 2;
        n_ref -= 2;
    }
    if (scheme_length(ref) && scheme_length(ref) <= n_ref) {
        keep = 0;
    } else if (n_ref == 0) {
        keep = strlen(base);
    } else if (ref[0] == '/') {
        keep = authority_end(base);
    } else {
        const char *last = strrchr(base, '/');
        keep = last ? (size_t)(last + 1 - base) : scheme_length(base);
    }
    int n = snprintf(out, URI_BYTES, "%.*s%.*s", (int)keep, base, (int)n_ref, ref);
    return n >= 0 && (size_t)n < URI_BYTES;
}

static const char *keep_text(struct schema *sc, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = maker_alloc(sc->m, n);
    return copy ? memcpy(copy, text, n) : "";
}

/* ---- names */

static void add_named(struct refs *r, const char *uri, const char *anchor, const json_t *schema, bool dynamic)
{
    if (r->n == NAMED_MAX) {
        schema_fail(r->sc, STATUS_TOO_LARGE, "the schema has more than %u ids and anchors", NAMED_MAX);
        return;
    }
    r->list[r->n++] = (struct named){uri, anchor, schema, dynamic};
}

static const struct named *find_named(const struct refs *r, const char *uri, const char *anchor)
{
    for (uint32_t i = 0; i < r->n; i++) {
        const struct named *x = &r->list[i];
        bool same = anchor ? x->anchor && strcmp(x->anchor, anchor) == 0 : !x->anchor;
        if (same && strcmp(x->uri, uri) == 0)
            return x;
    }
    return NULL;
}

/* The base of what stands in `s`. */
static const char *base_in(struct refs *r, const json_t *s, const char *base)
{
    const char *id = json_string_value(json_object_get(s, "$id"));
    char uri[URI_BYTES];
    if (!id || id[0] == '#' || !join_uris(base, id, uri))
        return base;
    const char *own = keep_text(r->sc, uri);
    if (!r->resolves && r->sc->m->status == STATUS_OK)
        add_named(r, own, NULL, s, false);
    return own;
}

static void name_anchors(struct refs *r, const json_t *s, const char *base)
{
    static const char *const keys[] = {"$anchor", "$dynamicAnchor", "$id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *name = json_string_value(json_object_get(s, keys[i]));
        if (name && keys[i][1] == 'i') /* draft 7 wrote "#name" */
            name = name[0] == '#' ? name + 1 : NULL;
        if (name)
            add_named(r, base, keep_text(r->sc, name), s, i == 1);
    }
}

/* ---- references */

static uint32_t n_dynamic(const struct refs *r, const char *anchor)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n; i++)
        n += r->list[i].dynamic && strcmp(r->list[i].anchor, anchor) == 0;
    return n;
}

/* NULL: it isn't in the document, or not certain. */
static const json_t *find_target(struct refs *r, const char *ref, const char *base, bool dynamic)
{
    char uri[URI_BYTES];
    const char *hash = strchr(ref, '#'), *fragment = hash ? hash + 1 : "";
    if (!join_uris(base, ref, uri))
        return NULL;
    const struct named *resource = find_named(r, uri, NULL);
    if (!resource)
        return NULL;
    if (fragment[0] == '\0')
        return resource->schema;
    if (fragment[0] == '/')
        return schema_at(resource->schema, fragment);
    const struct named *place = find_named(r, uri, fragment);
    if (!place || (dynamic && place->dynamic && n_dynamic(r, fragment) > 1))
        return NULL;
    return place->schema;
}

static void put_down(struct refs *r, json_t *s, const char *key, const char *base)
{
    const char *ref = json_string_value(json_object_get(s, key));
    bool dynamic = key[1] == 'd';
    char number[24];
    if (!ref || (dynamic && json_object_get(s, "$ref")))
        return;
    if (!dynamic && base[0] == '\0' && ref[0] == '#' && (ref[1] == '/' || !ref[1]))
        return; /* a place in the root's */
    const json_t *target = find_target(r, ref, base, dynamic);
    if (!target || !(json_is_object(target) || json_is_boolean(target)))
        return;
    uint32_t id = schema_add_target(r->sc, target, ref);
    snprintf(number, sizeof number, "\x01%u", id);
    json_object_del(s, key);
    json_object_set_new(s, "$ref", json_string(number));
}

/* ---- the walk */

static void walk(struct refs *r, json_t *s, const char *base, uint32_t depth);

static void walk_all(struct refs *r, json_t *container, const char *base, uint32_t depth)
{
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach(container, key, value) walk(r, value, base, depth);
    json_array_foreach(container, i, value) walk(r, value, base, depth);
}

static void walk(struct refs *r, json_t *s, const char *base, uint32_t depth)
{
    static const char *const schemas[] = {"additionalProperties",
                                          "unevaluatedProperties",
                                          "unevaluatedItems",
                                          "propertyNames",
                                          "contains",
                                          "not",
                                          "if",
                                          "then",
                                          "else",
                                          "additionalItems",
                                          "contentSchema",
                                          NULL};
    static const char *const many[] = {"properties",
                                       "patternProperties",
                                       "dependentSchemas",
                                       "dependencies",
                                       "$defs",
                                       "definitions",
                                       "allOf",
                                       "anyOf",
                                       "oneOf",
                                       "prefixItems",
                                       NULL};
    const char *key;
    json_t *value;
    void *next;
    if (!json_is_object(s) || depth > 2 * GRAMMAR_DEPTH_MAX || r->sc->m->status != STATUS_OK)
        return;
    base = base_in(r, s, base);
    if (!r->resolves)
        name_anchors(r, s, base);
    json_object_foreach_safe(s, next, key, value)
    {
        if (schema_is_listed(key, schemas))
            walk(r, value, base, depth + 1);
        else if (schema_is_listed(key, many))
            walk_all(r, value, base, depth + 1);
        else if (strcmp(key, "items") == 0 && json_is_array(value))
            walk_all(r, value, base, depth + 1);
        else if (strcmp(key, "items") == 0)
            walk(r, value, base, depth + 1);
    }
    if (r->resolves) {
        put_down(r, s, "$dynamicRef", base);
        put_down(r, s, "$ref", base);
    }
}

void schema_find_refs(struct schema *sc)
{
    struct refs *r = maker_alloc(sc->m, sizeof *r);
    if (!r)
        return;
    *r = (struct refs){.sc = sc};
    add_named(r, "", NULL, sc->root, false);
    walk(r, sc->root, "", 0);
    r->resolves = true;
    walk(r, sc->root, "", 0);
}
