/* The HTTP front alone, with handlers made here, over real sockets: framing refusals, hang-ups, time limits,
 * slow readers, and the pairing of the library with our loop under load (200 streams that sleep most of the
 * time beside 200 busy connections). */
#include "../test.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "http.h"

#define N_STREAMS 200
#define N_BUSY 200

/* ---- the server: a loop in a thread of its own */

struct stage {
    uv_loop_t loop;
    struct http *http;
    uv_async_t stop;
    uv_timer_t tick;
    pthread_t thread;
    char address[80];
    int port;
    struct request *streams[N_STREAMS + 8]; /* of /stream */
    atomic_int n_gone, n_handled, n_live;   /* any thread: plain counters */
};

static void stream_gone(struct request *r)
{
    struct stage *s = (struct stage *)r->server;
    for (size_t i = 0; i < sizeof s->streams / sizeof s->streams[0]; i++)
        if (s->streams[i] == r)
            s->streams[i] = NULL;
    atomic_fetch_add(&s->n_gone, 1);
    atomic_fetch_sub(&s->n_live, 1);
    request_release(r);
}

static void begin_stream(struct stage *s, struct request *r, bool silent)
{
    request_hold(r);
    r->on_gone = stream_gone;
    atomic_fetch_add(&s->n_live, 1);
    for (size_t i = 0; !silent && i < sizeof s->streams / sizeof s->streams[0]; i++)
        if (!s->streams[i]) {
            s->streams[i] = r;
            stream_begin(r, 200, "text/plain");
            return;
        }
}

static void handle(struct request *r)
{
    struct stage *s = (struct stage *)r->server;
    atomic_fetch_add(&s->n_handled, 1);
    if (!strcmp(r->path, "/stream")) {
        begin_stream(s, r, false);
    } else if (!strcmp(r->path, "/never")) {
        begin_stream(s, r, true);
    } else if (!strcmp(r->path, "/big")) {
        size_t n = 8U << 20;
        char *p = mem_zalloc(n);
        reply_send(r, 200, "application/octet-stream", p, n);
        mem_free(p);
    } else if (!strcmp(r->path, "/flood")) {
        static const char block[16384];
        request_hold(r);
        stream_begin(r, 200, "text/plain");
        while (stream_write(r, block, sizeof block))
            ;
        request_release(r);
    } else {
        char text[64];
        int n = snprintf(text, sizeof text, "%s %zu", r->method, r->n_body);
        reply_send(r, 200, "text/plain", text, (size_t)n);
    }
}

static void on_tick(uv_timer_t *t)
{
    struct stage *s = t->data;
    for (size_t i = 0; i < sizeof s->streams / sizeof s->streams[0]; i++)
        if (s->streams[i])
            (void)stream_write(s->streams[i], "tick\n", 5);
}

static void on_stop(uv_async_t *a)
{
    struct stage *s = a->data;
    http_close(s->http);
    uv_close((uv_handle_t *)&s->stop, NULL);
    uv_close((uv_handle_t *)&s->tick, NULL);
}

static void *run_loop(void *arg)
{
    struct stage *s = arg;
    uv_run(&s->loop, UV_RUN_DEFAULT);
    return NULL;
}

static struct stage *stage_open(const char *address)
{
    struct stage *s = mem_zalloc(sizeof *s);
    struct http_options o = {.plane = PLANE_DATA,
                             .server = (struct server *)s,
                             .handle = handle,
                             .body_bytes_max = 1000,
                             .connections_max = 2000,
                             .header_timeout_ms = 700,
                             .body_timeout_ms = 700,
                             .idle_timeout_ms = 60000,
                             .write_timeout_ms = 1000,
                             .output_bytes_soft = 65536,
                             .output_bytes_hard = 1 << 20};
    struct error err;
    int fd;
    assert_int_equal(uv_loop_init(&s->loop), 0);
    assert_int_equal(http_listen(address, &fd, s->address, sizeof s->address, &err), STATUS_OK);
    const char *colon = strrchr(s->address, ':');
    s->port = atoi(colon + 1);
    assert_int_equal(http_open(&s->loop, fd, &o, &s->http, &err), STATUS_OK);
    uv_async_init(&s->loop, &s->stop, on_stop);
    uv_timer_init(&s->loop, &s->tick);
    s->stop.data = s->tick.data = s;
    uv_timer_start(&s->tick, on_tick, 20, 20);
    assert_int_equal(pthread_create(&s->thread, NULL, run_loop, s), 0);
    return s;
}

static void stage_close(struct stage *s)
{
    uv_async_send(&s->stop);
    pthread_join(s->thread, NULL);
    assert_int_equal(atomic_load(&s->n_live), 0); /* all were told */
    assert_int_equal(uv_loop_close(&s->loop), 0); /* no handle is left */
    mem_free(s);
}

/* ---- clients */

static int dial(const struct stage *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)s->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    struct timeval limit = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Everything until the server closes (or 10 s pass). */
static size_t read_all(int fd, char *dst, size_t dst_bytes)
{
    size_t n = 0;
    ssize_t got;
    while (n + 1 < dst_bytes && (got = recv(fd, dst + n, dst_bytes - 1 - n, 0)) > 0)
        n += (size_t)got;
    dst[n] = '\0';
    return n;
}

static void wait_for(atomic_int *v, int wanted)
{
    int64_t end = clock_now_ns() + 10 * NS_PER_S;
    while (atomic_load(v) < wanted && clock_now_ns() < end)
        usleep(5000);
    assert_true(atomic_load(v) >= wanted);
}

/* ---- tests */

static void framing(void **state)
{
    (void)state;
    static const struct {
        const char *request, *status;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200"},
        {"GET / HTTP/1.0\r\n\r\n", "200"},
        {"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200"},
        {"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", "200"},
        {"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: "
         "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
         "200"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
         "chunked\r\n\r\n0\r\n\r\n",
         "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
         "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc", "400"},
        {"GET / HTTP/1.1\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\nHost: x\r\nX-Adapter: a\r\nX-Adapter: b\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "415"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", "413"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n", "413"},
        {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", "505"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n", "400"},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n",
         "413"},
        {"NONSENSE\r\n\r\n", ""}, /* the library closes without a word */
    };
    struct stage *s = stage_open("127.0.0.1:0");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char answer[4096];
        int fd = dial(s);
        send_text(fd, cases[i].request);
        int64_t begin = clock_now_ns();
        read_all(fd, answer, sizeof answer);
        bool silent = !cases[i].status[0] && !answer[0];
        if (!silent && (strncmp(answer, "HTTP/1.", 7) != 0 || strncmp(answer + 9, cases[i].status, 3) != 0))
            fail_msg("case %zu: expected %s, got: %.200s", i, cases[i].status, answer);
        if (clock_now_ns() - begin > 5 * NS_PER_S) /* closed by the server, not by our patience */
            fail_msg("case %zu: the connection stayed open", i);
        close(fd);
    }
    stage_close(s);
}

static void long_body(void **state)
{
    (void)state;
    struct stage *s = stage_open("127.0.0.1:0");
    char body[4096], answer[1024];
    memset(body, 'a', sizeof body);
    /* announced, sent whole before listening */
    int fd = dial(s);
    send_text(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n");
    assert_int_equal(send(fd, body, sizeof body, MSG_NOSIGNAL), sizeof body);
    read_all(fd, answer, sizeof answer);
    assert_non_null(strstr(answer, " 413 "));
    close(fd);
    /* chunked, just above */
    fd = dial(s);
    send_text(fd, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n");
    assert_int_equal(send(fd, body, sizeof body, MSG_NOSIGNAL), sizeof body);
    send_text(fd, "\r\n0\r\n\r\n");
    read_all(fd, answer, sizeof answer);
    assert_non_null(strstr(answer, " 413 "));
    close(fd);
    /* chunked without end */
    fd = dial(s);
    send_text(fd, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 100; i++)
        if (send(fd, "1000\r\n", 6, MSG_NOSIGNAL) < 0 || send(fd, body, sizeof body, MSG_NOSIGNAL) < 0 ||
            send(fd, "\r\n", 2, MSG_NOSIGNAL) < 0)
            break;
        else
            usleep(1000);
    read_all(fd, answer, sizeof answer); /* 413 or a reset, and an end */
    close(fd);
    assert_int_equal(atomic_load(&s->n_handled), 0);
    stage_close(s);
}

static void pipelined(void **state)
{
    (void)state;
    struct stage *s = stage_open("127.0.0.1:0");
    char answer[4096];
    int fd = dial(s);
    send_text(fd, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
                  "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n22"
                  "GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    read_all(fd, answer, sizeof answer);
    char *a = strstr(answer, "POST 1"), *b = strstr(answer, "POST 2"), *c = strstr(answer, "GET 0");
    assert_true(a && b && c && a < b && b < c);
    close(fd);
    stage_close(s);
}

static void hang_up(void **state)
{
    (void)state;
    struct stage *s = stage_open("127.0.0.1:0");
    for (int round = 0; round < 3; round++) {
        int fd = dial(s);
        send_text(fd, round == 1 ? "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
                                 : "GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for(&s->n_handled, round + 1);
        if (round == 2) { /* a reset instead of an orderly end */
            struct linger l = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
        }
        close(fd);
        wait_for(&s->n_gone, round + 1);
    }
    /* in the middle of the body, and of the headers */
    int fd = dial(s);
    send_text(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    close(fd);
    fd = dial(s);
    send_text(fd, "POST / HT");
    close(fd);
    usleep(100000);
    assert_int_equal(atomic_load(&s->n_handled), 3);
    fd = dial(s);
    send_text(fd, "GET /never HTTP/1.1\r\nHost: x\r\n\r\n"); /* open while the server stops */
    wait_for(&s->n_handled, 4);
    stage_close(s);
    close(fd);
}

static void time_limits(void **state)
{
    (void)state;
    struct stage *s = stage_open("127.0.0.1:0");
    char answer[1024];
    /* a byte every 100 ms never finishes its headers, nor its body */
    static const char *const begins[] = {"GET / HTTP/1.1\r\nX: ",
                                         "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        int fd = dial(s);
        int64_t begin = clock_now_ns();
        send_text(fd, begins[i]);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        while (clock_now_ns() - begin < 6 * NS_PER_S && poll(&p, 1, 100) == 0)
            (void)!send(fd, "a", 1, MSG_NOSIGNAL);
        assert_true(clock_now_ns() - begin < 4 * NS_PER_S);
        read_all(fd, answer, sizeof answer);
        assert_non_null(strstr(answer, " 408 "));
        close(fd);
    }
    /* an idle connection stays, before its first request and between two */
    int fd = dial(s);
    usleep(1600000);
    for (int i = 0; i < 2; i++) {
        send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_true(recv(fd, answer, sizeof answer, 0) > 0);
        usleep(i == 0 ? 1600000 : 0);
    }
    close(fd);
    stage_close(s);
}

static void slow_reader(void **state)
{
    (void)state;
    struct stage *s = stage_open("127.0.0.1:0");
    int big = dial(s), flood = dial(s), other = dial(s);
    send_text(big, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    send_text(flood, "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n"); /* ends by the hard limit */
    wait_for(&s->n_handled, 2);
    char answer[1024];
    for (int i = 0; i < 30; i++) { /* others go on */
        send_text(other, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_true(recv(other, answer, sizeof answer, 0) > 0);
        usleep(100000);
    }
    /* both were cut: what the sockets held is there, the rest isn't */
    static char sink[1 << 16];
    size_t n = 0;
    ssize_t got;
    while ((got = recv(big, sink, sizeof sink, 0)) > 0)
        n += (size_t)got;
    assert_true(n < (8U << 20));
    while ((got = recv(flood, sink, sizeof sink, 0)) > 0)
        ;
    close(big);
    close(flood);
    close(other);
    stage_close(s);
}

static void unix_socket(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_http.XXXXXX", address[128];
    assert_non_null(mkdtemp(dir));
    snprintf(address, sizeof address, "unix:%s/s", dir);
    struct stage *s = stage_open(address);
    struct error err;
    int fd;
    char shown[100];
    assert_int_equal(http_listen(address, &fd, shown, sizeof shown, &err), STATUS_EXISTS);
    stage_close(s);
    s = stage_open(address); /* the stale file is replaced */
    stage_close(s);
    assert_int_equal(unlink(address + 5), 0);
    assert_int_equal(rmdir(dir), 0);
    static const char *const bad[] = {"",       "1.2.3.4", "1.2.3.4:",     "1.2.3.4:x",
                                      "::1:80", "unix:",   "1.2.3.4:99999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_not_equal(http_listen(bad[i], &fd, shown, sizeof shown, &err), STATUS_OK);
}

/* 200 streams asleep between their ticks beside 200 connections that ask without pause: nobody starves. */
static void beside(void **state)
{
    (void)state;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct stage *s = stage_open("127.0.0.1:0");
    static struct pollfd p[N_STREAMS + N_BUSY];
    static int64_t last[N_STREAMS + N_BUSY];
    static uint32_t count[N_STREAMS + N_BUSY];
    char data[8192];
    for (int i = 0; i < N_STREAMS + N_BUSY; i++) {
        p[i] = (struct pollfd){.fd = dial(s), .events = POLLIN};
        send_text(p[i].fd, i < N_STREAMS ? "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
                                         : "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        last[i] = clock_now_ns();
    }
    int64_t end = clock_now_ns() + 2 * NS_PER_S, worst = 0;
    while (clock_now_ns() < end) {
        poll(p, N_STREAMS + N_BUSY, 100);
        for (int i = 0; i < N_STREAMS + N_BUSY; i++) {
            if (!(p[i].revents & POLLIN))
                continue;
            assert_true(recv(p[i].fd, data, sizeof data, 0) > 0);
            int64_t now = clock_now_ns();
            worst = now - last[i] > worst ? now - last[i] : worst;
            last[i] = now;
            count[i]++;
            if (i >= N_STREAMS)
                send_text(p[i].fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        }
    }
    for (int i = 0; i < N_STREAMS + N_BUSY; i++) {
        assert_true(count[i] >= 5);
        assert_true(clock_now_ns() - last[i] < NS_PER_S);
        close(p[i].fd);
    }
    print_message("worst gap %.1f ms\n", (double)worst / 1e6);
    assert_true(worst < 2 * NS_PER_S);
    wait_for(&s->n_gone, N_STREAMS);
    stage_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(framing),     cmocka_unit_test(long_body),   cmocka_unit_test(pipelined),
        cmocka_unit_test(hang_up),     cmocka_unit_test(time_limits), cmocka_unit_test(slow_reader),
        cmocka_unit_test(unix_socket), cmocka_unit_test(beside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
