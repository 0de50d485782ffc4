/* The grammar of RFC 8259 as a state for each place in it, and a bit for each open bracket. */
#include "json_scan.h"

#include <stddef.h>
#include <string.h>

#define DEPTH_MAX 64U

enum {
    AT_VALUE,
    AT_FIRST_VALUE, /* behind [ */
    AT_FIRST_KEY,   /* behind { */
    AT_KEY,
    AT_COLON,
    AT_COMMA, /* or the closing bracket */
    IN_STRING,
    IN_ESCAPE,
    IN_HEX,
    IN_LITERAL,
    IN_MINUS, /* numbers: what was read last */
    IN_ZERO,
    IN_INT,
    IN_DOT,
    IN_FRACTION,
    IN_E,
    IN_E_SIGN,
    IN_EXPONENT
};

void json_scan_begin(struct json_scan *s)
{
    *s = (struct json_scan){.state = AT_VALUE};
}

bool json_scan_in_string(const struct json_scan *s)
{
    return s->state == IN_STRING;
}

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static enum scan_result value_ended(struct json_scan *s)
{
    s->state = AT_COMMA;
    return s->depth ? SCAN_MORE : SCAN_END;
}

static enum scan_result open_bracket(struct json_scan *s, bool array)
{
    if (s->depth == DEPTH_MAX)
        return SCAN_BAD;
    uint64_t bit = UINT64_C(1) << s->depth++;
    s->arrays = array ? s->arrays | bit : s->arrays & ~bit;
    s->state = array ? AT_FIRST_VALUE : AT_FIRST_KEY;
    return SCAN_MORE;
}

static bool in_array(const struct json_scan *s)
{
    return s->arrays >> (s->depth - 1) & 1;
}

static enum scan_result close_bracket(struct json_scan *s, unsigned char c)
{
    if (s->depth == 0 || c != (in_array(s) ? ']' : '}'))
        return SCAN_BAD;
    s->depth--;
    return value_ended(s);
}

static enum scan_result begin_string(struct json_scan *s, bool key)
{
    s->in_key = key;
    s->state = IN_STRING;
    return SCAN_MORE;
}

static enum scan_result begin_value(struct json_scan *s, unsigned char c)
{
    static const char *const literals[] = {"true", "false", "null"};
    if (c == '"')
        return begin_string(s, false);
    if (c == '{' || c == '[')
        return open_bracket(s, c == '[');
    if (c == '-' || is_digit(c)) {
        s->state = c == '-' ? IN_MINUS : c == '0' ? IN_ZERO : IN_INT;
        return SCAN_MORE;
    }
    for (size_t i = 0; i < 3; i++)
        if (c == (unsigned char)literals[i][0]) {
            s->rest = literals[i] + 1;
            s->state = IN_LITERAL;
            return SCAN_MORE;
        }
    return SCAN_BAD;
}

static enum scan_result in_string(struct json_scan *s, unsigned char c)
{
    if (s->state == IN_HEX) {
        bool hex = is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        s->state = --s->n_hex ? IN_HEX : IN_STRING;
        return hex ? SCAN_MORE : SCAN_BAD;
    }
    if (s->state == IN_ESCAPE) {
        s->n_hex = 4;
        s->state = c == 'u' ? IN_HEX : IN_STRING;
        return c && strchr("\"\\/bfnrtu", c) ? SCAN_MORE : SCAN_BAD;
    }
    if (c == '\\')
        s->state = IN_ESCAPE;
    if (c != '"')
        return SCAN_MORE;
    if (!s->in_key)
        return value_ended(s);
    s->state = AT_COLON;
    return SCAN_MORE;
}

/* The next place in a number, or -1: c isn't part of it. */
static int number_after(unsigned state, unsigned char c)
{
    bool digit = is_digit(c), e = c == 'e' || c == 'E';
    switch (state) {
    case IN_MINUS:
        return c == '0' ? IN_ZERO : digit ? IN_INT : -1;
    case IN_ZERO:
        return c == '.' ? IN_DOT : e ? IN_E : -1;
    case IN_INT:
        return digit ? IN_INT : c == '.' ? IN_DOT : e ? IN_E : -1;
    case IN_DOT:
    case IN_FRACTION:
        return digit ? IN_FRACTION : e && state == IN_FRACTION ? IN_E : -1;
    case IN_E:
        return digit ? IN_EXPONENT : c == '+' || c == '-' ? IN_E_SIGN : -1;
    default:
        return digit ? IN_EXPONENT : -1;
    }
}

static enum scan_result structure(struct json_scan *s, unsigned char c)
{
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r')
        return SCAN_MORE;
    switch (s->state) {
    case AT_FIRST_VALUE:
        return c == ']' ? close_bracket(s, c) : begin_value(s, c);
    case AT_VALUE:
        return begin_value(s, c);
    case AT_FIRST_KEY:
        return c == '}' ? close_bracket(s, c) : c == '"' ? begin_string(s, true) : SCAN_BAD;
    case AT_KEY:
        return c == '"' ? begin_string(s, true) : SCAN_BAD;
    case AT_COLON:
        s->state = AT_VALUE;
        return c == ':' ? SCAN_MORE : SCAN_BAD;
    default:
        break;
    }
    if (c != ',')
        return close_bracket(s, c);
    if (s->depth == 0)
        return SCAN_BAD;
    s->state = in_array(s) ? AT_VALUE : AT_KEY;
    return SCAN_MORE;
}

enum scan_result json_scan_byte(struct json_scan *s, unsigned char c)
{
    if (s->state == IN_STRING || s->state == IN_ESCAPE || s->state == IN_HEX)
        return in_string(s, c);
    if (s->state == IN_LITERAL) {
        if (c != (unsigned char)*s->rest)
            return SCAN_BAD;
        return *++s->rest ? SCAN_MORE : value_ended(s);
    }
    if (s->state >= IN_MINUS) {
        int next = number_after(s->state, c);
        if (next >= 0) {
            s->state = (uint8_t)next;
            return SCAN_MORE;
        }
        if (s->state == IN_MINUS || s->state == IN_DOT || s->state == IN_E || s->state == IN_E_SIGN)
            return SCAN_BAD;
        if (value_ended(s) == SCAN_END)
            return SCAN_PAST;
    }
    return structure(s, c);
}
