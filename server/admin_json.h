/* How operators see adapters: JSON of names, versions and changes, and stable error codes. Pure rendering. */
#ifndef LK_ADMIN_JSON_H
#define LK_ADMIN_JSON_H

#include "api_render.h"
#include "registry.h"

struct server;

void put_adapter(struct jw *w, const struct server *s, const struct adapter *a);
void put_shadow(struct jw *w, const struct version_record *v);
void put_version(struct jw *w, const struct adapter *a, const struct version_record *v);
/* What a load found in the files. */
void put_report(struct jw *w, const struct adapter_version *v);
void put_report_fields(struct jw *w, const struct adapter_version *v); /* inside an object */
void put_effect(struct jw *w, const struct effect_report *e);          /* null without a test */
void put_change(struct jw *w, const struct registry_change *c);

const char *merge_mode_name(enum merge_mode m);
const char *effect_mode_name(enum effect_mode m);
bool merge_mode_find(const char *name, enum merge_mode *out);
bool effect_mode_find(const char *name, enum effect_mode *out);

/* The table of docs/ADMIN.md: a failed operation's HTTP status and `code`. */
int admin_http_status(enum status s,
                      const char *code); /* code: a more telling one than the status's, or NULL */
const char *admin_code(enum status s);
const char *admin_last_code(const struct adapter *a); /* of last_error, which there is */

#endif
