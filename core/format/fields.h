/* Reading fields of a JSON object with the first failure kept, so that a parser is a list of assignments and
 * one check at its end. Inner wall of core/format. */
#ifndef LK_FORMAT_FIELDS_H
#define LK_FORMAT_FIELDS_H

#include <jansson.h>

#include "format.h"

struct fields {
    const json_t *object;
    const char *shown;   /* the file, for messages */
    const char *section; /* "rope_scaling." or "" */
    enum status status;  /* STATUS_OK until something was wrong; then later reads give fallbacks */
    struct error *err;
};

/* The member, or NULL if it is absent or null. */
const json_t *field_get(const struct fields *f, const char *key);
/* Whole numbers may be written as 8 or 8.0. Absent or null: fallback, whatever the bounds. */
uint32_t field_u32(struct fields *f, const char *key, uint32_t fallback, uint32_t min, uint32_t max);
double field_f64(struct fields *f, const char *key, double fallback, double min, double max);
bool field_bool(struct fields *f, const char *key, bool fallback);
const char *field_text(struct fields *f, const char *key, const char *fallback);
/* Records a failure about `key` (unless there is one already). */
void field_fail(struct fields *f, enum status status, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
