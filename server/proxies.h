/* Who a request comes from when proxies stand between: the peer of the connection, or, where that is a proxy
 * that the operator trusts, the right-most address in its headers that isn't one. What stands further left
 * anybody may have written. Pure.
 *
 *   X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.0.0.2        peer 10.0.0.1, trusted 10.0.0.0/8
 *                    anybody's    the client    a proxy         → 198.51.100.7
 *
 * Forwarded (RFC 7239) is read as well. A proxy writes one of the two and may pass the other on as a client
 * sent it: where both are there and don't agree, neither is believed. */
#ifndef LK_PROXIES_H
#define LK_PROXIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PROXIES_MAX 64U
#define FORWARD_LINES_MAX 8U /* headers of one name; with more of them none is believed */
#define ADDRESS_TEXT_MAX 48U

enum address_kind { ADDRESS_UNKNOWN, ADDRESS_UNIX, ADDRESS_IP };

/* IPv4 is kept as ::ffff:a.b.c.d. */
struct address {
    enum address_kind kind;
    uint8_t bytes[16];
};

struct proxies {
    struct network {
        uint8_t bytes[16];
        unsigned n_bits;
    } networks[PROXIES_MAX];
    size_t n;
    bool unix_sockets; /* peers of unix sockets are trusted */
};

/* "10.0.0.0/8", "fd00::/8", an address, "unix", or several with commas between. STATUS_INVALID, STATUS_FULL.
 */
LK_MUST_USE enum status proxies_add(struct proxies *p, const char *text, struct error *err);
bool proxies_trust(const struct proxies *p, const struct address *a);

/* An IPv4 or IPv6 address without port or zone. */
bool address_parse(const char *text, size_t length, struct address *out);
void address_show(const struct address *a, char out[ADDRESS_TEXT_MAX]); /* "" unless it is ADDRESS_IP */

/* A header's lines in the order in which they came; borrowed. */
struct header_lines {
    const char *at[FORWARD_LINES_MAX];
    unsigned n; /* all that came */
};
struct forward_headers {
    struct header_lines x_forwarded_for, x_forwarded_proto, forwarded;
};
/* Keeps the line if it is of one of these headers. */
void forward_header(struct forward_headers *h, const char *name, const char *value);

/* In: the connection's peer, and whether it is encrypted. Out: the client's, by what trusted proxies say. */
void proxies_client(const struct proxies *p, const struct forward_headers *h, struct address *who,
                    bool *is_secure);

#endif
