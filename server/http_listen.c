/* Listening sockets from addresses as people write them. Knows sockets, not HTTP. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "http.h"

#define BACKLOG 1024

static enum status fail_socket(struct error *err, const char *address, const char *what)
{
    enum status s = errno == EADDRINUSE ? STATUS_EXISTS : STATUS_IO;
    return fail(err, s, "listen \"%s\": %s: %s", address, what, strerror(errno));
}

/* True if a server answers at this socket file; a file without one is left over from a crash. */
static bool somebody_listens(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true;
    bool alive = connect(fd, (const struct sockaddr *)a, sizeof *a) == 0 || errno != ECONNREFUSED;
    close(fd);
    return alive;
}

static enum status remove_stale(const struct sockaddr_un *a, const char *address, struct error *err)
{
    struct stat st;
    if (lstat(a->sun_path, &st) != 0)
        return STATUS_OK;
    if (!S_ISSOCK(st.st_mode))
        return fail(err, STATUS_EXISTS, "listen \"%s\": the file is there and is no socket", address);
    if (somebody_listens(a))
        return fail(err, STATUS_EXISTS, "listen \"%s\": another server listens there", address);
    return unlink(a->sun_path) == 0 ? STATUS_OK : fail_socket(err, address, "can't remove the stale socket");
}

static enum status listen_unix(const char *address, const char *path, int *out, struct error *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof a.sun_path)
        return fail(err, STATUS_INVALID, "listen \"%s\": a socket path has 1 to %zu bytes", address,
                    sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, n);
    enum status s = remove_stale(&a, address, err);
    if (s != STATUS_OK)
        return s;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail_socket(err, address, "no socket");
    /* The mode is set before anybody can connect: a socket that doesn't listen refuses. */
    if (bind(fd, (const struct sockaddr *)&a, sizeof a) != 0)
        s = fail_socket(err, address, "can't bind");
    else if (chmod(path, 0600) != 0 || listen(fd, BACKLOG) != 0)
        s = fail_socket(err, address, "can't listen");
    if (s != STATUS_OK)
        close(fd);
    else
        *out = fd;
    return s;
}

static enum status listen_tcp(const struct addrinfo *ai, const char *address, int *out, struct error *err)
{
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
    if (fd < 0)
        return fail_socket(err, address, "no socket");
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (ai->ai_family == AF_INET6) {
        /* "[::]" alone also takes IPv4, so ":PORT" means all addresses. */
        int v6only =
            !IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)(const void *)ai->ai_addr)->sin6_addr);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
    }
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        enum status s = fail_socket(err, address, "can't bind");
        close(fd);
        return s;
    }
    *out = fd;
    return STATUS_OK;
}

/* "HOST:PORT" → host without brackets, port. */
static bool split_address(const char *address, char *host, size_t host_bytes, char port[8])
{
    const char *colon = strrchr(address, ':');
    if (!colon || strlen(colon + 1) == 0 || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    size_t n = (size_t)(colon - address);
    bool bracketed = n >= 2 && address[0] == '[' && address[n - 1] == ']';
    if (!bracketed && memchr(address, ':', n))
        return false;
    const char *begin = bracketed ? address + 1 : address;
    n -= bracketed ? 2 : 0;
    if (n >= host_bytes)
        return false;
    memcpy(host, begin, n);
    host[n] = '\0';
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return true;
}

static void show_address(int fd, char *shown, size_t shown_bytes)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    char host[64], port[8];
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0 ||
        getnameinfo((struct sockaddr *)&a, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(shown, shown_bytes, "?");
    else
        snprintf(shown, shown_bytes, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static enum status listen_inet(const char *address, int *fd, struct error *err)
{
    char host[256], port[8];
    if (!split_address(address, host, sizeof host, port))
        return fail(err, STATUS_INVALID,
                    "listen \"%s\": expected HOST:PORT, [IPv6]:PORT, :PORT (all addresses) or unix:PATH",
                    address);
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
                    *list = NULL;
    int rc = getaddrinfo(host[0] ? host : "::", port, &hints, &list);
    if (rc != 0)
        return fail(err, STATUS_INVALID, "listen \"%s\": %s", address, gai_strerror(rc));
    enum status s = STATUS_IO;
    for (const struct addrinfo *ai = list; ai && s != STATUS_OK; ai = ai->ai_next)
        s = listen_tcp(ai, address, fd, err);
    freeaddrinfo(list);
    if (s != STATUS_OK && !host[0]) { /* a machine without IPv6 */
        hints.ai_family = AF_INET;
        if (getaddrinfo("0.0.0.0", port, &hints, &list) == 0) {
            s = listen_tcp(list, address, fd, err);
            freeaddrinfo(list);
        }
    }
    return s;
}

enum status http_listen(const char *address, int *fd, char *shown, size_t shown_bytes, struct error *err)
{
    *fd = -1;
    if (!strncmp(address, "unix:", 5)) {
        snprintf(shown, shown_bytes, "%s", address);
        return listen_unix(address, address + 5, fd, err);
    }
    enum status s = listen_inet(address, fd, err);
    if (s == STATUS_OK)
        show_address(*fd, shown, shown_bytes);
    return s;
}
