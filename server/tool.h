/* What the commands that write files share. Inner wall of server. */
#ifndef LK_SERVER_TOOL_H
#define LK_SERVER_TOOL_H

#include <stdbool.h>

#include "base/dtype.h"

struct error;

/* Between these two SIGINT, SIGTERM and SIGHUP wait, so that what was begun is removed before they act: a
 * writer asks tool_stopped, ends, cleans up, and tool_release_signals lets the signal end the program.
 * Thread: main, before others are started. */
void tool_hold_signals(void);
void tool_release_signals(void);
bool tool_stopped(void);

/* "f32", "f16" or "bf16"; false for anything else. */
bool tool_float_type(const char *name, enum dtype *out);
/* A whole number from 1 to max; false for anything else. */
bool tool_count(const char *text, unsigned long max, unsigned long *out);
/* Prints "lorikeet: TEXT"; the exit code 1. */
int tool_fail(const struct error *err);

#endif
