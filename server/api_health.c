/* Probes and numbers. /livez: the loop turns. /readyz: requests are taken now; 503 while loading and while
 * draining, so that a balancer sends them elsewhere. */
#include <string.h>

#include "api.h"
#include "api_render.h"
#include "server.h"
#include "tenant_metrics.h"
#include "tenants.h"

static void reply_status(struct request *r, int http_status, const char *status)
{
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, "status", status);
    jw_end(&w, '}');
    reply_json(r, http_status, &out);
    buf_fini(&out);
}

void api_livez(struct request *r)
{
    reply_status(r, 200, "ok");
}

void api_readyz(struct request *r)
{
    static const char *const names[] = {"loading", "ok", "draining", "stopping"};
    bool ready = r->server->state == SERVER_READY;
    if (!ready) {
        reply_header(r, "Retry-After", "1");
        reply_header(r, "X-Reason", names[r->server->state]);
    }
    reply_status(r, ready ? 200 : 503, names[r->server->state]);
}

/* As llama-server has it. */
void api_health(struct request *r)
{
    if (r->server->state == SERVER_READY)
        reply_status(r, 200, "ok");
    else if (r->server->state == SERVER_LOADING)
        reply_error(r, 503, "Loading model", NULL, "loading");
    else
        reply_error(r, 503, "draining", NULL, "draining");
}

void api_version(struct request *r)
{
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, "name", "lorikeet");
    jw_key_text(&w, "version", LORIKEET_VERSION);
    jw_key_text(&w, "isa", r->server->base.kernels ? r->server->base.kernels->isa : NULL);
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_metrics(struct request *r)
{
    bool is_public = r->server->conf->metrics_public && !tenants_closed(r->server->tenants);
    if (r->plane == PLANE_DATA && !is_public) { /* they name everybody's voices */
        reply_error(
            r, 404,
            "metrics are on the admin listener; --metrics-public shows them here where no keys are needed",
            NULL, "not_found");
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    metrics_render(r->server, &out);
    if (r->plane == PLANE_ADMIN)
        tenant_metrics_render(r->server, &out);
    if (out.failed)
        reply_error(r, 503, "no memory for the metrics", NULL, NULL);
    else
        reply_take(r, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
    buf_fini(&out);
}
