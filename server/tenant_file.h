/* The tenants file: the same settings as the operators' API takes, in YAML, for those who keep their
 * configuration in a repository. It holds hashes of keys, never keys. */
#ifndef LK_TENANT_FILE_H
#define LK_TENANT_FILE_H

#include "base/error.h"
#include "tenants.h"

/* Reads and checks all of it; errors name the file and the tenant. Thread: any. On failure *out is empty. */
LK_MUST_USE enum status tenants_file_read(const char *path, struct tenants_file *out, struct error *err);
void tenants_file_fini(struct tenants_file *f);

/* Puts it in the place of the file before, or changes nothing: STATUS_EXISTS, STATUS_FULL, STATUS_NO_MEMORY.
 * Takes the specs. Thread: front. */
LK_MUST_USE enum status tenants_file_apply(struct tenants *t, struct tenants_file *f, const char *path,
                                           struct error *err);

#endif
