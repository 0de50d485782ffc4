/* The voice "auto": rules of the configuration choose who speaks, by the language of the last user's turn, by
 * a header, by the user, by a share of them all. Rules are looked at in their order; the first that fits
 * names the voice.
 *
 * A rule is a text, WHEN=VOICE:
 *   pt=VOICE                   the language of the last user's turn; where that can't be said, of the turns
 * before header:NAME:VALUE=VOICE    a header of the request has this value user:NAME=VOICE safety_identifier,
 * or user percent:N=VOICE            N of 100 users, always the same ones (of requests, where nobody is
 * named) default=VOICE              anyone */
#ifndef LK_AUTO_H
#define LK_AUTO_H

#include "base/arena.h"
#include "base/error.h"

#define AUTO_NAME "auto"
#define AUTO_RULES_MAX 64U

enum auto_kind { AUTO_LANGUAGE, AUTO_HEADER, AUTO_USER, AUTO_PERCENT, AUTO_DEFAULT };

struct auto_rule {
    enum auto_kind kind;
    const char *name;  /* the language's code, the header, the user */
    const char *value; /* of the header */
    unsigned percent;
    const char *voice; /* as voice_expr.h reads it; "none" became "base" */
};

/* One rule, its texts in the arena. STATUS_INVALID says what is wrong. Its form alone: voices are looked up
 * when it is used. */
LK_MUST_USE enum status auto_rule_parse(const char *text, struct arena *arena, struct auto_rule *out,
                                        struct error *err);

struct completion;
struct server;
struct languages;

/* Opens what the rules need; *out stays NULL where no rule asks for a language. */
LK_MUST_USE enum status auto_start(const struct server *s, struct languages **out, struct error *err);

/* Settles what stands for `model`: the `adapter` of the last message that has one, else the path's voice,
 * else the field itself. If that is "auto", and there are rules, the chosen one's voice takes its place, and
 * the header X-Adapter-Rule says which rule it was. STATUS_NOT_FOUND: no rule fits. Front thread; the
 * request's headers are there. */
LK_MUST_USE enum status auto_choose(struct completion *c);

#endif
