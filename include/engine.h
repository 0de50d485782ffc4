/* The engine: generations in, events out. It runs on a thread of its own, which owns KV pages, sequences and
 * sampling. Other threads meet it at two bounded queues only: submissions and cancellations in, events out.
 *
 * Contract: after a successful engine_submit exactly one final event (EVENT_DONE or EVENT_FAILED) follows for
 * that id; after a refusal none. Outputs depend on the generation alone: not on what else runs, on threads,
 * or on chunking. */
#ifndef LK_ENGINE_H
#define LK_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cost.h"
#include "grammar.h"
#include "model.h"
#include "text.h"

#define STOP_STRINGS_MAX 16U
#define STOP_STRING_BYTES_MAX 256U
#define STOP_TOKENS_MAX 64U
#define LOGIT_BIAS_MAX 1024U
#define BAD_WORD_IDS_MAX 4096U /* of all bad words together, with their ends */
#define DRY_BREAKERS_MAX 32U
#define KEPT_TOKENS_MAX 32U
#define LOGPROBS_MAX 20U
#define EVENT_TEXT_BYTES 224U
#define MERGED_COPIES_MAX 64U
#define SHADOWS_MAX 8U /* generations whose shadow runs along at once */

struct logit_bias {
    int32_t token;
    float bias; /* added to the logit; -INFINITY bans */
};

/* The samplers of the chain. */
enum sampler_kind {
    SAMPLER_PENALTIES,
    SAMPLER_TEMPERATURE,
    SAMPLER_TOP_K,
    SAMPLER_TYP_P,
    SAMPLER_TOP_P,
    SAMPLER_MIN_P,
    SAMPLER_DRY,
    SAMPLER_TOP_N_SIGMA,
    SAMPLER_XTC,
    SAMPLER_KINDS
};

/* Which samplers work, in which order; what isn't named isn't applied. */
struct sampler_order {
    bool is_set; /* false: penalties dry temperature top_n_sigma top_k typ_p top_p min_p xtc */
    uint8_t n;
    uint8_t kinds[SAMPLER_KINDS]; /* enum sampler_kind, each at most once */
};

/* By name (llama-server's, its other spellings too) or by its letter; false: there is none. */
bool sampler_find(const char *name, enum sampler_kind *out);
bool sampler_find_letter(char letter, enum sampler_kind *out);
const char *sampler_name(enum sampler_kind kind, char *letter);

/* Sampling parameters. First, whatever the order: logit_bias, then bans (min_tokens' of stop tokens, bad
 * words, all but the allowed ones). Then the chain; then one draw among the candidates that are left, by
 * their weights exp(logit / temperature).
 *
 * The default order cuts as llama-server's does (top_k, typ_p, top_p, min_p: each works on what the ones
 * before have left, renormalised), and has temperature in front of the cuts as vLLM and transformers have it;
 * llama-server has it last. With the parameters that only one cut uses the difference is top_p's, typ_p's and
 * min_p's: whether they see the tempered distribution.
 *
 * Candidates are ordered by falling logit, equals by rising id; cuts take in that order, so at a border the
 * lower ids stay (vLLM's top_k keeps all that equal the k-th). Every cut keeps at least one, and min_keep if
 * that is more. -INFINITY and NaN are never taken; if nothing else is left the generation fails.
 *
 *   temperature  weights exp(logit / t). 0: the best candidate where the chain has got to, without a draw:
 *                argmax in the default order. Any t > 0 is taken as it is (vLLM: greedy below 1e-5).
 *   top_k        the k best (arXiv 1805.04833)
 *   top_p        the fewest best whose probabilities sum to p or more (arXiv 1904.09751 sec. 3.1)
 *   min_p        those whose probability is at least p times the largest (arXiv 2407.01082 sec. 3)
 *   typ_p        the fewest whose probabilities sum to p or more, taken by rising |-log prob - entropy|
 *                (arXiv 2202.00666); equals in the order above. It may leave out the best.
 *   penalties    first repetition: a logit above 0 is divided by it, another multiplied, once however often
 *                the token occurred (arXiv 1909.05858 sec. 4.1; the multiplication is transformers'). Over
 *                prompt and output (vLLM, transformers). Then
 *                logit -= count * frequency_penalty + (count > 0) * presence_penalty
 *                (OpenAI's API reference), over the output (OpenAI, vLLM; llama-server counts the prompt
 *                too).
 *   dynatemp     the temperature is t - range + 2 range (entropy / log n)^exponent of the n candidates, t -
 *                range never below 0 (llama-server's; it grows where the model is unsure)
 *   top_n_sigma  those whose logit is at least max - n * deviation of the logits (arXiv 2411.07641 eq. 5)
 *   xtc          with a probability of its own, by a draw of its own: of those whose probability is at least
 *                the threshold all but the last go (llama-server's "exclude top choices")
 *   dry          a token that would continue a repetition of at least allowed_length tokens loses
 *                multiplier * base^(length - allowed_length). length: as many tokens of prompt and output
 *                stand before an earlier occurrence of it as stand at their end, none with a breaker in its
 *                text; beyond allowed_length + 50 it doesn't grow
 *   mirostat     instead of what follows penalties and temperature: cuts so that the surprise of what is
 *                drawn stays near tau (arXiv 2007.14966; 1: its algorithm 1 with m = 100; 2: whoever is
 *                more surprising than mu goes). Greedy stays greedy.
 *
 * logprobs are of the log-softmax of the raw logits, before all of this (OpenAI; vLLM's raw_logprobs). */
struct sampling {
    float temperature;                         /* >= 0, finite */
    int32_t top_k;                             /* <= 0: off */
    float top_p;                               /* (0, 1]; 1: off */
    float min_p;                               /* [0, 1]; 0: off */
    float typical_p;                           /* (0, 1); 0 and 1: off */
    uint32_t min_keep;                         /* top_p, min_p and typ_p leave so many; 0 counts as 1 */
    float repetition_penalty;                  /* 1: off */
    float presence_penalty, frequency_penalty; /* 0: off */
    int32_t penalty_last_n; /* all penalties see only these last tokens of prompt and output; < 0: all */
    uint64_t seed; /* always set by the caller; every generation has its own xoshiro256**, one draw a token,
                      and one more with xtc */
    float top_n_sigma;                       /* <= 0: off */
    float xtc_probability, xtc_threshold;    /* probability 0, or threshold above 0.5: off */
    float dynatemp_range, dynatemp_exponent; /* range 0: off */
    uint32_t mirostat;                       /* 0: off; 1, 2: the algorithm */
    float mirostat_tau, mirostat_eta;        /* wanted surprise in bits; rate of learning */
    float dry_multiplier, dry_base;          /* multiplier 0: off; base >= 1 */
    uint32_t dry_allowed_length;             /* >= 1 */
    int32_t dry_last_n;                      /* only these last tokens are looked at; < 0: all */
    const char *const *dry_breakers;         /* NUL-terminated; borrowed as logit_bias is */
    uint32_t n_dry_breakers;
    const int32_t *bad_words; /* sequences that must not come: their ids, a -1 behind each */
    uint32_t n_bad_words;     /* with the -1; at most BAD_WORD_IDS_MAX */
    const int32_t *allowed;   /* rising ids: all others are banned; NULL: none is */
    uint32_t n_allowed;
    const struct logit_bias *logit_bias; /* borrowed during submit; at most LOGIT_BIAS_MAX; repeats add up */
    uint32_t n_logit_bias;
    struct sampler_order order;
};

#define ENGINE_CALLERS_MAX 4097U
/* A batch caller that waited so long without being served counts as another one until it is. */
#define ENGINE_PATIENCE_NS (10 * INT64_C(1000000000))
/* Of a voice of a caller that waits something is started after so long, whatever else waits or runs (the
 * default of wait_bound_ns): others are paused for it where need be. */
#define ENGINE_WAIT_BOUND_NS (30 * INT64_C(1000000000))

/* An embedding instead of text: the prompt's final hidden states, behind the model's last norm. */
enum pooling {
    POOLING_NONE,
    POOLING_MEAN, /* the sum of all of them, in the order of positions */
    POOLING_LAST, /* the last token's */
};

/* One generation. All pointers are borrowed during engine_submit only, except `lora`, `shadow_lora`,
 * `grammar` and `pooled`. */
struct generation {
    const int32_t *prompt; /* ids, checked < vocab_size by submit */
    uint32_t n_prompt;     /* >= 1 and <= context limit - 1 */
    struct lora *lora;     /* or NULL; the engine keeps a reference of its own until the final event */
    struct sampling sampling;
    uint32_t max_tokens; /* 0: nothing is generated (echo, prompt_logprobs); clipped to the context */
    uint32_t min_tokens; /* stop tokens are banned for so many; stop strings are looked for in text behind */
    bool ignore_eos;
    const int32_t *stop_tokens; /* besides the model's eos */
    uint32_t n_stop_tokens;
    const char *const *stop_strings; /* NUL-terminated UTF-8 */
    uint32_t n_stop_strings;
    bool include_stop;          /* the matched stop string/token's text is part of the output */
    bool skip_special_tokens;   /* special tokens' text is left out (default true) */
    const int32_t *kept_tokens; /* but for these, at most KEPT_TOKENS_MAX */
    uint32_t n_kept_tokens;
    int32_t n_logprobs;        /* -1: none; 0: the chosen token's; up to LOGPROBS_MAX alternatives */
    int32_t n_prompt_logprobs; /* the same for the prompt's tokens (EVENT_PROMPT) */
    int32_t priority;          /* lower is served first among waiting, of the same caller; 0 default */
    /* Who it is for. Callers other than 0, which is everybody where they aren't told apart, share the machine
     * by their weights: whoever was served least for its weight is next, whatever others have waiting. */
    struct generation_caller {
        uint32_t number; /* below ENGINE_CALLERS_MAX */
        float weight;    /* of its share; 0 counts as 1 */
        float cost;      /* of a token, against one of the base alone; 0 counts as 1 */
        bool batch;      /* served behind callers that aren't, but not for ever: ENGINE_PATIENCE_NS */
        /* Of the KV pages, what its generations may have come to need; more of them wait until others of its
         * own are over. One always runs. So much it can have whenever it asks: callers without a share use
         * what it leaves, and are paused for it. 0 counts as 1: all pages, none of them its own. */
        float kv_share;
    } caller;
    /* Or NULL. Scores along: this adapter is fed the same tokens, in the same steps, with KV pages of its
     * own, and its row of logits is compared with the one that each token was taken from. It changes nothing
     * of the generation: it has only what the others leave of pages and of the step's token budget, so it may
     * lag behind (then its tokens aren't compared) and is given up where pages are short. The engine keeps a
     * reference of its own until the final event. */
    struct lora *shadow_lora;
    /* Full KV pages are kept for generations that begin with the same tokens, with the same adapter (where it
     * acts already) and the same salt. That changes no byte of what comes out, only when it comes. What an
     * adapter says is kept as guesses for generations with the same adapter and salt. */
    uint8_t cache_salt[32];
    bool cache_off; /* takes none of these pages, and leaves none; nor guesses */
    /* Or NULL. Before all other sampling, tokens that can't go on a text of this grammar are taken out; stop
     * tokens may come where the text may end, and no other special token ever does. When only the end may
     * come the generation ends, FINISH_STOP, without another token; so the grammar is above ignore_eos and
     * min_tokens. Where no token fits at all, or its states outgrow it, the generation fails. Of a grammar
     * for this model's vocabulary; the engine keeps a reference of its own until the final event. */
    struct grammar *grammar;
    /* With a pooling max_tokens is 0, and EVENT_DONE follows when `pooled` is complete: [hidden_size], the
     * caller's, zeroed by it, and the engine's to add to until the final event. */
    enum pooling pooling;
    double *pooled;
};

enum event_kind {
    EVENT_STARTED, /* its first prompt chunk is about to run */
    EVENT_PROMPT,  /* one prompt token with its logprobs, in order; only if n_prompt_logprobs >= 0. The first
                      token has none: its event says logprob 0, n_top 0 */
    EVENT_TOKEN,   /* one generated token; its text may be empty (held back for a stop string or half a
                      character). A stop token has its event too, with text only if include_stop */
    EVENT_TEXT,    /* more text behind the token before: longer than one event holds, or what was held back
                      when the end came (cancelled ones too) */
    EVENT_DONE,
    EVENT_FAILED,
};
enum finish_reason { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED };

struct token_logprob {
    int32_t token;
    float logprob;
};

/* What a shadow said of the tokens that were served. Rows of raw logits are compared, before penalties,
 * temperature and bans. */
struct shadow_score {
    uint32_t n_tokens; /* compared: both rows were there and finite */
    uint32_t n_agree;  /* of these: both rows have the same likeliest token (lowest id among equals) */
    uint32_t n_served; /* of these: the shadow's likeliest token is the one that was served */
    uint32_t n_failed; /* the shadow's row had a value that isn't finite: not compared */
    double kl_sum;     /* over n_tokens: KL(served || shadow) of the softmaxes, nats */
    bool dropped;      /* given up before the end, or never begun: no place, pages or scratch for it */
};

/* A plain value, copied through the queue. */
struct event {
    uint64_t id; /* what engine_submit gave */
    enum event_kind kind;
    int32_t token;
    float logprob; /* of token; never below -9999, so always finite */
    uint32_t rank; /* of token among all, 1: none is more probable; 0 where no logprobs are asked for */
    uint32_t n_top;
    struct token_logprob top[LOGPROBS_MAX]; /* descending */
    bool merged; /* STARTED, PROMPT, TOKEN: the step (STARTED: the first one) ran on a merged copy */
    uint32_t n_text;
    char text[EVENT_TEXT_BYTES]; /* complete UTF-8 characters */
    /* DONE: */
    enum finish_reason reason;
    int32_t stop_token;                       /* the eos or stop token that ended it, or -1 */
    int32_t stop_string_index;                /* or -1 */
    uint32_t n_prompt, n_generated, n_cached; /* cached: prompt tokens not computed again */
    int64_t queued_ns, prefill_ns, decode_ns; /* durations of the phases */
    /* DONE, FAILED: tokens of prompt and output that went through the model, on a merged copy or with the
     * adapter beside the base (or without one); what a pause had computed again counts again */
    uint32_t n_merged_tokens, n_unmerged_tokens;
    struct shadow_score shadow;         /* all 0 without a shadow */
    uint32_t n_drafted, n_drafts_right; /* DONE, FAILED: tokens guessed and computed; those that came */
    /* FAILED: */
    struct error error;
    bool non_finite; /* the model is at fault: no token was left, and the row of logits had NaN or infinity */
};

/* Guessing tokens by what followed the same ones before, in the sequence itself and in what its adapter has
 * said to the same caller (cache_salt), and computing the guesses beside the next token. No byte of an output
 * depends on it. */
enum speculation {
    SPECULATION_OFF,
    SPECULATION_AUTO,   /* where rows are few and guesses are right so often that it pays */
    SPECULATION_ALWAYS, /* whatever there is to guess: for tests and measurements */
};

#define ENGINE_SEQUENCES 64U

/* Why steps have fewer threads than the engine has; each with its name for logs and metrics. */
#define THREAD_LIMIT_LIST(X)                                                                                 \
    X(THREADS_ALL, "none")            /* they have all */                                                    \
    X(THREADS_QUOTA, "quota")         /* the cgroup's quota is worth fewer CPUs */                           \
    X(THREADS_AFFINITY, "affinity")   /* the process may run on fewer */                                     \
    X(THREADS_DELAYED, "contention")  /* other threads had the CPUs while workers were ready */              \
    X(THREADS_STOLEN, "steal")        /* the hypervisor ran somebody else */                                 \
    X(THREADS_THROTTLED, "throttled") /* the quota was used up before its period was over */
enum thread_limit {
#define THREAD_LIMIT_ID(id, name) id,
    THREAD_LIMIT_LIST(THREAD_LIMIT_ID)
#undef THREAD_LIMIT_ID
        THREAD_LIMITS
};
const char *thread_limit_name(enum thread_limit limit);

struct engine_threads {
    uint32_t n, n_max; /* of a step; of the engine */
    enum thread_limit limit;
    bool pinned; /* each stays on a CPU of its own */
};

struct engine_options {
    uint32_t n_sequences;  /* running at once; 0: ENGINE_SEQUENCES */
    uint32_t queue_limit;  /* waiting; 0: 1024 */
    uint32_t context;      /* tokens of a sequence; 0: the model's max_position (capped by KV memory) */
    uint64_t kv_bytes;     /* 0: enough for n_sequences of modest length, at most a quarter of memory */
    const char *kv_type;   /* "auto", "f32", "f16", "bf16", "int8" */
    uint32_t step_tokens;  /* token budget of a step; 0: 64 of prompts, and one of each that decodes */
    uint32_t chunk_tokens; /* longest prompt chunk of one sequence in a step; 0: step_tokens */
    unsigned n_threads;    /* 0: one a core, and fewer while others use the machine */
    bool prefix_cache_off; /* KV pages are forgotten with their sequence */
    const struct cost_model *costs; /* of this machine, for MERGED_AUTO; copied; NULL: that never merges */
    enum speculation speculation;
    int64_t wait_bound_ns; /* 0: ENGINE_WAIT_BOUND_NS */
    bool pin_off;          /* threads are never pinned to CPUs */
    /* The threads of a step are others from now on, or pinned or set free. Thread: one of the engine's own;
     * may not call the engine but for engine_stats. NULL: nobody wants to know. */
    void (*on_threads)(void *data, const struct engine_threads *now);
    void *on_threads_data;
};

struct engine;

/* wake(data) is called by the engine thread when events wait (uv_async_send); wake-ups coalesce.
 * model and text are borrowed until engine_destroy. */
LK_MUST_USE enum status engine_create(const struct model *m, const struct text_model *text,
                                      const struct engine_options *options, void (*wake)(void *data),
                                      void *data, struct engine **out, struct error *err);
/* Cancels what runs, joins the thread, frees. Every submitted id has had its final event put into the queue.
 */
void engine_destroy(struct engine *e);

/* Hands one generation to the engine. Never blocks. Thread: front.
 * STATUS_FULL: n_sequences + queue_limit run or wait (then nothing was kept); STATUS_INVALID /
 * STATUS_TOO_LARGE: a bad parameter or a prompt above the context, named. */
LK_MUST_USE enum status engine_submit(struct engine *e, const struct generation *g, uint64_t *id,
                                      struct error *err);
/* Asks for an early end; takes effect within a step; EVENT_DONE with FINISH_CANCELLED follows. Unknown ids
 * are ignored. Never blocks, is never lost. Thread: front. */
void engine_cancel(struct engine *e, uint64_t id);
/* The next event, false if none waits. Thread: front. */
bool engine_poll(struct engine *e, struct event *out);
/* The same, waiting up to timeout_ns for one (for programs without a loop). */
bool engine_wait(struct engine *e, struct event *out, int64_t timeout_ns);

/* ---- merged copies
 *
 * A step in which every row wants the same adapter (by digest) may run on a copy of the base with that
 * adapter inside (model_merge); any other step runs unmerged, and a sequence crosses between the two at any
 * step. Without a copy nothing changes; with one, rounding differs between the two ways, so outputs depend on
 * the company that a request had. */

enum merged_use {
    MERGED_ALWAYS, /* whenever a whole step wants the adapter */
    MERGED_AUTO,   /* if the cost model says that a step of so many rows is faster on the copy */
};
/* What steps cost here, if it wasn't known when the engine was created: for guesses ahead, and for
 * MERGED_AUTO of copies that are set from now on. Only the first call counts. Thread: front. */
void engine_set_costs(struct engine *e, const struct cost_model *costs);
/* From the next step on, steps that want the adapter inside `copy` may run on it; one that was set for the
 * same digest before is let go. The engine takes a reference of its own, and gives it back after the copy was
 * replaced or taken away and no step runs on it (merged_copy_refs tells). Never blocks.
 * STATUS_FULL: MERGED_COPIES_MAX are set; STATUS_MISMATCH: a copy of another base. Thread: front. */
LK_MUST_USE enum status engine_set_merged(struct engine *e, struct merged_copy *copy, enum merged_use use,
                                          struct error *err);
/* Takes the copy for an adapter of this digest away; sequences go on unmerged with their next step. Nothing
 * happens if there is none. Never blocks. Thread: front. */
void engine_drop_merged(struct engine *e, const uint8_t lora_digest[32]);
/* What steps have wanted lately (a running average over about the last TRAFFIC_STEPS), for cost_choose: the
 * share of steps whose rows all wanted the adapter, merged or not, and such a step's rows on average; 0 for
 * one that was hardly seen. Any thread; waits at most for a few copied words. */
#define TRAFFIC_STEPS 512U
struct cost_load engine_traffic(struct engine *e, const uint8_t lora_digest[32]);

struct engine_stats {
    uint32_t n_running, n_waiting, n_paused;
    uint32_t kv_pages, kv_pages_free; /* free: those in the prefix cache that nobody uses, too */
    uint32_t prefix_pages;            /* in the prefix cache, used or not */
    uint32_t context;                 /* the limit in force */
    uint64_t n_steps, n_prompt_tokens, n_generated_tokens, n_preemptions;
    uint64_t batch_rows;                      /* of the last step */
    uint64_t sum_batch_rows;                  /* over all steps */
    uint64_t step_ns;                         /* total time in steps */
    uint64_t step_allocations;                /* allocations seen inside steps: 0 */
    uint64_t n_prefix_hits, n_prefix_tokens;  /* generations that found some of their prompt; its tokens */
    uint64_t n_prefix_evictions;              /* pages that were forgotten to make room */
    uint64_t n_merged_steps, n_merged_tokens; /* of n_steps and sum_batch_rows, those on merged copies */
    uint64_t n_shadow_rows;                   /* computed for shadows; not in batch_rows, sum_batch_rows */
    uint64_t n_shadow_drops;                  /* shadows given up, or never begun */
    uint64_t n_drafted, n_drafts_right;       /* tokens guessed and computed; of these, those that came */
    uint64_t wait_max_ns;                     /* the longest that one has waited for its first step */
    uint64_t oldest_wait_ns;                  /* of those that wait now, the longest */
    uint64_t wait_bound_ns;                   /* in force */
    /* Of interactive callers and of batch ones: the longest that a generation waited for its first step, and
     * that nothing was started of a caller's voice that waited. */
    uint64_t class_wait_max_ns[2], voice_wait_max_ns[2];
    uint64_t n_late;   /* generations that were started out of turn because of the bound */
    uint64_t n_yields; /* of n_preemptions: to make place for one that waited or was paused beyond it */
    struct engine_threads threads;
};
void engine_stats(const struct engine *e, struct engine_stats *out); /* any thread: a snapshot of counters */
size_t kv_bytes_in_use(const struct engine *e);

#endif
