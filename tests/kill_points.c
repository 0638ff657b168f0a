// Preloaded: counts calls that change files below a folder and acts at the n-th. Mode 0: kill before it; 1: half of a
// write, then kill; 2: kill after it; 3: let it fail once as on a full disk.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
static char prefix[PATH_MAX];
static long target = -1, count = 0;
static int mode = 0, armed = 0;
void arm(const char *p, long n, int m) { strncpy(prefix, p, sizeof prefix - 1); target = n; mode = m; count = 0; armed = 1; }
long calls(void) { return count; }
static int in(const char *path) { return armed && path && strncmp(path, prefix, strlen(prefix)) == 0; }
static int infd(int fd) {
  if (!armed || fd < 3) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t k = readlink(link, path, PATH_MAX - 1);
  if (k < 0) return 0;
  path[k] = 0;
  return in(path);
}
static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }
static int hit(void) { return ++count == target; }
#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define AROUND(expr) do { if (mode == 0) die(); if (mode == 3) { errno = ENOSPC; return -1; } \
  { __typeof__(expr) r = (expr); (void)r; } die(); } while (0)
ssize_t write(int fd, const void *b, size_t n) {
  REAL(write);
  if (infd(fd) && hit()) {
    if (mode == 0) die();
    if (mode == 3) { errno = ENOSPC; return -1; }
    ssize_t r = real(fd, b, mode == 1 ? n / 2 : n); (void)r; die();
  }
  return real(fd, b, n);
}
ssize_t writev(int fd, const struct iovec *v, int c) { REAL(writev); if (infd(fd) && hit()) AROUND(real(fd, v, c)); return real(fd, v, c); }
int rename(const char *a, const char *b) { REAL(rename); if (in(b) && hit()) AROUND(real(a, b)); return real(a, b); }
int unlink(const char *a) { REAL(unlink); if (in(a) && hit()) AROUND(real(a)); return real(a); }
int unlinkat(int d, const char *a, int f) { REAL(unlinkat); if ((infd(d) || in(a)) && hit()) AROUND(real(d, a, f)); return real(d, a, f); }
int rmdir(const char *a) { REAL(rmdir); if (in(a) && hit()) AROUND(real(a)); return real(a); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); if (in(a) && hit()) AROUND(real(a, m)); return real(a, m); }
int truncate(const char *a, off_t n) { REAL(truncate); if (in(a) && hit()) AROUND(real(a, n)); return real(a, n); }
int truncate64(const char *a, off64_t n) { REAL(truncate64); if (in(a) && hit()) AROUND(real(a, n)); return real(a, n); }
int fsync(int fd) { REAL(fsync); if (infd(fd) && hit()) AROUND(real(fd)); return real(fd); }
static int creating(int f) { return f & (O_CREAT | O_TRUNC); }
int open(const char *a, int f, ...) {
  REAL(open); mode_t m = 0;
  if (f & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, f); m = va_arg(l, mode_t); va_end(l); }
  if (creating(f) && in(a) && hit()) AROUND(real(a, f, m));
  return real(a, f, m);
}
int open64(const char *a, int f, ...) {
  REAL(open64); mode_t m = 0;
  if (f & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, f); m = va_arg(l, mode_t); va_end(l); }
  if (creating(f) && in(a) && hit()) AROUND(real(a, f, m));
  return real(a, f, m);
}
