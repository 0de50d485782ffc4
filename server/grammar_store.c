/* Compiled grammars, the last used ones first, found by caller and content.
 *
 * Owner: workers, under the store's lock. It is held to look through the list and while the vocabulary's tree
 * is made, which the others need as well; never while a grammar is compiled, so two workers may compile the
 * same one at once and the second finds that it was one too many. */
#include <gnutls/crypto.h>
#include <pthread.h>
#include <string.h>

#include "api_grammar.h"
#include "base/mem.h"

#define KEY_BYTES 32U

struct kept {
    struct kept *next;
    uint8_t key[KEY_BYTES];
    struct grammar *grammar;
};

struct grammar_store {
    pthread_mutex_t lock;
    size_t limit_bytes;
    struct grammar_vocab *vocab; /* NULL: nobody has needed it */
    struct kept *first;          /* used last */
};

struct grammar_store *grammar_store_create(size_t limit_bytes)
{
    struct grammar_store *s = mem_zalloc(sizeof *s);
    if (!s)
        return NULL;
    s->limit_bytes = limit_bytes;
    if (pthread_mutex_init(&s->lock, NULL) == 0)
        return s;
    mem_free(s);
    return NULL;
}

static void free_kept(struct kept *k)
{
    grammar_release(k->grammar);
    mem_free(k);
}

void grammar_store_destroy(struct grammar_store *s)
{
    if (!s)
        return;
    while (s->first) {
        struct kept *k = s->first;
        s->first = k->next;
        free_kept(k);
    }
    grammar_vocab_destroy(s->vocab);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

static bool hash_text(gnutls_hash_hd_t hash, const char *text, size_t length)
{
    uint64_t n = text ? length : UINT64_MAX;
    return gnutls_hash(hash, &n, sizeof n) == 0 && (!text || gnutls_hash(hash, text, length) == 0);
}

static bool hash_spec(gnutls_hash_hd_t hash, const struct grammar_spec *spec);

static bool hash_part(gnutls_hash_hd_t hash, const struct grammar_part *part)
{
    uint32_t kind = part->kind;
    return gnutls_hash(hash, &kind, sizeof kind) == 0 &&
           (part->kind == GRAMMAR_GROUP ? hash_spec(hash, part->text)
                                        : hash_text(hash, part->text, part->length));
}

/* All of the spec, each part with its length. */
static bool hash_spec(gnutls_hash_hd_t hash, const struct grammar_spec *spec)
{
    uint32_t counts[3] = {spec->n_alternatives, spec->n_min, spec->n_max};
    bool fine = hash_text(hash, spec->separator, spec->separator ? strlen(spec->separator) : 0) &&
                gnutls_hash(hash, counts, sizeof counts) == 0;
    for (uint32_t i = 0; i < spec->n_alternatives && fine; i++) {
        const struct grammar_sequence *q = &spec->alternatives[i];
        fine = gnutls_hash(hash, &q->n_parts, sizeof q->n_parts) == 0;
        for (uint32_t k = 0; k < q->n_parts && fine; k++)
            fine = hash_part(hash, &q->parts[k]);
    }
    return fine;
}

/* SHA-256 over the caller and the spec. */
static bool key_of(const struct grammar_scope *scope, const struct grammar_spec *spec, uint8_t key[KEY_BYTES])
{
    gnutls_hash_hd_t hash;
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0)
        return false;
    bool fine =
        hash_text(hash, scope->caller, scope->caller ? strlen(scope->caller) : 0) && hash_spec(hash, spec);
    gnutls_hash_deinit(hash, key);
    return fine;
}

/* The one of this key, now the first in the list. */
static struct grammar *find(struct grammar_store *s, const uint8_t key[KEY_BYTES])
{
    struct kept **at = &s->first;
    while (*at && memcmp((*at)->key, key, KEY_BYTES) != 0)
        at = &(*at)->next;
    struct kept *k = *at;
    if (!k)
        return NULL;
    *at = k->next;
    k->next = s->first;
    s->first = k;
    return grammar_acquire(k->grammar);
}

/* Lets those go that were used longest ago, above the limit; they grow while they are used, so all are
 * counted. */
static void trim(struct grammar_store *s)
{
    size_t n_bytes = 0;
    for (struct kept **at = &s->first; *at;) {
        struct kept *k = *at;
        n_bytes += grammar_bytes(k->grammar);
        if (n_bytes <= s->limit_bytes || k == s->first) {
            at = &k->next;
            continue;
        }
        *at = k->next;
        free_kept(k);
    }
}

static void add(struct grammar_store *s, const uint8_t key[KEY_BYTES], struct grammar *g)
{
    struct kept *k = mem_alloc(sizeof *k);
    if (!k)
        return; /* it is used once, then */
    memcpy(k->key, key, KEY_BYTES);
    k->grammar = grammar_acquire(g);
    k->next = s->first;
    s->first = k;
    trim(s);
}

enum status grammar_store_get(const struct grammar_scope *scope, const struct grammar_spec *spec,
                              struct grammar **out, struct error *err)
{
    struct grammar_store *s = scope->store;
    uint8_t key[KEY_BYTES];
    enum status st = STATUS_OK;
    *out = NULL;
    if (!s)
        return fail(err, STATUS_UNSUPPORTED, "grammars are not supported here");
    bool has_key = key_of(scope, spec, key);
    pthread_mutex_lock(&s->lock);
    if (!s->vocab)
        st = grammar_vocab_create(scope->tokenizer, scope->n_vocab, &s->vocab, err);
    if (st == STATUS_OK && has_key)
        *out = find(s, key);
    pthread_mutex_unlock(&s->lock);
    if (st != STATUS_OK || *out)
        return st;
    st = grammar_compile(s->vocab, spec, out, err);
    if (st != STATUS_OK || !has_key)
        return st;
    pthread_mutex_lock(&s->lock);
    struct grammar *other = find(s, key);
    if (other) {
        grammar_release(*out);
        *out = other;
    } else {
        add(s, key, *out);
    }
    pthread_mutex_unlock(&s->lock);
    return STATUS_OK;
}
