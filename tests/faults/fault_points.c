/* Preloaded into the agent and the host script: counts the calls that change a node's files, and strikes at one.
 *
 * FAULT_ROOT   the node's root; only calls on paths and descriptors below it count
 * FAULT_STATE  the file that all processes of a run share (struct shared)
 * FAULT_ROLE   "script" in the processes of the host script; everything else is the agent
 * FAULT_LOG    when set, each call is written to this file as a line: role, call, path
 *
 * Writes through stdio do not pass here, as libc calls itself; their flush at the end does, as fclose.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

enum action { NONE, KILL_ALL, KILL_SCRIPT, KILL_AGENT, POWER_CUT, DISK_FULL };

struct shared {
    int count;  /* calls so far, of all processes */
    int target; /* the call to strike at, before it is made; calls count from 1 */
    int action;
    int script_only; /* count only the host script's calls */
    int agent_group; /* process groups; 0: not started */
    int script_group;
    int struck;
};

static struct shared *shared;
static char root[4096];
static size_t root_length;
static int is_script;
static int log_file = -1;

static void fail(const char *what) {
    dprintf(2, "fault_points: %s: %s\n", what, strerror(errno));
    _exit(99);
}

__attribute__((constructor)) static void begin(void) {
    const char *state = getenv("FAULT_STATE"), *log = getenv("FAULT_LOG"), *role = getenv("FAULT_ROLE");
    const char *path = getenv("FAULT_ROOT");
    if (!state || !path || !*path) return;
    int file = syscall(SYS_openat, AT_FDCWD, state, O_RDWR | O_CLOEXEC);
    if (file < 0) fail(state);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) fail("mmap");
    close(file);
    root_length = strlen(path);
    memcpy(root, path, root_length + 1);
    is_script = role && !strcmp(role, "script");
    if (is_script && !shared->script_group) shared->script_group = getpgrp();
    if (log && *log) log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int is_below(const char *path) {
    return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static ssize_t path_of_descriptor(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, 4095);
    if (length >= 0) path[length] = 0;
    return length;
}

/* The whole path of NAME in DIRECTORY, or of the descriptor DIRECTORY itself; false when it is not below the root. */
static int locate(int directory, const char *name, char *path) {
    if (name && name[0] == '/') {
        snprintf(path, 4096, "%s", name);
        return is_below(path);
    }
    ssize_t length;
    if (directory == AT_FDCWD)
        length = getcwd(path, 4096) ? (ssize_t)strlen(path) : -1;
    else
        length = path_of_descriptor(directory, path);
    if (length < 0 || path[0] != '/') return 0;
    if (name) snprintf(path + length, 4096 - length, "/%s", name);
    return is_below(path);
}

static void power_cut(void) {
    unsigned int without_flushing_the_log = 2;
    int folder = syscall(SYS_openat, AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || ioctl(folder, _IOR('X', 125, unsigned int), &without_flushing_the_log)) fail("shutdown");
}

/* Everything that is free, as someone else's file: beside the node's own, out of its sight. */
static void fill_disk(void) {
    char path[4200];
    struct statfs found;
    snprintf(path, sizeof path, "%s/lost+found/filler", root);
    int file = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) fail("filler");
    long long length = 0;
    for (long long step = 1LL << 30; step >= 512;) {
        if (fstatfs(file, &found)) fail("statfs");
        if (step > (long long)found.f_bfree * found.f_bsize) { step >>= 1; continue; }
        if (syscall(SYS_fallocate, file, 0, length, step)) step >>= 1;
        else length += step;
    }
    close(file);
}

static void strike(void) {
    shared->struck = 1;
    int own = getpgrp(), others[2] = {0, 0};
    switch (shared->action) {
    case DISK_FULL: fill_disk(); return;
    case POWER_CUT: power_cut(); /* fall through */
    case KILL_ALL: others[0] = shared->agent_group; others[1] = shared->script_group; break;
    case KILL_SCRIPT: others[0] = shared->script_group; break;
    case KILL_AGENT: others[0] = shared->agent_group; break;
    }
    for (int i = 0; i < 2; i++)
        if (others[i] && others[i] != own) kill(-others[i], SIGKILL);
    if (others[0] == own || others[1] == own) {
        kill(-own, SIGKILL);
        for (;;) pause();
    }
}

static void point(const char *call, const char *path) {
    if (shared->script_only && !is_script) return;
    int number = __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
    if (log_file >= 0) {
        char line[4400];
        int length = snprintf(line, sizeof line, "%s %s %s\n", is_script ? "script" : "agent", call, path + root_length);
        syscall(SYS_write, log_file, line, length);
    }
    if (number == shared->target) strike();
}

static void at_path(const char *call, int directory, const char *name) {
    char path[4096];
    if (shared && name && locate(directory, name, path)) point(call, path);
}

/* `mkdir -p` of what is there changes nothing. */
static void at_new_folder(int directory, const char *name) {
    if (name && syscall(SYS_faccessat, directory, name, F_OK)) at_path("mkdir", directory, name);
}

static void at_descriptor(const char *call, int descriptor) {
    char path[4096];
    struct stat found;
    if (!shared || fstat(descriptor, &found) || !(S_ISREG(found.st_mode) || S_ISDIR(found.st_mode))) return;
    if (locate(descriptor, NULL, path)) point(call, path);
}

#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC))

#define OPEN(name, directory, signature, call)                                                                        \
    int name signature {                                                                                              \
        static int (*real) signature;                                                                                 \
        if (!real) real = (int(*) signature)dlsym(RTLD_NEXT, #name);                                                  \
        mode_t mode = 0;                                                                                              \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                                                        \
            va_list rest;                                                                                             \
            va_start(rest, flags);                                                                                    \
            mode = va_arg(rest, mode_t);                                                                              \
            va_end(rest);                                                                                             \
        }                                                                                                             \
        if (CHANGES(flags)) at_path("open", directory, path);                                                         \
        return call;                                                                                                  \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), real(path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), real(path, flags, mode))
OPEN(openat, directory, (int directory, const char *path, int flags, ...), real(directory, path, flags, mode))
OPEN(openat64, directory, (int directory, const char *path, int flags, ...), real(directory, path, flags, mode))

#define CALL(type, name, signature, arguments, before)                                                                \
    type name signature {                                                                                             \
        static type(*real) signature;                                                                                 \
        if (!real) real = (type(*) signature)dlsym(RTLD_NEXT, #name);                                                 \
        before;                                                                                                       \
        return real arguments;                                                                                        \
    }

CALL(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), at_descriptor("write", fd))
CALL(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), at_descriptor("write", fd))
CALL(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), at_descriptor("write", fd))
CALL(ssize_t, copy_file_range, (int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags),
     (from, a, to, b, size, flags), at_descriptor("write", to))
CALL(ssize_t, sendfile, (int to, int from, off_t *at, size_t size), (to, from, at, size), at_descriptor("write", to))
CALL(ssize_t, sendfile64, (int to, int from, off64_t *at, size_t size), (to, from, at, size), at_descriptor("write", to))
CALL(int, fsync, (int fd), (fd), at_descriptor("fsync", fd))
CALL(int, fdatasync, (int fd), (fd), at_descriptor("fsync", fd))
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode), at_descriptor("chmod", fd))
CALL(int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group), at_descriptor("chown", fd))
CALL(int, ftruncate, (int fd, off_t size), (fd, size), at_descriptor("truncate", fd))
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size), at_descriptor("truncate", fd))
CALL(int, fsetxattr, (int fd, const char *name, const void *value, size_t size, int flags),
     (fd, name, value, size, flags), at_descriptor("setxattr", fd))
CALL(int, setxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
     (path, name, value, size, flags), at_path("setxattr", AT_FDCWD, path))
CALL(int, lsetxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
     (path, name, value, size, flags), at_path("setxattr", AT_FDCWD, path))
CALL(int, truncate, (const char *path, off_t size), (path, size), at_path("truncate", AT_FDCWD, path))
CALL(int, truncate64, (const char *path, off64_t size), (path, size), at_path("truncate", AT_FDCWD, path))
CALL(int, chmod, (const char *path, mode_t mode), (path, mode), at_path("chmod", AT_FDCWD, path))
CALL(int, fchmodat, (int directory, const char *path, mode_t mode, int flags), (directory, path, mode, flags),
     at_path("chmod", directory, path))
CALL(int, chown, (const char *path, uid_t user, gid_t group), (path, user, group), at_path("chown", AT_FDCWD, path))
CALL(int, lchown, (const char *path, uid_t user, gid_t group), (path, user, group), at_path("chown", AT_FDCWD, path))
CALL(int, fchownat, (int directory, const char *path, uid_t user, gid_t group, int flags),
     (directory, path, user, group, flags), at_path("chown", directory, path))
CALL(int, rename, (const char *from, const char *to), (from, to), at_path("rename", AT_FDCWD, to))
CALL(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), at_path("rename", b, to))
CALL(int, renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags),
     at_path("rename", b, to))
CALL(int, link, (const char *from, const char *to), (from, to), at_path("link", AT_FDCWD, to))
CALL(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags),
     at_path("link", b, to))
CALL(int, symlink, (const char *target, const char *path), (target, path), at_path("symlink", AT_FDCWD, path))
CALL(int, symlinkat, (const char *target, int directory, const char *path), (target, directory, path),
     at_path("symlink", directory, path))
CALL(int, unlink, (const char *path), (path), at_path("unlink", AT_FDCWD, path))
CALL(int, unlinkat, (int directory, const char *path, int flags), (directory, path, flags),
     at_path("unlink", directory, path))
CALL(int, rmdir, (const char *path), (path), at_path("rmdir", AT_FDCWD, path))
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), at_new_folder(AT_FDCWD, path))
CALL(int, mkdirat, (int directory, const char *path, mode_t mode), (directory, path, mode),
     at_new_folder(directory, path))

int fclose(FILE *stream) {
    static int (*real)(FILE *);
    if (!real) real = (int (*)(FILE *))dlsym(RTLD_NEXT, "fclose");
    if (__fpending(stream)) at_descriptor("fclose", fileno(stream));
    return real(stream);
}
