/* The fields of a request that name its voice. Strict: an entry that isn't understood whole would be another
 * voice than the one that was meant. */
#include "voice_params.h"

#include <stdio.h>
#include <string.h>

#include "api_parse.h"
#include "voice_expr.h"

/* An entry that is an object with no other keys than these two. */
static void check_entry(struct reader *r, const char *where, size_t index, const json_t *entry,
                        const char *const keys[2])
{
    char text[96];
    const char *key;
    json_t *value;
    if (!json_is_object(entry)) {
        read_fail(r, STATUS_INVALID, where, "%s[%zu]: found %s, expected an object with \"%s\" and \"%s\"",
                  where, index, describe_json(entry, text, sizeof text), keys[0], keys[1]);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)entry, key, value)
    {
        if (strcmp(key, keys[0]) != 0 && strcmp(key, keys[1]) != 0)
            read_fail(r, STATUS_INVALID, where,
                      "%s[%zu]: found the field \"%.40s\", expected \"%s\" and \"%s\"", where, index, key,
                      keys[0], keys[1]);
    }
}

/* What the entry's own reader has found wrong becomes the array's. */
static void end_entry(struct reader *r, const struct reader *entry, const char *where, size_t index)
{
    if (entry->status == STATUS_OK)
        return;
    fail_within(&r->fault->error, "%s[%zu]", where, index);
    snprintf(r->fault->param, sizeof r->fault->param, "%s", where);
    r->status = entry->status;
}

static void read_named(struct reader *r, const json_t *array, struct arena *arena, struct voice_words *out)
{
    static const char *const keys[2] = {"name", "scale"};
    size_t n = json_array_size(array);
    if (n > VOICE_TERMS_MAX) {
        read_fail(r, STATUS_INVALID, "adapters", "adapters: found %zu entries, at most %u are accepted", n,
                  VOICE_TERMS_MAX);
        return;
    }
    out->adapters = arena_array(arena, n ? n : 1, sizeof *out->adapters);
    if (!out->adapters) {
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++) {
        const json_t *item = json_array_get(array, i);
        struct voice_named *v = &out->adapters[i];
        *v = (struct voice_named){.scale = 1};
        check_entry(r, "adapters", i, item, keys);
        if (r->status != STATUS_OK)
            return;
        struct reader entry = {.object = item, .fault = r->fault};
        read_text(&entry, "name", &v->name);
        read_float(&entry, "scale", -VOICE_WEIGHT_MAX, VOICE_WEIGHT_MAX, &v->scale);
        if (!v->name || !v->name[0])
            read_fail(&entry, STATUS_INVALID, "name", "name: missing");
        end_entry(r, &entry, "adapters", i);
        out->n_adapters++;
    }
}

static void check_once(struct reader *r, const struct voice_words *w, const char *where)
{
    for (uint32_t i = 0; i + 1 < w->n_lora; i++)
        if (w->lora[i].id == w->lora[w->n_lora - 1].id)
            read_fail(r, STATUS_INVALID, where, "%s: the id %lld is given twice", where,
                      (long long)w->lora[i].id);
}

void read_numbered(struct reader *r, const json_t *array, const char *where, struct arena *arena,
                   struct voice_words *out)
{
    static const char *const keys[2] = {"id", "scale"};
    size_t n = json_array_size(array);
    if (n > LORA_FIELD_MAX) {
        read_fail(r, STATUS_INVALID, where, "%s: found %zu entries, at most %u are accepted", where, n,
                  LORA_FIELD_MAX);
        return;
    }
    out->has_lora = true;
    out->lora = arena_array(arena, n ? n : 1, sizeof *out->lora);
    if (!out->lora) {
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++) {
        const json_t *item = json_array_get(array, i);
        struct voice_numbered *v = &out->lora[out->n_lora];
        check_entry(r, where, i, item, keys);
        if (r->status != STATUS_OK)
            return;
        struct reader entry = {.object = item, .fault = r->fault};
        if (!read_int(&entry, "id", 0, INT32_MAX, &v->id))
            read_fail(&entry, STATUS_INVALID, "id", "id: missing; GET /lora-adapters lists them");
        if (!read_float(&entry, "scale", -VOICE_WEIGHT_MAX, VOICE_WEIGHT_MAX, &v->scale))
            read_fail(&entry, STATUS_INVALID, "scale", "scale: missing; 0 leaves the adapter out");
        end_entry(r, &entry, where, i);
        out->n_lora++;
        check_once(r, out, where);
    }
}

/* Names of the same thing elsewhere. Left out silently, the base would answer in the adapter's name. */
static void refuse_others(struct reader *r)
{
    static const char *const keys[] = {"adapter",      "adapter_id",    "adapter_source", "adapter_name",
                                       "lora_name",    "lora_path",     "lora_id",        "lora_request",
                                       "lora_adapter", "lora_adapters", "merged_adapters"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const json_t *v = json_object_get(r->object, keys[i]);
        if (v && !json_is_null(v))
            read_fail(r, STATUS_UNSUPPORTED, keys[i],
                      "%s: the voice is named by model, adapters, lora or the header X-Adapter; leave %s out",
                      keys[i], keys[i]);
    }
}

/* A transcript may pass from voice to voice: who speaks next is whom the last turn with an `adapter` names.
 */
static void read_turn(struct reader *r, struct voice_words *out)
{
    const json_t *messages = json_object_get(r->object, "messages");
    char text[96];
    for (size_t i = json_array_size(messages); i > 0 && !out->turn; i--) {
        const json_t *adapter = json_object_get(json_array_get(messages, i - 1), "adapter");
        if (!adapter || json_is_null(adapter))
            continue;
        out->turn = json_string_value(adapter);
        if (!out->turn || !out->turn[0])
            read_fail(r, STATUS_INVALID, "messages",
                      "messages[%zu].adapter: found %s, expected a voice's name", i - 1,
                      describe_json(adapter, text, sizeof text));
    }
}

void read_voice_words(struct reader *r, struct arena *arena, struct voice_words *out)
{
    const json_t *array;
    *out = (struct voice_words){0};
    read_text(r, "model", &out->model);
    refuse_others(r);
    read_turn(r, out);
    const json_t *user = json_object_get(r->object, "user"), *safety = NULL;
    safety = json_object_get(r->object, "safety_identifier");
    if (json_is_string(safety)) /* of another type they are ignored, as they can't change an answer */
        out->user = json_string_value(safety);
    else if (json_is_string(user))
        out->user = json_string_value(user);
    if (read_array(r, "adapters", &array)) {
        out->has_adapters = true;
        read_named(r, array, arena, out);
    }
    if (read_array(r, "lora", &array))
        read_numbered(r, array, "lora", arena, out);
}
