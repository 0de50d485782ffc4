/* `lorikeet fetch URL`: brings a remote adapter into the cache that a server with the same options uses, and
 * prints where it lies. To warm a cache before a start, and to see why a source can't be had. */
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd.h"
#include "conf.h"
#include "options.h"
#include "sources.h"

static const char usage[] =
    "usage: lorikeet fetch URL [--json] [--config FILE] [options of `lorikeet serve`: --source-…, "
    "--hf-endpoint, "
    "--s3-…]\n"
    "Prints the path of the adapter in the cache. URL: https://HOST/FOLDER/, s3://BUCKET/PREFIX/,\n"
    "hf://ORG/NAME[@REVISION][/FOLDER], or one of a .gguf or .safetensors file; #sha256=HEX behind it.\n";

struct shown_progress {
    int64_t last_ns;
    bool any;
};

static void on_progress(void *data, const char *file, uint64_t done, uint64_t total)
{
    struct shown_progress *p = data;
    int64_t now = clock_now_ns();
    if (now - p->last_ns < 200 * NS_PER_MS)
        return;
    p->last_ns = now;
    p->any = true;
    if (total)
        fprintf(stderr, "\r%s: %.1f of %.1f MB   ", file, (double)done / 1e6, (double)total / 1e6);
    else
        fprintf(stderr, "\r%s: %.1f MB   ", file, (double)done / 1e6);
}

static void print_json(const struct fetched *f, enum status s, const struct error *err)
{
    json_t *o = s == STATUS_OK
                    ? json_pack("{s:s, s:s, s:s, s:I, s:I, s:b}", "path", f->path, "revision", f->revision,
                                "sha256", f->sha256, "bytes", (json_int_t)f->bytes, "downloaded",
                                (json_int_t)f->downloaded, "stale", f->stale)
                    : json_pack("{s:{s:s, s:s, s:s}}", "error", "code", f->code ? f->code : SOURCE_INTERNAL,
                                "status", status_name(s), "message", err->text);
    char *text = o ? json_dumps(o, 0) : NULL;
    printf("%s\n", text ? text : "{}");
    free(text); /* jansson's */
    json_decref(o);
}

static int fetch(const struct conf *c, const char *url, bool json)
{
    struct source_options o;
    struct fetched f;
    struct error err = {0};
    struct shown_progress p = {0};
    conf_sources(c, &o);
    if (isatty(STDERR_FILENO)) {
        o.progress = on_progress;
        o.data = &p;
    }
    if (!sources_begin()) {
        fprintf(stderr, "lorikeet: libcurl can't start\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    enum status s = source_fetch(&o, url, &f, &err);
    if (p.any)
        fprintf(stderr, "\n");
    if (json)
        print_json(&f, s, &err);
    else if (s == STATUS_OK)
        printf("%s\n", f.path);
    if (s != STATUS_OK)
        fprintf(stderr, "lorikeet: %s\n", err.text);
    else if (f.stale)
        fprintf(stderr, "lorikeet: this is what the cache had, as %s\n", f.why);
    fetched_release(&f);
    sources_end();
    return s == STATUS_OK ? 0 : 1;
}

int cmd_fetch(int argc, char **argv)
{
    struct conf c;
    struct error err = {0};
    const char *url = NULL;
    bool json = false, help = false;
    int n = 0;
    /* The URL may stand anywhere but where an option's value does; what is left are options. */
    for (int i = 0; i < argc; i++) {
        bool after_option = n > 1 && strncmp(argv[n - 1], "--", 2) == 0 && !strchr(argv[n - 1], '=');
        if (i > 0 && strcmp(argv[i], "--json") == 0)
            json = true;
        else if (i > 0 && !url && source_is_remote(argv[i]) && !after_option)
            url = argv[i];
        else
            argv[n++] = argv[i];
    }
    if (!conf_init(&c)) {
        fprintf(stderr, "lorikeet: no memory for the configuration\n");
        return 1;
    }
    int code = 2;
    if (conf_read_args(&c, n, argv, &help, &err) != STATUS_OK)
        fprintf(stderr, "lorikeet: %s\n", err.text);
    else if (help || !url)
        fputs(usage, help ? stdout : stderr);
    else
        code = fetch(&c, url, json);
    conf_fini(&c);
    return help ? 0 : code;
}
