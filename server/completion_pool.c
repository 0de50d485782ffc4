/* Room for embeddings. A short request may ask for many long vectors, so all requests together have a bound.
 */
#include "completion.h"
#include "server.h"

#define POOLED_BYTES_MAX ((size_t)256 << 20)

enum status completion_pool_begin(struct completion *c)
{
    struct server *s = c->server;
    size_t hidden = model_config(s->base.model)->hidden_size;
    if (!c->pooling)
        return STATUS_OK;
    /* The sums, and what is written of them. */
    size_t n_bytes = c->n_choices * hidden * 2 * sizeof(double);
    if (n_bytes > POOLED_BYTES_MAX - s->pooled_bytes)
        return fault_set(
            &c->fault, STATUS_FULL, "input",
            "%u vectors of %zu numbers are more than there is room for now; ask for fewer at once",
            c->n_choices, hidden);
    double *pooled = arena_array(c->r->arena, c->n_choices * hidden, sizeof *pooled);
    if (!pooled)
        return fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for the vectors");
    for (uint32_t i = 0; i < c->n_choices; i++)
        c->choices[i].pooled = pooled + i * hidden;
    c->pooled_bytes = n_bytes;
    s->pooled_bytes += n_bytes;
    return STATUS_OK;
}

void completion_pool_end(struct completion *c)
{
    c->server->pooled_bytes -= c->pooled_bytes;
    c->pooled_bytes = 0;
}
