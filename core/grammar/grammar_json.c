#include "grammar_json.h"

#include "format.h"

void json_rules_init(struct json_rules *j)
{
    *j = (struct json_rules){NO_RULE, NO_RULE, NO_RULE, NO_RULE, NO_RULE,
                             NO_RULE, NO_RULE, NO_RULE, NO_RULE, NO_RULE};
}

/* A call of *rule, which begin made now if it wasn't known; true: its body is to be defined. */
static bool begin(struct maker *m, uint32_t *rule, const struct expr **call)
{
    bool made = *rule == NO_RULE;
    if (made)
        *rule = rule_new(m, NULL);
    *call = expr_call(m, *rule);
    return made;
}

static const struct expr *range_set(struct maker *m, unsigned lo, unsigned hi)
{
    struct byte_set set = {{0}};
    set_add_range(&set, lo, hi);
    return expr_set(m, &set);
}

static const struct expr *seq3(struct maker *m, const struct expr *a, const struct expr *b,
                               const struct expr *c)
{
    return expr_seq2(m, a, expr_seq2(m, b, c));
}

const struct expr *jx_space(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (m->compact)
        return expr_empty();
    if (begin(m, &j->space, &call)) {
        struct byte_set blank = {{0}};
        set_add_range(&blank, ' ', ' ');
        set_add_range(&blank, '\t', '\t');
        const struct expr *lines = expr_seq2(m, expr_repeat(m, expr_text(m, "\n"), 1, 2),
                                             expr_repeat(m, expr_set(m, &blank), 0, 20));
        rule_define(m, j->space, expr_repeat(m, expr_alt2(m, expr_text(m, " "), lines), 0, 1));
    }
    return call;
}

const struct expr *jx_quoted(struct maker *m, const struct expr *inner)
{
    return seq3(m, expr_text(m, "\""), inner, expr_text(m, "\""));
}

/* ---- strings */

static const struct expr *plain_char(struct maker *m)
{
    struct ranges all = {0};
    ranges_add(m, &all, 1, CODE_POINT_MAX);
    return expr_ranges(m, &all, SPELL_JSON);
}

const struct expr *jx_char(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->one_char, &call))
        rule_define(m, j->one_char, plain_char(m));
    return call;
}

const struct expr *jx_key_rest(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->key_rest, &call))
        rule_define(m, j->key_rest,
                    expr_seq2(m, expr_repeat(m, plain_char(m), 0, REPEAT_FOREVER), expr_text(m, "\"")));
    return call;
}

static const struct expr *hex(struct maker *m, const char *digits)
{
    struct byte_set set = {{0}};
    for (; *digits; digits++)
        set_add_range(&set, (unsigned char)*digits, (unsigned char)*digits);
    return expr_set(m, &set);
}

#define HEX "0123456789abcdefABCDEF"

/* \uXXXX of anything but U+0000 and halves of characters, and pairs of halves. */
static const struct expr *unicode_escapes(struct maker *m)
{
    const struct expr *any = hex(m, HEX), *any2 = expr_repeat(m, any, 2, 2),
                      *any3 = expr_repeat(m, any, 3, 3);
    const struct expr *zero = expr_text(m, "0");
    struct expr_list l = {0};
    list_add(m, &l, expr_seq2(m, hex(m, "123456789abcefABCEF"), any3));
    list_add(m, &l, seq3(m, hex(m, "dD"), hex(m, "01234567"), any2));
    list_add(m, &l, seq3(m, zero, hex(m, "123456789abcdefABCDEF"), any2));
    list_add(m, &l, seq3(m, expr_text(m, "00"), hex(m, "123456789abcdefABCDEF"), any));
    list_add(m, &l, seq3(m, expr_text(m, "000"), hex(m, "123456789abcdefABCDEF"), expr_empty()));
    list_add(m, &l,
             seq3(m, seq3(m, hex(m, "dD"), hex(m, "89abAB"), any2), expr_text(m, "\\u"),
                  seq3(m, hex(m, "dD"), hex(m, "cdefCDEF"), any2)));
    return expr_seq2(m, expr_text(m, "\\u"), expr_alt(m, &l));
}

const struct expr *jx_string(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->string, &call)) {
        struct ranges plain = {0};
        struct expr_list l = {0};
        ranges_add(m, &plain, ' ', ' ' + 1);
        ranges_add(m, &plain, '#', '[');
        ranges_add(m, &plain, ']', CODE_POINT_MAX);
        list_add(m, &l, expr_ranges(m, &plain, SPELL_UTF8));
        list_add(m, &l, expr_seq2(m, expr_text(m, "\\"), hex(m, "\"\\/bfnrt")));
        list_add(m, &l, unicode_escapes(m));
        rule_define(m, j->string, jx_quoted(m, expr_repeat(m, expr_alt(m, &l), 0, REPEAT_FOREVER)));
    }
    return call;
}

/* ---- numbers */

const struct expr *jx_integer(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->integer, &call)) {
        const struct expr *more = expr_repeat(m, range_set(m, '0', '9'), 0, INTEGER_DIGITS - 1);
        const struct expr *digits =
            expr_alt2(m, expr_text(m, "0"), expr_seq2(m, range_set(m, '1', '9'), more));
        rule_define(m, j->integer, expr_seq2(m, expr_repeat(m, expr_text(m, "-"), 0, 1), digits));
    }
    return call;
}

/* Exponents have two digits at most, so that a double can hold them. */
const struct expr *jx_number(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->number, &call)) {
        const struct expr *digit = range_set(m, '0', '9');
        const struct expr *fraction =
            expr_seq2(m, expr_text(m, "."), expr_repeat(m, digit, 1, INTEGER_DIGITS));
        const struct expr *exponent =
            seq3(m, hex(m, "eE"), expr_repeat(m, hex(m, "+-"), 0, 1), expr_repeat(m, digit, 1, 2));
        rule_define(
            m, j->number,
            seq3(m, jx_integer(m, j), expr_repeat(m, fraction, 0, 1), expr_repeat(m, exponent, 0, 1)));
    }
    return call;
}

/* ---- any value */

const struct expr *jx_bracketed(struct maker *m, struct json_rules *j, const char *open,
                                const struct expr *inner, const char *close)
{
    const struct expr *space = jx_space(m, j);
    const struct expr *filled = inner == expr_empty() ? inner : expr_seq2(m, inner, space);
    return seq3(m, expr_text(m, open), expr_seq2(m, space, filled), expr_text(m, close));
}

const struct expr *jx_comma(struct maker *m, struct json_rules *j)
{
    return expr_seq2(m, expr_text(m, ","), jx_space(m, j));
}

/* item ("," item)*, or nothing */
static const struct expr *list_of(struct maker *m, struct json_rules *j, const struct expr *item)
{
    const struct expr *more = expr_repeat(m, expr_seq2(m, jx_comma(m, j), item), 0, REPEAT_FOREVER);
    return expr_repeat(m, expr_seq2(m, item, more), 0, 1);
}

const struct expr *jx_object_any(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->object, &call)) {
        const struct expr *colon = expr_seq2(m, expr_text(m, ":"), jx_space(m, j));
        const struct expr *member = seq3(m, jx_string(m, j), colon, jx_value(m, j));
        rule_define(m, j->object, jx_bracketed(m, j, "{", list_of(m, j, member), "}"));
    }
    return call;
}

const struct expr *jx_array_any(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->array, &call))
        rule_define(m, j->array, jx_bracketed(m, j, "[", list_of(m, j, jx_value(m, j)), "]"));
    return call;
}

const struct expr *jx_value(struct maker *m, struct json_rules *j)
{
    const struct expr *call;
    if (begin(m, &j->value, &call)) {
        struct expr_list l = {0};
        list_add(m, &l, jx_object_any(m, j));
        list_add(m, &l, jx_array_any(m, j));
        list_add(m, &l, jx_string(m, j));
        list_add(m, &l, jx_number(m, j));
        list_add(m, &l, expr_text(m, "true"));
        list_add(m, &l, expr_text(m, "false"));
        list_add(m, &l, expr_text(m, "null"));
        rule_define(m, j->value, expr_alt(m, &l));
    }
    return call;
}

const struct expr *json_object_expr(struct maker *m)
{
    struct json_rules j;
    json_rules_init(&j);
    return jx_object_any(m, &j);
}

/* ---- choices */

const struct expr *choice_parse(struct maker *m, const char *text, size_t length)
{
    json_t *list = NULL;
    struct error err;
    const struct expr *x = expr_never();
    if (json_parse(text, length, "choice", 2, &list, &err) != STATUS_OK) {
        maker_fail(m, err.status, "%s", err.text);
        return x;
    }
    size_t n = json_array_size(list);
    struct text_slice *texts = maker_alloc(m, (n + 1) * sizeof *texts);
    if (n == 0)
        maker_fail(m, STATUS_INVALID, "choice: expected an array of at least one string");
    for (size_t i = 0; i < n && texts; i++) {
        json_t *item = json_array_get(list, i);
        if (!json_is_string(item))
            maker_fail(m, STATUS_INVALID, "choice[%zu]: expected a string", i);
        else
            texts[i] = (struct text_slice){json_string_value(item), json_string_length(item)};
    }
    if (m->status == STATUS_OK)
        x = expr_any_text(m, texts, (uint32_t)n);
    json_decref(list);
    return x;
}
