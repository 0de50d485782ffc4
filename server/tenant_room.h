/* Memory that tenants' own voices may have (`resident_bytes`). Owner: front thread. */
#ifndef LK_TENANT_ROOM_H
#define LK_TENANT_ROOM_H

#include "base/error.h"
#include "request.h"

struct voice;

/* Whether its tenant's limit lets the bytes of the voice's missing member be loaded, as far as sizes are
 * known before. It does for a voice that isn't the tenant's own, or without a limit. STATUS_FORBIDDEN: the
 * voice takes more than the tenant's own may have together; STATUS_LIMITED: others of them are in use, or on
 * their way. */
LK_MUST_USE enum status tenant_room_fits(const struct request *r, const struct voice *v, struct error *err);

enum room_rule {
    ROOM_REQUEST,  /* others that nobody uses leave memory, or the load is refused */
    ROOM_START,    /* what is there stays, or the load is refused */
    ROOM_OPERATOR, /* others that nobody uses leave memory; the load is never refused */
};
/* A load of the name takes `bytes` in all, of whichever tenants it is the own voice. Voices leave memory
 * in the order in which they were used last. Statuses as above. */
LK_MUST_USE enum status tenant_room_take(struct server *s, const char *name, uint64_t bytes,
                                         enum room_rule rule, struct error *err);

#endif
