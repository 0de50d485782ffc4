/* The commands' HTTP client over libcurl. A call runs on a multi handle, so that a stream of events can run
 * beside it and a person sees that something is going on; nothing here knows what the server is asked. */
#include "client.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/mem.h"

#define REPLY_BYTES_MAX ((size_t)64 << 20)
#define CONNECT_MS 5000L
#define SILENCE_S 60L /* of a stream, whose server sends comments more often than that */
#define TICK_MS 100

struct client {
    CURLM *multi;
    char address[300];
    char base[300];          /* "http://host:port", or https */
    const char *socket_path; /* in address, or NULL */
};

/* One running transfer. */
struct transfer {
    CURL *curl;
    struct curl_slist *headers;
    char *url;
    char why[CURL_ERROR_SIZE];
    bool streaming; /* events to the parser; else, or where the answer isn't 200, bytes to `body` */
    struct event_parser parser;
    client_on_event *on_event;
    void *data;
    struct buf *body;
    struct buf unwanted; /* the body of a side stream that is refused */
    bool done;
    CURLcode code;
};

/* ---- addresses */

static enum status parse_address(struct client *c, const char *address, struct error *err)
{
    int n = snprintf(c->address, sizeof c->address, "%s", address);
    if (n <= 0 || n >= (int)sizeof c->address)
        return fail(err, STATUS_INVALID, "address \"%.80s\": expected 1 to %zu bytes", address,
                    sizeof c->address - 1);
    if (strncmp(address, "unix:", 5) == 0) {
        struct sockaddr_un limit;
        c->socket_path = c->address + 5;
        snprintf(c->base, sizeof c->base, "http://lorikeet");
        if (!c->socket_path[0] || strlen(c->socket_path) >= sizeof limit.sun_path)
            return fail(err, STATUS_INVALID, "address \"%.120s\": a socket's path has 1 to %zu bytes",
                        address, sizeof limit.sun_path - 1);
        return STATUS_OK;
    }
    bool secure = strncmp(address, "tls:", 4) == 0;
    const char *host = secure ? address + 4 : strncmp(address, "http://", 7) == 0 ? address + 7 : address;
    size_t length = strlen(host);
    while (length > 0 && host[length - 1] == '/')
        length--;
    const char *colon = memrchr(host, ':', length);
    size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
    bool right = colon && digits > 0 && digits <= 5 && colon + 1 + digits == host + length &&
                 !memchr(host, '/', length) && !memchr(host, '@', length);
    if (!right)
        return fail(err, STATUS_INVALID, "address \"%.120s\": expected unix:PATH, HOST:PORT or [IPv6]:PORT",
                    address);
    snprintf(c->base, sizeof c->base, "http%s://%s%.*s", secure ? "s" : "", colon == host ? "127.0.0.1" : "",
             (int)length, host);
    return STATUS_OK;
}

enum status client_open(const char *address, struct client **out, struct error *err)
{
    *out = NULL;
    struct client *c = mem_zalloc(sizeof *c);
    if (!c)
        return fail(err, STATUS_NO_MEMORY, "no memory for the client");
    enum status s = parse_address(c, address, err);
    if (s == STATUS_OK && (curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !(c->multi = curl_multi_init())))
        s = fail(err, STATUS_NO_MEMORY, "no memory for the client");
    if (s != STATUS_OK) {
        client_close(c);
        return s;
    }
    *out = c;
    return STATUS_OK;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    curl_multi_cleanup(c->multi);
    mem_free(c);
}

const char *client_address(const struct client *c)
{
    return c->address;
}

bool client_is_local(const struct client *c)
{
    return c->socket_path != NULL;
}

/* A server answers there: its process may have died and left the socket. */
static bool is_alive(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return false;
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool alive = fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0)
        close(fd);
    return alive;
}

enum status client_find(char *address, size_t n, struct error *err)
{
    const char *folder = getenv("XDG_RUNTIME_DIR");
    struct buf names;
    glob_t found = {0};
    char pattern[200];
    size_t n_alive = 0;
    if (!folder || folder[0] != '/' || strlen(folder) > 150)
        return fail(err, STATUS_NOT_FOUND,
                    "no --admin ADDRESS, no LORIKEET_ADMIN, and no XDG_RUNTIME_DIR to look for a server in");
    snprintf(pattern, sizeof pattern, "%s/lorikeet-*.sock", folder);
    buf_init(&names, 400);
    glob(pattern, 0, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        if (!is_alive(found.gl_pathv[i]))
            continue;
        n_alive++;
        buf_printf(&names, " unix:%s", found.gl_pathv[i]);
        snprintf(address, n, "unix:%s", found.gl_pathv[i]);
    }
    globfree(&found);
    enum status s = STATUS_OK;
    if (n_alive == 0)
        s = fail(err, STATUS_NOT_FOUND,
                 "no server answers on %s; start one, or name its admin listener with --admin ADDRESS",
                 pattern);
    else if (n_alive > 1)
        s = fail(err, STATUS_CONFLICT, "several servers run here; choose one with --admin:%s", names.data);
    buf_fini(&names);
    return s;
}

/* ---- transfers */

static size_t on_bytes(char *bytes, size_t size, size_t n, void *user)
{
    struct transfer *t = user;
    long http_status = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &http_status);
    bool ok = t->streaming && http_status == 200
                  ? event_parser_feed(&t->parser, bytes, size * n, t->on_event, t->data)
                  : buf_append(t->body, bytes, size * n);
    return ok ? size * n : 0; /* 0: curl ends the transfer */
}

static void transfer_fini(struct transfer *t)
{
    curl_easy_cleanup(t->curl);
    curl_slist_free_all(t->headers);
    event_parser_fini(&t->parser);
    buf_fini(&t->unwanted);
    mem_free(t->url);
}

static bool add_header(struct transfer *t, const char *header)
{
    struct curl_slist *more = curl_slist_append(t->headers, header);
    if (more)
        t->headers = more;
    return more != NULL;
}

static bool transfer_init(struct transfer *t, const struct client *c, const char *path, struct buf *body)
{
    *t = (struct transfer){0};
    event_parser_init(&t->parser);
    buf_init(&t->unwanted, REPLY_BYTES_MAX);
    t->body = body ? body : &t->unwanted;
    size_t n = strlen(c->base) + strlen(path) + 1;
    t->url = mem_alloc(n);
    t->curl = curl_easy_init();
    if (!t->url || !t->curl)
        return false;
    snprintf(t->url, n, "%s%s", c->base, path);
    curl_easy_setopt(t->curl, CURLOPT_URL, t->url);
    curl_easy_setopt(t->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    const char *authorities = getenv("SSL_CERT_FILE"); /* curl was built with a file of its own */
    if (authorities && authorities[0])
        curl_easy_setopt(t->curl, CURLOPT_CAINFO, authorities);
    curl_easy_setopt(t->curl, CURLOPT_PROXY, ""); /* an operators' listener isn't behind one */
    curl_easy_setopt(t->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(t->curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, t->why);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_PRIVATE, t);
    if (c->socket_path)
        curl_easy_setopt(t->curl, CURLOPT_UNIX_SOCKET_PATH, c->socket_path);
    return true;
}

static bool set_call(struct transfer *t, const struct client_call *call)
{
    bool ok = add_header(t, "Content-Type: application/json") && add_header(t, "Expect:");
    for (size_t i = 0; i < sizeof call->headers / sizeof call->headers[0]; i++)
        ok = ok && (!call->headers[i] || add_header(t, call->headers[i]));
    curl_easy_setopt(t->curl, CURLOPT_CUSTOMREQUEST, call->method);
    if (call->body)
        curl_easy_setopt(t->curl, CURLOPT_POSTFIELDS, call->body);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(t->curl, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
    return ok;
}

static void set_stream(struct transfer *t, const struct client_call *call)
{
    t->streaming = true;
    t->on_event = call->on_event;
    t->data = call->data;
    curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_TIME, SILENCE_S);
}

/* Until the main transfer is done. */
static void run_transfers(struct client *c, const struct transfer *main, const struct client_call *call)
{
    while (!main->done) {
        int n_running, n_left;
        CURLMcode code = curl_multi_perform(c->multi, &n_running);
        for (CURLMsg *m; (m = curl_multi_info_read(c->multi, &n_left));) {
            struct transfer *t = NULL;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
            if (m->msg != CURLMSG_DONE || !t)
                continue;
            t->done = true;
            t->code = m->data.result;
        }
        if (main->done || code != CURLM_OK)
            break;
        curl_multi_poll(c->multi, NULL, 0, TICK_MS, NULL);
        if (call->tick)
            call->tick(call->data);
    }
}

static enum status outcome(const struct client *c, const struct transfer *t, struct client_reply *reply,
                           struct error *err)
{
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &reply->http_status);
    if (t->done && t->code == CURLE_OK)
        return STATUS_OK;
    if (t->body->failed)
        return fail(err, STATUS_TOO_LARGE, "%s: an answer of more than %zu MiB", c->address,
                    REPLY_BYTES_MAX >> 20);
    if (t->done && t->code == CURLE_COULDNT_CONNECT) {
        long number = 0;
        curl_easy_getinfo(t->curl, CURLINFO_OS_ERRNO, &number);
        return fail(err, STATUS_UNAVAILABLE, "%s: no server answers there%s%s", c->address,
                    number ? ": " : "", number ? strerror((int)number) : "");
    }
    return fail(err, STATUS_UNAVAILABLE, "%s: %s", c->address,
                t->why[0] ? t->why : curl_easy_strerror(t->done ? t->code : CURLE_FAILED_INIT));
}

enum status client_request(struct client *c, const struct client_call *call, struct client_reply *reply,
                           struct error *err)
{
    struct transfer main, side = {0};
    reply->http_status = 0;
    buf_init(&reply->body, REPLY_BYTES_MAX);
    bool ok = transfer_init(&main, c, call->path, &reply->body) && set_call(&main, call);
    bool beside = ok && call->events_path && transfer_init(&side, c, call->events_path, NULL);
    enum status s = STATUS_OK;
    if (ok) {
        if (beside) {
            set_stream(&side, call);
            curl_multi_add_handle(c->multi, side.curl);
        }
        curl_multi_add_handle(c->multi, main.curl);
        run_transfers(c, &main, call);
        curl_multi_remove_handle(c->multi, main.curl);
        if (beside)
            curl_multi_remove_handle(c->multi, side.curl);
        s = outcome(c, &main, reply, err);
    } else {
        s = fail(err, STATUS_NO_MEMORY, "no memory for the request");
    }
    transfer_fini(&main);
    if (call->events_path && ok)
        transfer_fini(&side);
    return s;
}

enum status client_events(struct client *c, const struct client_call *call, struct client_reply *reply,
                          struct error *err)
{
    struct transfer main;
    reply->http_status = 0;
    buf_init(&reply->body, REPLY_BYTES_MAX);
    enum status s = STATUS_OK;
    if (transfer_init(&main, c, call->path, &reply->body) && set_call(&main, call)) {
        set_stream(&main, call);
        curl_multi_add_handle(c->multi, main.curl);
        run_transfers(c, &main, call);
        curl_multi_remove_handle(c->multi, main.curl);
        s = outcome(c, &main, reply, err);
    } else {
        s = fail(err, STATUS_NO_MEMORY, "no memory for the request");
    }
    transfer_fini(&main);
    return s;
}
