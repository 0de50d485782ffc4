/* What an operator can choose. Filled by the command line and by the configuration file, read by everyone
 * else.
 *
 * Owner: main, from start to exit; immutable once the server runs. Strings live in the arena. */
#ifndef LK_CONF_H
#define LK_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters.h"
#include "auto.h"
#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "effect.h"
#include "fingerprint.h"
#include "proxies.h"

#define CONF_LISTEN_MAX 8U
#define CONF_ROOTS_MAX 16U
#define CONF_BLENDS_MAX 256U

/* --adapter NAME=PATH[:SCALE] */
struct conf_adapter {
    const char *name;
    const char *path;
    double scale;
};

/* --blend NAME=EXPRESSION */
struct conf_blend {
    const char *name;
    const char *text;
};

struct conf {
    struct arena *arena;

    /* What is served. */
    const char *model; /* a Hugging Face folder or a .gguf file; must be given */
    const char *name;  /* the base's name in the API; NULL: from the model's files */
    struct conf_adapter *adapters;
    size_t n_adapters, adapters_capacity;
    const char *adapters_dir;  /* scanned at start and at SIGHUP; also an adapter root; or NULL */
    bool adapters_watch;       /* tell changes in adapters_dir by inotify */
    uint32_t adapters_poll_ms; /* and by looking; 0: never */
    const char
        *adapter_roots[CONF_ROOTS_MAX]; /* folders from which the API may load; adapters_dir is added */
    size_t n_adapter_roots;
    struct conf_blend blends[CONF_BLENDS_MAX];
    size_t n_blends;
    struct auto_rule auto_rules[AUTO_RULES_MAX];
    size_t n_auto_rules;
    const char *always;      /* a voice (voice_expr.h) that is added to every one; NULL: none */
    uint32_t adapters_max;   /* names in the registry */
    uint64_t resident_bytes; /* for adapters in memory; conf_finish puts a quarter of memory for 0 */
    uint64_t merge_bytes;    /* for merged copies; the same */
    enum adapter_store store;
    enum base_policy base_policy;
    enum effect_mode effect;        /* of adapters that don't say themselves */
    uint32_t load_wait_ms;          /* for room, before a load is refused */
    uint32_t keep_last_good_ms;     /* how long a replaced version stays resident */
    uint32_t rollback_percent;      /* of a version's requests that fail before it is rolled back; 0: never */
    const char *tls_cert, *tls_key; /* PEM files, for listeners that are no unix sockets; NULL: plain HTTP */
    const char *tenants_file;       /* YAML; NULL: none */
    uint32_t served_rows;           /* lines of what was served, in the state file; 0: none */
    const char *state;              /* file of desired state; NULL: changes are forgotten at the end */

    /* Remote sources; NULL and 0: include/sources.h's defaults, and what the environment says. */
    const char *source_allow[CONF_ROOTS_MAX];
    size_t n_source_allow;
    const char *source_ca, *source_cache, *hf_endpoint, *s3_endpoint, *s3_region;
    uint64_t source_cache_bytes, source_bytes;
    uint32_t source_timeout_ms, source_stall_ms;

    /* Where: "HOST:PORT", "[IPv6]:PORT", ":PORT", "unix:PATH". Port 0: any free one, told in the log. */
    const char *listen[CONF_LISTEN_MAX];
    size_t n_listen; /* 0: 127.0.0.1:8080 */
    const char *admin_listen[CONF_LISTEN_MAX];
    size_t
        n_admin_listen;  /* 0: unix:$XDG_RUNTIME_DIR/lorikeet-PORT.sock if that folder exists; "off": none */
    bool metrics_public; /* GET /metrics on the data listener too (it shows all adapters' names) */
    const char *cors_origins[CONF_ROOTS_MAX]; /* pages of these may use the data listener; "*": of any */
    size_t n_cors_origins;
    struct proxies trusted_proxies; /* that may say who the client is */

    /* How it computes. */
    unsigned n_threads;     /* 0: one a core */
    const char *isa;        /* "auto", "scalar", "avx2", "avxvnni", "avx512", "neon" */
    const char *quant;      /* "auto", "f32", "bf16", "q8_0", "q4_0" */
    const char *pack_cache; /* a folder, "auto" or "off" */
    const char *kv_type;    /* "auto", "f32", "f16", "bf16", "int8" */
    const char *act;        /* activations that meet quantised weights: "auto", "int8", "f32" */
    uint32_t n_sequences, queue_limit, context, step_tokens,
        chunk_tokens;       /* struct engine_options; 0: its default */
    uint32_t wait_bound_ms; /* the same */
    uint64_t kv_bytes;
    const char *prefix_cache; /* "on", "off", "shared" by all callers */
    const char *speculate;    /* "auto", "off" */

    /* Limits. */
    size_t body_bytes_max;
    uint32_t connections_max;   /* per listener */
    uint32_t header_timeout_ms; /* first byte of a request to the end of its headers */
    uint32_t body_timeout_ms;   /* plus one second for each 64 KiB announced */
    uint32_t idle_timeout_ms;   /* between requests of a kept-alive connection */
    uint32_t write_timeout_ms;  /* without any progress of a reader that has data waiting */
    size_t output_bytes_soft;   /* a stream with more unread output counts as stalled */
    size_t output_bytes_hard;   /* a stream with more unread output is cut at once */
    uint32_t ping_interval_ms;  /* SSE comments while a stream has nothing to say */
    uint32_t drain_timeout_ms;  /* after SIGTERM */
    uint32_t n_max;             /* `n` of a request */
    uint32_t choices_max;       /* prompts * n of a request */
    size_t worker_text_bytes;   /* bodies longer than this are parsed and tokenised by a worker */
    uint32_t adapter_jobs_max;  /* adapter loads that may wait */

    bool log_json;
    enum log_level log_level;
};

/* Defaults for everything; false when memory is short. */
bool conf_init(struct conf *c);
void conf_fini(struct conf *c);

/* NAME=PATH[:SCALE] (a final ":" part counts as a scale only if it is a number); STATUS_INVALID says what is
 * wrong. `text` is copied. */
LK_MUST_USE enum status conf_add_adapter(struct conf *c, const char *text, struct error *err);
/* NAME=EXPRESSION, of which the form is checked here, the names when the server has its adapters. */
LK_MUST_USE enum status conf_add_blend(struct conf *c, const char *text, struct error *err);
/* A rule of the voice "auto" (auto.h). */
LK_MUST_USE enum status conf_add_auto(struct conf *c, const char *text, struct error *err);
LK_MUST_USE enum status conf_add_listen(struct conf *c, const char *address, struct error *err);
LK_MUST_USE enum status conf_add_admin_listen(struct conf *c, const char *address, struct error *err);
LK_MUST_USE enum status conf_add_source_allow(struct conf *c, const char *prefix, struct error *err);
LK_MUST_USE enum status conf_add_cors_origin(struct conf *c, const char *origin, struct error *err);
LK_MUST_USE enum status conf_add_adapter_root(struct conf *c, const char *folder, struct error *err);
struct source_options;
/* The options of sources, from the environment and from the configuration, which wins; borrows both. */
void conf_sources(const struct conf *c, struct source_options *o);

/* Checks that belong to no single option, and fills what follows from others. Call once, last. */
LK_MUST_USE enum status conf_finish(struct conf *c, struct error *err);

#endif
