/* From the request's JSON to values, and `tojson`: what Python's json.dumps writes, byte for byte. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "jinja.h"

static struct jv array_from_json(struct render *r, const json_t *json, uint32_t depth)
{
    struct jseq *seq = jseq_new(r, json_array_size(json));
    for (size_t i = 0; seq && i < seq->n; i++) {
        seq->items[i] = jv_from_json(r, json_array_get(json, i), depth + 1);
        if (jv_is_error(seq->items[i]))
            return seq->items[i];
    }
    return jv_of_seq(JV_LIST, seq);
}

static struct jv object_from_json(struct render *r, const json_t *json, uint32_t depth)
{
    struct jdict *d = jdict_new(r, json_object_size(json));
    const char *key;
    size_t key_len;
    json_t *member;
    json_t *object = (json_t *)(uintptr_t)json; /* jansson's iteration asks for it mutable, but only reads */
    bool ok = d != NULL;
    json_object_keylen_foreach(object, key, key_len, member)
    {
        const struct jstr *name = ok ? jstr_borrow(r, key, key_len) : NULL;
        struct jv value = name ? jv_from_json(r, member, depth + 1) : jv_tagged(JV_ERROR);
        ok = !jv_is_error(value) && jdict_set(r, d, jv_of_str(name), value);
        if (!ok)
            break;
    }
    return jv_of_dict(ok ? d : NULL);
}

struct jv jv_from_json(struct render *r, const struct json_t *json, uint32_t depth)
{
    if (depth > r->depth_limit)
        return jv_too_large(r, "the request's values nest deeper than %u", r->depth_limit);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return object_from_json(r, json, depth);
    case JSON_ARRAY:
        return array_from_json(r, json, depth);
    case JSON_STRING:
        return jv_of_str(jstr_borrow(r, json_string_value(json), json_string_length(json)));
    case JSON_INTEGER:
        return jv_int(json_integer_value(json));
    case JSON_REAL:
        return jv_float(json_real_value(json));
    case JSON_TRUE:
    case JSON_FALSE:
        return jv_bool(json_is_true(json));
    case JSON_NULL:
        break;
    }
    return jv_none();
}

/* ---- json.dumps */

static bool put_json_char(struct render *r, uint32_t c)
{
    static const char short_for[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    char text[16];
    const char *found = c < 0x80 && c ? strchr(short_for, (int)c) : NULL;
    if (found)
        snprintf(text, sizeof text, "\\%c", letters[found - short_for]);
    else if (c < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", c);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
    return jv_puts(r, text);
}

static bool put_json_string(struct render *r, const struct jstr *s, bool ascii)
{
    size_t plain = 0, n;
    if (!jv_step_bytes(r, s->len) || !jv_puts(r, "\""))
        return false;
    for (size_t at = 0; at < s->len; at += n) {
        uint32_t c = jchar_decode(s->data + at, s->len - at, &n);
        if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !ascii))
            continue;
        if (!jv_put(r, s->data + plain, at - plain) || !put_json_char(r, c))
            return false;
        plain = at + n;
    }
    return jv_put(r, s->data + plain, s->len - plain) && jv_puts(r, "\"");
}

static bool put_json_float(struct render *r, double f)
{
    if (isnan(f) || isinf(f))
        return jv_puts(r, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
    return jv_put_float(r, f);
}

struct json_writer {
    struct render *r;
    const struct json_style *style;
    uint32_t depth;
};

static bool put_json(struct json_writer *w, struct jv v);

static bool new_line(struct json_writer *w)
{
    const struct jstr *indent = w->style->indent;
    if (!indent)
        return true;
    if (!jv_puts(w->r, "\n"))
        return false;
    for (uint32_t i = 0; i < w->depth; i++)
        if (!jv_put(w->r, indent->data, indent->len))
            return false;
    return true;
}

static bool item_separator(struct json_writer *w, size_t i)
{
    const struct jstr *s = w->style->item_separator;
    return (i == 0 || jv_put(w->r, s->data, s->len)) && new_line(w);
}

static bool put_json_seq(struct json_writer *w, const struct jseq *s)
{
    if (!s->n)
        return jv_puts(w->r, "[]");
    if (!jv_puts(w->r, "["))
        return false;
    w->depth++;
    for (size_t i = 0; i < s->n; i++)
        if (!item_separator(w, i) || !put_json(w, s->items[i]))
            return false;
    w->depth--;
    return new_line(w) && jv_puts(w->r, "]");
}

static bool put_json_key(struct json_writer *w, struct jv key)
{
    if (key.tag == JV_STR)
        return put_json_string(w->r, key.s, w->style->ascii);
    if (key.tag != JV_NONE && !jv_is_number(key)) {
        jv_raise(w->r, "TypeError", "keys must be str, int, float, bool or None, not %s", jv_type_name(key));
        return false;
    }
    return jv_puts(w->r, "\"") && put_json(w, key) && jv_puts(w->r, "\"");
}

/* The entries in the order in which they are written. */
static struct jentry *json_order(struct json_writer *w, const struct jdict *d)
{
    struct jv *order = jv_alloc(w->r, d->n * 2 * sizeof *order);
    struct jentry *sorted = order ? jv_alloc(w->r, d->n * sizeof *sorted) : NULL;
    if (!sorted)
        return NULL;
    for (size_t i = 0; i < d->n; i++) {
        order[i] = jv_int((int64_t)i);
        order[d->n + i] = d->entries[i].key;
    }
    if (!jv_sort(w->r, order, order + d->n, d->n, false))
        return NULL;
    for (size_t i = 0; i < d->n; i++)
        sorted[i] = d->entries[order[i].i];
    return sorted;
}

static bool put_json_dict(struct json_writer *w, const struct jdict *d)
{
    const struct jstr *colon = w->style->key_separator;
    if (!d->n)
        return jv_puts(w->r, "{}");
    const struct jentry *entries = w->style->sort ? json_order(w, d) : d->entries;
    if (!entries || !jv_puts(w->r, "{"))
        return false;
    w->depth++;
    for (size_t i = 0; i < d->n; i++)
        if (!item_separator(w, i) || !put_json_key(w, entries[i].key) ||
            !jv_put(w->r, colon->data, colon->len) || !put_json(w, entries[i].value))
            return false;
    w->depth--;
    return new_line(w) && jv_puts(w->r, "}");
}

static bool put_json(struct json_writer *w, struct jv v)
{
    struct render *r = w->r;
    if (!jv_steps(r, 1))
        return false;
    switch (v.tag) {
    case JV_NONE:
        return jv_puts(r, "null");
    case JV_BOOL:
        return jv_puts(r, v.b ? "true" : "false");
    case JV_INT:
        return jv_put_repr(r, v);
    case JV_FLOAT:
        return put_json_float(r, v.f);
    case JV_STR:
        return put_json_string(r, v.s, w->style->ascii);
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
        if (!render_enter(r, "values for tojson"))
            return false;
        if (!(v.tag == JV_DICT ? put_json_dict(w, v.dict) : put_json_seq(w, v.seq)))
            return false;
        r->depth--;
        return true;
    default:
        jv_raise(r, "TypeError", "Object of type %s is not JSON serializable", jv_type_name(v));
        return false;
    }
}

bool jv_put_json(struct render *r, struct jv v, const struct json_style *style)
{
    struct json_writer w = {.r = r, .style = style};
    return put_json(&w, v);
}
