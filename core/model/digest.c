/* The base's identity: SHA-256 over what its numbers depend on, without reading gigabytes: the
 * configuration's numbers, each tensor's name, type and shape, and samples from its beginning, middle and
 * end. */
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#include "model_inner.h"

#define SAMPLE_BYTES 256U

static int hash_config(gnutls_hash_hd_t h, const struct model_config *c, enum quant quant)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "%s|%u %u %u %u %u %u %u %u|%.17g %d %d|%d %.17g %.17g %.17g|%.17g %.17g|%u|%.17g %.17g "
                     "%.17g|%.17g %.17g %.17g %.17g|%d",
                     c->model_type, c->vocab_size, c->hidden_size, c->intermediate_size, c->n_layers,
                     c->n_heads, c->n_kv_heads, c->head_dim, c->max_position, c->norm_eps, (int)c->act,
                     c->tie_word_embeddings, (int)c->rope.type, c->rope.theta, c->rope.factor,
                     c->rope.attention_factor, c->rope_local.theta, c->rope_local.factor, c->sliding_window,
                     c->query_pre_attn_scalar, c->attn_logit_softcap, c->final_logit_softcap,
                     c->embedding_multiplier, c->residual_multiplier, c->attention_multiplier,
                     c->logits_scaling, (int)quant);
    int rc = gnutls_hash(h, text, n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    return rc < 0 ? rc : gnutls_hash(h, c->layer_is_sliding, c->n_layers);
}

static enum status hash_samples(gnutls_hash_hd_t h, const struct tensors *tensors, const struct tensor *t,
                                struct error *err)
{
    uint8_t sample[SAMPLE_BYTES];
    uint64_t n = t->size_bytes < SAMPLE_BYTES ? t->size_bytes : SAMPLE_BYTES;
    uint64_t at[3] = {0, (t->size_bytes - n) / 2, t->size_bytes - n};
    for (int i = 0; i < 3; i++) {
        enum status status = tensor_read(tensors, t, at[i], n, sample, err);
        if (status != STATUS_OK)
            return status;
        if (gnutls_hash(h, sample, n) < 0)
            return fail(err, STATUS_INTERNAL, "SHA-256 of %s", t->name);
    }
    return STATUS_OK;
}

static enum status hash_files(const struct model_files *files, enum quant quant, bool samples,
                              uint8_t digest[32], struct error *err)
{
    gnutls_hash_hd_t h;
    if (gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0)
        return fail(err, STATUS_INTERNAL, "SHA-256 is not available in GnuTLS");
    enum status status = STATUS_OK;
    if (hash_config(h, &files->config, quant) < 0)
        status = fail(err, STATUS_INTERNAL, "SHA-256 of the configuration");
    for (size_t i = 0; i < tensors_count(files->tensors) && status == STATUS_OK; i++) {
        const struct tensor *t = tensors_at(files->tensors, i);
        char head[128];
        int n = snprintf(head, sizeof head, "|%s %llu %llu %llu %llu|", dtype_name(t->dtype),
                         (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
                         (unsigned long long)t->shape[2], (unsigned long long)t->shape[3]);
        if (gnutls_hash(h, t->name, strlen(t->name)) < 0 || gnutls_hash(h, head, (size_t)n) < 0)
            status = fail(err, STATUS_INTERNAL, "SHA-256 of %s", t->name);
        else if (samples)
            status = hash_samples(h, files->tensors, t, err);
    }
    gnutls_hash_deinit(h, digest);
    return status;
}

enum status model_digest(const struct model_files *files, enum quant quant, uint8_t digest[32],
                         struct error *err)
{
    return hash_files(files, quant, true, digest, err);
}

enum status model_table_digest(const struct model_files *files, enum quant quant, uint8_t digest[32],
                               struct error *err)
{
    return hash_files(files, quant, false, digest, err);
}

enum status members_digest(struct lora *l, struct error *err)
{
    gnutls_hash_hd_t h;
    if (gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0)
        return fail(err, STATUS_INTERNAL, "SHA-256 is not available in GnuTLS");
    int rc = 0;
    for (uint32_t i = 0; i < l->n_members && rc >= 0; i++) {
        const struct lora_member *m = &l->members[i];
        rc = gnutls_hash(h, m->lora->digest, sizeof m->lora->digest);
        if (rc >= 0)
            rc = gnutls_hash(h, &m->weight, sizeof m->weight);
    }
    gnutls_hash_deinit(h, l->digest);
    return rc < 0 ? fail(err, STATUS_INTERNAL, "SHA-256 of a composition") : STATUS_OK;
}

enum status merged_digest(const struct model *base, const struct lora *l, enum dtype type, uint8_t digest[32],
                          struct error *err)
{
    gnutls_hash_hd_t h;
    if (gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0)
        return fail(err, STATUS_INTERNAL, "SHA-256 is not available in GnuTLS");
    const char *name = dtype_name(type);
    int rc = gnutls_hash(h, base->info.digest, sizeof base->info.digest);
    if (rc >= 0)
        rc = gnutls_hash(h, l->digest, sizeof l->digest);
    if (rc >= 0)
        rc = gnutls_hash(h, name, strlen(name));
    gnutls_hash_deinit(h, digest);
    return rc < 0 ? fail(err, STATUS_INTERNAL, "SHA-256 of a merged model") : STATUS_OK;
}
