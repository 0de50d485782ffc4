/* Arithmetic, comparison and rounding as Python does them, with 64-bit integers: what doesn't fit is an
 * error, never a wrap. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jinja.h"

static struct jv overflow(struct render *r)
{
    return jv_raise(r, "OverflowError", "the result doesn't fit into 64 bits");
}

static const char *op_text(int op)
{
    switch (op) {
    case T_ADD:
        return "+";
    case T_SUB:
        return "-";
    case T_MUL:
        return "*";
    case T_DIV:
        return "/";
    case T_FLOORDIV:
        return "//";
    case T_MOD:
        return "%";
    case T_POW:
        return "** or pow()";
    case T_LT:
        return "<";
    case T_LE:
        return "<=";
    case T_GT:
        return ">";
    default:
        return ">=";
    }
}

static struct jv int_pow(struct render *r, int64_t base, int64_t exponent)
{
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            return overflow(r);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) {
            return overflow(r);
        }
    }
    return jv_int(result);
}

static struct jv int_op(struct render *r, int op, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool over = false;
    switch (op) {
    case T_ADD:
        over = __builtin_add_overflow(a, b, &result);
        break;
    case T_SUB:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case T_MUL:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case T_DIV:
        if (b == 0)
            return jv_raise(r, "ZeroDivisionError", "division by zero");
        return jv_float((double)((long double)a / (long double)b));
    case T_FLOORDIV:
    case T_MOD:
        if (b == 0)
            return jv_raise(r, "ZeroDivisionError",
                            op == T_MOD ? "integer modulo by zero" : "integer division or modulo by zero");
        if (b == -1) {
            over = op == T_FLOORDIV && __builtin_sub_overflow(0, a, &result);
            result = op == T_MOD ? 0 : result;
            break;
        }
        result = op == T_FLOORDIV ? a / b - (a % b != 0 && (a < 0) != (b < 0))
                                  : a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
        break;
    default:
        return int_pow(r, a, b);
    }
    return over ? overflow(r) : jv_int(result);
}

/* Python's float_divmod: the quotient is rounded down, the remainder has the divisor's sign. */
static struct jv float_divmod(int op, double a, double b)
{
    double mod = fmod(a, b), div = (a - mod) / b, whole;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1.0;
        }
    } else {
        mod = copysign(0.0, b);
    }
    if (div != 0) {
        whole = floor(div);
        whole += div - whole > 0.5;
    } else {
        whole = copysign(0.0, a / b);
    }
    return jv_float(op == T_MOD ? mod : whole);
}

static struct jv float_op(struct render *r, int op, double a, double b)
{
    switch (op) {
    case T_ADD:
        return jv_float(a + b);
    case T_SUB:
        return jv_float(a - b);
    case T_MUL:
        return jv_float(a * b);
    case T_DIV:
        if (b == 0)
            return jv_raise(r, "ZeroDivisionError", "float division by zero");
        return jv_float(a / b);
    case T_FLOORDIV:
    case T_MOD:
        if (b == 0)
            return jv_raise(r, "ZeroDivisionError",
                            op == T_MOD ? "float modulo" : "float floor division by zero");
        return float_divmod(op, a, b);
    default:
        break;
    }
    if (a == 0 && b < 0)
        return jv_raise(r, "ZeroDivisionError", "0.0 cannot be raised to a negative power");
    if (a < 0 && b != floor(b) && !isinf(a) && !isinf(b))
        return jv_raise(r, "ValueError", "a negative number to a fractional power would be complex");
    double result = pow(a, b);
    if (isinf(result) && !isinf(a) && !isinf(b))
        return jv_raise(r, "OverflowError", "(34, 'Numerical result out of range')");
    return jv_float(result);
}

static struct jv repeat(struct render *r, struct jv v, int64_t times)
{
    if (v.tag == JV_STR)
        return jv_of_str(jstr_repeat(r, v.s, times));
    size_t n;
    if (times <= 0)
        return jv_of_seq(v.tag, jseq_new(r, 0));
    if (!size_mul(v.seq->n, (size_t)times, &n) || n > r->memory_limit / sizeof(struct jv))
        return jv_too_large(r, "a list of %zu items repeated %lld times", v.seq->n, (long long)times);
    struct jseq *s = jseq_new(r, n);
    for (size_t i = 0; s && i < n; i++)
        s->items[i] = v.seq->items[i % v.seq->n];
    return jv_of_seq(v.tag, s);
}

static struct jv concat(struct render *r, struct jv a, struct jv b)
{
    if (a.tag == JV_STR && b.tag == JV_STR)
        return jv_of_str(jstr_cat(r, a.s, b.s));
    if (jv_is_seq(a) && a.tag == b.tag)
        return jv_of_seq(a.tag, jseq_cat(r, a.seq, b.seq));
    if (a.tag == JV_STR || jv_is_seq(a))
        return jv_raise(r, "TypeError", "can only concatenate %s (not \"%s\") to %s", jv_type_name(a),
                        jv_type_name(b), jv_type_name(a));
    return jv_raise(r, "TypeError", "unsupported operand type(s) for +: '%s' and '%s'", jv_type_name(a),
                    jv_type_name(b));
}

struct jv jv_binary(struct render *r, int op, struct jv a, struct jv b)
{
    if (jv_is_int(a) && jv_is_int(b) && !(op == T_POW && jv_as_int(b) < 0))
        return int_op(r, op, jv_as_int(a), jv_as_int(b));
    if (jv_is_number(a) && jv_is_number(b))
        return float_op(r, op, jv_as_float(a), jv_as_float(b));
    if (op == T_MOD && a.tag == JV_STR)
        return jv_format_percent(r, a.s, b);
    if (a.tag == JV_UNDEFINED || b.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, a.tag == JV_UNDEFINED ? a : b);
    if (op == T_ADD)
        return concat(r, a, b);
    bool a_repeats = a.tag == JV_STR || jv_is_seq(a), b_repeats = b.tag == JV_STR || jv_is_seq(b);
    if (op == T_MUL && a_repeats && jv_is_int(b))
        return repeat(r, a, jv_as_int(b));
    if (op == T_MUL && b_repeats && jv_is_int(a))
        return repeat(r, b, jv_as_int(a));
    if (op == T_MUL && (a_repeats || b_repeats))
        return jv_raise(r, "TypeError", "can't multiply sequence by non-int of type '%s'",
                        jv_type_name(a_repeats ? b : a));
    return jv_raise(r, "TypeError", "unsupported operand type(s) for %s: '%s' and '%s'", op_text(op),
                    jv_type_name(a), jv_type_name(b));
}

struct jv jv_negate(struct render *r, struct jv v)
{
    if (v.tag == JV_FLOAT)
        return jv_float(-v.f);
    if (jv_is_int(v))
        return int_op(r, T_SUB, 0, jv_as_int(v));
    if (v.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, v);
    return jv_raise(r, "TypeError", "bad operand type for unary -: '%s'", jv_type_name(v));
}

static bool comparable(struct jv a, struct jv b)
{
    return (jv_is_number(a) && jv_is_number(b)) || (a.tag == b.tag && (a.tag == JV_STR || jv_is_seq(a))) ||
           a.tag == JV_UNDEFINED || b.tag == JV_UNDEFINED; /* the last two: jv_less raises */
}

struct jv jv_compare(struct render *r, int op, struct jv a, struct jv b)
{
    struct jv result;
    if (op == T_EQ || op == T_NE) {
        result = jv_equal(r, a, b);
        return jv_is_error(result) ? result : jv_bool(result.b == (op == T_EQ));
    }
    if (op == T_IN || op == T_NOT_IN) {
        result = jv_contains(r, b, a);
        return jv_is_error(result) ? result : jv_bool(result.b == (op == T_IN));
    }
    if (!comparable(a, b))
        return jv_raise(r, "TypeError", "'%s' not supported between instances of '%s' and '%s'", op_text(op),
                        jv_type_name(a), jv_type_name(b));
    bool swap = op == T_GT || op == T_GE;
    result = jv_less(r, swap ? b : a, swap ? a : b, op_text(op));
    if (jv_is_error(result) || result.b || op == T_LT || op == T_GT)
        return result;
    return jv_equal(r, a, b);
}

/* ---- rounding half to even */

static struct jv round_int(struct render *r, int64_t v, int64_t digits)
{
    int64_t unit = 1;
    if (digits >= 0)
        return jv_int(v);
    for (int64_t i = 0; i > digits; i--)
        if (__builtin_mul_overflow(unit, 10, &unit))
            return jv_int(0);
    int64_t rest = v % unit, base = v - rest;
    if (rest < 0) {
        rest += unit;
        if (__builtin_sub_overflow(base, unit, &base))
            return overflow(r);
    }
    bool up = rest > unit / 2 || (rest == unit / 2 && (base / unit) % 2 != 0);
    return up ? int_op(r, T_ADD, base, unit) : jv_int(base);
}

struct jv jv_round(struct render *r, struct jv v, int64_t digits)
{
    char text[512];
    if (jv_is_int(v))
        return round_int(r, jv_as_int(v), digits);
    if (v.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, v);
    if (v.tag != JV_FLOAT)
        return jv_raise(r, "TypeError", "type %s doesn't define __round__ method", jv_type_name(v));
    if (isnan(v.f) || isinf(v.f) || digits > 300)
        return v;
    /* The C library rounds the exact binary value, half to even, as Python does. */
    if (digits < 0) {
        snprintf(text, sizeof text, "%.30e", v.f);
        double unit = digits < -308 ? HUGE_VAL : pow(10, (double)-digits);
        int64_t kept = atoi(strchr(text, 'e') + 1) + digits; /* significant digits but one */
        if (kept < 0)
            return jv_float(copysign(fabs(v.f) > unit / 2 ? unit : 0.0, v.f));
        snprintf(text, sizeof text, "%.*e", (int)kept, v.f);
        return jv_float(strtod(text, NULL));
    }
    snprintf(text, sizeof text, "%.*f", digits > 150 ? 150 : (int)digits, v.f);
    return jv_float(strtod(text, NULL));
}
