/* Loading never keeps two full copies: the most heap that opening a model holds at once is what stays, and a
 * few slices. For Hugging Face folders, with and without a conversion, F8 with scales, and GGUF.
 *
 * This program has its own base/mem.h: the same functions with a count of the bytes that live. The linker
 * then leaves out core/base/mem.c. Files are sparse: their data are holes that read as zeros. */
#include "tests/test.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "made_files.h"
#include "model_inner.h"

#define HIDDEN 512U
#define INTER 1024U
#define KV 128U
#define VOCAB 4096U
#define LAYERS 2U
#define THREADS 2U
#define SLICES_BYTES                                                                                         \
    (THREADS * (2UL << 20) + (256UL << 10)) /* a slice read and one converted, a worker; names */

/* ---- base/mem.h with a count ---- */

static _Atomic uint64_t live_bytes, most_bytes, n_allocations;

static void *counted(void *p)
{
    if (!p)
        return NULL;
    uint64_t now = atomic_fetch_add(&live_bytes, malloc_usable_size(p)) + malloc_usable_size(p);
    uint64_t most = atomic_load(&most_bytes);
    while (now > most && !atomic_compare_exchange_weak(&most_bytes, &most, now))
        ;
    atomic_fetch_add(&n_allocations, 1);
    return p;
}

void *mem_alloc(size_t size_bytes)
{
    return counted(malloc(size_bytes ? size_bytes : 1));
}
void *mem_zalloc(size_t size_bytes)
{
    return counted(calloc(1, size_bytes ? size_bytes : 1));
}
void *mem_array(size_t count, size_t item_bytes)
{
    size_t size;
    return size_mul(count, item_bytes, &size) ? mem_zalloc(size) : NULL;
}
void *mem_realloc(void *p, size_t size_bytes)
{
    atomic_fetch_sub(&live_bytes, p ? malloc_usable_size(p) : 0);
    return counted(realloc(p, size_bytes ? size_bytes : 1));
}
void *mem_aligned_raw(size_t alignment, size_t size_bytes)
{
    void *p = NULL;
    return posix_memalign(&p, alignment, size_bytes ? size_bytes : 1) == 0 ? counted(p) : NULL;
}
void *mem_aligned(size_t alignment, size_t size_bytes)
{
    void *p = mem_aligned_raw(alignment, size_bytes);
    if (p)
        memset(p, 0, size_bytes);
    return p;
}
char *mem_strndup(const char *s, size_t length)
{
    char *copy = mem_alloc(length + 1);
    memcpy(copy, s, length);
    copy[length] = '\0';
    return copy;
}
char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}
void mem_free(void *p)
{
    atomic_fetch_sub(&live_bytes, p ? malloc_usable_size(p) : 0);
    free(p);
}
uint64_t mem_count(void)
{
    return n_allocations;
}
void mem_fail_at(uint64_t n)
{
    (void)n;
}

/* ---- files ---- */

struct matrix {
    const char *hf, *gguf; /* "%u": the layer */
    uint32_t rows, cols;   /* cols 0: a vector */
};
static const struct matrix outer[] = {{"model.embed_tokens", "token_embd", VOCAB, HIDDEN},
                                      {"lm_head", "output", VOCAB, HIDDEN},
                                      {"model.norm", "output_norm", HIDDEN, 0}};
static const struct matrix inner[] = {
    {"model.layers.%u.self_attn.q_proj", "blk.%u.attn_q", HIDDEN, HIDDEN},
    {"model.layers.%u.self_attn.k_proj", "blk.%u.attn_k", KV, HIDDEN},
    {"model.layers.%u.self_attn.v_proj", "blk.%u.attn_v", KV, HIDDEN},
    {"model.layers.%u.self_attn.o_proj", "blk.%u.attn_output", HIDDEN, HIDDEN},
    {"model.layers.%u.mlp.gate_proj", "blk.%u.ffn_gate", INTER, HIDDEN},
    {"model.layers.%u.mlp.up_proj", "blk.%u.ffn_up", INTER, HIDDEN},
    {"model.layers.%u.mlp.down_proj", "blk.%u.ffn_down", HIDDEN, INTER},
    {"model.layers.%u.input_layernorm", "blk.%u.attn_norm", HIDDEN, 0},
    {"model.layers.%u.post_attention_layernorm", "blk.%u.ffn_norm", HIDDEN, 0},
};
#define N_OUTER (sizeof outer / sizeof *outer)
#define N_INNER (sizeof inner / sizeof *inner)
#define N_TENSORS (N_OUTER + LAYERS * N_INNER)

static const struct matrix *matrix_at(size_t i, bool gguf, char name[64])
{
    const struct matrix *m = i < N_OUTER ? &outer[i] : &inner[(i - N_OUTER) % N_INNER];
    const char *pattern = gguf ? m->gguf : m->hf, *mark = strstr(pattern, "%u");
    if (mark)
        snprintf(name, 64, "%.*s%u%s.weight", (int)(mark - pattern), pattern,
                 (unsigned)((i - N_OUTER) / N_INNER), mark + 2);
    else
        snprintf(name, 64, "%s.weight", pattern);
    return m;
}

/* The front of the file and a hole. */
static void put_sparse(const char *dir, const char *name, const struct buf *front, uint64_t size_bytes)
{
    char path[512];
    put_file(dir, name, front->data, front->length);
    assert_true(path_join(path, sizeof path, dir, name));
    assert_int_equal(truncate(path, (off_t)size_bytes), 0);
}

static void put_header(struct buf *b, const char *name, const char *dtype, const struct matrix *m,
                       uint64_t end, uint64_t n)
{
    char shape[40];
    snprintf(shape, sizeof shape, m->cols ? "[%u,%u]" : "[%u]", m->rows, m->cols);
    assert_true(buf_printf(b, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
                           b->length > 1 ? "," : "", name, dtype, shape, (unsigned long long)(end - n),
                           (unsigned long long)end));
}

static void put_folder(const char *dir, const char *dtype, uint32_t value_bytes)
{
    struct buf header, front;
    uint64_t end = 0;
    char name[64], config[512];
    bool f8 = value_bytes == 1;
    buf_init(&header, 0);
    buf_init(&front, 0);
    assert_true(buf_puts(&header, "{"));
    for (size_t i = 0; i < N_TENSORS; i++) {
        const struct matrix *m = matrix_at(i, false, name);
        uint64_t n = (uint64_t)m->rows * (m->cols ? m->cols : 1) * (m->cols ? value_bytes : 4);
        end += n;
        put_header(&header, name, m->cols ? dtype : "F32", m, end, n);
    }
    assert_true(buf_puts(&header, "}"));
    put_u64(&front, header.length);
    assert_true(buf_append(&front, header.data, header.length));
    put_sparse(dir, "model.safetensors", &front, front.length + end);
    snprintf(config, sizeof config,
             "{\"model_type\":\"llama\",\"vocab_size\":%u,\"hidden_size\":%u,\"intermediate_size\":%u,"
             "\"num_hidden_layers\":%u,\"num_attention_heads\":8,\"num_key_value_heads\":2,"
             "\"max_position_embeddings\":64,\"eos_token_id\":1,\"bos_token_id\":1,\"tie_word_embeddings\":"
             "false%s}",
             VOCAB, HIDDEN, INTER, LAYERS, f8 ? ",\"quantization_config\":{\"quant_method\":\"fp8\"}" : "");
    put_text(dir, "config.json", config);
    buf_fini(&header);
    buf_fini(&front);
}

static void put_gguf(const char *dir, enum dtype type)
{
    struct buf b;
    uint64_t end = 0;
    char name[64];
    buf_init(&b, 0);
    put_gguf_front(&b, 3, N_TENSORS, 9);
    put_gguf_text(&b, "general.architecture", "llama");
    put_gguf_u32(&b, "llama.vocab_size", VOCAB);
    put_gguf_u32(&b, "llama.context_length", 64);
    put_gguf_u32(&b, "llama.embedding_length", HIDDEN);
    put_gguf_u32(&b, "llama.block_count", LAYERS);
    put_gguf_u32(&b, "llama.feed_forward_length", INTER);
    put_gguf_u32(&b, "llama.attention.head_count", 8);
    put_gguf_u32(&b, "llama.attention.head_count_kv", 2);
    put_gguf_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    for (size_t i = 0; i < N_TENSORS; i++) {
        const struct matrix *m = matrix_at(i, true, name);
        enum dtype t = m->cols ? type : DTYPE_F32;
        uint64_t n;
        put_gguf_string(&b, name);
        put_u32(&b, m->cols ? 2 : 1);
        put_u64(&b, m->cols ? m->cols : m->rows);
        if (m->cols)
            put_u64(&b, m->rows);
        put_u32(&b, (uint32_t)dtype_info(t)->ggml_type);
        put_u64(&b, end);
        assert_true(dtype_row_bytes(t, (uint64_t)m->rows * (m->cols ? m->cols : 1), &n));
        end += (n + 31) / 32 * 32;
    }
    put_gguf_padding(&b, 32);
    put_sparse(dir, "model.gguf", &b, b.length + end);
    buf_fini(&b);
}

/* ---- the bound ---- */

static void check_peak(const char *path, enum quant quant)
{
    struct model_options o = {.quant = quant, .team = team_create(THREADS)};
    struct model_files *f;
    struct model *m = NULL;
    struct error err = {0};
    assert_int_equal(kernels_select("auto", ACT_MODE_INT8, &o.kernels, &err), STATUS_OK);
    if (model_files_open(path, &f, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    uint64_t before = atomic_load(&live_bytes);
    atomic_store(&most_bytes, before);
    if (model_open(f, &o, &m, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    uint64_t peak = atomic_load(&most_bytes) - before, stays = model_info(m)->size_bytes;
    if (peak > stays + SLICES_BYTES)
        print_error("%s: loading held %llu bytes at once, %llu stay\n", path, (unsigned long long)peak,
                    (unsigned long long)stays);
    assert_true(stays > SLICES_BYTES); /* so that a second copy would be seen */
    assert_true(peak >= stays && peak <= stays + SLICES_BYTES);
    model_close(m);
    model_files_close(f);
    team_destroy(o.team);
}

static void one_copy(void **state)
{
    (void)state;
    struct folder dir = folder_make();
    char path[128];
    put_folder(dir.path, "F32", 4);
    check_peak(dir.path, QUANT_AUTO);
    check_peak(dir.path, QUANT_BF16);
    check_peak(dir.path, QUANT_Q8_0);
    put_folder(dir.path, "BF16", 2);
    check_peak(dir.path, QUANT_AUTO);
    check_peak(dir.path, QUANT_F32);
    put_folder(dir.path, "F8_E4M3", 1);
    check_peak(dir.path, QUANT_AUTO);
    check_peak(dir.path, QUANT_BF16);
    folder_empty(dir.path);
    snprintf(path, sizeof path, "%s/model.gguf", dir.path);
    put_gguf(dir.path, DTYPE_Q8_0);
    check_peak(path, QUANT_AUTO);
    put_gguf(dir.path, DTYPE_Q6_K);
    check_peak(path, QUANT_AUTO);
    check_peak(path, QUANT_F32);
    folder_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_copy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
