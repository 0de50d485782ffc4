/* A request for generated text, in any dialect: parsed (by a worker if it is long), admitted with a voice,
 * run as one or several generations, answered whole or as a stream.
 *
 * Owner: front thread, but for `parse`, which a worker may run while the front thread leaves the completion
 * alone. Lifetime: the request's arena; it ends when the answer is complete or unwanted AND every
 * generation's final event has come back. */
#ifndef LK_COMPLETION_H
#define LK_COMPLETION_H

#include "adapter_ops.h"
#include "api_parse.h"
#include "bridge.h"
#include "dialect.h"
#include "logprobs_json.h"
#include "reply.h"
#include "request.h"
#include "voice_params.h"
#include "voices.h"

struct server;
struct voice_metrics;

#define EMBEDDINGS_MAX 2048U /* inputs of a request for vectors, as OpenAI has it */

struct prompt {
    struct token_list ids; /* freed with the arena */
    const char *text;      /* for echo; NULL unless asked */
    size_t n_text;
};

/* One generation: prompt number `prompt`, its `index`-th choice in the answer. */
struct choice {
    struct sink sink; /* first: a sink's address is its choice's */
    struct completion *owner;
    uint32_t index;
    const struct prompt *prompt;
    bool has_new_line;         /* what was shown has one: llama-server's clients */
    bool open, started, begun; /* final event outstanding; running; something was streamed */
    bool hidden;               /* others were better (best_of) */
    bool has_line, timed_out;  /* a line break was generated; params.max_decode_ms is over */
    const char *finish_reason; /* NULL until done */
    int32_t stop_token, stop_string_index;
    struct reply reply; /* not shown yet: all of it without streaming */
    struct buf ids;     /* the same: JSON numbers with commas */
    struct logprob_list logprobs;
    double *pooled;             /* [hidden_size] of an embedding; or NULL */
    struct buf prompt_logprobs; /* JSON values with commas */
    double logprob_sum;         /* of generated tokens, where they are asked for */
    uint32_t n_scored;          /* EVENT_PROMPTs seen */
    uint32_t n_prompt, n_generated, n_reasoning, n_cached, n_drafted, n_drafts_right;
    int64_t first_ns, last_ns; /* tokens */
    int64_t prefill_ns, decode_ns;
};

/* prompt_cut.h; all zero: what is too long is refused */
struct prompt_cut {
    uint32_t limit; /* tokens */
    bool tokens;    /* the middle of a text may go */
    uint32_t n_keep;
};

struct completion {
    struct completion *prev, *next; /* server->completions */
    struct request *r;
    struct server *server;
    const struct dialect *dialect; /* translate may put another one in its place */
    void *form;                    /* what it remembers, in the arena; zeroed */
    struct fault fault;
    json_t *body;
    struct voice_words words;
    struct gen_params params;
    struct prompt *prompts;
    uint32_t n_prompts;
    struct reply_format format;    /* what a parser wants to have looked for in replies */
    int32_t kept[KEPT_TOKENS_MAX]; /* special tokens that are markers of it */
    uint32_t n_kept;
    bool legacy_calls;    /* `functions` were given: the answer has a function_call */
    bool strict_is_usual; /* tools that don't say `strict` are, where their schemas can be held to */
    bool hides_reasoning; /* include_reasoning: false */
    struct voice voice;
    const struct adapter_bundle *bundle; /* the voice's, or NULL */
    uint32_t context;                    /* tokens of a sequence that this request may have */
    struct prompt_cut cut;
    struct voice_metrics *metrics;
    struct choice *choices;
    uint32_t n_choices, n_open, n_submitted;
    enum pooling pooling; /* translate may ask for vectors; then choices have `pooled` */
    size_t pooled_bytes;  /* of the server's */
    struct buf rendered;  /* by a worker */
    bool is_rendered;
    char *id;
    int64_t created_s;
    bool listed, answered; /* in the server's list; the client has all that it will get */
    bool cancelled;
    bool non_finite;           /* a generation failed because the voice gave no numbers */
    int64_t written_ns;        /* of a stream */
    struct load_waiter waiter; /* for a voice whose bytes aren't in memory */
    uint32_t n_waits;
    uint64_t n_merged_tokens, n_unmerged_tokens; /* computed, of all choices that are through */
    const char *overruled;                       /* names of fields that the voice's bundle locks; or NULL */
    bool shows_path;                             /* the voice may be merged: the headers say X-Adapter-Path */
    bool begins_later; /* the stream's headers wait for the first step, to say which path it took */
};

/* Takes over the request. */
void completion_begin(struct request *r, const struct dialect *dialect);
/* Cancels what still runs: the client left, or the server must end. */
void completion_cancel(struct completion *c);
/* Once a second: pings a silent stream. */
void completion_tick(struct completion *c, int64_t now_ns);

/* The most tokens behind this prompt. */
uint32_t completion_max_tokens(const struct completion *c, const struct prompt *p);
/* completion_pool.c: memory for the vectors of its choices, if vectors are wanted. STATUS_FULL: other
 * requests have what there may be of it. */
LK_MUST_USE enum status completion_pool_begin(struct completion *c);
void completion_pool_end(struct completion *c);

/* completion_end.c: the headers of a stream, and what its dialect begins it with. */
void completion_begin_stream(struct completion *c);
/* The same: answers what isn't answered yet, and ends it; nothing of it is open any more. */
void completion_finish(struct completion *c);

/* For parsers: room for prompts in the arena, with clean-up. */
LK_MUST_USE enum status completion_add_prompts(struct completion *c, uint32_t n);
/* Encodes text as prompt number `index`. */
LK_MUST_USE enum status completion_encode(struct completion *c, uint32_t index, const char *text,
                                          size_t length, bool add_special);

/* api_chat.c: the messages of c->body, as OpenAI has them, through the template; a dialect's `parse`. */
LK_MUST_USE enum status completion_parse_chat(struct completion *c);

/* api_completions.c: `prompt`, as OpenAI's completions have it; the same. */
LK_MUST_USE enum status completion_parse_prompts(struct completion *c);

/* completion_defaults.c: puts into the body what others than the caller say, before anything but the voice is
 * read of it. The tenant's values come before the voice's, those of the API last; the tenant's system prompt
 * stands before all others. Thread: any that alone has the completion. */
LK_MUST_USE enum status completion_apply_defaults(struct completion *c);

/* completion_tenant.c */
/* What it may cost is taken from its tenant's limits; nothing is without one. */
LK_MUST_USE enum status completion_reserve(struct completion *c);
/* Whether its tenant may have the bytes of the voice's missing member loaded now. */
LK_MUST_USE enum status completion_may_load(struct completion *c);
/* Its fault is what the tenant's limit on memory says. */
void completion_limited(struct completion *c, const struct error *err);
/* What it did cost, once, at its end. */
void completion_settle(struct completion *c);
/* A generation has waited so long for its first step. */
void completion_waited(struct completion *c, int64_t ns);
/* Who the engine shares the machine with, by what weight. */
struct generation_caller completion_caller(const struct completion *c);
/* Who may share its KV pages, as a text; NULL: all who have none either. */
const char *completion_cache_owner(const struct completion *c);

/* completion_json.c: OpenAI's ways to show it, as struct dialect has them. */
void completion_render(struct completion *c, struct buf *out);
void completion_render_chunk(struct completion *c, struct choice *h, struct buf *out);
void completion_render_end(struct completion *c, struct buf *out); /* usage, [DONE] */
/* A count's answer: {"input_tokens"}, with OpenAI's "object" where errors are theirs. */
void completion_render_count(struct completion *c, struct buf *out);
void completion_put_timings(const struct choice *h, struct jw *w);  /* llama-server's "timings" */
void completion_render_fail(struct completion *c, struct buf *out); /* the error; no [DONE] */

#endif
