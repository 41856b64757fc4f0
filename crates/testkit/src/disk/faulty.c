/* A disk with faults, for a process that does its input and output through the C library.
 *
 * Preloaded (LD_PRELOAD), this stands between the process and the files below FAULTY_DISK_DIR.
 * The first bytes of the file FAULTY_DISK_CONTROL say how the disk is:
 *
 *   0..4  milliseconds that every sync takes longer
 *   4     1: no file grows any more (ENOSPC)
 *   5     1: syncs are answered and not done, as far as the record below is concerned
 *
 * What was in a file before each write that is not synced yet is recorded in FAULTY_DISK_UNDO, one
 * file for each, named by its inode: a test that kills the process can put every file back to what
 * it was at its last sync, as if the power had failed. A record is the write's offset, the file's
 * size before it, the number of old bytes, and these. A write to a file that is written
 * synchronously (chattr +S) is a sync as well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCKS 64

struct control {
    uint32_t sync_delay_ms;
    uint8_t full;
    uint8_t lies;
};

static const char *dir, *undo;
static volatile struct control *control;
/* A file's writes and syncs one after the other, so that a record is the write's. */
static pthread_mutex_t locks[LOCKS];

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    for (int i = 0; i < LOCKS; i++) pthread_mutex_init(&locks[i], NULL);
    const char *path = getenv("FAULTY_DISK_CONTROL");
    undo = getenv("FAULTY_DISK_UNDO");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED) abort();
    control = page;
    dir = getenv("FAULTY_DISK_DIR");
}

/* Whether this is a file on the disk. */
static int ours(int fd, struct stat *status) {
    char link[64], path[4096];
    if (!dir || fstat(fd, status) != 0 || !S_ISREG(status->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t prefix = strlen(dir);
    return length > (ssize_t)prefix && memcmp(path, dir, prefix) == 0 && path[prefix] == '/';
}

static int open_undo(const struct stat *status) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%lu", undo, (unsigned long)status->st_ino);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void all(int fd, const void *bytes, size_t count) {
    if (real_write(fd, bytes, count) != (ssize_t)count) abort();
}

/* Remembers what a write is about to change. */
static void record(int file, const struct stat *status, off_t offset, size_t count) {
    uint64_t size = status->st_size, begin = offset, old = 0;
    if (begin < size) old = size - begin < count ? size - begin : count;
    char *bytes = malloc(old ? old : 1), link[64];
    if (!bytes) abort();
    if (old) {
        /* The descriptor may be for writing only. */
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        int reader = open(link, O_RDONLY | O_CLOEXEC);
        if (reader < 0 || pread(reader, bytes, old, offset) != (ssize_t)old) abort();
        close(reader);
    }
    uint64_t head[3] = {begin, size, old};
    int fd = open_undo(status);
    if (fd < 0) abort();
    all(fd, head, sizeof head);
    all(fd, bytes, old);
    close(fd);
    free(bytes);
}

static void wait_for_disk(void) {
    uint32_t delay = control->sync_delay_ms;
    struct timespec pause = {delay / 1000, (long)(delay % 1000) * 1000000};
    if (delay) nanosleep(&pause, NULL);
}

/* All that was written to a file is safe. */
static void forget(const struct stat *status) {
    if (control->lies) return;
    int record = open_undo(status);
    if (record < 0 || ftruncate(record, 0) != 0) abort();
    close(record);
}

static int is_synchronous(int fd) {
    int flags = 0;
    return ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && flags & FS_SYNC_FL;
}

static ssize_t written(int fd, const void *bytes, size_t count, off_t offset, int at_offset) {
    struct stat status;
    if (!ours(fd, &status)) {
        return at_offset ? real_pwrite(fd, bytes, count, offset) : real_write(fd, bytes, count);
    }
    pthread_mutex_t *lock = &locks[status.st_ino % LOCKS];
    pthread_mutex_lock(lock);
    ssize_t result = -1;
    int error = ENOSPC;
    if (fstat(fd, &status) != 0) abort();
    if (!at_offset) {
        offset = fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
    }
    if (!control->full || offset + (off_t)count <= status.st_size) {
        record(fd, &status, offset, count);
        result = at_offset ? real_pwrite(fd, bytes, count, offset) : real_write(fd, bytes, count);
        error = errno;
        if (is_synchronous(fd)) {
            wait_for_disk();
            if (result == (ssize_t)count) forget(&status);
        }
    }
    pthread_mutex_unlock(lock);
    errno = error;
    return result;
}

static int synced(int fd, int (*sync)(int)) {
    struct stat status;
    if (!ours(fd, &status)) return sync(fd);
    pthread_mutex_t *lock = &locks[status.st_ino % LOCKS];
    pthread_mutex_lock(lock);
    wait_for_disk();
    int result = sync(fd), error = errno;
    if (result == 0) forget(&status);
    pthread_mutex_unlock(lock);
    errno = error;
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return written(fd, bytes, count, offset, 1);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return written(fd, bytes, count, offset, 1);
}

ssize_t write(int fd, const void *bytes, size_t count) { return written(fd, bytes, count, 0, 0); }

int fsync(int fd) { return synced(fd, real_fsync); }

int fdatasync(int fd) { return synced(fd, real_fdatasync); }
