#include "voice_tenant.h"

#include <stdio.h>

#include "registry.h"
#include "server.h"
#include "tenant_gate.h"

enum status voice_unknown(struct fault *f, const char *text)
{
    enum status s = fault_set(f, STATUS_NOT_FOUND, "model",
                              "The model \"%.100s\" does not exist; GET /v1/models lists the voices", text);
    snprintf(f->code, sizeof f->code, "model_not_found");
    return s;
}

/* An operator's text of a voice. */
static enum status add_text(const struct request *r, const char *text, double weight, struct voice_expr *out,
                            struct fault *f)
{
    struct voice_expr sum;
    struct error err;
    enum status s = voice_expr_parse(text, r->server->base.name, &sum, &err);
    if (s == STATUS_OK)
        s = voice_expr_add_all(out, &sum, weight, &err);
    return s == STATUS_OK ? s : fault_set(f, s, "model", "%s", err.text);
}

static enum status add_term(const struct request *r, const struct voice_term *t, struct voice_expr *out,
                            struct fault *f)
{
    const char *alias = tenant_spec_alias(gate_spec(r), t->name);
    bool may = gate_may_use(r, t->name), exists = registry_find(r->server->registry, t->name) != NULL;
    struct error err;
    if (alias && t->pin[0])
        return fault_set(f, STATUS_INVALID, "model", "\"%s@%s\": \"%s\" has no versions of its own", t->name,
                         t->pin, t->name);
    if (alias)
        return add_text(r, alias, t->weight, out, f);
    if (!(may & exists))
        return voice_unknown(f, t->name);
    const struct voice_expr one = {.n = 1, .terms = {*t}};
    enum status s = voice_expr_add_all(out, &one, 1, &err);
    return s == STATUS_OK ? s : fault_set(f, s, "model", "%s", err.text);
}

bool voice_base_allowed(const struct request *r)
{
    bool by_word = gate_may_use(r, "base"), by_name = gate_may_use(r, r->server->base.name);
    return by_word | by_name;
}

enum status voice_single(const struct request *r, const char *text, const struct adapter **out,
                         const char **alias, struct fault *f)
{
    const struct tenant_spec *spec = gate_spec(r);
    struct voice_expr e;
    *out = NULL;
    *alias = NULL;
    if (voice_expr_parse(text, r->server->base.name, &e, NULL) != STATUS_OK)
        return voice_unknown(f, text);
    if (e.n == 0)
        return voice_base_allowed(r) ? STATUS_OK : voice_unknown(f, text);
    if (e.n > 1 || e.terms[0].weight != 1 || e.terms[0].pin[0])
        return voice_unknown(f, text);
    bool may = gate_may_use(r, e.terms[0].name);
    const struct adapter *a = registry_find(r->server->registry, e.terms[0].name);
    *alias = spec ? tenant_spec_alias(spec, e.terms[0].name) : NULL;
    *out = may && !*alias ? a : NULL;
    return *out || *alias ? STATUS_OK : voice_unknown(f, text);
}

enum status voice_of_tenant(const struct request *r, bool named, struct voice_expr *e, struct fault *f)
{
    const struct tenant_spec *spec = gate_spec(r);
    struct voice_expr out = {0};
    if (!spec)
        return STATUS_OK;
    if (!named && spec->default_voice) {
        e->n = 0;
        return add_text(r, spec->default_voice, 1, e, f);
    }
    enum status s = STATUS_OK;
    if (e->n == 0 && !voice_base_allowed(r))
        s = voice_unknown(f, r->server->base.name);
    for (uint32_t i = 0; i < e->n && s == STATUS_OK; i++)
        s = add_term(r, &e->terms[i], &out, f);
    if (s == STATUS_OK)
        *e = out;
    return s;
}
