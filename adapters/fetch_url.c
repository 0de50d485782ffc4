/* URLs of sources: what they mean, and whether the allow-list covers them.
 *
 * libcurl's parser splits http URLs, because it is libcurl that will act on them: two parsers that disagree
 * about where a host ends are a way past an allow-list. What is compared with the list is what is asked. */
#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fetch.h"

#define HUB "https://huggingface.co"

static const char *const schemes[] = {"https", "http", "s3", "hf"};

static enum status refuse(struct error *err, const char *url, const char *why)
{
    char shown[300];
    source_show(url, shown, sizeof shown);
    return fail(err, STATUS_INVALID, "%s: %s", shown, why);
}

bool source_is_remote(const char *source)
{
    size_t n = 0;
    while (isalnum((unsigned char)source[n]) || (n && strchr("+-.", source[n]) && source[n]))
        n++;
    return n > 0 && isalpha((unsigned char)source[0]) && strncmp(source + n, "://", 3) == 0;
}

void source_show(const char *url, char *dst, size_t dst_bytes)
{
    const char *rest = source_is_remote(url) ? strstr(url, "://") + 3 : NULL;
    if (!rest) {
        snprintf(dst, dst_bytes, "%s", url);
        return;
    }
    size_t authority = strcspn(rest, "/?#"), end = strcspn(rest, "?#");
    const char *from = rest;
    for (size_t i = 0; i < authority; i++)
        if (rest[i] == '@')
            from = rest + i + 1;
    snprintf(dst, dst_bytes, "%.*s%.*s", (int)(rest - url), url, (int)(rest + end - from), from);
}

/* ---- parts */

static bool copy_part(CURLU *u, CURLUPart part, unsigned flags, char *dst, size_t dst_bytes)
{
    char *text = NULL;
    dst[0] = '\0';
    if (curl_url_get(u, part, &text, flags) != CURLUE_OK || !text)
        return part != CURLUPART_HOST && part != CURLUPART_SCHEME;
    bool fits = strlen(text) < dst_bytes;
    if (fits)
        snprintf(dst, dst_bytes, "%s", text);
    curl_free(text);
    return fits;
}

static void lower(char *s)
{
    for (; *s; s++)
        *s = (char)tolower((unsigned char)*s);
}

static bool is_host(const char *h)
{
    bool v6 = h[0] == '[';
    for (size_t i = v6; h[i]; i++) {
        if (v6 && h[i] == ']')
            return h[i + 1] == '\0';
        if (!(v6 ? isxdigit((unsigned char)h[i]) || h[i] == ':' || h[i] == '.'
                 : isalnum((unsigned char)h[i]) || strchr(".-_", h[i])))
            return false;
    }
    return !v6 && h[0];
}

/* No way up, written plainly or encoded: a server may take both for one. */
static bool path_is_plain(const char *path)
{
    for (const char *p = path; *p; p++) {
        if (*p == '/' && p[1] == '.' && (!p[2] || p[2] == '/' || (p[2] == '.' && (!p[3] || p[3] == '/'))))
            return false;
        if (*p == '%' && (strncasecmp(p, "%2e", 3) == 0 || strncasecmp(p, "%2f", 3) == 0 ||
                          strncasecmp(p, "%5c", 3) == 0 || strncmp(p, "%00", 3) == 0))
            return false;
    }
    return true;
}

static enum status check_text(const char *url, struct error *err)
{
    size_t n = strlen(url), path;
    if (n >= FETCH_URL_MAX)
        return fail(err, STATUS_INVALID, "a URL of %zu bytes, at most %u", n, FETCH_URL_MAX - 1);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)url[i] <= ' ' || (unsigned char)url[i] >= 0x7f || url[i] == '\\')
            return refuse(err, url, "has a space, a backslash or a byte that is no ASCII: encode it as %XX");
    const char *rest = strstr(url, "://");
    char plain[FETCH_URL_MAX];
    path = rest ? strcspn(rest + 3, "/?#") : 0;
    snprintf(plain, sizeof plain, "%s", rest ? rest + 3 + path : "");
    plain[strcspn(plain, "?#")] = '\0';
    if (!path_is_plain(plain))
        return refuse(err, url, "has \".\" or \"..\" in its path, or an encoded '/', '\\' or '.'");
    return STATUS_OK;
}

static enum status split_http(const char *url, struct url_parts *out, struct error *err)
{
    char port[8];
    CURLU *u = curl_url();
    if (!u)
        return fail(err, STATUS_NO_MEMORY, "no memory for a URL");
    bool ok = curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              copy_part(u, CURLUPART_SCHEME, 0, out->scheme, sizeof out->scheme) &&
              copy_part(u, CURLUPART_HOST, 0, out->host, sizeof out->host) &&
              copy_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, port, sizeof port) &&
              copy_part(u, CURLUPART_USER, CURLU_URLDECODE, out->user, sizeof out->user) &&
              copy_part(u, CURLUPART_PASSWORD, CURLU_URLDECODE, out->password, sizeof out->password) &&
              copy_part(u, CURLUPART_PATH, 0, out->path, sizeof out->path) &&
              copy_part(u, CURLUPART_QUERY, 0, out->query, sizeof out->query) &&
              copy_part(u, CURLUPART_FRAGMENT, 0, out->fragment, sizeof out->fragment);
    curl_url_cleanup(u);
    lower(out->host);
    if (!ok || !is_host(out->host))
        return refuse(err, url, "is no URL: expected https://host[:port]/path");
    out->port = (uint16_t)strtoul(port, NULL, 10);
    return STATUS_OK;
}

/* s3://bucket/key and hf://org/name…: names and not addresses, so there is nothing to agree with libcurl
 * about. */
static enum status split_names(const char *url, struct url_parts *out, struct error *err)
{
    const char *rest = strstr(url, "://") + 3;
    size_t host = strcspn(rest, "/?#"), path = strcspn(rest + host, "?#");
    const char *tail = rest + host + path, *hash = strchr(tail, '#');
    if (*tail == '?')
        return refuse(err, url, "takes no query");
    if (host == 0 || host >= sizeof out->host || (hash && strlen(hash) > sizeof out->fragment))
        return refuse(err, url, "is no s3://bucket/key or hf://org/name");
    snprintf(out->host, sizeof out->host, "%.*s", (int)host, rest);
    snprintf(out->path, sizeof out->path, "%.*s", (int)path, rest + host);
    if (hash)
        snprintf(out->fragment, sizeof out->fragment, "%s", hash + 1);
    for (const char *c = out->host; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr(".-_", *c))
            return refuse(err, url, "a bucket or organisation has letters, digits, '.', '-' and '_'");
    return STATUS_OK;
}

enum status url_split(const char *url, struct url_parts *out, struct error *err)
{
    memset(out, 0, sizeof *out);
    const char *rest = strstr(url, "://");
    size_t n = rest ? (size_t)(rest - url) : 0;
    if (!source_is_remote(url) || n >= sizeof out->scheme)
        return refuse(err, url, "is no URL");
    enum status s = check_text(url, err);
    if (s != STATUS_OK)
        return s;
    snprintf(out->scheme, sizeof out->scheme, "%.*s", (int)n, url);
    lower(out->scheme);
    if (strcmp(out->scheme, "https") == 0 || strcmp(out->scheme, "http") == 0)
        return split_http(url, out, err);
    if (strcmp(out->scheme, "s3") == 0 || strcmp(out->scheme, "hf") == 0)
        return split_names(url, out, err);
    return refuse(err, url, "expected https://, s3:// or hf:// (http:// where --source-allow says so)");
}

void url_origin(const struct url_parts *u, char *dst, size_t dst_bytes)
{
    snprintf(dst, dst_bytes, "%s://%s:%u", u->scheme, u->host, u->port);
}

/* ---- the allow-list */

static uint16_t default_port(const char *scheme)
{
    return strcmp(scheme, "https") == 0 ? 443 : strcmp(scheme, "http") == 0 ? 80 : 0;
}

static bool host_matches(const char *pattern, size_t n, const char *host, bool *named)
{
    size_t m = strlen(host);
    *named = false;
    if (n == 0)
        return true;
    if (n > 2 && pattern[0] == '*' && pattern[1] == '.')
        return m > n - 1 && strncasecmp(host + m - (n - 1), pattern + 1, n - 1) == 0;
    *named = true;
    return m == n && strncasecmp(host, pattern, n) == 0;
}

bool url_matches(const char *entry, const struct url_parts *u, bool *named)
{
    size_t scheme = strlen(u->scheme);
    *named = false;
    if (strncasecmp(entry, u->scheme, scheme) != 0 || strncmp(entry + scheme, "://", 3) != 0)
        return false;
    const char *authority = entry + scheme + 3;
    size_t n = strcspn(authority, "/"), host = n;
    const char *path = authority + n;
    uint16_t port = default_port(u->scheme);
    for (size_t i = n; i > 0 && authority[i - 1] != ']'; i--)
        if (authority[i - 1] == ':') {
            host = i - 1;
            port = (uint16_t)strtoul(authority + i, NULL, 10);
            break;
        }
    if ((n > 0 && port != u->port) || !host_matches(authority, host, u->host, named))
        return false;
    size_t length = strlen(path);
    if (length <= 1)
        return true;
    if (strncmp(u->path, path, length) != 0)
        return false;
    return path[length - 1] == '/' || u->path[length] == '\0' || u->path[length] == '/';
}

bool source_allow_is_valid(const char *entry)
{
    const char *rest = source_is_remote(entry) ? strstr(entry, "://") + 3 : NULL;
    size_t n = rest ? (size_t)(rest - entry) - 3 : 0;
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
        if (strlen(schemes[i]) == n && strncasecmp(entry, schemes[i], n) == 0)
            return !strpbrk(entry, " @?#\\") && !strchr(rest[0] == '*' ? rest + 1 : rest, '*');
    return false;
}

static bool is_allowed(const struct source_options *o, const struct url_parts *u, bool *named)
{
    bool any = false, explicit = false;
    for (size_t i = 0; i < o->n_allow; i++)
        if (url_matches(o->allow[i], u, &explicit)) {
            any = true;
            *named |= explicit;
        }
    return any;
}

bool remote_may_ask(const struct remote *r, const struct url_parts *u, bool *named)
{
    static const char *const hub_stores[] = {"https://*.huggingface.co", "https://*.hf.co"};
    char origin[300];
    bool ignored;
    *named = false;
    url_origin(u, origin, sizeof origin);
    if (strncmp(r->origin, "https:", 6) == 0 && strcmp(u->scheme, "https") != 0)
        return false;
    if ((r->is_s3 || r->is_hub) && strcmp(origin, r->origin) == 0) {
        *named = r->origin_named;
        return true;
    }
    if (is_allowed(r->options, u, named))
        return true;
    /* The hub keeps large files elsewhere; what comes from there is checked against the hub's digest. */
    bool official = r->is_hub && strcmp(r->origin, HUB ":443") == 0;
    return official && (url_matches(hub_stores[0], u, &ignored) || url_matches(hub_stores[1], u, &ignored));
}

/* ---- sources */

static enum status not_allowed(const struct remote *r, const struct url_parts *u, const char **code,
                               struct error *err)
{
    *code = SOURCE_NOT_ALLOWED;
    return fail(err, STATUS_INVALID,
                "%.240s: the server may not fetch from there: start it with --source-allow %s://%.80s%s",
                r->shown, u->scheme, u->host, strcmp(u->scheme, "hf") == 0 ? "/ (or a longer prefix)" : "/");
}

static bool append_encoded(char *dst, size_t dst_bytes, const char *text)
{
    size_t at = strlen(dst);
    for (; *text; text++) {
        bool plain = isalnum((unsigned char)*text) || strchr("-._~/", *text);
        if (at + 4 > dst_bytes)
            return false;
        at += (size_t)snprintf(dst + at, dst_bytes - at, plain ? "%c" : "%%%02X", (unsigned char)*text);
    }
    return true;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcasecmp(s + n - m, suffix) == 0;
}

/* What is behind the last '/' of r->folder becomes r->file if it is a file's name, a folder's if `loose`. */
static enum status split_file(struct remote *r, bool loose, struct error *err)
{
    char *slash = strrchr(r->folder, '/');
    const char *last = slash + 1;
    size_t n = strlen(last);
    if (n == 0)
        return STATUS_OK;
    if (ends_with(last, ".gguf") || ends_with(last, ".safetensors")) {
        if (n >= sizeof r->file)
            return fail(err, STATUS_INVALID, "%.300s: its file's name is longer than %u", r->shown,
                        FETCH_NAME_MAX - 1);
        snprintf(r->file, sizeof r->file, "%s", last);
        slash[1] = '\0';
        return STATUS_OK;
    }
    if (!loose || ends_with(last, ".tar") || ends_with(last, ".gz") || ends_with(last, ".zip") ||
        ends_with(last, ".bin"))
        return fail(err, STATUS_INVALID,
                    "%.300s: expected a folder's URL, ending in '/', or that of a .gguf or .safetensors file "
                    "(archives and .bin files are not read)",
                    r->shown);
    size_t length = strlen(r->folder);
    if (length + 2 > sizeof r->folder)
        return fail(err, STATUS_INVALID, "%.300s: too long", r->shown);
    memcpy(r->folder + length, "/", 2);
    return STATUS_OK;
}

static enum status parse_https(struct remote *r, struct url_parts *u, struct error *err)
{
    url_origin(u, r->origin, sizeof r->origin);
    bool fits = snprintf(r->folder, sizeof r->folder, "%s%s", r->origin, u->path) < (int)sizeof r->folder;
    if (!fits)
        return fail(err, STATUS_INVALID, "%.300s: too long", r->shown);
    if (u->query[0])
        snprintf(r->query, sizeof r->query, "?%.*s", (int)sizeof r->query - 2, u->query);
    snprintf(r->user, sizeof r->user, "%s", u->user);
    snprintf(r->password, sizeof r->password, "%s", u->password);
    return split_file(r, false, err);
}

/* An operator's endpoint: an origin, perhaps with a path below which the service lies. */
static enum status set_endpoint(struct remote *r, const char *endpoint, const char *option, struct error *err)
{
    struct url_parts u;
    enum status s = url_split(endpoint, &u, err);
    if (s == STATUS_OK && strncmp(u.scheme, "http", 4) != 0)
        s = fail(err, STATUS_INVALID, "%s is no https:// or http:// URL", endpoint);
    if (s != STATUS_OK)
        return fail_within(err, "--%s", option);
    url_origin(&u, r->origin, sizeof r->origin);
    size_t n = strlen(u.path);
    snprintf(r->folder, sizeof r->folder, "%s%.*s/", r->origin, (int)(n && u.path[n - 1] == '/' ? n - 1 : n),
             u.path);
    return STATUS_OK;
}

static enum status parse_s3(struct remote *r, struct url_parts *u, struct error *err)
{
    const struct source_options *o = r->options;
    const char *given = o->s3_endpoint, *mark = given ? strstr(given, "{bucket}") : NULL;
    char endpoint[600];
    /* The bucket is part of the host name unless it has dots, for which the certificate has no wildcard. */
    bool in_host = mark || (!given && !strchr(u->host, '.'));
    snprintf(r->region, sizeof r->region, "%s", o->s3_region ? o->s3_region : "us-east-1");
    if (mark)
        snprintf(endpoint, sizeof endpoint, "%.*s%s%s", (int)(mark - given), given, u->host, mark + 8);
    else if (given)
        snprintf(endpoint, sizeof endpoint, "%s", given);
    else
        snprintf(endpoint, sizeof endpoint, "https://%s%ss3.%s.amazonaws.com", in_host ? u->host : "",
                 in_host ? "." : "", r->region);
    enum status s = set_endpoint(r, endpoint, "s3-endpoint", err);
    if (s != STATUS_OK)
        return s;
    r->is_s3 = true;
    r->origin_named = given != NULL;
    r->signs = o->s3_key_id && o->s3_secret;
    size_t n = strlen(r->folder);
    if (!in_host)
        snprintf(r->folder + n, sizeof r->folder - n, "%s/", u->host);
    if (!append_encoded(r->folder, sizeof r->folder, u->path[0] == '/' ? u->path + 1 : u->path))
        return fail(err, STATUS_INVALID, "%.300s: too long", r->shown);
    return split_file(r, true, err);
}

static bool is_name(const char *s, size_t n, const char *more)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("._-", s[i]) && !strchr(more, s[i]))
            return false;
    return n > 0 && s[0] != '.';
}

/* hf://org/name[@revision][/sub/folder or file]; takes the revision out of u->path, which the allow-list sees
 * without it. */
static enum status parse_hub(struct remote *r, struct url_parts *u, struct error *err)
{
    static const char expected[] = "expected hf://org/name[@revision][/folder or file]";
    const struct source_options *o = r->options;
    const char *endpoint = o->hf_endpoint ? o->hf_endpoint : HUB;
    char name[200], sub[FETCH_URL_MAX];
    const char *at = u->path[0] == '/' ? u->path + 1 : "";
    size_t n = strcspn(at, "/@"), revision = at[n] == '@' ? strcspn(at + n + 1, "/") : 0;
    const char *rest = at + n + (at[n] == '@') + revision;
    if (!is_name(at, n, "") || n >= sizeof name || !is_name(u->host, strlen(u->host), ""))
        return fail(err, STATUS_INVALID, "%.300s: %s", r->shown, expected);
    if (at[n] == '@' && (!is_name(at + n + 1, revision, "%") || revision >= sizeof r->revision))
        return fail(err, STATUS_INVALID, "%.300s: its revision is no branch, tag or commit: %s", r->shown,
                    expected);
    snprintf(name, sizeof name, "%.*s", (int)n, at);
    snprintf(r->revision, sizeof r->revision, "%.*s", revision ? (int)revision : 4,
             revision ? at + n + 1 : "main");
    snprintf(sub, sizeof sub, "%s", *rest == '/' ? rest + 1 : rest);
    enum status s = set_endpoint(r, endpoint, "hf-endpoint", err);
    if (s != STATUS_OK)
        return s;
    r->is_hub = true;
    r->origin_named = strcmp(r->origin, HUB ":443") != 0;
    size_t length = strlen(r->folder);
    snprintf(r->folder + length, sizeof r->folder - length, "%s/%s/resolve/{revision}/", u->host, name);
    snprintf(u->path, sizeof u->path, "/%s%s%.*s", name, sub[0] ? "/" : "", FETCH_URL_MAX - 210, sub);
    if (!append_encoded(r->folder, sizeof r->folder, sub))
        return fail(err, STATUS_INVALID, "%.300s: too long", r->shown);
    return split_file(r, true, err);
}

static enum status set_sha256(struct remote *r, const char *fragment, struct error *err)
{
    const char *hex = fragment + 7;
    bool ok = strncmp(fragment, "sha256=", 7) == 0 && strlen(hex) == 64;
    for (size_t i = 0; ok && i < 64; i++)
        ok = isxdigit((unsigned char)hex[i]);
    if (!ok)
        return fail(err, STATUS_INVALID, "%.300s: a fragment can only be #sha256= and 64 hexadecimal digits",
                    r->shown);
    snprintf(r->sha256, sizeof r->sha256, "%s", hex);
    lower(r->sha256);
    return STATUS_OK;
}

static const struct source_kind {
    const char *scheme;
    enum status (*parse)(struct remote *r, struct url_parts *u, struct error *err);
} kinds[] = {{"https", parse_https}, {"http", parse_https}, {"s3", parse_s3}, {"hf", parse_hub}};

static enum status parse_kind(struct remote *r, struct url_parts *u, struct error *err)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].scheme, u->scheme) == 0)
            return kinds[i].parse(r, u, err);
    return fail(err, STATUS_UNSUPPORTED, "%.300s: no such kind of source", r->shown);
}

static enum status check_hub_token(const struct remote *r, const struct source_options *o, struct error *err)
{
    bool clear = r->is_hub && o->hf_token && strncmp(r->origin, "http:", 5) == 0;
    bool loopback = strncmp(r->origin, "http://127.", 11) == 0 ||
                    strncmp(r->origin, "http://localhost:", 17) == 0 ||
                    strncmp(r->origin, "http://[::1]:", 13) == 0;
    if (clear && !loopback)
        return fail(err, STATUS_INVALID, "--hf-endpoint %s: HF_TOKEN is not sent over plain http; use https",
                    r->origin);
    return STATUS_OK;
}

enum status remote_parse(const struct source_options *o, const char *url, struct remote *r, const char **code,
                         struct error *err)
{
    struct url_parts u;
    bool named = false;
    memset(r, 0, sizeof *r);
    r->options = o;
    *code = SOURCE_INVALID;
    source_show(url, r->shown, sizeof r->shown);
    enum status s = url_split(url, &u, err);
    if (s == STATUS_OK && u.fragment[0])
        s = set_sha256(r, u.fragment, err);
    if (s == STATUS_OK)
        s = parse_kind(r, &u, err);
    if (s == STATUS_OK)
        s = check_hub_token(r, o, err);
    if (s != STATUS_OK)
        return s;
    if (!is_allowed(o, &u, &named))
        return not_allowed(r, &u, code, err);
    char whole[2 * FETCH_URL_MAX + 1000], hex[65];
    snprintf(whole, sizeof whole, "%s %s%s%s %s", u.scheme, r->folder, r->file, r->query, r->revision);
    s = sha256_of(whole, strlen(whole), hex, err);
    snprintf(r->id, sizeof r->id, "%.32s", hex);
    if (s == STATUS_OK)
        *code = NULL;
    return s;
}

enum status source_validate(const struct source_options *o, const char *url, const char **code,
                            struct error *err)
{
    struct remote r;
    const char *why = NULL;
    enum status s = remote_parse(o, url, &r, &why, err);
    if (code)
        *code = why;
    return s;
}
