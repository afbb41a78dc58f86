/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes syncs of some files fail: preload it. While the file FAULTY_SYNC exists, each
 * fsync and fdatasync of a file whose path ends with the first word in it fails with
 * EIO; with a second word, only the first one does. Each failure removes nothing from
 * the page cache, and is written as one byte to the file FAULTY_SYNC.failures.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd)
{
	const char *orders = getenv("FAULTY_SYNC");
	char link[64], path[4096], suffix[64], once[8] = "", failures[4096];
	FILE *file = orders ? fopen(orders, "r") : NULL;
	if (!file)
		return 0;
	int words = fscanf(file, "%63s %7s", suffix, once);
	fclose(file);
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (words < 1 || length < (ssize_t)strlen(suffix))
		return 0;
	path[length] = 0;
	if (strcmp(path + length - strlen(suffix), suffix))
		return 0;
	if (words > 1)
		unlink(orders);
	snprintf(failures, sizeof failures, "%s.failures", orders);
	int count = open(failures, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (count >= 0) {
		if (write(count, "x", 1) != 1)
			abort();
		close(count);
	}
	errno = EIO;
	return 1;
}

int fsync(int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	return fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	return fails(fd) ? -1 : real(fd);
}
