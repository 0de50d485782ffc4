/* What the server said, for people: tables, lists of keys and values, one line for a change. Pure.
 *
 * Everything shown comes from the server's JSON and may be missing in an older or newer one: then it is "-".
 * What has no form of its own is listed as it comes, so that a new field needs no change here. */
#include "cmd_adapters.h"

#include <string.h>
#include <time.h>

#define CELL_BYTES 80
#define N_COLUMNS_MAX 10

typedef char cell[CELL_BYTES];

void adapters_put_text(struct buf *out, const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        bool c1 =
            c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0; /* U+0080 to U+009F: some terminals obey them */
        if (c1)
            c++;
        buf_putc(out, c1 || *c < 0x20 || *c == 0x7f ? '?' : (char)*c);
    }
}

/* ---- values */

static json_t *get(json_t *object, const char *key)
{
    return json_object_get(object, key);
}

static const char *text_of(json_t *object, const char *key)
{
    return json_string_value(get(object, key));
}

static void put_bytes(char *out, size_t n, json_int_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    int unit = 0;
    for (; v >= 999.5 && unit < 4; unit++)
        v /= 1000;
    snprintf(out, n, unit && v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

static void put_time(char *out, size_t n, json_int_t seconds)
{
    time_t t = (time_t)seconds;
    struct tm parts;
    if (!gmtime_r(&t, &parts) || !strftime(out, n, "%Y-%m-%d %H:%M:%SZ", &parts))
        snprintf(out, n, "%lld", (long long)seconds);
}

static bool ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && strcmp(text + n - m, tail) == 0;
}

/* A scalar by what its key says that it is. */
static void put_scalar(struct buf *out, const char *key, json_t *v)
{
    char text[64];
    if (json_is_string(v)) {
        adapters_put_text(out, json_string_value(v));
    } else if (json_is_integer(v)) {
        json_int_t n = json_integer_value(v);
        if (strcmp(key, "bytes") == 0 || ends_with(key, "_bytes"))
            put_bytes(text, sizeof text, n);
        else if ((strcmp(key, "at") == 0 || ends_with(key, "_at")) && n > 0)
            put_time(text, sizeof text, n);
        else
            snprintf(text, sizeof text, "%lld", (long long)n);
        buf_puts(out, text);
    } else if (json_is_real(v)) {
        buf_printf(out, "%.6g", json_real_value(v));
    } else if (json_is_boolean(v)) {
        buf_puts(out, json_is_true(v) ? "yes" : "no");
    } else {
        buf_puts(out, "-");
    }
}

#define FIELD_DEPTH_MAX 4
#define FIELD_WIDTH_MIN 16U
#define FIELD_WIDTH_MAX 40U

/* Of the longest path of keys, within bounds. */
static size_t field_width(size_t before, json_t *object, int depth)
{
    size_t width = FIELD_WIDTH_MIN;
    const char *key;
    json_t *v;
    json_object_foreach(object, key, v)
    {
        size_t here = before + strlen(key);
        if (json_object_size(v) > 0 && depth < FIELD_DEPTH_MAX)
            here = field_width(here + 1, v, depth + 1);
        width = here > width ? here : width;
    }
    return width < FIELD_WIDTH_MAX ? width : FIELD_WIDTH_MAX;
}

static void put_nested(struct buf *out, const char *prefix, json_t *object, int depth, size_t width)
{
    const char *key;
    json_t *v;
    json_object_foreach(object, key, v)
    {
        char path[120];
        snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] ? "." : "", key);
        if (json_object_size(v) > 0 && depth < FIELD_DEPTH_MAX) {
            put_nested(out, path, v, depth + 1, width);
            continue;
        }
        bool odd = json_is_null(v) || (json_is_object(v) && json_object_size(v) == 0);
        size_t at = out->length, i;
        json_t *item;
        adapters_put_text(out, path);
        for (size_t n = out->length - at; n < width; n++)
            buf_putc(out, ' ');
        buf_puts(out, "  ");
        if (odd)
            buf_puts(out, "-");
        else if (!json_is_array(v))
            put_scalar(out, key, v);
        json_array_foreach(v, i, item)
        {
            buf_puts(out, i ? " " : "");
            put_scalar(out, key, item);
        }
        buf_putc(out, '\n');
    }
}

/* Objects as "key value" lines, what is nested behind its key; lists of scalars in one line. */
static void put_fields(struct buf *out, json_t *object)
{
    put_nested(out, "", object, 0, field_width(0, object, 0));
}

/* ---- tables */

static void put_cells(struct buf *out, cell *cells, const size_t *widths, int n)
{
    for (int i = 0; i < n; i++) {
        if (i < n - 1)
            buf_printf(out, "%-*s  ", (int)widths[i], cells[i]);
        else
            buf_printf(out, "%s\n", cells[i]);
    }
}

/* Cells of one row of `data`. */
typedef void make_row(json_t *item, cell *cells);

static void put_table(struct buf *out, const char *const *heads, int n, json_t *data, make_row *make)
{
    cell cells[N_COLUMNS_MAX];
    size_t widths[N_COLUMNS_MAX], i;
    json_t *item;
    for (int c = 0; c < n; c++)
        widths[c] = strlen(heads[c]);
    json_array_foreach(data, i, item)
    {
        make(item, cells);
        for (int c = 0; c < n; c++)
            widths[c] = strlen(cells[c]) > widths[c] ? strlen(cells[c]) : widths[c];
    }
    for (int c = 0; c < n; c++)
        snprintf(cells[c], CELL_BYTES, "%s", heads[c]);
    put_cells(out, cells, widths, n);
    json_array_foreach(data, i, item)
    {
        make(item, cells);
        put_cells(out, cells, widths, n);
    }
}

static void cell_text(char *out, json_t *item, const char *key, int limit)
{
    struct buf safe;
    const char *text = text_of(item, key);
    buf_init(&safe, 0);
    adapters_put_text(&safe, text && text[0] ? text : "-");
    snprintf(out, CELL_BYTES, "%.*s", limit, safe.data);
    buf_fini(&safe);
}

static void cell_number(char *out, json_t *item, const char *key)
{
    json_int_t n = json_integer_value(get(item, key));
    snprintf(out, CELL_BYTES, n ? "%lld" : "-", (long long)n);
}

static void cell_bytes(char *out, json_t *item, bool shown)
{
    json_int_t n = json_integer_value(get(item, "bytes"));
    snprintf(out, CELL_BYTES, "-");
    if (shown && n)
        put_bytes(out, CELL_BYTES, n);
}

static void cell_rank(char *out, json_t *item)
{
    json_int_t min = json_integer_value(get(item, "rank_min")),
               max = json_integer_value(get(item, "rank_max"));
    if (min && min != max)
        snprintf(out, CELL_BYTES, "%lld-%lld", (long long)min, (long long)max);
    else
        cell_number(out, item, "rank_max");
}

static void cell_traffic(char *out, json_t *item)
{
    const char *key;
    json_t *v;
    size_t n = 0;
    snprintf(out, CELL_BYTES, "-");
    json_object_foreach(get(item, "traffic"), key, v)
    {
        n += (size_t)snprintf(out + n, CELL_BYTES - n, "%s%.20s=%lld", n ? " " : "", key,
                              (long long)json_integer_value(v));
        if (n >= CELL_BYTES)
            return;
    }
    json_int_t shadow = json_integer_value(get(item, "shadow"));
    if (shadow)
        snprintf(out + n, CELL_BYTES - n, "%sshadow=%lld", n ? " " : "", (long long)shadow);
}

static void adapter_row(json_t *a, cell *cells)
{
    const char *state = text_of(a, "state"), *merged = text_of(get(a, "merged"), "state");
    bool resident = state && strcmp(state, "resident") == 0, failed = json_is_object(get(a, "last_error"));
    cell merge;
    cell_text(cells[0], a, "name", CELL_BYTES);
    cell_text(cells[1], a, "state", 20);
    if (failed)
        snprintf(cells[1] + strlen(cells[1]), CELL_BYTES - strlen(cells[1]), " (failed)");
    cell_number(cells[2], a, "generation");
    cell_text(cells[3], a, "digest", 12);
    cell_rank(cells[4], a);
    cell_bytes(cells[5], a, resident);
    cell_text(merge, a, "merge", 20);
    snprintf(cells[6], CELL_BYTES, merged ? "%.20s (%.20s)" : "%.20s", merge, merged ? merged : "");
    snprintf(cells[7], CELL_BYTES, "%s", json_is_true(get(a, "pinned")) ? "yes" : "-");
    cell_traffic(cells[8], a);
}

static void version_row(json_t *v, cell *cells)
{
    cell_number(cells[0], v, "generation");
    cell_text(cells[1], v, "digest", 12);
    cell_text(cells[2], v, "role", 20);
    snprintf(cells[3], CELL_BYTES, "%s", json_is_true(get(v, "resident")) ? "yes" : "-");
    cell_bytes(cells[4], v, true);
    cell_number(cells[5], v, "rank_max");
    snprintf(cells[6], CELL_BYTES, "%lld", (long long)json_integer_value(get(v, "requests")));
    snprintf(cells[7], CELL_BYTES, "%lld", (long long)json_integer_value(get(v, "failures")));
    snprintf(cells[8], CELL_BYTES, "-");
    if (json_integer_value(get(v, "published_at")) > 0)
        put_time(cells[8], CELL_BYTES, json_integer_value(get(v, "published_at")));
}

static void put_list(const struct adapters_args *a, json_t *answer, struct buf *out)
{
    static const char *const heads[] = {"NAME",  "STATE", "GEN",    "DIGEST", "RANK",
                                        "BYTES", "MERGE", "PINNED", "TRAFFIC"};
    json_t *data = get(answer, "data");
    size_t i;
    json_t *item;
    if (!a->quiet) {
        put_table(out, heads, 9, data, adapter_row);
        return;
    }
    json_array_foreach(data, i, item)
    {
        adapters_put_text(out, text_of(item, "name") ? text_of(item, "name") : "-");
        buf_putc(out, '\n');
    }
}

static void put_show(json_t *answer, json_t *versions, struct buf *out)
{
    static const char *const heads[] = {"GEN",  "DIGEST",   "ROLE",     "RESIDENT", "BYTES",
                                        "RANK", "REQUESTS", "FAILURES", "PUBLISHED"};
    put_fields(out, answer);
    if (json_array_size(get(versions, "data")) == 0)
        return;
    buf_putc(out, '\n');
    put_table(out, heads, 9, get(versions, "data"), version_row);
}

/* ---- one line for a change */

static void put_outcome(const struct adapters_args *a, json_t *adapter, const char *what, struct buf *out)
{
    cell cells[9];
    const char *blend = text_of(adapter, "blend");
    adapter_row(adapter, cells);
    buf_printf(out, "%s: %s%s ", a->name, what, what[strlen(what) - 1] == ':' ? "" : ",");
    if (blend && blend[0]) {
        buf_puts(out, "blend ");
        adapters_put_text(out, blend);
    } else {
        buf_printf(out, "generation %s, digest %s, rank %s, %s", cells[2], cells[3], cells[4], cells[5]);
    }
    if (strcmp(cells[8], "-") != 0)
        buf_printf(out, ", traffic %s", cells[8]);
    buf_puts(out, json_is_true(get(adapter, "pinned")) ? ", pinned\n" : "\n");
}

static void put_loaded(const struct adapters_args *a, json_t *answer, struct buf *out)
{
    if (!get(answer, "adapter") && !get(answer, "report")) { /* load without a source */
        put_outcome(a, answer, "in memory", out);
        return;
    }
    if (a->dry_run) {
        buf_printf(out, "%s: would be loaded; nothing has changed\n", a->name);
        put_fields(out, get(answer, "report"));
        return;
    }
    json_t *generation = get(answer, "generation");
    char what[80];
    const char *done = a->blend ? "kept" : json_is_true(get(answer, "unchanged")) ? "unchanged" : "loaded";
    if (json_integer_value(generation) &&
        json_integer_value(generation) != json_integer_value(get(get(answer, "adapter"), "generation")))
        snprintf(what, sizeof what, "%s generation %lld as %s; stable:", done,
                 (long long)json_integer_value(generation), a->shadow ? "shadow" : "canary");
    else
        snprintf(what, sizeof what, "%s", done);
    put_outcome(a, get(answer, "adapter"), what, out);
}

void adapters_render(const struct adapters_args *a, json_t *answer, json_t *more, struct buf *out)
{
    static const char *const words[] = {[VERB_UNLOAD] = "out of memory",
                                        [VERB_PIN] = "pinned",
                                        [VERB_UNPIN] = "unpinned",
                                        [VERB_ROLLBACK] = "rolled back",
                                        [VERB_TRAFFIC] = "traffic",
                                        [VERB_PROMOTE] = "promoted",
                                        [VERB_MERGE] = "set",
                                        [VERB_WATCH] = NULL};
    if (a->verb == VERB_LIST) {
        put_list(a, answer, out);
        return;
    }
    if (a->quiet)
        return;
    switch (a->verb) {
    case VERB_SHOW:
        put_show(answer, more, out);
        break;
    case VERB_LOAD:
    case VERB_RELOAD:
        put_loaded(a, answer, out);
        break;
    case VERB_REMOVE:
        buf_printf(out, "%s: removed\n", a->name);
        break;
    case VERB_EFFECT:
    case VERB_SHADOW:
    case VERB_RESCAN:
        put_fields(out, answer);
        break;
    default:
        if (a->verb == VERB_TRAFFIC && a->n_shares == 0)
            put_fields(out, answer);
        else
            put_outcome(a, answer, words[a->verb], out);
        break;
    }
}

void adapters_render_change(const struct client_event *e, struct buf *out)
{
    json_t *c = json_loads(e->data, 0, NULL);
    json_int_t revision = json_integer_value(get(c, "revision")),
               generation = json_integer_value(get(c, "generation"));
    const char *name = text_of(c, "name"), *digest = text_of(c, "digest");
    if (revision)
        buf_printf(out, "%lld", (long long)revision);
    else
        adapters_put_text(out, e->id[0] ? e->id : "-");
    buf_putc(out, ' ');
    adapters_put_text(out, e->kind);
    buf_putc(out, ' ');
    adapters_put_text(out, name && name[0] ? name : "-");
    buf_printf(out, generation ? " %lld " : " - ", (long long)generation);
    adapters_put_text(out, digest && digest[0] ? digest : "-");
    json_decref(c);
}
