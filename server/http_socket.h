/* What the kernel knows of a connection. Apart from http.c because linux/tcp.h and the loop's headers
 * collide. */
#ifndef LK_HTTP_SOCKET_H
#define LK_HTTP_SOCKET_H

#include <stddef.h>
#include <stdint.h>

#include "proxies.h"

/* Bytes received since the connection began; 0 for a unix socket. */
uint64_t socket_received_bytes(int fd);

/* Who is at the other end. For people: "uid 1000, pid 77" of a unix socket, or an address; "" if unknown. */
void socket_peer(int fd, struct address *who, char *out, size_t n);

#endif
