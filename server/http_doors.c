/* The library's daemons of a listener. There is one, but for a while after the certificates were renewed: the
 * library reads them when a daemon starts, so a new one takes the listening socket over, and the one before
 * keeps the connections that it has. */
#include <fcntl.h>
#include <microhttpd.h>
#include <unistd.h>

#include "base/mem.h"
#include "http_exchange.h"

static void on_epoll(uv_poll_t *p, int status, int events)
{
    struct door *d = p->data;
    (void)status;
    (void)events;
    http_run(d->http);
}

enum status door_open(struct http *h, int fd, struct error *err)
{
    struct door *d = mem_zalloc(sizeof *d);
    if (d)
        *d = (struct door){.http = h, .fd = fd, .daemon = http_start_daemon(h, fd)};
    if (!d || !d->daemon) {
        close(fd);
        mem_free(d);
        return fail(err, STATUS_IO, "the HTTP listener doesn't start%s",
                    h->o.tls_cert ? "; does the key belong to the certificate?" : "");
    }
    int epoll_fd = MHD_get_daemon_info(d->daemon, MHD_DAEMON_INFO_EPOLL_FD)->listen_fd;
    require(uv_poll_init(h->loop, &d->epoll, epoll_fd) == 0);
    d->epoll.data = d;
    uv_poll_start(&d->epoll, UV_READABLE, on_epoll);
    d->next = h->doors;
    h->doors = d;
    h->n_handles++;
    return STATUS_OK;
}

void doors_run(struct http *h)
{
    for (struct door *d = h->doors; d; d = d->next)
        MHD_run(d->daemon);
}

bool doors_timeout(const struct http *h, uint64_t *ms)
{
    bool any = false;
    for (const struct door *d = h->doors; d; d = d->next) {
        MHD_UNSIGNED_LONG_LONG one = 0;
        if (MHD_get_timeout(d->daemon, &one) != MHD_YES)
            continue;
        *ms = any && *ms < one ? *ms : one;
        any = true;
    }
    return any;
}

static void on_closed(uv_handle_t *handle)
{
    struct door *d = handle->data;
    struct http *h = d->http;
    mem_free(d);
    http_release_handle(h);
}

static void door_close(struct door *d)
{
    uv_poll_stop(&d->epoll);
    MHD_stop_daemon(d->daemon);
    uv_close((uv_handle_t *)&d->epoll, on_closed);
}

void doors_sweep(struct http *h)
{
    for (struct door **at = &h->doors->next; *at;) {
        struct door *d = *at;
        if (MHD_get_daemon_info(d->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections) {
            at = &d->next;
            continue;
        }
        *at = d->next;
        door_close(d);
    }
}

void doors_close(struct http *h)
{
    doors_run(h);
    while (h->doors) {
        struct door *d = h->doors;
        h->doors = d->next;
        door_close(d);
    }
}

enum status http_renew(struct http *h, const char *cert, const char *key, struct error *err)
{
    struct door *before = h->doors;
    int fd = fcntl(before->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return fail(err, STATUS_IO, "no descriptor for the listener");
    h->o.tls_cert = cert;
    h->o.tls_key = key;
    enum status s = door_open(h, fd, err);
    h->o.tls_cert = h->o.tls_key = NULL;
    if (s != STATUS_OK)
        return s;
    int was = MHD_quiesce_daemon(before->daemon);
    if (was >= 0)
        close(was);
    http_wake(h);
    return STATUS_OK;
}

bool http_is_secure(const struct http *h)
{
    return h->secure;
}
