/* Inner wall of the HTTP files: a connection, an exchange (a request with its connection's side), the
 * listener. Owner: front thread. Nobody but http*.c includes this. */
#ifndef LK_HTTP_EXCHANGE_H
#define LK_HTTP_EXCHANGE_H

#include "http.h"
#include "http_policy.h"

struct MHD_Connection;
struct MHD_Daemon;

struct header {
    struct header *next;
    const char *name, *value;
};

enum phase { PHASE_BODY, PHASE_HANDLING, PHASE_REPLYING };

/* A request with its connection's side. Lives in its own arena. */
struct exchange {
    struct request r; /* first: a request's address is its exchange's */
    struct http *http;
    struct conn *conn; /* NULL once the connection has let go */
    uint32_t refs;
    enum phase phase;
    struct policy policy; /* what the headers said */
    struct buf body;
    size_t n_dropped;
    int64_t deadline_ns; /* of the body */

    bool begun, ended; /* the handler's answer */
    bool streaming, suspended, aborted;
    const char *type;
    struct header *headers;
    struct buf out; /* bytes not yet given to the library: [out_begin, out.length) */
    size_t out_begin;
    int64_t progress_ns; /* the library last took something, or had nothing to take */
};

struct conn {
    struct conn *prev, *next;
    struct http *http;
    struct MHD_Connection *mhd;
    int fd;
    struct address peer; /* of the connection, which may be a proxy's */
    char peer_text[PEER_TEXT_MAX];
    uv_poll_t hangup;
    bool has_poll, watching, cut;
    struct exchange *current;
    int64_t idle_ns;     /* since when */
    uint64_t idle_bytes; /* received by then */
    int64_t headers_ns;  /* the next request's first bytes were seen; 0: not yet */
};

/* A daemon of the library on our loop. */
struct door {
    struct door *next;
    struct http *http;
    struct MHD_Daemon *daemon;
    uv_poll_t epoll;
    int fd; /* the listening socket */
};

struct http {
    struct http_options o;
    uv_loop_t *loop;
    struct door *doors; /* the first accepts; one behind it had older certificates, and ends with its last
                           connection */
    uv_idle_t soon;
    uv_timer_t timer, sweep;
    int n_handles;
    bool secure;
    struct conn *conns;
    size_t n_conns;
    uint64_t id_base, n_requests;
    bool closing;
};

/* http_doors.c */
/* Takes fd, in any case. */
LK_MUST_USE enum status door_open(struct http *h, int fd, struct error *err);
void doors_run(struct http *h);                         /* the library's turn in all of them */
bool doors_timeout(const struct http *h, uint64_t *ms); /* until the next one is due; false: none is */
void doors_sweep(struct http *h);                       /* closes those that nobody uses any more */
void doors_close(struct http *h);
void http_release_handle(struct http *h); /* a handle of the loop is closed; with the last one h goes */

/* http.c */
struct MHD_Daemon *http_start_daemon(struct http *h, int fd); /* NULL: it doesn't start */
void http_run(struct http *h);
void http_wake(struct http *h);           /* a turn for the library as soon as the current callback is over */
void exchange_resume(struct exchange *x); /* does nothing unless it is suspended */
void exchange_suspend(struct exchange *x); /* only inside the library's callbacks */
void exchange_gone(struct exchange *x);    /* nobody reads any more: tells the handler, once */

/* http_answer.c: hands the begun answer to the library; only inside its request callback. */
bool answer_queue(struct exchange *x);

#endif
