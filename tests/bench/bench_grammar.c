/* What grammars cost with a real vocabulary:
 *
 *   bench_grammar TOKENIZER.json|MODEL.gguf
 *
 * The vocabulary's tree: time and memory. Then, for each of some grammars and a text that follows it, cut
 * into tokens by the tokenizer itself: compiling; `cold`, the first time that the text comes (states and
 * masks are made); `warm`, the times after, each token's answer with its mask; and what the mask adds to the
 * greedy choice of a token from a row of logits, against the choice without. Medians, worst ones beside them.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "format.h"
#include "grammar.h"
#include "kernels.h"
#include "open_tokenizer.h"
#include "sampler.h"
#include "text.h"

#define ROUNDS 20

struct bench_case {
    const char *name;
    enum grammar_kind kind;
    const char *source, *text;
};

static const struct bench_case cases[] = {
    {"json_object", GRAMMAR_JSON_OBJECT, "",
     "{\n  \"name\": \"Rainbow lorikeet\",\n  \"species\": \"Trichoglossus moluccanus\",\n  \"length_cm\": "
     "28.5,\n"
     "  \"colours\": [\"blue\", \"green\", \"orange\", \"red\"],\n  \"range\": {\"country\": \"Australia\", "
     "\"coast\": "
     "\"eastern\", \"introduced\": [\"Perth\", \"Auckland\", \"Hong Kong\"]},\n  \"notes\": \"It feeds on "
     "nectar and "
     "pollen, fruit, and sometimes on insects; its tongue has papillae like a brush.\"\n}"},
    {"schema", GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\","
     "\"minimum\":0,"
     "\"maximum\":120},\"email\":{\"type\":\"string\",\"format\":\"email\"},\"born\":{\"type\":\"string\","
     "\"format\":\"date\"},"
     "\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\",\"blue\"]},\"maxItems\":5},"
     "\"address\":{\"type\":"
     "\"object\",\"properties\":{\"street\":{\"type\":\"string\"},\"city\":{\"type\":\"string\"}},"
     "\"required\":[\"street\","
     "\"city\"]},\"bio\":{\"type\":\"string\"}},\"required\":[\"name\",\"age\",\"tags\",\"bio\"],"
     "\"additionalProperties\":"
     "false}",
     "{\"name\": \"Clara Schumann\", \"age\": 41, \"email\": \"clara.s@example.org\", \"born\": "
     "\"1819-09-13\", \"tags\": "
     "[\"red\", \"blue\"], \"address\": {\"street\": \"Myliusstraße 32\", \"city\": \"Frankfurt am Main\"}, "
     "\"bio\": \"A "
     "pianist and composer of the nineteenth century, who gave her first concert at eleven and her last at "
     "seventy-one.\"}"},
    {"bounded strings", GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\",\"maxLength\":80},\"text\":{"
     "\"type\":\"string\","
     "\"minLength\":10,\"maxLength\":400}},\"required\":[\"title\",\"text\"],\"additionalProperties\":false}",
     "{\"title\": \"How a river finds the sea\", \"text\": \"Water runs downhill, and where many streams "
     "have met they are "
     "called a river. It cuts into what is soft and goes around what is hard, and in the end it slows down, "
     "drops what "
     "it has carried, and is lost between its own islands.\"}"},
    {"regex", GRAMMAR_REGEX, "([A-Z][a-z]+ ){3,12}is \\d{1,4} (years|days) old\\.",
     "The Old Bridge Over Some River is 1204 years old."},
    {"gbnf", GRAMMAR_GBNF,
     "root ::= (expr \"=\" term \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= num | \"(\" expr "
     "\")\"\nnum ::= [0-9]+\n",
     "(12+34)*5=230\n1+2+3+4=10\n((1+2)*(3+4))/7=3\n"},
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct times {
    double us[65536];
    size_t n;
};

static void note(struct times *t, int64_t begin_ns)
{
    if (t->n < sizeof t->us / sizeof *t->us)
        t->us[t->n++] = (double)(clock_now_ns() - begin_ns) / 1e3;
}

static void print_times(const char *name, struct times *t)
{
    double sum = 0;
    qsort(t->us, t->n, sizeof *t->us, compare);
    for (size_t i = 0; i < t->n; i++)
        sum += t->us[i];
    printf("  %-22s mean %8.1f us   median %8.1f   99 %% %8.1f   worst %8.1f   (%zu)\n", name,
           sum / (double)t->n, t->us[t->n / 2], t->us[t->n * 99 / 100], t->us[t->n - 1], t->n);
    t->n = 0;
}

struct bench {
    const struct kernels *kernels;
    struct grammar_vocab *vocab;
    struct sampler_scratch scratch;
    float *row, *peaks;
    uint32_t n_vocab;
    struct times times, other;
};

/* Rows with a tail as a model's have: few tokens have most of the weight. */
static void fill_row(struct bench *b, uint64_t seed)
{
    for (uint32_t i = 0; i < b->n_vocab; i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        b->row[i] = -1.5F * logf((float)((seed >> 40) + 1) / 16777217.0F);
    }
    for (uint32_t i = 0; i < n_peaks_of(b->n_vocab); i++) {
        uint32_t end = (i + 1) * PEAK_VALUES < b->n_vocab ? (i + 1) * PEAK_VALUES : b->n_vocab;
        b->peaks[i] = b->row[i * PEAK_VALUES];
        for (uint32_t k = i * PEAK_VALUES; k < end; k++)
            b->peaks[i] = b->row[k] > b->peaks[i] ? b->row[k] : b->peaks[i];
    }
}

static void run_sampled(struct bench *b, struct grammar *g, const struct token_list *ids, float temperature)
{
    const struct sampling sampling = {.temperature = temperature, .top_p = 0.95F, .repetition_penalty = 1};
    struct sampler_input in = {.sampling = &sampling, .logits = b->row, .peaks = b->peaks};
    struct grammar_matcher m = {0};
    struct rng rng;
    bool may_end;
    rng_seed(&rng, 1);
    for (uint32_t n = 0; n < ids->n_ids; n++) {
        fill_row(b, n);
        in.mask = NULL;
        int64_t begin = clock_now_ns();
        (void)sampler_pick(&in, &rng, &b->scratch);
        note(&b->other, begin);
        begin = clock_now_ns();
        (void)grammar_next(g, &m, ids->ids, n, b->scratch.mask, &may_end);
        in.mask = b->scratch.mask;
        (void)sampler_pick(&in, &rng, &b->scratch);
        note(&b->times, begin);
    }
    print_times(temperature > 0 ? "sampled, unmasked" : "greedy, unmasked", &b->other);
    print_times(temperature > 0 ? "sampled, masked" : "greedy, masked", &b->times);
}

static bool run(struct bench *b, const struct tokenizer *t, const struct bench_case *c)
{
    struct token_list ids = {0};
    struct encode_options o = {.parse_special = false};
    struct grammar *g;
    struct error err;
    bool may_end = false;
    int64_t begin = clock_now_ns();
    if (grammar_compile_part(b->vocab, c->kind, c->source, strlen(c->source), &g, &err) != STATUS_OK ||
        tokenizer_encode(t, c->text, strlen(c->text), &o, &ids, &err) != STATUS_OK) {
        printf("%s: %s\n", c->name, err.text);
        return false;
    }
    printf("%s: compiled with its first mask in %.2f ms\n", c->name, (double)(clock_now_ns() - begin) / 1e6);
    enum grammar_answer a = GRAMMAR_STUCK;
    for (int round = 0; round <= ROUNDS; round++) {
        struct grammar_matcher m = {0};
        for (uint32_t n = 0; n <= ids.n_ids; n++) {
            begin = clock_now_ns();
            a = grammar_next(g, &m, ids.ids, n, b->scratch.mask, &may_end);
            note(&b->times, begin);
        }
        if (round == 0)
            print_times("cold", &b->times);
    }
    print_times("warm", &b->times);
    run_sampled(b, g, &ids, 0);
    run_sampled(b, g, &ids, 0.8F);
    printf("  %.2f MB; the text %s\n", (double)grammar_bytes(g) / 1e6,
           may_end && (a == GRAMMAR_GOES_ON || a == GRAMMAR_COMPLETE) ? "follows it" : "DOES NOT FOLLOW IT");
    token_list_fini(&ids);
    grammar_release(g);
    return may_end;
}

int main(int argc, char **argv)
{
    struct error err = {.text = ""};
    struct bench *b = mem_zalloc(sizeof *b);
    struct tokenizer *t = argc == 2 ? open_tokenizer(argv[1], &err) : NULL;
    if (!t || !b || kernels_select("auto", ACT_MODE_F32, &b->kernels, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text[0] ? err.text : "usage: bench_grammar TOKENIZER.json|MODEL.gguf");
        return 1;
    }
    b->n_vocab = tokenizer_n_tokens(t);
    b->row = mem_array(b->n_vocab, sizeof *b->row);
    b->peaks = mem_array(n_peaks_of(b->n_vocab), sizeof *b->peaks);
    int64_t begin = clock_now_ns();
    if (!b->row || !b->peaks ||
        sampler_scratch_init(&b->scratch, b->n_vocab, b->kernels->argmax, &err) != STATUS_OK ||
        grammar_vocab_create(t, b->n_vocab, &b->vocab, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    b->scratch.kernels = b->kernels;
    printf("vocabulary: %u tokens, tree of %.1f MB in %.0f ms\n", b->n_vocab,
           (double)grammar_vocab_bytes(b->vocab) / 1e6, (double)(clock_now_ns() - begin) / 1e6);
    bool fine = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        fine = run(b, t, &cases[i]) && fine;
    sampler_scratch_fini(&b->scratch);
    grammar_vocab_destroy(b->vocab);
    tokenizer_destroy(t);
    mem_free(b->row);
    mem_free(b->peaks);
    mem_free(b);
    return fine ? 0 : 1;
}
