/* Loaded before libc: dies or fails at the n-th call that changes files, and at all after it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long calls = 0, at = 0;
static int error = 0; /* 0: die */

void faults_arm(long n, int code) {
  calls = 0;
  at = n;
  error = code;
}

long faults_calls(void) { return calls; }

/* An unlinked file is not on the disk. */
static int on_disk(int fd) {
  struct stat found;
  return fd > 2 && (fstat(fd, &found) || found.st_nlink > 0);
}

static int struck(void) {
  long n = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  if (!at || n < at) return 0;
  if (!error) kill(getpid(), SIGKILL);
  errno = error;
  return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void* data, size_t size) {
  return on_disk(fd) && struck() ? -1 : NEXT(write)(fd, data, size);
}

/* A process that dies here leaves half of the bytes. */
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  if (!on_disk(fd)) return NEXT(pwrite64)(fd, data, size, offset);
  if (at && !error && calls + 1 == at) NEXT(pwrite64)(fd, data, size / 2, offset);
  return struck() ? -1 : NEXT(pwrite64)(fd, data, size, offset);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size) { /* gives the error back */
  return struck() ? error : NEXT(posix_fallocate64)(fd, offset, size);
}

int fsync(int fd) { return struck() ? -1 : NEXT(fsync)(fd); }
int mkdir(const char* path, mode_t mode) { return struck() ? -1 : NEXT(mkdir)(path, mode); }
int rename(const char* from, const char* to) { return struck() ? -1 : NEXT(rename)(from, to); }

/* Without room, files can still be removed. */
int unlink(const char* path) { return !error && struck() ? -1 : NEXT(unlink)(path); }
int unlinkat(int folder, const char* path, int flags) {
  return !error && struck() ? -1 : NEXT(unlinkat)(folder, path, flags);
}
