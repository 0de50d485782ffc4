/* The program: a subcommand, its arguments, an exit code. */
#include <stdio.h>
#include <string.h>

#include "cmd.h"

static const char usage_text[] =
    "usage: lorikeet serve --model PATH [--adapter NAME=PATH[:SCALE]]... [--adapters DIR] [--listen "
    "ADDRESS]\n"
    "       lorikeet run --model PATH [--adapter NAME=PATH] -p \"prompt\"    one generation in the terminal\n"
    "       lorikeet chat [--url URL] [--adapter NAME]                     a chat with a running server\n"
    "       lorikeet adapters list|show|load|rollback|...          the adapters of a running server\n"
    "       lorikeet tenants|keys make|list|...                    who may ask a running server, and for "
    "what\n"
    "       lorikeet eval --model PATH --text FILE                         perplexity, and divergence\n"
    "       lorikeet inspect PATH [--json]                                 what a model or an adapter is, in "
    "numbers\n"
    "       lorikeet stamp ADAPTER --model BASE                         which base an adapter is of, written "
    "beside it\n"
    "       lorikeet fetch URL                                             a remote adapter into the cache\n"
    "       lorikeet shrink ADAPTER OUT --rank R | --energy E              a smaller adapter, by SVD\n"
    "       lorikeet convert ADAPTER OUT --model BASE                      PEFT folder to GGUF file, and "
    "back\n"
    "       lorikeet merge --model BASE ADAPTER... OUT                     a model folder with adapters "
    "inside\n"
    "       lorikeet check-config FILE                                     whether a configuration is right\n"
    "       lorikeet --version\n"
    "`lorikeet COMMAND --help` says more; `man lorikeet` says all.\n";

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {{"serve", cmd_serve},       {"run", cmd_run},
                    {"chat", cmd_chat},         {"adapters", cmd_adapters},
                    {"tenants", cmd_tenants},   {"keys", cmd_keys},
                    {"eval", cmd_eval},         {"inspect", cmd_inspect},
                    {"stamp", cmd_stamp},       {"fetch", cmd_fetch},
                    {"shrink", cmd_shrink},     {"convert", cmd_convert},
                    {"merge", cmd_merge},       {"check-config", cmd_check_config},
                    {"--version", cmd_version}, {"version", cmd_version}};
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    int asked = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (!asked && name[0])
        fprintf(stderr, "lorikeet: unknown command \"%s\"\n", name);
    fputs(usage_text, asked ? stdout : stderr);
    return asked ? 0 : 2;
}
