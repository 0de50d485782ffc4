/* JSON out: a small writer into a buffer, and errors in the forms that clients read. Pure. */
#ifndef LK_API_RENDER_H
#define LK_API_RENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "request.h"

/* Writes one JSON value; commas are its business. Failures stay in out->failed. */
struct jw {
    struct buf *out;
    bool comma; /* something stands before at this level */
};
void jw_begin(struct jw *w, char bracket); /* '{' or '[' */
void jw_end(struct jw *w, char bracket);   /* '}' or ']' */
void jw_key(struct jw *w, const char *key);
void jw_text(struct jw *w, const char *s); /* NULL: null */
/* Bytes that may not be UTF-8: what isn't becomes U+FFFD. */
void jw_bytes(struct jw *w, const char *s, size_t length);
/* The inside of a JSON string: `s` is valid UTF-8. */
void json_escape(struct buf *out, const char *s, size_t length);
void jw_int(struct jw *w, int64_t v);
void jw_float(struct jw *w, double v); /* shortest text that reads back as the same float; not finite: null */
void jw_bool(struct jw *w, bool v);
void jw_null(struct jw *w);
void jw_raw(struct jw *w, const char *json, size_t length); /* a finished value (or values with commas) */

/* key and value in one */
void jw_key_text(struct jw *w, const char *key, const char *s);
void jw_key_int(struct jw *w, const char *key, int64_t v);
void jw_key_float(struct jw *w, const char *key, double v);
void jw_key_bool(struct jw *w, const char *key, bool v);
void jw_key_time(struct jw *w, const char *key, int64_t wall_ms); /* "2026-01-31T23:59:59.999Z" */

/* What went wrong with a request. */
struct fault {
    struct error error;
    char param[96]; /* the field, or empty */
    char code[48];  /* OpenAI's error.code, or empty */
};
/* Fills and returns f->error.status. */
enum status fault_set(struct fault *f, enum status status, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

int http_status_of(enum status s);          /* the only place that maps one to the other */
const char *error_type_of(int http_status); /* "invalid_request_error" … */
/* OpenAI: {"error":{"message","type","param","code"}}. Anthropic:
 * {"type":"error","error":{"type","message"}}. Ollama: {"error":message}. */
void render_fault(struct buf *out, enum error_form form, int http_status, const struct fault *f);
/* In OpenAI's form; param and code may be NULL. */
void render_error(struct buf *out, int http_status, const char *message, const char *param, const char *code);

/* Sends the fault as the whole answer, with Retry-After where it helps. */
void reply_fault(struct request *r, const struct fault *f);
void reply_error(struct request *r, int http_status, const char *message, const char *param,
                 const char *code);
void reply_json(struct request *r, int http_status, struct buf *body); /* takes the memory */

#endif
