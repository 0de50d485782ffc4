/* Statuses and their sentences. No state. */
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[STATUS_COUNT] = {
#define STATUS_NAME(name, text) #name,
    STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
};

static const char *const texts[STATUS_COUNT] = {
#define STATUS_TEXT(name, text) text,
    STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
};

enum status vfail(struct error *err, enum status status, const char *format, va_list args)
{
    if (err) {
        err->status = status;
        vsnprintf(err->text, sizeof err->text, format, args);
    }
    return status;
}

enum status(fail)(struct error *err, enum status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfail(err, status, format, args);
    va_end(args);
    return status;
}

enum status fail_within(struct error *err, const char *format, ...)
{
    if (!err)
        return STATUS_INTERNAL;
    char text[sizeof err->text];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %s", err->text);
    memcpy(err->text, text, sizeof text);
    return err->status;
}

const char *status_name(enum status status)
{
    return (unsigned)status < STATUS_COUNT ? names[status] : "UNKNOWN";
}

const char *status_text(enum status status)
{
    return (unsigned)status < STATUS_COUNT ? texts[status] : "unknown";
}

_Noreturn void require_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: broken promise: %s\n", file, line, condition);
    abort();
}
