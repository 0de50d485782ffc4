/* `lorikeet adapters …`: what its files share. Arguments become a plan of requests (pure), answers become
 * text for people (pure); only cmd_adapters.c and cmd_adapters_watch.c speak with a server. */
#ifndef LK_CMD_ADAPTERS_H
#define LK_CMD_ADAPTERS_H

#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"
#include "client.h"

enum adapters_verb {
    VERB_LIST,
    VERB_SHOW,
    VERB_LOAD,
    VERB_UNLOAD,
    VERB_RELOAD,
    VERB_REMOVE,
    VERB_PIN,
    VERB_UNPIN,
    VERB_ROLLBACK,
    VERB_TRAFFIC,
    VERB_PROMOTE,
    VERB_MERGE,
    VERB_EFFECT,
    VERB_SHADOW,
    VERB_RESCAN,
    VERB_WATCH,
};

enum { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_UNREACHED = 3 };

struct adapters_args {
    enum adapters_verb verb;
    bool help;
    const char *admin; /* NULL: from the environment, or found */
    bool json, quiet;
    const char *name, *source, *blend; /* NULL: not given */
    const char *mode;                  /* of `merge` */
    char *const *shares;               /* of `traffic`: [n_shares] "stable=90" */
    int n_shares;
    uint64_t generation; /* of `promote`; 0: the candidate */
    const char *merge, *effect, *sha256;
    double scale;
    bool has_scale, pin, shadow, is_new, dry_run, force;
    int canary; /* percent; -1: none */
    uint64_t revision;
    bool has_revision; /* --if-match */
    uint64_t since;
    bool has_since;
};

/* argv of `adapters`, [0] being that word; options and words in any order. Strings are borrowed from argv,
 * which is reordered. STATUS_INVALID says what is wrong. */
LK_MUST_USE enum status adapters_parse(int argc, char **argv, struct adapters_args *out, struct error *err);
void adapters_usage(FILE *to);

/* One request of the operators' API. */
struct adapters_request {
    const char *method;
    char path[300];
    json_t *body;       /* or NULL */
    char condition[64]; /* a header, or "" */
};
#define ADAPTERS_REQUESTS_MAX 2
struct adapters_plan {
    struct adapters_request requests[ADAPTERS_REQUESTS_MAX]; /* one after another, while they succeed */
    size_t n;
};
/* local: the server sees the same files, so a relative path that exists here is made absolute. */
LK_MUST_USE enum status adapters_plan(const struct adapters_args *a, bool local, struct adapters_plan *out,
                                      struct error *err);
void adapters_plan_fini(struct adapters_plan *p);

/* Answers for people, appended to `out`. `answer` is what the verb's (last) request gave; `more` is for show:
 * the versions, or NULL. */
void adapters_render(const struct adapters_args *a, json_t *answer, json_t *more, struct buf *out);
/* An event's data as one line without its end: "12 published pt 3 0a1b2c3d". */
void adapters_render_change(const struct client_event *e, struct buf *out);
/* A text of the server as a terminal may have it: control characters become '?'. */
void adapters_put_text(struct buf *out, const char *text);

/* adapters watch: until the server refuses, or Ctrl-C. An exit code. */
int adapters_watch(struct client *c, const struct adapters_args *a);
/* To the server: at `admin`, or (NULL) $LORIKEET_ADMIN, or the only one that runs here. An exit code; what
 * went wrong is said. */
int adapters_connect(const char *admin, struct client **out);
/* Says why the server refused (its message and code); what isn't its JSON is said to be no admin listener. */
int adapters_refused(const struct client *c, const struct adapters_args *a, const struct client_reply *reply);

#endif
