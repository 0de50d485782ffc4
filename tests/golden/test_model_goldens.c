/* The model against PEFT and transformers: every case of every golden file, base and adapters, in the own
 * set, in ../shared/goldens where that is, and in each folder that GOLDENS names (colon separated). Logits
 * within 1e-4 of the largest (f32 bases, and GGUF ones with f32 activations; other types 2e-2),
 * log-probabilities of the prompt, and greedy tokens up to greedy_safe_len. One test for each model of each
 * file, made from what the folders hold. */
#include "tests/test.h"

#include <ctype.h>

#include "golden_set.h"

#define JOBS_MAX 512U
#define NAMES_MAX 64U

struct job {
    const char *root;
    char file[64], model[96], name[160];
    bool int8;
};

struct counts {
    int passed, failed;
};

/* ---- entries ---- */

/* The adapter, or NULL: then it has been counted. */
static struct adapter_version *load_or_count(const struct job *j, const char *adapter, const struct rig *r,
                                             struct counts *n)
{
    struct adapter_version *v = NULL;
    struct error err;
    if (golden_adapter(j->root, adapter, r->m, 1, &v, &err) == STATUS_OK)
        return v;
    n->failed++;
    printf("  %s is refused: %s\n", adapter, err.text);
    return NULL;
}

static void check_cases(struct rig *r, struct lora *lora, const json_t *e, struct tolerance t,
                        struct counts *n)
{
    const char *adapter = text_of(e, "adapter"), *label = text_of(e, "name"), *name;
    json_t *c;
    json_object_foreach(json_object_get(e, "cases"), name, c)
    {
        char what[256];
        snprintf(what, sizeof what, "%s %s %s", text_of(e, "model"),
                 *adapter ? adapter : (*label ? label : "base"), name);
        check_case(r, lora, c, t, what) ? n->passed++ : n->failed++;
    }
}

static void check_entry(const struct job *j, struct rig *r, const json_t *e, struct tolerance t,
                        struct counts *n)
{
    struct adapter_version *v = NULL;
    const char *adapter = text_of(e, "adapter");
    if (*adapter && !(v = load_or_count(j, adapter, r, n)))
        return;
    check_cases(r, v ? v->lora : NULL, e, t, n);
    adapter_release(v);
}

static void open_model(const struct job *j, struct rig *r, const struct rig_options *o)
{
    char path[512];
    struct error err;
    snprintf(path, sizeof path, "%s/%s", j->root, j->model);
    if (!rig_open(r, path, o, &err))
        fail_msg("%s: %s", path, err.text);
}

static void close_and_report(const struct job *j, struct rig *r, json_t *all, const struct counts *n)
{
    rig_close(r);
    json_decref(all);
    printf("  %s: %d cases hold, %d failed\n", j->name, n->passed, n->failed);
    assert_int_equal(n->failed, 0);
    assert_true(n->passed > 0);
}

/* All entries of a file whose model is the job's. */
static void family(void **state)
{
    const struct job *j = *state;
    bool gguf = strstr(j->model, ".gguf"), f8 = strstr(j->model, "/f8/");
    struct rig_options o = {.n_threads = 1, .kv = f8 ? "f32" : NULL};
    struct tolerance t = f8 || strstr(j->model, "/f32") ? exact : coarse;
    struct counts n = {0};
    struct rig r;
    size_t i;
    json_t *e;
    if (gguf) {
        o = (struct rig_options){.n_threads = 1, .act_mode = j->int8 ? ACT_MODE_INT8 : ACT_MODE_F32};
        o.kv = j->int8 ? NULL : "f32";
        /* The reference used the tiny gemma3's own query_pre_attn_scalar, which its GGUF file can't say. */
        o.query_scalar = strstr(j->model, "gemma3") ? 24 : 0;
        t = j->int8 ? (struct tolerance){.logits = 5e-2, .greedy = false} : exact;
    }
    open_model(j, &r, &o);
    json_t *all = golden_file(j->root, j->file);
    json_array_foreach(json_object_get(all, "entries"), i, e)
    {
        if (strcmp(text_of(e, "model"), j->model) == 0 && json_object_get(e, "cases"))
            check_entry(j, &r, e, t, &n);
    }
    close_and_report(j, &r, all, &n);
}

/* ---- several adapters ---- */

/* Rows of one batch, each with its own adapter, as PEFT computes them with adapter_names. */
static void check_rows(const struct job *j, struct rig *r, const json_t *rows, struct counts *n)
{
    struct rig_line lines[RIG_SEQS_MAX];
    struct adapter_version *versions[RIG_SEQS_MAX] = {0};
    const json_t *expected[RIG_SEQS_MAX], *row;
    uint32_t n_lines = 0;
    size_t i;
    assert_true(json_array_size(rows) <= RIG_SEQS_MAX);
    json_array_foreach(rows, i, row)
    {
        const char *adapter = text_of(row, "adapter");
        if (*adapter && !(versions[n_lines] = load_or_count(j, adapter, r, n)))
            continue;
        lines[n_lines] = line_of(row, versions[n_lines] ? versions[n_lines]->lora : NULL);
        expected[n_lines++] = row;
    }
    rig_run(r, lines, n_lines, 512, 0);
    for (uint32_t l = 0; l < n_lines; l++) {
        check_line(r, &lines[l], expected[l], exact, text_of(expected[l], "adapter")) ? n->passed++
                                                                                      : n->failed++;
        line_free(&lines[l]);
        adapter_release(versions[l]);
    }
}

static void mixed_batch(void **state)
{
    const struct job *j = *state;
    struct rig_options o = {.n_threads = 2};
    struct counts n = {0};
    struct rig r;
    size_t i;
    json_t *b;
    open_model(j, &r, &o);
    json_t *all = golden_file(j->root, j->file);
    json_array_foreach(all, i, b)
    {
        if (strcmp(text_of(b, "model"), j->model) == 0)
            check_rows(j, &r, json_object_get(b, "rows"), &n);
    }
    close_and_report(j, &r, all, &n);
}

/* The sum of the adapters' deltas: lora_compose against what PEFT put into one adapter, or had active.
 * (There, a DoRA scales what those before it added as well, which is no sum of deltas: goldens have it
 * first.) */
static void check_sum(const struct job *j, struct rig *r, const json_t *e, struct counts *n)
{
    const json_t *names = json_object_get(e, "adapters"), *weights = json_object_get(e, "weights");
    struct adapter_version *versions[LORA_MEMBERS_MAX] = {0};
    struct lora *loras[LORA_MEMBERS_MAX], *sum = NULL;
    float w[LORA_MEMBERS_MAX];
    struct error err;
    uint32_t n_members = 0;
    assert_true(json_array_size(names) <= LORA_MEMBERS_MAX);
    for (size_t i = 0; i < json_array_size(names); i++) {
        versions[i] = load_or_count(j, json_string_value(json_array_get(names, i)), r, n);
        if (!versions[i])
            continue;
        loras[n_members] = versions[i]->lora;
        w[n_members++] = (float)json_number_value(json_array_get(weights, i));
    }
    if (n_members == json_array_size(names)) {
        if (lora_compose(loras, w, n_members, &sum, &err) == STATUS_OK) {
            check_cases(r, sum, e, exact, n);
        } else {
            n->failed++;
            printf("  %s is refused: %s\n", text_of(e, "name"), err.text);
        }
    }
    lora_release(sum);
    for (size_t i = 0; i < LORA_MEMBERS_MAX; i++)
        adapter_release(versions[i]);
}

static void weighted(void **state)
{
    const struct job *j = *state;
    struct rig_options o = {.n_threads = 2};
    struct counts n = {0};
    struct rig r;
    size_t i;
    json_t *e;
    open_model(j, &r, &o);
    json_t *all = golden_file(j->root, j->file);
    json_array_foreach(json_object_get(all, "entries"), i, e)
    {
        const char *result = text_of(e, "result_adapter"), *type = text_of(e, "type");
        struct adapter_version *v = *result ? load_or_count(j, result, &r, &n) : NULL;
        if (v)
            check_cases(&r, v->lora, e, exact, &n);
        adapter_release(v);
        if (strcmp(type, "linear") != 0 && strcmp(type, "svd") != 0) /* those aren't the sum of the deltas */
            check_sum(j, &r, e, &n);
    }
    close_and_report(j, &r, all, &n);
}

static void wrong_base(void **state)
{
    const struct job *j = *state;
    struct rig_options o = {.n_threads = 2};
    struct adapter_version *v;
    struct error err;
    struct rig r;
    open_model(j, &r, &o);
    json_t *all = golden_file(j->root, j->file);
    assert_int_equal(golden_adapter(j->root, text_of(all, "adapter"), r.m, 1, &v, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "this base needs"));
    json_decref(all);
    rig_close(&r);
}

/* ---- the tests, from what is there ---- */

struct plan {
    struct job jobs[JOBS_MAX];
    struct CMUnitTest tests[JOBS_MAX];
    size_t n;
};

static void add(struct plan *p, const char *root, const char *file, const char *model, void (*run)(void **),
                bool int8)
{
    struct job *j = &p->jobs[p->n];
    const char *label = strcmp(root, GOLDEN_OWN) == 0 ? "own" : strrchr(root, '/');
    if (!*model)
        return;
    for (size_t i = 0; i < p->n; i++) /* one test for a file and a model */
        if (p->jobs[i].root == root && strcmp(p->jobs[i].file, file) == 0 &&
            strcmp(p->jobs[i].model, model) == 0 && p->jobs[i].int8 == int8)
            return;
    require(p->n < JOBS_MAX);
    *j = (struct job){.root = root, .int8 = int8};
    snprintf(j->file, sizeof j->file, "%s", file);
    snprintf(j->model, sizeof j->model, "%s", model);
    const char *short_model = strchr(model, '/') ? strchr(model, '/') + 1 : model;
    snprintf(j->name, sizeof j->name, "%s_%s_%s%s", label ? label : root, file, short_model,
             int8 ? "_int8" : "");
    size_t length = 0;
    for (const char *c = j->name + strspn(j->name, "/"); *c; c++) /* run.sh counts names of [a-z_0-9] */
        j->name[length++] = isalnum((unsigned char)*c) ? (char)tolower((unsigned char)*c) : '_';
    j->name[length] = '\0';
    p->tests[p->n] = (struct CMUnitTest){.name = j->name, .test_func = run, .initial_state = j};
    p->n++;
}

static void add_file(struct plan *p, const char *root, const char *file)
{
    json_t *all = golden_file(root, file), *e;
    size_t i;
    if (strcmp(file, "wrong_base") == 0)
        add(p, root, file, text_of(all, "model"), wrong_base, false);
    else if (strncmp(file, "weighted", 8) == 0)
        add(p, root, file, text_of(all, "model"), weighted, false);
    json_array_foreach(all, i, e) /* mixed_batch is an array */
        add(p, root, file, text_of(e, "model"), mixed_batch, false);
    json_array_foreach(json_object_get(all, "entries"), i, e)
    {
        add(p, root, file, text_of(e, "model"), family, false);
        if (strstr(text_of(e, "model"), ".gguf"))
            add(p, root, file, text_of(e, "model"), family, true);
    }
    json_decref(all);
}

static void add_root(struct plan *p, const char *root)
{
    char *names[NAMES_MAX];
    size_t n = golden_list(root, "goldens", ".json", names, NAMES_MAX);
    if (n == 0)
        print_message("skip: no goldens in %s\n", root);
    for (size_t i = 0; i < n; i++) {
        add_file(p, root, names[i]);
        free(names[i]);
    }
}

int main(void)
{
    static struct plan p;
    const char *more = getenv("GOLDENS");
    char *roots = strdup(more ? more : ""), *rest = roots, *root;
    add_root(&p, GOLDEN_OWN);
    add_root(&p, GOLDEN_SHARED);
    while ((root = strsep(&rest, ":")))
        if (*root)
            add_root(&p, root);
    int n_failed = _cmocka_run_group_tests("goldens", p.tests, p.n, NULL, NULL);
    free(roots);
    return n_failed;
}
