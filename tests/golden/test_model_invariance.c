/* Batch-invariance, to the bit: what a sequence computes alone on one thread, it computes in a crowd of other
 * adapters, with its prompt in chunks, started later than others, on more threads, and on another number of
 * them in each step. Compared are all logits of all positions and the greedy tokens. A crowd of one adapter
 * after another also shows that nothing of a step stays behind. */
#include "tests/test.h"

#include "adapters.h"
#include "base/file.h"
#include "model_rig.h"

#define OWN "tests/golden/data/"
#define N_LINES 7U
#define N_NEW 10U

/* The last one crosses ATTN_SPLIT where the context is long enough for that. */
static const uint32_t wanted_lengths[N_LINES] = {1, 5, 23, 40, 70, 33, 300};
static const char *const names[N_LINES] = {"qv_r4",   NULL, "all_r8_bf16", "qv_r4",
                                           "head_r4", NULL, "rslora_r8"};

struct crowd {
    struct rig r;
    uint32_t lengths[N_LINES];
    struct adapter_version *versions[N_LINES];
    int32_t prompts[N_LINES][300];
    struct rig_line alone[N_LINES];
};

static void set_lines(const struct crowd *c, struct rig_line *lines)
{
    for (uint32_t i = 0; i < N_LINES; i++)
        lines[i] = (struct rig_line){.lora = c->versions[i] ? c->versions[i]->lora : NULL,
                                     .prompt = c->prompts[i],
                                     .n_prompt = c->lengths[i],
                                     .n_new = N_NEW};
}

static void crowd_open(struct crowd *c, const char *family, const struct rig_options *o)
{
    char path[256];
    struct error err;
    uint64_t seed = 7;
    *c = (struct crowd){0};
    snprintf(path, sizeof path, OWN "models/%s/f32", family);
    if (!rig_open(&c->r, path, o, &err)) {
        print_message("%s\n", err.text);
        assert_true(false);
    }
    for (uint32_t i = 0; i < N_LINES; i++) {
        uint32_t longest = model_config(c->r.m)->max_position - N_NEW;
        c->lengths[i] = wanted_lengths[i] < longest ? wanted_lengths[i] : longest;
        for (uint32_t t = 0; t < c->lengths[i]; t++) {
            seed = seed * 6364136223846793005U + 1442695040888963407U;
            c->prompts[i][t] = (int32_t)((seed >> 33) % model_config(c->r.m)->vocab_size);
        }
        if (!names[i])
            continue;
        snprintf(path, sizeof path, OWN "adapters/%s/%s", family, names[i]);
        if (!path_is_folder(path)) /* a family without this kind has the base in its place */
            continue;
        struct adapter_source source = {.name = "x", .path = path, .root_fd = -1, .scale = 1};
        assert_int_equal(adapter_load(&source, c->r.m, &c->versions[i], &err), STATUS_OK);
    }
}

static void crowd_close(struct crowd *c)
{
    for (uint32_t i = 0; i < N_LINES; i++) {
        rig_line_fini(&c->alone[i]);
        adapter_release(c->versions[i]);
    }
    rig_close(&c->r);
}

static bool same_line(const struct crowd *c, uint32_t i, const struct rig_line *l)
{
    const struct rig_line *a = &c->alone[i];
    size_t n = (size_t)(a->n_prompt + a->n_new - 1) * model_config(c->r.m)->vocab_size;
    return a->n_ids == l->n_ids && memcmp(a->ids, l->ids, a->n_ids * sizeof *a->ids) == 0 &&
           memcmp(a->logits, l->logits, n * sizeof *a->logits) == 0;
}

/* Runs the crowd of c on rig r and compares with the lines of c alone. */
static void compare_crowd(const struct crowd *c, struct rig *r, struct adapter_version *const *versions,
                          uint32_t chunk, uint32_t stagger)
{
    struct rig_line lines[N_LINES];
    int n_different = 0;
    set_lines(c, lines);
    for (uint32_t i = 0; i < N_LINES; i++)
        lines[i].lora = versions[i] ? versions[i]->lora : NULL;
    assert_int_equal(rig_run(r, lines, N_LINES, chunk, stagger), 0);
    for (uint32_t i = 0; i < N_LINES; i++) {
        if (!same_line(c, i, &lines[i])) {
            n_different++;
            printf("  line %u (%s) differs: chunk %u, stagger %u\n", i, names[i] ? names[i] : "base", chunk,
                   stagger);
        }
        rig_line_fini(&lines[i]);
    }
    assert_int_equal(n_different, 0);
}

static void run_alone(struct crowd *c)
{
    set_lines(c, c->alone);
    for (uint32_t i = 0; i < N_LINES; i++)
        rig_run(&c->r, &c->alone[i], 1, 512, 0);
}

static void check_invariance(const char *family, struct rig_options o)
{
    static const uint32_t chunks[] = {1, 7, 512};
    struct crowd c, more;
    o.n_threads = 1;
    crowd_open(&c, family, &o);
    run_alone(&c);
    for (unsigned i = 0; i < 3; i++)
        compare_crowd(&c, &c.r, c.versions, chunks[i], i);
    for (o.n_threads = 2; o.n_threads <= 3; o.n_threads++) {
        crowd_open(&more, family, &o);
        compare_crowd(&c, &more.r, more.versions, o.n_threads == 2 ? 512 : 7, o.n_threads - 2);
        more.r.changing = true;
        compare_crowd(&c, &more.r, more.versions, o.n_threads == 2 ? 7 : 512, 1);
        crowd_close(&more);
    }
    crowd_close(&c);
}

static void float_bases(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen2",   "qwen3", "gemma3",   "gpt2",
                                           "olmo2", "mixtral", "phi3",  "qwen3_moe"};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        check_invariance(families[i], (struct rig_options){0});
    check_invariance("gemma3", (struct rig_options){.kv = "f16"});
    check_invariance("llama", (struct rig_options){.quant = QUANT_BF16});
}

static void quantized_bases(void **state)
{
    (void)state;
    check_invariance("llama", (struct rig_options){.quant = QUANT_Q8_0});
    check_invariance("qwen2", (struct rig_options){.quant = QUANT_Q4_0});
    check_invariance("gemma3", (struct rig_options){.quant = QUANT_Q8_0, .act_mode = ACT_MODE_F32});
    check_invariance("mixtral", (struct rig_options){.quant = QUANT_BF16, .kv = "f16"});
}

static void each_instruction_set(void **state)
{
    (void)state;
    static const char *const isas[] = {"scalar", "avx2", "avxvnni", "avx512", "neon"};
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
        const struct kernels *k;
        if (kernels_select(isas[i], ACT_MODE_INT8, &k, NULL) != STATUS_OK)
            continue;
        check_invariance("llama", (struct rig_options){.isa = isas[i], .quant = QUANT_Q8_0});
        check_invariance("qwen3", (struct rig_options){.isa = isas[i]});
    }
}

/* The adapters of the crowd do something: each changes the logits of the base, and differently. */
static void adapters_matter(void **state)
{
    (void)state;
    struct crowd c;
    crowd_open(&c, "llama", &(struct rig_options){0});
    static const char *const kinds[] = {"qv_r4", "all_r8_bf16", "head_r4", "rslora_r8"};
    struct rig_line lines[5];
    for (uint32_t i = 0; i < 5; i++) {
        lines[i] = (struct rig_line){.prompt = c.prompts[2], .n_prompt = c.lengths[2], .n_new = 1};
        for (uint32_t v = 0; i > 0 && v < N_LINES; v++)
            if (names[v] && strcmp(names[v], kinds[i - 1]) == 0)
                lines[i].lora = c.versions[v]->lora;
    }
    rig_run(&c.r, lines, 5, 512, 0);
    size_t n = (size_t)c.lengths[2] * model_config(c.r.m)->vocab_size * sizeof(float);
    for (uint32_t i = 0; i < 5; i++)
        for (uint32_t j = 0; j < i; j++)
            assert_memory_not_equal(lines[i].logits, lines[j].logits, n);
    for (uint32_t i = 0; i < 5; i++)
        rig_line_fini(&lines[i]);
    crowd_close(&c);
}

/* A batch that asks for some rows of logits only gets exactly those, in the order of its sequences. */
static void wanted_logits_only(void **state)
{
    (void)state;
    struct crowd c;
    crowd_open(&c, "gemma3", &(struct rig_options){.n_threads = 2});
    run_alone(&c);
    uint32_t vocab = model_config(c.r.m)->vocab_size, pages[N_LINES][10], n_rows = 0;
    static const uint32_t wanted[N_LINES] = {1, 0, 1, 3, 70, 2, 1};
    struct batch_seq seqs[N_LINES];
    struct error err;
    float *logits;
    assert_int_equal(step_reserve_rank(c.r.space, 512, &err), STATUS_OK);
    for (uint32_t i = 0; i < N_LINES; i++) {
        for (uint32_t p = 0; p < 10; p++)
            assert_true(kv_page_acquire(c.r.kv, &pages[i][p]));
        seqs[i] = (struct batch_seq){.lora = c.versions[i] ? c.versions[i]->lora : NULL,
                                     .tokens = c.prompts[i],
                                     .n_tokens = c.lengths[i],
                                     .pages = pages[i],
                                     .logits_begin = c.lengths[i] - wanted[i]};
    }
    model_step(c.r.m, c.r.space, c.r.kv, &(struct batch){.seqs = seqs, .n_seqs = N_LINES}, &logits);
    for (uint32_t i = 0; i < N_LINES; i++)
        for (uint32_t t = seqs[i].logits_begin; t < c.lengths[i]; t++, n_rows++)
            assert_memory_equal(logits + (size_t)n_rows * vocab, c.alone[i].logits + (size_t)t * vocab,
                                vocab * sizeof(float));
    crowd_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_bases),          cmocka_unit_test(quantized_bases),
        cmocka_unit_test(each_instruction_set), cmocka_unit_test(adapters_matter),
        cmocka_unit_test(wanted_logits_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
