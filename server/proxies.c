#include "proxies.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NODES_MAX 32U /* the last so many of a Forwarded; more proxies in a row are none */
#define IP_TEXT_MAX 46U

static const uint8_t v4_prefix[12] = {[10] = 0xff, [11] = 0xff};

/* ---- addresses and networks ---- */

static bool is_v4(const uint8_t bytes[16])
{
    return memcmp(bytes, v4_prefix, sizeof v4_prefix) == 0;
}

bool address_parse(const char *text, size_t length, struct address *out)
{
    char copy[IP_TEXT_MAX];
    *out = (struct address){0};
    if (length == 0 || length >= sizeof copy || memchr(text, '\0', length))
        return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    out->kind = ADDRESS_IP;
    if (inet_pton(AF_INET6, copy, out->bytes) == 1)
        return true;
    memcpy(out->bytes, v4_prefix, sizeof v4_prefix);
    if (inet_pton(AF_INET, copy, out->bytes + sizeof v4_prefix) == 1)
        return true;
    out->kind = ADDRESS_UNKNOWN;
    return false;
}

void address_show(const struct address *a, char out[ADDRESS_TEXT_MAX])
{
    out[0] = '\0';
    if (a->kind == ADDRESS_IP && is_v4(a->bytes))
        inet_ntop(AF_INET, a->bytes + sizeof v4_prefix, out, ADDRESS_TEXT_MAX);
    else if (a->kind == ADDRESS_IP)
        inet_ntop(AF_INET6, a->bytes, out, ADDRESS_TEXT_MAX);
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned n_bits)
{
    unsigned n = n_bits / 8, rest = n_bits % 8;
    return memcmp(a, b, n) == 0 && (rest == 0 || (a[n] ^ b[n]) >> (8 - rest) == 0);
}

/* "::/0" is all of IPv6, and no IPv4. */
static bool contains(const struct network *n, const struct address *a)
{
    bool of_v4 = n->n_bits >= 96 && is_v4(n->bytes);
    return of_v4 == is_v4(a->bytes) && same_bits(n->bytes, a->bytes, n->n_bits);
}

bool proxies_trust(const struct proxies *p, const struct address *a)
{
    if (a->kind != ADDRESS_IP)
        return a->kind == ADDRESS_UNIX && p->unix_sockets;
    for (size_t i = 0; i < p->n; i++)
        if (contains(&p->networks[i], a))
            return true;
    return false;
}

static enum status wrong(const char *text, size_t length, const char *why, struct error *err)
{
    return fail(err, STATUS_INVALID,
                "--trusted-proxy: found \"%.*s\"%s, expected an address, a network as in 10.0.0.0/8 or "
                "fd00::/8, or unix",
                (int)(length < 80 ? length : 80), text, why);
}

static bool has_bits_behind(const struct network *n)
{
    bool any = n->n_bits % 8 && (uint8_t)(n->bytes[n->n_bits / 8] << n->n_bits % 8);
    for (unsigned i = (n->n_bits + 7) / 8; i < 16; i++)
        any |= n->bytes[i] != 0;
    return any;
}

static enum status add_one(struct proxies *p, const char *text, size_t length, struct error *err)
{
    const char *slash = memchr(text, '/', length);
    size_t n_address = slash ? (size_t)(slash - text) : length, n_digits = slash ? length - n_address - 1 : 0;
    struct address a;
    unsigned n_bits = 0;
    if (length == 4 && memcmp(text, "unix", 4) == 0) {
        p->unix_sockets = true;
        return STATUS_OK;
    }
    if (!address_parse(text, n_address, &a))
        return wrong(text, length, "", err);
    bool v4 = is_v4(a.bytes) && !memchr(text, ':', n_address);
    for (size_t i = 0; i < n_digits && i < 4; i++) {
        if (slash[1 + i] < '0' || slash[1 + i] > '9')
            return wrong(text, length, "", err);
        n_bits = n_bits * 10 + (unsigned)(slash[1 + i] - '0');
    }
    if (slash && (n_digits == 0 || n_digits > 3 || n_bits > (v4 ? 32U : 128U)))
        return wrong(text, length, "", err);
    if (p->n == PROXIES_MAX)
        return fail(err, STATUS_FULL, "--trusted-proxy: more than %u networks", PROXIES_MAX);
    struct network *n = &p->networks[p->n];
    memcpy(n->bytes, a.bytes, sizeof n->bytes);
    n->n_bits = !slash ? 128 : v4 ? 96 + n_bits : n_bits;
    if (has_bits_behind(n))
        return wrong(text, length, ", with bits set behind its prefix", err);
    p->n++;
    return STATUS_OK;
}

enum status proxies_add(struct proxies *p, const char *text, struct error *err)
{
    enum status s = STATUS_OK;
    for (bool more = true; more && s == STATUS_OK;) {
        text += strspn(text, " \t");
        size_t n = strcspn(text, ","), trimmed = n;
        while (trimmed && strchr(" \t", text[trimmed - 1]))
            trimmed--;
        s = add_one(p, text, trimmed, err);
        more = text[n] == ',';
        text += n + more;
    }
    return s;
}

/* ---- headers ---- */

void forward_header(struct forward_headers *h, const char *name, const char *value)
{
    struct header_lines *l = !strcasecmp(name, "X-Forwarded-For")     ? &h->x_forwarded_for
                             : !strcasecmp(name, "X-Forwarded-Proto") ? &h->x_forwarded_proto
                             : !strcasecmp(name, "Forwarded")         ? &h->forwarded
                                                                      : NULL;
    if (!l)
        return;
    if (l->n < FORWARD_LINES_MAX)
        l->at[l->n] = value;
    l->n++;
}

struct part {
    const char *at;
    size_t length;
};

static struct part trim(const char *begin, const char *end)
{
    while (begin < end && (*begin == ' ' || *begin == '\t'))
        begin++;
    while (end > begin && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct part){begin, (size_t)(end - begin)};
}

/* An address as headers have it: with a port, IPv6 in brackets. */
static bool read_node(struct part p, struct address *out)
{
    const char *end = p.at + p.length, *colon = memchr(p.at, ':', p.length), *close;
    const char *port = NULL;
    if (p.at[0] == '[') {
        close = memchr(p.at, ']', p.length);
        if (!close || (close + 1 < end && close[1] != ':'))
            return false;
        port = close + 1 < end ? close + 2 : NULL;
        if (!memchr(p.at, ':', (size_t)(close - p.at)))
            return false;
        p = (struct part){p.at + 1, (size_t)(close - p.at) - 1};
    } else if (colon && !memchr(colon + 1, ':', (size_t)(end - colon - 1))) {
        port = colon + 1;
        p.length = (size_t)(colon - p.at);
    }
    if (port && (port == end || end - port > 5 || strspn(port, "0123456789") < (size_t)(end - port)))
        return false;
    return address_parse(p.at, p.length, out);
}

/* One step to the left: true where the walk goes on. What can't be read is nobody that a proxy vouches for,
 * so the proxy itself stays. */
static bool step(const struct proxies *p, struct part node, struct address *who)
{
    struct address next;
    if (node.length == 0 || !read_node(node, &next))
        return false;
    *who = next;
    return proxies_trust(p, who);
}

static void walk_x_forwarded_for(const struct proxies *p, const struct header_lines *l, struct address *who)
{
    for (unsigned i = l->n <= FORWARD_LINES_MAX ? l->n : 0; i-- > 0;) {
        const char *begin = l->at[i], *end = begin + strlen(begin);
        for (bool more = true; more;) {
            const char *from = end;
            while (from > begin && from[-1] != ',')
                from--;
            struct part node = trim(from, end);
            if (node.length && !step(p, node, who))
                return;
            more = from > begin;
            end = more ? from - 1 : begin;
        }
    }
}

/* ---- Forwarded ---- */

struct node {
    struct part who, proto;
};

struct nodes {
    struct node last[NODES_MAX]; /* of the whole header, the last ones: number i is in last[i % NODES_MAX] */
    unsigned n;
};

static const char *skip_space(const char *s)
{
    return s + strspn(s, " \t");
}

/* name=value or name="value" at *s, which moves behind it. False: neither. */
static bool read_pair(const char **s, struct part *name, struct part *value)
{
    static const char token[] =
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    *name = (struct part){*s, strspn(*s, token)};
    const char *at = *s + name->length;
    if (name->length == 0 || *at++ != '=')
        return false;
    if (*at != '"') { /* ':' and brackets should be quoted, but not everybody does */
        *value = (struct part){at, strcspn(at, " \t,;\"")};
        *s = at + value->length;
        return value->length > 0;
    }
    const char *end = ++at;
    while (*end && *end != '"')
        end += *end == '\\' && end[1] ? 2 : 1;
    *value = (struct part){at, (size_t)(end - at)};
    *s = end + 1;
    return *end == '"';
}

static bool is_word(struct part p, const char *word)
{
    return p.at && p.length == strlen(word) && strncasecmp(p.at, word, p.length) == 0;
}

/* The elements of one line. False: it isn't right, and nothing of the header is believed. */
static bool read_forwarded(const char *s, struct nodes *out)
{
    struct node node = {0};
    for (s = skip_space(s); *s;) {
        struct part name, value;
        if (*s == ',' || *s == ';') {
            if (*s++ == ',') {
                out->last[out->n++ % NODES_MAX] = node;
                node = (struct node){0};
            }
            s = skip_space(s);
            continue;
        }
        if (!read_pair(&s, &name, &value))
            return false;
        struct part *to = is_word(name, "for") ? &node.who : is_word(name, "proto") ? &node.proto : NULL;
        if (to && to->at)
            return false;
        if (to)
            *to = value;
        s = skip_space(s);
        if (*s && *s != ',' && *s != ';')
            return false;
    }
    out->last[out->n++ % NODES_MAX] = node;
    return true;
}

static void walk_forwarded(const struct proxies *p, const struct header_lines *l, struct address *who,
                           struct part *proto)
{
    struct nodes nodes = {0};
    for (unsigned i = 0; i < l->n; i++)
        if (l->n > FORWARD_LINES_MAX || !read_forwarded(l->at[i], &nodes))
            return;
    unsigned least = nodes.n > NODES_MAX ? nodes.n - NODES_MAX : 0;
    for (unsigned i = nodes.n; i-- > least;) {
        const struct node *n = &nodes.last[i % NODES_MAX];
        struct address before = *who;
        bool more = step(p, n->who, who);
        if (more || memcmp(&before, who, sizeof before) != 0)
            *proto = n->proto;
        if (!more)
            return;
    }
}

/* ---- both ---- */

/* The last value: the proxy's that we speak to, or what it let stand. */
static struct part last_proto(const struct header_lines *l)
{
    if (l->n == 0 || l->n > FORWARD_LINES_MAX)
        return (struct part){0};
    const char *line = l->at[l->n - 1], *comma = strrchr(line, ',');
    const char *from = comma ? comma + 1 : line;
    return trim(from, from + strlen(from));
}

void proxies_client(const struct proxies *p, const struct forward_headers *h, struct address *who,
                    bool *is_secure)
{
    struct address x = *who, f = *who;
    struct part proto = {0};
    if (!proxies_trust(p, who))
        return;
    walk_x_forwarded_for(p, &h->x_forwarded_for, &x);
    walk_forwarded(p, &h->forwarded, &f, &proto);
    if (h->x_forwarded_proto.n)
        proto = last_proto(&h->x_forwarded_proto);
    if (is_word(proto, "https") || is_word(proto, "http"))
        *is_secure = is_word(proto, "https");
    bool both = h->x_forwarded_for.n && h->forwarded.n;
    if (both && memcmp(&x, &f, sizeof x) != 0)
        return;
    *who = h->forwarded.n ? f : x;
}
