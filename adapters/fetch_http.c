/* One GET through libcurl, with what a stranger's server mustn't be able to do: send us elsewhere than the
 * allow-list says, into the private network, to another protocol or back to plain http; send more than we
 * asked for; go on for ever; have our credentials forwarded.
 *
 * Redirects are followed here and not by libcurl, so that each place is checked by the same rule as the first
 * one. Nothing is retried here: the caller knows what it has. */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "fetch.h"

#define ERROR_BODY_MAX 2048
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define IGNORED_MAX ((size_t)1 << 20) /* of the body of an error or a redirect */

/* One hop: a request and its answer. */
struct hop {
    struct exchange *x;
    const char **code;
    struct error *err;
    struct curl_slist *headers;
    struct url_parts url;
    bool named;   /* the host may have a private address */
    bool at_home; /* credentials may be sent */
    bool started; /* of the body */
    bool refused; /* by us, *err says why: nothing of it is worth a retry */
    bool chunked, http1;
    int64_t moved_ns; /* the last progress */
    curl_off_t moved;
    uint64_t range_at; /* Content-Range's first byte; UINT64_MAX: none */
    uint64_t linked_bytes;
    char location[FETCH_URL_MAX];
    char body[ERROR_BODY_MAX]; /* of an error */
    size_t body_bytes, ignored;
};

bool sources_begin(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == 0;
}

void sources_end(void)
{
    curl_global_cleanup();
}

void *exchange_open(void)
{
    return curl_easy_init();
}

void exchange_close(void *curl)
{
    curl_easy_cleanup(curl);
}

/* ---- addresses */

struct block {
    uint8_t bits, address[4];
};

static bool in_blocks(const uint8_t *a, const struct block *blocks, size_t n)
{
    uint32_t v = (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3];
    for (size_t i = 0; i < n; i++) {
        const uint8_t *b = blocks[i].address;
        uint32_t w = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
        if ((v ^ w) >> (32 - blocks[i].bits) == 0)
            return true;
    }
    return false;
}

/* IANA's registries of special-purpose addresses (RFC 6890 and what followed). Link-local holds the clouds'
 * metadata services, which no name may lead to; private ones are fine where the operator wrote the name. */
static bool ipv4_is_allowed(const uint8_t a[4], bool named)
{
    static const struct block never[] = {{8, {0}}, {16, {169, 254}}, {4, {224}}, {4, {240}}};
    static const struct block private[] = {
        {8, {10}},         {8, {127}},       {10, {100, 64}}, {12, {172, 16}},      {24, {192, 0, 0}},
        {24, {192, 0, 2}}, {16, {192, 168}}, {15, {198, 18}}, {24, {198, 51, 100}}, {24, {203, 0, 113}}};
    if (in_blocks(a, never, sizeof never / sizeof never[0]))
        return false;
    return named || !in_blocks(a, private, sizeof private / sizeof private[0]);
}

static bool ipv6_is_allowed(const uint8_t a[16], bool named)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}, nat64[12] = {0, 0x64, 0xff, 0x9b},
                         zero[15] = {0};
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0)
        return ipv4_is_allowed(a + 12, named);
    if (memcmp(a, zero, 15) == 0)
        return a[15] == 1 && named; /* ::1, and :: never */
    if (a[0] == 0x20 && a[1] == 0x02)
        return ipv4_is_allowed(a + 2, named); /* 6to4 */
    if (a[0] == 0xff || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80))
        return false; /* multicast, link-local */
    return named ||
           ((a[0] & 0xe0) == 0x20 && !(a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8));
}

bool address_is_allowed(const void *sockaddr, bool named)
{
    const struct sockaddr *sa = sockaddr;
    uint8_t a[16];
    if (sa->sa_family == AF_INET) {
        memcpy(a, &((const struct sockaddr_in *)sockaddr)->sin_addr, 4);
        return ipv4_is_allowed(a, named);
    }
    if (sa->sa_family != AF_INET6)
        return false;
    memcpy(a, &((const struct sockaddr_in6 *)sockaddr)->sin6_addr, 16);
    return ipv6_is_allowed(a, named);
}

static void refuse(struct hop *h, enum status s, const char *code, const char *why)
{
    h->refused = true;
    *h->code = code;
    (void)fail(h->err, s, "%.200s: %s", h->x->remote->shown, why);
}

static curl_socket_t on_socket(void *data, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct hop *h = data;
    char text[INET6_ADDRSTRLEN] = "?", why[400];
    (void)purpose;
    if (address_is_allowed(&a->addr, h->named))
        return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    if (a->family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)&a->addr)->sin_addr, text, sizeof text);
    else if (a->family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)(void *)&a->addr)->sin6_addr, text, sizeof text);
    snprintf(
        why, sizeof why,
        "%.100s has the address %s, which is not public: only a host that --source-allow names in full may "
        "have one, and a link-local one never",
        h->url.host, text);
    refuse(h, STATUS_INVALID, SOURCE_NOT_ALLOWED, why);
    return CURL_SOCKET_BAD;
}

/* ---- headers of the answer */

static const char *header_value(const char *line, size_t n, const char *name, char *dst, size_t dst_bytes)
{
    size_t m = strlen(name);
    if (n <= m || strncasecmp(line, name, m) != 0 || line[m] != ':')
        return NULL;
    size_t from = m + 1;
    while (from < n && (line[from] == ' ' || line[from] == '\t'))
        from++;
    while (n > from && strchr(" \t\r\n", line[n - 1]))
        n--;
    if (n - from >= dst_bytes)
        return NULL;
    snprintf(dst, dst_bytes, "%.*s", (int)(n - from), line + from);
    return dst;
}

static bool is_printable(const char *s)
{
    while (*s >= ' ' && *s < 0x7f)
        s++;
    return *s == '\0';
}

static bool is_hex(const char *s, size_t n)
{
    return strlen(s) == n && strspn(s, "0123456789abcdefABCDEF") == n;
}

/* "…" or W/"…", to 64 digits if they are that. */
static void read_linked_tag(struct exchange *x, char *value)
{
    char *from = strncmp(value, "W/", 2) == 0 ? value + 2 : value;
    size_t n = strlen(from);
    if (n >= 2 && from[0] == '"' && from[n - 1] == '"') {
        from[n - 1] = '\0';
        from++;
    }
    if (is_hex(from, 64))
        for (size_t i = 0; i <= 64; i++)
            x->sha256[i] = (char)(from[i] >= 'A' && from[i] <= 'F' ? from[i] + 32 : from[i]);
}

/* S3's are base64; "…-N" is a digest of digests and says nothing of the whole. */
static void read_s3_checksum(struct exchange *x, const char *value)
{
    gnutls_datum_t in = {.data = (unsigned char *)(uintptr_t)value, .size = (unsigned)strlen(value)};
    gnutls_datum_t out = {0};
    if (strchr(value, '-') || gnutls_base64_decode2(&in, &out) < 0)
        return;
    if (out.size == 32)
        sha256_hex(out.data, x->sha256);
    gnutls_free(out.data);
}

static void start_answer(struct hop *h, const char *line, size_t n)
{
    struct exchange *x = h->x;
    h->http1 = n > 7 && strncmp(line, "HTTP/1.", 7) == 0;
    h->chunked = false;
    h->location[0] = '\0';
    h->range_at = UINT64_MAX;
    x->etag[0] = '\0';
    x->wait_ms = 0;
}

static size_t on_header(char *line, size_t size, size_t n_items, void *data)
{
    struct hop *h = data;
    struct exchange *x = h->x;
    size_t n = size * n_items;
    char v[FETCH_URL_MAX];
    if (n > 5 && strncmp(line, "HTTP/", 5) == 0)
        start_answer(h, line, n);
    else if (header_value(line, n, "ETag", v, sizeof x->etag) && is_printable(v))
        snprintf(x->etag, sizeof x->etag, "%.*s", (int)sizeof x->etag - 1, v);
    else if (header_value(line, n, "Location", v, sizeof v))
        snprintf(h->location, sizeof h->location, "%s", v);
    else if (header_value(line, n, "Transfer-Encoding", v, sizeof v))
        h->chunked = strcasestr(v, "chunked") != NULL;
    else if (header_value(line, n, "Content-Range", v, sizeof v) && strncmp(v, "bytes ", 6) == 0)
        h->range_at = strtoull(v + 6, NULL, 10);
    else if (header_value(line, n, "Retry-After", v, sizeof v)) {
        long s = strtol(v, NULL, 10);
        time_t at = s > 0 ? 0 : curl_getdate(v, NULL);
        x->wait_ms = s > 0 ? s * 1000L : at > 0 ? (int64_t)at * 1000 - clock_wall_ms() : 0;
        x->wait_ms = x->wait_ms < 0 ? 0 : x->wait_ms;
    } else if (header_value(line, n, "Content-Encoding", v, sizeof v) && strcasecmp(v, "identity") != 0) {
        refuse(h, STATUS_FORMAT, SOURCE_FORMAT, "the server compresses what must come as it is");
        return 0;
    } else if (x->remote->is_s3 && header_value(line, n, "X-Amz-Checksum-Sha256", v, sizeof v))
        read_s3_checksum(x, v);
    else if (x->remote->is_hub && h->at_home && header_value(line, n, "X-Linked-ETag", v, sizeof v))
        read_linked_tag(x, v);
    else if (x->remote->is_hub && h->at_home && header_value(line, n, "X-Linked-Size", v, sizeof v))
        h->linked_bytes = strtoull(v, NULL, 10);
    else if (x->remote->is_hub && h->at_home && header_value(line, n, "X-Repo-Commit", v, sizeof v) &&
             is_hex(v, 40))
        snprintf(x->commit, sizeof x->commit, "%s", v);
    else if (x->remote->is_hub && header_value(line, n, "X-Error-Message", v, sizeof v))
        snprintf(x->complaint, sizeof x->complaint, "%.*s", (int)sizeof x->complaint - 1, v);
    return n;
}

/* ---- the body */

static bool check_size(struct hop *h, uint64_t bytes)
{
    struct exchange *x = h->x;
    char why[200];
    if (bytes <= x->limit_bytes)
        return true;
    snprintf(why, sizeof why, "%.100s has %" PRIu64 " bytes or more, %" PRIu64 " are allowed%s",
             x->shown_file, bytes, x->limit_bytes, x->limit_is_own ? "" : " (--source-limit)");
    refuse(h, STATUS_TOO_LARGE, SOURCE_TOO_LARGE, why);
    return false;
}

/* The whole answer came in place of the rest: begin again. */
static bool begin_again(struct hop *h)
{
    struct exchange *x = h->x;
    x->offset = 0;
    gnutls_hash_output(x->hash, (uint8_t[64]){0}); /* and resets it */
    if (ftruncate(x->fd, 0) == 0)
        return true;
    refuse(h, STATUS_IO, SOURCE_INTERNAL, "the cache can't be written");
    return false;
}

static bool start_body(struct hop *h, long status)
{
    struct exchange *x = h->x;
    curl_off_t length = -1;
    h->started = true;
    curl_easy_getinfo(x->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    x->framed = length >= 0 || h->chunked || !h->http1;
    if (status == 206 && (x->offset == 0 || h->range_at != x->offset)) {
        refuse(h, STATUS_FORMAT, SOURCE_FORMAT,
               "the server sent another part of the file than was asked for");
        return false;
    }
    if (status == 200 && x->offset > 0 && !begin_again(h))
        return false;
    if (!x->framed) {
        refuse(h, STATUS_FORMAT, SOURCE_FORMAT,
               "the answer has neither a Content-Length nor chunks: a cut couldn't be told from its end");
        return false;
    }
    x->total = length >= 0 ? x->offset + (uint64_t)length : 0;
    if (status == 200)
        x->started(x->data, x->etag);
    return check_size(h, x->total);
}

static bool reserve(struct hop *h, uint64_t end)
{
    struct exchange *x = h->x;
    if (end <= x->reserved)
        return true;
    uint64_t want = x->total >= end ? x->total : end + ((uint64_t)64 << 20);
    enum status s = x->reserve(x->data, want, h->err);
    h->refused = s != STATUS_OK;
    *h->code = s == STATUS_OK ? NULL : s == STATUS_IO ? SOURCE_INTERNAL : SOURCE_NO_ROOM;
    x->reserved = want;
    return s == STATUS_OK;
}

static bool write_all(int fd, const char *bytes, size_t n, uint64_t at)
{
    while (n > 0) {
        ssize_t m = pwrite(fd, bytes, n, (off_t)at);
        if (m <= 0)
            return false;
        bytes += m;
        at += (uint64_t)m;
        n -= (size_t)m;
    }
    return true;
}

static size_t on_body(char *bytes, size_t size, size_t n_items, void *data)
{
    struct hop *h = data;
    struct exchange *x = h->x;
    size_t n = size * n_items;
    long status = 0;
    curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 && status != 206) {
        size_t room = sizeof h->body - 1 - h->body_bytes, kept = n < room ? n : room;
        memcpy(h->body + h->body_bytes, bytes, kept);
        h->body_bytes += kept;
        h->ignored += n;
        return h->ignored <= IGNORED_MAX ? n : 0; /* read to its end, so that the connection stays of use */
    }
    if (!h->started && !start_body(h, status))
        return 0;
    if (!check_size(h, x->offset + n) || !reserve(h, x->offset + n))
        return 0;
    if (!write_all(x->fd, bytes, n, x->offset) || gnutls_hash(x->hash, bytes, n) < 0) {
        refuse(h, STATUS_IO, SOURCE_INTERNAL, "the cache can't be written: is its disk full?");
        return 0;
    }
    x->offset += n;
    x->received += n;
    return n;
}

static int on_progress(void *data, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
    struct hop *h = data;
    const struct source_options *o = h->x->remote->options;
    int64_t t = clock_now_ns();
    (void)total, (void)up_total, (void)up;
    if (o->cancel && atomic_load_explicit(o->cancel, memory_order_relaxed)) {
        refuse(h, STATUS_CANCELLED, SOURCE_UNREACHABLE, "given up: the server is going down");
        return 1;
    }
    if (now != h->moved) {
        h->moved = now;
        h->moved_ns = t;
    }
    if (o->progress && h->started)
        o->progress(o->data, h->x->shown_file, h->x->offset, h->x->total);
    return t - h->moved_ns > (int64_t)o->stall_ms * NS_PER_MS; /* reported as CURLE_ABORTED_BY_CALLBACK */
}

/* ---- the request */

static bool add_header(struct hop *h, const char *name, const char *value)
{
    char line[FETCH_URL_MAX + 64];
    snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *more = curl_slist_append(h->headers, line);
    if (more)
        h->headers = more;
    return more != NULL;
}

static bool add_headers(struct hop *h)
{
    const struct exchange *x = h->x;
    const struct source_options *o = x->remote->options;
    char value[600];
    bool ok = true;
    if (x->if_none_match[0])
        ok &= add_header(h, "If-None-Match", x->if_none_match);
    if (x->offset > 0) {
        snprintf(value, sizeof value, "bytes=%" PRIu64 "-", x->offset);
        ok &= add_header(h, "Range", value) && add_header(h, "If-Range", x->if_range);
    }
    if (x->remote->is_hub && h->at_home && o->hf_token) {
        snprintf(value, sizeof value, "Bearer %.500s", o->hf_token);
        ok &= add_header(h, "Authorization", value);
    }
    if (x->remote->is_s3)
        ok &= add_header(h, "x-amz-checksum-mode", "ENABLED");
    if (x->remote->signs)
        ok &=
            add_header(h, "x-amz-content-sha256", EMPTY_SHA256); /* libcurl before 8 doesn't add it itself */
    if (x->remote->signs && o->s3_session)
        ok &= add_header(h, "x-amz-security-token", o->s3_session);
    return ok;
}

static void set_credentials(struct hop *h)
{
    const struct exchange *x = h->x;
    const struct remote *r = x->remote;
    char sign[100];
    if (!h->at_home)
        return;
    if (r->signs) {
        snprintf(sign, sizeof sign, "aws:amz:%s:s3", r->region);
        curl_easy_setopt(x->curl, CURLOPT_AWS_SIGV4, sign);
        curl_easy_setopt(x->curl, CURLOPT_USERNAME, r->options->s3_key_id);
        curl_easy_setopt(x->curl, CURLOPT_PASSWORD, r->options->s3_secret);
    } else if (r->user[0]) {
        curl_easy_setopt(x->curl, CURLOPT_USERNAME, r->user);
        curl_easy_setopt(x->curl, CURLOPT_PASSWORD, r->password);
    }
}

static CURLcode perform(struct hop *h, const char *url)
{
    struct exchange *x = h->x;
    const struct source_options *o = x->remote->options;
    CURL *c = x->curl;
    int64_t left_ms = (x->deadline_ns - clock_now_ns()) / NS_PER_MS;
    curl_easy_reset(c); /* keeps connections */
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, h->url.scheme);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_PROXY, ""); /* it would do the looking up of addresses */
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "lorikeet/" LORIKEET_VERSION);
    curl_easy_setopt(c, CURLOPT_ACCEPT_ENCODING, "identity"); /* not among the headers that S3 signs */
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)(left_ms > 1 ? left_ms : 1));
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)o->stall_ms);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, h->headers);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, h);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, h);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, h);
    if (o->ca_file)
        curl_easy_setopt(c, CURLOPT_CAINFO, o->ca_file);
    set_credentials(h);
    h->moved_ns = clock_now_ns();
    return curl_easy_perform(c);
}

/* ---- what came of it */

/* <Code>…</Code> of an S3 error, which says more than its status. */
static void read_s3_error(struct exchange *x, const char *body)
{
    const char *from = strstr(body, "<Code>"), *end = from ? strstr(from, "</Code>") : NULL;
    if (end && end - from < 100)
        snprintf(x->complaint, sizeof x->complaint, "%.*s", (int)(end - from - 6), from + 6);
}

static enum status failed(struct hop *h, CURLcode e)
{
    struct exchange *x = h->x;
    const char *shown = x->remote->shown;
    if (h->refused)
        return h->err ? h->err->status : STATUS_IO;
    *h->code = SOURCE_UNREACHABLE;
    if (e == CURLE_ABORTED_BY_CALLBACK) {
        x->transient = true;
        return fail(h->err, STATUS_TIMEOUT, "%.200s: %.100s: nothing came for %u ms", shown, x->shown_file,
                    x->remote->options->stall_ms);
    }
    /* libcurl counts whole milliseconds, and may be one early. */
    if (e == CURLE_OPERATION_TIMEDOUT && clock_now_ns() + 2 * NS_PER_MS >= x->deadline_ns)
        return fail(h->err, STATUS_TIMEOUT, "%.200s: %.100s: not complete after %u ms (--source-timeout)",
                    shown, x->shown_file, x->remote->options->timeout_ms);
    x->transient = e != CURLE_PEER_FAILED_VERIFICATION && e != CURLE_SSL_CACERT_BADFILE &&
                   e != CURLE_UNSUPPORTED_PROTOCOL && e != CURLE_URL_MALFORMAT && e != CURLE_OUT_OF_MEMORY;
    return fail(h->err, e == CURLE_OPERATION_TIMEDOUT ? STATUS_TIMEOUT : STATUS_UNAVAILABLE,
                "%.200s: %.100s: %s", shown, x->shown_file, curl_easy_strerror(e));
}

static enum status no_redirect(struct hop *h, const char *why, const char *where)
{
    char shown[200];
    source_show(where, shown, sizeof shown);
    *h->code = SOURCE_NOT_ALLOWED;
    return fail(h->err, STATUS_INVALID, "%.200s: redirects to %s, %s", h->x->remote->shown, shown, why);
}

/* The next place into `url`, if we may go there. */
static enum status follow(struct hop *h, char url[FETCH_URL_MAX])
{
    struct exchange *x = h->x;
    struct url_parts next;
    char *text = NULL;
    bool named;
    CURLU *u = curl_url();
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_URL, h->location, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_URL, &text, 0) == CURLUE_OK && strlen(text) < FETCH_URL_MAX;
    if (ok)
        snprintf(url, FETCH_URL_MAX, "%s", text);
    curl_free(text);
    curl_url_cleanup(u);
    if (!ok)
        return no_redirect(h, "which is no URL that can be followed", h->location);
    if (x->remote->is_s3)
        return no_redirect(h, "which storage does for a bucket of another region: see --s3-region", url);
    if (url_split(url, &next, NULL) != STATUS_OK || next.user[0])
        return no_redirect(h, "which isn't followed", url);
    if (!remote_may_ask(x->remote, &next, &named))
        return no_redirect(h, "which --source-allow doesn't name (or which is plain http)", url);
    return STATUS_OK;
}

static bool is_redirect(long status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* One request; *again: it was redirected, and `url` is where to. */
static enum status run_hop(struct hop *h, char url[FETCH_URL_MAX], bool *again)
{
    struct exchange *x = h->x;
    char origin[300];
    *again = false;
    enum status s = url_split(url, &h->url, h->err);
    if (s != STATUS_OK)
        return s;
    if (!remote_may_ask(x->remote, &h->url, &h->named))
        return no_redirect(h, "which --source-allow doesn't name", url);
    url_origin(&h->url, origin, sizeof origin);
    h->at_home = strcmp(origin, x->remote->origin) == 0;
    if (!add_headers(h))
        return fail(h->err, STATUS_NO_MEMORY, "no memory for a request");
    CURLcode e = perform(h, url);
    curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &x->status);
    h->body[h->body_bytes] = '\0';
    if (e != CURLE_OK && (e != CURLE_WRITE_ERROR || h->refused || h->ignored <= IGNORED_MAX))
        return failed(h, e);
    if (is_redirect(x->status) && h->location[0]) {
        if (x->sha256[0] && strcmp(x->sha256, x->have_sha256) == 0) {
            x->status = 304;
            return STATUS_OK;
        }
        if (h->linked_bytes && !check_size(h, h->linked_bytes))
            return STATUS_TOO_LARGE;
        *again = true;
        return follow(h, url);
    }
    if (x->status == 200 && !h->started && x->offset > 0 && !begin_again(h)) /* an empty body */
        return STATUS_IO;
    if (x->remote->is_s3 && x->status >= 400)
        read_s3_error(x, h->body);
    x->transient = x->status == 429 || x->status == 408 || x->status >= 500;
    return STATUS_OK;
}

enum status exchange_run(struct exchange *x, const char *start, const char **code, struct error *err)
{
    char url[FETCH_URL_MAX];
    bool again = true;
    enum status s = STATUS_OK;
    x->status = 0;
    x->transient = false;
    x->received = x->total = 0;
    x->sha256[0] = x->commit[0] = x->complaint[0] = '\0';
    *code = SOURCE_INTERNAL;
    snprintf(url, sizeof url, "%s", start);
    for (int i = 0; again && s == STATUS_OK; i++) {
        struct hop h = {.x = x, .code = code, .err = err};
        if (i > FETCH_REDIRECTS_MAX)
            return fail(err, STATUS_FORMAT, "%.200s: more than %d redirects", x->remote->shown,
                        FETCH_REDIRECTS_MAX);
        s = run_hop(&h, url, &again);
        curl_slist_free_all(h.headers);
    }
    if (s == STATUS_OK)
        *code = NULL;
    return s;
}
