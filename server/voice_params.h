/* What a request's body says about who speaks: `model`, `adapters`, llama-server's `lora`, and the user that
 * traffic sticks to. JSON in, plain values out; names are looked up elsewhere (voices.h). Pure; any thread.
 */
#ifndef LK_VOICE_PARAMS_H
#define LK_VOICE_PARAMS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct arena;
struct reader;

#define LORA_FIELD_MAX 1024U /* entries of a `lora` array */

struct voice_words {
    const char *model; /* or NULL; texts are the JSON's */
    const char *turn;  /* `adapter` of the last message that has one, or NULL: the voice from there on */
    const char *user;  /* safety_identifier, else user; or NULL */

    bool has_adapters; /* the array is there: empty, it names the base */
    uint32_t n_adapters;
    struct voice_named {
        const char *name; /* NAME or NAME@PIN */
        double scale;
    } * adapters;

    bool has_lora;
    uint32_t n_lora;
    struct voice_numbered {
        int64_t id; /* each once */
        double scale;
    } * lora;
};

/* The first failure is in `r`. Arrays live in the arena. */
void read_voice_words(struct reader *r, struct arena *arena, struct voice_words *out);
/* [{"id", "scale"}]: the `lora` field, and the body of POST /lora-adapters. `where` names the array. */
void read_numbered(struct reader *r, const json_t *array, const char *where, struct arena *arena,
                   struct voice_words *out);

#endif
