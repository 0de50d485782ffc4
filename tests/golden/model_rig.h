/* A model with a team, pages and scratch, and a small generation loop: what the golden and the invariance
 * tests share. The loop is a crowd: every line is a sequence of its own, fed in chunks, started `stagger`
 * steps after the one before, and decoded greedily; all logits of all positions are kept. */
#ifndef LK_TESTS_MODEL_RIG_H
#define LK_TESTS_MODEL_RIG_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/team.h"
#include "kernels.h"
#include "model.h"

#define RIG_SEQS_MAX 24U
#define RIG_TOKENS_MAX 1024U
#define RIG_PAGES 512U
#define RIG_SEQ_PAGES 16U

struct rig_options {
    unsigned n_threads;
    const char *isa; /* NULL: auto */
    enum act_mode act_mode;
    enum quant quant;
    const char *kv;      /* NULL: auto */
    double query_scalar; /* 0: what the file says; GGUF has no field for query_pre_attn_scalar */
};

struct rig {
    struct model_files *files;
    struct model *m;
    struct team *team;
    struct kv_cache *kv;
    struct step_space *space;
    bool changing; /* the number of active workers is another one in each step */
};

struct rig_line {
    struct lora *lora;
    const int32_t *prompt;
    uint32_t n_prompt, n_new;
    float *logits;  /* [n_prompt + n_new - 1, vocab], of position p: what follows token p; made by rig_run */
    int32_t *ids;   /* [n_prompt + n_new], prompt first; made by rig_run */
    uint32_t n_ids; /* so far */
    uint32_t n_fed, n_seen; /* n_seen: most that n_fed was */
    uint32_t lora_begin;    /* where the adapter begins to act */
    uint32_t pages[RIG_SEQ_PAGES];
    uint32_t n_pages;
};

static inline bool rig_open(struct rig *r, const char *path, const struct rig_options *o, struct error *err)
{
    const struct kernels *k;
    *r = (struct rig){0};
    if (kernels_select(o->isa ? o->isa : "auto", o->act_mode, &k, err) != STATUS_OK ||
        model_files_open(path, &r->files, err) != STATUS_OK)
        return false;
    if (o->query_scalar > 0)
        r->files->config.query_pre_attn_scalar = o->query_scalar;
    r->team = team_create(o->n_threads ? o->n_threads : 1);
    struct model_options mo = {.kernels = k, .quant = o->quant, .team = r->team};
    if (!r->team || model_open(r->files, &mo, &r->m, err) != STATUS_OK)
        return false;
    struct kv_shape shape = model_kv_shape(r->m, model_kv_type(r->m, o->kv ? o->kv : "auto"));
    return kv_cache_create(&shape, RIG_PAGES, &r->kv, err) == STATUS_OK &&
           step_space_create(r->m, &shape, RIG_TOKENS_MAX, RIG_SEQS_MAX, RIG_TOKENS_MAX, r->team, &r->space,
                             err) == STATUS_OK;
}

static inline void rig_close(struct rig *r)
{
    step_space_destroy(r->space);
    kv_cache_destroy(r->kv);
    model_close(r->m);
    model_files_close(r->files);
    team_destroy(r->team);
}

static inline void rig_line_fini(struct rig_line *l)
{
    free(l->logits);
    free(l->ids);
}

/* The line's part of the next step, or false when it is done. */
static inline bool rig_next(struct rig *r, struct rig_line *l, uint32_t chunk, struct batch_seq *q)
{
    if (l->n_fed + 1 >= l->n_prompt + l->n_new && l->n_fed >= l->n_prompt)
        return false;
    uint32_t n = l->n_ids - l->n_fed;
    n = n > chunk ? chunk : n;
    while (l->n_pages * KV_PAGE_TOKENS < l->n_fed + n) {
        require(l->n_pages < RIG_SEQ_PAGES);
        require(kv_page_acquire(r->kv, &l->pages[l->n_pages]));
        l->n_pages++;
    }
    *q = (struct batch_seq){.lora = l->lora,
                            .tokens = l->ids + l->n_fed,
                            .n_tokens = n,
                            .position = l->n_fed,
                            .n_prompt = l->n_prompt,
                            .n_known = l->n_ids,
                            .pages = l->pages,
                            .lora_begin = l->lora_begin,
                            .logits_begin = 0};
    return true;
}

static inline void rig_take(struct rig *r, struct rig_line *l, uint32_t n, const float *logits)
{
    uint32_t vocab = model_config(r->m)->vocab_size;
    uint32_t known =
        l->n_seen > l->n_fed ? l->n_seen - l->n_fed : 0; /* computed again: the first ones stay */
    if (known < n)
        memcpy(l->logits + (size_t)(l->n_fed + known) * vocab, logits + (size_t)known * vocab,
               (size_t)(n - known) * vocab * sizeof *logits);
    l->n_fed += n;
    l->n_seen = l->n_seen > l->n_fed ? l->n_seen : l->n_fed;
    if (l->n_fed == l->n_ids && l->n_ids < l->n_prompt + l->n_new) {
        l->ids[l->n_ids++] =
            (int32_t)model_kernels(r->m)->argmax(l->logits + (size_t)(l->n_fed - 1) * vocab, vocab);
        if (l->n_ids - 1 == model_length_limit(r->m) && l->n_ids < l->n_prompt + l->n_new)
            l->n_fed = 0;
    }
}

static inline void rig_begin(struct rig *r, struct rig_line *l)
{
    uint32_t vocab = model_config(r->m)->vocab_size;
    struct error err;
    l->logits = calloc((size_t)(l->n_prompt + l->n_new) * vocab, sizeof *l->logits);
    l->ids = calloc(l->n_prompt + l->n_new, sizeof *l->ids);
    require(l->logits && l->ids);
    memcpy(l->ids, l->prompt, l->n_prompt * sizeof *l->ids);
    l->n_ids = l->n_prompt;
    l->n_fed = l->n_seen = l->n_pages = 0;
    l->lora_begin = l->lora ? lora_begin(l->lora, l->prompt, l->n_prompt) : 0;
    require(!l->lora || step_reserve_rank(r->space, l->lora->t_max, &err) == STATUS_OK);
}

/* Runs all lines together; returns the number of allocations that the steps made. */
static inline uint64_t rig_run(struct rig *r, struct rig_line *lines, uint32_t n_lines, uint32_t chunk,
                               uint32_t stagger)
{
    uint64_t n_allocations = 0;
    for (uint32_t i = 0; i < n_lines; i++)
        rig_begin(r, &lines[i]);
    for (uint32_t step = 0;; step++) {
        struct batch_seq seqs[RIG_SEQS_MAX];
        struct rig_line *owner[RIG_SEQS_MAX];
        struct batch batch = {.seqs = seqs};
        float *logits;
        bool waiting = false;
        for (uint32_t i = 0; i < n_lines; i++) {
            waiting = waiting || step < i * stagger;
            if (step >= i * stagger && rig_next(r, &lines[i], chunk, &seqs[batch.n_seqs]))
                owner[batch.n_seqs++] = &lines[i];
        }
        if (batch.n_seqs == 0 && !waiting)
            break;
        if (batch.n_seqs == 0)
            continue;
        uint64_t before = mem_count();
        if (r->changing)
            team_set_active(r->team, step % team_size(r->team) + 1);
        model_step(r->m, r->space, r->kv, &batch, &logits);
        n_allocations += mem_count() - before;
        for (uint32_t i = 0; i < batch.n_seqs; i++) {
            rig_take(r, owner[i], seqs[i].n_tokens, logits);
            logits += (size_t)seqs[i].n_tokens * model_config(r->m)->vocab_size;
        }
    }
    for (uint32_t i = 0; i < n_lines; i++)
        for (uint32_t p = 0; p < lines[i].n_pages; p++)
            kv_page_release(r->kv, lines[i].pages[p]);
    return n_allocations;
}

#endif
