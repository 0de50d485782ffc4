/* The functions that every template can call: range, dict, namespace, cycler, joiner, raise_exception,
 * strftime_now. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "jinja.h"

static struct jv global_range(struct render *r, const struct call *c)
{
    int64_t start = 0, stop = 0, step = 1;
    bool one = c->a[1].tag == JV_MISSING;
    if (!call_int(r, c, 0, one ? &stop : &start) || !call_int(r, c, 1, &stop) || !call_int(r, c, 2, &step))
        return jv_tagged(JV_ERROR);
    if (step == 0)
        return jv_raise(r, "ValueError", "range() arg 3 must not be zero");
    struct jrange *range = jv_alloc(r, sizeof *range);
    if (!range)
        return jv_tagged(JV_ERROR);
    uint64_t n = 0, distance, stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 ? start < stop : start > stop) {
        distance = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
        n = (distance - 1) / stride + 1;
    }
    if (n > JINJA_MAX_RANGE)
        return jv_too_large(r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                            JINJA_MAX_RANGE);
    *range = (struct jrange){.start = start, .stop = stop, .step = step, .n = (int64_t)n};
    return (struct jv){.tag = JV_RANGE, .range = range};
}

/* What dict() and namespace() take: a mapping or pairs, then keywords. */
static bool fill_from(struct render *r, struct jdict *d, struct jv source)
{
    struct jcursor cursor;
    struct jv item;
    int more;
    if (source.tag == JV_UNDEFINED) {
        jv_raise_undefined(r, source);
        return false;
    }
    if (source.tag == JV_DICT) {
        source.tag = JV_VIEW;
        source.kind = JVIEW_ITEMS;
    }
    if (!jcursor_begin(r, &cursor, source))
        return false;
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        struct jseq *pair = jv_items(r, item);
        if (!pair)
            return false;
        if (pair->n != 2) {
            jv_raise(r, "ValueError", "dictionary update sequence element has length %zu; 2 is required",
                     pair->n);
            return false;
        }
        if (!jdict_set(r, d, pair->items[0], pair->items[1]))
            return false;
    }
    return more == 0;
}

static struct jv make_dict(struct render *r, const struct call *c, const char *name)
{
    struct jdict *d = jdict_new(r, 0);
    if (c->n_pos > 1)
        return jv_raise(r, "TypeError", "%s expected at most 1 argument, got %zu", name, c->n_pos);
    if (!d || (c->n_pos && !fill_from(r, d, c->pos[0])))
        return jv_tagged(JV_ERROR);
    for (size_t i = 0; i < c->n_kw; i++)
        if (!jdict_set(r, d, jv_of_str(c->kw[i].name), c->kw[i].value))
            return jv_tagged(JV_ERROR);
    return jv_of_dict(d);
}

static struct jv global_dict(struct render *r, const struct call *c)
{
    return make_dict(r, c, "dict");
}

static struct jv global_namespace(struct render *r, const struct call *c)
{
    struct jv v = make_dict(r, c, "namespace");
    if (jv_is_error(v))
        return v;
    for (size_t i = 0; i < v.dict->n; i++) {
        struct jv key = v.dict->entries[i].key;
        if (key.tag == JV_STR && key.s->len && key.s->data[0] == '_')
            return jv_raise(r, "SecurityError",
                            "a namespace can't have an attribute that begins with '_': '%.*s'",
                            (int)key.s->len, key.s->data);
    }
    v.tag = JV_NAMESPACE;
    return v;
}

static struct jv global_cycler(struct render *r, const struct call *c)
{
    if (!c->n_pos)
        return jv_raise(r, "RuntimeError", "at least one item has to be provided");
    struct jseq *items = jseq_copy(r, c->pos, c->n_pos);
    struct jcycler *cycler = items ? jv_alloc(r, sizeof *cycler) : NULL;
    if (!cycler)
        return jv_tagged(JV_ERROR);
    cycler->items = items;
    return (struct jv){.tag = JV_CYCLER, .cycler = cycler};
}

static struct jv global_joiner(struct render *r, const struct call *c)
{
    struct jjoiner *joiner = jv_alloc(r, sizeof *joiner);
    if (!joiner)
        return jv_tagged(JV_ERROR);
    joiner->sep = c->a[0].tag == JV_MISSING ? jv_of_str(jstr_literal(r, ", ")) : c->a[0];
    return jv_is_error(joiner->sep) ? joiner->sep : (struct jv){.tag = JV_JOINER, .joiner = joiner};
}

static struct jv global_raise_exception(struct render *r, const struct call *c)
{
    const struct jstr *message = jv_to_str(r, c->a[0]);
    if (!message)
        return jv_tagged(JV_ERROR);
    return jv_raise(r, NULL, "%.*s", (int)message->len, message->data);
}

/* strftime knows no microseconds, and a time without zone has an empty one. False: too long. */
static bool expand_format(const struct jstr *format, unsigned micros, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < format->len; i++) {
        char next = i + 1 < format->len ? format->data[i + 1] : 0;
        if (n + 8 >= size)
            return false;
        if (format->data[i] != '%' || !next) {
            out[n++] = format->data[i];
            continue;
        }
        i++;
        if (next == 'f') {
            n += (size_t)snprintf(out + n, size - n, "%06u", micros);
        } else if (next != 'z' && next != 'Z') {
            out[n++] = '%';
            out[n++] = next;
        }
    }
    out[n] = '\0';
    return true;
}

static struct jv global_strftime_now(struct render *r, const struct call *c)
{
    char format[512], text[2048];
    if (c->a[0].tag != JV_STR)
        return jv_raise(r, "TypeError", "strftime() argument 1 must be str, not %s", jv_type_name(c->a[0]));
    int64_t millis = r->now_ms % 1000, adjust = millis < 0;
    time_t seconds = (time_t)(r->now_ms / 1000 - adjust);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm))
        return jv_raise(r, "ValueError", "the clock shows no time that can be printed");
    tm.tm_isdst = -1; /* no zone: %-z and %5Z are empty too */
    tm.tm_zone = "";
    if (!expand_format(c->a[0].s, (unsigned)(millis + adjust * 1000) * 1000, format, sizeof format))
        return jv_too_large(r, "a time format of %u bytes", c->a[0].s->len);
    size_t n = *format ? strftime(text, sizeof text, format, &tm) : 0;
    return jv_of_str(jstr_new(r, text, n));
}

static const struct builtin globals[] = {
    {"cycler", NULL, 0, global_cycler},
    {"dict", NULL, 0, global_dict},
    {"joiner", "sep", 0, global_joiner},
    {"namespace", NULL, 0, global_namespace},
    {"raise_exception", "message", 1, global_raise_exception},
    {"range", "start stop step", 1, global_range},
    {"strftime_now", "format", 1, global_strftime_now},
    {NULL, NULL, 0, NULL},
};

const struct builtin *global_find(const char *name, size_t len)
{
    return builtin_find(globals, name, len);
}
