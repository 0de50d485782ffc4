/* `lorikeet run`: one generation in the terminal, streamed, without a server. The same base loading, adapter
 * checks and engine as `serve`, so what is seen here is what a client gets. */
#include "cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "adapters.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base_load.h"
#include "conf.h"
#include "engine.h"
#include "model.h"
#include "options.h"
#include "text.h"

struct run {
    struct conf conf;
    struct base base;
    struct adapter_version *adapter;
    struct engine *engine;
    const char *prompt, *system;
    bool raw, quiet;
    struct sampling sampling;
    uint32_t max_tokens;
};

static int usage(FILE *to, int code)
{
    fprintf(to,
            "usage: lorikeet run --model PATH [--adapter NAME=PATH[:SCALE]] -p PROMPT [options]\n"
            "  -p, --prompt TEXT          what to say (\"-\": read it from standard input)\n"
            "      --system TEXT          a system message before it\n"
            "      --raw                  continue the text as it is, without the chat template\n"
            "  -n, --max-tokens N         at most this many tokens (256)\n"
            "      --temperature T        0: always the likeliest token (0)\n"
            "      --top-k N, --top-p P, --min-p P, --seed N\n"
            "  -q, --quiet                no figures at the end\n"
            "and of serve's options: --threads --isa --quant --kv-type --activations --context --config …\n");
    return code;
}

static bool parse_number(const char *text, double min, double max, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end && *out >= min && *out <= max;
}

/* A flag of run's own; false if it is none. Takes its value from `value`; *bad gets true for a wrong one. */
static bool set_own(struct run *r, const char *flag, const char *value, bool *bad)
{
    double v = 0;
    if (strcmp(flag, "-p") == 0 || strcmp(flag, "--prompt") == 0) {
        r->prompt = value;
    } else if (strcmp(flag, "--system") == 0) {
        r->system = value;
    } else if (strcmp(flag, "-n") == 0 || strcmp(flag, "--max-tokens") == 0) {
        *bad = !parse_number(value, 1, 1e9, &v);
        r->max_tokens = (uint32_t)v;
    } else if (strcmp(flag, "--temperature") == 0) {
        *bad = !parse_number(value, 0, 100, &v);
        r->sampling.temperature = (float)v;
    } else if (strcmp(flag, "--top-k") == 0) {
        *bad = !parse_number(value, 0, 1e9, &v);
        r->sampling.top_k = (int32_t)v;
    } else if (strcmp(flag, "--top-p") == 0) {
        *bad = !parse_number(value, 1e-9, 1, &v);
        r->sampling.top_p = (float)v;
    } else if (strcmp(flag, "--min-p") == 0) {
        *bad = !parse_number(value, 0, 1, &v);
        r->sampling.min_p = (float)v;
    } else if (strcmp(flag, "--seed") == 0) {
        *bad = !parse_number(value, 0, 9e15, &v);
        r->sampling.seed = (uint64_t)v;
    } else {
        return false;
    }
    return true;
}

/* Splits argv: run's own flags are taken, the rest goes to the configuration. -1: go on; else an exit code.
 */
static int read_args(struct run *r, int argc, char **argv)
{
    struct error err;
    bool help = false, bad = false;
    char **rest = mem_array((size_t)argc + 1, sizeof *rest);
    if (!rest || !conf_init(&r->conf))
        return 1;
    int n_rest = 0, code = -1;
    rest[n_rest++] = argv[0];
    for (int i = 1; i < argc && code < 0; i++) {
        if (strcmp(argv[i], "--raw") == 0)
            r->raw = true;
        else if (strcmp(argv[i], "-q") == 0 || strcmp(argv[i], "--quiet") == 0)
            r->quiet = true;
        else if (i + 1 < argc && set_own(r, argv[i], argv[i + 1], &bad))
            i++;
        else
            rest[n_rest++] = argv[i];
        if (bad)
            fprintf(stderr, "lorikeet: %s: \"%s\" is not a number that it can take\n", argv[i - 1], argv[i]);
        code = bad ? 2 : -1;
    }
    if (code < 0 && conf_read_args(&r->conf, n_rest, rest, &help, &err) != STATUS_OK) {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        code = 2;
    }
    mem_free(rest);
    if (help)
        return usage(stdout, 0);
    if (code < 0 && (!r->prompt || !r->conf.model || r->conf.n_adapters > 1))
        return usage(stderr, 2);
    return code;
}

static enum status read_stdin(struct run *r, struct error *err)
{
    struct buf text;
    buf_init(&text, (size_t)1 << 22);
    char chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        if (!buf_append(&text, chunk, n))
            break;
    r->prompt = text.failed ? NULL : arena_strndup(r->conf.arena, text.data, text.length);
    buf_fini(&text);
    return r->prompt ? STATUS_OK : fail(err, STATUS_TOO_LARGE, "the prompt on standard input is above 4 MiB");
}

/* The prompt through the model's chat template, or as it is. */
static enum status make_prompt(struct run *r, struct token_list *ids, struct error *err)
{
    const struct text_model *t = r->base.text;
    struct encode_options options = {.add_special = true, .parse_special = true};
    if (r->raw || !t->chat_template)
        return tokenizer_encode(t->tokenizer, r->prompt, strlen(r->prompt), &options, ids, err);
    json_t *messages = json_array();
    if (r->system)
        json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "system", "content", r->system));
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "user", "content", r->prompt));
    json_t *variables = json_pack("{s:o,s:b,s:s,s:s}", "messages", messages, "add_generation_prompt", 1,
                                  "bos_token", t->bos_text, "eos_token", t->eos_text);
    if (!variables)
        return fail(err, STATUS_INVALID, "the prompt is not UTF-8");
    struct buf text;
    buf_init(&text, 0);
    enum status s = chat_template_render(t->chat_template, variables, clock_wall_ms(), NULL, &text, err);
    options.add_special = false; /* a template writes its own */
    if (s == STATUS_OK)
        s = tokenizer_encode(t->tokenizer, text.data, text.length, &options, ids, err);
    buf_fini(&text);
    json_decref(variables);
    return s;
}

static void print_figures(const struct run *r, const struct event *e)
{
    double prefill = (double)e->prefill_ns / 1e9, decode = (double)e->decode_ns / 1e9;
    fprintf(stderr, "\n[%s; %u prompt tokens, %.1f/s; %u tokens, %.1f/s; %s]\n",
            r->adapter ? r->adapter->name : r->base.name, e->n_prompt,
            prefill > 0 ? e->n_prompt / prefill : 0, e->n_generated,
            decode > 0 && e->n_generated > 1 ? (e->n_generated - 1) / decode : 0,
            e->reason == FINISH_LENGTH ? "cut at max-tokens" : "ended");
}

static enum status generate(struct run *r, const struct token_list *ids, struct error *err)
{
    struct generation g = {.prompt = ids->ids,
                           .n_prompt = (uint32_t)ids->n_ids,
                           .sampling = r->sampling,
                           .lora = r->adapter ? r->adapter->lora : NULL,
                           .max_tokens = r->max_tokens,
                           .skip_special_tokens = true,
                           .n_logprobs = -1,
                           .n_prompt_logprobs = -1};
    uint64_t id;
    struct event e;
    enum status s = engine_submit(r->engine, &g, &id, err);
    while (s == STATUS_OK) {
        if (!engine_wait(r->engine, &e, -1))
            continue;
        if (e.kind == EVENT_FAILED) {
            *err = e.error;
            return e.error.status;
        }
        if (e.n_text) {
            fwrite(e.text, 1, e.n_text, stdout);
            fflush(stdout);
        }
        if (e.kind == EVENT_DONE)
            break;
    }
    if (s == STATUS_OK) {
        printf("\n");
        if (!r->quiet)
            print_figures(r, &e);
    }
    return s;
}

static enum status run_all(struct run *r, struct error *err)
{
    enum status s = strcmp(r->prompt, "-") == 0 ? read_stdin(r, err) : STATUS_OK;
    if (s == STATUS_OK)
        s = base_open(&r->conf, &r->base, err);
    if (s == STATUS_OK && r->conf.n_adapters) {
        const struct conf_adapter *a = r->conf.adapters;
        struct adapter_source source = {
            .name = a->name, .path = a->path, .root_fd = -1, .scale = a->scale, .store = r->conf.store};
        s = adapter_load(&source, r->base.model, &r->adapter, err);
    }
    const struct engine_options options = {
        .n_sequences = 1,
        .context = r->conf.context,
        .kv_bytes = r->conf.kv_bytes,
        .kv_type = r->conf.kv_type,
        .n_threads = r->conf.n_threads,
        .speculation = strcmp(r->conf.speculate, "off") == 0 ? SPECULATION_OFF : SPECULATION_AUTO};
    if (s == STATUS_OK)
        s = engine_create(r->base.model, r->base.text, &options, NULL, NULL, &r->engine, err);
    struct token_list ids = {0};
    if (s == STATUS_OK)
        s = make_prompt(r, &ids, err);
    if (s == STATUS_OK)
        s = generate(r, &ids, err);
    token_list_fini(&ids);
    return s;
}

int cmd_run(int argc, char **argv)
{
    struct run r = {.max_tokens = 256,
                    .sampling = {.top_p = 1, .repetition_penalty = 1, .penalty_last_n = -1}};
    r.sampling.seed = (uint64_t)clock_now_ns();
    struct error err = {0};
    int code = read_args(&r, argc, argv);
    if (code < 0) {
        code = run_all(&r, &err) == STATUS_OK ? 0 : 1;
        if (code)
            fprintf(stderr, "lorikeet: %s\n", err.text);
        engine_destroy(r.engine);
        adapter_release(r.adapter);
        base_close(&r.base);
    }
    conf_fini(&r.conf);
    return code;
}
