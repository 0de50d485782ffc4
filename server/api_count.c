/* POST /v1/chat/completions/input_tokens, and the answer of every API's count: how many tokens the prompt of
 * a request is. Nothing is generated; the voice is loaded, since its
 * bundle may have words in the prompt. */
#include "api.h"
#include "completion.h"
#include "translate.h"

void completion_render_count(struct completion *c, struct buf *out)
{
    struct jw w = {.out = out};
    jw_begin(&w, '{');
    if (c->r->error_form == ERRORS_OPENAI)
        jw_key_text(&w, "object", "response.input_tokens");
    jw_key_int(&w, "input_tokens", (int64_t)c->prompts[0].ids.n_ids);
    jw_end(&w, '}');
}

static enum status translate(struct completion *c)
{
    static const char *const gone[] = {"stream", "n", "n_cmpl", "best_of"}; /* of answers */
    struct translation t;
    translate_begin(&t, c);
    translate_drop(&t, KEYS_OF(gone));
    return translate_end(&t);
}

static const struct dialect dialect = {.name = "count",
                                       .id_prefix = "",
                                       .api = API_CHAT,
                                       .counts = true,
                                       .translate = translate,
                                       .parse = completion_parse_chat,
                                       .render = completion_render_count};

void api_chat_count(struct request *r)
{
    completion_begin(r, &dialect);
}
