/* Server-sent events, as the specification reads them: lines of "field: value" (a colon first is a comment),
 * an empty line ends an event, one without data is none. Lines may end in LF or CR LF. */
#include <string.h>

#include "client.h"

#define EVENT_BYTES_MAX ((size_t)1 << 20)

void event_parser_init(struct event_parser *p)
{
    buf_init(&p->line, EVENT_BYTES_MAX);
    buf_init(&p->kind, EVENT_BYTES_MAX);
    buf_init(&p->id, EVENT_BYTES_MAX);
    buf_init(&p->data, EVENT_BYTES_MAX);
    p->has_data = false;
}

void event_parser_fini(struct event_parser *p)
{
    buf_fini(&p->line);
    buf_fini(&p->kind);
    buf_fini(&p->id);
    buf_fini(&p->data);
}

static bool set(struct buf *b, const char *value)
{
    buf_clear(b);
    return buf_puts(b, value);
}

static bool take_field(struct event_parser *p, char *line)
{
    char *value = strchr(line, ':');
    if (value)
        *value++ = '\0';
    else
        value = line + strlen(line);
    if (*value == ' ')
        value++;
    if (strcmp(line, "event") == 0)
        return set(&p->kind, value);
    if (strcmp(line, "id") == 0)
        return set(&p->id, value);
    if (strcmp(line, "data") != 0)
        return true;
    bool ok = (!p->has_data || buf_putc(&p->data, '\n')) && buf_puts(&p->data, value);
    p->has_data = true;
    return ok;
}

static void end_event(struct event_parser *p, client_on_event *on_event, void *data)
{
    struct client_event e = {
        .kind = p->kind.length ? p->kind.data : "message", .id = p->id.data, .data = p->data.data};
    if (p->has_data)
        on_event(&e, data);
    buf_clear(&p->kind);
    buf_clear(&p->data);
    p->has_data = false;
}

bool event_parser_feed(struct event_parser *p, const char *bytes, size_t n, client_on_event *on_event,
                       void *data)
{
    const char *end = bytes + n;
    while (bytes < end) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        if (!buf_append(&p->line, bytes, (size_t)((newline ? newline : end) - bytes)))
            return false;
        if (!newline)
            return true;
        bytes = newline + 1;
        struct buf *line = &p->line;
        if (line->length && line->data[line->length - 1] == '\r')
            line->data[--line->length] = '\0';
        bool ok = true;
        if (line->length == 0)
            end_event(p, on_event, data);
        else
            ok = take_field(p, line->data);
        buf_clear(line);
        if (!ok)
            return false;
    }
    return true;
}
