/* Who has a say in a request beside its caller: first the tenant, then the voice, then the API that it came
 * by. */
#include "completion.h"

#include "body_defaults.h"
#include "bundle.h"
#include "tenant_gate.h"

/* What the voice's bundle says where the caller doesn't. */
static enum status apply_bundle(struct completion *c)
{
    struct buf overruled;
    buf_init(&overruled, 0);
    enum status st = body_apply_bundle(c->body, c->bundle, &overruled, &c->fault);
    c->overruled = overruled.length ? arena_strdup(c->r->arena, overruled.data) : NULL;
    buf_fini(&overruled);
    return st;
}

enum status completion_apply_defaults(struct completion *c)
{
    const struct tenant_spec *tenant = gate_spec(c->r);
    enum status st = tenant ? tenant_spec_apply(tenant, c->body, &c->fault) : STATUS_OK;
    if (st == STATUS_OK && c->bundle)
        st = apply_bundle(c);
    if (st == STATUS_OK && tenant)
        st = tenant_spec_apply_system(tenant, c->body, &c->fault);
    if (st == STATUS_OK && c->dialect->defaults && !body_apply_numbers(c->body, c->dialect->defaults))
        st = fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for the request");
    return st;
}
