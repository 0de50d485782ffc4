/* Two questions to the kernel: has a connection that waits for its next request sent a part of it (the HTTP
 * library keeps that to itself), and who is it? */
#include "http_socket.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

uint64_t socket_received_bytes(int fd)
{
    struct tcp_info info;
    socklen_t n = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0)
        return 0;
    return info.tcpi_bytes_received;
}

void socket_peer(int fd, struct address *who, char *out, size_t n)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a;
    struct ucred peer = {0};
    socklen_t n_address = sizeof a, n_peer = sizeof peer;
    char text[ADDRESS_TEXT_MAX] = "";
    out[0] = '\0';
    *who = (struct address){0};
    memset(&a, 0, sizeof a);
    if (getpeername(fd, &a.any, &n_address) != 0)
        return;
    if (a.any.sa_family == AF_UNIX) {
        who->kind = ADDRESS_UNIX;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n_peer) == 0)
            snprintf(out, n, "uid %u, pid %d", peer.uid, peer.pid);
        return;
    }
    if (a.any.sa_family == AF_INET)
        inet_ntop(AF_INET, &a.v4.sin_addr, text, sizeof text);
    else if (a.any.sa_family == AF_INET6)
        inet_ntop(AF_INET6, &a.v6.sin6_addr, text, sizeof text);
    if (address_parse(text, strlen(text), who))
        address_show(who, text);
    snprintf(out, n, "%s", text);
}
