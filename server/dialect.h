/* How one API says a request for text, and its answer. A dialect is a table of pure functions: how the body
 * becomes prompts and generation parameters, and how what is generated is shown. Everything between, from the
 * voice to the end, is completion.c's and the same for all.
 *
 *   body ── translate ──▶ the body of a chat or a completion ── parse ──▶ prompts, parameters
 *   text ── reply.h ──▶ content, reasoning, calls ── render | chunk … end ──▶ bytes
 *
 * A new API of chats is a translation into OpenAI's body (so that all fields are read in one place) and a way
 * to show a struct choice. */
#ifndef LK_DIALECT_H
#define LK_DIALECT_H

#include "api_parse.h"

struct body_default;
struct choice;
struct completion;

struct dialect {
    const char *name;      /* in the log */
    const char *id_prefix; /* of the answer's id */
    enum api api;          /* whose fields the (translated) body has */
    bool counts;           /* only the prompts are wanted: nothing is generated */
    bool chat_logprobs;    /* log-probabilities in the form that chats have, whatever `api` is */
    bool renders_long;     /* render is a worker's */
    bool waits;            /* translate may wait for a file: a worker does it */
    /* Replaces c->body by a body of `api`; NULL: it is one. Thread: any. A fault goes to c->fault. */
    enum status (*translate)(struct completion *c);
    const struct body_default
        *defaults; /* where nobody says anything: other values than OpenAI's; NULL: none */
    /* The prompts; c->params is there. Thread: any. */
    enum status (*parse)(struct completion *c);
    /* The whole answer. */
    void (*render)(struct completion *c, struct buf *out);
    /* What a stream shows before anything is generated, framed; NULL: nothing. */
    void (*start)(struct completion *c, struct buf *out);
    /* What gathered in the choice since the last time, framed; takes it out of the choice. With
     * h->finish_reason set it is the choice's last. */
    void (*chunk)(struct completion *c, struct choice *h, struct buf *out);
    /* What ends a stream that went well, framed. */
    void (*end)(struct completion *c, struct buf *out);
    /* What ends a stream that failed (c->fault), framed. */
    void (*fail)(struct completion *c, struct buf *out);
    const char *stream_type; /* the content type of a stream */
    const char *ping;        /* a whole frame that says nothing; NULL: none */
};

#endif
