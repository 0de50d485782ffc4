/* The end of a completion: its answer, or a stream's last words; counts and a line in the log; the voice goes
 * back. An answer that takes long to write is a worker's, which comes back here. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "completion.h"
#include "metrics.h"
#include "server.h"
#include "sse.h"
#include "tenant_gate.h"

void completion_begin_stream(struct completion *c)
{
    struct buf b;
    sse_begin(c->r, c->dialect->stream_type);
    if (!c->dialect->start)
        return;
    buf_init(&b, 0);
    c->dialect->start(c, &b);
    (void)sse_send(c->r, &b); /* a reader who is gone is noticed by the next write, too */
    buf_fini(&b);
}

static const char *path_of(const struct completion *c)
{
    return c->n_unmerged_tokens == 0 ? "merged" : c->n_merged_tokens == 0 ? "unmerged" : "mixed";
}

static double mean_logprob(const struct choice *h)
{
    return h->n_generated ? h->logprob_sum / h->n_generated : 0;
}

static int better_first(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    double px = mean_logprob(x), py = mean_logprob(y);
    return px != py ? (px < py) - (px > py) : (x->index > y->index) - (x->index < y->index);
}

/* best_of: of each prompt's choices the ones with the best log-probability a token come first, and the others
 * aren't shown. No event comes any more, so they may move. */
static void rank_choices(struct completion *c)
{
    const struct gen_params *p = &c->params;
    if (p->n_made <= p->n)
        return;
    for (uint32_t i = 0; i < c->n_choices; i += p->n_made)
        qsort(&c->choices[i], p->n_made, sizeof *c->choices, better_first);
    for (uint32_t i = 0; i < c->n_choices; i++) {
        c->choices[i].index = i / p->n_made * p->n + i % p->n_made;
        c->choices[i].hidden = i % p->n_made >= p->n;
    }
}

static void answer(struct completion *c)
{
    struct buf b;
    buf_init(&b, 0);
    c->answered = true;
    if (!c->params.stream) {
        if (c->shows_path)
            reply_header(c->r, "X-Adapter-Path", path_of(c));
        rank_choices(c);
        for (uint32_t i = 0; i < c->n_choices; i++)
            b.failed |= reply_failed(&c->choices[i].reply);
        if (c->is_rendered)
            reply_json(c->r, 200, &c->rendered);
        else {
            c->dialect->render(c, &b);
            reply_json(c->r, 200, &b);
        }
    } else {
        c->dialect->end(c, &b);
        if (sse_send(c->r, &b))
            stream_end(c->r);
    }
    buf_fini(&b);
}

static void log_end(const struct completion *c, int64_t ns)
{
    uint64_t n_generated = 0;
    for (uint32_t i = 0; i < c->n_choices; i++)
        n_generated += c->choices[i].n_generated;
    const struct log *log = &c->server->log;
    LOG_EVENT(log, LOG_INFO, c->dialect->name, LOG_TEXT("request", c->r->id),
              LOG_NUMBER("status", c->r->status),
              LOG_TEXT("voice", c->voice.adapter ? c->voice.adapter : "base"),
              LOG_TEXT("generation", c->voice.generations ? c->voice.generations : "0"),
              LOG_TEXT("tenant", c->r->caller ? c->r->caller->tenant->name : "-"),
              LOG_TEXT("key", c->r->caller ? c->r->caller->key_id : "-"), LOG_TEXT("client", c->r->peer),
              LOG_TEXT("over", c->r->is_secure ? "https" : "http"),
              LOG_NUMBER("prompt_tokens", c->n_prompts ? c->prompts[0].ids.n_ids : 0),
              LOG_NUMBER("tokens", n_generated), LOG_NUMBER("ms", (double)ns / 1e6),
              LOG_TEXT("end", c->r->gone              ? "client left"
                              : c->fault.error.status ? c->fault.error.text
                                                      : "ok"));
}

static void render_long(void *data)
{
    struct completion *c = data;
    c->dialect->render(c, &c->rendered);
}

static void free_rendered(void *data)
{
    buf_fini(data);
}

static void finish_rendered(void *data)
{
    completion_finish(data);
}

/* Hands the answer to a worker, which comes back to finish; false: it is to be made here, or was. */
static bool renders_elsewhere(struct completion *c)
{
    if (!c->dialect->renders_long || c->is_rendered || c->answered || c->r->gone)
        return false;
    buf_init(&c->rendered, 0);
    c->is_rendered = arena_on_end(c->r->arena, free_rendered, &c->rendered) == 0 &&
                     server_work(c->server, render_long, finish_rendered, c);
    return c->is_rendered;
}

void completion_finish(struct completion *c)
{
    struct server *s = c->server;
    struct request *r = c->r;
    if (renders_elsewhere(c))
        return;
    if (!c->answered && !r->gone)
        answer(c);
    int64_t ns = clock_now_ns() - r->started_ns;
    metrics_count_request(c->metrics, r->gone                 ? 499
                                      : c->fault.error.status ? http_status_of(c->fault.error.status)
                                                              : r->status);
    c->metrics->n_cancelled += r->gone;
    histogram_add(&c->metrics->duration, (double)ns / 1e9);
    log_end(c, ns);
    completion_settle(c);
    completion_pool_end(c);
    voice_release(s, &c->voice, c->non_finite);
    r->on_gone = NULL;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->completions = c->next;
    if (c->next)
        c->next->prev = c->prev;
    request_release(r);
}
