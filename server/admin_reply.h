/* What the handlers of the operators' API share: the name in the path, conditions, answers. */
#ifndef LK_ADMIN_REPLY_H
#define LK_ADMIN_REPLY_H

#include <jansson.h>

#include "adapter_ops.h"
#include "admin_json.h"
#include "api_parse.h"
#include "request.h"

#define ADMIN_ADAPTERS "/admin/v1/adapters/"

/* The {name} of the path, in the request's memory; NULL: no memory. */
const char *admin_name(struct request *r);
/* The name's entry, or NULL after a 404 was sent. */
struct adapter *admin_find(struct request *r);
/* If-Match and If-None-Match against the name's revision (a NULL: it doesn't exist). STATUS_CONFLICT: lost.
 */
LK_MUST_USE enum status admin_check_revision(const struct request *r, const struct adapter *a,
                                             struct error *err);
/* The revision that If-Match names; false: there is none. */
LK_MUST_USE enum status admin_wanted_revision(const struct request *r, bool *has, uint64_t *revision,
                                              struct error *err);
/* The body as an object; an empty one is {}. */
LK_MUST_USE enum status admin_body(const struct request *r, json_t **out, struct fault *f);

void admin_fail(struct request *r, enum status s, const char *message, const char *param, const char *code);
void admin_fail_fault(struct request *r, const struct fault *f);
/* The adapter as the whole answer, with its ETag; a NULL: 404. */
void admin_reply_adapter(struct request *r, const struct adapter *a);
void admin_etag(struct request *r, uint64_t revision);

/* ---- what the operators' API and other servers' forms of it share */

/* pinned, merge and effect_test, where they are given. */
void admin_read_modes(struct reader *rd, struct adapter_wish *w);
/* An order of this request's for a name: its wishes as they are, or the defaults; `done` gets the request. */
struct load_order admin_order(struct request *r, const char *name,
                              void (*done)(struct load_order *o, void *data));
/* adapter_ops_load, holding the request, which `done` releases. */
LK_MUST_USE enum status admin_load(struct request *r, const struct load_order *o, struct error *err);
/* Removes a name and keeps that; `done` gets the request, held, and releases it. revision (or NULL): of this
 * removal, set before `done`. STATUS_NOT_FOUND; STATUS_UNAVAILABLE: it is being loaded. */
LK_MUST_USE enum status admin_remove(struct request *r, const char *name, uint64_t *revision,
                                     void (*done)(enum status s, const struct error *err, void *data),
                                     struct error *err);
/* Parses the body and does `what` with it; a failure is answered by `refuse`. */
void admin_with_body(struct request *r,
                     enum status (*what)(struct request *r, const json_t *body, struct fault *f),
                     void (*refuse)(struct request *r, enum status s, const char *message));

/* Keeps the name's state, then answers with the adapter as it is then. */
void admin_keep_and_reply(struct request *r, const struct adapter *a);

#endif
