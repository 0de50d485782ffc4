/* A tenant's words for voices: names of its own, its default, and which voices are there for it at all.
 * Owner: front thread. */
#ifndef LK_VOICE_TENANT_H
#define LK_VOICE_TENANT_H

#include "api_render.h"
#include "request.h"
#include "voice_expr.h"

struct adapter;

/* The words of a tenant's request in names that the server knows. named: the request names a voice; if not,
 * `e` is what others get then, and the tenant's default takes its place. A name that isn't there and one that
 * isn't this tenant's end alike: STATUS_NOT_FOUND, code model_not_found, after the same steps. What an alias
 * or the default stands for was the operator's decision, and is not looked at again. Without a tenant nothing
 * changes. */
LK_MUST_USE enum status voice_of_tenant(const struct request *r, bool named, struct voice_expr *e,
                                        struct fault *f);
/* The one name in `text` ("pt", "base:pt"): *out is NULL for the base. Of a tenant's own name *alias is what
 * it stands for, and *out is NULL; else it is NULL. voice_unknown: there is no such name for this request; a
 * sum has none either. */
LK_MUST_USE enum status voice_single(const struct request *r, const char *text, const struct adapter **out,
                                     const char **alias, struct fault *f);
/* Whether the base, by itself, is a voice of this request. */
bool voice_base_allowed(const struct request *r);
/* `text` names no voice that this request may know of. */
enum status voice_unknown(struct fault *f, const char *text);

#endif
