/* How long a worker takes from an adapter's files to a version: best, median, and processor time of the
 * calling thread.
 *
 *   bench_load MODEL ADAPTER [TIMES]
 *
 * Files are in the page cache after the first time; tests/bench/bench_swap.py has the rest of a swap. */
#include <stdio.h>
#include <stdlib.h>

#include "adapters.h"
#include "base/clock.h"
#include "base/team.h"
#include "kernels.h"
#include "model.h"

#define TIMES_MAX 1000U

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double cpu_ms(void)
{
    return (double)clock_thread_ns() / 1e6;
}

static enum status open_model(const char *path, struct model **m, struct error *err)
{
    struct model_options options = {.quant = QUANT_AUTO};
    struct model_files *files = NULL;
    enum status s = kernels_select("auto", ACT_MODE_INT8, &options.kernels, err);
    if (s == STATUS_OK)
        s = model_files_open(path, &files, err);
    options.team = s == STATUS_OK ? team_create(2) : NULL;
    if (options.team)
        s = model_open(files, &options, m, err);
    team_destroy(options.team);
    model_files_close(files);
    return s;
}

static enum status measure(const char *path, const struct model *m, unsigned times, struct error *err)
{
    static double wall[TIMES_MAX], cpu[TIMES_MAX];
    struct adapter_source source = {.name = "measured", .path = path, .root_fd = -1, .scale = 1};
    struct adapter_version *v = NULL;
    for (unsigned i = 0; i < times; i++) {
        int64_t begin = clock_now_ns();
        double begin_cpu = cpu_ms();
        adapter_release(v);
        enum status s = adapter_load(&source, m, &v, err);
        if (s != STATUS_OK)
            return s;
        wall[i] = (double)(clock_now_ns() - begin) / 1e6;
        cpu[i] = cpu_ms() - begin_cpu;
    }
    double mib = (double)v->report.file_bytes / 1048576;
    adapter_release(v);
    qsort(wall, times, sizeof *wall, compare);
    qsort(cpu, times, sizeof *cpu, compare);
    printf(
        "%.1f MiB: %.2f ms at best, %.2f ms median, %.2f ms of processor time (median), %.0f MiB/s at best\n",
        mib, wall[0], wall[times / 2], cpu[times / 2], mib / wall[0] * 1e3);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct error err = {.text = ""};
    struct model *m = NULL;
    unsigned times = argc > 3 ? (unsigned)atoi(argv[3]) : 20;
    if (argc < 3 || times == 0 || times > TIMES_MAX) {
        fprintf(stderr, "bench_load MODEL ADAPTER [TIMES]\n");
        return 2;
    }
    enum status s = open_model(argv[1], &m, &err);
    if (s == STATUS_OK)
        s = measure(argv[2], m, times, &err);
    if (s != STATUS_OK)
        fprintf(stderr, "%s\n", err.text);
    model_close(m);
    return s == STATUS_OK ? 0 : 1;
}
