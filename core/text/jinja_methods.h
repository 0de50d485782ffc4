/* Helpers of the string methods. Inner header. */
#ifndef LK_JINJA_METHODS_H
#define LK_JINJA_METHODS_H

#include "jinja.h"

/* A required string argument. False: another type, error written. */
static inline bool need_str(struct render *r, const struct call *c, int i, const struct jstr **out)
{
    if (c->a[i].tag == JV_STR) {
        *out = c->a[i].s;
        return true;
    }
    if (c->a[i].tag == JV_UNDEFINED)
        jv_raise(r, "TypeError", "must be str, not Undefined");
    else
        jv_raise(r, "TypeError", "must be str, not %s", jv_type_name(c->a[i]));
    return false;
}

#endif
