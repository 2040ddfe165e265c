/* fsync and fdatasync that fail with EIO in every process of a program while a file of its name stands in EIO_DIR.
   Each refusal makes that file one byte longer: the witness. Nothing that was written is taken away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char mark[4096];

/* Before main: PostgreSQL's processes write their title over argv later. */
__attribute__((constructor)) static void remember(void) {
    const char *dir = getenv("EIO_DIR");
    if (dir != NULL)
        snprintf(mark, sizeof mark, "%s/%s", dir, program_invocation_short_name);
}

static int refused(void) {
    int fd = mark[0] == '\0' ? -1 : open(mark, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t ignored = write(fd, "x", 1);
    (void)ignored;
    close(fd);
    return 1;
}

static int sync_as(const char *name, int fd) {
    int kept = errno;
    if (refused()) {
        errno = EIO;
        return -1;
    }
    errno = kept;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return sync_as("fsync", fd); }
int fdatasync(int fd) { return sync_as("fdatasync", fd); }
