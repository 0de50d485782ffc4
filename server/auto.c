/* Who speaks for "auto". Nothing is kept between requests: a conversation stays with its language because all
 * its turns are in the request, and a turn that says too little goes by those before it. */
#include "auto.h"

#include <stdlib.h>
#include <string.h>

#include "body_defaults.h"
#include "completion.h"
#include "language.h"
#include "server.h"
#include "tenant_gate.h"
#include "voice_expr.h"
#include "voice_tenant.h"

#define CONFIDENT 0.5F /* a turn decides alone; below, the turns before it have their say */
#define LIKELY 0.2F    /* enough where nothing else is known */

/* ---- rules */

static enum status parse_when(char *when, struct auto_rule *out, struct error *err)
{
    char *end, *colon;
    if (strcmp(when, "default") == 0) {
        out->kind = AUTO_DEFAULT;
    } else if (strncmp(when, "percent:", 8) == 0) {
        unsigned long n = strtoul(when + 8, &end, 10);
        if (end == when + 8 || *end || n > 100)
            return fail(err, STATUS_INVALID, "found \"%s\", expected percent:0 to percent:100", when);
        out->kind = AUTO_PERCENT;
        out->percent = (unsigned)n;
    } else if (strncmp(when, "user:", 5) == 0 && when[5]) {
        out->kind = AUTO_USER;
        out->name = when + 5;
    } else if (strncmp(when, "header:", 7) == 0 && (colon = strchr(when + 7, ':')) && colon > when + 7) {
        *colon = '\0';
        out->kind = AUTO_HEADER;
        out->name = when + 7;
        out->value = colon + 1;
    } else {
        size_t n = strlen(when);
        if (n < 2 || n >= LANGUAGE_CODE_MAX || strspn(when, "abcdefghijklmnopqrstuvwxyz") != n)
            return fail(err, STATUS_INVALID,
                        "found \"%s\", expected a language's code (pt), header:NAME:VALUE, user:NAME, "
                        "percent:N or default",
                        when);
        out->kind = AUTO_LANGUAGE;
        out->name = when;
    }
    return STATUS_OK;
}

enum status auto_rule_parse(const char *text, struct arena *arena, struct auto_rule *out, struct error *err)
{
    const char *equals = strrchr(text, '=');
    *out = (struct auto_rule){.kind = AUTO_DEFAULT};
    if (!equals || equals == text || !equals[1])
        return fail(err, STATUS_INVALID, "found \"%s\", expected WHEN=VOICE, as in pt=pt or default=none",
                    text);
    char *when = arena_strndup(arena, text, (size_t)(equals - text));
    out->voice = strcmp(equals + 1, "none") == 0 ? "base" : arena_strdup(arena, equals + 1);
    if (!when || !out->voice)
        return fail(err, STATUS_NO_MEMORY, "no memory for the configuration");
    return parse_when(when, out, err);
}

enum status auto_start(const struct server *s, struct languages **out, struct error *err)
{
    const struct conf *c = s->conf;
    const char *codes[AUTO_RULES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < c->n_auto_rules; i++)
        if (c->auto_rules[i].kind == AUTO_LANGUAGE)
            codes[n++] = c->auto_rules[i].name;
    return n ? languages_open(codes, n, out, err) : STATUS_OK;
}

/* ---- what the user said */

/* Appends the text of a message's content. */
static void add_content(struct buf *b, const json_t *content)
{
    if (json_is_string(content))
        buf_printf(b, "%s\n", json_string_value(content));
    for (size_t i = 0; json_is_array(content) && i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *text = json_object_get(part, "text");
        if (json_is_string(text))
            buf_printf(b, "%s\n", json_string_value(text));
    }
}

/* The last turn of the user to `last`, those before it to `before`, oldest first; no more of them than is
 * looked at. */
static void collect(const struct completion *c, struct buf *last, struct buf *before)
{
    const json_t *messages = json_object_get(c->body, "messages"),
                 *prompt = json_object_get(c->body, "prompt");
    size_t n = json_array_size(messages), at = n, begin, n_bytes = 0;
    if (json_is_string(prompt))
        buf_puts(last, json_string_value(prompt));
    while (at > 0 && !message_has_role(json_array_get(messages, at - 1), "user"))
        at--;
    if (at == 0)
        return;
    add_content(last, json_object_get(json_array_get(messages, at - 1), "content"));
    for (begin = at - 1; begin > 0 && n_bytes < LANGUAGE_TEXT_MAX; begin--) {
        const json_t *m = json_array_get(messages, begin - 1), *content = json_object_get(m, "content");
        if (message_has_role(m, "user"))
            n_bytes += json_is_string(content) ? json_string_length(content) : LANGUAGE_TEXT_MAX / 4;
    }
    for (; begin < at - 1; begin++)
        if (message_has_role(json_array_get(messages, begin), "user"))
            add_content(before, json_object_get(json_array_get(messages, begin), "content"));
}

static struct language_guess of_text(struct languages *l, const struct buf *b)
{
    return language_of(l, b->data ? b->data : "", b->length);
}

/* Of the last turn, if it says enough; else of those before it. */
static struct language_guess language_spoken(const struct completion *c)
{
    struct languages *l = c->server->languages;
    struct language_guess none = {{0}, 0};
    struct buf last, before;
    buf_init(&last, 0);
    buf_init(&before, 0);
    collect(c, &last, &before);
    struct language_guess g = of_text(l, &last);
    if (g.confidence < CONFIDENT) {
        struct language_guess earlier = of_text(l, &before);
        if (earlier.confidence >= LIKELY)
            g = earlier;
    }
    buf_fini(&last);
    buf_fini(&before);
    return g.confidence >= LIKELY ? g : none;
}

/* ---- the choice */

/* 0 to 99, the same for a user whenever it asks. */
static unsigned share_of(const struct completion *c)
{
    const char *user = c->words.user, *key = gate_name(c->r);
    uint64_t h = 1469598103934665603U; /* FNV-1a; spread enough for a hundred shares */
    const char *texts[] = {"auto", key ? key : "", user ? user : "", key || user ? "" : c->r->id};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (const char *p = texts[i];; p++) {
            h = (h ^ (unsigned char)*p) * 1099511628211U;
            if (!*p)
                break;
        }
    return (unsigned)((h >> 32) % 100);
}

struct chooser {
    const struct completion *c;
    bool has_language;
    struct language_guess language;
    char reason[160];
};

static bool fits(struct chooser *ch, const struct auto_rule *rule)
{
    const struct completion *c = ch->c;
    const char *value;
    switch (rule->kind) {
    case AUTO_LANGUAGE:
        if (!ch->has_language)
            ch->language = language_spoken(c);
        ch->has_language = true;
        snprintf(ch->reason, sizeof ch->reason, "language %s, confidence %.2f", rule->name,
                 (double)ch->language.confidence);
        return strcmp(ch->language.code, rule->name) == 0;
    case AUTO_HEADER:
        value = request_header(c->r, rule->name);
        snprintf(ch->reason, sizeof ch->reason, "header %s", rule->name);
        return value && strcmp(value, rule->value) == 0;
    case AUTO_USER:
        snprintf(ch->reason, sizeof ch->reason, "user");
        return c->words.user && strcmp(c->words.user, rule->name) == 0;
    case AUTO_PERCENT:
        snprintf(ch->reason, sizeof ch->reason, "percent %u", rule->percent);
        return share_of(c) < rule->percent;
    case AUTO_DEFAULT:
        break;
    }
    snprintf(ch->reason, sizeof ch->reason, "default");
    return true;
}

/* The name that is asked for; of a tenant's own name for "auto", and of its default where nothing is said,
 * that. */
static const char *asked_name(const struct completion *c)
{
    const struct tenant_spec *tenant = gate_spec(c->r);
    const struct voice_words *w = &c->words;
    bool silent = !w->model && !c->r->adapter_header && !w->has_adapters && !w->has_lora;
    const char *own = !tenant    ? NULL
                      : silent   ? tenant->default_voice
                      : w->model ? tenant_spec_alias(tenant, w->model)
                                 : NULL;
    return own && strcmp(own, AUTO_NAME) == 0 ? AUTO_NAME : w->model;
}

/* Rules are the server's, for all tenants: one whose voice isn't this caller's doesn't fit, and isn't told
 * of. */
static bool may_have(const struct request *r, const char *voice)
{
    const struct tenant_spec *tenant = gate_spec(r);
    struct voice_expr e;
    if (!tenant || voice_expr_parse(voice, r->server->base.name, &e, NULL) != STATUS_OK)
        return true;
    bool may = e.n > 0 || voice_base_allowed(r);
    for (uint32_t i = 0; i < e.n; i++)
        may &= tenant_spec_alias(tenant, e.terms[i].name) != NULL || gate_may_use(r, e.terms[i].name);
    return may;
}

enum status auto_choose(struct completion *c)
{
    const struct conf *conf = c->server->conf;
    struct chooser ch = {.c = c};
    if (c->r->path_voice)
        c->words.model = c->r->path_voice; /* whatever the client must put into the field */
    if (c->words.turn)
        c->words.model = c->words.turn;
    const char *model = asked_name(c), *header = c->r->adapter_header;
    if (!model || strcmp(model, AUTO_NAME) != 0 || conf->n_auto_rules == 0)
        return STATUS_OK;
    if (header && header[0]) { /* who names a voice there doesn't want one chosen */
        c->words.model = NULL;
        return STATUS_OK;
    }
    for (size_t i = 0; i < conf->n_auto_rules; i++) {
        if (!may_have(c->r, conf->auto_rules[i].voice) || !fits(&ch, &conf->auto_rules[i]))
            continue;
        c->words.model = conf->auto_rules[i].voice;
        reply_header(c->r, "X-Adapter-Rule", ch.reason);
        return STATUS_OK;
    }
    enum status s = fault_set(&c->fault, STATUS_NOT_FOUND, "model",
                              "no rule of \"auto\" fits this request, and none is the default; name a voice");
    snprintf(c->fault.code, sizeof c->fault.code, "model_not_found");
    return s;
}
