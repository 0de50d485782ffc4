/* The schemas of /openapi.json: tables of fields, one for what requests have in them, one for answers.
 * JSON is written with ' for ", and gets its own quotes when it's rendered. */
#ifndef LK_OPENAPI_SCHEMAS_H
#define LK_OPENAPI_SCHEMAS_H

#include <stddef.h>

struct field {
    const char *name, *schema;
};

#define REF(name) "{'$ref':'#/components/schemas/" name "'}"
#define TEXT "{'type':'string'}"
#define COUNT "{'type':'integer', 'minimum':0}"
#define TEXT_OR_NULL "{'type':['string', 'null']}"
#define FLAG "{'type':['boolean', 'null']}"
#define OBJECT "{'type':'object'}"
#define OBJECT_OR_NULL "{'type':['object', 'null']}"
#define NUMBER(min, max) "{'type':['number', 'null'], 'minimum':" min ", 'maximum':" max "}"
#define WHOLE(min, max) "{'type':['integer', 'null'], 'minimum':" min ", 'maximum':" max "}"
#define LIST(items) "{'type':['array', 'null'], 'items':" items "}"
#define ONE_OF(words) "{'enum':[" words ",null]}"
#define EITHER(a, b) "{'anyOf':[" a "," b "]}"
#define ANY(words) "{'description':'" words "'}"
#define INT_MAX_TEXT "2147483647"
#define INT "{'type':'integer'}"
#define REAL "{'type':'number'}"
#define BOOL "{'type':'boolean'}"
#define OF(items) "{'type':'array', 'items':" items "}"
#define CONST(text) "{'const':'" text "'}"

struct schema {
    const char *name;
    const char *json;               /* whole; or the members beside these fields */
    const struct field *fields[12]; /* groups, each up to a name NULL */
};

/* By number; NULL: that was the last. */
const struct schema *openapi_request_schema(size_t index);
const struct schema *openapi_answer_schema(size_t index);

#endif
