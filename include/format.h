/* Model and adapter files as they lie on disk: safetensors, GGUF, config.json. Everything here comes from
 * strangers: each offset, count, length, alignment and nesting is checked against the file before use, and
 * what is handed out can be trusted to lie inside it. Tensors are read with pread into the caller's memory;
 * nothing is mapped.
 *
 * Sources: safetensors README (huggingface/safetensors); GGUF specification (ggml docs/gguf.md); config.json
 * as written by transformers 4 and 5. */
#ifndef LK_FORMAT_H
#define LK_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/dtype.h"
#include "base/error.h"

struct json_t; /* jansson's value */

/* ---- tensors of a file, or of a folder's shards ---- */

#define TENSOR_DIMS_MAX 4

/* Immutable description; lives as long as its `struct tensors`. */
struct tensor {
    const char *name;
    enum dtype dtype;
    uint32_t n_dims;
    uint64_t shape[TENSOR_DIMS_MAX]; /* outermost first (GGUF's order is turned round); unused ones are 1 */
    uint64_t n_values;
    uint64_t size_bytes; /* checked to be what dtype and shape say, and inside the file */
    uint64_t offset;     /* from the start of its file */
    uint32_t file_index;
};

/* A set of named tensors in one or several open files. Immutable after opening; tensor_read may be called by
 * any number of threads at once (pread). */
struct tensors;

/* What a file was when it was copied. */
struct copied_file {
    char name[256];
    uint64_t size_bytes, device, inode;
    int64_t mtime_ns, ctime_ns;
};
/* The files of one set, in the order of copying. Zeroed to begin with; copied_files_fini frees. */
struct copied_files {
    struct copied_file *items;
    size_t n, room;
};
void copied_files_fini(struct copied_files *c);

/* How a stranger's files are read when the content must be one consistent whole: each is copied into private
 * memory with pread, must be the same file before and after (device, inode, size, both times), and is parsed
 * from the copy. When all have been copied, private_copy_check looks at each a second time. */
struct private_copy {
    uint64_t limit_bytes; /* of one file */
    uint64_t limit_total; /* of all that are in `files`; 0: none */
    int root_fd;          /* >= 0: links in the folder are followed only as far as they stay beneath it; -1 */
    const char *folder;   /* the folder's path below root_fd; used when root_fd >= 0 */
    struct copied_files *files; /* each file is noted here; may be NULL */
    /* Is shown the content of each file, in the order of opening (may be NULL). */
    void (*seen)(void *data, const char *name, const void *bytes, size_t n_bytes);
    void *data;
};
/* STATUS_UNAVAILABLE "... changed while it was read" if a file of `copy->files` is another one by now, or
 * (under a root) the folder is: what was copied could then be parts of two versions. Try again later. */
LK_MUST_USE enum status private_copy_check(const struct private_copy *copy, int dir_fd, const char *shown_dir,
                                           struct error *err);

struct tensors_limits {
    uint64_t header_bytes;           /* largest safetensors header / GGUF metadata+tensor table; 0: 100 MiB */
    uint32_t n_tensors;              /* 0: 65536 */
    const struct private_copy *copy; /* NULL: read in place with pread */
};

/* One .safetensors file. */
LK_MUST_USE enum status tensors_open_safetensors(const char *path, const struct tensors_limits *limits,
                                                 struct tensors **out, struct error *err);
/* NAME.safetensors, or the shards that NAME.safetensors.index.json lists, in an open folder (paths confined
 * to it). */
LK_MUST_USE enum status tensors_open_folder(int dir_fd, const char *shown_dir, const char *name,
                                            const struct tensors_limits *limits, struct tensors **out,
                                            struct error *err);
void tensors_close(struct tensors *t); /* NULL is fine */

size_t tensors_count(const struct tensors *t);
const struct tensor *tensors_at(const struct tensors *t, size_t index);       /* file order */
const struct tensor *tensors_find(const struct tensors *t, const char *name); /* NULL if absent */
uint32_t tensors_n_files(const struct tensors *t);
const char *tensors_file_name(const struct tensors *t, uint32_t file_index);
/* What an open file is now; its name is left empty. False for a private copy, or if it can't be asked. */
bool tensors_file_state(const struct tensors *t, uint32_t file_index, struct copied_file *out);
/* Tells the kernel that the tensors' bytes aren't read again soon, so that it keeps others in its cache. */
void tensors_forget(const struct tensors *t);
/* Tensors that the file has in an element type that we don't know (F64, BOOL, F8_E5M2 …): kept out of the
 * set, because files carry unused masks and counters. False past the end. */
bool tensors_foreign_at(const struct tensors *t, size_t index, const char **name, const char **type);
/* Metadata string of a safetensors header ("format" → "pt"), or NULL. */
const char *tensors_metadata(const struct tensors *t, const char *key);

/* The tensor's bytes from `begin`, n_bytes of them (a slice of rows), into dst. */
LK_MUST_USE enum status tensor_read(const struct tensors *t, const struct tensor *tensor, uint64_t begin,
                                    uint64_t n_bytes, void *dst, struct error *err);
/* The tensor's bytes in the private copy, as long as the set is open; NULL if it is read in place. Aligned to
 * nothing. */
const void *tensor_data(const struct tensors *t, const struct tensor *tensor);

/* ---- writing tensor files: all tensors are declared first, then their bytes follow in that order ---- */

struct out_place; /* base/out.h */
struct tensor_writer;

/* The description of a tensor that is going to be written; the name is borrowed until the writer is closed.
 * STATUS_INVALID for shapes and names that no reader takes. */
LK_MUST_USE enum status tensor_describe(struct tensor *t, const char *name, enum dtype dtype, uint32_t n_dims,
                                        const uint64_t *shape, struct error *err);
/* Widest element type first, then by name: so every tensor of a safetensors file is aligned to its type. */
void tensors_order(struct tensor *items, size_t n);

struct text_pair {
    const char *key, *value;
};
/* Metadata of the types that a GGUF adapter has. */
struct gguf_pair {
    const char *key;
    enum gguf_pair_type { GGUF_PAIR_TEXT, GGUF_PAIR_U32, GGUF_PAIR_F32, GGUF_PAIR_IDS } type;
    const char *text;
    uint32_t u32;
    float f32;
    const int32_t *ids; /* [n_ids], written as u32: none is negative */
    size_t n_ids;
};
/* A file to write, in a place's temporary folder. Items are borrowed until the writer is closed. */
struct tensor_file {
    const char *name;
    const struct tensor *items;
    size_t n_items;
    const struct text_pair *metadata; /* safetensors: [n_metadata] text for its header */
    size_t n_metadata;
    const struct gguf_pair *pairs; /* GGUF: [n_pairs] */
    size_t n_pairs;
};
/* STATUS_UNSUPPORTED for an element type that the format has no name for. GGUF: version 3. */
LK_MUST_USE enum status safetensors_create(const struct out_place *o, const struct tensor_file *f,
                                           struct tensor_writer **out, struct error *err);
LK_MUST_USE enum status gguf_create(const struct out_place *o, const struct tensor_file *f,
                                    struct tensor_writer **out, struct error *err);

/* The next bytes: any number of them, over the ends of tensors or not. More than was declared is a caller's
 * bug. */
LK_MUST_USE enum status tensor_writer_put(struct tensor_writer *w, const void *bytes, uint64_t n_bytes,
                                          struct error *err);
/* Everything declared has been put (or it is a caller's bug): syncs the file. */
LK_MUST_USE enum status tensor_writer_finish(struct tensor_writer *w, struct error *err);
void tensor_writer_close(struct tensor_writer *w); /* finished or not; NULL is fine */

/* ---- GGUF ---- */

struct gguf; /* an open GGUF v2/v3 file: metadata and tensors. Immutable after opening. */

LK_MUST_USE enum status gguf_open(const char *path, const struct tensors_limits *limits, struct gguf **out,
                                  struct error *err);
LK_MUST_USE enum status gguf_open_at(int dir_fd, const char *shown_dir, const char *name,
                                     const struct tensors_limits *limits, struct gguf **out,
                                     struct error *err);
void gguf_close(struct gguf *g);
const struct tensors *gguf_tensors(const struct gguf *g); /* borrowed from g */

/* Typed access: STATUS_NOT_FOUND if the key is absent, STATUS_FORMAT if its type or range is another.
 * Integers of any width convert when the value fits. Strings are NUL-terminated copies that live as long as
 * g. */
bool gguf_has(const struct gguf *g, const char *key);
LK_MUST_USE enum status gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct error *err);
LK_MUST_USE enum status gguf_get_f64(const struct gguf *g, const char *key, double *out, struct error *err);
LK_MUST_USE enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err);
LK_MUST_USE enum status gguf_get_string(const struct gguf *g, const char *key, const char **out,
                                        size_t *length, struct error *err);
/* Arrays: the number of items; items are then read by index. A string item may hold any bytes but lengths are
 * checked. */
LK_MUST_USE enum status gguf_get_array(const struct gguf *g, const char *key, uint64_t *n_items,
                                       struct error *err);
LK_MUST_USE enum status gguf_array_string(const struct gguf *g, const char *key, uint64_t index,
                                          const char **out, size_t *length, struct error *err);
/* A whole numeric array converted; n_items must be the array's length. */
LK_MUST_USE enum status gguf_array_f32(const struct gguf *g, const char *key, float *out, uint64_t n_items,
                                       struct error *err);
LK_MUST_USE enum status gguf_array_i64(const struct gguf *g, const char *key, int64_t *out, uint64_t n_items,
                                       struct error *err);
/* Key/value pairs for `inspect`: text form of the index-th pair (arrays as "[n items]"), false past the end.
 */
bool gguf_describe(const struct gguf *g, size_t index, const char **key, char *value, size_t value_bytes);

/* llama-architecture GGUF files store q and k rows permuted for interleaved rotary pairs. The row of a GGUF
 * tensor that holds row `hf_row` of the Hugging Face tensor, for n_heads heads of head_dim rows. */
uint64_t gguf_rope_row(uint64_t hf_row, uint32_t n_heads, uint32_t head_dim);

/* ---- config.json and GGUF hyperparameters, one description ---- */

#define CONFIG_LAYERS_MAX 256
#define CONFIG_EOS_MAX 16
#define CONFIG_ROPE_FACTORS_MAX 256

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN, ROPE_LONGROPE };
enum hidden_act { ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU };

/* Rotary embedding parameters, transformers' names (modeling_rope_utils.py). */
struct rope_config {
    enum rope_type type;
    double theta;
    double factor; /* 1 when absent */
    double low_freq_factor, high_freq_factor;
    double original_max_position; /* 0 when absent */
    double attention_factor;      /* 0 when absent: derived */
    double beta_fast, beta_slow, mscale, mscale_all_dim;
    bool truncate;         /* yarn: round the correction range; default true */
    double partial_factor; /* rotated share of head_dim, 1 by default */
    /* Explicit frequency divisors, n_rotated/2 of them; 0: none. ROPE_LONGROPE: long and short ones.
     * ROPE_LLAMA3 with factors (GGUF rope_freqs.weight): they are the whole scaling, both tables are equal,
     * and factor, low_freq_factor and high_freq_factor are not used. */
    uint32_t n_factors;
    float long_factors[CONFIG_ROPE_FACTORS_MAX];
    float short_factors[CONFIG_ROPE_FACTORS_MAX];
};

/* What a config says, nothing derived by family. A field that the file lacks has transformers' default for
 * that model_type where it has one, else 0. */
struct model_config {
    char model_type[48]; /* transformers' model_type; GGUF architectures are mapped: "llama" "qwen2" "qwen3"
                            "gemma3_text"… */
    char name[160];      /* general.name, _name_or_path's last part, or the folder's name; may be empty */
    bool from_gguf;

    uint32_t vocab_size, hidden_size, intermediate_size, n_layers, n_heads, n_kv_heads, head_dim;
    uint32_t max_position; /* context length that the model was made for */
    double norm_eps;
    enum hidden_act act;
    bool tie_word_embeddings, attention_bias, mlp_bias;

    struct rope_config rope;       /* full-attention layers */
    struct rope_config rope_local; /* sliding layers where they differ (gemma3); else a copy of rope */

    uint32_t sliding_window; /* tokens, the query itself included; 0: none */
    uint8_t layer_is_sliding[CONFIG_LAYERS_MAX];
    double query_pre_attn_scalar;                   /* 0: head_dim */
    bool attn_scale_by_layer;                       /* the scale is divided by layer + 1 (gpt2) */
    double attn_logit_softcap, final_logit_softcap; /* 0: none */

    /* granite, gemma …: 0 when the file has none */
    double embedding_multiplier, residual_multiplier, attention_multiplier, logits_scaling;
    /* experts; 0 when dense */
    uint32_t n_experts, n_experts_used, expert_intermediate_size;
    bool norm_topk_prob;
    uint8_t layer_is_sparse[CONFIG_LAYERS_MAX]; /* layers that have experts; the others are dense */

    /* quantization_config: weights may be F8 with scales; rows and columns that share one, or 0, 0: a row's
     * or the tensor's values do. */
    bool f8;
    uint32_t f8_block_rows, f8_block_cols;

    int32_t bos_token, pad_token; /* -1: none */
    uint32_t n_eos;
    int32_t
        eos_tokens[CONFIG_EOS_MAX]; /* generation_config.json's first, then config.json's, without repeats */
};

/* A model on disk, opened but not loaded: a Hugging Face folder or a GGUF file. Immutable; any thread. */
struct model_files {
    char path[512];                /* as given */
    struct gguf *gguf;             /* NULL for a folder */
    const struct tensors *tensors; /* of either */
    struct tensors *own_tensors;   /* the folder's; NULL for GGUF */
    struct model_config config;
    int dir_fd; /* the open folder (tokenizer files), or -1 for GGUF */
};

LK_MUST_USE enum status model_files_open(const char *path, struct model_files **out, struct error *err);
void model_files_close(struct model_files *f);

/* Pure parsers behind it; `generation` (generation_config.json) may be NULL. `shown` names the file in
 * errors. Refuse by name what would change the numbers and is unknown (rope types, quantization_config,
 * activation…). */
LK_MUST_USE enum status model_config_from_json(const struct json_t *config, const struct json_t *generation,
                                               const char *shown, struct model_config *out,
                                               struct error *err);
LK_MUST_USE enum status model_config_from_gguf(const struct gguf *g, struct model_config *out,
                                               struct error *err);

/* JSON from a file or memory with our rules: UTF-8, no duplicate keys, nesting at most `depth_max` (checked
 * before jansson recurses), size bound. Errors name file, line and column. Caller json_decref()s. */
LK_MUST_USE enum status json_parse(const char *text, size_t length, const char *shown, uint32_t depth_max,
                                   struct json_t **out, struct error *err);
/* Objects keep the file's order. Depth at most 64. STATUS_NOT_FOUND if absent. */
LK_MUST_USE enum status json_read_at(int dir_fd, const char *shown_dir, const char *name, size_t limit_bytes,
                                     struct json_t **out, struct error *err);

/* A whole file by the rules of `copy`, NUL-terminated behind its end, into *bytes (mem_free). */
LK_MUST_USE enum status private_copy_read(const struct private_copy *copy, int dir_fd, const char *shown_dir,
                                          const char *name, char **bytes, size_t *n_bytes, struct error *err);

#endif
