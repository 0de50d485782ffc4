/* How the files of a reply meet: reply.c finds where calls begin and end, the others read one. */
#ifndef LK_REPLY_INNER_H
#define LK_REPLY_INNER_H

#include "reply.h"

#define FUNCTION_MARK "<function="

enum reply_state {
    IN_TEXT,
    IN_THOUGHT,
    IN_BLOCK, /* from here on: calls. Between a marker and a call, or two calls */
    IN_OBJECT,
    IN_NAME,
    IN_ARGUMENTS, /* of a call whose name came without an object around it */
    IN_FUNCTION,
    IN_LITERAL,
    IN_NOTHING, /* what follows is dropped */
};

/* The bytes that may be looked at; `final`: no more will come. */
struct span {
    const char *s;
    size_t n;
    bool final;
};

enum match { MATCH_NONE, MATCH_PART, MATCH_WHOLE };
/* Whether `text` stands at the front of the bytes; MATCH_PART: they are too few to tell. */
enum match match_marker(struct span at, const char *marker);
/* The same for a list of MARKERS_MAX; which one in *found. */
enum match match_any(struct span at, const char *const *markers, const char **found);

bool is_json_space(char c);
bool is_name_char(char c);

/* The slot of a call whose name isn't known yet: behind the p->n_calls that are. NULL: no memory. */
struct reply_call *reply_call_building(struct reply *p);
/* The call that is being read, named or not. */
struct reply_call *reply_call_now(struct reply *p);
/* It has a name now, so it appears. False: it is no name, or none of a tool where that is asked. */
bool reply_call_named(struct reply *p, const char *name, size_t length);

/* Each reads on from the front of the bytes, sets p->outcome where a call ends, and answers how many bytes it
 * took; 0 and no change of state: it needs more. */
void call_reader_begin(struct call_reader *c);
size_t reply_read_object(struct reply *p, struct span at); /* reply_call.c */
size_t reply_read_name(struct reply *p, struct span at);
size_t reply_read_arguments(struct reply *p, struct span at);
size_t reply_read_function(struct reply *p, struct span at); /* reply_function.c; behind FUNCTION_MARK */
size_t reply_read_literal(struct reply *p, struct span at);  /* reply_literal.c */

#endif
