/* Counters of what was served, by voice, and their Prometheus text. Owner: front thread. */
#ifndef LK_METRICS_H
#define LK_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define METRICS_BUCKETS 18
#define METRICS_STATUSES 8 /* HTTP status codes told apart, per voice */

/* Seconds in fixed buckets. */
struct histogram {
    uint64_t counts[METRICS_BUCKETS + 1]; /* the last one: above all bounds */
    double sum;
};
void histogram_add(struct histogram *h, double seconds);

/* One voice: an adapter's name, or "" for the base. Lives as long as the metrics. */
struct voice_metrics {
    struct voice_metrics *next;
    char name[65];
    struct {
        int status;
        uint64_t n;
    } requests[METRICS_STATUSES];
    uint64_t n_cancelled;
    uint64_t prompt_tokens, cached_tokens, generated_tokens;
    uint32_t n_waiting, n_running; /* generations */
    struct histogram ttft, inter_token, duration;
};

struct metrics;
struct server;

struct metrics *metrics_create(void);
void metrics_destroy(struct metrics *m);
/* The voice's counters, made at first use. Beyond a bound of names, and without memory: those of "other". */
struct voice_metrics *metrics_voice(struct metrics *m, const char *name);
void metrics_count_request(struct voice_metrics *v, int http_status);
void metrics_count_http(struct metrics *m, int http_status);
/* code NULL: it went well; else why not, one of docs/ADMIN.md's codes (a static string). */
void metrics_count_load(struct metrics *m, const char *code);
void metrics_count_effect_test(struct metrics *m);

void metrics_render(const struct server *s, struct buf *out);

#endif
