/* Reads and writes voices in words. A term is taken from the left: a number with "*" behind it is a weight,
 * everything else up to the next "+" a name, so names like "0.5" or "1e3" stay usable. */
#include "voice_expr.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool voice_is_base(const char *name, const char *base_name)
{
    return strcmp(name, "base") == 0 || strcmp(name, "none") == 0 || strcmp(name, base_name) == 0;
}

float voice_weight(double weight)
{
    return (float)weight;
}

/* ---- terms ---- */

/* < 0, 0, > 0 as a stands before, at or behind b. */
static int compare(const struct voice_term *a, const struct voice_term *b)
{
    int order = strcmp(a->name, b->name);
    return order ? order : strcmp(a->pin, b->pin);
}

static enum status add_term(struct voice_expr *e, const struct voice_term *t, struct error *err)
{
    uint32_t i = 0;
    while (i < e->n && compare(&e->terms[i], t) < 0)
        i++;
    bool found = i < e->n && compare(&e->terms[i], t) == 0;
    double weight = t->weight + (found ? e->terms[i].weight : 0);
    if (!(fabs(weight) <= VOICE_WEIGHT_MAX)) /* NaN too */
        return fail(err, STATUS_INVALID, "the weight of \"%s\" is %g, expected %g to %g", t->name, weight,
                    -VOICE_WEIGHT_MAX, VOICE_WEIGHT_MAX);
    if (!found && e->n == VOICE_TERMS_MAX)
        return fail(err, STATUS_INVALID, "a voice may name at most %u adapters", VOICE_TERMS_MAX);
    if (!found) {
        memmove(&e->terms[i + 1], &e->terms[i], (e->n - i) * sizeof e->terms[0]);
        e->n++;
        e->terms[i] = *t;
    }
    e->terms[i].weight = weight;
    return STATUS_OK;
}

/* A pin in its one spelling: generations without leading zeros, digests in lower case. */
static enum status read_pin(const char *text, size_t length, struct voice_term *t, struct error *err)
{
    bool digits = length > 0, hex = length >= 8 && length <= VOICE_PIN_MAX;
    for (size_t i = 0; i < length; i++) {
        digits = digits && isdigit((unsigned char)text[i]);
        hex = hex && isxdigit((unsigned char)text[i]);
    }
    while (digits && length < 8 && length > 1 && text[0] == '0')
        text++, length--;
    if (!(digits && length < 8 && text[0] != '0') && !hex)
        return fail(
            err, STATUS_INVALID,
            "\"%.*s\" behind the @ of \"%s\" is no version: expected a generation (3) or the first 8 to "
            "64 hex digits of a digest",
            (int)(length < 80 ? length : 80), text, t->name);
    for (size_t i = 0; i < length; i++)
        t->pin[i] = (char)tolower((unsigned char)text[i]);
    t->pin[length] = '\0';
    return STATUS_OK;
}

enum status voice_expr_add(struct voice_expr *e, const char *text, size_t length, double weight,
                           const char *base_name, struct error *err)
{
    const char *at = memchr(text, '@', length);
    size_t n = at ? (size_t)(at - text) : length;
    struct voice_term t = {.weight = weight};
    if (n > 0 && n < sizeof t.name)
        memcpy(t.name, text, n);
    if (!adapter_name_is_valid(t.name) || strlen(t.name) != n)
        return fail(err, STATUS_NOT_FOUND, "\"%.*s\" is no name of a voice", (int)(n < 100 ? n : 100), text);
    if (voice_is_base(t.name, base_name)) {
        if (at || weight != 1)
            return fail(err, STATUS_INVALID, "\"%s\" is the base itself: it has no %s", t.name,
                        at ? "versions to choose from" : "weight");
        return STATUS_OK;
    }
    if (at) {
        enum status s = read_pin(at + 1, length - n - 1, &t, err);
        if (s != STATUS_OK)
            return s;
    }
    return add_term(e, &t, err);
}

enum status voice_expr_add_all(struct voice_expr *e, const struct voice_expr *what, double factor,
                               struct error *err)
{
    enum status s = STATUS_OK;
    for (uint32_t i = 0; i < what->n && s == STATUS_OK; i++) {
        struct voice_term t = what->terms[i];
        t.weight *= factor;
        s = add_term(e, &t, err);
    }
    return s;
}

enum status voice_expr_finish(struct voice_expr *e, uint32_t n_max, struct error *err)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n; i++)
        if (voice_weight(e->terms[i].weight) != 0)
            e->terms[n++] = e->terms[i];
    e->n = n;
    if (n > n_max)
        return fail(err, STATUS_INVALID, "the voice is a sum of %u adapters, at most %u can speak together",
                    n, n_max);
    return STATUS_OK;
}

/* ---- reading ---- */

static const char *skip_spaces(const char *p)
{
    return p + strspn(p, " ");
}

/* Behind the decimal number that p begins with, or p. Without hex, inf and nan, which strtod takes besides,
 * and without "1e+2", which may be the adapter 1e and another one. */
static const char *number_end(const char *p)
{
    const char *q = p + (*p == '-');
    size_t whole = strspn(q, "0123456789");
    q += whole;
    size_t part = *q == '.' ? strspn(q + 1, "0123456789") : 0;
    if (whole + part == 0)
        return p;
    q += *q == '.' ? part + 1 : 0;
    if (*q == 'e' || *q == 'E') {
        const char *power = q + 1 + (q[1] == '-');
        size_t n = strspn(power, "0123456789");
        q = n ? power + n : q;
    }
    return q;
}

/* A term's weight, if *p begins with one; *p is then behind its "*". */
static double read_weight(const char **p)
{
    const char *star = skip_spaces(number_end(*p));
    if (number_end(*p) == *p || *star != '*')
        return 1;
    double weight = strtod(*p, NULL);
    *p = skip_spaces(star + 1);
    return weight;
}

/* Behind "base:" (any number of them, as a client may prefix what it has from elsewhere). */
static const char *skip_base(const char *text, const char *base_name)
{
    const char *colon;
    while ((colon = strchr(text, ':'))) {
        size_t n = (size_t)(colon - text);
        bool is_base = (n == strlen(base_name) && memcmp(text, base_name, n) == 0) ||
                       (n == 4 && memcmp(text, "base", n) == 0);
        if (!is_base)
            break;
        text = colon + 1;
    }
    return text;
}

static enum status read_term(const char *text, const char **p, const char *base_name, struct voice_expr *out,
                             struct error *err)
{
    double weight = read_weight(p);
    size_t n = strcspn(*p, "+"), length = n;
    while ((*p)[n] && length > 0 && (*p)[length - 1] == ' ')
        length--;
    if (length == 0)
        return fail(err, STATUS_INVALID, "\"%.80s\": a name is missing at character %zu", text,
                    (size_t)(*p - text) + 1);
    if (memchr(*p, '*', length))
        return fail(err, STATUS_INVALID,
                    "\"%.80s\": found \"%.*s\", expected a name with a number before it, as in 0.5*%s", text,
                    (int)(length < 80 ? length : 80), *p, "pt");
    enum status s = voice_expr_add(out, *p, length, weight, base_name, err);
    *p += n;
    return s;
}

enum status voice_expr_parse(const char *text, const char *base_name, struct voice_expr *out,
                             struct error *err)
{
    out->n = 0;
    if (!text || !text[0])
        return STATUS_OK;
    const char *p = skip_base(text, base_name);
    if (!*p)
        return STATUS_OK; /* "base:" */
    for (;;) {
        enum status s = read_term(text, &p, base_name, out, err);
        if (s != STATUS_OK || !*p)
            return s;
        p = skip_spaces(p + 1);
    }
}

/* ---- comparing, writing ---- */

static uint32_t next_term(const struct voice_expr *e, uint32_t i)
{
    while (i < e->n && voice_weight(e->terms[i].weight) == 0)
        i++;
    return i;
}

bool voice_expr_equal(const struct voice_expr *a, const struct voice_expr *b)
{
    uint32_t i = next_term(a, 0), k = next_term(b, 0);
    while (i < a->n && k < b->n) {
        if (compare(&a->terms[i], &b->terms[k]) != 0 ||
            voice_weight(a->terms[i].weight) != voice_weight(b->terms[k].weight))
            return false;
        i = next_term(a, i + 1);
        k = next_term(b, k + 1);
    }
    return i == a->n && k == b->n;
}

void voice_expr_print(const struct voice_expr *e, struct buf *out)
{
    char number[32];
    for (uint32_t i = next_term(e, 0), first = i; i < e->n; i = next_term(e, i + 1)) {
        const struct voice_term *t = &e->terms[i];
        float weight = voice_weight(t->weight);
        for (int digits = 1; digits <= 9; digits++) {
            snprintf(number, sizeof number, "%.*g", digits, (double)weight);
            if (strtof(number, NULL) == weight && !strchr(number, '+')) /* 100, not 1e+02 */
                break;
        }
        buf_puts(out, i > first ? "+" : "");
        if (weight != 1)
            buf_printf(out, "%s*", number);
        buf_printf(out, "%s%s%s", t->name, t->pin[0] ? "@" : "", t->pin);
    }
}
