/* Adapter files in, immutable versions out. Loading is plain blocking code that runs on a worker and owns
 * what it builds; registry.h has names and what is in memory. A version lives until the registry and the last
 * request have let go of it. */
#ifndef LK_ADAPTERS_H
#define LK_ADAPTERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "bundle.h"
#include "effect.h"
#include "fingerprint.h"
#include "lora.h"

struct holding;
struct model;

#define ADAPTER_NAME_MAX 64

/* [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
bool adapter_name_is_valid(const char *name);

/* ---- loading ---- */

struct adapter_report {
    char format[24];      /* "peft", "gguf", "mlx" */
    char base_model[160]; /* base_model_name_or_path, or empty */
    uint32_t n_modules, rank_min, rank_max;
    double alpha; /* lora_alpha of the config, before patterns */
    bool rslora;
    char modules[256]; /* "q_proj k_proj …", names of modules that occur */
    /* What it is made of, in words: "lora", "dora", "alora", "embedding", "experts", "lora_bias", "bias",
     * "modules_to_save", "tokens" */
    char kinds[128];
    uint64_t n_parameters;
    uint64_t file_bytes;    /* of the files that were read */
    char digest_hex[65];    /* of the files; "" until all were read */
    char stored[8];         /* "file", "bf16", "int8": how A and B are kept; "" before that */
    struct base_match base; /* whether this is the base that it was trained on */
};

/* An immutable version. */
struct adapter_version {
    atomic_uint refs;
    uint64_t generation; /* set when published: 1, 2, 3 …; 0 before */
    char name[ADAPTER_NAME_MAX + 1];
    char source[512]; /* as given; shown to operators only */
    double user_scale;
    /* SHA-256 over the files' contents alone: of a .gguf file its own, of a folder that of the lines that
     * `sha256sum` writes for the files that were read, in order of names. What keys batches and KV is
     * lora->digest: it depends on the scale and on how the values are stored as well. */
    uint8_t digest[32];
    char digest_hex[65];
    struct lora *lora;
    struct adapter_report report;
    struct effect_report effect;   /* EFFECT_UNTESTED without a test */
    struct adapter_bundle *bundle; /* its behaviour; NULL: it has none */
    int64_t loaded_wall_ms;
    int64_t load_ns;
    struct holding *holding; /* the registry's own, front thread; NULL before it is published */
};
struct adapter_version *adapter_acquire(struct adapter_version *v);
void adapter_release(struct adapter_version *v); /* the last one frees its lora; NULL is fine. Thread: any */

/* Why a load came to nothing, where the status alone doesn't tell. */
enum adapter_fault {
    ADAPTER_FAULT_NONE,
    ADAPTER_FAULT_CHANGED,    /* its files changed while they were read: try again; STATUS_UNAVAILABLE */
    ADAPTER_FAULT_SHA256,     /* not the expected content; STATUS_MISMATCH */
    ADAPTER_FAULT_BASE,       /* its shapes don't fit, or the policy refuses the base; STATUS_MISMATCH */
    ADAPTER_FAULT_NO_EFFECT,  /* EFFECT_ENFORCE; STATUS_INVALID, "no effect: ..." */
    ADAPTER_FAULT_NON_FINITE, /* or exploding logits; EFFECT_ENFORCE; STATUS_INVALID */
};

/* What a load found out, as far as it came: for dry runs and refusals. */
struct adapter_findings {
    enum adapter_fault fault;
    struct adapter_report report;
    struct effect_report effect;
};

/* The types in which A and B are kept in memory. What stands in the place of the base's tensors, and vectors,
 * are kept as they are. */
enum adapter_store {
    ADAPTER_STORE_FILE,
    /* As int8 where the base's weights meet activations rounded to int8 (lora_rounds: quantised ones of a
     * base that is not small). Elsewhere as in the file on an f32 base; on others f32 becomes bf16, which
     * loses less than the base's own rounding did, and f16 stays: it has three bits more and as many bytes.
     */
    ADAPTER_STORE_AUTO,
    ADAPTER_STORE_BF16,
    ADAPTER_STORE_INT8, /* lora.h: a scale for each row and 128 values */
    ADAPTER_STORE_COUNT
};

/* Where an adapter comes from, and what is asked of it. Zeroes are the defaults, but for name, path, root_fd
 * and scale. Borrowed during the load. */
struct adapter_source {
    const char *name;
    const char *path;     /* a PEFT or MLX folder, or a .gguf file */
    int root_fd;          /* >= 0: path is resolved strictly beneath it; -1: path is the operator's own */
    double scale;         /* user scale, 1 by default */
    uint64_t limit_bytes; /* of all its files; 0: 8 GiB a file */
    const char *expected_sha256; /* what digest_hex must be, in any case; NULL: anything */
    enum adapter_store store;
    enum base_policy base_policy;
    const char *base_name; /* what the base is called here, beside its own name; may be NULL */
    enum effect_mode effect;
    const struct effect_probes *probes; /* of the base; NULL: no effect test, whatever the mode */
    struct adapter_findings *findings;  /* written on success and failure; may be NULL */
};

/* Reads, hashes, checks against the base and packs, adapter.yaml (bundle.h) too. STATUS_MISMATCH / FORMAT /
 * UNSUPPORTED name tensor or field. All files are read through one descriptor of their folder and looked at
 * again afterwards: a version is never made of parts of two; STATUS_UNAVAILABLE says that they changed
 * meanwhile. The effect test reads the prompts of probes.jsonl in the folder (of a file X.gguf:
 * X.gguf.probes.jsonl) if there is one, else the probes'; a malformed one is refused. Blocks; thread: any
 * (workers). */
LK_MUST_USE enum status adapter_load(const struct adapter_source *s, const struct model *m,
                                     struct adapter_version **out, struct error *err);

/* An adapter's files from outside: nothing of them is read. */
struct adapter_stat {
    uint64_t file_bytes; /* of those that a load would read, about: the estimate for its reservation */
    uint64_t signature;  /* of names, inodes, sizes and times: another one when something changed */
    bool is_file;        /* a .gguf file */
};
/* For the registration of thousands and for noticing changes: some ten system calls. STATUS_NOT_FOUND: no
 * adapter_config.json and no file. Thread: any. */
LK_MUST_USE enum status adapter_stat(const char *path, int root_fd, struct adapter_stat *out,
                                     struct error *err);
/* Whether an adapter's files are all there and none is cut short, as far as their headers tell: something
 * that is being copied into place isn't. Doesn't say that it would load. Thread: any. */
bool adapter_is_complete(const char *path);
/* What the files say, without a base: for `inspect`. */
LK_MUST_USE enum status adapter_inspect(const char *path, struct adapter_report *out, struct error *err);
/* True if `path` looks like an adapter (a folder with adapter_config.json, or a GGUF whose general.type is
 * adapter). */
bool adapter_is_at(const char *path);

/* ---- a directory of adapters ---- */

/* Calls found(name, path, data) for each adapter directly below `dir` (folder with adapter_config.json → its
 * name; X.gguf → X). Entries with bad names or that are no adapters are reported to skipped(entry, why,
 * data). */
LK_MUST_USE enum status adapters_scan(const char *dir,
                                      void (*found)(const char *name, const char *path, void *data),
                                      void (*skipped)(const char *entry, const char *why, void *data),
                                      void *data, struct error *err);

#endif
