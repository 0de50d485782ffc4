/* Numbers by tenant. Owner: front thread. */
#ifndef LK_TENANT_METRICS_H
#define LK_TENANT_METRICS_H

#include "base/buf.h"

struct server;

void tenant_metrics_render(const struct server *s, struct buf *out);

#endif
