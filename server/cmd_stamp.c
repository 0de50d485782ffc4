/* `lorikeet stamp ADAPTER --model BASE`: writes down beside an adapter which base it was trained on. Whoever
 * trained it knows; from then on every server can check. */
#include "cmd.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "adapters.h"
#include "base/team.h"
#include "fingerprint.h"
#include "format.h"
#include "kernels.h"
#include "model.h"

struct stamping {
    const char *adapter, *model_path, *base_name;
    struct model *model;
    struct base_sketch sketch;
};

static int usage(FILE *to, int code)
{
    fprintf(
        to,
        "usage: lorikeet stamp ADAPTER --model BASE [--base-name NAME]\n"
        "Writes lorikeet_base.json into the adapter's folder (beside X.gguf: X.gguf.lorikeet_base.json):\n"
        "some of the base's weights, by which a server knows it again. BASE should be the one that the\n"
        "adapter was trained on, in the type that it was trained in. docs/FINGERPRINT.md says more.\n");
    return code;
}

static enum status open_base(struct stamping *s, struct error *err)
{
    struct model_files *files = NULL;
    struct model_options options = {.quant = QUANT_AUTO};
    enum status st = kernels_select("auto", ACT_MODE_INT8, &options.kernels, err);
    if (st == STATUS_OK)
        st = model_files_open(s->model_path, &files, err);
    if (st == STATUS_OK) {
        options.team = team_create(0);
        st = options.team ? model_open(files, &options, &s->model, err)
                          : fail(err, STATUS_NO_MEMORY, "can't start threads");
    }
    team_destroy(options.team);
    model_files_close(files);
    return st;
}

/* An adapter that doesn't fit the base was not trained on it, whatever is said. */
static enum status check_fit(const struct stamping *s, struct error *err)
{
    struct adapter_version *v;
    struct adapter_source source = {.name = "stamped",
                                    .path = s->adapter,
                                    .root_fd = -1,
                                    .scale = 1,
                                    .base_policy = BASE_POLICY_ANY,
                                    .base_name = s->base_name};
    enum status st = adapter_load(&source, s->model, &v, err);
    if (st != STATUS_OK)
        return st;
    const struct base_match *m = &v->report.base;
    if (m->stamped && m->outcome == BASE_MISMATCH)
        fprintf(stderr, "lorikeet: the old stamp is replaced: %s\n", m->how);
    else if (!m->stamped && m->outcome == BASE_SHAPES)
        fprintf(stderr, "lorikeet: %s\n", m->how);
    adapter_release(v);
    return STATUS_OK;
}

static enum status stamp(struct stamping *s, struct error *err)
{
    enum status st = open_base(s, err);
    if (st == STATUS_OK)
        st = check_fit(s, err);
    if (st == STATUS_OK)
        st = model_sketch(s->model, &s->sketch, err);
    if (st == STATUS_OK && s->base_name)
        snprintf(s->sketch.name, sizeof s->sketch.name, "%s", s->base_name);
    return st == STATUS_OK ? stamp_write(s->adapter, &s->sketch, err) : st;
}

int cmd_stamp(int argc, char **argv)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"base-name", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct stamping s = {.adapter = NULL};
    struct error err;
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == 'm')
            s.model_path = optarg;
        else if (o == 'n')
            s.base_name = optarg;
        else
            return o == 'h' ? usage(stdout, 0) : usage(stderr, 2);
    }
    if (argc - optind != 1 || !s.model_path)
        return usage(stderr, 2);
    s.adapter = argv[optind];
    int code = 0;
    if (stamp(&s, &err) == STATUS_OK) {
        printf("%s: stamped for %s (%s, %u places of its weights)\n", s.adapter,
               s.sketch.name[0] ? s.sketch.name : "a base without a name", s.sketch.weight_type,
               s.sketch.n_spots);
    } else {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        code = 1;
    }
    base_sketch_fini(&s.sketch);
    model_close(s.model);
    return code;
}
