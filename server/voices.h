/* Voices: how a request's words for "who shall speak" become the base or a version of an adapter. */
#ifndef LK_VOICES_H
#define LK_VOICES_H

#include "api_render.h"
#include "registry.h"

struct request;
struct server;

struct voice {
    const char *shown;               /* `model` of the answer: as the client named it */
    const char *adapter;             /* the adapter's name; NULL: the base */
    struct adapter_version *version; /* a reference of the registry's; NULL: the base */
    struct registry *registry;       /* that gave it */
    char fingerprint[24];            /* system_fingerprint: base, adapter and arithmetic */
};

/* `model` as in the body (NULL or "": the base), together with the X-Adapter header. Unknown:
 * STATUS_NOT_FOUND with code model_not_found. Strings live as long as the request. */
LK_MUST_USE enum status voice_resolve(struct request *r, const char *model, struct voice *out,
                                      struct fault *f);
void voice_release(struct voice *v);
/* X-Adapter, X-Adapter-Generation. */
void voice_headers(struct request *r, const struct voice *v);

/* The adapter's name in `model` ("pt", "base:pt"), "" for the base, NULL if the name belongs to neither form.
 * Pure. */
const char *voice_name(const char *model, const char *base_name);

#endif
