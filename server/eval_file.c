/* Log-probabilities in a file (layout in eval.h): written beside the measurement and renamed when complete,
 * so a file of that name is always whole; read back with every field checked, as it may come from anyone. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnutls/crypto.h>

#include "base/mem.h"
#include "eval.h"

#define HEADER_BYTES 128U
#define SUM_TOLERANCE 0.02 /* f16 rounds the log of a probability near e^-8 by 0.4 % */

static const char magic[8] = {'L', 'K', 'L', 'O', 'G', 'P', '1', '\n'};

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u64(uint8_t *p, uint64_t v)
{
    put_u32(p, (uint32_t)v);
    put_u32(p + 4, (uint32_t)(v >> 32));
}

static uint64_t get_u64(const uint8_t *p)
{
    return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

/* ---- tokens ---- */

static enum status hash_tokens(const struct eval_text *t, uint8_t digest[32], struct error *err)
{
    gnutls_hash_hd_t h;
    uint8_t id[4];
    if (gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0)
        return fail(err, STATUS_INTERNAL, "SHA-256 is not available in GnuTLS");
    int rc = 0;
    put_u32(id, (uint32_t)t->bos);
    if (t->bos >= 0)
        rc = gnutls_hash(h, id, sizeof id);
    for (size_t i = 0; i < t->n_tokens && rc >= 0; i++) {
        put_u32(id, (uint32_t)t->tokens[i]);
        rc = gnutls_hash(h, id, sizeof id);
    }
    gnutls_hash_deinit(h, digest);
    return rc < 0 ? fail(err, STATUS_INTERNAL, "SHA-256 of the tokens") : STATUS_OK;
}

static enum status fail_io(struct eval_file *f, const char *what, struct error *err)
{
    return fail(err, STATUS_IO, "%s: can't %s: %s", f->path, what, errno ? strerror(errno) : "cut short");
}

static enum status take_buffer(struct eval_file *f, struct error *err)
{
    f->buffer = mem_array(f->vocab, f->f16 ? 2 : 4);
    return f->buffer ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "a row of %u log-probabilities", f->vocab);
}

/* ---- writing ---- */

static bool part_path(const struct eval_file *f, char *dst, size_t dst_bytes)
{
    int n = snprintf(dst, dst_bytes, "%s.part", f->path);
    return n > 0 && (size_t)n < dst_bytes;
}

static enum status write_head(struct eval_file *f, const struct eval_text *t, struct error *err)
{
    uint8_t head[HEADER_BYTES] = {0}, id[4];
    memcpy(head, magic, sizeof magic);
    put_u32(head + 8, HEADER_BYTES);
    put_u32(head + 12, f->f16 ? 1 : 0);
    put_u32(head + 16, f->vocab);
    put_u32(head + 20, t->window);
    put_u32(head + 24, t->stride);
    put_u32(head + 28, (uint32_t)t->bos);
    put_u64(head + 32, t->n_tokens);
    put_u64(head + 40, f->n_rows);
    memcpy(head + 48, f->adapter_digest, sizeof f->adapter_digest);
    memcpy(head + 112, f->model_digest, sizeof f->model_digest);
    enum status s = hash_tokens(t, head + 80, err);
    if (s != STATUS_OK)
        return s;
    bool ok = fwrite(head, sizeof head, 1, f->stream) == 1;
    for (size_t i = 0; i < t->n_tokens && ok; i++) {
        put_u32(id, (uint32_t)t->tokens[i]);
        ok = fwrite(id, sizeof id, 1, f->stream) == 1;
    }
    return ok ? STATUS_OK : fail_io(f, "write", err);
}

enum status eval_file_create(struct eval_file *f, const char *path, const struct eval_text *t,
                             const struct eval_side *s, struct error *err)
{
    char part[sizeof f->path + 8];
    snprintf(f->path, sizeof f->path, "%s", path);
    if (strlen(path) >= sizeof f->path || !part_path(f, part, sizeof part))
        return fail(err, STATUS_INVALID, "--save-logits: the path is longer than %zu", sizeof f->path - 1);
    f->vocab = model_config(s->model)->vocab_size;
    f->n_rows = eval_n_scored(t);
    memcpy(f->model_digest, model_info(s->model)->digest, sizeof f->model_digest);
    if (s->lora)
        memcpy(f->adapter_digest, s->lora->digest, sizeof f->adapter_digest);
    f->writes = true;
    errno = 0;
    f->stream = fopen(part, "wb");
    if (!f->stream)
        return fail_io(f, "create", err);
    enum status status = take_buffer(f, err);
    return status == STATUS_OK ? write_head(f, t, err) : status;
}

enum status eval_file_write(struct eval_file *f, const float *logprobs, struct error *err)
{
    size_t item = f->f16 ? 2 : 4;
    require(f->row < f->n_rows);
    if (f->f16)
        require(quantize_row(DTYPE_F16, logprobs, f->vocab, f->buffer));
    else
        memcpy(f->buffer, logprobs, (size_t)f->vocab * item);
    f->row++;
    errno = 0;
    return fwrite(f->buffer, item, f->vocab, f->stream) == f->vocab ? STATUS_OK : fail_io(f, "write", err);
}

enum status eval_file_finish(struct eval_file *f, struct error *err)
{
    char part[sizeof f->path + 8];
    require(f->row == f->n_rows && part_path(f, part, sizeof part));
    errno = 0;
    int rc = fclose(f->stream);
    f->stream = NULL;
    if (rc == 0)
        rc = rename(part, f->path);
    if (rc == 0)
        return STATUS_OK;
    enum status s = fail_io(f, "write", err);
    unlink(part);
    return s;
}

void eval_file_fini(struct eval_file *f)
{
    char part[sizeof f->path + 8];
    bool unfinished = f->stream && f->writes;
    if (f->stream)
        fclose(f->stream);
    if (unfinished && part_path(f, part, sizeof part))
        unlink(part);
    mem_free(f->buffer);
    *f = (struct eval_file){0};
}

/* ---- reading ---- */

static enum status check_windows(const struct eval_file *f, const uint8_t *head, const struct eval_text *t,
                                 struct error *err)
{
    int32_t bos = (int32_t)get_u32(head + 28);
    if (get_u32(head + 16) != f->vocab)
        return fail(err, STATUS_MISMATCH,
                    "%s: vocab_size is %u, this model's is %u: saved from another model", f->path,
                    get_u32(head + 16), f->vocab);
    if (get_u32(head + 20) != t->window || get_u32(head + 24) != t->stride)
        return fail(err, STATUS_MISMATCH,
                    "%s: saved with --context %u --stride %u, now they are %u and %u: use the saved ones",
                    f->path, get_u32(head + 20), get_u32(head + 24), t->window, t->stride);
    if (bos != t->bos)
        return fail(err, STATUS_MISMATCH, "%s: windows begin with token %d, this model's with %d (-1: none)",
                    f->path, bos, t->bos);
    if (get_u64(head + 32) != t->n_tokens)
        return fail(err, STATUS_MISMATCH,
                    "%s: saved for a text of %llu tokens, this one has %zu: another text or tokenizer",
                    f->path, (unsigned long long)get_u64(head + 32), t->n_tokens);
    if (get_u64(head + 40) != eval_n_scored(t))
        return fail(err, STATUS_FORMAT, "%s: %llu rows, expected %zu for these windows", f->path,
                    (unsigned long long)get_u64(head + 40), eval_n_scored(t));
    return STATUS_OK;
}

/* The file's length must be what the header says. */
static enum status check_size(struct eval_file *f, size_t n_tokens, struct error *err)
{
    struct stat st;
    uint64_t row = (uint64_t)f->vocab * (f->f16 ? 2 : 4), rows, expected;
    if (fstat(fileno(f->stream), &st) != 0)
        return fail_io(f, "look at it", err);
    if (!u64_mul(row, f->n_rows, &rows) || !u64_add(rows, HEADER_BYTES + 4 * (uint64_t)n_tokens, &expected) ||
        (uint64_t)st.st_size != expected)
        return fail(err, STATUS_FORMAT, "%s: %lld bytes, expected %llu rows of %u values behind %zu tokens",
                    f->path, (long long)st.st_size, (unsigned long long)f->n_rows, f->vocab, n_tokens);
    return STATUS_OK;
}

static enum status check_tokens(struct eval_file *f, const uint8_t *saved_digest, const struct eval_text *t,
                                struct error *err)
{
    uint8_t digest[32], id[4];
    for (size_t i = 0; i < t->n_tokens; i++) {
        if (fread(id, sizeof id, 1, f->stream) != 1)
            return fail_io(f, "read", err);
        if ((int32_t)get_u32(id) != t->tokens[i])
            return fail(err, STATUS_MISMATCH,
                        "%s: token %zu is %d, this text's is %d: another text or tokenizer", f->path, i,
                        (int32_t)get_u32(id), t->tokens[i]);
    }
    enum status s = hash_tokens(t, digest, err);
    if (s == STATUS_OK && memcmp(digest, saved_digest, sizeof digest) != 0)
        return fail(err, STATUS_FORMAT, "%s: the SHA-256 of its tokens is wrong: damaged", f->path);
    return s;
}

static enum status read_head(struct eval_file *f, const struct eval_text *t, struct error *err)
{
    uint8_t head[HEADER_BYTES];
    errno = 0;
    if (fread(head, 1, sizeof head, f->stream) != sizeof head || memcmp(head, magic, sizeof magic) != 0)
        return fail(err, STATUS_FORMAT,
                    "%s: no file of saved log-probabilities (it should begin with \"LKLOGP1\")", f->path);
    if (get_u32(head + 8) != HEADER_BYTES || get_u32(head + 12) > 1)
        return fail(err, STATUS_FORMAT, "%s: header of %u bytes and type %u, expected %u and 0 or 1", f->path,
                    get_u32(head + 8), get_u32(head + 12), HEADER_BYTES);
    f->f16 = get_u32(head + 12) == 1;
    f->n_rows = get_u64(head + 40);
    memcpy(f->adapter_digest, head + 48, sizeof f->adapter_digest);
    memcpy(f->model_digest, head + 112, sizeof f->model_digest);
    enum status s = check_windows(f, head, t, err);
    if (s == STATUS_OK)
        s = check_size(f, t->n_tokens, err);
    return s == STATUS_OK ? check_tokens(f, head + 80, t, err) : s;
}

enum status eval_file_open(struct eval_file *f, const char *path, const struct eval_text *t, uint32_t vocab,
                           struct error *err)
{
    struct stat st;
    snprintf(f->path, sizeof f->path, "%s", path);
    f->vocab = vocab;
    errno = 0;
    if (stat(path, &st) != 0)
        return fail_io(f, "open", err);
    if (!S_ISREG(st.st_mode))
        return fail(err, STATUS_FORMAT, "%s: no regular file", f->path);
    f->stream = fopen(path, "rb");
    if (!f->stream)
        return fail_io(f, "open", err);
    enum status s = take_buffer(f, err);
    return s == STATUS_OK ? read_head(f, t, err) : s;
}

enum status eval_file_read(struct eval_file *f, float *logprobs, struct error *err)
{
    size_t item = f->f16 ? 2 : 4;
    double sum = 0;
    require(f->row < f->n_rows);
    errno = 0;
    if (fread(f->buffer, item, f->vocab, f->stream) != f->vocab)
        return fail_io(f, "read", err);
    dequantize_row(f->f16 ? DTYPE_F16 : DTYPE_F32, f->buffer, f->vocab, logprobs);
    for (uint32_t i = 0; i < f->vocab; i++)
        sum += exp((double)logprobs[i]); /* NaN and values above 0 show in the sum */
    if (!(fabs(sum - 1) < SUM_TOLERANCE))
        return fail(err, STATUS_FORMAT, "%s: the probabilities of row %llu add up to %g, expected 1", f->path,
                    (unsigned long long)f->row, sum);
    f->row++;
    return STATUS_OK;
}
