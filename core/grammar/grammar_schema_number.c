/* Numbers between bounds, digit by digit. A bound is a row of decimal digits, and so is what is written:
 *
 *   lo   0 0 0 4 2 . 5 0 …       a digit above the bound's frees what follows from it, one that equals it
 *   hi   0 0 3 0 0 . 0 0 …       keeps it bound; the same from both sides
 *
 * A number that has bounds is written without exponent and with at most 15 digits in all, which a double
 * holds exactly enough to stay on its side of the bound; integers have up to 19. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_json.h"

#define WHOLE 19U
#define FRACTION 15U
#define DIGITS (WHOLE + FRACTION)

/* A magnitude. */
struct bound {
    uint8_t digits[DIGITS];
    bool exclusive;
};
struct interval {
    struct maker *m;
    const struct bound *lo, *hi;
    uint32_t n_fraction; /* digits behind the point that may come */
};
/* Which bounds the digits so far equal. */
struct tight {
    bool lo, hi;
};

static const struct expr *digit_range(struct maker *m, unsigned lo, unsigned hi)
{
    struct byte_set set = {{0}};
    if (lo > hi)
        return expr_never();
    set_add_range(&set, '0' + lo, '0' + hi);
    return expr_set(m, &set);
}

static bool zero_from(const struct bound *b, uint32_t at)
{
    for (; at < DIGITS; at++)
        if (b->digits[at])
            return false;
    return true;
}

/* The digits before `at` are all that is written. */
static bool may_stop(const struct interval *x, uint32_t at, struct tight t)
{
    if (t.lo && (!zero_from(x->lo, at) || x->lo->exclusive))
        return false;
    return !(t.hi && zero_from(x->hi, at) && x->hi->exclusive);
}

static const struct expr *from_digit(const struct interval *x, uint32_t at, uint32_t end, struct tight t,
                                     bool leads);

/* What may follow a digit. */
static const struct expr *behind_digit(const struct interval *x, uint32_t at, uint32_t end, struct tight t)
{
    if (at < WHOLE)
        return from_digit(x, at, end, t, false);
    struct maker *m = x->m;
    const struct expr *stop = may_stop(x, at, t) ? expr_empty() : expr_never(), *more = expr_never();
    if (at < end)
        more = from_digit(x, at, end, t, false);
    if (at == WHOLE)
        more = expr_seq2(m, expr_text(m, "."), more);
    return expr_alt2(m, stop, more);
}

static const struct expr *free_digits(const struct interval *x, uint32_t at, uint32_t end)
{
    struct maker *m = x->m;
    const struct expr *digit = digit_range(m, 0, 9);
    if (at >= WHOLE)
        return expr_repeat(m, digit, 0, end - at);
    const struct expr *whole = expr_repeat(m, digit, WHOLE - at, WHOLE - at);
    if (end <= WHOLE)
        return whole;
    const struct expr *fraction = expr_seq2(m, expr_text(m, "."), expr_repeat(m, digit, 1, end - WHOLE));
    return expr_seq2(m, whole, expr_repeat(m, fraction, 0, 1));
}

/* The digit at `at` and what follows it; `leads`: it can't be 0. */
static const struct expr *from_digit(const struct interval *x, uint32_t at, uint32_t end, struct tight t,
                                     bool leads)
{
    struct maker *m = x->m;
    struct expr_list ways = {0};
    unsigned lo = t.lo ? x->lo->digits[at] : 0, hi = t.hi ? x->hi->digits[at] : 9;
    if (leads && lo == 0) {
        lo = 1;
        t.lo = false;
    }
    if (lo > hi)
        return expr_never();
    if (lo == hi)
        return expr_seq2(m, digit_range(m, lo, lo), behind_digit(x, at + 1, end, t));
    if (t.lo)
        list_add(
            m, &ways,
            expr_seq2(m, digit_range(m, lo, lo), behind_digit(x, at + 1, end, (struct tight){true, false})));
    if (t.hi)
        list_add(
            m, &ways,
            expr_seq2(m, digit_range(m, hi, hi), behind_digit(x, at + 1, end, (struct tight){false, true})));
    if (lo + t.lo + t.hi <= hi) {
        const struct expr *free = at + 1 == WHOLE && end > WHOLE
                                      ? behind_digit(x, at + 1, end, (struct tight){false, false})
                                      : free_digits(x, at + 1, end);
        list_add(m, &ways, expr_seq2(m, digit_range(m, lo + t.lo, hi - t.hi), free));
    }
    return expr_alt(m, &ways);
}

static uint32_t n_whole(const struct bound *b)
{
    uint32_t at = 0;
    while (at + 1 < WHOLE && b->digits[at] == 0)
        at++;
    return WHOLE - at;
}

/* Magnitudes from lo to hi. */
static const struct expr *magnitudes(struct maker *m, const struct bound *lo, const struct bound *hi,
                                     bool integer)
{
    struct expr_list ways = {0};
    uint32_t n_lo = n_whole(lo), n_hi = n_whole(hi);
    for (uint32_t n = n_lo; n <= n_hi; n++) {
        struct interval x = {.m = m, .lo = lo, .hi = hi};
        x.n_fraction = integer || n >= INTEGER_DIGITS ? 0 : INTEGER_DIGITS - n;
        struct tight t = {n == n_lo, n == n_hi};
        list_add(m, &ways, from_digit(&x, WHOLE - n, WHOLE + x.n_fraction, t, n > 1));
    }
    return expr_alt(m, &ways);
}

/* ---- bounds */

struct limit {
    bool given, negative;
    struct bound magnitude;
};

static bool is_zero(const struct limit *l)
{
    return zero_from(&l->magnitude, 0);
}

/* From "-12.5"; false: more digits than a bound has. */
static bool limit_from_text(const char *text, struct limit *l)
{
    const char *point = strchr(text, '.');
    *l = (struct limit){.given = true, .negative = text[0] == '-'};
    const char *first = text + l->negative;
    size_t whole = point ? (size_t)(point - first) : strlen(first);
    if (whole > WHOLE)
        return false;
    for (size_t i = 0; i < whole; i++)
        l->magnitude.digits[WHOLE - whole + i] = (uint8_t)(first[i] - '0');
    for (size_t i = 0; point && point[1 + i]; i++) {
        if (i >= FRACTION && point[1 + i] != '0')
            return false;
        if (i < FRACTION)
            l->magnitude.digits[WHOLE + i] = (uint8_t)(point[1 + i] - '0');
    }
    return true;
}

/* `up`: to the next whole number above. Only below 10^15, so nothing overflows. */
static void round_whole(struct limit *l, bool up)
{
    bool away = up != l->negative, has_fraction = !zero_from(&l->magnitude, WHOLE);
    memset(l->magnitude.digits + WHOLE, 0, FRACTION);
    bool exclusive = l->magnitude.exclusive && !has_fraction;
    l->magnitude.exclusive = false;
    if (!(has_fraction || exclusive))
        return;
    if (exclusive && !away) { /* towards zero: one less, or across it */
        if (is_zero(l)) {
            l->negative = !l->negative;
            l->magnitude.digits[WHOLE - 1] = 1;
            return;
        }
        uint32_t at = WHOLE - 1;
        for (; l->magnitude.digits[at] == 0; at--)
            l->magnitude.digits[at] = 9;
        l->magnitude.digits[at]--;
    } else if (away) {
        uint32_t at = WHOLE - 1;
        for (; l->magnitude.digits[at] == 9 && at > 0; at--)
            l->magnitude.digits[at] = 0;
        l->magnitude.digits[at]++;
    }
}

static bool read_limit(struct schema *sc, const json_t *s, const char *key, bool integer, struct limit *l)
{
    const json_t *v = json_object_get(s, key);
    char text[400] = "";
    if (!v)
        return false;
    double d = json_number_value(v);
    if (!json_is_number(v)) {
        schema_fail(sc, STATUS_INVALID, "\"%s\" must be a number", key);
        return false;
    }
    if (json_is_integer(v) && (integer || fabs(d) < 1e15)) {
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    } else if (fabs(d) >= 1e15) {
        if ((d > 0) != (strstr(key, "aximum") != NULL)) /* else beyond what is ever written */
            schema_fail(sc, STATUS_UNSUPPORTED, "\"%s\" is %g; bounds of numbers must lie within 1e15", key,
                        d);
        return false;
    } else {
        int digits = 0;
        double again = d + 1;
        for (; digits <= (int)FRACTION + 2 && again != d; digits++) {
            snprintf(text, sizeof text, "%.*f", digits, d);
            again = strtod(text, NULL);
        }
    }
    if (!limit_from_text(text, l))
        schema_fail(sc, STATUS_UNSUPPORTED, "\"%s\" has more than %u digits behind the point", key, FRACTION);
    return true;
}

/* -1, 0, 1 */
static int compare(const struct limit *a, const struct limit *b)
{
    bool a_negative = a->negative && !is_zero(a), b_negative = b->negative && !is_zero(b);
    if (a_negative != b_negative)
        return a_negative ? -1 : 1;
    int c = memcmp(a->magnitude.digits, b->magnitude.digits, DIGITS);
    c = (c > 0) - (c < 0);
    return a_negative ? -c : c;
}

/* Of an inclusive and an exclusive limit, the narrower. `sign` 1: lower limits. */
static struct limit narrower(struct limit a, struct limit b, int sign)
{
    if (!a.given || !b.given)
        return a.given ? a : b;
    int c = compare(&a, &b) * sign;
    return c > 0 ? a : b; /* equals: the exclusive one, which is b */
}

static void read_limits(struct schema *sc, const json_t *s, bool integer, struct limit limits[2])
{
    static const char *const keys[2][2] = {{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}};
    for (int i = 0; i < 2; i++) {
        struct limit plain = {0}, exclusive = {0};
        const json_t *flag = json_object_get(s, keys[i][1]);
        bool has = read_limit(sc, s, keys[i][0], integer, &plain);
        if (json_is_boolean(flag)) /* draft 4 */
            plain.magnitude.exclusive = has && json_is_true(flag);
        else if (read_limit(sc, s, keys[i][1], integer, &exclusive))
            exclusive.magnitude.exclusive = true;
        limits[i] = narrower(plain, exclusive, i == 0 ? 1 : -1);
        if (limits[i].given && integer)
            round_whole(&limits[i], i == 0);
    }
}

/* One that is missing is as far as numbers of 15 digits go, or of 19 where the other is beyond. */
static void complete(struct limit limits[2])
{
    for (int i = 0; i < 2; i++) {
        struct limit far = {0};
        if (limits[i].given)
            continue;
        (void)limit_from_text(i ? "999999999999999" : "-999999999999999", &far);
        if (limits[!i].given && (i ? compare(&limits[0], &far) > 0 : compare(&limits[1], &far) < 0))
            (void)limit_from_text(i ? "9223372036854775807" : "-9223372036854775807", &far);
        limits[i] = far;
    }
}

static const struct expr *between(struct maker *m, const struct limit limits[2], bool integer)
{
    const struct limit *lo = &limits[0], *hi = &limits[1];
    struct bound zero = {.exclusive = false}, above_zero = {.exclusive = true};
    bool lo_negative = lo->negative && !is_zero(lo), hi_negative = hi->negative && !is_zero(hi);
    const struct expr *positive = expr_never(), *negative = expr_never();
    int order = compare(lo, hi);
    if (order > 0 || (order == 0 && (lo->magnitude.exclusive || hi->magnitude.exclusive)))
        return expr_never();
    if (integer)
        above_zero = (struct bound){.digits = {[WHOLE - 1] = 1}};
    if (!hi_negative)
        positive = magnitudes(m, lo_negative ? &zero : &lo->magnitude, &hi->magnitude, integer);
    if (lo_negative)
        negative = magnitudes(m, hi_negative ? &hi->magnitude : &above_zero, &lo->magnitude, integer);
    return expr_alt2(m, positive, expr_seq2(m, expr_text(m, "-"), negative));
}

/* ---- multipleOf */

#define STEP_MAX 1000U
#define STEP_RULES_MAX 8192U

/* step * 10^-n_fraction, or step * 10^n_zeros; the step doesn't end in 0. */
struct step {
    uint32_t step, n_fraction, n_zeros;
};

static bool step_from_text(const char *text, struct step *out)
{
    uint64_t n = 0;
    long exponent = 0;
    bool behind = false;
    for (; *text && *text != 'e' && *text != 'E'; text++) {
        if (*text == '.') {
            behind = true;
            continue;
        }
        if (*text < '0' || *text > '9' || n > UINT64_MAX / 100)
            return false;
        n = 10 * n + (uint64_t)(*text - '0');
        exponent -= behind;
    }
    exponent += *text ? strtol(text + 1, NULL, 10) : 0;
    for (; n && n % 10 == 0; n /= 10)
        exponent++;
    *out = (struct step){(uint32_t)n, exponent < 0 ? (uint32_t)-exponent : 0,
                         exponent > 0 ? (uint32_t)exponent : 0};
    return n > 0 && n <= STEP_MAX && exponent >= -(long)FRACTION && exponent < (long)WHOLE;
}

/* A rule for each rest of a division and each number of digits behind the point. */
struct multiples {
    struct maker *m;
    struct step s;
    uint32_t first;
    char zeros[WHOLE + 1]; /* that all end in */
};

static const struct expr *rest_call(const struct multiples *x, uint32_t rest, uint32_t n_fraction)
{
    return expr_call(x->m, x->first + n_fraction * x->s.step + rest);
}

static const struct expr *rest_expr(const struct multiples *x, uint32_t rest, uint32_t n_fraction)
{
    struct maker *m = x->m;
    struct expr_list ways = {0};
    uint32_t last = rest;
    for (uint32_t i = n_fraction; i < x->s.n_fraction; i++)
        last = last * 10 % x->s.step;
    if (last == 0)
        list_add(m, &ways, expr_text(m, x->zeros));
    uint32_t next = n_fraction ? n_fraction + 1 : 0;
    for (unsigned d = 0; d <= 9 && next <= x->s.n_fraction; d++)
        list_add(m, &ways,
                 expr_seq2(m, digit_range(m, d, d), rest_call(x, (rest * 10 + d) % x->s.step, next)));
    for (unsigned d = 0; d <= 9 && !n_fraction && x->s.n_fraction; d++)
        list_add(m, &ways,
                 expr_seq2(m, expr_text(m, "."),
                           expr_seq2(m, digit_range(m, d, d), rest_call(x, (rest * 10 + d) % x->s.step, 1))));
    return expr_alt(m, &ways);
}

/* All multiples, without bounds; whole ones without a point. */
static const struct expr *multiples_of(struct maker *m, const struct step *s)
{
    struct multiples x = {.m = m, .s = *s};
    struct expr_list ways = {0};
    require(s->step > 0);
    memset(x.zeros, '0', s->n_zeros);
    for (uint32_t i = 0; i < s->step * (s->n_fraction + 1); i++) {
        uint32_t rule = rule_new(m, NULL);
        x.first = i ? x.first : rule;
    }
    for (uint32_t f = 0; f <= s->n_fraction && maker_goes_on(m); f++)
        for (uint32_t rest = 0; rest < s->step; rest++)
            rule_define(m, x.first + f * s->step + rest, rest_expr(&x, rest, f));
    for (unsigned d = 1; d <= 9; d++)
        list_add(m, &ways, expr_seq2(m, digit_range(m, d, d), rest_call(&x, d % s->step, 0)));
    const struct expr *large = expr_alt(m, &ways), *small = expr_text(m, "0");
    if (s->n_fraction)
        small = expr_seq2(m, small, rest_call(&x, 0, 0));
    return expr_seq2(m, expr_repeat(m, expr_text(m, "-"), 0, 1), expr_alt2(m, large, small));
}

static const struct expr *only_multiples(struct schema *sc, const json_t *value, const struct expr *numbers)
{
    struct step s;
    char text[40];
    if (json_is_integer(value))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    else
        schema_shortest_real(json_real_value(value), text);
    if (!json_is_number(value) || json_number_value(value) <= 0) {
        schema_fail(sc, STATUS_INVALID, "\"multipleOf\" must be a number above 0");
        return expr_never();
    }
    if (!step_from_text(text, &s) || s.step * (s.n_fraction + 1) > STEP_RULES_MAX) {
        schema_fail(
            sc, STATUS_UNSUPPORTED,
            "\"multipleOf\" is supported up to %u times a power of ten, with %u digits behind the point",
            STEP_MAX, FRACTION);
        return expr_never();
    }
    const struct expr *both = expr_both(sc->m, numbers, multiples_of(sc->m, &s));
    if (!both)
        schema_fail(sc, STATUS_TOO_LARGE, "\"multipleOf\" beside these bounds needs too many states");
    return both ? both : expr_never();
}

/* Those that aren't whole. */
static const struct expr *fractions(struct schema *sc, const struct expr *numbers)
{
    struct maker *m = sc->m;
    const struct expr *digits = expr_repeat(m, digit_range(m, 0, 9), 0, FRACTION - 1);
    const struct expr *behind = expr_seq2(m, expr_text(m, "."), expr_seq2(m, digits, digit_range(m, 1, 9)));
    const struct expr *both = expr_both(m, numbers, expr_seq2(m, jx_integer(m, &sc->json), behind));
    if (!both)
        schema_fail(sc, STATUS_TOO_LARGE,
                    "numbers that aren't whole, within these bounds, need too many states");
    return both ? both : expr_never();
}

static const struct expr *numbers_between(struct schema *sc, const json_t *s, bool integer, bool digits_only);

const struct expr *schema_number(struct schema *sc, const json_t *s, bool integer)
{
    const json_t *step = json_object_get(s, "multipleOf");
    const struct expr *x = numbers_between(sc, s, integer, json_object_get(s, "not"));
    if (json_object_get(s, "not")) /* of multiples of 1 */
        x = integer ? expr_never() : fractions(sc, x);
    if (!step || sc->m->status != STATUS_OK)
        return x;
    return only_multiples(sc, step, x);
}

/* digits_only: without exponents, and no more digits than a double holds. */
static const struct expr *numbers_between(struct schema *sc, const json_t *s, bool integer, bool digits_only)
{
    struct maker *m = sc->m;
    struct limit limits[2] = {{0}};
    const json_t *format = json_object_get(s, "format");
    const char *name = json_string_value(format);
    if (name && strcmp(name, "int32") != 0 && strcmp(name, "int64") != 0 && strcmp(name, "float") != 0 &&
        strcmp(name, "double") != 0 && json_object_get(s, "type") &&
        !json_is_array(json_object_get(s, "type")))
        schema_fail(sc, STATUS_UNSUPPORTED, "the format \"%.60s\" of a number is not supported", name);
    read_limits(sc, s, integer, limits);
    if (m->status != STATUS_OK)
        return expr_never();
    if (!limits[0].given && !limits[1].given) {
        bool narrow = name && strcmp(name, "int32") == 0;
        if (!narrow && !digits_only)
            return integer ? jx_integer(m, &sc->json) : jx_number(m, &sc->json);
        if (narrow) {
            (void)limit_from_text("-2147483648", &limits[0]);
            (void)limit_from_text("2147483647", &limits[1]);
        }
    }
    complete(limits);
    return between(m, limits, integer);
}
