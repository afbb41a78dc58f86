// SPDX-License-Identifier: Apache-2.0
/*
 * Faults of a node's disk, loaded into its processes with LD_PRELOAD.
 *
 * `disk_faults.py` builds this, and writes the control block, a file that is mapped
 * here. The system calls of the real process fail or take longer: all of a kind, or only
 * those on one file. A tracer such as strace would stop every other call, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { OFF, SYNCS, WRITES, READS };

/* Keep it as in disk_faults.py. */
struct control {
    _Atomic int32_t calls; /* Written last. */
    int32_t error;         /* An errno, in place of the call; 0: none. */
    int32_t before_us;
    int32_t after_us;
    _Atomic int32_t left; /* This many calls more; below 0: all. */
    _Atomic int32_t hits;
    _Atomic int64_t first_ns; /* Unix time of the first one. */
    char file[64];            /* End of the file's path; empty: every file. */
};

static struct control *control;

__attribute__((constructor)) static void map_control(void)
{
    const char *path = getenv("SPARECODE_FAULTS_DISK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *block = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (block != MAP_FAILED)
        control = block;
}

static int is_named(int fd)
{
    char link[32], path[4096];
    size_t wanted = strnlen(control->file, sizeof control->file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length >= (ssize_t)wanted &&
           !memcmp(path + length - wanted, control->file, wanted);
}

/* Return whether the fault applies to this call, and count it. */
static int hits(int calls, int fd)
{
    if (!control || atomic_load(&control->calls) != calls || !is_named(fd))
        return 0;
    int32_t left = atomic_load(&control->left);
    do {
        if (!left)
            return 0;
    } while (left > 0 &&
             !atomic_compare_exchange_weak(&control->left, &left, left - 1));
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t never = 0;
    atomic_compare_exchange_strong(&control->first_ns, &never,
                                   now.tv_sec * 1000000000LL + now.tv_nsec);
    atomic_fetch_add(&control->hits, 1);
    return 1;
}

#define FAULTY(kind, fd, call)                                                      \
    do {                                                                            \
        int kept = errno;                                                           \
        int hit = hits(kind, fd);                                                   \
        int32_t after_us = hit ? control->after_us : 0;                             \
        if (hit && control->error) {                                                \
            errno = control->error;                                                 \
            return -1;                                                              \
        }                                                                           \
        if (hit && control->before_us)                                              \
            usleep(control->before_us);                                             \
        errno = kept;                                                               \
        long result = (call);                                                       \
        if (after_us) {                                                             \
            kept = errno;                                                           \
            usleep(after_us);                                                       \
            errno = kept;                                                           \
        }                                                                           \
        return result;                                                              \
    } while (0)

int fsync(int fd) { FAULTY(SYNCS, fd, syscall(SYS_fsync, fd)); }

int fdatasync(int fd) { FAULTY(SYNCS, fd, syscall(SYS_fdatasync, fd)); }

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    FAULTY(WRITES, fd, syscall(SYS_pwrite64, fd, data, size, offset));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    FAULTY(WRITES, fd, syscall(SYS_pwrite64, fd, data, size, offset));
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    FAULTY(READS, fd, syscall(SYS_pread64, fd, data, size, offset));
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset)
{
    FAULTY(READS, fd, syscall(SYS_pread64, fd, data, size, offset));
}
