/* A request meets its tenant: who asks, whether it may, and what of its limits is left. Without tenants
 * everybody passes and nothing is counted. Owner: front thread.
 *
 *   gate_pass      the router: a key → r->caller, or 401, 403
 *   gate_admit     one request is counted, and runs until gate_leave: or 429
 *   gate_reserve   the most tokens that it can cost are taken from the limits at once: or 429
 *   gate_settle    what it did cost; the rest is given back
 *
 * Everything is taken before anything runs, so however many come at once, no limit is passed by one token. */
#ifndef LK_TENANT_GATE_H
#define LK_TENANT_GATE_H

#include <stdbool.h>

#include "api_render.h"
#include "request.h"
#include "tenants.h"

struct caller {
    struct tenants *all;
    struct tenant *tenant;    /* a reference, until the request ends */
    struct tenant_spec *spec; /* the same: as it was when the key was checked */
    char key_id[KEY_ID_LENGTH + 1], key_name[TENANT_NAME_MAX + 1];
    bool running;
    uint64_t n_reserved; /* tokens */
    int64_t reserved_ns;
};

/* False: the request has been answered. is_open: the path needs no key. */
bool gate_pass(struct request *r, bool is_open);

/* Counts the request; sets the answer's x-ratelimit-* and RateLimit headers. STATUS_LIMITED. */
LK_MUST_USE enum status gate_admit(struct request *r, struct fault *f);
LK_MUST_USE enum status gate_reserve(struct request *r, uint64_t n_tokens, struct fault *f);
/* What was used of the reservation; later calls do nothing. */
void gate_settle(struct request *r, uint64_t n_in, uint64_t n_out, uint64_t n_cached);
/* It no longer runs; what is still reserved goes back. Also done when the request's memory ends. */
void gate_leave(struct request *r);

/* A request is about to bring an adapter's bytes into memory: one of the loads that its tenant has.
 * STATUS_LIMITED.
 */
LK_MUST_USE enum status gate_load(struct request *r, struct fault *f);

/* The settings of who asks, or NULL: nobody's, everything is allowed. */
const struct tenant_spec *gate_spec(const struct request *r);
/* Who asks, as a text: the tenant's name, or without tenants the header Authorization or x-api-key; NULL:
 * anyone. */
const char *gate_name(const struct request *r);
/* Whether who asks may use, and see, the voice of this name. */
bool gate_may_use(const struct request *r, const char *name);

#endif
