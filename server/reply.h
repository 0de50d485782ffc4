/* What a model said, taken apart: reasoning, content, calls of tools. Bytes go in as they are generated; what
 * they are is known as soon as it can be, and waits here until a dialect shows it. One for each choice.
 *
 * Nothing is lost: what began like a call and isn't one is content, with its markers, unless a stream has
 * shown it already (then the call stays as far as it came, and the rest is content). Only white space around
 * calls and reasoning is left out. How the bytes are cut changes nothing. Memory: a few times what was
 * generated.
 *
 * Front thread; no clocks, no requests. */
#ifndef LK_REPLY_H
#define LK_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "json_scan.h"
#include "reply_format.h"

#define REPLY_CALLS_MAX 128U /* further ones are content */
#define REPLY_NAME_MAX 256U
#define LITERAL_DEPTH_MAX 64U

/* A call of a tool. */
struct reply_call {
    char id[40];          /* "call_…" */
    struct buf name;      /* complete when the call appears */
    struct buf arguments; /* JSON text not shown yet; a stream's pieces add up to the whole */
    bool shown;           /* a stream has begun with it */
};

/* Where a call that is being read stands (reply_call.c, reply_function.c, reply_literal.c). */
struct call_reader {
    struct json_scan scan;
    uint8_t state, field, nested;
    bool has_name, has_arguments;
    bool word_is_id, word_ended; /* NAME separator …: what the next word is */
    bool is_text, value_began;   /* <parameter=…>: a string; behind its first line break */
    bool scans, scan_began;      /* the value may still be JSON */
    bool is_plain;               /* a name without a tag around it */
    bool may_be_cdata, is_cdata; /* <param …>: a value may begin with <![CDATA[, or has */
    char quote;                  /* a literal's string: how it was opened; NUL: by the format's marker */
    bool is_triple, is_key;
    uint8_t depth, levels[LITERAL_DEPTH_MAX]; /* what is open in a literal */
    struct buf token;                         /* a key, a name, a value that must be known whole */
    const json_t *schema;                     /* of the tool's parameters */
};

enum reply_outcome { CALL_GOES_ON, CALL_DONE, CALL_BROKEN, BLOCK_DONE };

struct reply {
    struct buf content, reasoning; /* not shown yet */
    struct reply_call *calls;      /* in the order in which they came; the last one may still grow */
    uint32_t n_calls;

    /* reply.c's own */
    struct reply_format format;
    uint8_t state;
    enum reply_outcome outcome;
    bool failed;
    bool has_content; /* more than white space */
    bool thought_began, has_thought, after_thought;
    bool skips_space;    /* white space in front is left out */
    bool is_marked;      /* the block has a marker; else any JSON looks like it */
    bool in_array;       /* a list of calls is open */
    uint32_t n_in_block; /* calls since the block's marker */
    uint32_t calls_capacity;
    struct buf pending; /* too short to be decided */
    struct buf space;   /* content, unless a call follows */
    struct buf raw;     /* of the block, or of the call in it, that is being read */
    struct call_reader call;
};

/* Copies `format`, which may be all zero; its tools are borrowed until reply_fini. */
void reply_init(struct reply *p, const struct reply_format *format);
void reply_fini(struct reply *p);
/* The next bytes; complete UTF-8 characters. */
void reply_push(struct reply *p, const char *text, size_t length);
/* Nothing follows: what was undecided is content. */
void reply_end(struct reply *p);
/* Something waits to be shown. */
bool reply_has_news(const struct reply *p);
/* The next token belongs to the reasoning, its closing marker included. */
bool reply_is_thinking(const struct reply *p);
bool reply_failed(const struct reply *p); /* memory was short: what is here isn't whole */

#endif
