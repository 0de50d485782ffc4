/* `lorikeet adapters watch`: changes as lines, until Ctrl-C. A server that goes away is waited for, and the
 * stream goes on behind the last revision that was seen. */
#include "cmd_adapters.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

#define PAUSE_MIN_MS 250
#define PAUSE_MAX_MS 10000

struct watch {
    const struct adapters_args *a;
    char last[24]; /* revision */
};

static void on_event(const struct client_event *e, void *data)
{
    struct watch *w = data;
    struct buf line;
    if (strspn(e->id, "0123456789") == strlen(e->id) && e->id[0])
        snprintf(w->last, sizeof w->last, "%s", e->id);
    buf_init(&line, 0);
    if (w->a->json)
        buf_puts(&line, e->data);
    else
        adapters_render_change(e, &line);
    puts(line.data);
    fflush(stdout);
    buf_fini(&line);
}

static void pause_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * NS_PER_MS};
    nanosleep(&t, NULL);
}

/* One connection, until it ends; what the server answered, or 0. */
static long follow(struct client *c, struct watch *w, struct client_reply *reply, struct error *err)
{
    char path[80], header[60];
    snprintf(path, sizeof path, "/admin/v1/events%s%s", w->last[0] ? "?since=" : "", w->last);
    snprintf(header, sizeof header, "Last-Event-ID: %s", w->last);
    struct client_call call = {.method = "GET",
                               .path = path,
                               .headers = {"Accept: text/event-stream", w->last[0] ? header : NULL},
                               .on_event = on_event,
                               .data = w};
    enum status s = client_events(c, &call, reply, err);
    return s == STATUS_OK || s == STATUS_UNAVAILABLE ? reply->http_status : 0;
}

int adapters_watch(struct client *c, const struct adapters_args *a)
{
    struct watch w = {.a = a};
    bool reached = false;
    int pause = PAUSE_MIN_MS;
    if (a->has_since)
        snprintf(w.last, sizeof w.last, "%llu", (unsigned long long)a->since);
    for (;;) {
        struct client_reply reply;
        struct error err = {0};
        long answer = follow(c, &w, &reply, &err);
        bool away = answer == 0 || answer == 200 || answer == 503; /* 503: it starts, or ends */
        int code = away ? EXIT_UNREACHED : adapters_refused(c, a, &reply);
        buf_fini(&reply.body);
        if (away && answer == 0 && !reached)
            fprintf(stderr, "lorikeet: %s\n", err.text);
        if (!away || (answer == 0 && !reached))
            return code;
        reached = true;
        if (answer == 200 && !a->quiet)
            fprintf(stderr, "lorikeet: the stream ended; connecting again\n");
        pause = answer == 200 ? PAUSE_MIN_MS : pause * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause * 2;
        pause_ms(pause);
    }
}
