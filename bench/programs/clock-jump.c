/*
 * Preloaded into a program, it shifts the clocks that the program reads: by what stands in the file
 * that SL_CLOCK names, two 64-bit numbers of nanoseconds, for the wall clock and for time since boot.
 * The file is mapped, so whoever writes there makes the clock jump at that moment.
 *
 *   SL_CLOCK   [ wall | since boot ]      both 0: the clocks are right
 *
 * Timers that the kernel keeps (epoll_wait, poll) are the kernel's and run on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t right[2];
static const volatile int64_t *shift = right;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SL_CLOCK");
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(0, sizeof right, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        shift = at;
    if (fd >= 0)
        close(fd);
}

int clock_gettime(clockid_t which, struct timespec *to)
{
    int failed = real ? real(which, to) : (int)syscall(SYS_clock_gettime, which, to);
    if (failed)
        return failed;
    int isWall = which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE;
    int isBoot = which == CLOCK_MONOTONIC || which == CLOCK_MONOTONIC_COARSE || which == CLOCK_MONOTONIC_RAW || which == CLOCK_BOOTTIME;
    int64_t by = isWall ? shift[0] : isBoot ? shift[1] : 0;
    int64_t ns = to->tv_nsec + by % 1000000000;
    to->tv_sec += by / 1000000000 + (ns >= 1000000000) - (ns < 0);
    to->tv_nsec = ns + (ns < 0 ? 1000000000 : ns >= 1000000000 ? -1000000000 : 0);
    return 0;
}

int gettimeofday(struct timeval *to, void *zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}
