/* MB/s of the tokenizer on one core: encoding and decoding of the files given, each read whole.
 *
 *   bench_tokenizer TOKENIZER.json|MODEL.gguf FILE…
 *
 * A text that is shorter than 4 MB is tokenised in a row until that much has been; the best of several rounds
 * counts. One round of all files goes before the next, so that a busy machine treats them alike. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/file.h"
#include "format.h"
#include "open_tokenizer.h"
#include "text.h"

#define ROUNDS 7
#define ROUND_BYTES (4U << 20)
#define FILES_MAX 16

struct sample {
    const char *path;
    struct buf text;
    struct token_list ids;
    double best_encode, best_decode; /* bytes a second */
};

/* The processor's time, so that what else runs on the machine counts less. */
static double cpu_seconds(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double bytes_a_second(size_t bytes, double begin)
{
    return (double)bytes / (cpu_seconds() - begin);
}

static enum status measure(const struct tokenizer *t, struct sample *s, struct error *err)
{
    static const struct encode_options options = {.parse_special = true};
    struct buf out;
    size_t bytes = 0;
    enum status status = STATUS_OK;
    buf_init(&out, 0);
    double begin = cpu_seconds();
    do {
        s->ids.n_ids = 0;
        status = tokenizer_encode(t, s->text.data, s->text.length, &options, &s->ids, err);
        bytes += s->text.length;
    } while (status == STATUS_OK && bytes < ROUND_BYTES);
    double speed = bytes_a_second(bytes, begin);
    s->best_encode = speed > s->best_encode ? speed : s->best_encode;
    begin = cpu_seconds();
    for (bytes = 0; status == STATUS_OK && bytes < ROUND_BYTES; bytes += out.length) {
        buf_clear(&out);
        status = tokenizer_decode(t, s->ids.ids, s->ids.n_ids, false, &out, err);
        if (out.length == 0)
            break;
    }
    speed = bytes_a_second(bytes, begin);
    s->best_decode = speed > s->best_decode ? speed : s->best_decode;
    buf_fini(&out);
    return status;
}

static enum status run(const struct tokenizer *t, struct sample *samples, int n, struct error *err)
{
    enum status status = STATUS_OK;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < n && status == STATUS_OK; i++)
            status = measure(t, &samples[i], err);
    if (status != STATUS_OK)
        return status;
    printf("| text | bytes | tokens | encode MB/s | decode MB/s |\n|---|---|---|---|---|\n");
    for (int i = 0; i < n; i++)
        printf("| %s | %zu | %zu | %.1f | %.1f |\n", samples[i].path, samples[i].text.length,
               samples[i].ids.n_ids, samples[i].best_encode / 1e6, samples[i].best_decode / 1e6);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct error err = {.text = ""};
    struct sample samples[FILES_MAX] = {{.path = NULL}};
    int n = argc - 2;
    if (n < 1 || n > FILES_MAX) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER.json|MODEL.gguf FILE… (at most %d)\n", FILES_MAX);
        return 2;
    }
    struct tokenizer *t = open_tokenizer(argv[1], &err);
    enum status status = t ? STATUS_OK : err.status;
    for (int i = 0; i < n; i++) {
        samples[i].path = argv[i + 2];
        buf_init(&samples[i].text, 1U << 28);
        if (status == STATUS_OK)
            status = file_read_all(argv[i + 2], 1U << 28, &samples[i].text, &err);
    }
    if (status == STATUS_OK)
        status = run(t, samples, n, &err);
    if (status != STATUS_OK)
        fprintf(stderr, "%s\n", err.text);
    for (int i = 0; i < n; i++) {
        buf_fini(&samples[i].text);
        token_list_fini(&samples[i].ids);
    }
    tokenizer_destroy(t);
    return status == STATUS_OK ? 0 : 1;
}
