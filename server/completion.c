/* The life of a completion:
 *
 *   begin → words → voice → parse → submit every choice → events … → finish
 *           here, or on a worker    any failure: one answer, the rest is cancelled ─┘
 *
 * `answered` and `n_open` are the two halves of the end: what the client gets, and what the engine still
 * owes. The adapter's version is released when both are through. */
#include "completion.h"

#include <gnutls/crypto.h>
#include <string.h>
#include <sys/random.h>

#include "auto.h"
#include "base/clock.h"
#include "body_defaults.h"
#include "bundle.h"
#include "metrics.h"
#include "prompt_cut.h"
#include "server.h"
#include "sse.h"
#include "tenant_gate.h"

#define EMBEDDINGS_AT_ONCE 64U /* of a request in the engine: the others leave room to other requests */
#define WAITS_MAX 16U          /* a voice of 8 members, each of which may be pushed out once meanwhile */

/* ---- prompts */

static void free_prompts(void *data)
{
    struct completion *c = data;
    for (uint32_t i = 0; i < c->n_prompts; i++)
        token_list_fini(&c->prompts[i].ids);
}

enum status completion_add_prompts(struct completion *c, uint32_t n)
{
    c->prompts = arena_array(c->r->arena, n, sizeof *c->prompts);
    if (!c->prompts || arena_on_end(c->r->arena, free_prompts, c) != 0)
        return fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for %u prompts", n);
    c->n_prompts = n;
    return STATUS_OK;
}

enum status completion_encode(struct completion *c, uint32_t index, const char *text, size_t length,
                              bool add_special)
{
    struct encode_options o = {
        .add_special = add_special, .parse_special = true, .limit_ids = c->cut.tokens ? 0 : c->context};
    struct prompt *p = &c->prompts[index];
    struct error err;
    enum status s = tokenizer_encode(c->server->base.text->tokenizer, text, length, &o, &p->ids, &err);
    if (s == STATUS_TOO_LARGE) {
        s = fault_set(&c->fault, s, "prompt", "the prompt is longer than this model's context of %u tokens",
                      c->context);
        snprintf(c->fault.code, sizeof c->fault.code, "context_length_exceeded");
        return s;
    }
    if (s != STATUS_OK)
        return fault_set(&c->fault, s, "prompt", "%s", err.text);
    prompt_cut_ids(&c->cut, &p->ids);
    if (c->params.echo) {
        p->text = text;
        p->n_text = length;
    }
    return STATUS_OK;
}

/* ---- begin */

static void free_body(void *data)
{
    struct completion *c = data;
    json_decref(c->body);
}

/* The body, and who shall speak. */
static void read_words(void *data)
{
    struct completion *c = data;
    enum status st = parse_body(c->r->body, c->r->n_body, &c->body, &c->fault);
    if (st == STATUS_OK && c->dialect->translate)
        st = c->dialect->translate(c);
    if (st == STATUS_OK) {
        struct reader r = {.object = c->body, .fault = &c->fault};
        read_voice_words(&r, c->r->arena, &c->words);
        st = r.status;
    }
    c->fault.error.status = st;
}

/* All the rest, for the voice that is known now. */
static void parse(void *data)
{
    struct completion *c = data;
    const struct server *s = c->server;
    struct parse_limits limits = {.n_max = s->conf->n_max,
                                  .n_vocab = model_config(s->base.model)->vocab_size,
                                  .tokenizer = s->base.text->tokenizer,
                                  .grammars = s->grammars,
                                  .caller = gate_name(c->r)};
    enum status st = completion_apply_defaults(c);
    if (st == STATUS_OK)
        st = parse_gen_params(c->body, c->dialect->api, &limits, c->r->arena, &c->params, &c->fault);
    if (st == STATUS_OK)
        st = c->dialect->parse(c);
    c->fault.error.status = st;
}

static bool is_long(const struct completion *c)
{
    return c->r->n_body > c->server->conf->worker_text_bytes;
}

/* On a worker, if it takes long; then back here. */
static void in_turn(struct completion *c, bool takes_long, void (*work)(void *data), void (*done)(void *data))
{
    if (takes_long && server_work(c->server, work, done, c))
        return;
    work(c);
    done(c);
}

static void on_gone(struct request *r)
{
    completion_cancel(r->state);
}

static void choose_voice(void *data);
static void admit(void *data);

void completion_begin(struct request *r, const struct dialect *dialect)
{
    struct server *s = r->server;
    struct fault f = {0};
    if (server_serving(s, &f.error) != STATUS_OK || gate_admit(r, &f) != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    struct completion *c = arena_alloc(r->arena, sizeof *c);
    if (!c || arena_on_end(r->arena, free_body, c) != 0) {
        reply_error(r, 503, "no memory for the request", NULL, NULL);
        return;
    }
    const struct tenant_spec *tenant = gate_spec(r);
    *c = (struct completion){.r = r, .server = s, .dialect = dialect, .context = s->context};
    if (tenant && tenant->context < c->context)
        c->context = tenant->context;
    request_hold(r);
    r->state = c;
    r->on_gone = on_gone;
    c->next = s->completions;
    if (c->next)
        c->next->prev = c;
    s->completions = c;
    in_turn(c, is_long(c) || dialect->waits, read_words, choose_voice);
}

/* ---- submit */

static void free_choices(void *data)
{
    struct completion *c = data;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        reply_fini(&c->choices[i].reply);
        buf_fini(&c->choices[i].ids);
        buf_fini(&c->choices[i].prompt_logprobs);
        logprob_list_fini(&c->choices[i].logprobs);
    }
}

static void on_event(struct sink *sink, const struct event *e);

static enum status make_choices(struct completion *c)
{
    const struct gen_params *p = &c->params;
    struct arena *a = c->r->arena;
    uint64_t n = (uint64_t)c->n_prompts * p->n_made;
    uint32_t most = c->pooling ? EMBEDDINGS_MAX : c->server->conf->choices_max;
    if (n > most)
        return fault_set(&c->fault, STATUS_INVALID, "n",
                         "%u prompts with n=%u make %llu choices, at most %u are accepted", c->n_prompts,
                         p->n, (unsigned long long)n, most);
    c->choices = arena_array(a, n, sizeof *c->choices);
    c->id = arena_printf(a, "%s%s", c->dialect->id_prefix, c->r->id);
    if (!c->choices || !c->id || arena_on_end(a, free_choices, c) != 0)
        return fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for %llu choices",
                         (unsigned long long)n);
    c->n_choices = (uint32_t)n;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        struct choice *h = &c->choices[i];
        *h = (struct choice){.sink = {.on_event = on_event},
                             .owner = c,
                             .index = i,
                             .prompt = &c->prompts[i / p->n_made],
                             .stop_token = -1,
                             .stop_string_index = -1};
        reply_init(&h->reply, &c->format);
        buf_init(&h->ids, 0);
        buf_init(&h->prompt_logprobs, 0);
        logprob_list_init(&h->logprobs);
        if (h->prompt->text)
            buf_append(&h->reply.content, h->prompt->text, h->prompt->n_text);
    }
    return completion_pool_begin(c);
}

static uint64_t random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)clock_now_ns();
    return seed;
}

/* Who may share KV pages, and could learn from the time to a first token what another has asked: those with
 * the same key (of tenants: the same tenant or group of them) and the same cache_salt. False: they can't be
 * told apart. */
static bool salt_cache(const struct completion *c, uint8_t salt[32])
{
    const char *caller = completion_cache_owner(c), *more = c->params.cache_salt;
    gnutls_hash_hd_t hash;
    if (!caller && !more)
        return true;
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0)
        return false;
    gnutls_hash(hash, caller ? caller : "", caller ? strlen(caller) + 1 : 1);
    gnutls_hash(hash, more ? more : "", more ? strlen(more) : 0);
    gnutls_hash_deinit(hash, salt);
    return true;
}

uint32_t completion_max_tokens(const struct completion *c, const struct prompt *p)
{
    uint32_t rest = p->ids.n_ids < c->context ? c->context - (uint32_t)p->ids.n_ids : 0;
    return c->params.max_tokens < rest ? c->params.max_tokens : rest;
}

/* The prompt's are asked for in two ways, of which one event serves both. */
static int32_t prompt_logprobs(const struct gen_params *p)
{
    int32_t echoed = p->echo ? p->n_logprobs : -1;
    return echoed > p->n_prompt_logprobs ? echoed : p->n_prompt_logprobs;
}

static enum status submit(struct completion *c, struct choice *h)
{
    const struct gen_params *p = &c->params;
    uint32_t max_tokens = completion_max_tokens(c, h->prompt);
    if (c->context < c->server->context && h->prompt->ids.n_ids >= c->context) { /* else the engine says it */
        snprintf(c->fault.code, sizeof c->fault.code, "context_length_exceeded");
        return fail(&c->fault.error, STATUS_TOO_LARGE,
                    "the prompt has %zu tokens, but the context of \"%.80s\" is %u", h->prompt->ids.n_ids,
                    c->voice.shown, c->context);
    }
    struct generation g = {
        .prompt = h->prompt->ids.ids,
        .n_prompt = (uint32_t)h->prompt->ids.n_ids,
        .lora = c->voice.lora,
        .shadow_lora = c->voice.shadow_lora,
        .sampling = p->sampling,
        .caller = completion_caller(c),
        .max_tokens = max_tokens,
        .min_tokens = p->min_tokens < max_tokens ? p->min_tokens : max_tokens,
        .ignore_eos = p->ignore_eos,
        .stop_tokens = p->stop_tokens,
        .n_stop_tokens = p->n_stop_tokens,
        .stop_strings = p->stop,
        .n_stop_strings = p->n_stop,
        .include_stop = p->include_stop,
        .skip_special_tokens = p->skip_special_tokens,
        .kept_tokens = c->kept,
        .n_kept_tokens = c->n_kept,
        .n_logprobs = p->n_logprobs < 0 && p->n_made > p->n ? 0 : p->n_logprobs,
        .n_prompt_logprobs = prompt_logprobs(p),
        .priority = p->priority,
        .grammar = c->pooling ? NULL : p->grammar,
        .pooling = c->pooling,
        .pooled = h->pooled,
    };
    /* A mean needs all of a prompt's states, so it can take no pages and leaves none in others' place. */
    g.cache_off = !salt_cache(c, g.cache_salt) || p->cache_off || c->pooling == POOLING_MEAN;
    /* Choices of one prompt differ by their seed, and are the same again with the same request. */
    g.sampling.seed = p->has_seed ? p->sampling.seed + h->index % p->n_made : random_seed();
    enum status s = bridge_submit(c->server->bridge, &g, &h->sink, &c->fault.error);
    if (s == STATUS_TOO_LARGE)
        snprintf(c->fault.code, sizeof c->fault.code, "context_length_exceeded");
    if (s == STATUS_OK) {
        h->open = true;
        c->n_open++;
        c->metrics->n_waiting++;
    }
    return s;
}

static enum status submit_more(struct completion *c)
{
    uint32_t at_once = c->pooling ? EMBEDDINGS_AT_ONCE : UINT32_MAX;
    enum status s = STATUS_OK;
    while (c->n_submitted < c->n_choices && c->n_open < at_once && s == STATUS_OK)
        s = submit(c, &c->choices[c->n_submitted++]);
    return s;
}

/* The one answer of a completion that failed, before or after its stream began. */
static void answer_fault(struct completion *c)
{
    if (c->answered)
        return;
    c->answered = true;
    if (!c->r->status) {
        reply_fault(c->r, &c->fault);
        return;
    }
    struct buf b;
    buf_init(&b, 0);
    (c->dialect->fail)(c, &b); /* not clang-tidy's macro of that name */
    if (sse_send(c->r, &b))
        stream_end(c->r);
    buf_fini(&b);
}

/* What an operator should know of a failed load is in the log and in the adapter's last_error; a client hears
 * no paths. */
static void blame_load(struct completion *c, const struct error *err)
{
    if (err->status == STATUS_LIMITED || err->status == STATUS_FORBIDDEN) {
        completion_limited(c, err);
        return;
    }
    if (err->status == STATUS_FULL || err->status == STATUS_UNAVAILABLE || err->status == STATUS_NO_MEMORY) {
        c->fault.error = *err;
        return;
    }
    if (c->voice.missing && c->voice.missing->always) {
        fault_set(&c->fault, STATUS_UNAVAILABLE, NULL,
                  "what this server adds to every voice can't be loaded: \"%.100s\"; its operator knows why",
                  c->waiter.name);
        return;
    }
    fault_set(&c->fault, STATUS_NOT_FOUND, "model",
              "The model \"%.100s\" can't be loaded; its operator knows why", c->waiter.name);
    snprintf(c->fault.code, sizeof c->fault.code, "model_not_found");
}

/* The bytes are there, or why they aren't. */
static void on_loaded(struct load_waiter *w, const struct error *err)
{
    struct completion *c = (struct completion *)((char *)w - offsetof(struct completion, waiter));
    if (err)
        blame_load(c, err);
    choose_voice(c);
}

/* Waits for the bytes of a voice's member; then all of it is asked again, since the current version may be
 * another one by then. */
static enum status wait_for_voice(struct completion *c)
{
    const struct voice_member *m = c->voice.missing;
    struct error err;
    c->fault = (struct fault){0};
    if (c->n_waits++ >= WAITS_MAX)
        return fault_set(
            &c->fault, STATUS_FULL, "model",
            "\"%s\" leaves memory as soon as it is loaded: there is too little room for the voices in use",
            m->term.name);
    if (completion_may_load(c) != STATUS_OK)
        return c->fault.error.status;
    c->waiter.ready = on_loaded;
    if (adapter_ops_wait(c->server->adapter_ops, &c->waiter, m->term.name, m->generation, c->voice.tenant,
                         &err) != STATUS_OK)
        blame_load(c, &err);
    return c->fault.error.status;
}

/* Some steps of this voice may run on a merged copy. */
static bool may_be_merged(const struct completion *c)
{
    const struct voice *v = &c->voice;
    const struct adapter *a =
        v->n_members == 1 ? registry_find(c->server->registry, v->members[0].term.name) : NULL;
    return a && a->wish.merge != MERGE_NEVER;
}

/* Who speaks; then the request is read for it. */
static void choose_voice(void *data)
{
    struct completion *c = data;
    struct request *r = c->r;
    enum status s = c->fault.error.status;
    if (s == STATUS_OK)
        s = server_serving(c->server, &c->fault.error);
    if (s == STATUS_OK && c->n_waits == 0)
        s = auto_choose(c);
    if (s == STATUS_OK) {
        s = c->n_waits ? voice_bind(r, &c->voice, &c->fault)
                       : voice_resolve(r, &c->words, &c->voice, &c->fault);
        if (s == STATUS_UNAVAILABLE && c->voice.missing && !r->gone) {
            s = wait_for_voice(c);
            if (s == STATUS_OK)
                return; /* on_loaded comes back here */
        }
    }
    if (s != STATUS_OK) {
        admit(c);
        return;
    }
    c->bundle = voice_bundle(&c->voice);
    if (c->bundle && c->bundle->context && c->bundle->context < c->context)
        c->context = c->bundle->context;
    bool compiles = body_says(c->body, "grammar") || (c->bundle && body_says(c->bundle->defaults, "grammar"));
    in_turn(c, is_long(c) || compiles, parse, admit);
}

static void admit(void *data)
{
    struct completion *c = data;
    struct request *r = c->r;
    enum status s = c->fault.error.status;
    c->metrics = metrics_voice(c->server->metrics, s == STATUS_NOT_FOUND ? "unknown"
                                                   : c->voice.label      ? c->voice.label
                                                                         : "");
    if (s == STATUS_OK)
        s = make_choices(c);
    if (s == STATUS_OK && !r->gone && !c->dialect->counts)
        s = completion_reserve(c);
    c->created_s = clock_wall_ms() / 1000;
    if (s == STATUS_OK && !r->gone && !c->dialect->counts) {
        voice_headers(r, &c->voice);
        if (c->overruled)
            reply_header(r, "X-Adapter-Locked", c->overruled);
        c->shows_path = may_be_merged(c);
        s = submit_more(c);
    }
    if (s != STATUS_OK) {
        answer_fault(c);
        completion_cancel(c);
    } else if (c->params.stream && !r->gone) {
        c->written_ns = clock_now_ns();
        c->begins_later = c->shows_path;
        if (!c->begins_later)
            completion_begin_stream(c);
    }
    if (c->n_open == 0)
        completion_finish(c);
}

/* ---- events */

static void send_chunk(struct completion *c, struct choice *h)
{
    if (c->answered || c->r->gone)
        return;
    struct buf b;
    buf_init(&b, 0);
    c->dialect->chunk(c, h, &b);
    c->written_ns = clock_now_ns();
    if (b.length)
        (void)sse_send(c->r, &b); /* a reader who is too slow is gone by now, and on_gone has cancelled */
    buf_fini(&b);
}

static void add_id(struct choice *h, int32_t token)
{
    if (h->owner->params.return_token_ids)
        buf_printf(&h->ids, h->ids.length ? ",%d" : "%d", token);
}

static void add_logprobs(struct completion *c, struct choice *h, const struct event *e, bool known)
{
    struct logprob_style style = {.api = c->dialect->chat_logprobs ? API_CHAT : c->dialect->api,
                                  .tokenizer = c->server->base.text->tokenizer,
                                  .as_ids = c->params.tokens_as_ids,
                                  .skip_special = c->params.skip_special_tokens};
    logprob_list_add(&h->logprobs, &style, e, known);
}

static void on_token(struct completion *c, struct choice *h, const struct event *e)
{
    const struct gen_params *p = &c->params;
    int64_t now = clock_now_ns();
    if (h->first_ns == 0) {
        h->first_ns = now;
        histogram_add(&c->metrics->ttft, (double)(now - c->r->started_ns) / 1e9);
    } else {
        histogram_add(&c->metrics->inter_token, (double)(now - h->last_ns) / 1e9);
    }
    h->last_ns = now;
    h->n_generated++;
    h->logprob_sum += (double)e->logprob;
    c->metrics->generated_tokens++;
    add_id(h, e->token);
    if (p->n_logprobs >= 0)
        add_logprobs(c, h, e, true);
}

/* llama-server's t_max_predict_ms: what takes longer ends, but not within its first line. */
static void end_in_time(struct completion *c, struct choice *h, const struct event *e)
{
    h->has_line |= e->n_text && memchr(e->text, '\n', e->n_text);
    if (!h->has_line || h->timed_out || h->last_ns - h->first_ns <= c->params.max_decode_ms * NS_PER_MS)
        return;
    h->timed_out = true;
    bridge_cancel(c->server->bridge, &h->sink);
}

/* prompt_logprobs may have asked for more of the best than logprobs did. */
static void add_echoed(struct completion *c, struct choice *h, const struct event *e, bool known)
{
    struct event shown = *e;
    uint32_t most = (uint32_t)c->params.n_logprobs;
    shown.n_top = e->n_top < most ? e->n_top : most;
    add_logprobs(c, h, &shown, known);
}

static void on_prompt_token(struct completion *c, struct choice *h, const struct event *e)
{
    bool known = h->n_scored++ > 0; /* nothing predicts a prompt's first token */
    if (c->params.echo && c->params.n_logprobs >= 0)
        add_echoed(c, h, e, known);
    if (c->params.n_prompt_logprobs >= 0)
        prompt_logprobs_add(&h->prompt_logprobs, c->server->base.text->tokenizer,
                            (uint32_t)c->params.n_prompt_logprobs, known ? e : NULL);
}

static void on_final(struct completion *c, struct choice *h)
{
    h->open = false;
    c->n_open--;
    if (h->started)
        c->metrics->n_running--;
    else
        c->metrics->n_waiting--;
}

/* What the shadow made of the tokens, to its version's account. */
static void count_shadow(struct completion *c, const struct event *e)
{
    const struct adapter_version *v = c->voice.shadow;
    struct adapter *a = v ? registry_find(c->server->registry, v->name) : NULL;
    const struct shadow_score *s = &e->shadow;
    if (!a)
        return;
    struct shadow_totals more = {.n_tokens = s->n_tokens,
                                 .n_agree = s->n_agree,
                                 .n_served = s->n_served,
                                 .n_failed = s->n_failed,
                                 .n_replies = 1,
                                 .n_dropped = s->dropped,
                                 .kl_sum = s->kl_sum};
    registry_note_shadow(a, v->generation, &more);
    if (s->n_failed)
        adapter_ops_judge(c->server->adapter_ops, v->name);
}

static void on_failed(struct completion *c, struct choice *h, const struct event *e)
{
    on_final(c, h);
    c->non_finite |= e->non_finite;
    if (!c->answered)
        c->fault = (struct fault){.error = e->error};
    answer_fault(c);
    completion_cancel(c);
}

static const char *finish_reason(const struct completion *c, const struct choice *h, const struct event *e)
{
    if (e->reason != FINISH_STOP)
        return "length";
    if (!h->reply.n_calls)
        return "stop";
    return c->legacy_calls ? "function_call" : "tool_calls";
}

static void on_done(struct completion *c, struct choice *h, const struct event *e)
{
    on_final(c, h);
    h->n_cached = e->n_cached;
    h->n_generated = e->n_generated;
    h->n_drafted = e->n_drafted;
    h->n_drafts_right = e->n_drafts_right;
    h->prefill_ns = e->prefill_ns;
    h->decode_ns = e->decode_ns;
    h->stop_token = e->stop_token;
    h->stop_string_index = e->stop_string_index;
    completion_waited(c, e->queued_ns);
    c->metrics->prompt_tokens += e->n_prompt;
    c->metrics->cached_tokens += e->n_cached;
    c->n_merged_tokens += e->n_merged_tokens;
    c->n_unmerged_tokens += e->n_unmerged_tokens;
    count_shadow(c, e);
    if (e->reason == FINISH_CANCELLED && (!h->timed_out || c->cancelled)) {
        if (c->r->gone)
            return;
        if (c->fault.error.status == STATUS_OK)
            fault_set(&c->fault, STATUS_UNAVAILABLE, NULL, "the server is stopping");
        answer_fault(c);
        return;
    }
    reply_end(&h->reply);
    h->finish_reason = finish_reason(c, h, e);
    if (c->params.stream)
        send_chunk(c, h);
}

/* A stream whose headers say the path of its first step. */
static void begin_stream(struct completion *c, bool merged)
{
    if (!c->begins_later || c->r->gone || c->answered)
        return;
    c->begins_later = false;
    reply_header(c->r, "X-Adapter-Path", merged ? "merged" : "unmerged");
    completion_begin_stream(c);
}

/* Choices that wait for those before them. */
static void go_on(struct completion *c)
{
    if (c->cancelled || c->answered || c->r->gone || submit_more(c) == STATUS_OK)
        return;
    answer_fault(c);
    completion_cancel(c);
}

static void on_event(struct sink *sink, const struct event *e)
{
    struct choice *h = (struct choice *)sink;
    struct completion *c = h->owner;
    bool thinks = reply_is_thinking(&h->reply);
    if (e->n_text && e->kind != EVENT_PROMPT && e->kind != EVENT_FAILED)
        reply_push(&h->reply, e->text, e->n_text);
    if (c->hides_reasoning)
        buf_clear(&h->reply.reasoning);
    switch (e->kind) {
    case EVENT_STARTED:
        h->started = true;
        begin_stream(c, e->merged);
        c->metrics->n_waiting--;
        c->metrics->n_running++;
        break;
    case EVENT_PROMPT:
        on_prompt_token(c, h, e);
        break;
    case EVENT_TOKEN:
        h->n_reasoning += thinks || reply_is_thinking(&h->reply);
        on_token(c, h, e);
        if (c->params.max_decode_ms)
            end_in_time(c, h, e);
        if (c->params.stream && (reply_has_news(&h->reply) || h->ids.length || h->logprobs.items.length))
            send_chunk(c, h);
        break;
    case EVENT_TEXT:
        if (c->params.stream)
            send_chunk(c, h);
        break;
    case EVENT_DONE:
        on_done(c, h, e);
        break;
    case EVENT_FAILED:
        on_failed(c, h, e);
        break;
    }
    if (e->kind == EVENT_DONE)
        go_on(c);
    if (c->n_open == 0)
        completion_finish(c);
}

/* ---- the end */

void completion_cancel(struct completion *c)
{
    if (c->cancelled)
        return;
    c->cancelled = true;
    for (uint32_t i = 0; i < c->n_choices; i++)
        if (c->choices[i].open)
            bridge_cancel(c->server->bridge, &c->choices[i].sink);
}

void completion_tick(struct completion *c, int64_t now_ns)
{
    if (c->begins_later && now_ns - c->written_ns >= c->server->conf->ping_interval_ms * NS_PER_MS)
        begin_stream(c, false); /* it waits so long that its client must hear something */
    /* Before it has choices its parameters may be a worker's. */
    if (c->n_open == 0 || !c->params.stream || c->answered || c->r->gone || !c->r->status)
        return;
    if (now_ns - c->written_ns < c->server->conf->ping_interval_ms * NS_PER_MS)
        return;
    c->written_ns = now_ns;
    if (c->dialect->ping)
        (void)stream_write(c->r, c->dialect->ping, strlen(c->dialect->ping));
}
