/* The configuration file: a YAML mapping of the same options as the command line has, read with libcyaml.
 *
 * libcyaml checks the form (a mapping of texts, and lists of texts where an option takes a list); the values
 * then go through the same setters as flags. Errors name file and line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cyaml/cyaml.h>

#include "base/buf.h"
#include "base/file.h"
#include "conf.h"
#include "options.h"
#include "yaml_text.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)

/* One member an option: a text, or a list of texts. */
struct yaml_conf {
#define MEMBER_TEXT(m) char *text_##m;
#define MEMBER_CHOICE(m) MEMBER_TEXT(m)
#define MEMBER_COUNT(m) MEMBER_TEXT(m)
#define MEMBER_BYTES(m) MEMBER_TEXT(m)
#define MEMBER_DURATION(m) MEMBER_TEXT(m)
#define MEMBER_BOOL(m) MEMBER_TEXT(m)
#define MEMBER_LIST(m)                                                                                       \
    char **text_##m;                                                                                         \
    unsigned text_##m##_count;
#define MEMBER(kind, key, member, min, max, words, value, help) MEMBER_##kind(member)
    OPTION_LIST(MEMBER)
#undef MEMBER
};

static const cyaml_schema_value_t list_item = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED)};

static const cyaml_schema_field_t fields[] = {
#define FIELD_TEXT(key, m)                                                                                   \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_conf, text_##m, 0,     \
                           CYAML_UNLIMITED),
#define FIELD_CHOICE(key, m) FIELD_TEXT(key, m)
#define FIELD_COUNT(key, m) FIELD_TEXT(key, m)
#define FIELD_BYTES(key, m) FIELD_TEXT(key, m)
#define FIELD_DURATION(key, m) FIELD_TEXT(key, m)
#define FIELD_BOOL(key, m) FIELD_TEXT(key, m)
#define FIELD_LIST(key, m)                                                                                   \
    CYAML_FIELD_SEQUENCE(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_conf, text_##m,          \
                         &list_item, 0, CYAML_UNLIMITED),
#define FIELD(kind, key, member, min, max, words, value, help) FIELD_##kind(key, member)
    OPTION_LIST(FIELD)
#undef FIELD
        CYAML_FIELD_END};

static const cyaml_schema_value_t top = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct yaml_conf, fields)};

struct reader {
    struct conf *conf;
    const char *path, *text;
    struct yaml_complaint why;
};

/* The line of a key of the top mapping, at its nth occurrence (a second one is an error). */
static unsigned line_of(const char *text, const char *key, unsigned nth)
{
    unsigned line = 1;
    size_t n = strlen(key);
    for (const char *p = text; p; line++) {
        if (strncmp(p, key, n) == 0 && p[n + strspn(p + n, " \t\"'")] == ':' && --nth == 0)
            return line;
        p = strchr(p, '\n');
        p = p ? p + 1 : NULL;
    }
    return 1;
}

static enum status refuse(struct reader *r, struct error *err)
{
    static const char unknown[] = "Unexpected key: ", twice[] = "Mapping field already seen: ";
    const char *key = r->why.text + sizeof unknown - 1;
    if (strncmp(r->why.text, unknown, sizeof unknown - 1) == 0)
        return fail(err, STATUS_FORMAT, "%s:%u: unknown option \"%s\"; conf/lorikeet.yaml lists all of them",
                    r->path, line_of(r->text, key, 1), key);
    key = r->why.text + sizeof twice - 1;
    if (strncmp(r->why.text, twice, sizeof twice - 1) == 0)
        return fail(err, STATUS_FORMAT, "%s:%u: option \"%s\" is given twice", r->path,
                    line_of(r->text, key, 2), key);
    return fail(err, STATUS_FORMAT,
                "%s:%u: %s; expected \"option: value\" lines, or a list where an option takes one", r->path,
                r->why.line ? r->why.line : 1, r->why.text[0] ? r->why.text : "not YAML");
}

static enum status set_one(struct reader *r, const char *key, const char *value, struct error *err)
{
    enum status s = option_set(r->conf, key, value, err);
    return s == STATUS_OK ? s : fail_within(err, "%s:%u", r->path, line_of(r->text, key, 1));
}

static enum status set_list(struct reader *r, const char *key, char **values, unsigned n, struct error *err)
{
    enum status s = STATUS_OK;
    for (unsigned i = 0; i < n && s == STATUS_OK; i++)
        s = set_one(r, key, values[i], err);
    return s;
}

static enum status set_all(struct reader *r, const struct yaml_conf *y, struct error *err)
{
    enum status s = STATUS_OK;
#define SET_TEXT(key, m)                                                                                     \
    if (s == STATUS_OK && y->text_##m)                                                                       \
        s = set_one(r, key, y->text_##m, err);
#define SET_CHOICE(key, m) SET_TEXT(key, m)
#define SET_COUNT(key, m) SET_TEXT(key, m)
#define SET_BYTES(key, m) SET_TEXT(key, m)
#define SET_DURATION(key, m) SET_TEXT(key, m)
#define SET_BOOL(key, m) SET_TEXT(key, m)
#define SET_LIST(key, m)                                                                                     \
    if (s == STATUS_OK)                                                                                      \
        s = set_list(r, key, y->text_##m, y->text_##m##_count, err);
#define SET(kind, key, member, min, max, words, value, help) SET_##kind(key, member)
    OPTION_LIST(SET)
#undef SET
    return s;
}

enum status conf_read_yaml(struct conf *c, const char *path, struct error *err)
{
    struct buf text;
    buf_init(&text, 0);
    struct reader r = {.conf = c, .path = path};
    void *y = NULL;
    enum status s = file_read_all(path, FILE_BYTES_MAX, &text, err);
    if (s == STATUS_OK) {
        r.text = text.data;
        if (!yaml_text_load(text.data, text.length, &top, &y, &r.why))
            s = refuse(&r, err);
        else if (y)
            s = set_all(&r, y, err);
        yaml_text_free(&top, y);
    }
    buf_fini(&text);
    return s;
}
