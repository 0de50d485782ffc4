/* Where adapters come from besides local folders: https, S3-compatible storage, the layout of the Hugging
 * Face hub. A URL is resolved into a local cache, whole and checked, and the path of what lies there then
 * loads like any other adapter.
 *
 *   https://host/folder/            adapter_config.json and its weights     https://host/x.gguf   a file
 *   s3://bucket/prefix/             the same, by its objects                s3://bucket/x.gguf
 *   hf://org/name[@revision][/sub/folder]                                   hf://org/name[@revision]/x.gguf
 *   …#sha256=HEX                    the weights' digest, which must be this
 *
 * Nothing remote may be fetched unless the operator's allow-list names it. Plain blocking code for a worker:
 * no threads, no state between calls but the folder. Thread: any, any number at once; processes may share a
 * cache. */
#ifndef LK_SOURCES_H
#define LK_SOURCES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* What an operator chose. Strings are borrowed for as long as the options are used; NULL: none. */
struct source_options {
    /* URL prefixes: "https://models.example/adapters/", "https://" followed by "*.example/", "s3://bucket/",
     * "hf://org/". A host that is named in full may have a private address. */
    const char *const *allow;
    size_t n_allow;

    const char *cache_dir;    /* NULL: there is no place for a cache, and every fetch says so */
    uint64_t cache_bytes_max; /* of all that lies there; least recently used leaves first */
    uint64_t bytes_max;       /* of one adapter, all files */

    uint32_t timeout_ms; /* for a whole adapter, waits and retries included */
    uint32_t stall_ms;   /* without a byte; also for a connection to be made */
    uint32_t n_attempts; /* in a row without any progress */
    uint32_t backoff_ms; /* before the second attempt; doubles, with jitter */

    const char *ca_file; /* PEM; NULL: the system's */

    const char *hf_endpoint; /* https://huggingface.co */
    const char *hf_token;
    const char
        *s3_endpoint; /* NULL: Amazon's. May hold "{bucket}"; else the bucket is the path's first part */
    const char *s3_region;
    const char *s3_key_id, *s3_secret, *s3_session; /* no key: requests aren't signed */

    const atomic_bool *cancel; /* true: give up soon, with STATUS_CANCELLED */
    /* Called now and then with the bytes of the file at hand (total 0: not known). */
    void (*progress)(void *data, const char *file, uint64_t done, uint64_t total);
    void *data;

    char cache_default[400], token_default[256]; /* what some of the pointers above point to */
};

/* Once, from main, before any thread. False: libcurl can't start. */
bool sources_begin(void);
void sources_end(void);

/* Defaults, with what the environment says: CACHE_DIRECTORY, XDG_CACHE_HOME, AWS_ACCESS_KEY_ID,
 * AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION (AWS_DEFAULT_REGION), AWS_ENDPOINT_URL_S3
 * (AWS_ENDPOINT_URL), HF_ENDPOINT, HF_TOKEN (or the file HF_TOKEN_PATH, HF_HOME/token), SSL_CERT_FILE,
 * CURL_CA_BUNDLE. Points into the environment and into *o, which must not be moved. */
void source_options_init(struct source_options *o);

/* True for "scheme://…": such a source needs source_fetch. */
bool source_is_remote(const char *source);

/* The admin API's codes of what may go wrong here; static strings. */
#define SOURCE_INVALID "invalid_request"
#define SOURCE_NOT_ALLOWED "source_not_allowed"
#define SOURCE_UNREACHABLE "source_unreachable" /* no answer, a refusal, or nothing there */
#define SOURCE_TOO_LARGE "too_large"
#define SOURCE_SHA256 "sha256_differs"
#define SOURCE_FORMAT "format"
#define SOURCE_NO_ROOM "no_room"
#define SOURCE_INTERNAL "internal"

/* Whether a URL could be fetched: its form, its scheme, the allow-list. No network, no waiting.
 * *code (may be NULL) is set on failure. */
LK_MUST_USE enum status source_validate(const struct source_options *o, const char *url, const char **code,
                                        struct error *err);

/* Whether an entry of an allow-list can match anything: one of the four schemes, no user, no query, a '*'
 * only as the first part of a host. */
bool source_allow_is_valid(const char *entry);

/* The URL as it may be shown: without user, password, query and fragment. Anything that is no URL is copied.
 */
void source_show(const char *url, char *dst, size_t dst_bytes);

struct fetched {
    char path[512];      /* the folder or file, complete; for adapter_load with root_fd -1 */
    char revision[128];  /* the hub's commit, else the weights' entity tag; may be empty */
    char sha256[65];     /* of the weights (of the index, if they are in several files) */
    uint64_t bytes;      /* of all files */
    uint64_t downloaded; /* now, over the network; 0: the cache had it all */
    bool stale;          /* the source can't be reached; this is what it had before. `why` says what failed */
    char why[200];
    const char *code; /* on failure: one of the above */
    int lease;        /* keeps the entry from being removed; -1: none */
};

/* Brings a source into the cache, or finds that what is there is still right. Blocks for up to timeout_ms.
 * Owns: on success the entry stays where it is until fetched_release; never changes; is shared.
 * Returns STATUS_INVALID (form, allow-list), STATUS_NOT_FOUND, STATUS_TOO_LARGE,
 * STATUS_MISMATCH (digest), STATUS_UNAVAILABLE or STATUS_TIMEOUT (no answer), STATUS_FULL (cache),
 * STATUS_CANCELLED, STATUS_FORMAT, STATUS_IO; out->code says it in the API's words. Errors name the URL as
 * source_show does. */
LK_MUST_USE enum status source_fetch(const struct source_options *o, const char *url, struct fetched *out,
                                     struct error *err);
void fetched_release(struct fetched *f); /* fine on a failed one and on one with lease -1 */

/* Removes what killed downloads left behind and what exceeds the limit. For the start of a server. */
LK_MUST_USE enum status sources_sweep(const struct source_options *o, struct error *err);

#endif
