/* Who asks, behind proxies: networks as operators write them, and headers as strangers do. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_policy.h"
#include "proxies.h"

static struct proxies trusted(const char *text)
{
    struct proxies p = {0};
    struct error err;
    if (text[0] && proxies_add(&p, text, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return p;
}

static struct address address_of(const char *text)
{
    struct address a;
    if (!strcmp(text, "unix"))
        return (struct address){.kind = ADDRESS_UNIX};
    assert_true(address_parse(text, strlen(text), &a));
    return a;
}

static void networks_are_read_and_matched(void **state)
{
    (void)state;
    static const struct {
        const char *networks, *address;
        bool trusted;
    } cases[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/8", "::ffff:10.1.1.1", true},
        {"10.1.2.3", "10.1.2.3", true},
        {"10.1.2.3", "10.1.2.4", false},
        {"192.168.7.128/25", "192.168.7.128", true},
        {"192.168.7.128/25", "192.168.7.127", false},
        {"0.0.0.0/0", "203.0.113.1", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "203.0.113.1", false},
        {"fd00::/8", "fdff::1", true},
        {"fd00::/8", "fe00::1", false},
        {"::1", "::1", true},
        {"::ffff:10.0.0.0/104", "10.9.9.9", true},
        {"10.0.0.0/8, fd00::/8 ,127.0.0.1", "127.0.0.1", true},
        {"10.0.0.0/8", "unix", false},
        {"unix", "unix", true},
        {"unix", "127.0.0.1", false},
        {"", "127.0.0.1", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct proxies p = trusted(cases[i].networks);
        struct address a = address_of(cases[i].address);
        if (proxies_trust(&p, &a) != cases[i].trusted)
            fail_msg("\"%s\" and %s", cases[i].networks, cases[i].address);
    }
    static const char *const wrong[] = {"",
                                        "10.0.0.0/33",
                                        "10.0.0.0/",
                                        "10.0.0.0/-1",
                                        "10.0.0/8",
                                        "host",
                                        "10.0.0.1/8",
                                        "fd00::1/8",
                                        "::/129",
                                        "*",
                                        "10.0.0.0/8,",
                                        "10.0.0.0/8/8",
                                        "10.0.0.0/0x8",
                                        "[::1]",
                                        "1.2.3.4:80",
                                        "fe80::1%lo",
                                        "010.0.0.1",
                                        "10.0.0.0/1000000008"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct proxies p = {0};
        struct error err;
        if (proxies_add(&p, wrong[i], &err) != STATUS_INVALID)
            fail_msg("\"%s\" was taken", wrong[i]);
        assert_non_null(strstr(err.text, "--trusted-proxy"));
    }
    struct proxies many = {0};
    struct error err;
    for (size_t i = 0; i < PROXIES_MAX; i++)
        assert_int_equal(proxies_add(&many, "10.0.0.1", &err), STATUS_OK);
    assert_int_equal(proxies_add(&many, "10.0.0.1", &err), STATUS_FULL);
}

#define X "X-Forwarded-For"
#define F "Forwarded"
#define P "X-Forwarded-Proto"

/* Trusted: 10.0.0.0/8, fd00::/8, unix. */
static const struct {
    const char *peer, *headers[6]; /* name, value, … */
    const char *client;            /* "": the peer, which has no address */
    bool secure;
} cases[] = {
    {"203.0.113.1", {X, "198.51.100.7"}, "203.0.113.1", false}, /* no proxy of ours */
    {"203.0.113.1", {F, "for=198.51.100.7;proto=https", P, "https"}, "203.0.113.1", false},
    {"10.0.0.1", {NULL}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7"}, "198.51.100.7", false},
    {"10.0.0.1", {"x-forwarded-for", "198.51.100.7", P, "https"}, "198.51.100.7", true},
    {"10.0.0.1", {X, "203.0.113.9, 198.51.100.7, 10.0.0.2"}, "198.51.100.7", false},
    {"10.0.0.1", {X, "203.0.113.9,198.51.100.7,10.0.0.2,fd00::2"}, "198.51.100.7", false},
    {"10.0.0.1", {X, "203.0.113.9", X, "198.51.100.7", X, "10.0.0.2"}, "198.51.100.7", false},
    {"10.0.0.1", {X, "10.0.0.3, 10.0.0.2"}, "10.0.0.3", false}, /* all are ours: the first of them */
    {"unix", {X, "198.51.100.7"}, "198.51.100.7", false},
    {"unix", {NULL}, "", false},
    {"fd00::1", {X, "2001:DB8::7"}, "2001:db8::7", false},
    {"10.0.0.1", {X, "198.51.100.7:4711"}, "198.51.100.7", false},
    {"10.0.0.1", {X, "[2001:db8::7]:4711, 10.0.0.2:1"}, "2001:db8::7", false},
    {"10.0.0.1", {X, "[2001:db8::7]"}, "2001:db8::7", false},
    {"10.0.0.1", {X, "::ffff:198.51.100.7"}, "198.51.100.7", false},
    {"10.0.0.1", {X, " ,, 198.51.100.7 ,\t"}, "198.51.100.7", false},
    /* What can't be read ends it: what stands left of it is nobody's word. */
    {"10.0.0.1", {X, "198.51.100.7, unknown"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, nonsense, 10.0.0.2"}, "10.0.0.2", false},
    {"10.0.0.1", {X, "198.51.100.7, 999.1.1.1"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, 1.2.3.4:123456"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, 1.2.3.4:"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, [::1"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, [1.2.3.4]"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, []:1"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, [::1]x"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7, fe80::1%eth0"}, "10.0.0.1", false},
    {"10.0.0.1", {X, ""}, "10.0.0.1", false},
    {"10.0.0.1", {X, "\"198.51.100.7\""}, "10.0.0.1", false},
    /* RFC 7239 */
    {"10.0.0.1", {F, "for=198.51.100.7"}, "198.51.100.7", false},
    {"10.0.0.1", {F, "For=\"[2001:db8::7]:4711\";Proto=HTTPS;by=10.0.0.1"}, "2001:db8::7", true},
    {"10.0.0.1",
     {F, "for=1.1.1.1, for=198.51.100.7;proto=https, for=10.0.0.2;proto=http"},
     "198.51.100.7",
     true},
    {"10.0.0.1", {F, "for=198.51.100.7;proto=https", F, "for=10.0.0.2"}, "198.51.100.7", true},
    {"10.0.0.1", {F, "for=\"198.51.100.7:80\" ; proto=https ,for=fd00::2"}, "198.51.100.7", true},
    {"10.0.0.1", {F, "for=198.51.100.7, for=unknown"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "for=198.51.100.7, for=_hidden;proto=https"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "for=198.51.100.7, by=10.0.0.2"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "for=\"1.2.3.4, for=198.51.100.7"}, "10.0.0.1", false}, /* a quote that swallows */
    {"10.0.0.1", {F, "for=\"1.2.3.4\\\", for=198.51.100.7"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "for=1.2.3.4;for=198.51.100.7"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "for 198.51.100.7"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "for=;proto=https"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "=198.51.100.7"}, "10.0.0.1", false},
    {"10.0.0.1", {F, "for=\"198.51.100.7\"x"}, "10.0.0.1", false},
    {"10.0.0.1", {F, ""}, "10.0.0.1", false},
    /* Both: a proxy writes one and may let the other pass. */
    {"10.0.0.1", {X, "198.51.100.7", F, "for=198.51.100.7;proto=https"}, "198.51.100.7", true},
    {"10.0.0.1", {X, "198.51.100.7", F, "for=1.2.3.4"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "1.2.3.4", F, "for=198.51.100.7"}, "10.0.0.1", false},
    {"10.0.0.1", {X, "198.51.100.7", F, "nonsense"}, "10.0.0.1", false},
    /* The scheme: the last value. */
    {"10.0.0.1", {P, "http, https"}, "10.0.0.1", true},
    {"10.0.0.1", {P, "https, http"}, "10.0.0.1", false},
    {"10.0.0.1", {P, "https", P, "http"}, "10.0.0.1", false},
    {"10.0.0.1", {P, "javascript"}, "10.0.0.1", false},
};

static void the_client_is_the_last_that_is_not_ours(void **state)
{
    (void)state;
    struct proxies p = trusted("10.0.0.0/8,fd00::/8,unix");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct forward_headers h = {0};
        struct address who = address_of(cases[i].peer);
        bool secure = false;
        char shown[ADDRESS_TEXT_MAX];
        for (size_t k = 0; k < 6 && cases[i].headers[k]; k += 2)
            forward_header(&h, cases[i].headers[k], cases[i].headers[k + 1]);
        proxies_client(&p, &h, &who, &secure);
        address_show(&who, shown);
        if (strcmp(shown, cases[i].client) != 0 || secure != cases[i].secure)
            fail_msg("case %zu, \"%s\": %s, %d", i, cases[i].headers[0] ? cases[i].headers[1] : "", shown,
                     secure);
    }
}

/* Far more of it than there are proxies. */
static void long_headers_are_bounded(void **state)
{
    (void)state;
    struct proxies p = trusted("10.0.0.0/8");
    static char text[40000];
    for (int forwarded = 0; forwarded < 2; forwarded++) {
        struct forward_headers h = {0};
        struct address who = address_of("10.0.0.1");
        bool secure = false;
        char shown[ADDRESS_TEXT_MAX];
        size_t n = (size_t)sprintf(text, forwarded ? "for=1.2.3.4" : "1.2.3.4");
        for (int i = 0; i < 1000; i++)
            n += (size_t)sprintf(text + n, forwarded ? ",for=10.0.0.2" : ",10.0.0.2");
        forward_header(&h, forwarded ? F : X, text);
        proxies_client(&p, &h, &who, &secure);
        address_show(&who, shown);
        assert_string_equal(shown, forwarded ? "10.0.0.2" : "1.2.3.4");
        h = (struct forward_headers){0};
        for (unsigned i = 0; i <= FORWARD_LINES_MAX; i++)
            forward_header(&h, forwarded ? F : X, forwarded ? "for=1.2.3.4" : "1.2.3.4");
        who = address_of("10.0.0.1");
        proxies_client(&p, &h, &who, &secure);
        address_show(&who, shown);
        assert_string_equal(shown, "10.0.0.1");
    }
}

/* Any bytes: nothing is read behind an end (the sanitizers look), and nobody else is believed. */
static void any_bytes_are_harmless(void **state)
{
    (void)state;
    static const char alphabet[] = "for=by;,\"\\[]:.0123456789afproto https-_\t";
    struct proxies p = trusted("10.0.0.0/8");
    uint32_t x = 1;
    for (uint32_t i = 0; i < 200000; i++) {
        char line[40];
        size_t n = 0;
        x = x * 1664525U + 1013904223U;
        for (size_t most = (x >> 20) % (sizeof line - 1); n < most; n++) {
            x = x * 1664525U + 1013904223U;
            line[n] = alphabet[(x >> 16) % (sizeof alphabet - 1)];
        }
        line[n] = '\0';
        char *exact = malloc(n + 1); /* so that a byte behind it is seen */
        memcpy(exact, line, n + 1);
        struct forward_headers h = {0};
        struct address who = address_of("10.0.0.1");
        bool secure;
        forward_header(&h, i % 2 ? F : X, exact);
        forward_header(&h, P, exact);
        proxies_client(&p, &h, &who, &secure);
        assert_int_equal(who.kind, ADDRESS_IP);
        free(exact);
    }
}

/* Headers by number, bytes and the target's length, at each bound and one beyond. */
static void headers_are_bounded(void **state)
{
    (void)state;
    static char value[POLICY_HEADER_BYTES_MAX + 2];
    char message[200];
    for (unsigned more = 0; more < 2; more++) {
        struct policy p = {0};
        policy_header(&p, "Host", "x");
        for (unsigned i = 1; i < POLICY_HEADERS_MAX + more; i++)
            policy_header(&p, "A", "b");
        assert_int_equal(policy_verdict(&p, "HTTP/1.1", 100, message, sizeof message), more ? 431 : 0);
        p = (struct policy){0};
        memset(value, 'v', sizeof value);
        value[POLICY_HEADER_BYTES_MAX - (4 + 1 + 4) - (1 + 4) + more] = '\0';
        policy_header(&p, "Host", "x");
        policy_header(&p, "A", value);
        assert_int_equal(p.header_bytes, POLICY_HEADER_BYTES_MAX + more);
        assert_int_equal(policy_verdict(&p, "HTTP/1.1", 100, message, sizeof message), more ? 431 : 0);
        p = (struct policy){.target_bytes = POLICY_TARGET_BYTES_MAX + more};
        policy_header(&p, "Host", "x");
        assert_int_equal(policy_verdict(&p, "HTTP/1.1", 100, message, sizeof message), more ? 414 : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_are_read_and_matched),
        cmocka_unit_test(the_client_is_the_last_that_is_not_ours),
        cmocka_unit_test(long_headers_are_bounded),
        cmocka_unit_test(any_bytes_are_harmless),
        cmocka_unit_test(headers_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
