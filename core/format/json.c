/* JSON by our rules: jansson does the parsing, this file keeps what it would let through away from it.
 *
 * jansson recurses once per nesting level and allows 2048 of them, so depth is counted before it sees the
 * text; duplicate keys are refused because two readers of one file must not see two values. */
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "format.h"

#define READ_DEPTH_MAX 64

/* The offset at which nesting passes depth_max, or `length` if it never does. Quotes are honoured; whether
 * the text is JSON at all is left to the parser. */
static size_t find_too_deep(const char *text, size_t length, uint32_t depth_max)
{
    uint32_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > depth_max)
                return i;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return length;
}

static void line_and_column(const char *text, size_t offset, int *line, int *column)
{
    *line = 1, *column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n')
            ++*line, *column = 1;
        else
            ++*column;
    }
}

enum status json_parse(const char *text, size_t length, const char *shown, uint32_t depth_max,
                       struct json_t **out, struct error *err)
{
    *out = NULL;
    size_t too_deep = find_too_deep(text, length, depth_max);
    if (too_deep < length) {
        int line, column;
        line_and_column(text, too_deep, &line, &column);
        return fail(err, STATUS_FORMAT, "%s:%d:%d: nested deeper than %u levels", shown, line, column,
                    depth_max);
    }
    json_error_t e;
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES, &e);
    if (*out)
        return STATUS_OK;
    if (json_error_code(&e) == json_error_out_of_memory)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory to parse %zu bytes", shown, length);
    bool nul = json_error_code(&e) == json_error_null_character; /* whose text is for the library's callers */
    return fail(err, STATUS_FORMAT, "%s:%d:%d: %s", shown, e.line, e.column,
                nul ? "the character \\u0000 is not allowed in strings" : e.text);
}

enum status json_read_at(int dir_fd, const char *shown_dir, const char *name, size_t limit_bytes,
                         struct json_t **out, struct error *err)
{
    *out = NULL;
    struct buf text;
    buf_init(&text, 0);
    enum status s = file_read_all_at(dir_fd, shown_dir, name, limit_bytes, &text, err);
    if (s == STATUS_OK) {
        char shown[512];
        if (!path_join(shown, sizeof shown, shown_dir, name))
            shown[sizeof shown - 1] = '\0';
        s = json_parse(text.data, text.length, shown, READ_DEPTH_MAX, out, err);
    }
    buf_fini(&text);
    return s;
}
