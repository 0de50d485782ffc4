/* Tenants without a server: settings out of JSON, keys, whose voice is whose, windows, and what is kept on
 * disk. */
#include "tests/test.h"

#include <dlfcn.h>
#include <fnmatch.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "made_files.h"
#include "server.h"
#include "state.h"
#include "tenant_file.h"
#include "tenant_keeper.h"
#include "tenant_store.h"
#include "tenants.h"

#define S NS_PER_S

/* ---- settings */

static struct tenant_spec *spec(const char *name, const char *text)
{
    struct tenant_spec *s = NULL;
    struct fault f = {0};
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    if (tenant_spec_parse(name, json, &s, &f) != STATUS_OK)
        fail_msg("%s", f.error.text);
    json_decref(json);
    return s;
}

static void settings_are_read(void **state)
{
    (void)state;
    struct tenant_spec *s = spec("acme", "{\"voices\":[\"pt\",\"de-*\"],\"aliases\":{\"me\":\"pt+0.5*x\"},"
                                         "\"weight\":3,\"tokens_per_day\":5,\"priority\":\"batch\","
                                         "\"endpoints\":[\"/v1/*\"],\"context\":100}");
    assert_true(s->names_voices && s->batch && s->weight == 3 && s->tokens_day == 5 && s->context == 100);
    assert_true(s->requests_minute == LIMIT_NONE && s->concurrent == LIMIT_NONE);
    assert_true(text_list_matches(&s->voices, "pt") && text_list_matches(&s->voices, "de-1"));
    assert_false(text_list_matches(&s->voices, "ptx") || text_list_matches(&s->voices, "de"));
    assert_string_equal(tenant_spec_alias(s, "me"), "pt+0.5*x");
    assert_null(tenant_spec_alias(s, "m"));
    assert_true(tenant_spec_allows_path(s, "/v1/models/x") && !tenant_spec_allows_path(s, "/tokenize"));
    tenant_spec_release(s);
    s = spec("open", "{}");
    assert_true(tenant_spec_allows_path(s, "/tokenize") && !s->names_voices && s->weight == 1);
    tenant_spec_release(s);
}

static json_t *applied(const struct tenant_spec *s, const char *body, enum status expected)
{
    struct fault f = {0};
    json_t *json = json_loads(body, 0, NULL);
    assert_int_equal(tenant_spec_apply(s, json, &f), expected);
    if (expected == STATUS_OK) {
        assert_int_equal(tenant_spec_apply_system(s, json, &f), STATUS_OK);
        return json;
    }
    assert_string_equal(f.code, "locked");
    json_decref(json);
    return NULL;
}

static void bodies_get_the_tenants_own(void **state)
{
    (void)state;
    struct tenant_spec *s =
        spec("x", "{\"sampling\":{\"temperature\":0.5,\"max_tokens\":9},\"locked\":[\"temperature\","
                  "\"top_k\"],\"system_prompt\":\"Be good.\"}");
    static const struct {
        const char *body, *becomes; /* NULL: locked */
    } cases[] = {
        {"{}", "{\"temperature\":0.5,\"max_tokens\":9}"},
        {"{\"max_completion_tokens\":4}", "{\"max_completion_tokens\":4,\"temperature\":0.5}"},
        {"{\"max_tokens\":null}", "{\"temperature\":0.5,\"max_tokens\":9}"},
        {"{\"temperature\":0.5,\"max_tokens\":1}", "{\"temperature\":0.5,\"max_tokens\":1}"},
        {"{\"temperature\":0.6}", NULL},
        {"{\"top_k\":5}", NULL}, /* locked without a default: nobody may say it */
        {"{\"messages\":[],\"max_tokens\":1}", "{\"messages\":[],\"max_tokens\":1,\"temperature\":0.5}"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1}",
         "{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
         "good.\"},{\"role\":\"user\",\"content\":\"a\"}],"
         "\"max_tokens\":1,\"temperature\":0.5}"},
        {"{\"messages\":[{\"role\":\"system\",\"content\":\"b\"}],\"max_tokens\":1}",
         "{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
         "good.\\n\\nb\"}],\"max_tokens\":1,\"temperature\":0.5}"},
        {"{\"messages\":[7],\"max_tokens\":1}", "{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
                                                "good.\"},7],\"max_tokens\":1,\"temperature\":0.5}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *got = applied(s, cases[i].body, cases[i].becomes ? STATUS_OK : STATUS_INVALID);
        json_t *wanted = cases[i].becomes ? json_loads(cases[i].becomes, 0, NULL) : NULL;
        if (wanted && !json_equal(got, wanted))
            fail_msg("case %zu: %s", i, json_dumps(got, 0));
        json_decref(got);
        json_decref(wanted);
    }
    tenant_spec_release(s);
}

/* ---- tenants and keys */

static void put(struct tenants *t, const char *name, enum tenant_origin origin, const char *text)
{
    struct error err;
    assert_int_equal(tenants_put(t, name, origin, text ? spec(name, text) : NULL, 1, &err), STATUS_OK);
}

static void add_key(struct tenants *t, const char *tenant, enum tenant_origin origin, char *text, char *id)
{
    struct tenant_key k = {.origin = origin, .created_ms = (int64_t)tenants_n_keys(t)};
    struct error err;
    assert_true(key_make(text, k.id));
    key_digest(text, k.digest);
    snprintf(k.tenant, sizeof k.tenant, "%s", tenant);
    snprintf(k.name, sizeof k.name, "prod");
    assert_int_equal(tenants_add_key(t, &k, &err), STATUS_OK);
    assert_int_equal(tenants_add_key(t, &k, &err), STATUS_EXISTS);
    if (id)
        memcpy(id, k.id, sizeof k.id);
}

static const char *who(const struct tenants *t, const char *text)
{
    struct tenant *owner = NULL;
    const struct tenant_key *k = tenants_check(t, text, &owner);
    assert_true((k != NULL) == (owner != NULL));
    return owner ? owner->name : "";
}

static void keys_are_found_by_their_text_alone(void **state)
{
    (void)state;
    enum { N = 300 };
    static char texts[N][KEY_TEXT_LENGTH + 1], ids[N][KEY_ID_LENGTH + 1];
    struct tenants *t = tenants_create();
    char name[20];
    assert_false(tenants_closed(t));
    assert_string_equal(who(t, ""), "");
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "t%d", i % 100);
        if (i < 100)
            put(t, name, FROM_STATE, "{}");
        add_key(t, name, FROM_STATE, texts[i], ids[i]);
    }
    assert_true(tenants_closed(t));
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "t%d", i % 100);
        assert_string_equal(who(t, texts[i]), name);
        char other[KEY_TEXT_LENGTH + 2];
        snprintf(other, sizeof other, "%sx", texts[i]);
        assert_string_equal(who(t, other), "");
        other[KEY_TEXT_LENGTH - 1] = '\0';
        assert_string_equal(who(t, other), "");
    }
    assert_int_equal(tenants_n_active(t, "t5", "prod"), 3);
    assert_string_equal(tenants_oldest(t, "t5", "prod")->id, ids[5]);
    tenants_revoke(t, ids[5], 77);
    assert_string_equal(who(t, texts[5]), "");
    assert_string_equal(who(t, texts[105]), "t5");
    assert_string_equal(tenants_oldest(t, "t5", "prod")->id, ids[105]);
    /* A tenant goes with its keys, but not while a request has it. */
    struct tenant *held = tenant_hold(tenants_find(t, "t7"));
    put(t, "t7", FROM_STATE, NULL);
    assert_string_equal(who(t, texts[7]), ""); /* a name without settings */
    tenants_drop_keys(t, FROM_STATE, "t7");
    assert_null(tenants_find(t, "t7"));
    put(t, "t7", FROM_STATE, "{}");
    assert_true(tenants_find(t, "t7")->number != held->number);
    tenant_release(t, held);
    for (size_t i = 1; i < tenants_count(t); i++)
        assert_true(strcmp(tenants_at(t, i - 1)->name, tenants_at(t, i)->name) < 0);
    tenants_destroy(t);
}

static void the_file_wins_and_leaves(void **state)
{
    (void)state;
    struct tenants *t = tenants_create();
    char a[KEY_TEXT_LENGTH + 1], b[KEY_TEXT_LENGTH + 1];
    put(t, "x", FROM_STATE, "{\"requests_per_minute\":1}");
    put(t, "x", FROM_FILE, "{\"requests_per_minute\":2}");
    put(t, "y", FROM_FILE, "{}");
    add_key(t, "x", FROM_FILE, a, NULL);
    add_key(t, "y", FROM_STATE, b, NULL);
    assert_true(tenants_find(t, "x")->requests_minute.limit == 2);
    put(t, "x", FROM_FILE, NULL);
    put(t, "y", FROM_FILE, NULL);
    assert_true(tenants_find(t, "x")->requests_minute.limit == 1);
    assert_string_equal(who(t, a), "x");
    assert_string_equal(who(t, b), "");
    tenants_drop_keys(t, FROM_FILE, NULL);
    assert_string_equal(who(t, a), "");
    put(t, "y", FROM_FILE, "{}");
    assert_string_equal(who(t, b), "y");
    tenants_destroy(t);
}

static void take_file(struct tenants *t, const char *dir, const char *text, size_t n)
{
    struct tenants_file f;
    struct error err;
    char path[96];
    put_file(dir, "t.yaml", text, n);
    snprintf(path, sizeof path, "%s/t.yaml", dir);
    if (tenants_file_read(path, &f, &err) != STATUS_OK || tenants_file_apply(t, &f, path, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    tenants_file_fini(&f);
}

static void a_file_takes_the_place_of_the_one_before(void **state)
{
    (void)state;
    static const char first[] = "tenants:\n  - {name: zoe, own_voices: [z-*], keys: [{id: k1, sha256: "
                                "0000000000000000000000000000000000000000000000000000000000000001}]}\n"
                                "  - {name: ann, own_voices: [a-*], keys: [{id: k3, sha256: "
                                "0000000000000000000000000000000000000000000000000000000000000003}, "
                                "{id: k2, sha256: "
                                "0000000000000000000000000000000000000000000000000000000000000002}]}\n";
    static const char second[] = "tenants:\n  - {name: mid}\n  - {name: ann, own_voices: [b-*], keys: [{id: "
                                 "k2, sha256: "
                                 "0000000000000000000000000000000000000000000000000000000000000002}]}\n";
    struct folder folder = folder_make();
    struct tenants *t = tenants_create();
    char text[KEY_TEXT_LENGTH + 1], id[KEY_ID_LENGTH + 1];
    put(t, "zoe", FROM_STATE, "{}");
    add_key(t, "zoe", FROM_STATE, text, id);
    take_file(t, folder.path, first, strlen(first));
    assert_true(tenants_count(t) == 2 && tenants_n_keys(t) == 4);
    assert_int_equal(tenants_find(t, "zoe")->n_active_keys, 2);
    assert_false(tenants_may_use(t, tenant_spec_of(tenants_find(t, "zoe")), "a-1"));
    take_file(t, folder.path, second, strlen(second));
    assert_true(tenants_count(t) == 3 && tenants_n_keys(t) == 2); /* zoe stays for her key */
    assert_true(tenants_key(t, "k2") && !tenants_key(t, "k1") && !tenants_key(t, "k3"));
    const struct tenant_spec *mid = tenant_spec_of(tenants_find(t, "mid"));
    assert_true(tenants_may_use(t, mid, "a-1") && tenants_may_use(t, mid, "z-1"));
    assert_false(tenants_may_use(t, mid, "b-1"));
    assert_true(tenants_find(t, "zoe")->n_active_keys == 1 && tenants_find(t, "ann")->n_active_keys == 1);
    tenants_revoke(t, id, 9);
    tenants_revoke(t, id, 10);
    assert_true(tenants_find(t, "zoe")->n_active_keys == 0 &&
                tenants_find(t, "zoe")->n_keys[FROM_STATE] == 1);
    take_file(t, folder.path, "tenants: []\n", 12);
    assert_true(tenants_count(t) == 1 && tenants_n_keys(t) == 1);
    put(t, "zoe", FROM_STATE, NULL);
    tenants_drop_keys(t, FROM_STATE, "zoe");
    assert_true(tenants_count(t) == 0 && tenants_n_keys(t) == 0);
    tenants_destroy(t);
    folder_remove(&folder);
}

/* Everything is as the first file of the next test has it. */
static void check_first(const struct tenants *t)
{
    const struct tenant *ann = tenants_find(t, "ann"), *zoe = tenants_find(t, "zoe");
    assert_true(tenants_count(t) == 2 && tenants_n_keys(t) == 3 && ann && zoe);
    assert_true(tenants_key(t, "k1") && tenants_key(t, "k2") && tenants_key(t, "k3"));
    assert_true(ann->n_active_keys == 2 && zoe->n_active_keys == 1);
    assert_true(tenants_may_use(t, tenant_spec_of(ann), "a-1"));
    assert_false(tenants_may_use(t, tenant_spec_of(zoe), "a-1"));
    assert_true(tenants_may_use(t, tenant_spec_of(zoe), "b-1"));
}

static void a_file_that_has_no_memory_changes_nothing(void **state)
{
    (void)state;
    struct folder folder = folder_make();
    struct tenants_file f;
    struct error err;
    char path[96];
    struct buf first, second;
    buf_init(&first, 0);
    buf_init(&second, 0);
    buf_printf(
        &first,
        "tenants:\n  - {name: zoe, keys: [{id: k1, sha256: %064x}]}\n"
        "  - {name: ann, own_voices: [a-*], keys: [{id: k2, sha256: %064x}, {id: k3, sha256: %064x}]}\n",
        1, 2, 3);
    buf_puts(&second, "tenants:\n");
    for (int i = 0; i < 40; i++)
        buf_printf(&second, "  - {name: new%d, own_voices: [b-*], keys: [{id: n%d, sha256: %064x}]}\n", i, i,
                   99 - i);
    struct tenants *t = tenants_create();
    take_file(t, folder.path, first.data, first.length);
    put_file(folder.path, "t.yaml", second.data, second.length);
    snprintf(path, sizeof path, "%s/t.yaml", folder.path);
    assert_int_equal(tenants_file_read(path, &f, &err), STATUS_OK);
    enum status s = STATUS_NO_MEMORY;
    int n_failed = -1;
    for (; s != STATUS_OK; n_failed++) {
        check_first(t);
        mem_fail_at((uint64_t)n_failed + 2);
        s = tenants_file_apply(t, &f, path, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY);
    }
    assert_true(n_failed > 40 && tenants_count(t) == 40 && tenants_n_keys(t) == 40 && tenants_key(t, "n7"));
    tenants_file_fini(&f);
    tenants_destroy(t);
    buf_fini(&first);
    buf_fini(&second);
    folder_remove(&folder);
}

static enum status take_made(struct tenants *t, const char *dir, char letter, unsigned n)
{
    struct tenants_file f;
    struct error err;
    struct buf text;
    char path[96];
    buf_init(&text, 0);
    buf_puts(&text, "tenants:\n");
    for (unsigned i = 0; i < n; i++)
        buf_printf(&text, "  - name: %c%u\n", letter, i);
    put_file(dir, "t.yaml", text.data, text.length);
    snprintf(path, sizeof path, "%s/t.yaml", dir);
    assert_int_equal(tenants_file_read(path, &f, &err), STATUS_OK);
    enum status s = tenants_file_apply(t, &f, path, &err);
    tenants_file_fini(&f);
    buf_fini(&text);
    return s;
}

/* As many as may be give way to as many others; one that has requests needs its place until they end. */
static void a_file_that_has_no_room_changes_nothing(void **state)
{
    (void)state;
    struct folder folder = folder_make();
    struct tenants *t = tenants_create();
    assert_int_equal(take_made(t, folder.path, 'a', TENANTS_MAX), STATUS_OK);
    assert_int_equal(take_made(t, folder.path, 'b', TENANTS_MAX), STATUS_OK);
    struct tenant *busy = tenant_hold(tenants_find(t, "b7"));
    assert_int_equal(take_made(t, folder.path, 'c', TENANTS_MAX), STATUS_FULL);
    assert_true(tenants_count(t) == TENANTS_MAX && tenants_find(t, "b7") == busy);
    assert_int_equal(take_made(t, folder.path, 'c', 3), STATUS_OK);
    assert_int_equal(take_made(t, folder.path, 'd', TENANTS_MAX), STATUS_FULL);
    assert_true(tenants_count(t) == 3 && tenants_find(t, "c2"));
    tenant_release(t, busy);
    assert_int_equal(take_made(t, folder.path, 'd', TENANTS_MAX), STATUS_OK);
    assert_true(tenants_count(t) == TENANTS_MAX);
    tenants_destroy(t);
    folder_remove(&folder);
}

static uint64_t n_strcmp;

/* The library's, counted. */
int strcmp(const char *a, const char *b)
{
    static int (*real)(const char *, const char *);
    if (!real)
        *(void **)(void *)&real = dlsym(RTLD_NEXT, "strcmp");
    n_strcmp++;
    return real(a, b);
}

/* How many names are compared to read a file with so many tenants, of two keys each, and put it in force for
 * the second time. */
static uint64_t steps_of_file(const char *dir, unsigned n)
{
    struct tenants *t = tenants_create();
    struct buf text;
    buf_init(&text, 0);
    buf_puts(&text, "tenants:\n");
    for (unsigned i = 0; i < n; i++)
        buf_printf(&text,
                   "  - name: t%u\n    keys:\n      - {id: a%u, sha256: %064x}\n"
                   "      - {id: b%u, sha256: %064x}\n",
                   i, i, 2 * i, i, 2 * i + 1);
    take_file(t, dir, text.data, text.length);
    n_strcmp = 0;
    take_file(t, dir, text.data, text.length);
    assert_true(tenants_count(t) == n && tenants_n_keys(t) == 2U * n);
    buf_fini(&text);
    tenants_destroy(t);
    return n_strcmp;
}

/* Requests wait while a file is put in force. */
static void a_longer_file_is_no_more_work_for_each_key(void **state)
{
    (void)state;
    struct folder folder = folder_make();
    uint64_t few = steps_of_file(folder.path, 128), many = steps_of_file(folder.path, 2048);
    assert_true(few > 128);
    if (many > 2 * 16 * few)
        fail_msg("16 times the tenants: %llu names are compared after %llu", (unsigned long long)many,
                 (unsigned long long)few);
    folder_remove(&folder);
}

static void voices_are_whose_they_are(void **state)
{
    (void)state;
    struct tenants *t = tenants_create();
    put(t, "a", FROM_STATE, "{\"own_voices\":[\"a-*\"]}");
    put(t, "b", FROM_STATE, "{\"own_voices\":[\"b1\"],\"voices\":[\"*\"]}");
    put(t, "c", FROM_STATE, "{\"voices\":[\"pt\",\"a-1\",\"base\"]}");
    put(t, "d", FROM_STATE, "{\"voices\":[]}");
    static const struct {
        const char *tenant, *voice;
        bool may;
    } cases[] = {{"a", "a-1", true},  {"a", "b1", false},  {"a", "pt", true},  {"b", "a-1", false},
                 {"b", "b1", true},   {"b", "pt", true},   {"c", "pt", true},  {"c", "a-1", false},
                 {"c", "base", true}, {"c", "de", false},  {"d", "pt", false}, {"d", "base", false},
                 {"a", "base", true}, {"b", "a-9", false}, {"a", "a-", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct tenant_spec *s = tenant_spec_of(tenants_find(t, cases[i].tenant));
        if (tenants_may_use(t, s, cases[i].voice) != cases[i].may)
            fail_msg("%s, %s", cases[i].tenant, cases[i].voice);
    }
    tenants_destroy(t);
}

/* ---- windows */

/* Against a list of all that was taken: never more than the limit in any stretch of the span's length, and no
 * refusal but for what the last span and a part have seen. */
static unsigned n_fnmatch;

/* The library's, counted. */
int fnmatch(const char *pattern, const char *name, int flags)
{
    static int (*real)(const char *, const char *, int);
    if (!real)
        *(void **)(void *)&real = dlsym(RTLD_NEXT, "fnmatch");
    n_fnmatch++;
    return real(pattern, name, flags);
}

/* A name of somebody else's and one of nobody's are looked up by the same steps. (How long they take, and
 * that the bytes are the same: tests/bench/bench_foreign.py, tests/api/test_tenants.py.) */
static void a_foreign_name_is_as_much_work_as_a_missing_one(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"voice3", "voice_"}, {"team3-voice", "team3-never"}, {"de-pt-AT", "de-pt-no"}};
    struct tenants *t = tenants_create();
    char name[20], text[100];
    unsigned all = 0;
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "t%d", i);
        snprintf(text, sizeof text, "{\"own_voices\": [\"voice%d\", \"team%d-*\", \"de-*-AT\"]}", i, i);
        put(t, name, FROM_STATE, text);
    }
    put(t, "asker", FROM_STATE, "{\"own_voices\": [\"mine-*\"], \"voices\": [\"mine-*\", \"pt\"]}");
    const struct tenant_spec *asker = tenant_spec_of(tenants_find(t, "asker"));
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        unsigned steps[2];
        uint64_t allocations[2];
        for (int k = 0; k < 2; k++) {
            n_fnmatch = 0;
            uint64_t before = mem_count();
            assert_false(tenants_may_use(t, asker, pairs[i][k]));
            allocations[k] = mem_count() - before;
            steps[k] = n_fnmatch;
        }
        assert_int_equal(steps[0], steps[1]);
        assert_true(allocations[0] == 0 && allocations[1] == 0);
        all += steps[0];
    }
    assert_true(all > 0); /* it is counted */
    tenants_destroy(t);
}

static void windows_hold_in_every_stretch(void **state)
{
    (void)state;
    enum { N = 4000 };
    static int64_t at[N];
    static uint64_t taken[N];
    struct window w;
    int n = 0;
    uint64_t seed = 7;
    int64_t now = 5;
    window_init(&w, 50, 60 * S);
    while (n < N) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407U;
        now += (int64_t)(seed >> 33) % (3 * S);
        uint64_t want = 1 + (seed >> 20) % 7, sum = 0, loose = 0;
        for (int i = n; i-- > 0 && now - at[i] <= 61 * S;) {
            sum += now - at[i] < 60 * S ? taken[i] : 0;
            loose += taken[i];
        }
        bool room = window_room(&w, now) >= want;
        assert_true(!room || sum + want <= 50);
        assert_true(room || loose + want > 50);
        if (!room) {
            int64_t wait = window_wait_ns(&w, want, now);
            assert_true(wait > 0 && wait <= 61 * S);
            struct window later = w;
            assert_true(window_room(&later, now + wait) >= want);
            later = w;
            assert_true(window_room(&later, now + wait - 1) < want);
            continue;
        }
        window_take(&w, want, now);
        at[n] = now;
        taken[n++] = want;
    }
    assert_int_equal(window_wait_ns(&w, 51, now), -1);
    assert_true(window_room(&w, now + window_reset_ns(&w, now)) == 50);
}

static void what_is_given_back_was_taken_then(void **state)
{
    (void)state;
    struct window w;
    window_init(&w, 100, 60 * S);
    window_take(&w, 80, 10 * S);
    window_take(&w, 20, 30 * S);
    assert_true(window_room(&w, 31 * S) == 0);
    window_give(&w, 70, 10 * S, 40 * S);
    assert_true(window_room(&w, 40 * S) == 70);
    window_give(&w, 5, 10 * S, 80 * S); /* forgotten by then */
    assert_true(window_room(&w, 80 * S) == 80);
    window_restore(&w, 30, 80 * S - 59 * S, 80 * S);
    window_restore(&w, 30, 80 * S - 70 * S, 80 * S); /* too long ago */
    assert_true(window_room(&w, 80 * S) == 50);
    window_init(&w, 100, 24 * 3600 * S); /* a machine that has just started */
    window_restore(&w, 40, -20 * 3600 * S, 5 * S);
    assert_true(window_room(&w, 5 * S) == 60);
    assert_true(window_room(&w, 5 * 3600 * S) == 100);
}

/* ---- on disk */

struct kept {
    char text[4000];
};

static enum status see_tenant(const char *name, const char *text, int64_t created_ms, void *data,
                              struct error *err)
{
    struct kept *k = data;
    size_t n = strlen(k->text);
    (void)err;
    snprintf(k->text + n, sizeof k->text - n, "%s %s %lld|", name, text, (long long)created_ms);
    return STATUS_OK;
}

static enum status see_key(const struct tenant_key *key, void *data, struct error *err)
{
    struct kept *k = data;
    size_t n = strlen(k->text);
    (void)err;
    snprintf(k->text + n, sizeof k->text - n, "%s/%s/%s %d %lld %lld|", key->tenant, key->name, key->id,
             key->digest[0], (long long)key->created_ms, (long long)key->revoked_ms);
    return STATUS_OK;
}

static void expect_kept(struct tenant_store *s, const char *wanted)
{
    struct kept k = {""};
    struct error err;
    const struct store_visitor v = {see_tenant, see_key, &k};
    assert_int_equal(tenant_store_load(s, &v, &err), STATUS_OK);
    assert_string_equal(k.text, wanted);
}

static void see_usage(const struct usage_row *u, void *data)
{
    struct kept *k = data;
    size_t n = strlen(k->text);
    snprintf(k->text + n, sizeof k->text - n, "%lld %s %s %llu %llu|", (long long)u->hour_ms, u->tenant,
             u->voice, (unsigned long long)u->n_requests, (unsigned long long)u->n_out);
}

static void see_change(const struct change_line *l, void *data)
{
    struct kept *k = data;
    size_t n = strlen(k->text);
    snprintf(k->text + n, sizeof k->text - n, "%s %s %s|", l->operation, l->object, l->by);
}

static void see_served(const struct served_row *r, void *data)
{
    struct kept *k = data;
    size_t n = strlen(k->text);
    snprintf(k->text + n, sizeof k->text - n, "%lld %lld %s %s %s|", (long long)r->id, (long long)r->at_ms,
             r->tenant, r->voice, r->version);
}

static void add_lines(struct tenant_store *s, int64_t from, int64_t to, uint64_t most, int64_t oldest_ms)
{
    static struct served_row rows[8];
    struct error err;
    size_t n = 0;
    for (int64_t i = from; i <= to; i++, n++) {
        rows[n] = (struct served_row){.at_ms = i * 1000, .request = "r", .status = 200};
        snprintf(rows[n].tenant, sizeof rows[n].tenant, i % 2 ? "a" : "b");
        snprintf(rows[n].voice, sizeof rows[n].voice, i % 3 ? "pt" : "pt+0.5*de");
        snprintf(rows[n].version, sizeof rows[n].version, "%d", (int)i);
    }
    const struct store_batch b = {
        .served = rows, .n_served = n, .served_rows_max = most, .served_from_ms = oldest_ms};
    assert_int_equal(tenant_store_add(s, &b, &err), STATUS_OK);
}

static void what_was_served_is_kept(struct tenant_store *s)
{
    static const struct {
        struct served_query q;
        const char *wanted;
    } asked[] = {
        {{NULL, NULL, NULL, NULL, NULL, 0, INT64_MAX, INT64_MAX, 2}, "6 6000 b pt+0.5*de 6|5 5000 a pt 5|"},
        {{NULL, NULL, NULL, NULL, NULL, 0, INT64_MAX, 3, 9}, "2 2000 b pt 2|1 1000 a pt 1|"},
        {{"a", NULL, NULL, NULL, NULL, 0, INT64_MAX, INT64_MAX, 2}, "5 5000 a pt 5|3 3000 a pt+0.5*de 3|"},
        {{NULL, NULL, "pt+0.5*de", NULL, NULL, 0, INT64_MAX, INT64_MAX, 9},
         "6 6000 b pt+0.5*de 6|3 3000 a pt+0.5*de 3|"},
        {{NULL, NULL, NULL, "4", NULL, 0, INT64_MAX, INT64_MAX, 9}, "4 4000 b pt 4|"},
        {{NULL, NULL, NULL, NULL, NULL, 2000, 4000, INT64_MAX, 9}, "3 3000 a pt+0.5*de 3|2 2000 b pt 2|"},
        {{"a", NULL, "pt", "1", "r", 0, 9999, 9, 9}, "1 1000 a pt 1|"},
        {{NULL, "k", NULL, NULL, NULL, 0, INT64_MAX, INT64_MAX, 9}, ""},
        {{"' OR 1=1 --", NULL, NULL, NULL, NULL, 0, INT64_MAX, INT64_MAX, 9}, ""},
    };
    struct kept seen;
    struct error err;
    add_lines(s, 1, 6, 100, 0);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        seen.text[0] = '\0';
        assert_int_equal(tenant_store_served(s, &asked[i].q, see_served, &seen, &err), STATUS_OK);
        assert_string_equal(seen.text, asked[i].wanted);
    }
    struct served_query all = {.to_ms = INT64_MAX, .before = INT64_MAX, .limit = 9};
    add_lines(s, 7, 7, 3, 0); /* the last three are kept */
    seen.text[0] = '\0';
    assert_int_equal(tenant_store_served(s, &all, see_served, &seen, &err), STATUS_OK);
    assert_string_equal(seen.text, "7 7000 a pt 7|6 6000 b pt+0.5*de 6|5 5000 a pt 5|");
    add_lines(s, 8, 8, 3, 7500); /* and those that aren't too old */
    seen.text[0] = '\0';
    assert_int_equal(tenant_store_served(s, &all, see_served, &seen, &err), STATUS_OK);
    assert_string_equal(seen.text, "8 8000 b pt 8|");
}

static void the_store_keeps_what_it_is_told(void **state)
{
    (void)state;
    struct folder folder = folder_make();
    char path[96];
    struct state *file;
    struct tenant_store *s;
    struct error err;
    snprintf(path, sizeof path, "%s/s.db", folder.path);
    if (state_open(path, &file, &err) != STATUS_OK || tenant_store_open(path, &s, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    struct tenant_key k = {.id = "0123456789ab", .tenant = "a", .name = "prod", .digest = {9}};
    const struct store_change changes[] = {
        {.tenant = "a", .spec = "{}", .wall_ms = 5, .operation = "tenant", .object = "a", .by = "me"},
        {.tenant = "a", .spec = "{\"x\":1}", .wall_ms = 6, .operation = "tenant", .object = "a", .by = "me"},
        {.key = &k, .wall_ms = 7, .operation = "key", .object = "a/0123456789ab", .by = "you"},
        {.revoke = "0123456789ab", .wall_ms = 8, .operation = "key revoked", .object = "a/0123456789ab"},
    };
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(tenant_store_apply(s, &changes[i], &err), STATUS_OK);
    assert_int_equal(tenant_store_apply(s, &changes[2], &err), STATUS_EXISTS); /* and nothing of it is kept */
    expect_kept(s, "a {\"x\":1} 5|a/prod/0123456789ab 9 7 8|");
    struct kept seen = {""};
    assert_int_equal(tenant_store_changes(s, INT64_MAX, 3, see_change, &seen, &err), STATUS_OK);
    assert_string_equal(seen.text, "key revoked a/0123456789ab |key a/0123456789ab you|tenant a me|");
    struct usage_row rows[2] = {
        {.hour_ms = 3600000, .tenant = "a", .voice = "pt", .n_requests = 1, .n_out = 5},
        {.hour_ms = 7200000, .tenant = "b", .voice = "pt", .n_requests = 2, .n_out = 1}};
    for (int i = 0; i < 3; i++)
        assert_int_equal(tenant_store_add(s, &(struct store_batch){.usage = rows, .n_usage = 2}, &err),
                         STATUS_OK);
    tenant_store_close(s);
    assert_int_equal(tenant_store_open(path, &s, &err), STATUS_OK);
    static const struct {
        struct usage_query q;
        const char *wanted;
    } asked[] = {{{NULL, 0, INT64_MAX, 9}, "3600000 a pt 3 15|7200000 b pt 6 3|"},
                 {{"b", 0, INT64_MAX, 9}, "7200000 b pt 6 3|"},
                 {{NULL, 0, 7200000, 9}, "3600000 a pt 3 15|"},
                 {{NULL, 0, INT64_MAX, 1}, "3600000 a pt 3 15|"}};
    for (size_t i = 0; i < 4; i++) {
        seen.text[0] = '\0';
        assert_int_equal(tenant_store_usage(s, &asked[i].q, see_usage, &seen, &err), STATUS_OK);
        assert_string_equal(seen.text, asked[i].wanted);
    }
    assert_int_equal(tenant_store_forget_usage(s, 7200000, &err), STATUS_OK);
    seen.text[0] = '\0';
    assert_int_equal(tenant_store_usage(s, &asked[0].q, see_usage, &seen, &err), STATUS_OK);
    assert_string_equal(seen.text, "7200000 b pt 6 3|");
    what_was_served_is_kept(s);
    const struct store_change gone = {.tenant = "a", .wall_ms = 9};
    assert_int_equal(tenant_store_apply(s, &gone, &err), STATUS_OK);
    expect_kept(s, "");
    tenant_store_close(s);
    state_close(file);
    folder_remove(&folder);
}

struct sum {
    uint64_t n_rows, n_requests, n_any;
    bool newest;
};

static void add_up(const struct usage_row *u, void *data)
{
    struct sum *s = data;
    s->n_rows++;
    s->n_requests += u->n_requests;
    s->n_any += strcmp(u->voice, "*") == 0 ? u->n_requests : 0;
    s->newest |= strcmp(u->voice, "voice7999") == 0;
}

/* More rows than are held at once: for the file nothing is lost but names, in memory the oldest go. */
static void usage_is_bounded(void **state)
{
    (void)state;
    struct folder folder = folder_make();
    char path[96];
    snprintf(path, sizeof path, "%s/s.db", folder.path);
    for (int kept = 0; kept < 2; kept++) {
        static struct server server;
        struct conf conf = {.state = kept ? path : NULL};
        struct state *file = NULL;
        struct tenant_keeper *k;
        struct error err;
        struct sum sum = {0};
        server.conf = &conf;
        server.tenants = tenants_create();
        assert_true(!kept || state_open(path, &file, &err) == STATUS_OK);
        if (tenant_keeper_create(&server, &k, &err) != STATUS_OK)
            fail_msg("%s", err.text);
        for (int i = 0; i < 8000; i++) {
            struct usage_row row = {.tenant = "a", .key = "k", .n_requests = 1};
            snprintf(row.voice, sizeof row.voice, "voice%d", i);
            tenant_keeper_count(k, &row);
        }
        const struct usage_query all = {.to_ms = INT64_MAX, .limit = UINT32_MAX};
        mem_fail_at(1); /* no list is no empty list */
        assert_int_equal(tenant_keeper_usage(k, &all, add_up, &sum, &err), STATUS_NO_MEMORY);
        assert_int_equal(tenant_keeper_usage(k, &all, add_up, &sum, &err), STATUS_OK);
        assert_in_range(sum.n_rows, 3 * USAGE_ROWS_MAX / 4, USAGE_ROWS_MAX + 2);
        assert_true(kept ? sum.n_requests == 8000 && sum.n_any >= 8000 - USAGE_ROWS_MAX - 1 : sum.newest);
        tenant_keeper_destroy(k);
        tenants_destroy(server.tenants);
        if (file)
            state_close(file);
    }
    folder_remove(&folder);
}

/* Every voice and every tenant has a row: one more of each finds none. */
static void usage_that_finds_no_room_is_told(void **state)
{
    (void)state;
    struct folder folder = folder_make();
    static struct server server;
    char path[96], said[1000];
    snprintf(path, sizeof path, "%s/s.db", folder.path);
    struct conf conf = {.state = path};
    struct state *file = NULL;
    struct tenant_keeper *k;
    struct error err;
    int log[2];
    assert_int_equal(pipe2(log, O_NONBLOCK), 0);
    server.log.fd = log[1];
    server.conf = &conf;
    server.tenants = tenants_create();
    assert_int_equal(state_open(path, &file, &err), STATUS_OK);
    assert_int_equal(tenant_keeper_create(&server, &k, &err), STATUS_OK);
    for (unsigned i = 0; i < USAGE_ROWS_MAX + TENANTS_MAX + 1; i++) {
        struct usage_row row = {.key = "k", .voice = "v", .n_requests = 7};
        snprintf(row.tenant, sizeof row.tenant, "t%u", i);
        if (i == USAGE_ROWS_MAX + TENANTS_MAX) {
            tenant_keeper_tick(k, 0, false);
            assert_true(read(log[0], said, sizeof said) < 0);
        }
        tenant_keeper_count(k, &row);
    }
    tenant_keeper_tick(k, 0, false);
    ssize_t n = read(log[0], said, sizeof said - 1);
    assert_true(n > 0);
    said[n] = '\0';
    assert_non_null(strstr(said, "usage is lost"));
    assert_non_null(strstr(said, "requests=7"));
    tenant_keeper_tick(k, 0, false);
    assert_true(read(log[0], said, sizeof said) < 0);
    tenant_keeper_destroy(k);
    tenants_destroy(server.tenants);
    state_close(file);
    close(log[0]);
    close(log[1]);
    folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_are_read),
        cmocka_unit_test(bodies_get_the_tenants_own),
        cmocka_unit_test(keys_are_found_by_their_text_alone),
        cmocka_unit_test(the_file_wins_and_leaves),
        cmocka_unit_test(a_file_takes_the_place_of_the_one_before),
        cmocka_unit_test(a_file_that_has_no_memory_changes_nothing),
        cmocka_unit_test(a_file_that_has_no_room_changes_nothing),
        cmocka_unit_test(a_longer_file_is_no_more_work_for_each_key),
        cmocka_unit_test(voices_are_whose_they_are),
        cmocka_unit_test(a_foreign_name_is_as_much_work_as_a_missing_one),
        cmocka_unit_test(windows_hold_in_every_stretch),
        cmocka_unit_test(what_is_given_back_was_taken_then),
        cmocka_unit_test(the_store_keeps_what_it_is_told),
        cmocka_unit_test(usage_is_bounded),
        cmocka_unit_test(usage_that_finds_no_room_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
