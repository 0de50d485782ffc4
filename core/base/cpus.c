/* What the kernel's files say of processors. Formats: proc(5), Documentation/admin-guide/cgroup-v2.rst,
 * Documentation/scheduler/sched-stats.rst (schedstat of a task: ns on a CPU, ns of waiting for one, slices).
 * Holds no state. */
#include "base/cpus.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4352U
#define SMALL_BYTES 2048U

/* ---- files ---- */

/* The file's beginning, ended by a 0; false where there is none. */
static bool read_text(const char *path, char *buf, uint32_t n_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    uint32_t n = 0;
    ssize_t got = 1;
    if (fd < 0)
        return false;
    while (n < n_bytes - 1 && (got = read(fd, buf + n, n_bytes - 1 - n)) > 0)
        n += (uint32_t)got;
    close(fd);
    buf[n] = 0;
    return got >= 0;
}

static bool read_at(const char *root, const char *path, char *buf, uint32_t n_bytes)
{
    char whole[PATH_BYTES];
    int n = snprintf(whole, sizeof whole, "%s%s", root, path);
    return n > 0 && (size_t)n < sizeof whole && read_text(whole, buf, n_bytes);
}

/* ---- affinity and quota ---- */

void cpus_allowed(cpu_set_t *out)
{
    CPU_ZERO(out);
    if (sched_getaffinity(getpid(), sizeof *out, out) != 0 || CPU_COUNT(out) == 0)
        CPU_SET(0, out);
}

/* The process's cgroup below the mount, "" for its root: v2's line of /proc/self/cgroup is "0::/path". */
static void find_cgroup(const char *root, char path[SMALL_BYTES])
{
    char text[SMALL_BYTES];
    path[0] = 0;
    if (!read_at(root, "/proc/self/cgroup", text, sizeof text))
        return;
    for (char *line = text, *rest = NULL; (line = strtok_r(line, "\n", &rest)) != NULL; line = NULL)
        if (strncmp(line, "0::/", 4) == 0 && strcmp(line, "0::/") != 0)
            snprintf(path, SMALL_BYTES, "%s", line + 3);
}

/* A file of the cgroup; where the path isn't below this mount (a container's), of the mount's root. */
static bool read_cgroup(const char *root, const char *cgroup, const char *name, char *buf, uint32_t n_bytes)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", cgroup, name);
    return n > 0 && (size_t)n < sizeof path && read_at(root, path, buf, n_bytes);
}

static unsigned lesser(unsigned n, long long quota, long long period)
{
    if (quota <= 0 || period <= 0) /* v1 says -1 where there is none */
        return n;
    long long cpus = quota / period + (quota % period != 0);
    return cpus < CPU_SETSIZE && (n == 0 || cpus < n) ? (unsigned)cpus : n;
}

/* v1: where the mount's root is the group, as in a container. */
static unsigned quota_v1(const char *root)
{
    char quota[64], period[64];
    if (!read_at(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota, sizeof quota) ||
        !read_at(root, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", period, sizeof period))
        return 0;
    return lesser(0, strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

unsigned cpus_quota(const char *root)
{
    char path[SMALL_BYTES], text[128];
    unsigned least = quota_v1(root);
    find_cgroup(root, path);
    for (;;) { /* the limits of those above hold, too */
        long long quota, period;
        if (read_cgroup(root, path, "cpu.max", text, sizeof text) &&
            sscanf(text, "%lld %lld", &quota, &period) == 2)
            least = lesser(least, quota, period);
        char *last = strrchr(path, '/');
        if (!last)
            return least;
        *last = 0;
    }
}

unsigned cpus_usable(void)
{
    cpu_set_t allowed;
    cpus_allowed(&allowed);
    unsigned n = (unsigned)CPU_COUNT(&allowed), quota = cpus_quota("");
    return quota && quota < n ? quota : n;
}

/* ---- topology ---- */

/* The lowest CPU of a CPU's core, by a list such as "0,4" or "0-1"; itself where that isn't told. */
static unsigned core_of(const char *root, unsigned cpu)
{
    char path[128], text[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
    if (!read_at(root, path, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return cpu;
    unsigned long first = strtoul(text, NULL, 10); /* they ascend */
    return first < cpu ? (unsigned)first : cpu;
}

struct places {
    const cpu_set_t *allowed;
    uint16_t core[CPU_SETSIZE]; /* of each allowed CPU */
    uint16_t n_on[CPU_SETSIZE]; /* threads on each core */
    bool taken[CPU_SETSIZE];
};

static bool take(struct places *p, int cpu, unsigned n_others, uint16_t *out)
{
    if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, p->allowed) || p->taken[cpu] ||
        p->n_on[p->core[cpu]] > n_others)
        return false;
    p->taken[cpu] = true;
    p->n_on[p->core[cpu]]++;
    *out = (uint16_t)cpu;
    return true;
}

static bool take_any(struct places *p, unsigned n_others, uint16_t *out)
{
    int cpu = 0;
    while (cpu < CPU_SETSIZE && !take(p, cpu, n_others, out))
        cpu++;
    return cpu < CPU_SETSIZE;
}

bool cpus_place(const char *root, const cpu_set_t *allowed, const int *now, unsigned n, uint16_t *out)
{
    struct places p = {.allowed = allowed};
    bool placed[CPU_SETSIZE] = {false};
    unsigned n_placed = 0;
    if (n > (unsigned)CPU_COUNT(allowed))
        return false;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        p.core[cpu] = CPU_ISSET(cpu, allowed) ? (uint16_t)core_of(root, cpu) : 0;
    for (unsigned n_others = 0; n_placed < n; n_others++) {
        for (unsigned i = 0; i < n; i++) /* who may stay */
            if (!placed[i] && take(&p, now[i], n_others, &out[i]))
                n_placed += placed[i] = true;
        for (unsigned i = 0; i < n; i++)
            if (!placed[i] && take_any(&p, n_others, &out[i]))
                n_placed += placed[i] = true;
    }
    return true;
}

/* ---- counters ---- */

/* "cpuN user nice system idle iowait irq softirq steal …", in ticks. */
static void add_cpu(const char *line, const cpu_set_t *allowed, uint64_t tick_ns, struct cpu_sample *out)
{
    unsigned long long v[8];
    unsigned cpu;
    if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &v[0], &v[1], &v[2], &v[3], &v[4],
               &v[5], &v[6], &v[7]) != 9)
        return;
    if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, allowed))
        return;
    out->has_stat = true;
    out->busy_ns += (v[0] + v[1] + v[2] + v[5] + v[6]) * tick_ns;
    out->idle_ns += (v[3] + v[4]) * tick_ns;
    out->stolen_ns += v[7] * tick_ns;
}

static void sample_throttled(const char *root, struct cpu_sample *out)
{
    char path[SMALL_BYTES], text[SMALL_BYTES];
    unsigned long long us;
    find_cgroup(root, path);
    while (!read_cgroup(root, path, "cpu.stat", text, sizeof text)) {
        char *last = strrchr(path, '/');
        if (!last)
            return;
        *last = 0;
    }
    const char *at = strstr(text, "throttled_usec ");
    if (at && sscanf(at, "throttled_usec %llu", &us) == 1) {
        out->has_throttled = true;
        out->throttled_ns = us * 1000;
    }
}

void cpus_sample(const char *root, const cpu_set_t *allowed, char *buf, uint32_t n_bytes,
                 struct cpu_sample *out)
{
    long ticks = sysconf(_SC_CLK_TCK);
    uint64_t tick_ns = UINT64_C(1000000000) / (uint64_t)(ticks > 0 ? ticks : 100);
    *out = (struct cpu_sample){.at_ns = out->at_ns};
    if (read_at(root, "/proc/stat", buf, n_bytes)) {
        char *rest = NULL;
        for (char *line = strtok_r(buf, "\n", &rest); line && strncmp(line, "cpu", 3) == 0;
             line = strtok_r(NULL, "\n", &rest))
            add_cpu(line, allowed, tick_ns, out);
    }
    sample_throttled(root, out);
}

bool cpus_thread_times(const char *root, int tid, struct thread_times *out)
{
    char path[64], text[128];
    unsigned long long run, delay;
    *out = (struct thread_times){0};
    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", tid);
    if (!read_at(root, path, text, sizeof text) || sscanf(text, "%llu %llu", &run, &delay) != 2 || run == 0)
        return false; /* a kernel without the accounting says 0 0 0 */
    *out = (struct thread_times){run, delay};
    return true;
}

int cpus_thread_cpu(const char *root, int tid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    if (!read_at(root, path, text, sizeof text))
        return -1;
    const char *p = strrchr(text, ')'); /* the name may have anything in it; field 2 */
    for (int field = 2; p && field < 39; field++)
        p = strchr(p + 1, ' ');
    return p ? atoi(p + 1) : -1;
}
