/* One number or text laid out in a field: what % formatting and str.format share. Inner header. */
#ifndef LK_JINJA_NUMBER_H
#define LK_JINJA_NUMBER_H

#include "jinja_value.h"

struct field {
    char fill[4];
    size_t fill_len;
    char align;           /* '<', '>', '^', '=' (between sign and digits) or 0: the type's own */
    char sign;            /* '+', ' ' or 0 */
    bool alternate, zero; /* # and 0 were given */
    bool no_minus_zero;   /* z was given */
    char group;           /* ',' or '_' or 0 */
    int64_t width;        /* 0: none */
    int64_t precision;    /* -1: none */
    char type;            /* 0: none given */
};

bool field_check(struct render *r, const struct field *f); /* width and precision within bounds */
bool field_put_text(struct render *r, const struct field *f, const struct jstr *s);
bool field_put_int(struct render *r, const struct field *f, int64_t v);  /* b d o x X */
bool field_put_float(struct render *r, const struct field *f, double v); /* e E f F g G % or 0 */

#endif
