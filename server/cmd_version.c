/* `lorikeet --version`: what this program is made of and what it chose for this machine; for bug reports. */
#include <stdio.h>

#include <curl/curl.h>
#include <jansson.h>
#include <uv.h>

#include "cmd.h"
#include "http_version.h"
#include "kernels.h"
#include "text.h"

int cmd_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    const struct kernels *k;
    struct error err;
    char cpu[256];
    cpu_describe(cpu, sizeof cpu);
    printf("lorikeet %s\n", LORIKEET_VERSION);
    if (kernels_select("auto", ACT_MODE_INT8, &k, &err) == STATUS_OK)
        printf("kernels: %s (this machine has: %s)\n", k->isa, cpu);
    printf("libraries: libmicrohttpd %s, libuv %s, jansson %s, %s\n", http_library_version(),
           uv_version_string(), jansson_version_str(), curl_version());
    return 0;
}
