/* Who shall speak. Names are looked up once, when a request is admitted; from then on it holds a version and
 * no name matters any more. An unknown name is never answered by the base. */
#include "voices.h"

#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "server.h"

const char *voice_name(const char *model, const char *base_name)
{
    if (!model || !model[0] || strcmp(model, base_name) == 0)
        return "";
    size_t n = strlen(base_name);
    if (strncmp(model, base_name, n) == 0 && model[n] == ':')
        return voice_name(model + n + 1, base_name);
    return adapter_name_is_valid(model) ? model : NULL;
}

static enum status unknown(struct fault *f, const char *model)
{
    enum status s = fault_set(f, STATUS_NOT_FOUND, "model",
                              "The model \"%.100s\" does not exist; GET /v1/models lists the voices", model);
    snprintf(f->code, sizeof f->code, "model_not_found");
    return s;
}

/* base, adapter, arithmetic and program: what an output depends on besides the request */
static void make_fingerprint(const struct server *s, struct voice *v)
{
    static const uint8_t no_adapter[32];
    const struct kernels *k = s->base.kernels;
    char how[96];
    snprintf(how, sizeof how, "%s act%d kv-%s %s %s", k->isa, (int)k->act_mode, s->conf->kv_type,
             s->conf->quant, LORIKEET_VERSION);
    gnutls_hash_hd_t hash;
    uint8_t digest[32] = {0};
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) == 0) {
        gnutls_hash(hash, model_info(s->base.model)->digest, 32);
        gnutls_hash(hash, v->version ? v->version->lora->digest : no_adapter, 32);
        gnutls_hash(hash, how, strlen(how));
        gnutls_hash_deinit(hash, digest);
    }
    snprintf(v->fingerprint, sizeof v->fingerprint, "fp_%02x%02x%02x%02x%02x%02x", digest[0], digest[1],
             digest[2], digest[3], digest[4], digest[5]);
}

/* The two places that may name the voice must agree, or one of them says nothing but the base. */
static enum status one_name(struct request *r, const char *model, const char **name, struct fault *f)
{
    const char *base = r->server->base.name, *header = r->adapter_header;
    const char *by_body = voice_name(model, base), *by_header = voice_name(header, base);
    if (!by_body || !by_header)
        return unknown(f, by_body ? header : model);
    if (by_body[0] && by_header[0] && strcmp(by_body, by_header) != 0)
        return fault_set(f, STATUS_INVALID, "model",
                         "model names \"%s\" but the header X-Adapter names \"%s\"", by_body, by_header);
    *name = by_header[0] ? by_header : by_body;
    return STATUS_OK;
}

enum status voice_resolve(struct request *r, const char *model, struct voice *out, struct fault *f)
{
    struct server *s = r->server;
    const char *name = "";
    *out = (struct voice){0};
    enum status st = one_name(r, model, &name, f);
    if (st != STATUS_OK)
        return st;
    if (name[0]) {
        struct adapter *a = registry_find(s->registry, name);
        uint64_t generation = 0;
        if (a)
            st = registry_choose(a, "", 0, &generation, &f->error);
        if (st == STATUS_OK && a)
            out->version = registry_acquire(s->registry, a, generation, clock_now_ns());
        if (!out->version)
            return unknown(f, name);
        out->registry = s->registry;
        out->adapter = arena_strdup(r->arena, name);
    }
    out->shown = arena_strdup(r->arena, model && model[0] ? model : name[0] ? name : s->base.name);
    if (!out->shown || (name[0] && !out->adapter)) {
        voice_release(out);
        return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
    }
    make_fingerprint(s, out);
    return STATUS_OK;
}

void voice_release(struct voice *v)
{
    registry_release(v->registry, v->version, false);
    v->version = NULL;
}

void voice_headers(struct request *r, const struct voice *v)
{
    char generation[24];
    snprintf(generation, sizeof generation, "%llu",
             v->version ? (unsigned long long)v->version->generation : 0ULL);
    reply_header(r, "X-Adapter", v->adapter ? v->adapter : "none");
    reply_header(r, "X-Adapter-Generation", generation);
}
