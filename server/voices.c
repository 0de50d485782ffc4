/* Who shall speak. Names are looked up once, when a request is admitted; from then on it holds versions and
 * no name matters any more. An unknown name is never answered by the base.
 *
 * What the server always adds (--always) is a member of its own behind those that were asked for. A caller
 * can't take it off: a request that names such an adapter, or the same content under another name, with a
 * weight of the other sign is refused, and no request is answered while the adapter isn't there. */
#include "voices.h"

#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#include "adapter_ops.h"
#include "base/clock.h"
#include "base/mem.h"
#include "blends.h"
#include "registry.h"
#include "server.h"
#include "tenant_gate.h"
#include "voice_numbers.h"
#include "voice_tenant.h"

#define BLEND_DEPTH_MAX 4U

struct voices {
    struct blends *blends;
    struct voice_numbers numbers;
    struct voice_expr nameless; /* the voice of requests that name none */
};

struct voices *voices_create(void)
{
    struct voices *v = mem_zalloc(sizeof *v);
    if (v && !(v->blends = blends_create())) {
        mem_free(v);
        return NULL;
    }
    return v;
}

void voices_destroy(struct voices *v)
{
    if (!v)
        return;
    blends_destroy(v->blends);
    voice_numbers_fini(&v->numbers);
    mem_free(v);
}

/* ---- faults ---- */

static enum status no_memory(struct fault *f)
{
    return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
}

/* An error of a lower room as a request's fault. */
static enum status as_fault(struct fault *f, const struct error *err, const char *param)
{
    enum status s = fault_set(f, err->status, param, "%s", err->text);
    if (s == STATUS_NOT_FOUND)
        snprintf(f->code, sizeof f->code, "model_not_found");
    return s;
}

/* ---- blends: names for sums ---- */

static const char *blend_of(const struct adapter *a)
{
    return a->wish.blend ? a->wish.blend : "";
}

/* Adds a term, or what it stands for. *deeper: it was a blend, which may name others. */
static enum status add_expanded(const struct server *s, const struct voice_term *t, struct voice_expr *out,
                                bool *deeper, struct error *err)
{
    const struct adapter *a = registry_find(s->registry, t->name);
    if (!a)
        return fail(err, STATUS_NOT_FOUND,
                    "The model \"%.100s\" does not exist; GET /v1/models lists the voices", t->name);
    struct voice_expr sum = {.n = 1, .terms = {*t}};
    if (!blend_of(a)[0])
        return voice_expr_add_all(out, &sum, 1, err);
    if (t->pin[0])
        return fail(err, STATUS_INVALID, "\"%s@%s\": %s is a blend, it has no versions of its own", t->name,
                    t->pin, t->name);
    enum status st = voice_expr_parse(blend_of(a), s->base.name, &sum, err);
    if (st == STATUS_OK)
        st = voice_expr_add_all(out, &sum, t->weight, err);
    *deeper = true;
    return st == STATUS_OK ? st : fail_within(err, "the blend \"%s\"", t->name);
}

/* Blends in `e` become what they stand for; every name in it exists. A blend of blends needs a round for each
 * level; a circle would need rounds for ever. self: a name that must not come up, or NULL. */
static enum status expand(const struct server *s, struct voice_expr *e, unsigned n_rounds, const char *self,
                          struct error *err)
{
    bool deeper = true;
    for (unsigned round = 0; deeper; round++) {
        struct voice_expr out = {0};
        enum status st = STATUS_OK;
        deeper = false;
        for (uint32_t i = 0; i < e->n && st == STATUS_OK; i++) {
            if (self && strcmp(e->terms[i].name, self) == 0)
                return fail(err, STATUS_INVALID, "the blend \"%s\" would name itself", self);
            st = add_expanded(s, &e->terms[i], &out, &deeper, err);
        }
        if (st != STATUS_OK)
            return round == 0 ? st : fail_within(err, "a part of a blend");
        if (deeper && round == n_rounds)
            return fail(err, STATUS_INVALID,
                        "blends name each other in a circle, or more than %u levels deep", BLEND_DEPTH_MAX);
        *e = out;
    }
    return STATUS_OK;
}

enum status voice_blend_check(const struct server *s, const char *name, const char *text, struct error *err)
{
    struct voice_expr e;
    enum status st = voice_expr_parse(text, s->base.name, &e, err);
    if (st == STATUS_OK && e.n == 0)
        st = fail(err, STATUS_INVALID, "it names no adapter");
    if (st == STATUS_OK)
        st = expand(s, &e, BLEND_DEPTH_MAX - 1, name, err);
    if (st == STATUS_OK)
        st = voice_expr_finish(&e, LORA_MEMBERS_MAX, err);
    return st == STATUS_OK ? st : fail_within(err, "blend \"%.80s\"", name);
}

/* ---- the start ---- */

static enum status register_blends(struct server *s, struct error *err)
{
    enum status st = STATUS_OK;
    for (size_t i = 0; i < s->conf->n_blends && st == STATUS_OK; i++) {
        const struct conf_blend *b = &s->conf->blends[i];
        const struct adapter *taken = registry_find(s->registry, b->name);
        if (voice_is_base(b->name, s->base.name) || (taken && taken->wish.from_folder))
            return fail(err, STATUS_EXISTS, "--blend %s: that is %s's name", b->name,
                        taken ? "an adapter" : "the base");
        if (taken && strcmp(blend_of(taken), b->text) != 0) { /* --adapter's names were compared before */
            LOG_EVENT(&s->log, LOG_WARN, "--blend is overruled by what an operator has put in its place",
                      LOG_TEXT("blend", b->name));
            continue;
        }
        struct adapter_wish wish = {.name = b->name, .source = "", .blend = b->text, .scale = 1};
        st = registry_register(s->registry, &wish, NULL, err);
    }
    for (size_t i = 0; i < s->conf->n_blends && st == STATUS_OK; i++)
        st = voice_blend_check(s, s->conf->blends[i].name, s->conf->blends[i].text, err);
    return st;
}

/* What the server adds to every voice, and `more` (or NULL) to a tenant's, in single adapters. */
static enum status read_always(const struct server *s, const char *more, struct voice_expr *out,
                               struct error *err)
{
    struct voice_expr sum;
    enum status st = voice_expr_parse(s->conf->always, s->base.name, out, err);
    if (st == STATUS_OK)
        st = voice_expr_parse(more, s->base.name, &sum, err);
    if (st == STATUS_OK)
        st = voice_expr_add_all(out, &sum, 1, err);
    if (st == STATUS_OK)
        st = expand(s, out, BLEND_DEPTH_MAX, NULL, err);
    if (st == STATUS_OK)
        st = voice_expr_finish(out, LORA_MEMBERS_MAX - 1, err);
    return st;
}

enum status voices_start(struct server *s, struct error *err)
{
    const char **first = mem_array(s->conf->n_adapters + 1, sizeof *first);
    struct voice_expr always;
    if (!first)
        return fail(err, STATUS_NO_MEMORY, "no memory for the numbers of adapters");
    for (size_t i = 0; i < s->conf->n_adapters; i++)
        first[i] = s->conf->adapters[i].name;
    enum status st = register_blends(s, err);
    if (st == STATUS_OK) {
        st = read_always(s, NULL, &always, err);
        if (st == STATUS_OK && s->conf->always && always.n == 0)
            st = fail(err, STATUS_INVALID, "\"%s\" names no adapter", s->conf->always);
        if (st != STATUS_OK)
            fail_within(err, "--always");
    }
    if (st == STATUS_OK)
        voice_numbers_update(&s->voices->numbers, s->registry, first, s->conf->n_adapters);
    mem_free(first);
    return st;
}

/* ---- numbers ---- */

static const struct voice_term *term_of(const struct voice_expr *e, const char *name)
{
    for (uint32_t i = 0; i < e->n; i++)
        if (strcmp(e->terms[i].name, name) == 0)
            return &e->terms[i];
    return NULL;
}

bool voice_number_at(struct server *s, size_t index, struct voice_number *out)
{
    if (index == 0)
        voice_numbers_update(&s->voices->numbers, s->registry, NULL, 0);
    const struct numbered *n = voice_numbers_at(&s->voices->numbers, index);
    if (!n)
        return false;
    const struct voice_term *t = term_of(&s->voices->nameless, n->name);
    *out = (struct voice_number){.id = n->id, .name = n->name, .scale = t ? voice_weight(t->weight) : 0};
    return true;
}

/* Numbers of others end as those that nobody has, and no word of how many there are. */
static enum status check_numbers(const struct request *r, const struct voice_words *w, struct fault *f)
{
    struct voice_numbers *numbers = &r->server->voices->numbers;
    if (!r->caller || w->n_lora == 0)
        return STATUS_OK;
    voice_numbers_update(numbers, r->server->registry, NULL, 0);
    for (uint32_t i = 0; i < w->n_lora; i++) {
        const char *name = voice_numbers_name(numbers, w->lora[i].id);
        bool may = gate_may_use(r, name ? name : "?");
        if (!name || !may)
            return fault_set(
                f, STATUS_INVALID, "lora",
                "lora: there is no adapter with id %lld; GET /lora-adapters lists those that are",
                (long long)w->lora[i].id);
    }
    return STATUS_OK;
}

static enum status add_numbered(struct server *s, const struct voice_words *w, const char *param,
                                struct voice_expr *out, struct fault *f)
{
    struct voice_numbers *numbers = &s->voices->numbers;
    enum status st = STATUS_OK;
    if (w->n_lora == 0)
        return st; /* the numbers of thousands of names are brought up to date for those who use them */
    voice_numbers_update(numbers, s->registry, NULL, 0);
    for (uint32_t i = 0; i < w->n_lora && st == STATUS_OK; i++) {
        const char *name = voice_numbers_name(numbers, w->lora[i].id);
        const struct numbered *last = numbers->n ? voice_numbers_at(numbers, numbers->n - 1) : NULL;
        struct error err;
        if (!name && !last)
            return fault_set(f, STATUS_INVALID, param, "%s: there is no adapter with id %lld, nor any other",
                             param, (long long)w->lora[i].id);
        if (!name)
            return fault_set(
                f, STATUS_INVALID, param,
                "%s: there is no adapter with id %lld; GET /lora-adapters lists those from %u to %u", param,
                (long long)w->lora[i].id, voice_numbers_at(numbers, 0)->id, last->id);
        if (voice_weight(w->lora[i].scale) == 0)
            continue;
        st = voice_expr_add(out, name, strlen(name), w->lora[i].scale, s->base.name, &err);
        if (st != STATUS_OK)
            return as_fault(f, &err, param);
    }
    return st;
}

/* ---- which words hold ---- */

static enum status read_text_voice(const struct server *s, const char *text, const char *where,
                                   struct voice_expr *out, struct fault *f)
{
    struct error err;
    enum status st = voice_expr_parse(text, s->base.name, out, &err);
    if (st == STATUS_NOT_FOUND)
        return voice_unknown(f, text);
    return st == STATUS_OK ? st : fault_set(f, st, where, "%s: %s", where, err.text);
}

static enum status read_named_voice(const struct server *s, const struct voice_words *w,
                                    struct voice_expr *out, struct fault *f)
{
    for (uint32_t i = 0; i < w->n_adapters; i++) {
        const struct voice_named *v = &w->adapters[i];
        struct error err;
        enum status st = voice_expr_add(out, v->name, strlen(v->name), v->scale, s->base.name, &err);
        if (st == STATUS_NOT_FOUND)
            return voice_unknown(f, v->name);
        if (st != STATUS_OK)
            return fault_set(f, st, "adapters", "adapters[%u]: %s", i, err.text);
    }
    return STATUS_OK;
}

/* What one place of the request says. */
struct source {
    const char *where;
    bool given;  /* something is said */
    bool spoken; /* and it is more than the base's name in a place where a client may have to put one */
    struct voice_expr expr;
};
enum { BY_MODEL, BY_HEADER, BY_ADAPTERS, BY_LORA, N_SOURCES };

static enum status read_sources(struct request *r, const struct voice_words *w, struct source *all,
                                struct fault *f)
{
    static const char *const where[N_SOURCES] = {"model", "X-Adapter", "adapters", "lora"};
    struct server *s = r->server;
    const char *texts[] = {w->model, r->adapter_header};
    enum status st = STATUS_OK;
    for (int i = 0; i < N_SOURCES; i++) {
        all[i].where = where[i];
        all[i].expr.n = 0;
    }
    for (int i = BY_MODEL; i <= BY_HEADER && st == STATUS_OK; i++) {
        st = read_text_voice(s, texts[i], where[i], &all[i].expr, f);
        all[i].given = texts[i] && texts[i][0];
        all[i].spoken = !voice_expr_equal(&all[i].expr, &(struct voice_expr){0});
    }
    all[BY_ADAPTERS].given = all[BY_ADAPTERS].spoken = w->has_adapters;
    all[BY_LORA].given = all[BY_LORA].spoken = w->has_lora;
    if (st == STATUS_OK)
        st = read_named_voice(s, w, &all[BY_ADAPTERS].expr, f);
    if (st == STATUS_OK)
        st = check_numbers(r, w, f);
    if (st == STATUS_OK)
        st = add_numbered(s, w, "lora", &all[BY_LORA].expr, f);
    return st;
}

static enum status disagreement(const struct source *a, const struct source *b, struct fault *f)
{
    struct buf x, y;
    buf_init(&x, 0);
    buf_init(&y, 0);
    voice_expr_print(&a->expr, &x);
    voice_expr_print(&b->expr, &y);
    enum status st = fault_set(f, STATUS_INVALID, "model", "%s names \"%.150s\" but %s%s names \"%.150s\"",
                               a->where, x.length ? x.data : "base", b->where[0] == 'X' ? "the header " : "",
                               b->where, y.length ? y.data : "base");
    buf_fini(&x);
    buf_fini(&y);
    return st;
}

/* The places that name a voice must agree; one that says nothing but the base's name doesn't count, where
 * another one says more. *named: one of them said anything. */
static enum status choose_words(struct request *r, const struct voice_words *w, struct voice_expr *out,
                                bool *named, struct fault *f)
{
    struct source all[N_SOURCES];
    const struct source *chosen = NULL;
    enum status st = read_sources(r, w, all, f);
    for (int i = 0; i < N_SOURCES && st == STATUS_OK; i++) {
        const struct source *one = &all[i];
        if (chosen && chosen->spoken && one->spoken && !voice_expr_equal(&chosen->expr, &one->expr))
            st = disagreement(chosen, one, f);
        if (one->given && (!chosen || (one->spoken && !chosen->spoken)))
            chosen = one;
    }
    if (st == STATUS_OK)
        *out = chosen ? chosen->expr : r->server->voices->nameless;
    *named = chosen != NULL;
    return st;
}

/* ---- names to members ---- */

static void add_members(struct voice *v, const struct voice_expr *e, bool always)
{
    for (uint32_t i = 0; i < e->n; i++)
        v->members[v->n_members++] = (struct voice_member){.term = e->terms[i], .always = always};
}

static const char *print(struct arena *a, const struct voice_expr *e)
{
    struct buf b;
    buf_init(&b, 0);
    voice_expr_print(e, &b);
    const char *text = b.failed ? NULL : arena_strdup(a, b.data ? b.data : "");
    buf_fini(&b);
    return text;
}

static enum status refuse_against(struct fault *f, const struct voice_term *asked,
                                  const struct voice_term *own)
{
    enum status st =
        fault_set(f, STATUS_INVALID, "model",
                  "\"%s\" with weight %g would take off what this server adds to every voice (%g*%s)",
                  asked->name, asked->weight, own->weight, own->name);
    snprintf(f->code, sizeof f->code, "policy");
    return st;
}

/* True if `asked` would undo some of `own`: the same name or, once both are bound, the same files, that add
 * up to the other sign. */
static bool weighs_against(const struct voice_member *asked, const struct voice_member *own)
{
    double by_name = asked->term.weight * own->term.weight;
    if (strcmp(asked->term.name, own->term.name) == 0 && by_name < 0)
        return true;
    const struct adapter_version *a = asked->version, *b = own->version;
    return a && b && memcmp(a->digest, b->digest, sizeof a->digest) == 0 &&
           by_name * a->user_scale * b->user_scale < 0;
}

static enum status check_policy(const struct voice *v, struct fault *f)
{
    for (uint32_t i = 0; i < v->n_members; i++)
        for (uint32_t k = 0; k < v->n_members; k++) {
            const struct voice_member *asked = &v->members[i], *own = &v->members[k];
            if (!asked->always && own->always && weighs_against(asked, own))
                return refuse_against(f, &asked->term, &own->term);
        }
    return STATUS_OK;
}

/* The chosen words in single adapters, canonical, with the server's own behind them. */
static enum status name_members(struct request *r, struct voice_expr *e, struct voice *out, struct fault *f)
{
    const struct server *s = r->server;
    struct voice_expr always;
    struct error err;
    const struct tenant_spec *tenant = gate_spec(r);
    if (read_always(s, tenant ? tenant->always : NULL, &always, &err) != STATUS_OK)
        return fault_set(f, STATUS_UNAVAILABLE, NULL, "what this server adds to every voice: %s", err.text);
    enum status st = expand(s, e, BLEND_DEPTH_MAX, NULL, &err);
    if (st == STATUS_OK)
        st = voice_expr_finish(e, LORA_MEMBERS_MAX - always.n, &err);
    if (st != STATUS_OK)
        return as_fault(f, &err, "model");
    add_members(out, e, false);
    add_members(out, &always, true);
    out->adapter = e->n ? print(r->arena, e) : NULL;
    out->always = always.n ? print(r->arena, &always) : NULL;
    if ((e->n && !out->adapter) || (always.n && !out->always))
        return no_memory(f);
    return check_policy(out, f);
}

/* ---- who asks ---- */

static uint64_t hash_texts(uint64_t seed, const char *a, const char *b)
{
    gnutls_hash_hd_t hash;
    uint8_t digest[32] = {0};
    uint64_t first;
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) == 0) {
        gnutls_hash(hash, &seed, sizeof seed);
        gnutls_hash(hash, a, strlen(a) + 1);
        gnutls_hash(hash, b, strlen(b) + 1);
        gnutls_hash_deinit(hash, digest);
    }
    memcpy(&first, digest, sizeof first);
    return first;
}

/* A key and a user stick to a version of each name; without either every request is a throw of its own. */
static void know_caller(const struct request *r, const struct voice_words *w, struct voice *v)
{
    const char *caller = gate_name(r);
    v->tenant = caller ? hash_texts(0, "tenant", caller) : 0;
    bool known = caller || (w->user && w->user[0]);
    v->sticky = hash_texts(v->tenant, known ? "user" : "request", known ? (w->user ? w->user : "") : r->id);
}

/* ---- members to versions ---- */

static enum status bind_member(struct request *r, struct voice *v, struct voice_member *m, struct fault *f)
{
    struct registry *reg = r->server->registry;
    struct adapter *a = registry_find(reg, m->term.name);
    struct error err;
    if (!a)
        return voice_unknown(f, m->term.name);
    if (blend_of(a)[0])
        return fault_set(f, STATUS_CONFLICT, "model", "\"%s\" has become a blend meanwhile; try again",
                         m->term.name);
    uint64_t sticky = hash_texts(v->sticky, "adapter", m->term.name);
    enum status st = registry_choose(a, m->term.pin, sticky, &m->generation, &err);
    if (st != STATUS_OK)
        return as_fault(f, &err, "model");
    if (m->generation)
        m->version = registry_acquire(reg, a, m->generation, clock_now_ns());
    if (m->version)
        return STATUS_OK;
    v->missing = m;
    return fault_set(f, STATUS_UNAVAILABLE, "model", "the adapter \"%s\" is not in memory", m->term.name);
}

/* base, adapters, arithmetic and program: what an output depends on besides the request */
static void make_fingerprint(const struct server *s, struct voice *v)
{
    static const uint8_t no_adapter[32];
    const struct kernels *k = s->base.kernels;
    char how[96];
    snprintf(how, sizeof how, "%s act%d kv-%s %s %s", k->isa, (int)k->act_mode, s->conf->kv_type,
             s->conf->quant, LORIKEET_VERSION);
    gnutls_hash_hd_t hash;
    uint8_t digest[32] = {0};
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) == 0) {
        gnutls_hash(hash, model_info(s->base.model)->digest, 32);
        gnutls_hash(hash, v->lora ? v->lora->digest : no_adapter, 32);
        gnutls_hash(hash, how, strlen(how));
        gnutls_hash_deinit(hash, digest);
    }
    snprintf(v->fingerprint, sizeof v->fingerprint, "fp_%02x%02x%02x%02x%02x%02x", digest[0], digest[1],
             digest[2], digest[3], digest[4], digest[5]);
}

/* The sum of the members, with `other` in the place of member `swapped` (other NULL: none). */
static enum status sum_members(struct server *s, const struct voice *v, uint32_t swapped,
                               const struct adapter_version *other, struct lora **out, struct error *err)
{
    struct lora_member parts[LORA_MEMBERS_MAX];
    for (uint32_t i = 0; i < v->n_members; i++) {
        const struct voice_member *m = &v->members[i];
        const struct adapter_version *version = other && i == swapped ? other : m->version;
        require(version);
        parts[i] = (struct lora_member){version->lora, voice_weight(m->term.weight)};
    }
    return blends_acquire(s->voices->blends, parts, v->n_members, out, err);
}

static enum status compose(struct server *s, struct voice *v, struct fault *f)
{
    struct error err;
    if (sum_members(s, v, 0, NULL, &v->lora, &err) == STATUS_OK)
        return STATUS_OK;
    return fault_set(f, err.status, "model", "\"%.150s\"%s%.100s: %s", v->adapter ? v->adapter : "base",
                     v->always ? " with " : "", v->always ? v->always : "", err.text);
}

/* The one adapter that was asked for, beside what the server adds; UINT32_MAX: none or several. */
static uint32_t only_asked(const struct voice *v)
{
    bool one = v->n_members > 0 && !v->members[0].always && (v->n_members == 1 || v->members[1].always);
    return one ? 0 : UINT32_MAX;
}

/* Whatever is wrong with what the server adds itself is not the caller's fault, and no reason to go without.
 */
static enum status bind_any(struct request *r, struct voice *v, struct voice_member *m, struct fault *f)
{
    enum status st = bind_member(r, v, m, f);
    if (st == STATUS_OK || v->missing || !m->always)
        return st;
    struct error err = f->error;
    return fault_set(f, STATUS_UNAVAILABLE, NULL, "what this server adds to every voice: %s", err.text);
}

static const char *print_generations(struct request *r, const struct voice *v)
{
    char text[LORA_MEMBERS_MAX * 22] = "0";
    size_t n = 0;
    for (uint32_t i = 0; i < v->n_members; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%llu", i ? "," : "",
                              (unsigned long long)v->members[i].generation);
    return arena_strdup(r->arena, text);
}

/* A candidate that scores along with the stable version, where that is the one that was asked for: the same
 * sum with the candidate in its place. */
static void bind_shadow(struct server *s, struct voice *v)
{
    uint32_t i = only_asked(v);
    struct error err;
    if (i == UINT32_MAX)
        return;
    struct adapter *a = registry_find(s->registry, v->members[i].term.name);
    if (a && a->shadow && v->members[i].generation == a->stable)
        v->shadow = registry_acquire(s->registry, a, a->shadow, clock_now_ns());
    if (v->shadow && sum_members(s, v, i, v->shadow, &v->shadow_lora, &err) != STATUS_OK) {
        LOG_EVENT(&s->log, LOG_WARN, "the shadow can't take the place of its adapter",
                  LOG_TEXT("why", err.text));
        registry_release(s->registry, v->shadow, false);
        v->shadow = NULL;
    }
}

enum status voice_bind(struct request *r, struct voice *v, struct fault *f)
{
    enum status st = STATUS_OK;
    v->missing = NULL;
    for (uint32_t i = 0; i < v->n_members && st == STATUS_OK; i++)
        if (!v->members[i].version)
            st = bind_any(r, v, &v->members[i], f);
    if (st == STATUS_OK)
        st = check_policy(v, f);
    if (st == STATUS_OK)
        st = compose(r->server, v, f);
    if (st != STATUS_OK)
        return st;
    bind_shadow(r->server, v);
    make_fingerprint(r->server, v);
    v->generations = print_generations(r, v);
    return v->generations ? STATUS_OK : no_memory(f);
}

enum status voice_resolve(struct request *r, const struct voice_words *words, struct voice *out,
                          struct fault *f)
{
    struct voice_expr e;
    bool is_named;
    *out = (struct voice){.label = "", .generations = "0"};
    enum status st = choose_words(r, words, &e, &is_named, f);
    if (st == STATUS_OK)
        st = voice_of_tenant(r, is_named, &e, f);
    if (st != STATUS_OK)
        return st;
    know_caller(r, words, out);
    struct voice_expr named = e; /* before blends become what they stand for */
    st = name_members(r, &e, out, f);
    if (st != STATUS_OK)
        return is_named ? st : fail_within(&f->error, "the voice of requests that name none");
    if (voice_expr_finish(&named, 1, NULL) != STATUS_OK)
        out->label = "(blend)";
    else if (named.n)
        out->label = arena_strdup(r->arena, named.terms[0].name);
    bool says = words->model && words->model[0];
    out->shown = arena_strdup(r->arena, says           ? words->model
                                        : out->adapter ? out->adapter
                                                       : r->server->base.name);
    return out->shown && out->label ? voice_bind(r, out, f) : no_memory(f);
}

/* ---- the end, and what the client is told ---- */

/* Numbers that aren't finite tell of a version only where it speaks as it was made: a caller's weights, or
 * another adapter beside it, may be the reason, and nobody may talk a version out of service with them. */
static bool is_to_blame(const struct voice *v, uint32_t index)
{
    bool alone = v->n_members == 1;
    return (alone || index == only_asked(v)) &&
           (v->members[index].always || v->members[index].term.weight == 1);
}

const struct adapter_bundle *voice_bundle(const struct voice *v)
{
    bool alone = only_asked(v) == 0 && v->members[0].version && v->members[0].term.weight == 1;
    return alone ? v->members[0].version->bundle : NULL;
}

void voice_release(struct server *s, struct voice *v, bool failed)
{
    blends_release(s->voices->blends, v->lora);
    blends_release(s->voices->blends, v->shadow_lora);
    v->lora = v->shadow_lora = NULL;
    registry_release(s->registry, v->shadow, false);
    v->shadow = NULL;
    for (uint32_t i = 0; i < v->n_members; i++) {
        struct voice_member *m = &v->members[i];
        bool blamed = failed && is_to_blame(v, i);
        if (!m->version)
            continue;
        registry_release(s->registry, m->version, blamed);
        m->version = NULL;
        if (blamed)
            adapter_ops_judge(s->adapter_ops, m->term.name);
    }
    adapter_ops_room(s->adapter_ops);
}

enum status voices_set_default(struct server *s, const struct voice_words *numbered, struct fault *f)
{
    struct voice_expr e = {0}, single, always;
    struct error err;
    enum status st = add_numbered(s, numbered, "id", &e, f);
    if (st != STATUS_OK)
        return st;
    single = e;
    if (expand(s, &single, BLEND_DEPTH_MAX, NULL, &err) != STATUS_OK ||
        read_always(s, NULL, &always, &err) != STATUS_OK ||
        voice_expr_finish(&single, LORA_MEMBERS_MAX - always.n, &err) != STATUS_OK)
        return as_fault(f, &err, NULL);
    struct voice v = {0};
    add_members(&v, &single, false);
    add_members(&v, &always, true);
    st = check_policy(&v, f);
    if (st == STATUS_OK)
        s->voices->nameless = e;
    return st;
}

const char *voices_default(const struct server *s, struct arena *a)
{
    return s->voices->nameless.n ? print(a, &s->voices->nameless) : s->base.name;
}
