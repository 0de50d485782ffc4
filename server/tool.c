/* Signals, arguments and failures of the commands that write files. No state: a held signal is the kernel's
 * to remember. */
#include "tool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static sigset_t ending_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

void tool_hold_signals(void)
{
    sigset_t set = ending_signals();
    sigaddset(&set, SIGXFSZ); /* for good: a file too large is an error of write, and is cleaned up as one */
    sigprocmask(SIG_BLOCK, &set, NULL);
}

void tool_release_signals(void)
{
    sigset_t set = ending_signals();
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

bool tool_stopped(void)
{
    sigset_t pending;
    sigemptyset(&pending);
    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
            sigismember(&pending, SIGHUP) == 1);
}

bool tool_float_type(const char *name, enum dtype *out)
{
    return dtype_from_name(name, out) && dtype_is_float(*out);
}

bool tool_count(const char *text, unsigned long max, unsigned long *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    *out = strtoul(text, &end, 10);
    return *end == '\0' && *out >= 1 && *out <= max;
}

int tool_fail(const struct error *err)
{
    fprintf(stderr, "lorikeet: %s\n", err->text);
    return 1;
}
