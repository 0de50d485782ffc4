/* Options from flags and from the configuration file: values, units, and each error with its place. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "conf.h"
#include "options.h"

static enum status read_text(struct conf *c, const char *text, struct error *err)
{
    char path[] = "/tmp/lorikeet-conf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    assert_true(conf_init(c));
    enum status s = conf_read_yaml(c, path, err);
    unlink(path);
    return s;
}

static void the_file_sets_what_flags_set(void **state)
{
    (void)state;
    struct conf c;
    struct error err = {0};
    const char *text =
        "# a comment\nmodel: some/model\nkv-memory: 1.5GiB\nheader-timeout: 2s\nmetrics-public: true\n"
        "listen:\n  - 127.0.0.1:9\n  - unix:/x\nadapter:\n  - pt=a/b:0.5\nlog-format: json\n"
        "log-level: warn\nisa: avx2\nsequences: 12\n";
    enum status s = read_text(&c, text, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(s, STATUS_OK);
    assert_string_equal(c.model, "some/model");
    assert_int_equal(c.kv_bytes, 1610612736);
    assert_int_equal(c.header_timeout_ms, 2000);
    assert_true(c.metrics_public);
    assert_int_equal(c.n_listen, 2);
    assert_string_equal(c.listen[1], "unix:/x");
    assert_int_equal(c.n_adapters, 1);
    assert_string_equal(c.adapters[0].path, "a/b");
    assert_true(c.adapters[0].scale == 0.5);
    assert_true(c.log_json);
    assert_int_equal(c.log_level, LOG_WARN);
    assert_int_equal(c.n_sequences, 12);
    conf_fini(&c);
    assert_int_equal(read_text(&c, "", &err), STATUS_OK);
    conf_fini(&c);
}

static void bad_files_get_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *place, *wanted;
    } table[] = {
        {"model: a\nmodle: b\n", ":2: ", "unknown option \"modle\""},
        {"model: a\nheader-timeout: 30\n", ":2: ", "a time with a unit"},
        {"\n\nkv-memory: 3 parrots\n", ":3: ", "bytes with an optional unit"},
        {"sequences: -1\n", ":1: ", "a whole number"},
        {"sequences: 5000\n", ":1: ", "0 to 4096"},
        {"isa: mmx\n", ":1: ", "auto|scalar|avx2|avxvnni|avx512|neon"},
        {"metrics-public: maybe\n", ":1: ", "true or false"},
        {"listen: x\n", ":1: ", "SEQUENCE"},
        {"model: [a, b]\n", ":1: ", "STRING"},
        {"model: a\nmodel: b\n", ":2: ", "given twice"},
        {"adapter:\n  - pt\n", ":1: ", "NAME=PATH"},
        {"blend:\n  - pt\n", ":1: ", "NAME=VOICE"},
        {"blend:\n  - a=b\n  - a=c\n", ":1: ", "given twice"},
        {"blend:\n  - a b=c\n", ":1: ", "name \"a b\""},
        {"blend:\n  - a=b+\n", ":1: ", "a name is missing"},
        {"blend:\n  - a=b*0.5\n", ":1: ", "a number before it"},
        {"blend:\n  - a=base\n", ":1: ", "expected adapters"},
        {"auto:\n  - pt\n", ":1: ", "WHEN=VOICE"},
        {"cors-origin:\n  - https://a.example/x\n", ":1: ", "an origin without a path"},
        {"cors-origin:\n  - a.example\n", ":1: ", "an origin without a path"},
        {"trusted-proxy:\n  - 10.0.0.1/8\n", ":1: ", "bits set behind its prefix"},
        {"trusted-proxy:\n  - localhost\n", ":1: ", "expected an address, a network"},
        {"auto:\n  - percent:101=a\n", ":1: ", "percent:0 to percent:100"},
        {"auto:\n  - Pt=a\n", ":1: ", "a language's code"},
        {"auto:\n  - pt=a+\n", ":1: ", "a name is missing"},
        {"adapter:\n  - a=b\n  - a=c\n", ":1: ", "given twice"},
        {"- just\n- a list\n", ":", "MAPPING"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct conf c;
        struct error err = {0};
        assert_int_not_equal(read_text(&c, table[i].text, &err), STATUS_OK);
        if (!strstr(err.text, table[i].place) || !strstr(err.text, table[i].wanted))
            print_message("found \"%s\", wanted \"%s\" and \"%s\"\n", err.text, table[i].place,
                          table[i].wanted);
        assert_non_null(strstr(err.text, table[i].place));
        assert_non_null(strstr(err.text, table[i].wanted));
        conf_fini(&c);
    }
}

static void flags_win_and_are_checked(void **state)
{
    (void)state;
    struct conf c;
    struct error err = {0};
    bool help;
    assert_true(conf_init(&c));
    char *args[] = {"serve", "--model",      "m", "--listen=:1", "--metrics-public", "--threads",
                    "2",     "--quant=q8_0", NULL};
    assert_int_equal(conf_read_args(&c, 8, args, &help, &err), STATUS_OK);
    assert_false(help);
    assert_string_equal(c.model, "m");
    assert_true(c.metrics_public);
    assert_int_equal(c.n_threads, 2);
    assert_string_equal(c.quant, "q8_0");
    conf_fini(&c);
    static const struct {
        char *flag, *wanted;
    } bad[] = {{"--nonsense", "unknown flag --nonsense"},
               {"--model", "needs a value"},
               {"stray", "expected a flag"},
               {"--threads=many", "a whole number"},
               {"--config=/no/such/file", "/no/such/file"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *one[] = {"serve", bad[i].flag, NULL};
        assert_true(conf_init(&c));
        assert_int_not_equal(conf_read_args(&c, 2, one, &help, &err), STATUS_OK);
        assert_non_null(strstr(err.text, bad[i].wanted));
        conf_fini(&c);
    }
}

static void voices_are_checked_before_the_start(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wanted;
    } table[] = {
        {"model: m\nblend:\n  - a=b+0.5*c\nalways: 0.5*safety\n", NULL},
        {"model: m\nalways: safety*0.5\n", "--always"},
        {"model: m\nalways: base\n", "expected adapters"},
        {"model: m\nadapter:\n  - a=x\nblend:\n  - a=b\n", "an adapter's name"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct conf c;
        struct error err = {0};
        assert_int_equal(read_text(&c, table[i].text, &err), STATUS_OK);
        enum status s = conf_finish(&c, &err);
        assert_int_equal(s == STATUS_OK, table[i].wanted == NULL);
        if (table[i].wanted && !strstr(err.text, table[i].wanted))
            fail_msg("found \"%s\", wanted \"%s\"", err.text, table[i].wanted);
        conf_fini(&c);
    }
}

static const char *state_after(const char *given, const char *folder, struct conf *c)
{
    struct error err = {0};
    assert_true(conf_init(c));
    if (folder)
        setenv("STATE_DIRECTORY", folder, 1);
    else
        unsetenv("STATE_DIRECTORY");
    assert_int_equal(option_set(c, "model", "m", &err), STATUS_OK);
    if (given)
        assert_int_equal(option_set(c, "state", given, &err), STATUS_OK);
    assert_int_equal(conf_finish(c, &err), STATUS_OK);
    unsetenv("STATE_DIRECTORY");
    return c->state;
}

static void the_state_file_has_a_place_under_systemd(void **state)
{
    (void)state;
    struct conf c;
    assert_null(state_after(NULL, NULL, &c));
    conf_fini(&c);
    assert_null(state_after(NULL, "relative", &c));
    conf_fini(&c);
    assert_string_equal(state_after(NULL, "/var/lib/a:/var/lib/b", &c), "/var/lib/a/adapters.db");
    conf_fini(&c);
    assert_string_equal(state_after("mine.db", "/var/lib/a", &c), "mine.db");
    conf_fini(&c);
    assert_null(state_after("off", "/var/lib/a", &c));
    conf_fini(&c);
}

/* The shipped file is the manual: it must be right, name every option, and show the true defaults. */
static void the_manual_is_complete_and_true(void **state)
{
    (void)state;
    struct conf c;
    struct error err = {0};
    struct buf text;
    buf_init(&text, 0);
    assert_int_equal(file_read_all("conf/lorikeet.yaml", 100000, &text, &err), STATUS_OK);
    assert_true(conf_init(&c));
    assert_int_equal(conf_read_yaml(&c, "conf/lorikeet.yaml", &err), STATUS_OK);
    assert_string_equal(c.model, "demo/model");
#define HAS(kind, key, member, min, max, words, value, help)                                                 \
    if (!strstr(text.data, "\n" key ":") && !strstr(text.data, "\n#" key ":"))                               \
        fail_msg("%s is not in the manual", key);
    OPTION_LIST(HAS)
    /* Each "#option: value" line set as it stands changes nothing. */
    struct conf before = c;
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n")) {
        char key[40], value[80];
        if (sscanf(line, "#%39[a-z-]: %79s", key, value) != 2 || !option_exists(key) || value[0] == '"')
            continue;
        assert_int_equal(option_set(&c, key, value, &err), STATUS_OK);
    }
    assert_int_equal(before.header_timeout_ms, c.header_timeout_ms);
    assert_int_equal(before.body_bytes_max, c.body_bytes_max);
    assert_int_equal(before.ping_interval_ms, c.ping_interval_ms);
    assert_int_equal(before.drain_timeout_ms, c.drain_timeout_ms);
    assert_int_equal(before.connections_max, c.connections_max);
    assert_int_equal(before.adapters_max, c.adapters_max);
    assert_int_equal(before.n_max, c.n_max);
    assert_int_equal(before.metrics_public, c.metrics_public);
    assert_int_equal(before.log_level, c.log_level);
    assert_string_equal(before.act, c.act);
    conf_fini(&c);
    buf_fini(&text);
}

static void the_man_page_names_every_option(void **state)
{
    (void)state;
    struct error err = {0};
    struct buf page;
    buf_init(&page, 0);
    assert_int_equal(file_read_all("docs/man/lorikeet.1", 100000, &page, &err), STATUS_OK);
#define KEY(kind, key, member, min, max, words, value, help) key,
    static const char *const keys[] = {OPTION_LIST(KEY)};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char wanted[100] = ".BI \\-\\-";
        size_t n = strlen(wanted);
        for (const char *k = keys[i]; *k; k++)
            n += (size_t)snprintf(wanted + n, sizeof wanted - n, "%s%c", *k == '-' ? "\\" : "", *k);
        snprintf(wanted + n, sizeof wanted - n, " ");
        if (!strstr(page.data, wanted))
            fail_msg("--%s is not in the man page", keys[i]);
    }
    buf_fini(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_sets_what_flags_set),
        cmocka_unit_test(bad_files_get_their_line),
        cmocka_unit_test(flags_win_and_are_checked),
        cmocka_unit_test(the_manual_is_complete_and_true),
        cmocka_unit_test(the_state_file_has_a_place_under_systemd),
        cmocka_unit_test(the_man_page_names_every_option),
        cmocka_unit_test(voices_are_checked_before_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
