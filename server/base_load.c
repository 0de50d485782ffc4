/* Opens files, tokenizer and template, chooses kernels, loads the weights: one call, so that `serve` and
 * `run` can't differ. Holds no state. */
#include "base_load.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "adapters.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/team.h"
#include "conf.h"
#include "cost.h"
#include "effect.h"
#include "format.h"
#include "kernels.h"
#include "model.h"
#include "pack_cache.h"
#include "text.h"

/* A base that nobody asks for these starts sooner. */
struct base_later {
    pthread_mutex_t lock; /* held while they are made, by a worker */
    struct effect_probes *probes;
    struct cost_model *costs;
};

static enum quant quant_of(const char *name)
{
    static const char *const names[] = {"auto", "f32", "bf16", "q8_0", "q4_0"};
    for (int i = 0; i < 5; i++)
        if (strcmp(names[i], name) == 0)
            return (enum quant)i;
    return QUANT_AUTO;
}

/* auto: a small model's sums have too few terms to average rounding out, and it is fast in any case. */
#define INT8_HIDDEN_MIN 512U
static enum act_mode act_mode_of(const char *name, const struct model_config *c)
{
    bool int8 = strcmp(name, "auto") == 0 ? c->hidden_size >= INT8_HIDDEN_MIN : strcmp(name, "int8") == 0;
    return int8 ? ACT_MODE_INT8 : ACT_MODE_F32;
}

/* Any text made a name that clients can send: other characters become '-'. */
static void make_name(const struct conf *conf, const struct model_files *files, char *name, size_t name_bytes)
{
    const char *from = conf->name ? conf->name : files->config.name[0] ? files->config.name : "base";
    snprintf(name, name_bytes, "%s", from);
    for (char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            *p = '-';
    if (!adapter_name_is_valid(name))
        snprintf(name, name_bytes, "base");
}

/* ---- the two long parts, side by side ---- */

struct text_load {
    const struct model_files *files;
    struct text_model *text;
    int64_t spent_ns;
    enum status status;
    struct error err;
};

static void *load_text(void *arg)
{
    struct text_load *t = arg;
    int64_t begin = clock_now_ns();
    t->status = text_model_open(t->files, &t->text, &t->err);
    t->spent_ns = clock_now_ns() - begin;
    return NULL;
}

static enum status load_weights(const struct conf *conf, const struct model_files *files, struct base *b,
                                struct error *err)
{
    char packed[PACK_PATH_BYTES];
    int64_t begin = clock_now_ns();
    struct model_options options = {.kernels = b->kernels,
                                    .quant = quant_of(conf->quant),
                                    .team = team_create(conf->n_threads),
                                    .packed_path = pack_cache_find(conf, packed) ? packed : NULL};
    if (!options.team)
        return fail(err, STATUS_NO_MEMORY, "can't start %u threads", conf->n_threads);
    enum status s = model_open(files, &options, &b->model, err);
    team_destroy(options.team);
    b->times.weights_ns = clock_now_ns() - begin;
    return s;
}

static enum status load_both(const struct conf *conf, const struct model_files *files, struct base *b,
                             struct error *err)
{
    struct text_load t = {.files = files};
    pthread_t thread;
    bool beside = pthread_create(&thread, NULL, load_text, &t) == 0;
    if (!beside)
        load_text(&t);
    enum status s = load_weights(conf, files, b, err);
    if (beside)
        pthread_join(thread, NULL);
    b->text = t.text;
    b->times.text_ns = t.spent_ns;
    if (s == STATUS_OK && t.status != STATUS_OK) {
        *err = t.err;
        s = t.status;
    }
    return s;
}

enum status base_open(const struct conf *conf, struct base *b, struct error *err)
{
    struct model_files *files = NULL;
    int64_t begin = clock_now_ns();
    enum status s = model_files_open(conf->model, &files, err);
    b->times.files_ns = clock_now_ns() - begin;
    if (s == STATUS_OK)
        s = kernels_select(conf->isa, act_mode_of(conf->act, &files->config), &b->kernels, err);
    if (s == STATUS_OK && !(b->later = mem_zalloc(sizeof *b->later)))
        s = fail(err, STATUS_NO_MEMORY, "no memory for the base");
    if (s == STATUS_OK) {
        pthread_mutex_init(&b->later->lock, NULL);
        s = load_both(conf, files, b, err);
    }
    if (s == STATUS_OK)
        make_name(conf, files, b->name, sizeof b->name);
    model_files_close(files);
    if (s != STATUS_OK)
        base_close(b);
    return s;
}

void base_close(struct base *b)
{
    if (b->later) {
        effect_probes_destroy(b->later->probes);
        mem_free(b->later->costs);
        pthread_mutex_destroy(&b->later->lock);
        mem_free(b->later);
    }
    model_close(b->model);
    text_model_close(b->text);
    *b = (struct base){0};
}

/* ---- what is measured of it ---- */

static enum status measure_costs(const struct base *b, unsigned n_threads, struct cost_model **out,
                                 struct error *err)
{
    struct team *team = team_create(n_threads);
    struct cost_model *costs = mem_zalloc(sizeof *costs);
    enum status s = team && costs ? cost_measure(b->model, team, COST_BUDGET_NS, costs, err)
                                  : fail(err, STATUS_NO_MEMORY, "can't start %u threads", n_threads);
    if (team)
        team_destroy(team);
    if (s == STATUS_OK)
        *out = costs;
    else
        mem_free(costs);
    return s;
}

enum status base_costs(const struct base *b, unsigned n_threads, const struct cost_model **out,
                       struct error *err)
{
    struct base_later *l = b->later;
    pthread_mutex_lock(&l->lock);
    enum status s = l->costs ? STATUS_OK : measure_costs(b, n_threads, &l->costs, err);
    *out = l->costs;
    pthread_mutex_unlock(&l->lock);
    return s;
}

/* ---- the effect test's prompts ---- */

static uint32_t tokenize(void *data, const char *text, size_t n_bytes, int32_t *tokens, uint32_t n_max)
{
    const struct text_model *text_model = data;
    struct encode_options o = {.add_special = true};
    struct token_list ids = {0};
    struct error ignored;
    uint32_t n = 0;
    if (tokenizer_encode(text_model->tokenizer, text, n_bytes, &o, &ids, &ignored) == STATUS_OK) {
        n = (uint32_t)ids.n_ids;
        for (uint32_t i = 0; i < n && i < n_max; i++)
            tokens[i] = ids.ids[i];
    }
    token_list_fini(&ids);
    return n;
}

static enum status make_probes(const struct base *b, struct effect_probes **out, struct error *err)
{
    int32_t tokens[EFFECT_PROMPTS_MAX][EFFECT_BUILTIN_TOKENS];
    struct effect_probe prompts[EFFECT_PROMPTS_MAX];
    uint32_t n = 0;
    for (const char *text; n < EFFECT_PROMPTS_MAX && (text = effect_builtin_text(n)) != NULL; n++) {
        uint32_t n_tokens = tokenize(b->text, text, strlen(text), tokens[n], EFFECT_BUILTIN_TOKENS);
        if (n_tokens == 0) /* a tokenizer without these letters */
            tokens[n][n_tokens++] = 0;
        prompts[n] = (struct effect_probe){
            .tokens = tokens[n],
            .n_tokens = n_tokens < EFFECT_BUILTIN_TOKENS ? n_tokens : EFFECT_BUILTIN_TOKENS};
    }
    const struct effect_probes_options o = {
        .base = b->model, .prompts = prompts, .n_prompts = n, .tokenize = tokenize, .data = b->text};
    return effect_probes_create(&o, out, err);
}

enum status base_probes(const struct base *b, const struct effect_probes **out, struct error *err)
{
    struct base_later *l = b->later;
    pthread_mutex_lock(&l->lock);
    enum status s = l->probes ? STATUS_OK : make_probes(b, &l->probes, err);
    *out = l->probes;
    pthread_mutex_unlock(&l->lock);
    return s;
}
