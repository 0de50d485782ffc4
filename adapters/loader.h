/* What a format's loader is given and gives. Inner wall of adapters. */
#ifndef LK_ADAPTERS_LOADER_H
#define LK_ADAPTERS_LOADER_H

#include "bundle.h"
#include "content.h"
#include "content_hash.h"

struct json_t;

/* An adapter's place, opened: a folder, or the folder that holds the file. */
struct opened {
    const char *shown; /* the source's path, for messages */
    int dir_fd;
    char folder[512]; /* as given, for messages and lookups below the root */
    const char *file; /* NULL: the source is the folder itself */
    struct private_copy copy;
};

/* A way in: a file, or a folder. `load` fills the content; the tensors that it borrows from go to *keep and
 * stay open until `release`. */
struct adapter_format {
    enum status (*load)(const struct opened *o, struct content *c, void **keep, struct error *err);
    void (*release)(void *keep); /* NULL is fine */
};
extern const struct adapter_format adapter_format_folder, adapter_format_gguf;

/* A folder's own kinds, told apart by its adapter_config.json: `config` is borrowed. */
bool mlx_is_config(const struct json_t *config);
LK_MUST_USE enum status mlx_load(const struct opened *o, struct json_t *config, struct content *c,
                                 struct tensors **keep, struct error *err);
LK_MUST_USE enum status peft_load(const struct opened *o, struct json_t *config, struct content *c,
                                  struct tensors **keep, struct error *err);
/* NAME.safetensors or its shards, every tensor of a type that we know; they are c->tensors then. */
LK_MUST_USE enum status folder_tensors(const struct opened *o, const char *name, struct content *c,
                                       struct tensors **keep, struct error *err);

/* general.architecture of a GGUF for a base of this model_type, and whether q and k rows are permuted there
 * (gguf_rope_row). */
bool gguf_architecture(const char *model_type, const char **arch, bool *permuted);
/* "blk.0.attn_q" of a linear module or the embedding, without ".weight"; experts: the tensor of them all.
 * False: GGUF has no name for it. */
bool gguf_module_name(const struct model_module *m, char *dst, size_t dst_bytes);

/* An adapter read but not yet packed: what adapter_load makes a version of, and what tests look at. */
struct loading {
    struct opened place;
    struct content_hash hash;
    struct copied_files files;
    enum adapter_fault fault;
    uint8_t digest[32]; /* of the files */
    const struct adapter_format *format;
    struct content *content; /* content->spec is complete */
    struct adapter_bundle *bundle;
    void *keep; /* what the content borrows from; the format releases it */
};
LK_MUST_USE enum status loading_begin(struct loading *l, const struct adapter_source *s,
                                      const struct model *m, struct adapter_report *report,
                                      struct error *err);
/* The place alone: a folder, or the folder of a file. Its dir_fd is the caller's to close. */
LK_MUST_USE enum status place_open(const char *path, int root_fd, struct opened *o, struct error *err);
void loading_end(struct loading *l); /* takes a failed or zeroed one too */

#define ADAPTER_FILE_BYTES_MAX ((uint64_t)8 << 30)
#define ADAPTER_HEADER_BYTES_MAX ((uint64_t)32 << 20)
#define ADAPTER_TENSORS_MAX 131072U /* LoRA on each of 128 experts in 94 layers: 72192 */

#endif
