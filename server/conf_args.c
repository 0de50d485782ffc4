/* The command line of `lorikeet serve` into struct conf. Flags are the rows of options.h: --key VALUE or
 * --key=VALUE. */
#include <stdio.h>
#include <string.h>

#include "conf.h"
#include "options.h"

#define KEY_BYTES_MAX 40

/* One flag at argv[*i]; moves *i behind its value. *value NULL: a BOOL without one. */
static enum status split_flag(int argc, char **argv, int *i, char *key, const char **value, struct error *err)
{
    const char *arg = argv[*i];
    const char *equals = strchr(arg, '=');
    size_t n = equals ? (size_t)(equals - arg) : strlen(arg);
    if (strncmp(arg, "--", 2) != 0 || n <= 2 || n - 2 >= KEY_BYTES_MAX)
        return fail(err, STATUS_INVALID, "found \"%s\", expected a flag; `lorikeet serve --help` lists them",
                    arg);
    snprintf(key, KEY_BYTES_MAX, "%.*s", (int)n - 2, arg + 2);
    bool known = option_exists(key) || strcmp(key, "config") == 0 || strcmp(key, "help") == 0;
    if (!known)
        return fail(err, STATUS_INVALID, "unknown flag --%s; `lorikeet serve --help` lists them", key);
    ++*i;
    *value = equals ? equals + 1 : NULL;
    bool needs_value = strcmp(key, "help") != 0;
    if (*value || !needs_value)
        return STATUS_OK;
    if (option_is_bool(key) && (*i == argc || strncmp(argv[*i], "--", 2) == 0)) {
        *value = "true";
        return STATUS_OK;
    }
    if (*i == argc)
        return fail(err, STATUS_INVALID, "--%s needs a value", key);
    *value = argv[(*i)++];
    return STATUS_OK;
}

/* First pass: --config and --help alone, so that flags win wherever they stand. */
static enum status read_config_files(struct conf *c, int argc, char **argv, bool *help, struct error *err)
{
    char key[KEY_BYTES_MAX];
    const char *value = NULL;
    enum status s = STATUS_OK;
    for (int i = 1; i < argc && s == STATUS_OK;) {
        s = split_flag(argc, argv, &i, key, &value, err);
        if (s == STATUS_OK && strcmp(key, "help") == 0)
            *help = true;
        if (s == STATUS_OK && strcmp(key, "config") == 0)
            s = conf_read_yaml(c, value, err);
    }
    return s;
}

enum status conf_read_args(struct conf *c, int argc, char **argv, bool *help, struct error *err)
{
    static const char *const lists[] = {"listen", "admin-listen", "adapter-root", "source-allow"};
    bool seen[4] = {false};
    char key[KEY_BYTES_MAX];
    const char *value = NULL;
    *help = false;
    enum status s = read_config_files(c, argc, argv, help, err);
    for (int i = 1; i < argc && s == STATUS_OK && !*help;) {
        s = split_flag(argc, argv, &i, key, &value, err);
        if (s != STATUS_OK || strcmp(key, "config") == 0)
            continue;
        for (int l = 0; l < 4; l++)
            if (strcmp(key, lists[l]) == 0 && !seen[l]) {
                seen[l] = true;
                option_reset_list(c, key);
            }
        s = option_set(c, key, value, err);
        if (s != STATUS_OK)
            s = fail_within(err, "--%s", key);
    }
    return s;
}
