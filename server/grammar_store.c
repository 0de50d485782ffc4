/* Compiled grammars, the last used ones first, found by caller and content. Where room is short, only callers
 * go short that have more than an equal share of it: nobody can push out what another has within his.
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

/* A caller of whom something is kept. */
struct owner {
    struct owner *next;
    uint8_t key[KEY_BYTES];
    uint32_t n_kept;
    size_t n_bytes; /* of all that is kept, when it was counted last */
};

struct kept {
    struct kept *next;
    struct owner *owner;
    uint8_t key[KEY_BYTES];
    struct grammar *grammar;
    size_t n_bytes;
};

struct grammar_store {
    pthread_mutex_t lock;
    size_t limit_bytes;
    struct grammar_vocab *vocab; /* NULL: nobody has needed it */
    struct kept *first;          /* used last */
    struct owner *owners;
    uint32_t n_owners;
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

static void forget_owner(struct grammar_store *s, struct owner *o)
{
    struct owner **at = &s->owners;
    while (*at && *at != o)
        at = &(*at)->next;
    require(*at); /* a grammar's owner is in the list */
    *at = o->next;
    s->n_owners--;
    mem_free(o);
}

/* Takes it out of the list and lets it go. */
static void forget(struct grammar_store *s, struct kept *k)
{
    struct kept **at = &s->first;
    while (*at && *at != k)
        at = &(*at)->next;
    require(*at); /* only what is kept is forgotten */
    *at = k->next;
    if (--k->owner->n_kept == 0)
        forget_owner(s, k->owner);
    grammar_release(k->grammar);
    mem_free(k);
}

void grammar_store_destroy(struct grammar_store *s)
{
    if (!s)
        return;
    while (s->first)
        forget(s, s->first);
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

struct keys {
    uint8_t owner[KEY_BYTES], grammar[KEY_BYTES];
};

/* SHA-256 of the caller, and of that and the spec. */
static bool keys_of(const struct grammar_scope *scope, const struct grammar_spec *spec, struct keys *keys)
{
    gnutls_hash_hd_t hash;
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0)
        return false;
    bool fine = hash_text(hash, scope->caller, scope->caller ? strlen(scope->caller) : 0);
    gnutls_hash_output(hash, keys->owner); /* and it begins anew */
    fine = fine && gnutls_hash(hash, keys->owner, sizeof keys->owner) == 0 && hash_spec(hash, spec);
    gnutls_hash_deinit(hash, keys->grammar);
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

/* What is kept, in bytes. They grow while they are used, so all are asked. */
static size_t count(struct grammar_store *s)
{
    size_t n_bytes = 0;
    for (struct owner *o = s->owners; o; o = o->next)
        o->n_bytes = 0;
    for (struct kept *k = s->first; k; k = k->next) {
        k->n_bytes = grammar_bytes(k->grammar);
        k->owner->n_bytes += k->n_bytes;
        n_bytes += k->n_bytes;
    }
    return n_bytes;
}

/* Who goes next: of those whose caller has more than a share, what was used longest ago; something of the one
 * who asks now, if he has. He asks for the first in the list: that one goes only if nobody else can. */
static struct kept *next_to_go(struct grammar_store *s)
{
    size_t share = s->limit_bytes / s->n_owners;
    const struct owner *asking = s->first->owner;
    struct kept *found = s->first;
    for (struct kept *k = s->first->next; k; k = k->next)
        if (k->owner->n_bytes > share && (k->owner == asking || asking->n_bytes <= share))
            found = k;
    return found;
}

static void trim(struct grammar_store *s)
{
    size_t n_bytes = count(s);
    while (n_bytes > s->limit_bytes && s->first) {
        struct kept *k = next_to_go(s);
        n_bytes -= k->n_bytes;
        k->owner->n_bytes -= k->n_bytes;
        forget(s, k);
    }
}

static struct owner *owner_of(struct grammar_store *s, const uint8_t key[KEY_BYTES])
{
    struct owner *o = s->owners;
    while (o && memcmp(o->key, key, KEY_BYTES) != 0)
        o = o->next;
    if (o || !(o = mem_zalloc(sizeof *o)))
        return o;
    memcpy(o->key, key, KEY_BYTES);
    o->next = s->owners;
    s->owners = o;
    s->n_owners++;
    return o;
}

static void add(struct grammar_store *s, const struct keys *keys, struct grammar *g)
{
    struct kept *k = mem_alloc(sizeof *k);
    struct owner *o = k ? owner_of(s, keys->owner) : NULL;
    if (!o) {
        mem_free(k);
        return; /* it is used once, then */
    }
    o->n_kept++;
    k->owner = o;
    memcpy(k->key, keys->grammar, KEY_BYTES);
    k->grammar = grammar_acquire(g);
    k->next = s->first;
    s->first = k;
}

enum status grammar_store_get(const struct grammar_scope *scope, const struct grammar_spec *spec,
                              struct grammar **out, struct error *err)
{
    struct grammar_store *s = scope->store;
    struct keys keys;
    enum status st = STATUS_OK;
    *out = NULL;
    if (!s)
        return fail(err, STATUS_UNSUPPORTED, "grammars are not supported here");
    bool has_keys = keys_of(scope, spec, &keys);
    pthread_mutex_lock(&s->lock);
    if (!s->vocab)
        st = grammar_vocab_create(scope->tokenizer, scope->n_vocab, &s->vocab, err);
    if (st == STATUS_OK && has_keys)
        *out = find(s, keys.grammar);
    if (*out)
        trim(s);
    pthread_mutex_unlock(&s->lock);
    if (st != STATUS_OK || *out)
        return st;
    st = grammar_compile(s->vocab, spec, out, err);
    if (st != STATUS_OK || !has_keys)
        return st;
    pthread_mutex_lock(&s->lock);
    struct grammar *other = find(s, keys.grammar);
    if (other) {
        grammar_release(*out);
        *out = other;
    } else {
        add(s, &keys, *out);
        trim(s);
    }
    pthread_mutex_unlock(&s->lock);
    return STATUS_OK;
}
