/* The data of a packed file, brought into memory and compared with its sums.
 *
 * A mapped file is memory that others can change: who cuts it off ends us with SIGBUS at the next touch. So
 * it is mapped only under a read lease (fcntl(2), F_SETLEASE): the kernel lets nobody open it for writing, or
 * cut it, before we agree, for lease-break-time (45 s). A thread of our own asks each second whether somebody
 * waits for that, and then puts a private copy in the place of the mapping. Renaming over the file, or
 * removing it, doesn't concern us: the mapping keeps what it had. Where no lease can be had (another owner, a
 * file system without leases, somebody writes) the data is read instead.
 *
 * What is left: a disk that fails to bring a page back, and root, who may change the disk below the file. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "packed_file.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#define LOOK_SECONDS 1

struct packed_lease {
    struct packed_map *map;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
};

/* ---- private memory ---- */

static uint8_t *anonymous(size_t n_bytes)
{
    void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, n_bytes, MADV_HUGEPAGE);
    return p;
}

/* The same bytes at the same addresses, ours alone. mremap exchanges them under the kernel's lock: who reads
 * meanwhile sees the one or the other. */
static bool make_private(struct packed_map *m)
{
    uint8_t *copy = anonymous(m->n_bytes);
    if (!copy)
        return false;
    memcpy(copy, m->data, m->n_bytes);
    if (mprotect(copy, m->n_bytes, PROT_READ) == 0 &&
        mremap(copy, m->n_bytes, m->n_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, m->data) == m->data)
        return true;
    munmap(copy, m->n_bytes);
    return false;
}

/* ---- the lease ---- */

/* F_GETLEASE shows what the lease is about to become. */
static bool somebody_waits(const struct packed_map *m)
{
    return fcntl(m->file.fd, F_GETLEASE) == F_UNLCK;
}

static void *keep_lease(void *arg)
{
    struct packed_lease *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += LOOK_SECONDS;
        (void)pthread_cond_timedwait(&l->wake, &l->lock, &until);
        if (!l->stop && somebody_waits(l->map) && make_private(l->map)) {
            file_close(&l->map->file); /* gives the lease back */
            break;
        }
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* Signals are for the threads that wait for them. */
static bool start_quietly(struct packed_lease *l)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&l->thread, NULL, keep_lease, l) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static bool start_lease(struct packed_map *m)
{
    pthread_condattr_t monotonic;
    struct packed_lease *l = mem_zalloc(sizeof *l);
    if (!l)
        return false;
    l->map = m;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    /* The kernel tells a broken lease by SIGIO, which ends a program; SIGURG is ignored unless asked for. */
    if (fcntl(m->file.fd, F_SETSIG, SIGURG) == 0 && fcntl(m->file.fd, F_SETLEASE, F_RDLCK) == 0 &&
        start_quietly(l)) {
        m->lease = l;
        return true;
    }
    (void)fcntl(m->file.fd, F_SETLEASE, F_UNLCK);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
    return false;
}

static void end_lease(struct packed_lease *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

/* ---- loading ---- */

struct loading {
    struct packed_map *map;
    bool reads;
    atomic_uint next;   /* block */
    atomic_flag failed; /* the first worker that fails writes `error` */
    atomic_bool any_failed;
    struct error error;
};

/* Page faults one by one cost more than the sum; and a page that the disk doesn't give is an error here, not
 * a signal later. Kernels before 5.14 don't know it. */
static enum status populate(const struct packed_map *m, uint8_t *at, size_t n, struct error *err)
{
    if (madvise(at, n, MADV_POPULATE_READ) == 0 || errno == EINVAL)
        return STATUS_OK;
    return fail(err, STATUS_IO, "%s: can't read: %s", m->file.path, strerror(errno));
}

static enum status load_block(const struct loading *l, uint32_t block, struct error *err)
{
    const struct packed_map *m = l->map;
    uint64_t begin = block * PACKED_BLOCK_BYTES;
    size_t n = m->n_bytes - begin < PACKED_BLOCK_BYTES ? (size_t)(m->n_bytes - begin) : PACKED_BLOCK_BYTES;
    uint8_t *at = m->data + begin;
    enum status s =
        l->reads ? file_pread(&m->file, m->header.data_at + begin, at, n, err) : populate(m, at, n, err);
    if (s == STATUS_OK && packed_sum(at, n) != m->sums[block])
        s = fail(err, STATUS_FORMAT, "%s: the sum of block %u is wrong: the file was damaged", m->file.path,
                 block);
    return s;
}

static void load_task(void *arg, unsigned worker, unsigned n_workers)
{
    struct loading *l = arg;
    struct error err;
    (void)worker, (void)n_workers;
    for (;;) { /* relaxed: blocks are independent, and the end of the task publishes the rest */
        unsigned block = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
        if (block >= l->map->n_blocks || atomic_load_explicit(&l->any_failed, memory_order_relaxed))
            return;
        if (load_block(l, block, &err) == STATUS_OK)
            continue;
        if (!atomic_flag_test_and_set(&l->failed))
            l->error = err;
        atomic_store_explicit(&l->any_failed, true, memory_order_relaxed);
    }
}

static uint8_t *map_file(const struct packed_map *m)
{
    struct stat st;
    /* Under the lease now, so this look at the size holds. */
    if (fstat(m->file.fd, &st) != 0 || (uint64_t)st.st_size != m->file.size_bytes)
        return NULL;
    void *p = mmap(NULL, m->n_bytes, PROT_READ, MAP_SHARED, m->file.fd, (off_t)m->header.data_at);
    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, m->n_bytes, MADV_HUGEPAGE);
    return p;
}

enum status packed_map_load(struct packed_map *m, struct team *team, struct error *err)
{
    struct loading l = {.map = m, .failed = ATOMIC_FLAG_INIT};
    if (start_lease(m))
        m->data = map_file(m);
    m->is_mapped = m->data != NULL;
    l.reads = !m->is_mapped;
    if (l.reads)
        m->data = anonymous(m->n_bytes);
    if (!m->data)
        return fail(err, STATUS_NO_MEMORY, "%s: no room for %zu bytes", m->file.path, m->n_bytes);
    if (team)
        team_run(team, load_task, &l);
    else
        load_task(&l, 0, 1);
    if (l.any_failed) {
        if (err)
            *err = l.error;
        return l.error.status;
    }
    if (l.reads)
        (void)mprotect(m->data, m->n_bytes, PROT_READ);
    return STATUS_OK;
}

void packed_map_unload(struct packed_map *m)
{
    end_lease(m->lease);
    m->lease = NULL;
    if (m->data)
        munmap(m->data, m->n_bytes);
    m->data = NULL;
}
