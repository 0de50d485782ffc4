#include "yaml_text.h"

#include <cyaml/cyaml.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void keep_message(cyaml_log_t level, void *data, const char *format, va_list args)
{
    struct yaml_complaint *c = data;
    char message[256];
    (void)level;
    vsnprintf(message, sizeof message, format, args);
    message[strcspn(message, "\n")] = '\0';
    const char *line = strstr(message, "(line: ");
    if (line && c->line == 0)
        c->line = (unsigned)strtoul(line + 7, NULL, 10);
    if (!c->text[0])
        snprintf(c->text, sizeof c->text, "%s", strncmp(message, "Load: ", 6) ? message : message + 6);
}

bool yaml_text_load(const char *text, size_t length, const struct cyaml_schema_value *schema, void **out,
                    struct yaml_complaint *why)
{
    const cyaml_config_t config = {
        .log_fn = keep_message, .log_ctx = why, .log_level = CYAML_LOG_ERROR, .mem_fn = cyaml_mem};
    *why = (struct yaml_complaint){.text = ""};
    *out = NULL;
    if (length == 0)
        return true;
    cyaml_err_t e = cyaml_load_data((const uint8_t *)text, length, &config, schema, out, NULL);
    if (e != CYAML_OK && !why->text[0])
        snprintf(why->text, sizeof why->text, "%s", cyaml_strerror(e));
    return e == CYAML_OK;
}

void yaml_text_free(const struct cyaml_schema_value *schema, void *data)
{
    const cyaml_config_t config = {.mem_fn = cyaml_mem};
    if (data)
        (void)cyaml_free(&config, schema, data, 0);
}

void yaml_text_put(json_t *o, const char *key, const char *text)
{
    if (text)
        json_object_set_new(o, key, json_string(text));
}

void yaml_text_put_list(json_t *o, const char *key, char *const *items, unsigned n)
{
    json_t *list = items ? json_array() : NULL;
    for (unsigned i = 0; i < n && list; i++)
        json_array_append_new(list, json_string(items[i]));
    if (list)
        json_object_set_new(o, key, list);
}
