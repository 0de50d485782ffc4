/* Errors as values: a status for the program, a sentence for the human.
 *
 * Every call that can fail for a reason outside the program returns `enum status` and takes `struct error
 * *err` last. The text is written exactly where the failure is seen: file or field, what was found, what was
 * expected, what to do. A caller's bug is not an error: it ends in require(), which is never compiled out. */
#ifndef LK_BASE_ERROR_H
#define LK_BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

#define STATUS_LIST(X)                                                                                       \
    X(OK, "ok")                                                                                              \
    X(INVALID, "invalid argument") /* a field or flag has a value that can't be meant */                     \
    X(NOT_FOUND, "not found")      /* no such name, file or id */                                            \
    X(EXISTS, "already exists")    /* a name is taken */                                                     \
    X(CONFLICT, "conflict")        /* lost a race against another change */                                  \
    X(FULL, "full")                /* a queue or pool has reached its limit; try later */                    \
    X(LIMITED, "over the limit")   /* a caller's own limit is reached; try later */                          \
    X(FORBIDDEN, "forbidden")      /* known, but not allowed to do this */                                   \
    X(TOO_LARGE, "too large")      /* above a configured bound */                                            \
    X(FORMAT, "malformed")         /* a file or message breaks its format */                                 \
    X(UNSUPPORTED, "unsupported")  /* well-formed, but we don't do it; named, never ignored */               \
    X(MISMATCH, "mismatch")        /* an adapter that does not fit this base */                              \
    X(NO_MEMORY, "out of memory")                                                                            \
    X(IO, "input/output error")                                                                              \
    X(TIMEOUT, "timed out")                                                                                  \
    X(CANCELLED, "cancelled")                                                                                \
    X(UNAVAILABLE, "unavailable") /* loading, draining */                                                    \
    X(INTERNAL, "internal error")

enum status {
#define STATUS_ENUM(name, text) STATUS_##name,
    STATUS_LIST(STATUS_ENUM)
#undef STATUS_ENUM
        STATUS_COUNT
};

struct error {
    enum status status;
    char text[480]; /* always NUL-terminated; cut at the end if too long */
};

#define LK_MUST_USE __attribute__((warn_unused_result))

/* Fills `err` (which may be NULL) and returns `status`, so that a failure is one line: return fail(err,
 * STATUS_…, "…"). */
enum status fail(struct error *err, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* sees no bodies of other files: a failure is never STATUS_OK */
#define fail(err, status, ...) ((void)fail(err, status, __VA_ARGS__), (status))
#endif
enum status vfail(struct error *err, enum status status, const char *format, va_list args);

/* Puts "prefix: " before the text that `err` has; for callers that know the file while the callee knew the
 * field. Returns err->status. */
enum status fail_within(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "FORMAT" / "malformed"; both static strings. */
const char *status_name(enum status status);
const char *status_text(enum status status);

/* Ends the program with file and line if `condition` is false. For caller's bugs at doors; stays in release
 * builds. */
#define require(condition) ((condition) ? (void)0 : require_failed(#condition, __FILE__, __LINE__))
_Noreturn void require_failed(const char *condition, const char *file, int line);

#endif
