/* Typed reading of JSON members; see fields.h. No state. */
#include "fields.h"

#include <math.h>
#include <stdio.h>

const json_t *field_get(const struct fields *f, const char *key)
{
    const json_t *v = json_object_get(f->object, key);
    return json_is_null(v) ? NULL : v;
}

void field_fail(struct fields *f, enum status status, const char *key, const char *format, ...)
{
    char text[300];
    if (f->status != STATUS_OK)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    f->status = fail(f->err, status, "%s: %s%s %s", f->shown, f->section, key, text);
}

double field_f64(struct fields *f, const char *key, double fallback, double min, double max)
{
    const json_t *v = field_get(f, key);
    if (!v)
        return fallback;
    if (!json_is_number(v)) {
        field_fail(f, STATUS_FORMAT, key, "is not a number");
        return fallback;
    }
    double d = json_number_value(v);
    if (!(d >= min && d <= max)) {
        field_fail(f, STATUS_FORMAT, key, "is %g, expected %g to %g", d, min, max);
        return fallback;
    }
    return d;
}

uint32_t field_u32(struct fields *f, const char *key, uint32_t fallback, uint32_t min, uint32_t max)
{
    if (!field_get(f, key))
        return fallback;
    double d = field_f64(f, key, fallback, min, max);
    if (d != floor(d)) {
        field_fail(f, STATUS_FORMAT, key, "is %g, expected a whole number", d);
        return fallback;
    }
    return (uint32_t)d;
}

bool field_bool(struct fields *f, const char *key, bool fallback)
{
    const json_t *v = field_get(f, key);
    if (v && !json_is_boolean(v))
        field_fail(f, STATUS_FORMAT, key, "is neither true nor false");
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

const char *field_text(struct fields *f, const char *key, const char *fallback)
{
    const json_t *v = field_get(f, key);
    if (v && !json_is_string(v))
        field_fail(f, STATUS_FORMAT, key, "is not a string");
    return json_is_string(v) ? json_string_value(v) : fallback;
}
