/* core/model/lora_build.c, lora_apply.c: an adapter is one block of memory in the order in which a step reads
 * it, and what a step asks for ahead is what it reads next. */
#include "tests/test.h"

#include <stdio.h>

#include "adapters.h"
#include "format.h"
#include "model_inner.h"

#define DATA "tests/golden/data/"

static void expect_ok(enum status s, const struct error *err)
{
    if (s != STATUS_OK)
        fail_msg("%s", err->text);
}

static struct model *open_model(const char *family, const struct kernels *k, enum quant quant)
{
    char path[200];
    struct error err;
    struct model_files *files;
    struct model *m;
    snprintf(path, sizeof path, DATA "models/%s/f32", family);
    expect_ok(model_files_open(path, &files, &err), &err);
    expect_ok(model_open(files, &(struct model_options){.kernels = k, .quant = quant}, &m, &err), &err);
    model_files_close(files);
    return m;
}

static struct adapter_version *load(const struct model *m, const char *family, const char *name,
                                    enum adapter_store store)
{
    char path[200];
    struct error err;
    struct adapter_version *v;
    snprintf(path, sizeof path, DATA "adapters/%s/%s", family, name);
    struct adapter_source s = {.name = "x", .path = path, .root_fd = -1, .scale = 1, .store = store};
    expect_ok(adapter_load(&s, m, &v, &err), &err);
    return v;
}

/* ---- the order ---- */

struct walk {
    const uint8_t *at; /* behind what was read last */
    unsigned n;
};

/* The next piece begins at the first line behind the last one. */
static void read_bytes(struct walk *w, const void *p, size_t n_bytes)
{
    const uint8_t *begin = p;
    if (!p)
        return;
    assert_int_equal((uintptr_t)begin % 64, 0);
    assert_true(begin >= w->at && begin - w->at < 64);
    w->at = begin + n_bytes;
    w->n++;
}

static void read_packed(struct walk *w, const struct packed *p)
{
    read_bytes(w, p->data, (size_t)p->n_panels * p->panel_bytes);
}

static void read_parts(struct walk *w, const struct lora_group *g)
{
    for (int i = 0; i < 3; i++) {
        const struct lora_part *part = &g->part[i];
        read_bytes(w, part->magnitude, part->b.rows * sizeof(float));
        read_packed(w, &part->b);
        read_bytes(w, part->bias, part->b.rows * sizeof(float));
    }
}

static void read_group(struct walk *w, const struct lora_group *g)
{
    read_packed(w, &g->a);
    read_parts(w, g);
}

/* Every expert's A stands before the first B: experts.c. */
static void read_experts(struct walk *w, const struct lora_group *g, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        read_packed(w, &g[(size_t)2 * i].a);
    for (uint32_t i = 0; i < n; i++)
        read_parts(w, &g[(size_t)2 * i]);
}

static void read_adapter(struct walk *w, const struct lora *l, uint32_t n_experts)
{
    static const enum lora_group_id order[] = {LORA_GROUP_QKV, LORA_GROUP_O, LORA_GROUP_ROUTER,
                                               LORA_GROUP_GATE_UP, LORA_GROUP_DOWN};
    read_packed(w, &l->embed.a);
    read_bytes(w, l->embed.magnitude, l->embed.b.rows * sizeof(float));
    read_packed(w, &l->embed.b);
    for (uint32_t layer = 0; layer < l->n_layers; layer++) {
        const struct lora_layer *at = &l->layers[layer];
        for (int g = 0; g < LORA_GROUP_COUNT; g++)
            read_group(w, &at->group[order[g]]);
        for (unsigned half = 0; at->experts && half < 2; half++)
            read_experts(w, at->experts + half, n_experts);
    }
    read_group(w, &l->lm_head);
}

/* Of the whole block, if nothing is replaced: that lies behind. */
static void check_order(const struct model *m, const char *family, const char *name)
{
    for (int store = 0; store < ADAPTER_STORE_COUNT; store++) {
        struct adapter_version *v = load(m, family, name, (enum adapter_store)store);
        const struct lora *l = v->lora;
        struct walk w = {.at = l->memory};
        size_t n_bytes = l->size_bytes - sizeof *l - l->n_layers * sizeof *l->layers;
        read_adapter(&w, l, model_config(m)->n_experts);
        size_t n_read = (size_t)(w.at - (const uint8_t *)l->memory);
        assert_true(w.n > 1);
        if (l->replaces)
            assert_true(n_read < n_bytes);
        else
            assert_int_equal((n_read + 63) / 64 * 64, n_bytes);
        adapter_release(v);
    }
}

static void parts_lie_as_a_step_reads_them(void **state)
{
    (void)state;
    static const char *const adapters[][2] = {{"llama", "all_r8_bf16"},     {"llama", "patterns"},
                                              {"llama", "embed_r3"},        {"llama", "qv_r4"},
                                              {"phi3", "all_r3_bf16"},      {"mixtral", "all_r3_bf16"},
                                              {"mixtral", "experts_r2"},    {"mixtral", "per_expert_r2"},
                                              {"mixtral", "router_r2"},     {"mixtral", "head_r3"},
                                              {"llama", "dora_embed_r3"},   {"llama", "tokens_r2"},
                                              {"llama", "mts_norms_r2"},    {"qwen3_moe", "dora_r3"},
                                              {"qwen3_moe", "all_r3_bf16"}, {"mixtral", "lora_bias_rs_r2"}};
    const struct kernels *k;
    struct error err;
    expect_ok(kernels_select("auto", ACT_MODE_INT8, &k, &err), &err);
    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++)
        for (int quantised = 0; quantised < 2; quantised++) {
            struct model *m = open_model(adapters[i][0], k, quantised ? QUANT_Q8_0 : QUANT_AUTO);
            check_order(m, adapters[i][0], adapters[i][1]);
            model_close(m);
        }
}

/* ---- what is asked for ahead ---- */

static struct {
    void (*expand)(const struct expand_args *a);
    const struct lora *first; /* whose B no other one comes before in a place */
    const uint8_t *next;
    size_t next_bytes;
    unsigned n_asked, n_unasked;
} spy;

static void spying_expand(const struct expand_args *a)
{
    const uint8_t *data = a->b->data + (size_t)a->panel_begin * a->b->panel_bytes;
    if (spy.next) {
        assert_ptr_equal(data, spy.next);
        assert_int_equal((size_t)(a->panel_end - a->panel_begin) * a->b->panel_bytes, spy.next_bytes);
        spy.n_asked++;
    } else {
        const uint8_t *block = spy.first->memory;
        assert_true(data >= block && data < block + spy.first->size_bytes);
        spy.n_unasked++;
    }
    spy.next = a->next;
    spy.next_bytes = a->next_bytes;
    spy.expand(a);
}

/* Two tokens with `sum`, three without an adapter, two with `other`. */
static void run_step(const struct model *m, const struct lora *sum, const struct lora *other)
{
    static const int32_t tokens[3] = {5, 17, 200};
    const struct lora *loras[3] = {sum, NULL, other};
    struct kv_shape shape = model_kv_shape(m, model_kv_type(m, "auto"));
    struct team *team = team_create(1);
    struct kv_cache *kv;
    struct step_space *space;
    struct batch_seq seqs[3];
    uint32_t pages[3];
    struct error err;
    float *logits;
    expect_ok(kv_cache_create(&shape, 3, &kv, &err), &err);
    expect_ok(step_space_create(m, &shape, 9, 3, 9, team, &space, &err), &err);
    expect_ok(step_reserve_rank(space, sum->t_max + other->t_max, &err), &err);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t n = 2 + i % 2;
        assert_true(kv_page_acquire(kv, &pages[i]));
        seqs[i] = (struct batch_seq){.lora = loras[i],
                                     .tokens = tokens,
                                     .n_tokens = n,
                                     .pages = &pages[i],
                                     .n_prompt = n,
                                     .n_known = n};
    }
    model_step(m, space, kv, &(struct batch){.seqs = seqs, .n_seqs = 3}, &logits);
    for (uint32_t i = 0; i < 3; i++)
        kv_page_release(kv, pages[i]);
    step_space_destroy(space);
    kv_cache_destroy(kv);
    team_destroy(team);
}

static void what_is_asked_for_is_read_next(void **state)
{
    (void)state;
    const struct kernels *k;
    struct error err;
    expect_ok(kernels_select("auto", ACT_MODE_INT8, &k, &err), &err);
    struct kernels spying = *k;
    spying.expand = spying_expand;
    struct model *m = open_model("llama", &spying, QUANT_Q8_0);
    struct adapter_version *all = load(m, "llama", "all_r8_bf16", ADAPTER_STORE_AUTO),
                           *some = load(m, "llama", "qv_r4", ADAPTER_STORE_AUTO),
                           *third = load(m, "llama", "rslora_r8", ADAPTER_STORE_AUTO);
    struct lora *sum;
    expect_ok(lora_compose((struct lora *[3]){all->lora, some->lora, third->lora}, (float[3]){1, 0.5F, 1}, 3,
                           &sum, &err),
              &err);
    spy.expand = k->expand;
    spy.first = all->lora;
    run_step(m, sum, third->lora);
    assert_null(spy.next); /* nothing was asked for in vain */
    assert_true(spy.n_asked > spy.n_unasked && spy.n_unasked > 0);
    lora_release(sum);
    adapter_release(all);
    adapter_release(some);
    adapter_release(third);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_lie_as_a_step_reads_them),
        cmocka_unit_test(what_is_asked_for_is_read_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
