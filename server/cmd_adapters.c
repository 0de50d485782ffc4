/* `lorikeet adapters COMMAND`: the operators' API of a running server from a terminal. Exit codes: 0 done, 1
 * the server refused, 2 usage, 3 it can't be reached. Results go to standard output, all else to standard
 * error. */
#include "cmd_adapters.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd.h"

#define QUICK_MS 60000U /* for calls that read no files */

static int usage_error(const struct error *err)
{
    fprintf(stderr, "lorikeet: %s\n", err->text);
    return EXIT_USAGE;
}

int adapters_refused(const struct client *c, const struct adapters_args *a, const struct client_reply *reply)
{
    json_t *body = json_loadb(reply->body.data, reply->body.length, 0, NULL);
    const json_t *error = json_object_get(body, "error");
    const char *message = json_string_value(json_object_get(error, "message")),
               *code = json_string_value(json_object_get(error, "code"));
    struct buf text;
    buf_init(&text, 0);
    if (message) {
        adapters_put_text(&text, message);
        if (code) {
            buf_puts(&text, " (");
            adapters_put_text(&text, code);
            buf_putc(&text, ')');
        }
    } else {
        buf_printf(&text, "%s answers %ld without a reason: is it the admin listener of a Lorikeet?",
                   client_address(c), reply->http_status);
    }
    fprintf(stderr, "lorikeet: %s\n", text.data);
    if (a->json && body) {
        json_dumpf(body, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    buf_fini(&text);
    json_decref(body);
    return EXIT_REFUSED;
}

/* ---- progress of a load on a terminal: one line that is written over */

struct progress {
    bool shown;
    const char *name, *verb;
    char kind[40]; /* the name's last change */
    int64_t begun_ns;
};

static void on_progress_event(const struct client_event *e, void *data)
{
    struct progress *p = data;
    json_t *change = json_loads(e->data, 0, NULL);
    const char *name = json_string_value(json_object_get(change, "name"));
    if (name && strcmp(name, p->name) == 0) {
        struct buf safe;
        buf_init(&safe, 0);
        adapters_put_text(&safe, e->kind);
        snprintf(p->kind, sizeof p->kind, "%s", safe.data);
        buf_fini(&safe);
    }
    json_decref(change);
}

static void on_progress_tick(void *data)
{
    struct progress *p = data;
    int64_t ms = (clock_now_ns() - p->begun_ns) / NS_PER_MS;
    if (ms < 300) /* what is quick needs no progress */
        return;
    p->shown = true;
    fprintf(stderr, "\r\033[K%s: %s %lld.%lld s%s%s", p->name, p->verb, (long long)(ms / 1000),
            (long long)(ms % 1000 / 100), p->kind[0] ? ", " : "", p->kind);
}

/* ---- calls */

static bool reads_files(const struct adapters_args *a)
{
    return a->verb == VERB_LOAD || a->verb == VERB_RELOAD || a->verb == VERB_ROLLBACK ||
           a->verb == VERB_PROMOTE || a->verb == VERB_EFFECT;
}

/* One request; *answer is its JSON. An exit code. */
static int ask(struct client *c, const struct adapters_args *a, const struct adapters_request *r,
               json_t **answer)
{
    struct progress p = {.name = a->name, .verb = "working", .begun_ns = clock_now_ns()};
    bool show = reads_files(a) && !a->quiet && !a->json && isatty(STDERR_FILENO);
    char *body = r->body ? json_dumps(r->body, JSON_COMPACT) : NULL;
    struct client_call call = {.method = r->method,
                               .path = r->path,
                               .body = body,
                               .headers = {r->condition[0] ? r->condition : NULL},
                               .timeout_ms = reads_files(a) ? 0 : QUICK_MS,
                               .data = &p};
    if (show) {
        call.events_path = "/admin/v1/events";
        call.on_event = on_progress_event;
        call.tick = on_progress_tick;
    }
    struct client_reply reply;
    struct error err = {0};
    int code = EXIT_DONE;
    enum status s = client_request(c, &call, &reply, &err);
    if (p.shown)
        fputs("\r\033[K", stderr);
    *answer = NULL;
    if (s == STATUS_OK && reply.http_status / 100 == 2)
        *answer = json_loadb(reply.body.data, reply.body.length, 0, NULL);
    if (s != STATUS_OK) {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        code = EXIT_UNREACHED;
    } else if (!json_is_object(*answer)) {
        code = adapters_refused(c, a, &reply);
    }
    if (code != EXIT_DONE) {
        json_decref(*answer);
        *answer = NULL;
    }
    buf_fini(&reply.body);
    free(body);
    return code;
}

/* A canary's share belongs to the generation that was just loaded, whatever another operator did meanwhile.
 */
static void name_canary(struct adapters_request *r, const json_t *loaded)
{
    json_int_t generation = json_integer_value(json_object_get(loaded, "generation"));
    json_t *share = json_object_get(r->body, "canary");
    char key[24];
    if (!generation || !share)
        return;
    snprintf(key, sizeof key, "%lld", (long long)generation);
    json_object_set(r->body, key, share);
    json_object_del(r->body, "canary");
}

static int run_plan(struct client *c, const struct adapters_args *a, struct adapters_plan *p, json_t **answer,
                    json_t **more)
{
    int code = ask(c, a, &p->requests[0], answer);
    if (code != EXIT_DONE || p->n < 2)
        return code;
    if (a->verb == VERB_SHOW)
        return ask(c, a, &p->requests[1], more);
    json_t *adapter = NULL; /* a canary's: as it is with its share */
    name_canary(&p->requests[1], *answer);
    code = ask(c, a, &p->requests[1], &adapter);
    if (code == EXIT_DONE)
        json_object_set_new(*answer, "adapter", adapter);
    else
        fprintf(stderr, "lorikeet: it is loaded; only its share of the traffic was refused\n");
    return code;
}

static int run_verb(struct client *c, const struct adapters_args *a, struct adapters_plan *p)
{
    json_t *answer = NULL, *more = NULL;
    int code = run_plan(c, a, p, &answer, &more);
    if (code == EXIT_DONE && a->json) {
        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (code == EXIT_DONE) {
        struct buf text;
        buf_init(&text, 0);
        adapters_render(a, answer, more, &text);
        fputs(text.data, stdout);
        buf_fini(&text);
    }
    json_decref(answer);
    json_decref(more);
    return code;
}

int adapters_connect(const char *admin, struct client **out)
{
    const char *address = admin ? admin : getenv("LORIKEET_ADMIN");
    char found[300];
    struct error err = {0};
    if (!address || !address[0]) {
        enum status s = client_find(found, sizeof found, &err);
        address = found;
        if (s != STATUS_OK) {
            usage_error(&err);
            return s == STATUS_CONFLICT ? EXIT_USAGE : EXIT_UNREACHED;
        }
    }
    return client_open(address, out, &err) == STATUS_OK ? EXIT_DONE : usage_error(&err);
}

int cmd_adapters(int argc, char **argv)
{
    struct adapters_args a;
    struct adapters_plan plan = {0};
    struct client *c = NULL;
    struct error err = {0};
    if (adapters_parse(argc, argv, &a, &err) != STATUS_OK)
        return usage_error(&err);
    if (a.help) {
        adapters_usage(stdout);
        return EXIT_DONE;
    }
    int code = adapters_connect(a.admin, &c);
    if (code == EXIT_DONE && adapters_plan(&a, client_is_local(c), &plan, &err) != STATUS_OK)
        code = usage_error(&err);
    if (code == EXIT_DONE)
        code = a.verb == VERB_WATCH ? adapters_watch(c, &a) : run_verb(c, &a, &plan);
    adapters_plan_fini(&plan);
    client_close(c);
    return code;
}
