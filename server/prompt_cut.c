#include "prompt_cut.h"

#include <string.h>

#include "body_defaults.h"
#include "server.h"

void prompt_cut_begin(struct completion *c, uint32_t limit, bool tokens, uint32_t n_keep)
{
    uint32_t room = c->params.max_tokens < c->context / 4 ? c->params.max_tokens : c->context / 4;
    uint32_t most = c->context - (room ? room : 1);
    c->cut = (struct prompt_cut){
        .limit = limit && limit < most ? limit : most, .tokens = tokens, .n_keep = n_keep};
}

bool prompt_fits(struct completion *c, const struct buf *rendered)
{
    struct encode_options o = {.parse_special = true, .limit_ids = c->cut.limit};
    struct token_list ids = {0};
    struct error err;
    if (rendered->length <= c->cut.limit / 4) /* no text has as many tokens as four times its bytes */
        return true;
    enum status s =
        tokenizer_encode(c->server->base.text->tokenizer, rendered->data, rendered->length, &o, &ids, &err);
    token_list_fini(&ids);
    if (s == STATUS_NO_MEMORY)
        fault_set(&c->fault, s, "prompt", "%s", err.text);
    return s == STATUS_OK;
}

enum status cut_places_find(struct completion *c, const json_t *messages, struct cut_places *out)
{
    size_t n = json_array_size(messages), last = 0;
    *out = (struct cut_places){.at = arena_array(c->r->arena, n + 1, sizeof *out->at)};
    if (!out->at)
        return fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for the messages");
    for (size_t i = 0; i < n; i++)
        if (message_has_role(json_array_get(messages, i), "user"))
            out->at[out->n_users++] = last = i;
    out->n = out->n_users;
    for (size_t i = last + 1; i < n; i++)
        if (message_has_role(json_array_get(messages, i), "assistant"))
            out->at[out->n++] = i;
    return STATUS_OK;
}

json_t *cut_messages(const json_t *messages, size_t first)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        if ((i >= first || message_is_system(m)) && json_array_append(out, m) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

void prompt_cut_ids(const struct prompt_cut *cut, struct token_list *ids)
{
    if (!cut->tokens || ids->n_ids <= cut->limit)
        return;
    size_t keep = cut->n_keep < cut->limit ? cut->n_keep : cut->limit, behind = cut->limit - keep;
    memmove(ids->ids + keep, ids->ids + ids->n_ids - behind, behind * sizeof *ids->ids);
    ids->n_ids = cut->limit;
}
