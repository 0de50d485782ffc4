/* `lorikeet eval`: perplexity of a text, and its divergence from saved log-probabilities or from the same
 * model in another weight type. Opens what `serve` opens, in the same way; the measurement is in eval.c. */
#include "cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "adapters.h"
#include "base/file.h"
#include "base/mem.h"
#include "base_load.h"
#include "conf.h"
#include "eval.h"
#include "options.h"
#include "text.h"

#define TEXT_BYTES_MAX ((size_t)64 << 20)
#define DEFAULT_WINDOW 512U

struct command {
    struct conf conf;
    const char *text_path, *save_path, *against_path, *against_quant, *merged_type;
    bool save_f16, parse_special, json, quiet;
    uint32_t stride, tokens_max; /* 0: half a window; all */

    struct source {
        struct base base;
        struct adapter_version *adapters[LORA_MEMBERS_MAX];
        struct lora *lora; /* of all of them; NULL: none */
    } ours, other;         /* other: --against-quant */
    struct model *merged;  /* --merged; or NULL */
    struct team *team;
    struct token_list ids;
    size_t text_bytes;
    struct eval_text text;
    struct eval_side side, reference;
    struct eval_file save, against;
};

static int usage(FILE *to, int code)
{
    fprintf(to,
            "usage: lorikeet eval --model PATH [--adapter [NAME=]PATH[:SCALE]] --text FILE [options]\n"
            "  --text FILE                UTF-8 text; its perplexity is measured\n"
            "  --context N                tokens of a window (512, or the model's context if that is less)\n"
            "  --stride N                 tokens from one window to the next (half a window)\n"
            "  --tokens N                 only the text's first N tokens\n"
            "  --parse-special            \"<eos>\" in the text is that token, not five characters\n"
            "  --save-logits FILE         writes the log-probabilities of every scored position\n"
            "  --save-type f32|f16        as these (f32); a row is the whole vocabulary\n"
            "  --against FILE             divergence from saved log-probabilities of the same text\n"
            "  --against-quant TYPE       divergence from the same model with --quant TYPE\n"
            "  --merged TYPE              the adapter inside copies of the weights: f32, bf16 or q8_0\n"
            "  --json                     the result as JSON\n"
            "  -q, --quiet                no progress on standard error\n"
            "and of serve's options: --threads --isa --quant --kv-type --activations --config\n"
            "docs/EVAL.md defines every number.\n");
    return code;
}

/* ---- arguments ---- */

static enum status add_adapter(struct command *c, const char *value, struct error *err)
{
    const char *equals = strchr(value, '='), *slash = strchr(value, '/');
    if (equals && (!slash || equals < slash))
        return conf_add_adapter(&c->conf, value, err);
    size_t n = c->conf.n_adapters;
    const char *named = n ? arena_printf(c->conf.arena, "adapter%zu=%s", n + 1, value)
                          : arena_printf(c->conf.arena, "adapter=%s", value);
    return named ? conf_add_adapter(&c->conf, named, err)
                 : fail(err, STATUS_NO_MEMORY, "no memory for the configuration");
}

static enum status set_count(const char *flag, const char *value, uint32_t *out, struct error *err)
{
    char *end;
    unsigned long v = strtoul(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end || v < 1 || v > UINT32_MAX)
        return fail(err, STATUS_INVALID, "%s: found \"%s\", expected a whole number from 1", flag, value);
    *out = (uint32_t)v;
    return STATUS_OK;
}

/* A flag with a value of eval's own; *known gets false if it is none. */
static enum status set_own(struct command *c, const char *flag, const char *value, bool *known,
                           struct error *err)
{
    const struct {
        const char *flag, **to;
    } texts[] = {{"--text", &c->text_path},
                 {"--save-logits", &c->save_path},
                 {"--against", &c->against_path},
                 {"--against-quant", &c->against_quant},
                 {"--merged", &c->merged_type}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(flag, texts[i].flag) == 0) {
            *texts[i].to = value;
            return STATUS_OK;
        }
    if (strcmp(flag, "--adapter") == 0)
        return add_adapter(c, value, err);
    if (strcmp(flag, "--stride") == 0)
        return set_count(flag, value, &c->stride, err);
    if (strcmp(flag, "--tokens") == 0)
        return set_count(flag, value, &c->tokens_max, err);
    if (strcmp(flag, "--save-type") == 0) {
        c->save_f16 = strcmp(value, "f16") == 0;
        return c->save_f16 || strcmp(value, "f32") == 0
                   ? STATUS_OK
                   : fail(err, STATUS_INVALID, "--save-type: found \"%s\", expected f32 or f16", value);
    }
    *known = false;
    return STATUS_OK;
}

static bool set_switch(struct command *c, const char *flag)
{
    const struct {
        const char *flag;
        bool *to;
    } switches[] = {{"--parse-special", &c->parse_special},
                    {"--json", &c->json},
                    {"--quiet", &c->quiet},
                    {"-q", &c->quiet}};
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++)
        if (strcmp(flag, switches[i].flag) == 0)
            return *switches[i].to = true;
    return false;
}

static enum status check_args(const struct command *c, struct error *err)
{
    if (c->against_path && c->against_quant)
        return fail(err, STATUS_INVALID, "--against and --against-quant: one reference at a time");
    if (c->conf.n_adapters > LORA_MEMBERS_MAX)
        return fail(err, STATUS_INVALID, "--adapter: given %zu times, expected at most %u",
                    c->conf.n_adapters, LORA_MEMBERS_MAX);
    if (c->merged_type && c->conf.n_adapters == 0)
        return fail(err, STATUS_INVALID, "--merged: there is no --adapter to merge");
    return STATUS_OK;
}

/* Splits argv: eval's own flags are taken, the rest goes to the configuration. -1: go on; else an exit code.
 */
static int read_args(struct command *c, int argc, char **argv)
{
    struct error err;
    bool help = false;
    char **rest = mem_array((size_t)argc + 1, sizeof *rest);
    if (!rest || !conf_init(&c->conf)) {
        mem_free(rest);
        return 1;
    }
    int n_rest = 0;
    enum status s = STATUS_OK;
    rest[n_rest++] = argv[0];
    for (int i = 1; i < argc && s == STATUS_OK; i++) {
        bool known = i + 1 < argc;
        if (set_switch(c, argv[i]))
            continue;
        if (known)
            s = set_own(c, argv[i], argv[i + 1], &known, &err);
        if (known)
            i++;
        else
            rest[n_rest++] = argv[i];
    }
    if (s == STATUS_OK)
        s = conf_read_args(&c->conf, n_rest, rest, &help, &err);
    mem_free(rest);
    if (s == STATUS_OK && help)
        return usage(stdout, 0);
    if (s == STATUS_OK)
        s = check_args(c, &err);
    if (s != STATUS_OK) {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        return 2;
    }
    return c->text_path && c->conf.model ? -1 : usage(stderr, 2);
}

/* ---- opening ---- */

/* One adapter as `serve` loads it; several are the sum of their deltas, each times its scale. */
static enum status open_adapters(const struct conf *conf, struct source *o, struct error *err)
{
    struct lora *loras[LORA_MEMBERS_MAX];
    float weights[LORA_MEMBERS_MAX];
    bool alone = conf->n_adapters == 1;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < conf->n_adapters && s == STATUS_OK; i++) {
        const struct conf_adapter *a = &conf->adapters[i];
        struct adapter_source source = {.name = a->name,
                                        .path = a->path,
                                        .root_fd = -1,
                                        .scale = alone ? a->scale : 1,
                                        .store = conf->store};
        s = adapter_load(&source, o->base.model, &o->adapters[i], err);
        if (s != STATUS_OK)
            break;
        loras[i] = o->adapters[i]->lora;
        weights[i] = (float)a->scale;
    }
    if (s == STATUS_OK && alone)
        o->lora = lora_acquire(loras[0]);
    else if (s == STATUS_OK && conf->n_adapters > 1)
        s = lora_compose(loras, weights, (uint32_t)conf->n_adapters, &o->lora, err);
    return s;
}

static enum status source_open(const struct conf *conf, struct source *o, struct error *err)
{
    enum status s = base_open(conf, &o->base, err);
    return s == STATUS_OK ? open_adapters(conf, o, err) : s;
}

static void source_close(struct source *o)
{
    lora_release(o->lora);
    for (unsigned i = 0; i < LORA_MEMBERS_MAX; i++)
        adapter_release(o->adapters[i]);
    base_close(&o->base);
}

static enum status check_tokens(struct command *c, struct error *err)
{
    uint32_t vocab = model_config(c->ours.base.model)->vocab_size;
    if (c->tokens_max && c->ids.n_ids > c->tokens_max)
        c->ids.n_ids = c->tokens_max;
    for (size_t i = 0; i < c->ids.n_ids; i++)
        if (c->ids.ids[i] < 0 || (uint32_t)c->ids.ids[i] >= vocab)
            return fail(err, STATUS_MISMATCH,
                        "%s: token %zu has id %d, but the model's vocabulary is %u: tokenizer and weights "
                        "don't belong together",
                        c->text_path, i, c->ids.ids[i], vocab);
    return STATUS_OK;
}

static enum status read_text(struct command *c, struct error *err)
{
    struct buf text;
    buf_init(&text, 0);
    enum status s = file_read_all(c->text_path, TEXT_BYTES_MAX, &text, err);
    size_t valid = s == STATUS_OK ? utf8_valid_prefix(text.data, text.length) : 0;
    if (s == STATUS_OK && !utf8_is_valid(text.data, text.length))
        s = fail(err, STATUS_FORMAT, "%s: not UTF-8 at byte %zu; convert it, for example with iconv",
                 c->text_path, valid);
    struct encode_options options = {.parse_special = c->parse_special};
    if (s == STATUS_OK)
        s = tokenizer_encode(c->ours.base.text->tokenizer, text.data, text.length, &options, &c->ids, err);
    c->text_bytes = text.length;
    buf_fini(&text);
    return s == STATUS_OK ? check_tokens(c, err) : s;
}

static enum status choose_windows(struct command *c, struct error *err)
{
    const struct text_model *t = c->ours.base.text;
    uint32_t limit = model_config(c->ours.base.model)->max_position, window = c->conf.context;
    if (window == 0)
        window = limit < DEFAULT_WINDOW ? limit : DEFAULT_WINDOW;
    if (window < 2 || window > limit)
        return fail(err, STATUS_INVALID, "--context: found %u, expected 2 to %u, the model's context", window,
                    limit);
    uint32_t stride = c->stride ? c->stride : window / 2;
    if (stride >= window)
        return fail(err, STATUS_INVALID,
                    "--stride: found %u, expected 1 to %u: a window's first position is not scored", stride,
                    window - 1);
    c->text = (struct eval_text){.tokens = c->ids.ids,
                                 .n_tokens = c->ids.n_ids,
                                 .bos = t->add_bos ? t->bos_token : -1,
                                 .window = window,
                                 .stride = stride};
    if (eval_n_scored(&c->text) < 2)
        return fail(err, STATUS_INVALID, "%s: %zu tokens; at least %d are needed, so that two can be scored",
                    c->text_path, c->ids.n_ids, c->text.bos >= 0 ? 2 : 3);
    return STATUS_OK;
}

/* The model with the adapter inside, or the two apart. */
static enum status open_ours(struct command *c, struct error *err)
{
    const struct model *m = c->ours.base.model;
    struct lora *lora = c->ours.lora;
    enum dtype type;
    if (c->merged_type) {
        if (!dtype_from_name(c->merged_type, &type))
            return fail(err, STATUS_INVALID, "--merged: found \"%s\", expected f32, bf16 or q8_0",
                        c->merged_type);
        enum status s = model_merge(m, lora, type, c->team, &c->merged, err);
        if (s != STATUS_OK)
            return fail_within(err, "--merged");
        m = c->merged;
        lora = NULL;
    }
    return eval_side_init(&c->side, m, lora, c->conf.kv_type, c->text.window, c->team, err);
}

static enum status open_reference(struct command *c, struct error *err)
{
    const char *kv = c->conf.kv_type;
    if (c->against_path)
        return eval_file_open(&c->against, c->against_path, &c->text,
                              model_config(c->ours.base.model)->vocab_size, err);
    if (!c->against_quant)
        return STATUS_OK;
    if (strcmp(c->against_quant, c->conf.quant) == 0) /* it is loaded already */
        return eval_side_init(&c->reference, c->ours.base.model, c->ours.lora, kv, c->text.window, c->team,
                              err);
    struct conf other = c->conf; /* shares the arena, which `c` keeps */
    enum status s = option_set(&other, "quant", c->against_quant, err);
    if (s != STATUS_OK)
        return fail_within(err, "--against-quant");
    s = source_open(&other, &c->other, err);
    return s == STATUS_OK ? eval_side_init(&c->reference, c->other.base.model, c->other.lora, kv,
                                           c->text.window, c->team, err)
                          : s;
}

static enum status open_all(struct command *c, struct error *err)
{
    enum status s = source_open(&c->conf, &c->ours, err);
    if (s == STATUS_OK)
        s = read_text(c, err);
    if (s == STATUS_OK)
        s = choose_windows(c, err);
    if (s != STATUS_OK)
        return s;
    c->team = team_create(c->conf.n_threads);
    if (!c->team)
        return fail(err, STATUS_NO_MEMORY, "can't start %u threads", c->conf.n_threads);
    s = open_ours(c, err);
    if (s == STATUS_OK)
        s = open_reference(c, err);
    c->save.f16 = c->save_f16;
    if (s == STATUS_OK && c->save_path)
        s = eval_file_create(&c->save, c->save_path, &c->text, &c->side, err);
    return s;
}

static void close_all(struct command *c)
{
    eval_file_fini(&c->save);
    eval_file_fini(&c->against);
    eval_side_fini(&c->side);
    eval_side_fini(&c->reference);
    team_destroy(c->team);
    model_close(c->merged);
    source_close(&c->ours);
    source_close(&c->other);
    token_list_fini(&c->ids);
}

/* ---- the result ---- */

static void print_text(const struct command *c, const struct eval_result *r)
{
    const struct model_info *info = model_info(c->ours.base.model);
    const struct eval_text *t = &c->text;
    printf("%-13s %s (%s, %s, %.1f MB), kernels %s\n", "model", c->ours.base.name, info->family,
           dtype_name(info->weight_type), (double)info->size_bytes / 1e6, c->ours.base.kernels->isa);
    for (size_t i = 0; i < c->conf.n_adapters; i++)
        printf("%-13s %s, scale %g\n", "adapter", c->conf.adapters[i].name, c->conf.adapters[i].scale);
    const struct merge_report *merge = c->merged ? model_merge_report(c->merged) : NULL;
    if (merge)
        printf("%-13s %u matrices in %s, %.1f MB; rounding took %.3g %% of the delta\n", "merged",
               merge->n_matrices, c->merged_type, (double)merge->size_bytes / 1e6,
               merge->delta_norm > 0 ? 100 * merge->error_norm / merge->delta_norm : 0);
    printf("%-13s %s: %zu bytes, %zu tokens; %zu windows of %u, stride %u%s\n", "text", c->text_path,
           c->text_bytes, t->n_tokens, r->n_windows, t->window, t->stride,
           t->bos >= 0 ? ", each from bos" : "");
    printf("%-13s %zu scored in %.2f s, %.1f/s\n", "tokens", r->n_scored, r->seconds,
           r->seconds > 0 ? (double)r->n_scored / r->seconds : 0);
    printf("%-13s %.4f +- %.4f (mean -log p %.6f +- %.6f nats)\n", "perplexity", r->ppl, r->ppl_error,
           r->nll.mean, r->nll.error);
    if (!c->against_path && !c->against_quant)
        return;
    printf("%-13s %s%s, perplexity %.4f\n", "reference", c->against_path ? c->against_path : "--quant ",
           c->against_path ? "" : c->against_quant, r->ref_ppl);
    printf("%-13s %.3g +- %.2g nats; median %.3g, 99 %% %.3g, max %.3g\n", "KL", r->kl.mean, r->kl.error,
           r->kl_median, r->kl_99, r->kl_max);
    printf("%-13s %.3f %% +- %.3f %% of tokens\n", "same top", 100 * r->same_top.mean,
           100 * r->same_top.error);
    printf("%-13s %.4f %%\n", "RMS dp", 100 * r->rms_dp);
}

static json_t *mean_json(struct eval_mean m)
{
    return json_pack("{s:f,s:f}", "mean", m.mean, "error", m.error);
}

static json_t *adapters_json(const struct conf *conf)
{
    json_t *all = json_array();
    for (size_t i = 0; i < conf->n_adapters; i++)
        json_array_append_new(
            all, json_pack("{s:s,s:f}", "name", conf->adapters[i].name, "scale", conf->adapters[i].scale));
    return all;
}

static int print_json(const struct command *c, const struct eval_result *r)
{
    const struct eval_text *t = &c->text;
    json_t *o = json_pack(
        "{s:s,s:s,s:s,s:o,s:s,s:I,s:I,s:I,s:I,s:I,s:b,s:f,s:f,s:f,s:o}", "model", c->ours.base.name,
        "weights", dtype_name(model_info(c->ours.base.model)->weight_type), "isa", c->ours.base.kernels->isa,
        "adapters", adapters_json(&c->conf), "text", c->text_path, "n_tokens", (json_int_t)t->n_tokens,
        "n_scored", (json_int_t)r->n_scored, "n_windows", (json_int_t)r->n_windows, "window",
        (json_int_t)t->window, "stride", (json_int_t)t->stride, "bos", t->bos >= 0, "seconds", r->seconds,
        "perplexity", r->ppl, "perplexity_error", r->ppl_error, "nll", mean_json(r->nll));
    if (o && (c->against_path || c->against_quant)) {
        json_t *kl = mean_json(r->kl);
        json_object_set_new(kl, "median", json_real(r->kl_median));
        json_object_set_new(kl, "p99", json_real(r->kl_99));
        json_object_set_new(kl, "max", json_real(r->kl_max));
        json_object_set_new(o, "reference",
                            json_string(c->against_path ? c->against_path : c->against_quant));
        json_object_set_new(o, "reference_perplexity", json_real(r->ref_ppl));
        json_object_set_new(o, "kl", kl);
        json_object_set_new(o, "same_top", mean_json(r->same_top));
        json_object_set_new(o, "rms_dp", json_real(r->rms_dp));
    }
    const struct merge_report *merge = c->merged ? model_merge_report(c->merged) : NULL;
    if (o && merge)
        json_object_set_new(o, "merged",
                            json_pack("{s:s,s:I,s:I,s:f,s:f}", "type", c->merged_type, "n_matrices",
                                      (json_int_t)merge->n_matrices, "size_bytes",
                                      (json_int_t)merge->size_bytes, "delta_norm", merge->delta_norm,
                                      "error_norm", merge->error_norm));
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(o);
    if (!text) {
        fprintf(stderr, "lorikeet: the result can't be shown as JSON: a path is not UTF-8\n");
        return 1;
    }
    puts(text);
    free(text);
    return 0;
}

int cmd_eval(int argc, char **argv)
{
    struct command c = {0};
    struct error err = {0};
    struct eval_result result;
    int code = read_args(&c, argc, argv);
    if (code < 0) {
        enum status s = open_all(&c, &err);
        struct eval_job job = {.text = &c.text,
                               .ours = &c.side,
                               .reference = c.against_quant ? &c.reference : NULL,
                               .reference_file = c.against_path ? &c.against : NULL,
                               .save = c.save_path ? &c.save : NULL,
                               .team = c.team,
                               .progress = !c.quiet && isatty(STDERR_FILENO)};
        if (s == STATUS_OK)
            s = eval_run(&job, &result, &err);
        if (s == STATUS_OK && c.save_path)
            s = eval_file_finish(&c.save, &err);
        if (s != STATUS_OK)
            fprintf(stderr, "lorikeet: %s\n", err.text);
        else if (!c.json)
            print_text(&c, &result);
        code = s != STATUS_OK ? 1 : c.json ? print_json(&c, &result) : 0;
        close_all(&c);
    }
    conf_fini(&c.conf);
    return code;
}
