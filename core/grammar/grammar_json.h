/* JSON's own pieces as rules, made once for a grammar, and what the files of the schema front end share.
 *
 * White space is what people and models write, and no more, so that nobody can run away in it: where one
 * token of JSON may be followed by another, nothing, one blank, or one or two line breaks and at most 20
 * blanks or tabs. None stands before a comma, a colon or the text, nor behind the text. */
#ifndef LK_GRAMMAR_JSON_H
#define LK_GRAMMAR_JSON_H

#include <jansson.h>

#include "grammar_inner.h"

#define NO_RULE UINT32_MAX
#define INTEGER_DIGITS 15U /* of numbers without bounds, and of all with a fraction: doubles hold those */

struct json_rules {
    uint32_t space, string, any_char, one_char, key_rest, number, integer, value, object, array;
};
void json_rules_init(struct json_rules *j);
const struct expr *jx_space(struct maker *m, struct json_rules *j);
const struct expr *jx_string(struct maker *m, struct json_rules *j);   /* any, in any spelling */
const struct expr *jx_char(struct maker *m, struct json_rules *j);     /* one, in SPELL_JSON */
const struct expr *jx_key_rest(struct maker *m, struct json_rules *j); /* any of these, and the quote */
const struct expr *jx_number(struct maker *m, struct json_rules *j);
const struct expr *jx_integer(struct maker *m, struct json_rules *j);
const struct expr *jx_value(struct maker *m, struct json_rules *j);
const struct expr *jx_object_any(struct maker *m, struct json_rules *j);
const struct expr *jx_array_any(struct maker *m, struct json_rules *j);
const struct expr *jx_quoted(struct maker *m, const struct expr *inner);
/* open, space, inner, space, close */
const struct expr *jx_bracketed(struct maker *m, struct json_rules *j, const char *open,
                                const struct expr *inner, const char *close);
/* "," and space */
const struct expr *jx_comma(struct maker *m, struct json_rules *j);

/* ---- schemas */

#define SCHEMA_PATH_BYTES 200U
/* unevaluated… once it covers what was joined into its schema: then it speaks of all that isn't described. */
#define UNEVALUATED_PROPERTIES "\x01properties"
#define JOINED_PATTERNS "\x01patterns" /* an array of patterns that hold beside `pattern` */
#define UNEVALUATED_ITEMS "\x01items"

struct schema_ref {
    const json_t *target;
    uint32_t rule;
    char path[SCHEMA_PATH_BYTES];
};

/* What a reference by URI or anchor means. */
struct schema_target {
    const json_t *schema;
    const char *ref; /* as it was written */
};

struct schema {
    struct maker *m;
    struct json_rules json;
    json_t *root;
    json_t *made; /* an array of merged schemas, kept until the end */
    struct schema_ref *refs;
    uint32_t n_refs, refs_capacity;
    struct schema_target *targets;
    uint32_t n_targets, targets_capacity;
    char path[SCHEMA_PATH_BYTES]; /* of what is compiled, for errors */
    size_t n_path;
    uint32_t depth, n_merges, n_opposites;
    size_t n_joined; /* keys in all that was joined */
};

void schema_fail(struct schema *sc, enum status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Steps down and, with what it returned, back. */
size_t schema_enter(struct schema *sc, const char *keyword, const char *name);
void schema_leave(struct schema *sc, size_t before);
const struct expr *schema_expr(struct schema *sc, const json_t *s);
/* The same as a call of a rule of its own. */
const struct expr *schema_rule(struct schema *sc, const json_t *s);
const json_t *schema_resolve(struct schema *sc, const json_t *s); /* follows $refs without siblings */
const json_t *schema_target(struct schema *sc, const char *ref);  /* NULL after a failure */
void schema_find_refs(struct schema *sc);                         /* once, before anything is compiled */
uint32_t schema_add_target(struct schema *sc, const json_t *schema, const char *ref); /* its number */
const json_t *schema_at(const json_t *from, const char *pointer); /* "/a/b"; NULL: nothing is there */
/* A count such as minItems; false: absent. */
bool schema_count(struct schema *sc, const json_t *s, const char *key, uint64_t *out);
static inline uint32_t schema_repeats(uint64_t n)
{
    return n < REPEAT_FOREVER ? (uint32_t)n : REPEAT_FOREVER - 1;
}
/* The schema with its own unevaluated… as above. */
const json_t *schema_scoped(struct schema *sc, const json_t *s);
void schema_shortest_real(double d, char text[40]);
bool schema_is_annotation(const char *key);
bool schema_is_listed(const char *key, const char *const *list);
unsigned schema_named_types(struct schema *sc, const json_t *type);
unsigned schema_implied_types(const json_t *s);                   /* what the keywords speak of */
unsigned schema_types_beside(struct schema *sc, const json_t *s); /* named, or implied */
json_t *schema_without(const json_t *s, const char *key);         /* a copy */
/* Takes the reference, until the end; NULL after a failure, or of NULL. */
const json_t *schema_keep(struct schema *sc, json_t *made);

/* Between the quotes; n: fewest and most characters. name: in errors. */
const struct expr *schema_pattern(struct schema *sc, const char *pattern, size_t length, const char *name,
                                  uint64_t n[2]);
/* Strings (all with their quotes, or all without) that don't match the pattern, which is `matches`, however
 * it is read; NULL: it takes too many states. */
const struct expr *schema_cut_pattern(struct schema *sc, const struct expr *strings, const char *pattern,
                                      size_t length, const struct expr *matches);
/* Any string but these, with its quotes; sorts them. */
const struct expr *schema_other_string(struct schema *sc, struct text_slice *names, size_t n);
bool schema_is_string_not(const json_t * not ); /* which schema_string can leave out */
const struct expr *schema_string(struct schema *sc, const json_t *s);
const struct expr *schema_number(struct schema *sc, const json_t *s, bool integer);
const struct expr *schema_object(struct schema *sc, const json_t *s);
const struct expr *schema_array(struct schema *sc, const json_t *s);
/* What doesn't match, or some of it: new; NULL after a failure, named by what `asks` for it. */
json_t *schema_opposite(struct schema *sc, const json_t *s, const char *asks);
const struct expr *schema_constant(struct schema *sc, const json_t *v);
/* not, if, dependent…: alternatives; NULL: there is nothing of that, or it is done with the type. */
const struct expr *schema_logic(struct schema *sc, const json_t *s);
const struct expr *schema_exactly_one(struct schema *sc, const json_t *s); /* oneOf's schemas overlap */
/* Whether a value matches; false after a failure, which names keywords that can't be checked. */
bool schema_fits(struct schema *sc, const json_t *s, const json_t *v);
bool schema_equal(const json_t *a, const json_t *b);
const char *schema_format_pattern(const char *format); /* NULL: not known */
/* What both sides allow, or NULL after a failure. Kept by the schema. */
const json_t *schema_merge(struct schema *sc, const json_t *a, const json_t *b);
/* No value can match both, as far as types, constants and required properties show. */
bool schema_disjoint(struct schema *sc, const json_t *a, const json_t *b, unsigned depth);
/* A bit for each type name that a value of the schema may have. */
enum json_types {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INTEGER = 4,
    TYPE_NUMBER = 8, /* and integers */
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ANY = 127
};
unsigned schema_type_bit(const char *name); /* 0: there is none */
json_t *schema_type_names(unsigned types);  /* an array, new; NULL: no memory */
unsigned schema_types_of_value(const json_t *v);

#endif
