/* The arguments of `lorikeet adapters`, and the requests that they mean. Pure, but for looking whether a
 * relative path exists. */
#include "cmd_adapters.h"

#include <ctype.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adapters.h"

#define NAMES_PATH "/admin/v1/adapters"

/* Options, as bits of a verb's row. */
enum option_bit {
    O_ADMIN = 1 << 0,
    O_JSON = 1 << 1,
    O_QUIET = 1 << 2,
    O_COMMON = O_ADMIN | O_JSON | O_QUIET,
    O_LOAD = 1 << 3, /* what a new version may be given */
    O_MATCH = 1 << 4,
    O_FORCE = 1 << 5,
    O_SINCE = 1 << 6,
};

static const struct verb_row {
    const char *name;
    int min, max; /* words behind the verb */
    unsigned options;
    const char *usage, *help;
} verbs[] = {
    [VERB_LIST] = {"list", 0, 0, O_COMMON, "", "all names, as a table"},
    [VERB_SHOW] = {"show", 1, 1, O_COMMON, "NAME", "everything about one, with its versions"},
    [VERB_LOAD] = {"load", 1, 2, O_COMMON | O_LOAD | O_MATCH, "NAME [SOURCE] [--blend EXPRESSION]",
                   "a new version from SOURCE; without one: into memory"},
    [VERB_UNLOAD] = {"unload", 1, 1, O_COMMON, "NAME", "out of memory; the name stays"},
    [VERB_RELOAD] = {"reload", 1, 1, O_COMMON | O_FORCE | O_MATCH, "NAME [--force]",
                     "reads its source again"},
    [VERB_REMOVE] = {"remove", 1, 1, O_COMMON | O_MATCH, "NAME", "forgets the name and its versions"},
    [VERB_PIN] = {"pin", 1, 1, O_COMMON | O_MATCH, "NAME", "never leaves memory for others"},
    [VERB_UNPIN] = {"unpin", 1, 1, O_COMMON | O_MATCH, "NAME", "may leave again"},
    [VERB_ROLLBACK] = {"rollback", 1, 1, O_COMMON | O_MATCH, "NAME", "back to the last good version"},
    [VERB_TRAFFIC] = {"traffic", 1, 5, O_COMMON | O_MATCH, "NAME [stable=90 canary=10]",
                      "shares of requests, by role or generation"},
    [VERB_PROMOTE] = {"promote", 1, 2, O_COMMON | O_MATCH, "NAME [GENERATION]",
                      "makes the canary or shadow stable"},
    [VERB_MERGE] = {"merge", 2, 2, O_COMMON | O_MATCH, "NAME never|auto|always", "merged copies of it"},
    [VERB_EFFECT] = {"effect", 1, 1, O_COMMON, "NAME", "what it does to the base, measured"},
    [VERB_SHADOW] = {"shadow", 1, 1, O_COMMON, "NAME", "how its shadow agrees with it"},
    [VERB_RESCAN] = {"rescan", 0, 0, O_COMMON, "", "looks at the adapters folder now"},
    [VERB_WATCH] = {"watch", 0, 0, O_COMMON | O_SINCE, "[--since REVISION]", "changes as they happen"},
};
#define N_VERBS ((int)(sizeof verbs / sizeof verbs[0]))

static const struct option long_options[] = {
    {"admin", required_argument, NULL, 'a'},    {"json", no_argument, NULL, 'j'},
    {"quiet", no_argument, NULL, 'q'},          {"help", no_argument, NULL, 'h'},
    {"scale", required_argument, NULL, 's'},    {"pin", no_argument, NULL, 'p'},
    {"merge", required_argument, NULL, 'm'},    {"effect", required_argument, NULL, 'e'},
    {"canary", required_argument, NULL, 'c'},   {"shadow", no_argument, NULL, 'w'},
    {"sha256", required_argument, NULL, 'd'},   {"blend", required_argument, NULL, 'b'},
    {"dry-run", no_argument, NULL, 'n'},        {"new", no_argument, NULL, 'N'},
    {"if-match", required_argument, NULL, 'i'}, {"force", no_argument, NULL, 'f'},
    {"since", required_argument, NULL, 'r'},    {0}};

static unsigned bit_of(int option)
{
    switch (option) {
    case 'a':
        return O_ADMIN;
    case 'j':
        return O_JSON;
    case 'q':
        return O_QUIET;
    case 'i':
        return O_MATCH;
    case 'f':
        return O_FORCE;
    case 'r':
        return O_SINCE;
    default:
        return O_LOAD;
    }
}

void adapters_usage(FILE *to)
{
    fprintf(to, "usage: lorikeet adapters COMMAND [--admin ADDRESS] [--json] [--quiet]\n\n");
    for (int i = 0; i < N_VERBS; i++) {
        char left[80];
        snprintf(left, sizeof left, "%s %s", verbs[i].name, verbs[i].usage);
        fprintf(to, "  %-40s %s\n", left, verbs[i].help);
    }
    fprintf(
        to,
        "\n"
        "  load with a SOURCE (a path or URL that the server may read):\n"
        "    --scale S   --pin   --merge never|auto|always   --effect off|warn|enforce\n"
        "    --canary PERCENT | --shadow   publish it beside the stable version\n"
        "    --sha256 HEX   refuse other bytes          --dry-run   everything but publishing\n"
        "    --new          refuse a name that exists   --blend pt+0.5*safety   instead of SOURCE\n"
        "  changes take --if-match REVISION: refused if somebody else was faster\n"
        "\n"
        "  --admin ADDRESS   unix:PATH or HOST:PORT of the admin listener; else $LORIKEET_ADMIN, else the\n"
        "                    only $XDG_RUNTIME_DIR/lorikeet-*.sock that answers\n"
        "  --json            prints what the server says; --quiet: nothing, or names alone\n"
        "  exit codes: 0 done, 1 the server refused, 2 usage, 3 it can't be reached\n");
}

/* ---- values */

static enum status whole_number(const char *option, const char *text, uint64_t max, uint64_t *out,
                                struct error *err)
{
    char *end = NULL;
    unsigned long long v = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
    if (!end || *end || v > max)
        return fail(err, STATUS_INVALID, "%s: found \"%.60s\", expected a whole number up to %llu", option,
                    text, (unsigned long long)max);
    *out = v;
    return STATUS_OK;
}

static enum status one_of(const char *option, const char *text, const char *words, struct error *err)
{
    size_t n = strlen(text);
    for (const char *w = words; w; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL)
        if (n > 0 && strcspn(w, "|") == n && strncmp(w, text, n) == 0)
            return STATUS_OK;
    return fail(err, STATUS_INVALID, "%s: found \"%.60s\", expected %s", option, text, words);
}

static enum status take_scale(struct adapters_args *a, const char *text, struct error *err)
{
    char *end;
    a->scale = strtod(text, &end);
    a->has_scale = true;
    if (end == text || *end || !isfinite(a->scale))
        return fail(err, STATUS_INVALID, "--scale: found \"%.60s\", expected a number", text);
    return STATUS_OK;
}

static enum status take_digest(struct adapters_args *a, char *text, struct error *err)
{
    for (char *c = text; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64)
        return fail(err, STATUS_INVALID, "--sha256: found \"%.70s\", expected 64 hex digits", text);
    a->sha256 = text;
    return STATUS_OK;
}

static enum status take_option(struct adapters_args *a, int option, char *value, struct error *err)
{
    uint64_t number = 0;
    enum status s = STATUS_OK;
    switch (option) {
    case 'a':
        a->admin = value;
        return STATUS_OK;
    case 'j':
        a->json = true;
        return STATUS_OK;
    case 'q':
        a->quiet = true;
        return STATUS_OK;
    case 's':
        return take_scale(a, value, err);
    case 'p':
        a->pin = true;
        return STATUS_OK;
    case 'm':
        a->merge = value;
        return one_of("--merge", value, "never|auto|always", err);
    case 'e':
        a->effect = value;
        return one_of("--effect", value, "off|warn|enforce", err);
    case 'c':
        s = whole_number("--canary", value, 100, &number, err);
        a->canary = (int)number;
        return s;
    case 'w':
        a->shadow = true;
        return STATUS_OK;
    case 'd':
        return take_digest(a, value, err);
    case 'b':
        a->blend = value;
        return STATUS_OK;
    case 'n':
        a->dry_run = true;
        return STATUS_OK;
    case 'N':
        a->is_new = true;
        return STATUS_OK;
    case 'i':
        a->has_revision = true;
        return whole_number("--if-match", value, INT64_MAX, &a->revision, err);
    case 'f':
        a->force = true;
        return STATUS_OK;
    default:
        a->has_since = true;
        return whole_number("--since", value, INT64_MAX, &a->since, err);
    }
}

/* ---- the command line */

static enum status take_words(struct adapters_args *a, int n, char **words, struct error *err)
{
    const struct verb_row *v = &verbs[a->verb];
    if (n < v->min || n > v->max)
        return fail(err, STATUS_INVALID, "usage: lorikeet adapters %s %s", v->name, v->usage);
    a->name = n > 0 ? words[0] : NULL;
    if (a->name && !adapter_name_is_valid(a->name))
        return fail(
            err, STATUS_INVALID,
            "name: \"%.80s\" must begin with a letter or digit and hold at most %d letters, digits, '.', "
            "'_' and '-'",
            a->name, ADAPTER_NAME_MAX);
    if (a->verb == VERB_LOAD && n == 2)
        a->source = words[1];
    if (a->verb == VERB_TRAFFIC) {
        a->shares = words + 1;
        a->n_shares = n - 1;
    }
    if (a->verb == VERB_MERGE) {
        a->mode = words[1];
        return one_of("merge", words[1], "never|auto|always", err);
    }
    if (a->verb == VERB_PROMOTE && n == 2)
        return whole_number("GENERATION", words[1], INT64_MAX, &a->generation, err);
    return STATUS_OK;
}

/* Options that contradict each other, or would be ignored. */
static enum status check_load(const struct adapters_args *a, struct error *err)
{
    bool has_new = a->has_scale || a->pin || a->merge || a->effect || a->canary >= 0 || a->shadow ||
                   a->sha256 || a->dry_run || a->is_new || a->has_revision;
    if (a->source && !a->source[0])
        return fail(err, STATUS_INVALID, "load: the source is empty");
    if (a->source && a->blend)
        return fail(err, STATUS_INVALID, "load: a blend has no files of its own: give SOURCE or --blend");
    if (a->blend && (a->canary >= 0 || a->shadow || a->sha256 || a->has_scale))
        return fail(err, STATUS_INVALID,
                    "load: --blend goes with none of --canary, --shadow, --sha256, --scale");
    if (!a->source && !a->blend && has_new)
        return fail(err, STATUS_INVALID,
                    "load: without a SOURCE the name's bytes come back as they were; other "
                    "options need one");
    if (a->canary >= 0 && a->shadow)
        return fail(err, STATUS_INVALID,
                    "load: --canary answers requests, --shadow only listens: choose one");
    if (a->is_new && a->has_revision)
        return fail(err, STATUS_INVALID, "load: --new and --if-match exclude each other");
    return STATUS_OK;
}

static enum status find_verb(const char *word, struct adapters_args *a, struct error *err)
{
    for (int i = 0; i < N_VERBS; i++)
        if (strcmp(word, verbs[i].name) == 0) {
            a->verb = (enum adapters_verb)i;
            return STATUS_OK;
        }
    return fail(err, STATUS_INVALID, "unknown command \"%.60s\"; `lorikeet adapters --help` lists them",
                word);
}

/* Every option that was given belongs to the command. */
static enum status check_options(const struct adapters_args *a, const bool *seen, struct error *err)
{
    const struct verb_row *v = &verbs[a->verb];
    for (const struct option *o = long_options; o->name; o++)
        if (seen[o->val] && !(v->options & bit_of(o->val)))
            return fail(err, STATUS_INVALID, "%s takes no --%s", v->name, o->name);
    return STATUS_OK;
}

static enum status read_options(int argc, char **argv, struct adapters_args *a, bool *seen, struct error *err)
{
    enum status s = STATUS_OK;
    int o;
    optind = 0; /* glibc: from the start, also when an earlier line was read */
    opterr = 0;
    while (s == STATUS_OK && (o = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        if (o == ':')
            return fail(err, STATUS_INVALID, "%s needs a value", argv[optind - 1]);
        if (o == '?')
            return fail(err, STATUS_INVALID, "%s: no such option; `lorikeet adapters --help` lists them",
                        argv[optind - 1]);
        if (o == 'h') {
            a->help = true;
            return STATUS_OK;
        }
        seen[o] = true;
        s = take_option(a, o, optarg, err);
    }
    return s;
}

enum status adapters_parse(int argc, char **argv, struct adapters_args *out, struct error *err)
{
    bool seen[128] = {false};
    *out = (struct adapters_args){.canary = -1};
    enum status s = read_options(argc, argv, out, seen, err);
    if (s != STATUS_OK || out->help)
        return s;
    if (optind == argc)
        return fail(err, STATUS_INVALID, "a command is missing; `lorikeet adapters --help` lists them");
    out->help = strcmp(argv[optind], "help") == 0;
    if (out->help)
        return STATUS_OK;
    s = find_verb(argv[optind], out, err);
    if (s == STATUS_OK)
        s = check_options(out, seen, err);
    if (s == STATUS_OK)
        s = take_words(out, argc - optind - 1, argv + optind + 1, err);
    return s == STATUS_OK && out->verb == VERB_LOAD ? check_load(out, err) : s;
}

/* ---- requests */

static void add_request(struct adapters_plan *p, const struct adapters_args *a, const char *method,
                        const char *tail, json_t *body)
{
    struct adapters_request *r = &p->requests[p->n++];
    *r = (struct adapters_request){.method = method, .body = body};
    if (a->name) /* checked: it needs no escapes */
        snprintf(r->path, sizeof r->path, NAMES_PATH "/%s%s", a->name, tail);
    else
        snprintf(r->path, sizeof r->path, "%s", tail);
    if (a->is_new)
        snprintf(r->condition, sizeof r->condition, "If-None-Match: *");
    else if (a->has_revision)
        snprintf(r->condition, sizeof r->condition, "If-Match: \"%llu\"", (unsigned long long)a->revision);
}

/* "stable=90" into body. */
static enum status put_share(json_t *body, const char *text, struct error *err)
{
    const char *equals = strchr(text, '=');
    uint64_t percent = 0;
    char key[24];
    size_t n = equals ? (size_t)(equals - text) : 0;
    if (n == 0 || n >= sizeof key)
        return fail(err, STATUS_INVALID, "traffic: found \"%.60s\", expected stable=90, canary=10 or 7=90",
                    text);
    snprintf(key, sizeof key, "%.*s", (int)n, text);
    bool named = strcmp(key, "stable") == 0 || strcmp(key, "canary") == 0;
    if (!named && strspn(key, "0123456789") != n)
        return fail(err, STATUS_INVALID, "traffic: \"%s\": expected stable, canary or a generation", key);
    if (json_object_get(body, key))
        return fail(err, STATUS_INVALID, "traffic: \"%s\" is given twice", key);
    enum status s = whole_number("traffic", equals + 1, 100, &percent, err);
    json_object_set_new(body, key, json_integer((json_int_t)percent));
    return s;
}

static enum status plan_traffic(const struct adapters_args *a, struct adapters_plan *p, struct error *err)
{
    json_t *body = a->n_shares ? json_object() : NULL;
    json_int_t sum = 0;
    enum status s = STATUS_OK;
    add_request(p, a, body ? "PUT" : "GET", "/traffic", body);
    if (!body)
        return STATUS_OK;
    for (int i = 0; i < a->n_shares && s == STATUS_OK; i++)
        s = put_share(body, a->shares[i], err);
    const char *key;
    json_t *value;
    json_object_foreach(body, key, value)
    {
        (void)key;
        sum += json_integer_value(value);
    }
    if (s == STATUS_OK && sum != 100)
        s = fail(err, STATUS_INVALID, "traffic: the shares sum to %lld, expected 100", (long long)sum);
    return s;
}

/* The path as the server should read it. */
static json_t *source_for(const char *source, bool local)
{
    char folder[4096];
    bool url = strstr(source, "://") != NULL;
    if (!local || url || source[0] == '/' || access(source, F_OK) != 0 || !getcwd(folder, sizeof folder))
        return json_string(source);
    while (strncmp(source, "./", 2) == 0)
        source += 2;
    return json_sprintf("%s/%s", folder, source);
}

static enum status plan_load(const struct adapters_args *a, bool local, struct adapters_plan *p,
                             struct error *err)
{
    json_t *body = json_object();
    if (!a->source && !a->blend) {
        add_request(p, a, "POST", "/load", body);
        return STATUS_OK;
    }
    add_request(p, a, "PUT", a->dry_run ? "?dry_run=1" : "", body);
    if (a->blend)
        json_object_set_new(body, "blend", json_string(a->blend));
    else
        json_object_set_new(body, "source", source_for(a->source, local));
    if (a->has_scale)
        json_object_set_new(body, "scale", json_real(a->scale));
    if (a->pin)
        json_object_set_new(body, "pinned", json_true());
    if (a->merge)
        json_object_set_new(body, "merge", json_string(a->merge));
    if (a->effect)
        json_object_set_new(body, "effect_test", json_string(a->effect));
    if (a->sha256)
        json_object_set_new(body, "sha256", json_string(a->sha256));
    if (a->canary >= 0 || a->shadow)
        json_object_set_new(body, "publish", json_string(a->shadow ? "shadow" : "canary"));
    if (json_object_size(body) == 0 || (a->source && !json_object_get(body, "source")))
        return fail(err, STATUS_INVALID, "load: the source or blend is no UTF-8 text");
    if (a->canary < 0 || a->dry_run)
        return STATUS_OK;
    struct adapters_args then = *a; /* the load's condition was about the state before it */
    then.has_revision = then.is_new = false;
    add_request(p, &then, "PUT", "/traffic",
                json_pack("{s:i,s:i}", "stable", 100 - a->canary, "canary", a->canary));
    return STATUS_OK;
}

/* The body of a request of one of the simple verbs; NULL: none. */
static json_t *simple_body(const struct adapters_args *a)
{
    switch (a->verb) {
    case VERB_RELOAD:
        return a->force ? json_pack("{s:b}", "force", 1) : json_object();
    case VERB_PIN:
    case VERB_UNPIN:
        return json_pack("{s:b}", "pinned", a->verb == VERB_PIN);
    case VERB_PROMOTE:
        return a->generation ? json_pack("{s:I}", "generation", (json_int_t)a->generation) : json_object();
    case VERB_MERGE:
        return json_pack("{s:s}", "merge", a->mode);
    default:
        return json_object();
    }
}

enum status adapters_plan(const struct adapters_args *a, bool local, struct adapters_plan *out,
                          struct error *err)
{
    static const struct {
        const char *method, *tail;
    } simple[] = {[VERB_LIST] = {"GET", NAMES_PATH},
                  [VERB_SHOW] = {"GET", ""},
                  [VERB_UNLOAD] = {"POST", "/unload"},
                  [VERB_RELOAD] = {"POST", "/reload"},
                  [VERB_REMOVE] = {"DELETE", ""},
                  [VERB_PIN] = {"PUT", "/pin"},
                  [VERB_UNPIN] = {"PUT", "/pin"},
                  [VERB_ROLLBACK] = {"POST", "/rollback"},
                  [VERB_PROMOTE] = {"POST", "/promote"},
                  [VERB_MERGE] = {"PUT", "/merge"},
                  [VERB_EFFECT] = {"GET", "/effect"},
                  [VERB_SHADOW] = {"GET", "/shadow"},
                  [VERB_RESCAN] = {"POST", "/admin/v1/rescan"},
                  [VERB_WATCH] = {NULL, NULL}};
    *out = (struct adapters_plan){0};
    if (a->verb == VERB_LOAD)
        return plan_load(a, local, out, err);
    if (a->verb == VERB_TRAFFIC)
        return plan_traffic(a, out, err);
    if (a->verb == VERB_WATCH) /* a stream: adapters_watch asks for it */
        return STATUS_OK;
    const char *method = simple[a->verb].method;
    bool has_body = method[0] == 'P';
    add_request(out, a, method, simple[a->verb].tail, has_body ? simple_body(a) : NULL);
    if (a->verb == VERB_SHOW && !a->json && !a->quiet)
        add_request(out, a, "GET", "/versions", NULL);
    return STATUS_OK;
}

void adapters_plan_fini(struct adapters_plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        json_decref(p->requests[i].body);
    p->n = 0;
}
