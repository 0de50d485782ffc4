/* Files beside an adapter that no number of it depends on: its base's stamp, its probes, its behaviour. Inner
 * wall of adapters. */
#ifndef LK_ADAPTERS_SIDECAR_H
#define LK_ADAPTERS_SIDECAR_H

#include "bundle.h"
#include "effect_inner.h"
#include "fingerprint.h"
#include "loader.h"

/* In a folder a sidecar has its name, of X.gguf it is X.gguf.NAME. */
void sidecar_name(const struct opened *o, const char *name, char *dst, size_t dst_bytes);

/* The stamp; STATUS_NOT_FOUND if there is none. */
LK_MUST_USE enum status sidecar_stamp(const struct opened *o, struct base_sketch *out, struct error *err);
/* Its behaviour, adapter.yaml, which is part of its digest: read it before that is made. *out is NULL if
 * there is none. */
LK_MUST_USE enum status sidecar_bundle(const struct opened *o, struct adapter_bundle **out,
                                       struct error *err);
/* The adapter's own prompts; none (n 0) if it has no file of them. */
LK_MUST_USE enum status sidecar_probes(const struct opened *o, const struct probes_rules *rules,
                                       struct own_probes *out, struct error *err);
/* Without a base: whether both are well-formed; notes what the stamp says. */
LK_MUST_USE enum status sidecars_look(const struct opened *o, struct adapter_report *report,
                                      struct error *err);

#endif
