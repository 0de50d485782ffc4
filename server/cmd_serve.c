/* `lorikeet serve` and `lorikeet check-config`: arguments or a file into a configuration, then the server, or
 * a word. */
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "conf.h"
#include "options.h"
#include "server.h"
#include "tenant_file.h"

static int complain(const struct error *err)
{
    fprintf(stderr, "lorikeet: %s\n", err->text);
    return 2;
}

int cmd_serve(int argc, char **argv)
{
    struct conf c;
    struct error err = {0};
    bool help = false;
    if (!conf_init(&c))
        return complain(&(struct error){.text = "no memory for the configuration"});
    int code = 0;
    if (conf_read_args(&c, argc, argv, &help, &err) != STATUS_OK)
        code = complain(&err);
    if (code == 0 && help) {
        printf(
            "usage: lorikeet serve --model PATH [options], or --config FILE with the same names in YAML\n\n");
        printf("  %-32s %s\n", "--config FILE", "options from a file; flags win over it");
        options_print_help(stdout);
    } else if (code == 0) {
        code = conf_finish(&c, &err) == STATUS_OK ? server_run(&c) : complain(&err);
    }
    conf_fini(&c);
    return code;
}

int cmd_check_config(int argc, char **argv)
{
    struct conf c;
    struct error err = {0};
    if (argc != 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: lorikeet check-config FILE\n");
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    if (!conf_init(&c))
        return complain(&(struct error){.text = "no memory for the configuration"});
    enum status s = conf_read_yaml(&c, argv[1], &err);
    if (s == STATUS_OK && (s = conf_finish(&c, &err)) != STATUS_OK)
        fail_within(&err, "%s", argv[1]);
    struct tenants_file tenants = {0};
    if (s == STATUS_OK && c.tenants_file)
        s = tenants_file_read(c.tenants_file, &tenants, &err);
    tenants_file_fini(&tenants);
    if (s == STATUS_OK)
        printf("%s is right\n", argv[1]);
    else
        complain(&err);
    conf_fini(&c);
    return s == STATUS_OK ? 0 : 1;
}
