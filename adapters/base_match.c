/* Whether the base at hand is the one that an adapter was trained on: the stamp's word, or the names'. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fingerprint.h"
#include "model.h"

static const char *const outcomes[BASE_OUTCOME_COUNT] = {"unchecked", "exact",  "quantised",
                                                         "name",      "shapes", "mismatch"};
static const char *const policies[BASE_POLICY_COUNT] = {"shapes", "any", "name", "proven", "exact"};

const char *base_outcome_name(enum base_outcome o)
{
    return (unsigned)o < BASE_OUTCOME_COUNT ? outcomes[o] : "?";
}

const char *base_policy_name(enum base_policy p)
{
    return (unsigned)p < BASE_POLICY_COUNT ? policies[p] : "?";
}

bool base_policy_find(const char *name, enum base_policy *out)
{
    for (unsigned i = 0; i < BASE_POLICY_COUNT; i++)
        if (strcmp(policies[i], name) == 0) {
            *out = (enum base_policy)i;
            return true;
        }
    return false;
}

bool base_policy_accepts(enum base_policy p, enum base_outcome o)
{
    static const enum base_outcome weakest[BASE_POLICY_COUNT] = {BASE_SHAPES, BASE_MISMATCH, BASE_NAME,
                                                                 BASE_QUANTISED, BASE_EXACT};
    return o != BASE_UNCHECKED && o <= weakest[p];
}

/* ---- names ---- */

#define NAME_BYTES 160

/* Words at the end of a name that say how the weights are stored. */
static bool is_storage_word(const char *word)
{
    static const char *const words[] = {"gguf", "bf16", "fp16", "f16",  "fp32", "f32", "fp8", "hf",
                                        "int8", "int4", "4bit", "8bit", "bnb",  "mlx", "awq", "gptq"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], word) == 0)
            return true;
    bool iq = word[0] == 'i' && word[1] == 'q';
    return (word[0] == 'q' || iq) && isdigit((unsigned char)word[iq ? 2 : 1]) && strlen(word) <= 4;
}

/* What may follow "q4": "-0", "-k", "-k-m", "-xs". */
static bool is_quant_part(const char *word)
{
    static const char *const parts[] = {"0", "1", "k", "s", "m", "l", "xs", "xl", "nl"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strcmp(parts[i], word) == 0)
            return true;
    return false;
}

/* How many bytes of the name are left without the words about storage: the last word, or a quantised type's
 * two or three. */
static size_t without_storage(const char *name, size_t n)
{
    size_t end = n;
    for (int parts = 0; parts < 3; parts++) {
        size_t begin = end;
        char word[NAME_BYTES];
        while (begin > 0 && name[begin - 1] != '-')
            begin--;
        if (begin == 0) /* the name's first word stays */
            return n;
        snprintf(word, sizeof word, "%.*s", (int)(end - begin), name + begin);
        if (is_storage_word(word))
            return begin - 1;
        if (!is_quant_part(word))
            return n;
        end = begin - 1;
    }
    return n;
}

static void normalise(const char *name, char out[NAME_BYTES])
{
    size_t n = strlen(name);
    while (n > 0 && name[n - 1] == '/')
        n--;
    size_t begin = n, length = 0;
    while (begin > 0 && name[begin - 1] != '/')
        begin--;
    for (size_t i = begin; i < n && length + 1 < NAME_BYTES; i++) {
        char c = (char)tolower((unsigned char)name[i]);
        out[length++] = (char)(c == '_' || c == ' ' ? '-' : c);
    }
    if (length > 5 && memcmp(out + length - 5, ".gguf", 5) == 0)
        length -= 5;
    for (size_t shorter; (shorter = without_storage(out, length)) < length;)
        length = shorter;
    out[length] = '\0';
}

bool base_names_agree(const char *a, const char *b)
{
    char x[NAME_BYTES], y[NAME_BYTES];
    normalise(a, x);
    normalise(b, y);
    return x[0] && strcmp(x, y) == 0;
}

/* ---- the verdict ---- */

__attribute__((format(printf, 3, 4))) static void say(struct base_match *m, enum base_outcome outcome,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(m->how, sizeof m->how, format, args);
    va_end(args);
    m->outcome = outcome;
}

static void match_stamp(const struct base_sketch *stamp, const struct base_sketch *here,
                        struct base_match *out)
{
    struct sketch_distance d;
    const char *was = stamp->name[0] ? stamp->name : "a base without a name";
    sketch_compare(stamp, here, &d);
    out->stamped = true;
    out->outside = d.outside;
    switch (d.relation) {
    case SKETCH_EQUAL:
        say(out, BASE_EXACT, "its stamp says %.100s, whose weights these are", was);
        break;
    case SKETCH_COPY:
        say(out, BASE_QUANTISED, "its stamp says %.100s in %s; these are the same weights in %s", was,
            stamp->weight_type, here->weight_type);
        break;
    case SKETCH_SIBLING:
        say(out, BASE_MISMATCH,
            "its stamp says %.100s; this base is close to it, but other weights: %.3g %% of %s are beyond "
            "rounding: trained further, or merged?",
            was, 100 * d.outside, d.where);
        break;
    case SKETCH_OTHER:
        say(out, BASE_MISMATCH, "its stamp says %.100s, of the same shape, but this base has other weights",
            was);
        break;
    case SKETCH_SHAPES:
        say(out, BASE_MISMATCH,
            "its stamp says %.100s, %s with %u layers of %u; this base is %s with %u of %u", was,
            stamp->shape.model_type, stamp->shape.n_layers, stamp->shape.hidden_size, here->shape.model_type,
            here->shape.n_layers, here->shape.hidden_size);
        break;
    }
}

static void match_names(const struct model *m, const char *name, const char *says, struct base_match *out)
{
    const char *own = model_config(m)->name;
    if (base_names_agree(says, own) || (name && base_names_agree(says, name)))
        say(out, BASE_NAME, "it names \"%.100s\", as this base is called; no stamp proves it", says);
    else if (!says[0])
        say(out, BASE_SHAPES, "warning: it names no base, and only its shapes are known to fit");
    else
        say(out, BASE_SHAPES, "warning: it names \"%.90s\", this base is \"%.90s\": only its shapes fit",
            says, own[0] || !name ? own : name);
}

enum status base_match_find(const struct model *m, const char *name, const struct base_sketch *stamp,
                            const char *adapter_says, struct base_match *out, struct error *err)
{
    struct base_sketch here;
    *out = (struct base_match){.outcome = BASE_UNCHECKED};
    if (!stamp) {
        match_names(m, name, adapter_says, out);
        return STATUS_OK;
    }
    enum status s = model_sketch(m, &here, err);
    if (s == STATUS_OK)
        match_stamp(stamp, &here, out);
    base_sketch_fini(&here);
    return s;
}
