/* HTTP/1.1 with libmicrohttpd on our loop. The library has no thread: its epoll descriptor is watched by the
 * loop, its timeout is a timer of the loop, and MHD_run does what is due.
 *
 *   accepted ─ idle ─ headers ─ body ─ handling (suspended) ─ replying ─ idle …
 *
 * While a handler works, the connection is suspended: the library then neither sees a hang-up nor keeps a
 * timeout, so its socket is watched for one here, and all time limits are ours (the library's own restarts
 * with every byte, which a slow attacker likes). An answer is pulled by the library out of the exchange's
 * buffer; when that is empty the connection is suspended again.
 *
 * Owner: front thread. Not here: what a path means, JSON. */
#include "http.h"

#include <microhttpd.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api_render.h"
#include "base/clock.h"
#include "base/mem.h"
#include "http_exchange.h"
#include "http_socket.h"

#define SWEEP_MS 500
/* Of a connection. What half of it holds of headers is refused in our words, more in the library's. */
#define POOL_BYTES (64U << 10)
#define BODY_BYTES_PER_S (64 << 10)
/* A body that is too long is read and dropped up to this multiple of the limit, so that a client which sends
 * it all before it listens gets its 413. */
#define DROP_FACTOR 16U

/* ---- the library's turn on the loop */

static void on_timer(uv_timer_t *t);
static void on_idle(uv_idle_t *i);

void http_run(struct http *h)
{
    uv_idle_stop(&h->soon);
    uv_timer_stop(&h->timer);
    doors_run(h);
    uint64_t ms = 0;
    if (uv_is_active((uv_handle_t *)&h->soon) || !doors_timeout(h, &ms))
        return;
    if (ms == 0)
        uv_idle_start(&h->soon, on_idle);
    else
        uv_timer_start(&h->timer, on_timer, ms, 0);
}

static void on_timer(uv_timer_t *t)
{
    http_run(t->data);
}

static void on_idle(uv_idle_t *i)
{
    http_run(i->data);
}

/* Many askers get one turn, in the loop's next round. An idle handle, not a timer of 0 ms: libuv 1.44 runs a
 * timer that is started again in its own callback for ever, without looking at anything else. */
void http_wake(struct http *h)
{
    uv_idle_start(&h->soon, on_idle);
}

void exchange_resume(struct exchange *x)
{
    if (!x->suspended || !x->conn)
        return;
    x->suspended = false;
    MHD_resume_connection(x->conn->mhd);
    http_wake(x->http);
}

/* Only from inside the library's callbacks. */
void exchange_suspend(struct exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->conn->mhd);
}

/* ---- exchanges */

static struct exchange *exchange_create(struct http *h, struct conn *c)
{
    struct arena *a = arena_create(0);
    struct exchange *x = a ? arena_alloc(a, sizeof *x) : NULL;
    if (!x) {
        arena_destroy(a);
        return NULL;
    }
    *x = (struct exchange){.http = h, .conn = c, .refs = 1};
    x->r = (struct request){.arena = a, .server = h->o.server, .plane = h->o.plane, .body = ""};
    x->r.started_ns = x->progress_ns = clock_now_ns();
    buf_init(&x->body, h->o.body_bytes_max);
    buf_init(&x->out, 0);
    return x;
}

void request_hold(struct request *r)
{
    ((struct exchange *)r)->refs++;
}

void request_release(struct request *r)
{
    struct exchange *x = (struct exchange *)r;
    require(x->refs > 0);
    if (--x->refs)
        return;
    buf_fini(&x->body);
    buf_fini(&x->out);
    arena_destroy(r->arena);
}

/* Nobody reads the answer any more. The handler hears of it once, unless it had finished. */
void exchange_gone(struct exchange *x)
{
    if (x->r.gone)
        return;
    x->r.gone = true;
    if (!x->ended && x->phase != PHASE_BODY && x->r.on_gone)
        x->r.on_gone(&x->r);
}

static void make_request_id(struct http *h, struct request *r, const char *theirs)
{
    if (theirs && policy_request_id_ok(theirs)) {
        memcpy(r->id, theirs, strlen(theirs) + 1);
        return;
    }
    h->n_requests++;
    uint64_t mixed = (h->id_base + h->n_requests) * 0x9e3779b97f4a7c15U;
    mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9U;
    snprintf(r->id, sizeof r->id, "%012llx%016llx", (unsigned long long)clock_wall_ms(),
             (unsigned long long)mixed);
}

/* ---- hang-ups of suspended connections */

static void on_hangup(uv_poll_t *p, int status, int events)
{
    struct conn *c = p->data;
    if (status == 0 && !(events & UV_DISCONNECT))
        return;
    uv_poll_stop(&c->hangup);
    c->watching = false;
    struct exchange *x = c->current;
    if (!x || x->ended)
        return; /* the library writes what is left, or finds out by itself */
    exchange_gone(x);
    exchange_resume(x);
}

static void watch(struct conn *c)
{
    if (c->watching)
        return;
    if (!c->has_poll) {
        if (uv_poll_init(c->http->loop, &c->hangup, c->fd) != 0)
            return; /* no watch: the write will fail later */
        c->has_poll = true;
        c->hangup.data = c;
    }
    c->watching = uv_poll_start(&c->hangup, UV_DISCONNECT, on_hangup) == 0;
}

static void unwatch(struct conn *c)
{
    if (c->watching)
        uv_poll_stop(&c->hangup);
    c->watching = false;
}

/* ---- a request arrives */

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    (void)kind;
    policy_header(cls, key, value ? value : "");
    return MHD_YES;
}

static enum MHD_Result on_argument(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct request *r = cls;
    struct request_arg *a = arena_alloc(r->arena, sizeof *a);
    (void)kind;
    if (!a)
        return MHD_NO;
    *a = (struct request_arg){.next = r->args,
                              .name = arena_strdup(r->arena, key),
                              .value = arena_strdup(r->arena, value ? value : "")};
    if (!a->name || !a->value)
        return MHD_NO;
    r->args = a;
    return MHD_YES;
}

const char *request_arg(const struct request *r, const char *name)
{
    for (const struct request_arg *a = r->args; a; a = a->next)
        if (strcmp(a->name, name) == 0)
            return a->value;
    return NULL;
}

const char *request_header(const struct request *r, const char *name)
{
    const struct exchange *x = (const struct exchange *)r;
    return x->conn ? MHD_lookup_connection_value(x->conn->mhd, MHD_HEADER_KIND, name) : NULL;
}

/* Header values into the request's own memory. */
static bool keep_headers(struct exchange *x)
{
    struct request *r = &x->r;
    const struct policy *p = &x->policy;
    const struct {
        const char *from;
        const char **to;
    } kept[] = {{p->adapter, &r->adapter_header},      {p->origin, &r->origin},
                {p->authorization, &r->authorization}, {p->api_key, &r->api_key},
                {p->if_match, &r->if_match},           {p->if_none_match, &r->if_none_match},
                {p->last_event_id, &r->last_event_id}, {p->accept, &r->accept}};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        *kept[i].to = kept[i].from ? arena_strdup(r->arena, kept[i].from) : NULL;
        if (kept[i].from && !*kept[i].to)
            return false;
    }
    return true;
}

/* Who asks: the peer, or whom trusted proxies name. */
static void put_client(struct exchange *x)
{
    static const struct proxies nobody;
    const struct http_options *o = &x->http->o;
    struct address who = x->conn->peer;
    struct request *r = &x->r;
    r->is_secure = x->http->secure;
    proxies_client(o->trusted ? o->trusted : &nobody, &x->policy.forwarded, &who, &r->is_secure);
    if (memcmp(&who, &x->conn->peer, sizeof who) != 0)
        address_show(&who, r->peer);
    else
        memcpy(r->peer, x->conn->peer_text, sizeof r->peer);
}

static void refuse(struct exchange *x, int status, const char *message)
{
    x->policy.close = true;
    if (!x->begun)
        reply_error(&x->r, status, message, NULL, NULL);
}

static size_t target_bytes(const struct request *r)
{
    size_t n = strlen(r->path);
    for (const struct request_arg *a = r->args; a; a = a->next)
        n += strlen(a->name) + strlen(a->value) + 2;
    return n;
}

/* The first callback: headers are here, the body isn't. */
static enum MHD_Result on_headers(struct http *h, struct conn *c, const char *path, const char *method,
                                  const char *version, void **con_cls)
{
    struct exchange *x = exchange_create(h, c);
    if (!x)
        return MHD_NO;
    *con_cls = x;
    c->current = x;
    MHD_get_connection_values(c->mhd, MHD_HEADER_KIND, on_header, &x->policy);
    struct request *r = &x->r;
    r->path = arena_strdup(r->arena, path);
    r->method = arena_strdup(r->arena, method);
    make_request_id(h, r, x->policy.request_id);
    if (!r->path || !r->method || !keep_headers(x))
        return MHD_NO;
    MHD_get_connection_values(c->mhd, MHD_GET_ARGUMENT_KIND, on_argument, r);
    put_client(x);
    r->error_form = h->o.form_of ? h->o.form_of(r->path) : ERRORS_OPENAI;
    x->policy.target_bytes = target_bytes(r);
    char message[200];
    int status = policy_verdict(&x->policy, version, h->o.body_bytes_max, message, sizeof message);
    uint64_t announced = x->policy.content_length;
    /* Too long, but the client may listen only after it has sent all: read, drop, then say so. */
    bool drop =
        status == 413 && !x->policy.expects_continue && announced <= h->o.body_bytes_max * DROP_FACTOR;
    if (status != 0)
        refuse(x, status, message);
    if (status != 0 && !drop)
        return answer_queue(x) ? MHD_YES : MHD_NO;
    uint64_t pace = (x->policy.chunked ? h->o.body_bytes_max : announced) / BODY_BYTES_PER_S;
    x->deadline_ns = r->started_ns + h->o.body_timeout_ms * NS_PER_MS + (int64_t)pace * NS_PER_S;
    return MHD_YES;
}

static void cut(struct conn *c, int status, const char *message);

static void on_body(struct exchange *x, const char *data, size_t length)
{
    if (x->begun || !buf_append(&x->body, data, length)) {
        x->n_dropped += length;
        refuse(x, 413, "the body is too long");
    }
    if (x->n_dropped > x->http->o.body_bytes_max * DROP_FACTOR)
        cut(x->conn, 413, "the body is too long");
}

static enum MHD_Result on_complete(struct exchange *x)
{
    if (x->phase == PHASE_BODY && !x->begun) {
        x->phase = PHASE_HANDLING;
        x->r.body = x->body.length ? x->body.data : "";
        x->r.n_body = x->body.length;
        x->http->o.handle(&x->r);
    }
    if (x->r.gone)
        return MHD_NO;
    if (!x->begun || x->streaming)
        watch(x->conn);
    if (x->begun)
        return answer_queue(x) ? MHD_YES : MHD_NO;
    exchange_suspend(x);
    return MHD_YES;
}

static struct conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *path, const char *method,
                                  const char *version, const char *data, size_t *length, void **con_cls)
{
    struct http *h = cls;
    struct conn *c = conn_of(mhd);
    struct exchange *x = *con_cls;
    if (!c || c->cut)
        return MHD_NO;
    if (!x)
        return on_headers(h, c, path, method, version, con_cls);
    if (*length) {
        on_body(x, data, *length);
        *length = 0;
        return MHD_YES;
    }
    return on_complete(x);
}

/* ---- connections */

static void now_idle(struct conn *c)
{
    c->current = NULL;
    c->idle_ns = clock_now_ns();
    c->idle_bytes = socket_received_bytes(c->fd);
    c->headers_ns = 0;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode why)
{
    (void)cls;
    (void)mhd;
    struct exchange *x = *con_cls;
    if (!x)
        return;
    *con_cls = NULL;
    struct conn *c = x->conn;
    unwatch(c);
    now_idle(c);
    if (why != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        exchange_gone(x);
    if (x->http->o.finished)
        x->http->o.finished(&x->r);
    x->conn = NULL;
    request_release(&x->r);
}

static void on_poll_closed(uv_handle_t *p)
{
    mem_free(p->data);
}

static void conn_end(struct conn *c)
{
    struct http *h = c->http;
    if (c->prev)
        c->prev->next = c->next;
    else
        h->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    h->n_conns--;
    /* Before the library closes the descriptor, and its number is given to another connection. */
    unwatch(c);
    if (c->has_poll)
        uv_close((uv_handle_t *)&c->hangup, on_poll_closed);
    else
        mem_free(c);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *h = cls;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*context)
            conn_end(*context);
        *context = NULL;
        return;
    }
    struct conn *c = mem_zalloc(sizeof *c);
    *context = c;
    if (!c)
        return;
    c->http = h;
    c->mhd = mhd;
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    socket_peer(c->fd, &c->peer, c->peer_text, sizeof c->peer_text);
    c->next = h->conns;
    if (h->conns)
        h->conns->prev = c;
    h->conns = c;
    h->n_conns++;
    now_idle(c);
    c->idle_bytes = 0;
}

/* Ends a connection at once, past the library: it sees the end of input and cleans up. */
static void cut(struct conn *c, int status, const char *message)
{
    if (c->cut)
        return;
    c->cut = true;
    if (status && !c->http->secure) { /* past the library there are no words for a TLS client */
        struct buf body, head;
        buf_init(&body, 0);
        buf_init(&head, 0);
        struct fault f = {0};
        snprintf(f.error.text, sizeof f.error.text, "%s", message);
        render_fault(&body, c->current ? c->current->r.error_form : ERRORS_OPENAI, status, &f);
        buf_printf(&head,
                   "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                   "Connection: close\r\n\r\n%s",
                   status, status == 408 ? "Request Timeout" : "Content Too Large", body.length, body.data);
        ssize_t sent = send(c->fd, head.data, head.length, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)sent;
        buf_fini(&body);
        buf_fini(&head);
    }
    shutdown(c->fd, SHUT_RDWR);
    http_wake(c->http);
}

/* ---- time limits */

static void sweep_idle(struct conn *c, int64_t now)
{
    const struct http_options *o = &c->http->o;
    if (!c->headers_ns && socket_received_bytes(c->fd) > c->idle_bytes)
        c->headers_ns = now;
    if (c->headers_ns && now - c->headers_ns > o->header_timeout_ms * NS_PER_MS)
        cut(c, 408, "the headers took too long");
    else if (now - c->idle_ns > o->idle_timeout_ms * NS_PER_MS)
        cut(c, 0, NULL);
}

static void sweep_answer(struct conn *c, struct exchange *x, int64_t now)
{
    const struct http_options *o = &c->http->o;
    size_t waiting = x->out.length - x->out_begin;
    bool stalled = x->ended || waiting > o->output_bytes_soft || (waiting && !x->suspended);
    if (!stalled || now - x->progress_ns <= o->write_timeout_ms * NS_PER_MS)
        return;
    x->aborted = true;
    exchange_gone(x);
    cut(c, 0, NULL);
    exchange_resume(x);
}

static void on_sweep(uv_timer_t *t)
{
    struct http *h = t->data;
    int64_t now = clock_now_ns();
    doors_sweep(h);
    for (struct conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        struct exchange *x = c->current;
        if (c->cut)
            continue;
        if (!x)
            sweep_idle(c, now);
        else if (x->phase == PHASE_BODY && now > x->deadline_ns)
            cut(c, 408, "the body took too long");
        else if (x->phase == PHASE_REPLYING)
            sweep_answer(c, x, now);
    }
}

/* Percent-decoding, but for a NUL: "/livez%00x" is not "/livez". */
static size_t unescape(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls;
    (void)mhd;
    return strstr(s, "%00") ? strlen(s) : MHD_http_unescape(s);
}

/* ---- begin and end */

static void library_log(void *cls, const char *format, va_list args)
{
    struct http *h = cls;
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    log_line(h->o.log, LOG_DEBUG, "http: %s", text);
}

struct MHD_Daemon *http_start_daemon(struct http *h, int fd)
{
    /* Without a certificate the array ends at once. The library copies what it reads. */
    char *cert = (char *)(uintptr_t)h->o.tls_cert, *key = (char *)(uintptr_t)h->o.tls_key;
    struct MHD_OptionItem tls[] = {
        {cert ? MHD_OPTION_HTTPS_MEM_CERT : MHD_OPTION_END, 0, cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t) "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"},
        {MHD_OPTION_END, 0, NULL}};
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (cert ? MHD_USE_TLS : 0U), 0, NULL,
        NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, library_log, h, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)h->o.connections_max, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)POOL_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_ARRAY,
        tls, MHD_OPTION_END);
}

enum status http_open(uv_loop_t *loop, int fd, const struct http_options *options, struct http **out,
                      struct error *err)
{
    struct http *h = mem_zalloc(sizeof *h);
    *out = NULL;
    if (!h) {
        close(fd);
        return fail(err, STATUS_NO_MEMORY, "no memory for a listener");
    }
    h->o = *options;
    h->secure = options->tls_cert != NULL;
    h->loop = loop;
    if (getrandom(&h->id_base, sizeof h->id_base, 0) != sizeof h->id_base)
        h->id_base = (uint64_t)clock_wall_ms();
    enum status s = door_open(h, fd, err);
    h->o.tls_cert = h->o.tls_key = NULL;
    if (s != STATUS_OK) {
        mem_free(h);
        return s;
    }
    uv_idle_init(loop, &h->soon);
    uv_timer_init(loop, &h->timer);
    uv_timer_init(loop, &h->sweep);
    h->soon.data = h->timer.data = h->sweep.data = h;
    h->n_handles += 3;
    uv_timer_start(&h->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    http_run(h);
    *out = h;
    return STATUS_OK;
}

void http_set_closing(struct http *h)
{
    h->closing = true;
}

size_t http_n_connections(const struct http *h)
{
    return h->n_conns;
}

size_t http_n_requests(const struct http *h)
{
    size_t n = 0;
    for (const struct conn *c = h->conns; c; c = c->next)
        n += c->current != NULL;
    return n;
}

void http_release_handle(struct http *h)
{
    if (--h->n_handles == 0)
        mem_free(h);
}

static void on_handle_closed(uv_handle_t *handle)
{
    http_release_handle(handle->data);
}

void http_close(struct http *h)
{
    if (!h)
        return;
    h->closing = true;
    for (struct conn *c = h->conns; c; c = c->next) {
        if (!c->current)
            continue;
        unwatch(c);
        exchange_gone(c->current);
        exchange_resume(c->current); /* the library refuses to stop while somebody is suspended */
    }
    doors_close(h);
    uv_close((uv_handle_t *)&h->soon, on_handle_closed);
    uv_close((uv_handle_t *)&h->timer, on_handle_closed);
    uv_close((uv_handle_t *)&h->sweep, on_handle_closed);
}
