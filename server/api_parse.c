/* Typed access to JSON fields. Errors name the field, what was found and what was expected. */
#include "api_parse.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "text.h"

#define JSON_DEPTH_MAX 64U

const char *describe_json(const json_t *v, char *dst, size_t dst_bytes)
{
    if (!v) {
        snprintf(dst, dst_bytes, "nothing");
        return dst;
    }
    switch (json_typeof(v)) {
    case JSON_STRING:
        snprintf(dst, dst_bytes, "the string \"%.*s%s\"",
                 (int)utf8_valid_prefix(json_string_value(v), strnlen(json_string_value(v), 40)),
                 json_string_value(v), json_string_length(v) > 40 ? "…" : "");
        break;
    case JSON_INTEGER:
        snprintf(dst, dst_bytes, "the number %lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        snprintf(dst, dst_bytes, "the number %g", json_real_value(v));
        break;
    case JSON_TRUE:
        snprintf(dst, dst_bytes, "true");
        break;
    case JSON_FALSE:
        snprintf(dst, dst_bytes, "false");
        break;
    case JSON_NULL:
        snprintf(dst, dst_bytes, "null");
        break;
    case JSON_ARRAY:
        snprintf(dst, dst_bytes, "an array of %zu", json_array_size(v));
        break;
    case JSON_OBJECT:
        snprintf(dst, dst_bytes, "an object");
        break;
    }
    return dst;
}

void read_fail(struct reader *r, enum status s, const char *param, const char *format, ...)
{
    if (r->status != STATUS_OK)
        return;
    char text[480];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status = fault_set(r->fault, s, param, "%s", text);
}

static void wrong(struct reader *r, const char *key, const json_t *found, const char *expected)
{
    char text[96];
    read_fail(r, STATUS_INVALID, key, "%s: found %s, expected %s", key,
              describe_json(found, text, sizeof text), expected);
}

static const json_t *field(const struct reader *r, const char *key)
{
    const json_t *v = r->status == STATUS_OK ? json_object_get(r->object, key) : NULL;
    return json_is_null(v) ? NULL : v;
}

bool read_bool(struct reader *r, const char *key, bool *out)
{
    const json_t *v = field(r, key);
    if (!v)
        return false;
    if (!json_is_boolean(v)) {
        wrong(r, key, v, "true or false");
        return false;
    }
    *out = json_is_true(v);
    return true;
}

static bool as_int(const json_t *v, int64_t *out)
{
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    double d = json_is_real(v) ? json_real_value(v) : NAN;
    if (!(fabs(d) < 9e15) || d != floor(d))
        return false;
    *out = (int64_t)d;
    return true;
}

bool read_int(struct reader *r, const char *key, int64_t min, int64_t max, int64_t *out)
{
    const json_t *v = field(r, key);
    int64_t n;
    if (!v)
        return false;
    if (!as_int(v, &n) || n < min || n > max) {
        char expected[96];
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)min,
                 (long long)max);
        wrong(r, key, v, expected);
        return false;
    }
    *out = n;
    return true;
}

bool read_float(struct reader *r, const char *key, double min, double max, double *out)
{
    const json_t *v = field(r, key);
    if (!v)
        return false;
    double d = json_is_number(v) ? json_number_value(v) : NAN;
    if (!(d >= min && d <= max)) { /* NaN fails both */
        char expected[96];
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
        wrong(r, key, v, expected);
        return false;
    }
    *out = d;
    return true;
}

bool read_text(struct reader *r, const char *key, const char **out)
{
    const json_t *v = field(r, key);
    if (!v)
        return false;
    if (!json_is_string(v)) {
        wrong(r, key, v, "a string");
        return false;
    }
    *out = json_string_value(v);
    return true;
}

bool read_object(struct reader *r, const char *key, const json_t **out)
{
    const json_t *v = field(r, key);
    if (!v)
        return false;
    if (!json_is_object(v)) {
        wrong(r, key, v, "an object");
        return false;
    }
    *out = v;
    return true;
}

bool read_array(struct reader *r, const char *key, const json_t **out)
{
    const json_t *v = field(r, key);
    if (!v)
        return false;
    if (!json_is_array(v)) {
        wrong(r, key, v, "an array");
        return false;
    }
    *out = v;
    return true;
}

bool read_token_id(struct reader *r, const json_t *item, const char *where, size_t index, uint32_t n_vocab,
                   int32_t *out)
{
    int64_t id;
    if (r->status != STATUS_OK)
        return false;
    if (!as_int(item, &id) || id < 0 || id >= n_vocab) {
        char text[96];
        read_fail(r, STATUS_INVALID, where, "%s[%zu]: found %s, expected a token id from 0 to %u", where,
                  index, describe_json(item, text, sizeof text), n_vocab - 1);
        return false;
    }
    *out = (int32_t)id;
    return true;
}

bool json_is_set(const json_t *v)
{
    if (!v || json_is_null(v) || json_is_false(v))
        return false;
    if (json_is_number(v))
        return json_number_value(v) != 0;
    if (json_is_string(v))
        return json_string_length(v) > 0;
    return json_is_true(v) || json_array_size(v) > 0 || json_object_size(v) > 0;
}

enum status parse_body(const char *body, size_t length, json_t **out, struct fault *f)
{
    *out = NULL;
    struct error err;
    if (length == 0)
        return fault_set(f, STATUS_INVALID, NULL, "the body is empty; expected a JSON object");
    enum status s = json_parse(body, length, "body", JSON_DEPTH_MAX, out, &err);
    if (s != STATUS_OK)
        return fault_set(f, s, NULL, "%s", err.text);
    if (json_is_object(*out))
        return STATUS_OK;
    char text[96];
    s = fault_set(f, STATUS_INVALID, NULL, "the body is %s, expected a JSON object",
                  describe_json(*out, text, sizeof text));
    json_decref(*out);
    *out = NULL;
    return s;
}
