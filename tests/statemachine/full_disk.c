/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes writes fail as on a full disk: preload it. While the file FULL_DISK exists, it
 * has a word and a number: of the writes to files whose path has this word, the first
 * ones succeed, and each from that number on fails with ENOSPC. The count begins again
 * whenever the content of the file changes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(int fd)
{
	static char before[256];
	static long done;
	const char *orders = getenv("FULL_DISK");
	char link[64], path[4096], now[256] = "", word[64];
	long first;
	FILE *file = orders ? fopen(orders, "r") : NULL;
	if (!file)
		return 0;
	if (!fgets(now, sizeof now, file))
		now[0] = 0;
	fclose(file);
	if (sscanf(now, "%63s %ld", word, &first) != 2)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	if (!strstr(path, word))
		return 0;
	if (strcmp(before, now)) {
		strcpy(before, now);
		done = 0;
	}
	if (++done < first)
		return 0;
	errno = ENOSPC;
	return 1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) =
		(ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
	return fails(fd) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
	ssize_t (*real)(int, const void *, size_t, off_t) =
		(ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
	return fails(fd) ? -1 : real(fd, data, size, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t (*real)(int, const void *, size_t) =
		(ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
	return fails(fd) ? -1 : real(fd, data, size);
}
