/* `lorikeet tenants …` and `lorikeet keys …`: the operators' API for tenants from a terminal. Exit codes as
 * those of `lorikeet adapters`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "adapters.h"
#include "base/file.h"
#include "client.h"
#include "cmd.h"
#include "cmd_adapters.h"
#include "tenant_spec.h"
#include "tenants.h"

#define QUICK_MS 60000U
#define TENANTS "/admin/v1/tenants"
#define KEYS "/admin/v1/keys"

struct line {
    const char *admin; /* --admin, or NULL */
    bool json;
    const char *from, *to, *file;
    char **words; /* [n] behind the verb */
    int n;
    struct client *client;
};

static int complain(const char *text)
{
    fprintf(stderr, "lorikeet: %s\n", text);
    return EXIT_USAGE;
}

/* ---- the server ---- */

/* One request; its whole text into `out`. An exit code. */
static int ask_text(struct line *l, const char *method, const char *path, const json_t *body, struct buf *out)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    const struct client_call call = {.method = method, .path = path, .body = text, .timeout_ms = QUICK_MS};
    const struct adapters_args how = {.json = l->json};
    struct client_reply reply;
    struct error err = {0};
    int code = EXIT_DONE;
    if (client_request(l->client, &call, &reply, &err) != STATUS_OK) {
        complain(err.text);
        code = EXIT_UNREACHED;
    } else if (reply.http_status / 100 != 2) {
        code = adapters_refused(l->client, &how, &reply);
    } else {
        buf_append(out, reply.body.data, reply.body.length);
    }
    buf_fini(&reply.body);
    free(text);
    return code;
}

/* The same, with an answer in JSON; NULL after a failure, which *code says. */
static json_t *ask(struct line *l, const char *method, const char *path, const json_t *body, int *code)
{
    struct buf out;
    buf_init(&out, 0);
    *code = ask_text(l, method, path, body, &out);
    json_t *answer = *code == EXIT_DONE ? json_loadb(out.data, out.length, 0, NULL) : NULL;
    if (*code == EXIT_DONE && !answer) {
        complain("the answer is no JSON");
        *code = EXIT_REFUSED;
    }
    buf_fini(&out);
    return answer;
}

/* ---- answers for people ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "-";
}

static void put_column(struct buf *out, const char *text, size_t width)
{
    size_t before = out->length;
    adapters_put_text(out, text);
    do
        buf_putc(out, ' ');
    while (out->length - before < width);
}

static void print_json(const json_t *v)
{
    json_dumpf(v, stdout, JSON_INDENT(2));
    putchar('\n');
}

static void print_tenants(const json_t *answer)
{
    struct buf out;
    size_t i;
    json_t *t;
    buf_init(&out, 0);
    buf_puts(&out, "NAME                 FROM     KEYS  RUNNING  SETTINGS\n");
    json_array_foreach(json_object_get(answer, "data"), i, t)
    {
        char *settings = json_dumps(json_object_get(t, "settings"), JSON_ENCODE_ANY | JSON_COMPACT);
        put_column(&out, text_of(t, "name"), 21);
        put_column(&out, text_of(t, "origin"), 9);
        buf_printf(&out, "%-5lld %-8lld ", (long long)json_integer_value(json_object_get(t, "active_keys")),
                   (long long)json_integer_value(json_object_get(json_object_get(t, "now"), "running")));
        adapters_put_text(&out, settings ? settings : "");
        buf_putc(&out, '\n');
        free(settings);
    }
    fputs(out.data, stdout);
    buf_fini(&out);
}

static void print_keys(const json_t *answer)
{
    struct buf out;
    size_t i;
    json_t *k;
    buf_init(&out, 0);
    buf_puts(&out, "ID            TENANT               NAME                 FROM     STATE\n");
    json_array_foreach(json_object_get(answer, "data"), i, k)
    {
        put_column(&out, text_of(k, "id"), 14);
        put_column(&out, text_of(k, "tenant"), 21);
        put_column(&out, text_of(k, "name"), 21);
        put_column(&out, text_of(k, "origin"), 9);
        buf_puts(&out, json_is_true(json_object_get(k, "active")) ? "active\n" : "revoked\n");
    }
    fputs(out.data, stdout);
    buf_fini(&out);
}

static void print_changes(const json_t *answer)
{
    static const char *const columns[] = {"at", "operation", "object", "outcome", "by"};
    static const size_t widths[] = {21, 16, 30, 20, 1};
    struct buf out;
    size_t i;
    json_t *line;
    buf_init(&out, 0);
    json_array_foreach(json_object_get(answer, "data"), i, line)
    {
        for (int c = 0; c < 5; c++)
            put_column(&out, text_of(line, columns[c]), widths[c]);
        buf_putc(&out, '\n');
    }
    fputs(out.length ? out.data : "", stdout);
    buf_fini(&out);
}

static void print_key(const json_t *k)
{
    struct buf out;
    buf_init(&out, 0);
    adapters_put_text(&out, text_of(k, "key"));
    printf("%s\n", out.data);
    buf_fini(&out);
    fprintf(stderr, "key %s; it is shown this once and kept nowhere: the server has its SHA-256 alone\n",
            json_string_value(json_object_get(k, "id")) ? text_of(k, "id") : "");
}

/* Asks and prints: as it came with --json, else by `print`. */
static int show(struct line *l, const char *method, const char *path, const json_t *body,
                void (*print)(const json_t *answer))
{
    int code;
    json_t *answer = ask(l, method, path, body, &code);
    if (answer && (l->json || !print))
        print_json(answer);
    else if (answer)
        print(answer);
    json_decref(answer);
    return code;
}

/* ---- tenants ---- */

/* "FIELD=VALUE" into the settings: JSON where it reads as such, texts with commas where a list is meant. */
static int set_field(json_t *settings, const char *word)
{
    static const char *const lists[] = {"voices", "own_voices", "locked", "endpoints"};
    const char *equals = strchr(word, '=');
    char key[64];
    if (!equals || equals == word || (size_t)(equals - word) >= sizeof key)
        return complain("expected FIELD=VALUE, as in requests_per_minute=60 or voices=pt,de");
    snprintf(key, sizeof key, "%.*s", (int)(equals - word), word);
    if (!equals[1]) { /* "context=": takes the field away */
        json_object_del(settings, key);
        return EXIT_DONE;
    }
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
    bool is_list = false;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        is_list |= strcmp(lists[i], key) == 0;
    if (!value && is_list) {
        value = json_array();
        for (const char *at = equals + 1; *at; at += strcspn(at, ","), at += *at == ',')
            json_array_append_new(value, json_stringn(at, strcspn(at, ",")));
    }
    json_object_set_new(settings, key, value ? value : json_string(equals + 1));
    return EXIT_DONE;
}

static json_t *read_settings(const char *path)
{
    struct buf text;
    struct error err = {0};
    buf_init(&text, 0);
    json_t *v = NULL;
    if (file_read_all(path, TENANT_SPEC_MAX, &text, &err) != STATUS_OK)
        complain(err.text);
    else if (!(v = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, NULL)))
        complain("the file is no JSON");
    buf_fini(&text);
    return v;
}

/* make: settings from nothing or --file; set: from what is there. Both put them as a whole. */
static int put_tenant(struct line *l, bool make)
{
    char path[200];
    int code = EXIT_DONE;
    json_t *settings = NULL, *old = NULL;
    snprintf(path, sizeof path, TENANTS "/%s", l->words[0]);
    if (make && l->file) {
        settings = read_settings(l->file);
        code = settings ? code : EXIT_USAGE;
    } else if (!make) {
        old = ask(l, "GET", path, NULL, &code);
        settings = json_deep_copy(json_object_get(old, "settings"));
        json_decref(old);
    }
    if (code == EXIT_DONE && !json_is_object(settings)) {
        json_decref(settings);
        settings = json_object();
    }
    for (int i = 1; i < l->n && code == EXIT_DONE; i++)
        code = set_field(settings, l->words[i]);
    if (code == EXIT_DONE)
        code = show(l, "PUT", path, settings, NULL);
    json_decref(settings);
    return code;
}

/* Only what can't change the meaning of a query. */
static bool is_plain(const char *text)
{
    return !text ||
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:") == strlen(text);
}

/* CSV, or with --json what the server says. */
static int show_rows(struct line *l, const char *of)
{
    char path[500];
    if (!is_plain(l->from) || !is_plain(l->to))
        return complain("--from and --to: expected a time as 2026-11-26 or 2026-11-26T12:00:00Z");
    const struct {
        const char *name, *value;
    } args[] = {{"tenant", l->n ? l->words[0] : NULL}, {"from", l->from}, {"to", l->to}};
    size_t n = (size_t)snprintf(path, sizeof path, "/admin/v1/%s?format=%s", of, l->json ? "json" : "csv");
    for (size_t i = 0; i < 3; i++)
        if (args[i].value)
            n += (size_t)snprintf(path + n, sizeof path - n, "&%s=%.100s", args[i].name, args[i].value);
    if (l->json)
        return show(l, "GET", path, NULL, NULL);
    struct buf out;
    buf_init(&out, 0);
    int code = ask_text(l, "GET", path, NULL, &out);
    if (code == EXIT_DONE)
        fputs(out.length ? out.data : "", stdout);
    buf_fini(&out);
    return code;
}

static int tenants_usage(struct line *l)
{
    return show_rows(l, "usage");
}

static int tenants_served(struct line *l)
{
    return show_rows(l, "served");
}

static int tenants_list(struct line *l)
{
    return show(l, "GET", TENANTS, NULL, print_tenants);
}

static int tenants_show(struct line *l)
{
    char path[200];
    snprintf(path, sizeof path, TENANTS "/%s", l->words[0]);
    return show(l, "GET", path, NULL, NULL);
}

static int tenants_make(struct line *l)
{
    return put_tenant(l, true);
}

static int tenants_set(struct line *l)
{
    return put_tenant(l, false);
}

static int tenants_remove(struct line *l)
{
    char path[200];
    snprintf(path, sizeof path, TENANTS "/%s", l->words[0]);
    return show(l, "DELETE", path, NULL, NULL);
}

static int tenants_audit(struct line *l)
{
    return show(l, "GET", "/admin/v1/audit", NULL, print_changes);
}

/* ---- keys ---- */

static int keys_list(struct line *l)
{
    char path[200];
    snprintf(path, sizeof path, l->n ? KEYS "?tenant=%s" : KEYS "%s", l->n ? l->words[0] : "");
    return show(l, "GET", path, NULL, print_keys);
}

static int keys_make(struct line *l)
{
    json_t *body = json_pack("{s:s,s:s}", "tenant", l->words[0], "name", l->n > 1 ? l->words[1] : "default");
    int code = show(l, "POST", KEYS, body, print_key);
    json_decref(body);
    return code;
}

static int keys_rotate(struct line *l)
{
    char path[200];
    snprintf(path, sizeof path, KEYS "/%s/rotate", l->words[0]);
    return show(l, "POST", path, NULL, print_key);
}

static int keys_revoke(struct line *l)
{
    char path[200];
    snprintf(path, sizeof path, KEYS "/%s", l->words[0]);
    return show(l, "DELETE", path, NULL, NULL);
}

/* For the tenants file; asks no server. */
static int keys_generate(struct line *l)
{
    char text[KEY_TEXT_LENGTH + 1], id[KEY_ID_LENGTH + 1];
    uint8_t digest[32];
    (void)l;
    if (!key_make(text, id)) {
        complain("the machine gives no random bytes");
        return EXIT_REFUSED;
    }
    key_digest(text, digest);
    printf("%s\n", text);
    fprintf(stderr,
            "for the tenants file:\n    keys:\n      - id: \"%s\"\n        name: %s\n        sha256: ", id,
            l->n ? l->words[0] : "default");
    for (size_t i = 0; i < sizeof digest; i++)
        fprintf(stderr, "%02x", digest[i]);
    fputc('\n', stderr);
    return EXIT_DONE;
}

/* ---- command lines ---- */

struct verb {
    const char *name;
    int min, max;
    const char *usage, *help;
    int (*run)(struct line *l);
    bool offline;
};

static const struct verb tenant_verbs[] = {
    {"list", 0, 0, "", "all tenants", tenants_list, false},
    {"show", 1, 1, "NAME", "one, with what it uses now", tenants_show, false},
    {"make", 1, 64, "NAME [FIELD=VALUE]... [--file JSON]", "makes one, or replaces all its settings",
     tenants_make, false},
    {"set", 2, 64, "NAME FIELD=VALUE...", "changes settings; FIELD= takes one away", tenants_set, false},
    {"remove", 1, 1, "NAME", "forgets it and its keys", tenants_remove, false},
    {"usage", 0, 1, "[NAME] [--from TIME] [--to TIME]", "what was used, by hour, as CSV", tenants_usage,
     false},
    {"served", 0, 1, "[NAME] [--from TIME] [--to TIME]", "which version served which request, as CSV",
     tenants_served, false},
    {"audit", 0, 0, "", "the last changes that operators have made", tenants_audit, false},
};

static const struct verb key_verbs[] = {
    {"list", 0, 1, "[TENANT]", "keys, without their texts", keys_list, false},
    {"make", 1, 2, "TENANT [NAME]", "a new key, printed once", keys_make, false},
    {"rotate", 1, 1, "ID", "a new key of the same name; the second last one is revoked", keys_rotate, false},
    {"revoke", 1, 1, "ID", "ends a key: the next request with it is refused", keys_revoke, false},
    {"generate", 0, 1, "[NAME]", "a key and its line for a tenants file; asks no server", keys_generate,
     true},
};

static void print_usage(const char *command, const struct verb *verbs, size_t n, FILE *to)
{
    fprintf(to, "usage: lorikeet %s COMMAND [--admin ADDRESS] [--json]\n\n", command);
    for (size_t i = 0; i < n; i++) {
        char left[80];
        snprintf(left, sizeof left, "%s %s", verbs[i].name, verbs[i].usage);
        fprintf(to, "  %-42s %s\n", left, verbs[i].help);
    }
    fprintf(to,
            "\n  fields: docs/TENANTS.md. Exit codes: 0 done, 1 the server refused, 2 usage, 3 it can't be "
            "reached\n");
}

/* Takes the options out of argv; words stay in front. False: one is unknown or lacks its value. */
static bool read_options(struct line *l, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **value;
    } options[] = {{"--admin", &l->admin}, {"--from", &l->from}, {"--to", &l->to}, {"--file", &l->file}};
    l->words = argv;
    for (int i = 0; i < argc; i++) {
        char *word = argv[i];
        bool found = strcmp(word, "--json") == 0;
        if (strncmp(word, "--", 2) != 0) {
            l->words[l->n++] = word;
            continue;
        }
        l->json |= found;
        for (size_t k = 0; k < 4 && !found; k++) {
            size_t n = strlen(options[k].name);
            if (strncmp(word, options[k].name, n) != 0 || (word[n] && word[n] != '='))
                continue;
            if (!word[n] && ++i == argc)
                return false;
            *options[k].value = word[n] ? word + n + 1 : argv[i];
            found = true;
        }
        if (!found)
            return false;
    }
    return true;
}

static int run_command(const char *command, const struct verb *verbs, size_t n_verbs, int argc, char **argv)
{
    struct line l = {0};
    const struct verb *verb = NULL;
    const char *word = argc > 1 ? argv[1] : "--help";
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_usage(command, verbs, n_verbs, argc > 1 ? stdout : stderr);
        return argc > 1 ? EXIT_DONE : EXIT_USAGE;
    }
    for (size_t i = 0; i < n_verbs; i++)
        if (strcmp(word, verbs[i].name) == 0)
            verb = &verbs[i];
    if (!verb || !read_options(&l, argc - 2, argv + 2) || l.n < verb->min || l.n > verb->max) {
        fprintf(stderr, "usage: lorikeet %s %s %s\n", command, verb ? verb->name : "COMMAND",
                verb ? verb->usage : "...; --help lists them");
        return EXIT_USAGE;
    }
    if (l.n && !adapter_name_is_valid(l.words[0]))
        return complain(
            "a name begins with a letter or digit and holds at most 64 letters, digits, '.', '_', '-'");
    int code = verb->offline ? EXIT_DONE : adapters_connect(l.admin, &l.client);
    if (code == EXIT_DONE)
        code = verb->run(&l);
    client_close(l.client);
    return code;
}

int cmd_tenants(int argc, char **argv)
{
    return run_command("tenants", tenant_verbs, sizeof tenant_verbs / sizeof tenant_verbs[0], argc, argv);
}

int cmd_keys(int argc, char **argv)
{
    return run_command("keys", key_verbs, sizeof key_verbs / sizeof key_verbs[0], argc, argv);
}
