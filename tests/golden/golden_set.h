/* Folders of goldens, and how one case of theirs is checked: what the golden programs share. A set is a
 * folder laid out as make_goldens.py describes; tests ask what is in it, so a new family, adapter or file is
 * covered by being there. */
#ifndef LK_TESTS_GOLDEN_SET_H
#define LK_TESTS_GOLDEN_SET_H

#include <dirent.h>
#include <jansson.h>

#include "adapters.h"
#include "base/file.h"
#include "model_rig.h"

#define GOLDEN_OWN "tests/golden/data"
#define GOLDEN_SHARED "../shared/goldens"

struct tolerance {
    double logits; /* of the largest logit */
    bool greedy;
};
static const struct tolerance exact = {1e-4, true}, coarse = {2e-2, false};

/* ---- the folder ---- */

static inline int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Entries of root/sub whose names end in `ending`, sorted; 0 if there is no such folder. Freed by the caller.
 */
static inline size_t golden_list(const char *root, const char *sub, const char *ending, char **names,
                                 size_t n_max)
{
    char path[512];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", root, sub);
    DIR *dir = opendir(path);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        size_t length = strlen(e->d_name), end = strlen(ending);
        if (e->d_name[0] == '.' || length < end || strcmp(e->d_name + length - end, ending) != 0)
            continue;
        require(n < n_max);
        names[n++] = strndup(e->d_name, length - end);
    }
    if (dir)
        closedir(dir);
    qsort(names, n, sizeof *names, by_name);
    return n;
}

static inline json_t *golden_file(const char *root, const char *file)
{
    char path[512];
    json_error_t why;
    snprintf(path, sizeof path, "%s/goldens/%s.json", root, file);
    json_t *all = json_load_file(path, 0, &why);
    if (!all)
        fail_msg("%s: %s", path, why.text);
    return all;
}

static inline const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static inline enum status golden_adapter(const char *root, const char *adapter, const struct model *m,
                                         double scale, struct adapter_version **v, struct error *err)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, adapter);
    struct adapter_source source = {.name = "golden", .path = path, .root_fd = -1, .scale = scale};
    return adapter_load(&source, m, v, err);
}

/* ---- one case ---- */

static inline double largest(const float *x, size_t n)
{
    double m = 0;
    for (size_t i = 0; i < n; i++)
        m = fmax(m, fabs((double)x[i]));
    return m;
}

static inline double log_prob(const float *row, uint32_t n, uint32_t id)
{
    double top = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        top = fmax(top, (double)row[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)row[i] - top);
    return (double)row[id] - top - log(sum);
}

static inline bool check_logits(const json_t *last, const float *row, uint32_t vocab, double tolerance,
                                const char *what)
{
    const json_t *ids = json_object_get(last, "top_ids"), *values = json_object_get(last, "top_logits");
    double bound = tolerance * largest(row, vocab), worst = 0, sum = 0;
    assert_true(json_array_size(ids) > 0);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(ids, i));
        assert_true(id < vocab);
        worst = fmax(worst, fabs(row[id] - json_number_value(json_array_get(values, i))));
    }
    for (uint32_t i = 0; i < vocab; i++)
        sum += (double)row[i] * (double)row[i];
    const json_t *l2 = json_object_get(last, "l2");
    double l2_off = l2 ? fabs(sqrt(sum) - json_number_value(l2)) / json_number_value(l2) : 0;
    if (worst <= bound && l2_off <= tolerance)
        return true;
    printf("  %s: logits differ by %.3g, bound %.3g; l2 by %.3g\n", what, worst, bound, l2_off);
    return false;
}

static inline bool check_log_probs(const json_t *values, const struct rig_line *l, uint32_t vocab,
                                   double tolerance, const char *what)
{
    double worst = 0, bound = 2 * tolerance * largest(l->logits, (size_t)l->n_prompt * vocab);
    for (size_t i = 0; i < json_array_size(values); i++) {
        double ours = log_prob(l->logits + i * vocab, vocab, (uint32_t)l->prompt[i + 1]);
        worst = fmax(worst, fabs(ours - json_number_value(json_array_get(values, i))));
    }
    if (worst <= bound)
        return true;
    printf("  %s: log-probabilities of the prompt differ by %.3g, bound %.3g\n", what, worst, bound);
    return false;
}

static inline bool check_greedy(const json_t *c, const struct rig_line *l, const char *what)
{
    const json_t *greedy = json_object_get(c, "greedy"), *safe = json_object_get(c, "greedy_safe_len");
    size_t n = safe ? (size_t)json_integer_value(safe) : json_array_size(greedy);
    for (size_t i = 0; i < n && i < l->n_new; i++)
        if (l->ids[l->n_prompt + i] != json_integer_value(json_array_get(greedy, i))) {
            printf("  %s: greedy token %zu of %zu is %d, expected %d\n", what, i, n, l->ids[l->n_prompt + i],
                   (int)json_integer_value(json_array_get(greedy, i)));
            return false;
        }
    return true;
}

/* A line that asks what the case asks; its prompt is freed by the caller. */
static inline struct rig_line line_of(const json_t *c, struct lora *lora)
{
    const json_t *prompt = json_object_get(c, "prompt");
    uint32_t n = (uint32_t)json_array_size(prompt);
    int32_t *ids = calloc(n, sizeof *ids);
    assert_true(n > 0 && ids);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    return (struct rig_line){.lora = lora,
                             .prompt = ids,
                             .n_prompt = n,
                             .n_new = (uint32_t)json_array_size(json_object_get(c, "greedy"))};
}

static inline void line_free(struct rig_line *l)
{
    free((void *)(uintptr_t)l->prompt);
    rig_line_fini(l);
}

/* Compares a line that has run. */
static inline bool check_line(const struct rig *r, const struct rig_line *l, const json_t *c,
                              struct tolerance t, const char *what)
{
    uint32_t vocab = model_config(r->m)->vocab_size;
    const float *last = l->logits + (size_t)(l->n_prompt - 1) * vocab;
    bool ok = check_logits(json_object_get(c, "last"), last, vocab, t.logits, what);
    ok = check_log_probs(json_object_get(c, "prompt_logprobs"), l, vocab, t.logits, what) && ok;
    return (!t.greedy || check_greedy(c, l, what)) && ok;
}

static inline bool check_case(struct rig *r, struct lora *lora, const json_t *c, struct tolerance t,
                              const char *what)
{
    struct rig_line l = line_of(c, lora);
    assert_int_equal(rig_run(r, &l, 1, 512, 0), 0); /* no allocation in steps */
    bool ok = check_line(r, &l, c, t, what);
    line_free(&l);
    return ok;
}

#endif
