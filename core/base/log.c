/* Log lines. A line is made in a buffer on the stack and written with one write(2), so lines of several
 * threads do not mix. A line that can't be written is lost on purpose: a full disk must not stop the server.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_BYTES 4096

struct line {
    char text[LINE_BYTES];
    size_t length;
};

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};

static void put(struct line *l, const char *s, size_t n)
{
    /* Room for the end of the line ("}\n) is always kept. */
    size_t room = sizeof l->text - 4 - l->length;
    if (n > room)
        n = room;
    memcpy(l->text + l->length, s, n);
    l->length += n;
}

static void put_text(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* Bytes of the UTF-8 character that s begins with (RFC 3629, section 4), or 0. */
static size_t character_bytes(const char *s)
{
    const unsigned char *c = (const unsigned char *)s;
    size_t n = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    unsigned char low = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < n; i++) {
        if (c[i] < low || c[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

/* Control characters and quotes escaped as in JSON, in both forms: a stranger's text can't fake a line. What
 * isn't UTF-8 (a header's bytes, a text that was cut) becomes U+FFFD. A whole escape or character is put or
 * nothing, so a cut line is still valid. */
static void put_quoted(struct line *l, const char *s)
{
    put(l, "\"", 1);
    for (; *s && l->length < sizeof l->text - 16; s++) {
        unsigned char c = (unsigned char)*s;
        char escape[8];
        size_t n = character_bytes(s);
        if (n == 0)
            put(l, "\xef\xbf\xbd", 3);
        else if (c == '"' || c == '\\')
            put(l, (char[]){'\\', (char)c}, 2);
        else if (c < 0x20 || c == 0x7f)
            put(l, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
        else
            put(l, s, n);
        s += n > 1 ? n - 1 : 0;
    }
    put(l, "\"", 1);
}

static void put_time(struct line *l)
{
    int64_t ms = clock_wall_ms();
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char text[40];
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(text + n, sizeof text - n, ".%03dZ", (int)(ms % 1000));
    put(l, text, n);
}

static void put_field(struct line *l, const struct log_field *f, bool json)
{
    put_text(l, json ? "," : " ");
    if (json)
        put_quoted(l, f->key);
    else
        put_text(l, f->key);
    put_text(l, json ? ":" : "=");
    char number[40];
    if (f->text)
        put_quoted(l, f->text);
    else
        put(l, number, (size_t)snprintf(number, sizeof number, "%.15g", f->number));
}

void log_event(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields, int n_fields)
{
    if (!log || log->fd < 0 || level < log->level)
        return;
    struct line l = {.length = 0};
    put_text(&l, log->json ? "{\"time\":\"" : "");
    put_time(&l);
    put_text(&l, log->json ? "\",\"level\":\"" : " ");
    put_text(&l, level_names[level]);
    put_text(&l, log->json ? "\",\"message\":" : " ");
    if (log->json) {
        put_quoted(&l, message);
    } else {
        for (const char *s = message; *s; s++)
            put(&l, (unsigned char)*s < 0x20 ? " " : s, 1);
    }
    for (int i = 0; i < n_fields; i++)
        put_field(&l, &fields[i], log->json);
    memcpy(l.text + l.length, log->json ? "}\n" : "\n", log->json ? 2 : 1);
    l.length += log->json ? 2 : 1;
    ssize_t written = write(log->fd, l.text, l.length);
    (void)written;
}

void log_line(const struct log *log, enum log_level level, const char *format, ...)
{
    if (!log || level < log->level)
        return;
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_event(log, level, text, NULL, 0);
}
