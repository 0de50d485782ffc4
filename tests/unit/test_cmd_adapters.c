/* `lorikeet adapters` without a server: what its arguments mean, what its answers look like, and streams of
 * events cut at any place. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adapters.h"
#include "cmd_adapters.h"

/* Splits at spaces, since a command line is easiest read as one. */
static int split(char *text, char **argv)
{
    int n = 0;
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[n++] = word;
    argv[n] = NULL;
    return n;
}

/* The requests of a line as "METHOD path body [condition]" lines; an error is its text. */
static void describe(const char *line, char *out, size_t n)
{
    char text[400];
    char *argv[40];
    struct adapters_args a;
    struct adapters_plan p = {0};
    struct error err = {0};
    size_t at = 0;
    snprintf(text, sizeof text, "adapters %s", line);
    enum status s = adapters_parse(split(text, argv), argv, &a, &err);
    if (s == STATUS_OK && !a.help)
        s = adapters_plan(&a, true, &p, &err);
    if (s != STATUS_OK)
        at += (size_t)snprintf(out, n, "%s", err.text);
    for (size_t i = 0; s == STATUS_OK && i < p.n; i++) {
        char *body = p.requests[i].body ? json_dumps(p.requests[i].body, JSON_COMPACT) : NULL;
        at += (size_t)snprintf(out + at, n - at, "%s%s %s%s%s%s%s", i ? "\n" : "", p.requests[i].method,
                               p.requests[i].path, body ? " " : "", body ? body : "",
                               p.requests[i].condition[0] ? " " : "", p.requests[i].condition);
        free(body);
    }
    out[at] = '\0';
    adapters_plan_fini(&p);
}

#define HEX32 "0123456789abcdef0123456789abcdef"

static void lines_become_requests(void **state)
{
    (void)state;
    static const struct {
        const char *line, *wanted;
    } table[] = {
        {"list", "GET /admin/v1/adapters"},
        {"list --json --quiet --admin unix:/x", "GET /admin/v1/adapters"},
        {"show pt", "GET /admin/v1/adapters/pt\nGET /admin/v1/adapters/pt/versions"},
        {"show pt --json", "GET /admin/v1/adapters/pt"},
        {"--json show pt", "GET /admin/v1/adapters/pt"},
        {"load pt", "POST /admin/v1/adapters/pt/load {}"},
        {"load pt /a/pt", "PUT /admin/v1/adapters/pt {\"source\":\"/a/pt\"}"},
        {"load --pin pt --scale -0.5 /a/pt --merge auto --effect warn",
         "PUT /admin/v1/adapters/pt "
         "{\"source\":\"/a/pt\",\"scale\":-0.5,\"pinned\":true,\"merge\":\"auto\",\"effect_test\":\"warn\"}"},
        {"load pt hf://o/r --sha256 " HEX32 "0123456789ABCDEF0123456789ABCDEF --dry-run",
         "PUT /admin/v1/adapters/pt?dry_run=1 {\"source\":\"hf://o/r\",\"sha256\":\"" HEX32 HEX32 "\"}"},
        {"load pt /a --canary 10 --if-match 7",
         "PUT /admin/v1/adapters/pt {\"source\":\"/a\",\"publish\":\"canary\"} If-Match: \"7\"\n"
         "PUT /admin/v1/adapters/pt/traffic {\"stable\":90,\"canary\":10}"},
        {"load pt /a --canary 10 --dry-run",
         "PUT /admin/v1/adapters/pt?dry_run=1 {\"source\":\"/a\",\"publish\":\"canary\"}"},
        {"load pt /a --shadow --new",
         "PUT /admin/v1/adapters/pt {\"source\":\"/a\",\"publish\":\"shadow\"} If-None-Match: *"},
        {"load mix --blend pt+0.5*safety", "PUT /admin/v1/adapters/mix {\"blend\":\"pt+0.5*safety\"}"},
        {"unload pt", "POST /admin/v1/adapters/pt/unload {}"},
        {"reload pt --force", "POST /admin/v1/adapters/pt/reload {\"force\":true}"},
        {"remove pt --if-match=12", "DELETE /admin/v1/adapters/pt If-Match: \"12\""},
        {"pin pt", "PUT /admin/v1/adapters/pt/pin {\"pinned\":true}"},
        {"unpin pt", "PUT /admin/v1/adapters/pt/pin {\"pinned\":false}"},
        {"rollback pt", "POST /admin/v1/adapters/pt/rollback {}"},
        {"traffic pt", "GET /admin/v1/adapters/pt/traffic"},
        {"traffic pt stable=90 canary=10", "PUT /admin/v1/adapters/pt/traffic {\"stable\":90,\"canary\":10}"},
        {"traffic pt 7=33 9=67", "PUT /admin/v1/adapters/pt/traffic {\"7\":33,\"9\":67}"},
        {"promote pt", "POST /admin/v1/adapters/pt/promote {}"},
        {"promote pt 9", "POST /admin/v1/adapters/pt/promote {\"generation\":9}"},
        {"merge pt always", "PUT /admin/v1/adapters/pt/merge {\"merge\":\"always\"}"},
        {"effect pt", "GET /admin/v1/adapters/pt/effect"},
        {"shadow pt", "GET /admin/v1/adapters/pt/shadow"},
        {"rescan", "POST /admin/v1/rescan {}"},
        {"watch --since 5", ""},
        {"--help", ""},
        {"load --help", ""},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char found[1000];
        describe(table[i].line, found, sizeof found);
        if (strcmp(found, table[i].wanted) != 0)
            fail_msg("%s:\nfound  %s\nwanted %s", table[i].line, found, table[i].wanted);
    }
}

static void wrong_lines_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *line, *wanted;
    } table[] = {
        {"", "a command is missing"},
        {"frobnicate", "unknown command \"frobnicate\""},
        {"list pt", "usage: lorikeet adapters list"},
        {"show", "usage: lorikeet adapters show NAME"},
        {"list --pin", "list takes no --pin"},
        {"unload pt --if-match 3", "unload takes no --if-match"},
        {"watch --force", "watch takes no --force"},
        {"show pt --nonsense", "--nonsense"},
        {"load pt /a --scale", "--scale needs a value"},
        {"load pt /a --scale nan", "--scale: found \"nan\""},
        {"load pt /a --scale 1x", "expected a number"},
        {"load pt /a --merge sometimes", "never|auto|always"},
        {"load pt /a --merge aut", "never|auto|always"},
        {"load pt /a --effect maybe", "off|warn|enforce"},
        {"load pt /a --canary 101", "whole number up to 100"},
        {"load pt /a --canary 5%", "whole number up to 100"},
        {"load pt /a --canary 5 --shadow", "choose one"},
        {"load pt /a --sha256 12", "64 hex digits"},
        {"load pt /a --if-match -1", "--if-match"},
        {"load pt /a --if-match 1 --new", "exclude each other"},
        {"load pt --pin", "without a SOURCE"},
        {"load pt /a --blend a+b", "no files of its own"},
        {"load pt --blend a+b --canary 5", "--blend goes with none"},
        {"merge pt", "usage: lorikeet adapters merge NAME"},
        {"merge pt perhaps", "never|auto|always"},
        {"traffic pt stable=90", "sum to 90"},
        {"traffic pt stable=90 canary=20", "sum to 110"},
        {"traffic pt stable", "expected stable=90"},
        {"traffic pt =90", "expected stable=90"},
        {"traffic pt stable=90 stable=10", "given twice"},
        {"traffic pt other=100", "stable, canary or a generation"},
        {"traffic pt 7=many", "whole number"},
        {"promote pt newest", "GENERATION"},
        {"watch --since now", "--since"},
        {"show \xff", "must begin with a letter or digit"},
        {"pin a/b", "must begin with a letter or digit"},
        {"load pt@3 /a", "must begin with a letter or digit"},
        {"show -- -x", "must begin with a letter or digit"},
        {"load pt \xff", "no UTF-8"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char found[1000];
        describe(table[i].line, found, sizeof found);
        if (!strstr(found, table[i].wanted))
            fail_msg("%s:\nfound  %s\nwanted %s", table[i].line, found, table[i].wanted);
    }
    char name[ADAPTER_NAME_MAX + 2], line[100], found[1000];
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = '\0';
    snprintf(line, sizeof line, "pin %s", name);
    describe(line, found, sizeof found);
    assert_non_null(strstr(found, "at most 64"));
    char *empty[] = {"adapters", "pin", "", NULL};
    struct adapters_args a;
    struct error err;
    assert_int_equal(adapters_parse(3, empty, &a, &err), STATUS_INVALID);
}

static void relative_paths_are_ours_on_this_machine(void **state)
{
    (void)state;
    char folder[] = "/tmp/lorikeet-cli-XXXXXX", before[4096], *real;
    struct adapters_plan p;
    struct error err;
    assert_non_null(mkdtemp(folder));
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    real = realpath(".", NULL);
    FILE *f = fopen("pt", "w");
    fclose(f);
    static const struct {
        const char *source;
        bool local;
        const char *tail; /* behind the folder; NULL: as given */
    } table[] = {{"pt", true, "/pt"}, {"./pt", true, "/pt"}, {"pt", false, NULL},
                 {"de", true, NULL},  {"/pt", true, NULL},   {"https://h/pt", true, NULL}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct adapters_args a = {.verb = VERB_LOAD, .name = "x", .source = table[i].source, .canary = -1};
        assert_int_equal(adapters_plan(&a, table[i].local, &p, &err), STATUS_OK);
        char wanted[4200];
        snprintf(wanted, sizeof wanted, "%s%s", table[i].tail ? real : "",
                 table[i].tail ? table[i].tail : table[i].source);
        assert_string_equal(json_string_value(json_object_get(p.requests[0].body, "source")), wanted);
        adapters_plan_fini(&p);
    }
    unlink("pt");
    assert_int_equal(chdir(before), 0);
    rmdir(folder);
    free(real);
}

/* ---- answers */

static const char pt_json[] =
    "{\"name\":\"pt\",\"source\":\"/a/pt\",\"blend\":null,\"state\":\"resident\",\"digest\":"
    "\"0123456789abcdef0123\",\"generation\":9,\"previous\":7,\"shadow\":0,\"traffic\":{\"9\":90,\"7\":10},"
    "\"pinned\":true,\"merge\":\"auto\",\"merged\":{\"state\":\"built\",\"bytes\":5},\"scale\":1.0,"
    "\"bytes\":1234567,\"rank_min\":4,\"rank_max\":16,\"kinds\":[\"lora\",\"dora\"],\"last_error\":null}";
static const char de_json[] =
    "{\"name\":\"a_long_name.of-an_adapter\",\"state\":\"registered\",\"generation\":0,\"digest\":null,"
    "\"traffic\":{},\"pinned\":false,\"merge\":\"never\",\"merged\":null,\"bytes\":0,\"last_error\":"
    "{\"code\":\"format\",\"message\":\"cut\\u001b[2J short\",\"at\":1700000000}}";

static void render(const char *line, const char *answer, const char *more, struct buf *out)
{
    char text[200];
    char *argv[20];
    struct adapters_args a;
    struct error err = {0};
    snprintf(text, sizeof text, "adapters %s", line);
    if (adapters_parse(split(text, argv), argv, &a, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    json_t *json = json_loads(answer, 0, NULL), *second = more ? json_loads(more, 0, NULL) : NULL;
    assert_non_null(json);
    buf_clear(out);
    adapters_render(&a, json, second, out);
    json_decref(json);
    json_decref(second);
}

static void tables_are_aligned(void **state)
{
    (void)state;
    struct buf out;
    char list[2000];
    buf_init(&out, 0);
    snprintf(list, sizeof list, "{\"data\":[%s,%s]}", de_json, pt_json);
    render("list", list, NULL, &out);
    assert_string_equal(out.data, "NAME                       STATE                GEN  DIGEST        RANK  "
                                  "BYTES   MERGE         PINNED  "
                                  "TRAFFIC\n"
                                  "a_long_name.of-an_adapter  registered (failed)  -    -             -     "
                                  "-       never         -       "
                                  "-\n"
                                  "pt                         resident             9    0123456789ab  4-16  "
                                  "1.2 MB  auto (built)  yes     "
                                  "9=90 7=10\n");
    render("list --quiet", list, NULL, &out);
    assert_string_equal(out.data, "a_long_name.of-an_adapter\npt\n");
    render("list", "{\"data\":[]}", NULL, &out);
    assert_string_equal(out.data, "NAME  STATE  GEN  DIGEST  RANK  BYTES  MERGE  PINNED  TRAFFIC\n");
    render("list", "{\"data\":[{\"name\":5},{}]}", NULL, &out); /* of a stranger: nothing but dashes */
    assert_non_null(strstr(out.data, "\n-     -      -    -       -     -      -      -       -\n"));
    buf_fini(&out);
}

static void one_name_with_all_its_fields(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 0);
    render("show x", de_json,
           "{\"data\":[{\"generation\":3,\"digest\":\"ff\",\"role\":\"old\",\"resident\":true,\"bytes\":999,"
           "\"rank_max\":8,\"requests\":5,\"failures\":0,\"published_at\":1700000000}]}",
           &out);
    assert_non_null(strstr(out.data, "\nlast_error.message  cut?[2J short\n"));
    assert_non_null(strstr(out.data, "\nlast_error.at       2023-11-14 22:13:20Z\n"));
    assert_non_null(strstr(out.data, "\ntraffic             -\n"));
    assert_non_null(strstr(out.data,
                           "\nGEN  DIGEST  ROLE  RESIDENT  BYTES  RANK  REQUESTS  FAILURES  PUBLISHED\n"
                           "3    ff      old   yes       999 B  8     5         0         2023-11-14 "
                           "22:13:20Z\n"));
    render("show pt", pt_json, NULL, &out);
    assert_non_null(strstr(out.data, "\nkinds             lora dora\n"));
    assert_non_null(strstr(out.data, "\nmerged.state      built\n"));
    assert_non_null(strstr(out.data, "\npinned            yes\n"));
    assert_non_null(strstr(out.data, "\nbytes             1.2 MB\n"));
    render("show pt --quiet", pt_json, NULL, &out);
    assert_string_equal(out.data, "");
    buf_fini(&out);
}

static void changes_are_one_line(void **state)
{
    (void)state;
    struct buf out;
    char loaded[2000];
    const char *of_pt = "generation 9, digest 0123456789ab, rank 4-16, 1.2 MB, traffic 9=90 7=10, pinned\n";
    char wanted[400];
    buf_init(&out, 0);
    static const struct {
        const char *line, *fields, *wanted;
    } table[] = {
        {"load pt /a", "\"unchanged\":false,\"generation\":9", "pt: loaded, "},
        {"reload pt", "\"unchanged\":true,\"generation\":9", "pt: unchanged, "},
        {"load pt /a --canary 5", "\"generation\":12", "pt: loaded generation 12 as canary; stable: "},
        {"load pt /a --shadow", "\"generation\":12", "pt: loaded generation 12 as shadow; stable: "},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        snprintf(loaded, sizeof loaded, "{%s,\"report\":{},\"adapter\":%s}", table[i].fields, pt_json);
        render(table[i].line, loaded, NULL, &out);
        snprintf(wanted, sizeof wanted, "%s%s", table[i].wanted, of_pt);
        assert_string_equal(out.data, wanted);
    }
    render("rollback pt", pt_json, NULL, &out);
    snprintf(wanted, sizeof wanted, "pt: rolled back, %s", of_pt);
    assert_string_equal(out.data, wanted);
    render("load pt", pt_json, NULL, &out);
    assert_non_null(strstr(out.data, "pt: in memory, generation 9"));
    render("load pt /a --dry-run", "{\"report\":{\"bytes\":2048,\"format\":\"peft\"},\"adapter\":null}", NULL,
           &out);
    assert_string_equal(out.data, "pt: would be loaded; nothing has changed\nbytes             2.0 kB\n"
                                  "format            peft\n");
    render("load mix --blend a+b", "{\"adapter\":{\"name\":\"mix\",\"blend\":\"a+b\"}}", NULL, &out);
    assert_string_equal(out.data, "mix: kept, blend a+b\n");
    render("remove pt", "{\"removed\":\"pt\"}", NULL, &out);
    assert_string_equal(out.data, "pt: removed\n");
    render("remove pt --quiet", "{\"removed\":\"pt\"}", NULL, &out);
    assert_string_equal(out.data, "");
    render("traffic pt", "{\"stable\":100}", NULL, &out);
    assert_string_equal(out.data, "stable            100\n");
    render("effect pt", "{\"kl\":0.25,\"modules\":{\"q\":{\"norm\":1e-9}}}", NULL, &out);
    assert_string_equal(out.data, "kl                0.25\nmodules.q.norm    1e-09\n");
    buf_fini(&out);
}

/* ---- events */

static void take_event(const struct client_event *e, void *data)
{
    buf_printf(data, "<%s|%s|%s>", e->kind, e->id, e->data);
}

static void streams_may_be_cut_anywhere(void **state)
{
    (void)state;
    static const char stream[] = ": ping\n\nevent: published\nid: 12\ndata: {\"name\":\"pt\"}\n\nid: "
                                 "13\r\ndata:one\r\ndata: two\r\n\r\n"
                                 "event: lost\n\ndata\n\nretry: 5\nother: x\ndata: :x: y\n\ndata: unfinished";
    static const char wanted[] =
        "<published|12|{\"name\":\"pt\"}><message|13|one\ntwo><message|13|><message|13|:x: y>";
    for (size_t piece = 1; piece < sizeof stream; piece++) {
        struct event_parser p;
        struct buf out;
        event_parser_init(&p);
        buf_init(&out, 0);
        for (size_t at = 0; at < sizeof stream - 1; at += piece) {
            size_t n = sizeof stream - 1 - at < piece ? sizeof stream - 1 - at : piece;
            assert_true(event_parser_feed(&p, stream + at, n, take_event, &out));
        }
        assert_string_equal(out.data, wanted);
        event_parser_fini(&p);
        buf_fini(&out);
    }
}

static void endless_lines_end(void **state)
{
    (void)state;
    struct event_parser p;
    char chunk[4096];
    bool ok = true;
    memset(chunk, 'x', sizeof chunk);
    event_parser_init(&p);
    int n = 0;
    for (; n < 1000 && ok; n++)
        ok = event_parser_feed(&p, chunk, sizeof chunk, take_event, NULL);
    assert_false(ok);
    assert_true(n > 200 && n < 300); /* 1 MiB */
    event_parser_fini(&p);
    event_parser_init(&p);
    for (n = 0, ok = true; n < 1000 && ok; n++)
        ok = event_parser_feed(&p, "data: ", 6, take_event, NULL) &&
             event_parser_feed(&p, chunk, sizeof chunk, take_event, NULL) &&
             event_parser_feed(&p, "\n", 1, take_event, NULL);
    assert_false(ok);
    event_parser_fini(&p);
}

static void changes_as_lines(void **state)
{
    (void)state;
    static const struct {
        struct client_event e;
        const char *wanted;
    } table[] = {
        {{"published", "12", "{\"revision\":12,\"name\":\"pt\",\"generation\":3,\"digest\":\"0a1b\"}"},
         "12 published pt 3 0a1b"},
        {{"removed", "13", "{\"revision\":13,\"name\":\"pt\",\"generation\":0,\"digest\":\"\"}"},
         "13 removed pt - -"},
        {{"reset", "99", "{}"}, "99 reset - - -"},
        {{"odd\033[2J", "", "not json"}, "- odd?[2J - - -"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf out;
        buf_init(&out, 0);
        adapters_render_change(&table[i].e, &out);
        assert_string_equal(out.data, table[i].wanted);
        buf_fini(&out);
    }
}

static void addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"unix:/run/x.sock", "127.0.0.1:80",          "[::1]:8081", ":8081",
                                       "http://host:1/",   "http://127.0.0.1:65535"};
    static const char *const bad[] = {
        "",      "unix:",       "host",          "host:", "host:x", "host:123456", "http://host",
        "a/b:1", "user@host:1", "https://host:1"};
    struct client *c;
    struct error err;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (client_open(good[i], &c, &err) != STATUS_OK)
            fail_msg("%s: %s", good[i], err.text);
        assert_int_equal(client_is_local(c), i == 0);
        client_close(c);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (client_open(bad[i], &c, &err) != STATUS_INVALID)
            fail_msg("\"%s\" is taken for an address", bad[i]);
    client_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_become_requests),
        cmocka_unit_test(wrong_lines_say_why),
        cmocka_unit_test(relative_paths_are_ours_on_this_machine),
        cmocka_unit_test(tables_are_aligned),
        cmocka_unit_test(one_name_with_all_its_fields),
        cmocka_unit_test(changes_are_one_line),
        cmocka_unit_test(streams_may_be_cut_anywhere),
        cmocka_unit_test(endless_lines_end),
        cmocka_unit_test(changes_as_lines),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
