/* What an answer tells of its voice. */
#include <stdio.h>

#include "registry.h"
#include "voices.h"

const uint8_t *voice_digest(const struct voice *v)
{
    const struct adapter_version *first = v->n_members == 1 ? v->members[0].version : NULL;
    return !v->lora ? NULL : first && first->lora == v->lora ? first->digest : v->lora->digest;
}

void voice_headers(struct request *r, const struct voice *v)
{
    const uint8_t *bytes = voice_digest(v);
    char digest[17];
    reply_header(r, "X-Adapter", v->adapter ? v->adapter : "none");
    reply_header(r, "X-Adapter-Generation", v->generations);
    if (v->always)
        reply_header(r, "X-Adapter-Always", v->always);
    if (!bytes)
        return;
    for (size_t i = 0; i < 8; i++)
        snprintf(digest + 2 * i, 3, "%02x", bytes[i]);
    reply_header(r, "X-Adapter-Digest", digest);
}
