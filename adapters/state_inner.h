/* What state.c and state_name.c share. */
#ifndef LK_STATE_INNER_H
#define LK_STATE_INNER_H

#include "state.h"

/* Which field is out of range; NULL: none. The same on the way in and on the way out. Pure. */
const char *state_name_fault(const struct state_name *n);

#endif
