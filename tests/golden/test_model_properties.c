/* What must hold of every family and every kind of adapter, whatever the numbers are:
 *   in a batch     permuting it permutes the outputs, alone = in a crowd, base rows don't feel adapters, a
 * prompt in chunks = whole (aLoRA: with borders around the invocation); all to the bit of an adapter  with B
 * = 0, or with scale 0, the base; [A, s] + [A, t] = [A, s + t] on all families and adapters of
 * tests/golden/data. (Merged = unmerged is tested where merging is.) */
#include "tests/test.h"

#include <ctype.h>

#include "golden_set.h"
#include "tests/unit/made_files.h"

#define FAMILIES_MAX 32U
#define VOICES_MAX (RIG_SEQS_MAX - 2)
#define N_NEW 5U

struct voice {
    struct adapter_version *v; /* NULL: the base */
    char name[64];
    struct rig_line alone;
};
struct crowd {
    const char *family;
    struct rig r;
    struct voice voices[RIG_SEQS_MAX];
    uint32_t n;
    json_t *golden;
};

/* ---- a family with all of its adapters ---- */

static void add_voice(struct crowd *c, const json_t *entry, struct adapter_version *v)
{
    const json_t *cases = json_object_get(entry, "cases"), *one, *chosen = NULL;
    const char *name;
    json_object_foreach((json_t *)(uintptr_t)cases, name, one)
    {
        size_t length = json_array_size(json_object_get(one, "prompt"));
        if (!chosen || (length > json_array_size(json_object_get(chosen, "prompt")) && length < 60))
            chosen = one;
    }
    require(c->n < RIG_SEQS_MAX);
    struct voice *o = &c->voices[c->n++];
    const char *slash = strrchr(text_of(entry, "adapter"), '/');
    snprintf(o->name, sizeof o->name, "%s", slash ? slash + 1 : "base");
    o->v = v;
    o->alone = line_of(chosen, v ? v->lora : NULL);
    o->alone.n_new = N_NEW;
}

static void crowd_open(struct crowd *c, const char *family)
{
    char model[64];
    struct error err;
    size_t i;
    json_t *e;
    *c = (struct crowd){.family = family};
    snprintf(model, sizeof model, GOLDEN_OWN "/models/%s/f32", family);
    if (!rig_open(&c->r, model, &(struct rig_options){.n_threads = 2}, &err))
        fail_msg("%s", err.text);
    c->golden = golden_file(GOLDEN_OWN, family);
    json_array_foreach(json_object_get(c->golden, "entries"), i, e)
    {
        const char *adapter = text_of(e, "adapter");
        struct adapter_version *v = NULL;
        if (!strstr(text_of(e, "model"), "/f32") || c->n + 1 >= RIG_SEQS_MAX)
            continue;
        if (*adapter && golden_adapter(GOLDEN_OWN, adapter, c->r.m, 1, &v, &err) != STATUS_OK)
            fail_msg("%s", err.text);
        add_voice(c, e, v);
        if (!*adapter) /* two base rows */
            add_voice(c, e, NULL);
    }
}

static void crowd_close(struct crowd *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        line_free(&c->voices[i].alone);
        adapter_release(c->voices[i].v);
    }
    json_decref(c->golden);
    rig_close(&c->r);
}

static bool same_bits(const struct crowd *c, const struct rig_line *a, const struct rig_line *b)
{
    size_t n = (size_t)(a->n_prompt + a->n_new - 1) * model_config(c->r.m)->vocab_size;
    return a->n_ids == b->n_ids && memcmp(a->ids, b->ids, a->n_ids * sizeof *a->ids) == 0 &&
           memcmp(a->logits, b->logits, n * sizeof *a->logits) == 0;
}

static double distance(const struct crowd *c, const struct rig_line *a, const struct rig_line *b)
{
    size_t n = (size_t)a->n_prompt * model_config(c->r.m)->vocab_size;
    double worst = 0;
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)a->logits[i] - b->logits[i]));
    return worst / largest(a->logits, n);
}

static struct rig_line line_like(const struct rig_line *l, struct lora *lora)
{
    return (struct rig_line){.lora = lora, .prompt = l->prompt, .n_prompt = l->n_prompt, .n_new = l->n_new};
}

/* ---- in a batch ---- */

/* All voices together, the first place at voice `first`, going up or down; compared with each alone. */
static int check_order(struct crowd *c, uint32_t first, bool down, uint32_t chunk, uint32_t stagger)
{
    struct rig_line lines[RIG_SEQS_MAX];
    uint32_t who[RIG_SEQS_MAX];
    int n_bad = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        who[i] = (first + (down ? c->n - i : i)) % c->n;
        lines[i] = line_like(&c->voices[who[i]].alone, c->voices[who[i]].alone.lora);
    }
    assert_int_equal(rig_run(&c->r, lines, c->n, chunk, stagger), 0);
    for (uint32_t i = 0; i < c->n; i++) {
        if (!same_bits(c, &c->voices[who[i]].alone, &lines[i])) {
            printf("  %s %s differs in place %u of a crowd: chunk %u, stagger %u\n", c->family,
                   c->voices[who[i]].name, i, chunk, stagger);
            n_bad++;
        }
        rig_line_fini(&lines[i]);
    }
    return n_bad;
}

static int check_chunks(struct crowd *c, const struct voice *o)
{
    const struct lora *l = o->alone.lora;
    uint32_t begin = l ? lora_begin(l, o->alone.prompt, o->alone.n_prompt) : 0, n = l ? l->n_invocation : 0;
    uint32_t chunks[] = {1, 3, 7, begin, begin + 1, begin + n, begin > 1 ? begin - 1 : 1};
    int n_bad = 0;
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        if (chunks[i] == 0 || chunks[i] >= o->alone.n_prompt)
            continue;
        struct rig_line line = line_like(&o->alone, o->alone.lora);
        assert_int_equal(rig_run(&c->r, &line, 1, chunks[i], 0), 0);
        if (!same_bits(c, &o->alone, &line)) {
            printf("  %s %s differs in chunks of %u\n", c->family, o->name, chunks[i]);
            n_bad++;
        }
        rig_line_fini(&line);
    }
    return n_bad;
}

static void in_a_batch(void **state)
{
    struct crowd c;
    int n_bad = 0;
    crowd_open(&c, *state);
    for (uint32_t i = 0; i < c.n; i++)
        assert_int_equal(rig_run(&c.r, &c.voices[i].alone, 1, 512, 0), 0);
    for (uint32_t i = 2; i < c.n; i++) /* an adapter that changes nothing would prove nothing */
        for (uint32_t b = 0; b < 2; b++)
            if (c.voices[i].alone.n_prompt == c.voices[b].alone.n_prompt &&
                distance(&c, &c.voices[i].alone, &c.voices[b].alone) < 1e-6 &&
                !c.voices[i].v->lora->n_invocation)
                fail_msg("%s %s says what the base says", c.family, c.voices[i].name);
    n_bad += check_order(&c, 0, false, 512, 0);
    n_bad += check_order(&c, c.n / 2, true, 512, 0);
    n_bad += check_order(&c, 1, true, 5, 1);
    for (uint32_t i = 0; i < c.n; i++)
        n_bad += check_chunks(&c, &c.voices[i]);
    crowd_close(&c);
    assert_int_equal(n_bad, 0);
}

/* ---- of an adapter ---- */

/* Its file holds pairs only: nothing that stands in the place of the base's, and no DoRA magnitudes. */
static bool only_pairs(const char *folder)
{
    struct buf b = {0};
    char path[512];
    struct error err;
    uint64_t n;
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    if (!file_exists(path) || file_read_all(path, 1U << 24, &b, &err) != STATUS_OK)
        return false;
    memcpy(&n, b.data, sizeof n);
    json_t *header = json_loadb(b.data + 8, (size_t)n, 0, NULL), *t;
    const char *key;
    bool pairs = true;
    json_object_foreach(header, key, t)
    {
        if (strcmp(key, "__metadata__") != 0 && !strstr(key, ".lora_A") && !strstr(key, ".lora_B") &&
            !strstr(key, ".lora_embedding_"))
            pairs = false;
    }
    json_decref(header);
    buf_fini(&b);
    return pairs;
}

/* A copy of the adapter in `to` whose B are zero. */
static void copy_with_zero_b(const char *folder, const char *to)
{
    struct buf b = {0}, config = {0};
    char path[512];
    struct error err;
    uint64_t n;
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    assert_int_equal(file_read_all(path, 1U << 24, &b, &err), STATUS_OK);
    memcpy(&n, b.data, sizeof n);
    json_t *header = json_loadb(b.data + 8, (size_t)n, 0, NULL), *t;
    const char *key;
    json_object_foreach(header, key, t)
    {
        const json_t *at = json_object_get(t, "data_offsets");
        size_t begin = (size_t)json_integer_value(json_array_get(at, 0));
        if (strstr(key, ".lora_B") || strstr(key, ".lora_embedding_B"))
            memset(b.data + 8 + n + begin, 0, (size_t)json_integer_value(json_array_get(at, 1)) - begin);
    }
    json_decref(header);
    put_file(to, "adapter_model.safetensors", b.data, b.length);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    assert_int_equal(file_read_all(path, 1U << 20, &config, &err), STATUS_OK);
    put_file(to, "adapter_config.json", config.data, config.length);
    buf_fini(&b);
    buf_fini(&config);
}

/* How far the prompt's logits with `lora` are from `want`'s, relative to the largest. */
static double off(struct crowd *c, struct lora *lora, const struct rig_line *want)
{
    struct rig_line line = line_like(want, lora);
    line.n_new = 1;
    rig_run(&c->r, &line, 1, 512, 0);
    double d = distance(c, want, &line);
    rig_line_fini(&line);
    return d;
}

static struct rig_line run_line(struct crowd *c, const struct rig_line *like, struct lora *lora)
{
    struct rig_line line = line_like(like, lora);
    line.n_new = 1;
    rig_run(&c->r, &line, 1, 512, 0);
    return line;
}

static struct adapter_version *load_scaled(struct crowd *c, const char *path, double scale)
{
    struct adapter_source s = {.name = "x", .path = path, .root_fd = -1, .scale = scale};
    struct adapter_version *v = NULL;
    struct error err;
    if (adapter_load(&s, c->r.m, &v, &err) != STATUS_OK)
        fail_msg("%s at scale %g: %s", path, scale, err.text);
    return v;
}

static bool near(const struct crowd *c, const struct voice *o, const char *what, double d, double bound)
{
    if (d <= bound)
        return true;
    printf("  %s %s: %s is off by %.3g, bound %.3g\n", c->family, o->name, what, d, bound);
    return false;
}

/* [A, s] + [A, t] = [A, s + t]: as two versions, and as weights of one. */
static int check_sums(struct crowd *c, const struct voice *o, const char *path)
{
    struct adapter_version *s = load_scaled(c, path, 0.75), *t = load_scaled(c, path, -0.5),
                           *both = load_scaled(c, path, 0.25);
    struct lora *pair[2] = {s->lora, t->lora}, *twice[2] = {o->v->lora, o->v->lora}, *sum = NULL, *one = NULL;
    struct rig_line want = run_line(c, &o->alone, both->lora);
    struct error err;
    int n_bad = 0;
    if (lora_compose(pair, (float[]){1, 1}, 2, &sum, &err) == STATUS_OK &&
        lora_compose(twice, (float[]){0.75F, -0.5F}, 2, &one, &err) == STATUS_OK) {
        n_bad += !near(c, o, "[A, s] + [A, t]", off(c, sum, &want), 1e-5);
        n_bad += !near(c, o, "s A + t A", off(c, one, &want), 1e-5);
    } else if (o->v->lora->n_invocation == 0) { /* aLoRAs stand alone */
        printf("  %s %s: %s\n", c->family, o->name, err.text);
        n_bad++;
    }
    rig_line_fini(&want);
    lora_release(sum);
    lora_release(one);
    adapter_release(s);
    adapter_release(t);
    adapter_release(both);
    return n_bad;
}

/* DoRA, replaced tensors, shards: their B can't be zeroed here, or is not all that they do. */
static int check_other_kind(struct crowd *c, const struct voice *o, const char *path,
                            const struct rig_line *base)
{
    struct adapter_version *zero_scale = load_scaled(c, path, 0);
    struct lora *twice[2] = {o->v->lora, o->v->lora}, *sum = NULL, *quarter = NULL;
    struct error err;
    int n_bad = !near(c, o, "scale 0", off(c, zero_scale->lora, base), 0);
    adapter_release(zero_scale);
    bool composes = lora_compose(twice, (float[]){0.75F, -0.5F}, 2, &sum, &err) == STATUS_OK;
    if (composes != (!o->v->lora->replaces && o->v->lora->n_invocation == 0)) {
        printf("  %s %s: %s\n", c->family, o->name, composes ? "composes what it replaces" : err.text);
        n_bad++;
    }
    if (composes && lora_compose(twice, (float[]){0.25F}, 1, &quarter, &err) == STATUS_OK) {
        struct rig_line want = run_line(c, &o->alone, quarter);
        n_bad += !near(c, o, "s A + t A", off(c, sum, &want), 1e-5);
        rig_line_fini(&want);
    }
    lora_release(sum);
    lora_release(quarter);
    return n_bad;
}

static int check_adapter(struct crowd *c, const struct voice *o, const struct rig_line *base)
{
    char path[256];
    int n_bad = 0;
    snprintf(path, sizeof path, GOLDEN_OWN "/adapters/%s/%s", c->family, o->name);
    if (!only_pairs(path))
        return check_other_kind(c, o, path, base);
    struct folder f = folder_make();
    copy_with_zero_b(path, f.path);
    struct adapter_version *zero_b = load_scaled(c, f.path, 1), *zero_scale = load_scaled(c, path, 0);
    n_bad += !near(c, o, "B = 0", off(c, zero_b->lora, base), 0);
    n_bad += !near(c, o, "scale 0", off(c, zero_scale->lora, base), 0);
    adapter_release(zero_b);
    adapter_release(zero_scale);
    folder_remove(&f);
    return n_bad + check_sums(c, o, path);
}

static void of_an_adapter(void **state)
{
    struct crowd c;
    int n_bad = 0;
    crowd_open(&c, *state);
    for (uint32_t i = 2; i < c.n; i++) {
        struct rig_line base = run_line(&c, &c.voices[i].alone, NULL);
        n_bad += check_adapter(&c, &c.voices[i], &base);
        rig_line_fini(&base);
    }
    crowd_close(&c);
    assert_int_equal(n_bad, 0);
}

int main(void)
{
    static struct CMUnitTest tests[2 * FAMILIES_MAX];
    static char labels[2 * FAMILIES_MAX][64];
    char *families[FAMILIES_MAX];
    size_t n = golden_list(GOLDEN_OWN, "models", "", families, FAMILIES_MAX);
    size_t n_tests = 0;
    for (size_t i = 0; i < n; i++) {
        char path[128];
        snprintf(path, sizeof path, GOLDEN_OWN "/models/%s/f32", families[i]);
        if (!path_is_folder(path))
            continue;
        char(*label)[64] = labels + n_tests;
        snprintf(label[0], sizeof *labels, "%s_in_a_batch", families[i]);
        snprintf(label[1], sizeof *labels, "%s_of_an_adapter", families[i]);
        tests[n_tests++] = (struct CMUnitTest){label[0], in_a_batch, NULL, NULL, families[i]};
        tests[n_tests++] = (struct CMUnitTest){label[1], of_an_adapter, NULL, NULL, families[i]};
    }
    int n_failed = _cmocka_run_group_tests("properties", tests, n_tests, NULL, NULL);
    for (size_t i = 0; i < n; i++)
        free(families[i]);
    return n_failed;
}
