/* JSON out. Hand-made because a token's chunk is the hottest thing that the front thread makes: no tree, no
 * allocation beyond the buffer. */
#include "api_render.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "request.h"
#include "text.h"

static void before_value(struct jw *w)
{
    if (w->comma)
        buf_putc(w->out, ',');
    w->comma = true;
}

void jw_begin(struct jw *w, char bracket)
{
    before_value(w);
    buf_putc(w->out, bracket);
    w->comma = false;
}

void jw_end(struct jw *w, char bracket)
{
    buf_putc(w->out, bracket);
    w->comma = true;
}

/* Plain runs are copied whole. */
void json_escape(struct buf *out, const char *s, size_t length)
{
    size_t begin = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        buf_append(out, s + begin, i - begin);
        begin = i + 1;
        switch (c) {
        case '"':
            buf_puts(out, "\\\"");
            break;
        case '\\':
            buf_puts(out, "\\\\");
            break;
        case '\n':
            buf_puts(out, "\\n");
            break;
        case '\t':
            buf_puts(out, "\\t");
            break;
        case '\r':
            buf_puts(out, "\\r");
            break;
        default:
            buf_printf(out, "\\u%04x", c);
        }
    }
    buf_append(out, s + begin, length - begin);
}

void jw_bytes(struct jw *w, const char *s, size_t length)
{
    before_value(w);
    buf_putc(w->out, '"');
    while (length) {
        size_t n = utf8_valid_prefix(s, length);
        json_escape(w->out, s, n);
        s += n;
        length -= n;
        if (length) {
            buf_puts(w->out, "\xef\xbf\xbd");
            s++;
            length--;
        }
    }
    buf_putc(w->out, '"');
}

void jw_text(struct jw *w, const char *s)
{
    if (s)
        jw_bytes(w, s, strlen(s));
    else
        jw_null(w);
}

void jw_key(struct jw *w, const char *key)
{
    jw_text(w, key);
    buf_putc(w->out, ':');
    w->comma = false;
}

void jw_int(struct jw *w, int64_t v)
{
    before_value(w);
    buf_printf(w->out, "%lld", (long long)v);
}

void jw_float(struct jw *w, double v)
{
    if (!isfinite(v)) {
        jw_null(w);
        return;
    }
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if ((float)strtod(text, NULL) == (float)v)
            break;
    }
    before_value(w);
    buf_puts(w->out, text);
    if (!strpbrk(text, ".en")) /* clients with typed models want a float to look like one */
        buf_puts(w->out, ".0");
}

void jw_bool(struct jw *w, bool v)
{
    before_value(w);
    buf_puts(w->out, v ? "true" : "false");
}

void jw_null(struct jw *w)
{
    before_value(w);
    buf_puts(w->out, "null");
}

void jw_raw(struct jw *w, const char *json, size_t length)
{
    if (!length)
        return;
    before_value(w);
    buf_append(w->out, json, length);
}

void jw_key_text(struct jw *w, const char *key, const char *s)
{
    jw_key(w, key);
    jw_text(w, s);
}

void jw_key_int(struct jw *w, const char *key, int64_t v)
{
    jw_key(w, key);
    jw_int(w, v);
}

void jw_key_float(struct jw *w, const char *key, double v)
{
    jw_key(w, key);
    jw_float(w, v);
}

void jw_key_bool(struct jw *w, const char *key, bool v)
{
    jw_key(w, key);
    jw_bool(w, v);
}

void jw_key_time(struct jw *w, const char *key, int64_t wall_ms)
{
    char text[40];
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    size_t n = gmtime_r(&seconds, &tm) ? strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) : 0;
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(wall_ms % 1000));
    jw_key_text(w, key, text);
}

/* ---- errors */

enum status fault_set(struct fault *f, enum status status, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfail(&f->error, status, format, args);
    va_end(args);
    snprintf(f->param, sizeof f->param, "%s", param ? param : "");
    f->code[0] = '\0';
    return status;
}

int http_status_of(enum status s)
{
    switch (s) {
    case STATUS_OK:
        return 200;
    case STATUS_INVALID:
    case STATUS_FORMAT:
    case STATUS_UNSUPPORTED:
    case STATUS_MISMATCH:
    case STATUS_TOO_LARGE: /* a prompt above the context is the client's 400, as OpenAI has it */
    case STATUS_EXISTS:
        return 400;
    case STATUS_NOT_FOUND:
        return 404;
    case STATUS_CONFLICT:
        return 409;
    case STATUS_LIMITED:
        return 429;
    case STATUS_FORBIDDEN:
        return 403;
    case STATUS_FULL:
    case STATUS_UNAVAILABLE:
    case STATUS_NO_MEMORY:
    case STATUS_CANCELLED:
        return 503;
    case STATUS_TIMEOUT:
        return 408;
    case STATUS_IO:
    case STATUS_INTERNAL:
    case STATUS_COUNT:
        break;
    }
    return 500;
}

const char *error_type_of(int http_status)
{
    switch (http_status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    case 503:
        return "service_unavailable_error";
    default:
        return http_status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static const char *anthropic_type_of(int http_status)
{
    switch (http_status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 503:
        return "overloaded_error";
    default:
        return http_status >= 500 ? "api_error" : "invalid_request_error";
    }
}

void render_fault(struct buf *out, enum error_form form, int http_status, const struct fault *f)
{
    struct jw w = {.out = out};
    jw_begin(&w, '{');
    if (form == ERRORS_OLLAMA) {
        jw_key_text(&w, "error", f->error.text);
        jw_end(&w, '}');
        return;
    }
    if (form == ERRORS_ANTHROPIC)
        jw_key_text(&w, "type", "error");
    jw_key(&w, "error");
    jw_begin(&w, '{');
    if (form == ERRORS_ANTHROPIC) {
        jw_key_text(&w, "type", anthropic_type_of(http_status));
        jw_key_text(&w, "message", f->error.text);
    } else {
        jw_key_text(&w, "message", f->error.text);
        jw_key_text(&w, "type", error_type_of(http_status));
        jw_key_text(&w, "param", f->param[0] ? f->param : NULL);
        jw_key_text(&w, "code", f->code[0] ? f->code : NULL);
    }
    jw_end(&w, '}');
    jw_end(&w, '}');
}

static struct fault make_fault(const char *message, const char *param, const char *code)
{
    struct fault f;
    fault_set(&f, STATUS_INTERNAL, param, "%s", message);
    snprintf(f.code, sizeof f.code, "%s", code ? code : "");
    return f;
}

void render_error(struct buf *out, int http_status, const char *message, const char *param, const char *code)
{
    struct fault f = make_fault(message, param, code);
    render_fault(out, ERRORS_OPENAI, http_status, &f);
}

void reply_json(struct request *r, int http_status, struct buf *body)
{
    if (body->failed) {
        static const char text[] =
            "{\"error\":{\"message\":\"no memory for the answer\",\"type\":\"server_error\","
            "\"param\":null,\"code\":null}}";
        reply_send(r, 503, "application/json", text, sizeof text - 1);
        return;
    }
    reply_take(r, http_status, "application/json", body);
}

void reply_error(struct request *r, int http_status, const char *message, const char *param, const char *code)
{
    struct buf b;
    struct fault f = make_fault(message, param, code);
    buf_init(&b, 0);
    render_fault(&b, r->error_form, http_status, &f);
    reply_json(r, http_status, &b);
    buf_fini(&b);
}

void reply_fault(struct request *r, const struct fault *f)
{
    int status = http_status_of(f->error.status);
    const char *code = f->code;
    if (f->error.status == STATUS_FULL || f->error.status == STATUS_UNAVAILABLE) {
        reply_header(r, "Retry-After", "1");
        reply_header(r, "X-Reason", f->error.status == STATUS_FULL ? "overloaded" : "unavailable");
        code = code[0] ? code : "overloaded";
    }
    reply_error(r, status, f->error.text, f->param, code);
}
