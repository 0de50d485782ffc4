/* Certificates of the listeners: read from files at the start and at SIGHUP. */
#ifndef LK_SERVER_TLS_H
#define LK_SERVER_TLS_H

#include "base/buf.h"
#include "base/error.h"

struct conf;
struct server;

struct tls_files {
    struct buf cert, key; /* PEM; empty without --tls-cert */
};

/* Reads both and checks that they belong together; errors name the file. Blocks. Thread: any. */
LK_MUST_USE enum status tls_read(const struct conf *c, struct tls_files *out, struct error *err);
void tls_fini(struct tls_files *f);

/* Reads them again (a worker does); what isn't right leaves the ones before in force, and the log says why.
 * Thread: front. */
void tls_reload(struct server *s);

#endif
