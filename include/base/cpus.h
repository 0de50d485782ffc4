/* The processors that this process may use, and what others take of them: the kernel's files, read. `root` is
 * put before their paths ("" but in tests). What isn't there, or can't be read, is left out and said so.
 * Thread: any. Nothing is allocated. */
#ifndef LK_BASE_CPUS_H
#define LK_BASE_CPUS_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* The process's affinity: its first thread's, which nobody here pins. One CPU where it can't be asked. */
void cpus_allowed(cpu_set_t *out);

/* CPUs that the quota of the process's cgroup (v2), or of one above it, is worth, rounded up; 0: no quota. Of
 * v1 only a container's own group is seen. */
unsigned cpus_quota(const char *root);

/* How many threads find a core: the allowed CPUs, cut to the quota; at least 1. */
unsigned cpus_usable(void);

/* A CPU of its own for each of n threads that are on now[i] (-1: unknown), n at most CPU_SETSIZE: that one,
 * where no other of them is on the same core; the others get free ones. A core has two of them only where
 * there are fewer cores than threads; each CPU is a core where the kernel doesn't tell. False: fewer CPUs
 * than threads.
 */
bool cpus_place(const char *root, const cpu_set_t *allowed, const int *now, unsigned n, uint16_t *out);

/* Counters that only grow. */
struct cpu_sample {
    int64_t at_ns;                        /* when; the caller's */
    uint64_t busy_ns, idle_ns, stolen_ns; /* of the allowed CPUs, together: they worked (for anybody), had
                                             nothing to do, were taken by the hypervisor */
    uint64_t throttled_ns;                /* of the cgroup, summed over its CPUs: the quota was used up */
    bool has_stat, has_throttled;
};
/* `buf` of n_bytes is scratch: 128 bytes for each CPU of the machine will do. */
void cpus_sample(const char *root, const cpu_set_t *allowed, char *buf, uint32_t n_bytes,
                 struct cpu_sample *out);

/* A thread's times: on a CPU, and ready for one while others had it. False: the kernel doesn't tell. */
struct thread_times {
    uint64_t run_ns, delay_ns;
};
bool cpus_thread_times(const char *root, int tid, struct thread_times *out);
/* The CPU that it ran on last; -1: unknown. */
int cpus_thread_cpu(const char *root, int tid);

#endif
