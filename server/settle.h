/* What a start leaves for later, done by a gentle worker once requests are served: what steps cost here, the
 * effect test's probes, the packed file for the next start. */
#ifndef LK_SETTLE_H
#define LK_SETTLE_H

struct server;

/* Thread: front, at SERVER_READY. s->settling until it is done; s->settle_stop hurries it. */
void settle_begin(struct server *s);

#endif
