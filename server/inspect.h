/* The parts of `lorikeet inspect`. Inner wall of server. */
#ifndef LK_SERVER_INSPECT_H
#define LK_SERVER_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

struct json_t;

/* An adapter's numbers on standard output; an exit code. */
int inspect_adapter(const char *path, bool json);

void inspect_print_bytes(const char *label, uint64_t n);
/* Prints and releases it; NULL or short memory: says so, and false. */
bool inspect_print_json(struct json_t *o);

#endif
