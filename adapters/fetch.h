/* Inner wall of the sources: a URL understood, its transfer, the cache. */
#ifndef LK_ADAPTERS_FETCH_H
#define LK_ADAPTERS_FETCH_H

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "sources.h"

#define FETCH_URL_MAX 2048U
#define FETCH_NAME_MAX 200U /* of one file */
#define FETCH_TAG_MAX 200U  /* of an entity tag */
#define FETCH_REDIRECTS_MAX 5

struct json_t;

/* ---- fetch_url.c: URLs, and who may be asked */

/* A URL in parts. Hosts are lower case, IPv6 ones keep their brackets. */
struct url_parts {
    char scheme[12], host[256], user[256], password[256];
    char path[FETCH_URL_MAX], query[FETCH_URL_MAX], fragment[128];
    uint16_t port; /* 0: none is given and the scheme has no default */
};
LK_MUST_USE enum status url_split(const char *url, struct url_parts *out, struct error *err);
/* scheme://host[:port], as an origin is written. */
void url_origin(const struct url_parts *u, char *dst, size_t dst_bytes);
/* Whether an entry of an allow-list covers the URL; *named: its host is written out, not "*.domain". */
bool url_matches(const char *entry, const struct url_parts *u, bool *named);

/* A source, understood. */
struct remote {
    const struct source_options *options;
    char shown[FETCH_URL_MAX];  /* for messages */
    char origin[300];           /* credentials go there and nowhere else */
    char folder[FETCH_URL_MAX]; /* http URL up to the last '/', with {revision} in it for the hub */
    char query[FETCH_URL_MAX];  /* "?…" behind each file's name, or "" */
    char file[FETCH_NAME_MAX];  /* "" for a folder */
    char revision[128];         /* asked of the hub; "" elsewhere */
    char sha256[65];            /* expected of the weights, or "" */
    char user[256], password[256];
    char region[64]; /* S3 */
    char id[33];     /* the cache's key for it */
    bool is_s3, is_hub;
    bool origin_named; /* the operator wrote the host: it may have a private address */
    bool signs;        /* S3 with a key */
};
LK_MUST_USE enum status remote_parse(const struct source_options *o, const char *url, struct remote *out,
                                     const char **code, struct error *err);
/* Whether a transfer for `r` may go to this URL (its own, or where it is redirected); *named as above. */
bool remote_may_ask(const struct remote *r, const struct url_parts *u, bool *named);

/* ---- fetch_http.c: one GET, redirects followed */

struct exchange {
    const struct remote *remote;
    void *curl; /* shared by the files of a fetch, so that they share a connection */
    int64_t deadline_ns;
    const char *shown_file;
    uint64_t limit_bytes;
    bool limit_is_own; /* the format's, not the operator's */

    char if_none_match[FETCH_TAG_MAX]; /* or "" */
    char have_sha256[65];              /* of the file that the cache has; a redirect that names it is a 304 */
    uint64_t offset;                   /* bytes of the file that are here already */
    char if_range[FETCH_TAG_MAX];      /* needed where offset > 0 */

    int fd; /* the body's, written at offset */
    gnutls_hash_hd_t hash;
    /* A whole body begins (not the rest of one), with this tag. */
    void (*started)(void *data, const char *etag);
    /* Called before more than `reserved` bytes lie in the file. */
    enum status (*reserve)(void *data, uint64_t bytes, struct error *err);
    void *data;
    uint64_t reserved;

    /* what came of it */
    long status;       /* 0: no answer */
    bool transient;    /* trying again may help */
    int64_t wait_ms;   /* Retry-After; 0: none */
    uint64_t received; /* of the body, in this exchange */
    uint64_t total;    /* the whole file's bytes as announced; 0: not known */
    char etag[FETCH_TAG_MAX];
    char commit[65];     /* X-Repo-Commit */
    char sha256[65];     /* the server's own: X-Linked-ETag, X-Amz-Checksum-Sha256 */
    char complaint[160]; /* of an S3 or hub error */
    bool framed;         /* the end of the body can be told from a cut */
};

/* *curl for any number of exchanges, one at a time. */
void *exchange_open(void);
void exchange_close(void *curl);
/* STATUS_OK: an answer is here, whatever its status, and the body is whole if it is 200 or 206. Else err, and
 * `transient`. x->offset moves with what was written. */
LK_MUST_USE enum status exchange_run(struct exchange *x, const char *url, const char **code,
                                     struct error *err);
bool address_is_allowed(const void *sockaddr, bool named); /* struct sockaddr */

/* ---- fetch_cache.c: DIR/entries/KEY (whole, immutable), DIR/partial/ID (being made), DIR/urls/ID.json */

struct cache {
    char path[400];
    int dir_fd, entries_fd, partial_fd, urls_fd;
    uint64_t limit_bytes;
};
LK_MUST_USE enum status cache_open(const struct source_options *o, struct cache *c, struct error *err);
void cache_close(struct cache *c);

/* What is known of a URL: {"entry", "revision", "files": [{"name", "etag", "sha256", "bytes"}]}, or NULL. */
struct json_t *cache_find(const struct cache *c, const char *id);
LK_MUST_USE enum status cache_record(const struct cache *c, const char *id, const struct json_t *record,
                                     struct error *err);
/* Opens the entry, marks it used and holds it: -1 if it isn't there, or isn't what the record says. */
int cache_lease(const struct cache *c, const struct json_t *record);

/* A folder to download into: this URL's, which nobody else is writing to. Waits for whoever is. */
LK_MUST_USE enum status cache_begin(const struct cache *c, const struct remote *r, int64_t deadline_ns,
                                    int *fd, struct error *err);
/* Makes room for a partial folder that grows to `bytes`. */
LK_MUST_USE enum status cache_reserve(const struct cache *c, const char *id, uint64_t bytes,
                                      struct error *err);
/* Turns the partial folder into the record's entry; *fd becomes its lease. */
LK_MUST_USE enum status cache_publish(const struct cache *c, const char *id, const struct json_t *record,
                                      int *fd, struct error *err);
/* Removes the partial folder and closes *fd. */
void cache_abandon(const struct cache *c, const char *id, int *fd);
LK_MUST_USE enum status cache_sweep(const struct cache *c, struct error *err);

/* ---- fetch_file.c: one file, with retries, resumption and checks */

struct fetch_file {
    char name[FETCH_NAME_MAX]; /* in the cache */
    char etag[FETCH_TAG_MAX];
    char sha256[65];
    uint64_t bytes;
};

struct fetch {
    const struct remote *remote;
    struct cache cache;
    void *curl;
    int64_t deadline_ns;
    int partial_fd;
    struct json_t *record; /* what the cache had of this source, or NULL */
    int lease;             /* its entry, or -1 */
    char commit[65];       /* the hub's, from the first file on */
    uint64_t bytes, downloaded;
    struct fetch_file *files;
    size_t n_files, capacity;
    long status;     /* the last answer's */
    bool is_refusal; /* the last failure was the server's own word (4xx): what the cache has won't do instead
                      */
    const char *code;
};

struct wanted {
    const char *remote_name; /* behind remote->folder */
    const char *name;        /* in the cache */
    const char *sha256;      /* expected, or "" */
    uint64_t limit_bytes;    /* of its format; 0: the operator's alone */
    bool optional; /* a 401 or 403 means no more than a 404: storage says it where nothing may be listed */
};

/* Brings one file into the partial folder and adds it to f->files. *found false: it isn't there, and
 * STATUS_OK. */
LK_MUST_USE enum status fetch_one(struct fetch *f, const struct wanted *w, bool *found, struct error *err);
/* Waits, but not past the deadline or a cancellation. False: one of these came. */
bool fetch_sleep(const struct source_options *o, int64_t ms, int64_t deadline_ns);

LK_MUST_USE enum status sha256_of(const void *bytes, size_t n, char hex[65], struct error *err);
void sha256_hex(const uint8_t digest[32], char hex[65]);

#endif
