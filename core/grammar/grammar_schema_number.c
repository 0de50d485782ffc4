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

const struct expr *schema_number(struct schema *sc, const json_t *s, bool integer)
{
    struct maker *m = sc->m;
    struct limit limits[2] = {{0}};
    const json_t *format = json_object_get(s, "format"), *step = json_object_get(s, "multipleOf");
    const char *name = json_string_value(format);
    if (step && !(integer && json_number_value(step) == 1.0))
        schema_fail(sc, STATUS_UNSUPPORTED, "the keyword \"multipleOf\" is not supported");
    if (name && strcmp(name, "int32") != 0 && strcmp(name, "int64") != 0 && strcmp(name, "float") != 0 &&
        strcmp(name, "double") != 0 && json_object_get(s, "type") &&
        !json_is_array(json_object_get(s, "type")))
        schema_fail(sc, STATUS_UNSUPPORTED, "the format \"%.60s\" of a number is not supported", name);
    read_limits(sc, s, integer, limits);
    if (m->status != STATUS_OK)
        return expr_never();
    if (!limits[0].given && !limits[1].given) {
        bool narrow = name && strcmp(name, "int32") == 0;
        if (!narrow)
            return integer ? jx_integer(m, &sc->json) : jx_number(m, &sc->json);
        (void)limit_from_text("-2147483648", &limits[0]);
        (void)limit_from_text("2147483647", &limits[1]);
    }
    complete(limits);
    return between(m, limits, integer);
}
