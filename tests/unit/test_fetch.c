/* Sources without a network: what a URL means, what the allow-list covers, which addresses may be asked. */
#include "tests/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "fetch.h"
#include "sources.h"

static const char *const allow[] = {"https://models.example/pub", "https://*.cdn.example/",
                                    "s3://bucket/team/",          "hf://org/",
                                    "https://10.0.0.8:8443/x/",   "http://plain.example:8080"};

static struct source_options options(void)
{
    struct source_options o;
    source_options_init(&o);
    o.allow = allow;
    o.n_allow = sizeof allow / sizeof allow[0];
    o.hf_endpoint = o.s3_endpoint = o.s3_region = o.hf_token = NULL;
    return o;
}

static void what_the_list_covers(void **state)
{
    (void)state;
    static const struct {
        const char *url, *code; /* NULL: allowed */
    } table[] = {
        {"https://models.example/pub/a/", NULL},
        {"https://models.example:443/pub/a/", NULL},
        {"HTTPS://Models.Example/pub/a/", NULL},
        {"https://user:pw@models.example/pub/a.gguf?sig=1", NULL},
        {"https://models.example/public/a/", SOURCE_NOT_ALLOWED},
        {"https://models.example/", SOURCE_NOT_ALLOWED},
        {"https://models.example:444/pub/a/", SOURCE_NOT_ALLOWED},
        {"http://models.example/pub/a/", SOURCE_NOT_ALLOWED},
        {"https://models.example.evil.example/pub/a/", SOURCE_NOT_ALLOWED},
        {"https://models.example@evil.example/pub/a/", SOURCE_NOT_ALLOWED},
        {"https://models.example/%70ub/a/", SOURCE_NOT_ALLOWED},
        {"https://models.example/pub/../secret/", SOURCE_INVALID},
        {"https://models.example/pub/%2E%2e/secret/", SOURCE_INVALID},
        {"https://models.example/pub%2f..%2fx/", SOURCE_INVALID},
        {"https://models.example/pub/a", SOURCE_INVALID},
        {"https://models.example/pub/a.bin", SOURCE_INVALID},
        {"https://eu.cdn.example/v.safetensors", NULL},
        {"https://cdn.example/v.gguf", SOURCE_NOT_ALLOWED},
        {"https://evilcdn.example/v.gguf", SOURCE_NOT_ALLOWED},
        {"https://10.0.0.8:8443/x/", NULL},
        {"https://0xa000008:8443/x/", NULL}, /* the same address, as libcurl reads it */
        {"http://plain.example:8080/a/", NULL},
        {"http://plain.example/a/", SOURCE_NOT_ALLOWED},
        {"s3://bucket/team/a", NULL},
        {"s3://bucket/team", SOURCE_NOT_ALLOWED},
        {"s3://bucket2/team/a", SOURCE_NOT_ALLOWED},
        {"s3://bucket/team/../x", SOURCE_INVALID},
        {"s3://bucket/team/a?versionId=1", SOURCE_INVALID},
        {"hf://org/name", NULL},
        {"hf://org/name@v1.0/sub/v.gguf", NULL},
        {"hf://org/name@refs%2Fpr%2F1", SOURCE_INVALID}, /* an encoded '/' */
        {"hf://org2/name", SOURCE_NOT_ALLOWED},
        {"hf://org", SOURCE_INVALID},
        {"hf://org/.git", SOURCE_INVALID},
        {"hf://org/name@a..b?x", SOURCE_INVALID},
        {"file:///etc/passwd", SOURCE_INVALID},
        {"ftp://models.example/pub/", SOURCE_INVALID},
    };
    struct source_options o = options();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct error err = {0};
        const char *code = "untouched";
        enum status s = source_validate(&o, table[i].url, &code, &err);
        bool right = table[i].code ? s != STATUS_OK && strcmp(code, table[i].code) == 0 && err.text[0]
                                   : s == STATUS_OK && !code;
        if (!right)
            fail_msg("%s: %s, %s: %s", table[i].url, status_name(s), code ? code : "-", err.text);
    }
}

static void where_it_is_asked(void **state)
{
    (void)state;
    struct source_options o = options();
    struct remote r;
    struct error err;
    const char *code;
    assert_int_equal(remote_parse(&o, "s3://bucket/team/a+b/c", &r, &code, &err), STATUS_OK);
    assert_string_equal(r.folder, "https://bucket.s3.us-east-1.amazonaws.com:443/team/a%2Bb/c/");
    assert_false(r.origin_named);
    o.s3_endpoint = "http://minio.local:9000/";
    o.s3_region = "eu-1";
    assert_int_equal(remote_parse(&o, "s3://bucket/team/v.gguf", &r, &code, &err), STATUS_OK);
    assert_string_equal(r.folder, "http://minio.local:9000/bucket/team/");
    assert_string_equal(r.file, "v.gguf");
    assert_true(r.origin_named);
    o.s3_endpoint = "https://{bucket}.store.example/base";
    assert_int_equal(remote_parse(&o, "s3://bucket/team/", &r, &code, &err), STATUS_OK);
    assert_string_equal(r.folder, "https://bucket.store.example:443/base/team/");
    assert_int_equal(remote_parse(&o, "hf://org/name@v1/sub", &r, &code, &err), STATUS_OK);
    assert_string_equal(r.folder, "https://huggingface.co:443/org/name/resolve/{revision}/sub/");
    assert_string_equal(r.revision, "v1");
    o.hf_endpoint = "http://hub.example/";
    o.hf_token = "hf_x";
    assert_int_equal(remote_parse(&o, "hf://org/name", &r, &code, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "HF_TOKEN"));
}

static void redirects_of_the_hub(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        bool may;
    } table[] = {
        {"https://cdn-lfs.huggingface.co/x", true},      {"https://cas-bridge.xethub.hf.co/x", true},
        {"https://huggingface.co/other/x", true},        {"http://cdn-lfs.huggingface.co/x", false},
        {"https://huggingface.co.evil.example/", false}, {"https://evilhf.co/", false},
        {"https://models.example/pub/x", true}, /* the list's own */
    };
    struct source_options o = options();
    struct remote r;
    struct url_parts u;
    struct error err;
    const char *code;
    bool named;
    assert_int_equal(remote_parse(&o, "hf://org/name", &r, &code, &err), STATUS_OK);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(url_split(table[i].url, &u, &err), STATUS_OK);
        if (remote_may_ask(&r, &u, &named) != table[i].may)
            fail_msg("%s", table[i].url);
    }
    o.hf_endpoint = "https://hub.example"; /* whose store is not known */
    assert_int_equal(remote_parse(&o, "hf://org/name", &r, &code, &err), STATUS_OK);
    assert_int_equal(url_split("https://cdn-lfs.huggingface.co/x", &u, &err), STATUS_OK);
    assert_false(remote_may_ask(&r, &u, &named));
}

static bool allowed(const char *text, bool named)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    struct sockaddr_in6 b = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &a.sin_addr) == 1)
        return address_is_allowed(&a, named);
    assert_int_equal(inet_pton(AF_INET6, text, &b.sin6_addr), 1);
    return address_is_allowed(&b, named);
}

static void addresses(void **state)
{
    (void)state;
    static const char *const public[] = {"8.8.8.8",     "172.15.0.1",   "172.32.0.1",     "100.63.0.1",
                                         "192.167.1.1", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"};
    static const char *const private[] = {
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255",   "192.168.1.1",   "100.64.0.1",
        "::1",       "fd00::1",  "198.18.0.1", "::ffff:127.0.0.1", "2002:a00:1::1", "64:ff9b::10.0.0.1"};
    static const char *const never[] = {
        "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255",        "::",
        "fe80::1",         "ff02::1", "0.1.2.3",   "::ffff:169.254.169.254", "64:ff9b::169.254.169.254"};
    for (size_t i = 0; i < sizeof public / sizeof public[0]; i++)
        if (!allowed(public[i], false) || !allowed(public[i], true))
            fail_msg("%s is public", public[i]);
    for (size_t i = 0; i < sizeof private / sizeof private[0]; i++)
        if (allowed(private[i], false) || !allowed(private[i], true))
            fail_msg("%s is private", private[i]);
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        if (allowed(never[i], false) || allowed(never[i], true))
            fail_msg("%s is neither", never[i]);
    struct sockaddr other = {.sa_family = AF_UNIX};
    assert_false(address_is_allowed(&other, true));
}

static void what_is_shown(void **state)
{
    (void)state;
    static const struct {
        const char *url, *shown;
    } table[] = {
        {"https://u:p@h.example/a/?token=x#sha256=1", "https://h.example/a/"},
        {"https://u:p@x@h.example?q", "https://h.example"},
        {"hf://org/name@v1/x", "hf://org/name@v1/x"},
        {"/srv/a?b#c@d", "/srv/a?b#c@d"},
    };
    char shown[100];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        source_show(table[i].url, shown, sizeof shown);
        assert_string_equal(shown, table[i].shown);
    }
    assert_true(source_is_remote("hf://x/y") && source_is_remote("file:///x") && source_is_remote("a+b://x"));
    assert_false(source_is_remote("/a://b") || source_is_remote("a/b://c") || source_is_remote("://x") ||
                 source_is_remote("C:/x") || source_is_remote(""));
}

static void entries_of_the_list(void **state)
{
    (void)state;
    static const char *const good[] = {"https://a.example",
                                       "https://a.example:8443/x/",
                                       "http://127.0.0.1:1/",
                                       "https://*.example/",
                                       "https://",
                                       "s3://b/",
                                       "hf://",
                                       "hf://org/name"},
                             *const bad[] = {
                                 "a.example",      "ftp://a/", "https://a/?x", "https://u@a/", "https://a/*/",
                                 "https://*.*.a/", "",         "https:/a"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!source_allow_is_valid(good[i]))
            fail_msg("%s is fine", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (source_allow_is_valid(bad[i]))
            fail_msg("%s can't match", bad[i]);
}

/* ---- equal content from several places at once */

struct publisher {
    const struct cache *cache;
    struct json_t *record;
    pthread_barrier_t *start;
    char id[33];
    bool whole;
};

static void *publish_one(void *data)
{
    struct publisher *p = data;
    static struct source_options o;
    struct remote r = {.options = &o};
    struct stat st;
    struct error err;
    int fd = -1;
    snprintf(r.id, sizeof r.id, "%s", p->id);
    bool ok = cache_begin(p->cache, &r, INT64_MAX, &fd, &err) == STATUS_OK;
    int file = ok ? openat(fd, "v.gguf", O_WRONLY | O_CREAT, 0600) : -1;
    ok = file >= 0 && write(file, "12345", 5) == 5;
    if (file >= 0)
        close(file);
    pthread_barrier_wait(p->start);
    ok = ok && cache_publish(p->cache, p->id, p->record, &fd, &err) == STATUS_OK;
    pthread_barrier_wait(p->start); /* all have done what they do */
    p->whole = ok && fstatat(fd, "v.gguf", &st, 0) == 0 && st.st_size == 5;
    if (fd >= 0)
        close(fd);
    return NULL;
}

#define PUBLISHERS 8

static void equal_content_at_once_is_one_entry(void **state)
{
    (void)state;
    char dir[] = "/tmp/lorikeet-cache-XXXXXX", command[80];
    struct source_options o = options();
    struct cache c;
    struct error err;
    assert_non_null(mkdtemp(dir));
    o.cache_dir = dir;
    o.cache_bytes_max = 1 << 20;
    assert_int_equal(cache_open(&o, &c, &err), STATUS_OK);
    for (int round = 0; round < 60; round++) {
        struct publisher all[PUBLISHERS];
        pthread_t threads[PUBLISHERS];
        pthread_barrier_t start;
        json_t *record = json_pack("{s:[{s:s, s:i}]}", "files", "name", "v.gguf", "bytes", 5);
        char key[33];
        snprintf(key, sizeof key, "%032x", (unsigned)round);
        json_object_set_new(record, "entry", json_string(key));
        pthread_barrier_init(&start, NULL, PUBLISHERS);
        for (int i = 0; i < PUBLISHERS; i++) {
            all[i] = (struct publisher){.cache = &c, .record = record, .start = &start};
            snprintf(all[i].id, sizeof all[i].id, "%032x", (unsigned)(0x1000 * (i + 1) + round));
            assert_int_equal(pthread_create(&threads[i], NULL, publish_one, &all[i]), 0);
        }
        for (int i = 0; i < PUBLISHERS; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < PUBLISHERS; i++)
            assert_true(all[i].whole);
        pthread_barrier_destroy(&start);
        json_decref(record);
    }
    cache_close(&c);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_list_covers),
        cmocka_unit_test(where_it_is_asked),
        cmocka_unit_test(redirects_of_the_hub),
        cmocka_unit_test(addresses),
        cmocka_unit_test(what_is_shown),
        cmocka_unit_test(entries_of_the_list),
        cmocka_unit_test(equal_content_at_once_is_one_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
