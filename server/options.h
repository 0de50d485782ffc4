/* The options of `lorikeet serve`, one row each: the command line (--key VALUE), the configuration file (key:
 * VALUE),
 * --help and the manual page all come from this list. Values are texts, parsed by kind:
 *
 *   TEXT     any                                 CHOICE   one of `words`, separated by '|'
 *   COUNT    a whole number from min to max      BYTES    a number with an optional unit: 512, 64KiB,
 * 2GiB, 1.5GB DURATION 500ms, 30s, 5m (a unit is needed)   BOOL     true or false (on the command line the
 * value may be left out) LIST     may be given several times, or as a list in the file
 *
 * X(kind, key, member, min, max, words, "VALUE", "help") */
#ifndef LK_OPTIONS_H
#define LK_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

struct conf;

#define COUNT_MAX 4294967295.0
#define BYTES_MAX 1e15
#define OPTION_LIST(X)                                                                                       \
    X(TEXT, "model", model, 0, 0, NULL, "PATH",                                                              \
      "base model: a Hugging Face folder or a .gguf file (needed)")                                          \
    X(TEXT, "name", name, 0, 0, NULL, "NAME",                                                                \
      "the base's name in the API (default: from the model's files)")                                        \
    X(LIST, "adapter", adapter, 0, 0, NULL, "NAME=PATH[:SCALE]", "an adapter: a PEFT folder or a GGUF LoRA") \
    X(TEXT, "adapters", adapters_dir, 0, 0, NULL, "DIR",                                                     \
      "every adapter in this folder, by its entry's name; watched, and scanned at SIGHUP")                   \
    X(BOOL, "adapters-watch", adapters_watch, 0, 0, NULL, "BOOL",                                            \
      "load what changes in that folder, once it is whole, without a signal (true)")                         \
    X(DURATION, "adapters-poll", adapters_poll_ms, 0, 86400000, NULL, "TIME",                                \
      "look at that folder even if inotify says nothing: network file systems (1m; 0s: never)")              \
    X(LIST, "adapter-root", adapter_root, 0, 0, NULL, "DIR",                                                 \
      "a folder from which the admin API may load (the adapters folder is one)")                             \
    X(LIST, "blend", blend, 0, 0, NULL, "NAME=VOICE", "a name for a sum of adapters: formal=pt+0.5*polite")  \
    X(LIST, "auto", auto_rule, 0, 0, NULL, "WHEN=VOICE",                                                     \
      "the voice of requests for \"auto\": pt=pt, header:X-Team:a=VOICE, user:NAME=, percent:N=, "           \
      "default=none")                                                                                        \
    X(TEXT, "always", always, 0, 0, NULL, "VOICE",                                                           \
      "adapters added to every voice, which callers can't take off: 0.5*safety")                             \
    X(LIST, "source-allow", source_allow, 0, 0, NULL, "PREFIX",                                              \
      "remote sources that may be fetched: https://HOST/, s3://BUCKET/, hf://ORG/ (none)")                   \
    X(TEXT, "source-ca", source_ca, 0, 0, NULL, "FILE",                                                      \
      "certificates that remote sources are checked with, PEM (the system's)")                               \
    X(TEXT, "source-cache", source_cache, 0, 0, NULL, "DIR",                                                 \
      "where fetched adapters are kept ($CACHE_DIRECTORY/sources or $XDG_CACHE_HOME/lorikeet)")              \
    X(BYTES, "source-cache-limit", source_cache_bytes, 1, BYTES_MAX, NULL, "BYTES",                          \
      "bytes of that folder; least recently used leaves first (20GiB)")                                      \
    X(BYTES, "source-limit", source_bytes, 1, BYTES_MAX, NULL, "BYTES", "largest fetched adapter (8GiB)")    \
    X(DURATION, "source-timeout", source_timeout_ms, 10, 86400000, NULL, "TIME",                             \
      "for a whole adapter, retries included (30m)")                                                         \
    X(DURATION, "source-stall-timeout", source_stall_ms, 10, 3600000, NULL, "TIME",                          \
      "without a byte, or without a connection (30s)")                                                       \
    X(TEXT, "hf-endpoint", hf_endpoint, 0, 0, NULL, "URL",                                                   \
      "where hf:// is ($HF_ENDPOINT or https://huggingface.co)")                                             \
    X(TEXT, "s3-endpoint", s3_endpoint, 0, 0, NULL, "URL",                                                   \
      "where s3:// is, {bucket} may stand in it ($AWS_ENDPOINT_URL or Amazon's)")                            \
    X(TEXT, "s3-region", s3_region, 0, 0, NULL, "NAME", "region of s3:// ($AWS_REGION or us-east-1)")        \
    X(COUNT, "adapters-max", adapters_max, 1, 100000, NULL, "N",                                             \
      "names of adapters that may be registered (16384)")                                                    \
    X(TEXT, "state", state, 0, 0, NULL, "FILE",                                                              \
      "keeps loaded adapters across restarts, or off ($STATE_DIRECTORY/adapters.db)")                        \
    X(BYTES, "resident-memory", resident_bytes, 0, BYTES_MAX, NULL, "BYTES",                                 \
      "memory for adapters; the least recently used leaves first (0: a quarter of the machine's)")           \
    X(BYTES, "merge-memory", merge_bytes, 0, BYTES_MAX, NULL, "BYTES",                                       \
      "memory for merged copies (0: a quarter of the machine's)")                                            \
    X(DURATION, "load-wait", load_wait_ms, 0, 3600000, NULL, "TIME",                                         \
      "how long a load waits for room in resident-memory before it is refused (10s)")                        \
    X(CHOICE, "effect-test", effect, 0, 0, "off|warn|enforce", "MODE",                                       \
      "adapters that change nothing, or give no numbers: let in, warned of, refused (enforce)")              \
    X(CHOICE, "adapter-store", store, 0, 0, "file|auto|bf16|int8", "TYPE",                                   \
      "how adapters are kept in memory; auto: int8 where the base computes so, else f32 as bf16 (auto)")     \
    X(CHOICE, "base-match", base_policy, 0, 0, "shapes|any|name|proven|exact", "POLICY",                     \
      "what must be known of the base that an adapter was trained on (shapes)")                              \
    X(DURATION, "keep-last-good", keep_last_good_ms, 0, 86400000, NULL, "TIME",                              \
      "a replaced version stays in memory for a rollback (10m)")                                             \
    X(TEXT, "tls-cert", tls_cert, 0, 0, NULL, "FILE",                                                        \
      "certificate of all listeners but unix sockets, PEM, with its chain; read again at SIGHUP")            \
    X(TEXT, "tls-key", tls_key, 0, 0, NULL, "FILE", "its key, PEM")                                          \
    X(TEXT, "tenants", tenants_file, 0, 0, NULL, "FILE",                                                     \
      "tenants and hashes of their keys, YAML, read again at SIGHUP; requests then need a key")              \
    X(COUNT, "served-log", served_rows, 0, 1e9, NULL, "N",                                                   \
      "keep which version served which request, the last N of them, in the state file (0: none)")            \
    X(COUNT, "auto-rollback", rollback_percent, 0, 100, NULL, "PERCENT",                                     \
      "failing requests of a new version that bring the one before back; 0: never (20)")                     \
    X(LIST, "listen", listen, 0, 0, NULL, "ADDRESS",                                                         \
      "HOST:PORT, [IPv6]:PORT or unix:PATH for clients (127.0.0.1:8080)")                                    \
    X(LIST, "admin-listen", admin_listen, 0, 0, NULL, "ADDRESS",                                             \
      "the same for operators, or off (unix:$XDG_RUNTIME_DIR/lorikeet-PORT.sock)")                           \
    X(BOOL, "metrics-public", metrics_public, 0, 0, NULL, "BOOL",                                            \
      "show /metrics to clients too; it names all adapters (true)")                                          \
    X(LIST, "cors-origin", cors_origin, 0, 0, NULL, "ORIGIN",                                                \
      "pages of this origin may ask, from a browser; *: of any (none)")                                      \
    X(LIST, "trusted-proxy", trusted_proxy, 0, 0, NULL, "NETWORK",                                           \
      "peers whose X-Forwarded-For or Forwarded says who asks: 10.0.0.0/8, fd00::/8, unix (none)")           \
    X(COUNT, "threads", n_threads, 0, 256, NULL, "N",                                                        \
      "compute threads (0: one a core, fewer while others use the machine)")                                 \
    X(CHOICE, "isa", isa, 0, 0, "auto|scalar|avx2|avxvnni|avx512|neon", "NAME",                              \
      "instruction set of the kernels (auto)")                                                               \
    X(CHOICE, "quant", quant, 0, 0, "auto|f32|bf16|q8_0|q4_0", "TYPE",                                       \
      "type of the weights in memory (auto: as in the file)")                                                \
    X(TEXT, "pack-cache", pack_cache, 0, 0, NULL, "DIR",                                                     \
      "where packed weights are kept for the next start: auto (beside the model, or a cache folder), off")   \
    X(CHOICE, "kv-type", kv_type, 0, 0, "auto|f32|f16|bf16|int8", "TYPE",                                    \
      "type of the KV cache (auto: f32 on an f32 base)")                                                     \
    X(CHOICE, "activations", act, 0, 0, "auto|int8|f32", "TYPE",                                             \
      "what meets quantised weights (auto: int8 from a hidden size of 512, else f32)")                       \
    X(COUNT, "sequences", n_sequences, 0, 4096, NULL, "N", "sequences that run at once (0: 64)")             \
    X(COUNT, "queue", queue_limit, 0, 1000000, NULL, "N", "requests that may wait (0: 1024)")                \
    X(DURATION, "wait-bound", wait_bound_ms, 100, 3600000, NULL, "TIME",                                     \
      "of each voice of a tenant that waits something is started after so long (30s)")                       \
    X(COUNT, "context", context, 0, 16777216, NULL, "N",                                                     \
      "tokens of a sequence, prompt included (0: the model's)")                                              \
    X(BYTES, "kv-memory", kv_bytes, 0, BYTES_MAX, NULL, "BYTES", "memory for the KV cache (0: chosen)")      \
    X(CHOICE, "prefix-cache", prefix_cache, 0, 0, "on|off|shared", "MODE",                                   \
      "KV memory of equal beginnings is used again, by the same caller or all (on)")                         \
    X(CHOICE, "speculate", speculate, 0, 0, "auto|off", "MODE",                                              \
      "guess tokens by what was said before, where that is faster; output is the same (auto)")               \
    X(COUNT, "step-tokens", step_tokens, 0, 65536, NULL, "N", "token budget of a step (0: 64 of prompts)")   \
    X(COUNT, "chunk-tokens", chunk_tokens, 0, 65536, NULL, "N",                                              \
      "longest chunk of one prompt in a step (0: the step's budget)")                                        \
    X(BYTES, "body-limit", body_bytes_max, 1024, 1e9, NULL, "BYTES", "largest request body (4MiB)")          \
    X(COUNT, "connections", connections_max, 1, 65536, NULL, "N", "connections of a listener (4096)")        \
    X(DURATION, "header-timeout", header_timeout_ms, 10, 3600000, NULL, "TIME",                              \
      "for a request's headers (10s)")                                                                       \
    X(DURATION, "body-timeout", body_timeout_ms, 10, 3600000, NULL, "TIME",                                  \
      "for a request's body, and one second more for each 64 KiB (30s)")                                     \
    X(DURATION, "idle-timeout", idle_timeout_ms, 10, 86400000, NULL, "TIME",                                 \
      "between two requests of a connection (120s)")                                                         \
    X(DURATION, "write-timeout", write_timeout_ms, 10, 3600000, NULL, "TIME",                                \
      "for a client that has stopped reading (30s)")                                                         \
    X(DURATION, "ping-interval", ping_interval_ms, 10, 3600000, NULL, "TIME",                                \
      "SSE comments while a stream has nothing to say (12s)")                                                \
    X(DURATION, "drain-timeout", drain_timeout_ms, 0, 86400000, NULL, "TIME",                                \
      "for running requests after SIGTERM (30s)")                                                            \
    X(COUNT, "n-max", n_max, 1, 1024, NULL, "N", "largest `n` of a request (16)")                            \
    X(CHOICE, "log-format", log_json, 0, 0, "text|json", "FORMAT",                                           \
      "log lines for people or machines (text)")                                                             \
    X(CHOICE, "log-level", log_level, 0, 0, "debug|info|warn|error", "LEVEL",                                \
      "least level that is written (info)")

/* Sets one option from a text. Errors name the option, what was found and what was expected. */
LK_MUST_USE enum status option_set(struct conf *c, const char *key, const char *value, struct error *err);
/* Forgets what a LIST option has so far: a later source replaces an earlier one's list. `adapter` keeps its
 * rows. */
void option_reset_list(struct conf *c, const char *key);
bool option_exists(const char *key);
bool option_is_bool(const char *key);
void options_print_help(FILE *to);

/* The configuration file into c: STATUS_FORMAT etc. with "FILE:LINE: …". */
LK_MUST_USE enum status conf_read_yaml(struct conf *c, const char *path, struct error *err);

/* argv of serve or check-config into c: --config FILE first, then the flags, which win. *help is set by
 * --help. */
LK_MUST_USE enum status conf_read_args(struct conf *c, int argc, char **argv, bool *help, struct error *err);

#endif
