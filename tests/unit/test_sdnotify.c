/* SPDX-License-Identifier: Apache-2.0 */
/* test_sdnotify.c -- agent/sdnotify: notification, watchdog, handed-over sockets. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/sdnotify.h"

static char dir[] = "/tmp/sbx-test-sd-XXXXXX";

static void
test_notify(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(sbx_sd_notify("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(sbx_sd_notify("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_int_equal(sbx_sd_notify("READY=1"), -EINVAL);
	setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
	assert_int_equal(sbx_sd_notify("READY=1"), -ENOENT);
	char name[200];
	memset(name, 'n', sizeof name);
	name[0] = '/';
	name[sizeof name - 1] = '\0';
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(sbx_sd_notify("READY=1"), -EINVAL);

	for (int abstract = 0; abstract < 2; abstract++) {
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		snprintf(name, sizeof name, "%s%s/notify", abstract ? "@" : "", dir);
		memcpy(a.sun_path, name, strlen(name));
		if (abstract)
			a.sun_path[0] = '\0';
		int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		assert_true(fd >= 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + !abstract)), 0);
		setenv("NOTIFY_SOCKET", name, 1);
		assert_int_equal(sbx_sd_notify("READY=1\nSTATUS=serving"), 1);
		char got[64] = "";
		assert_int_equal(recv(fd, got, sizeof got - 1, 0), 22);
		assert_string_equal(got, "READY=1\nSTATUS=serving");
		close(fd);
		unlink(name);
	}
	unsetenv("NOTIFY_SOCKET");
}

static void
test_watchdog(void **state)
{
	(void)state;
	char me[32];
	snprintf(me, sizeof me, "%d", (int)getpid());
	const struct {
		const char *usec, *pid;
		uint64_t want;
	} cases[] = {
		{ NULL, NULL, 0 }, { "30000000", NULL, UINT64_C(30000000000) }, { "30000000", me, UINT64_C(30000000000) }, { "30000000", "1", 0 },
		{ "30000000", "x", 0 }, { "-1", NULL, 0 }, { "", NULL, 0 }, { "1s", NULL, 0 }, { "99999999999999999999", NULL, 0 }, { "0", NULL, 0 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cases[i].usec ? setenv("WATCHDOG_USEC", cases[i].usec, 1) : unsetenv("WATCHDOG_USEC");
		cases[i].pid ? setenv("WATCHDOG_PID", cases[i].pid, 1) : unsetenv("WATCHDOG_PID");
		assert_true(sbx_sd_watchdog_ns() == cases[i].want);
	}
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

static void
set_listen(const char *pid, const char *fds, const char *names)
{
	pid ? setenv("LISTEN_PID", pid, 1) : unsetenv("LISTEN_PID");
	fds ? setenv("LISTEN_FDS", fds, 1) : unsetenv("LISTEN_FDS");
	names ? setenv("LISTEN_FDNAMES", names, 1) : unsetenv("LISTEN_FDNAMES");
}

static void
test_listen_variables(void **state)
{
	(void)state;
	char me[32];
	snprintf(me, sizeof me, "%d", (int)getpid());
	const struct {
		const char *pid, *fds;
		int want;
	} cases[] = {
		{ NULL, NULL, 0 }, { NULL, "1", 0 }, { me, NULL, 0 }, { "1", "1", 0 }, { me, "0", 0 }, { me, "x", -EINVAL }, { "x", "1", -EINVAL },
		{ me, "-1", -EINVAL }, { me, "17", -E2BIG }, { me, "2147483647", -EINVAL }, { me, "99999999999999999999999", -EINVAL },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_sd_fds fds = { .n = 99 };
		set_listen(cases[i].pid, cases[i].fds, "a");
		assert_int_equal(sbx_sd_listen_fds(&fds), cases[i].want);
		assert_int_equal(fds.n, cases[i].want ? 99 : 0);
		if (cases[i].pid && cases[i].fds)
			assert_null(getenv("LISTEN_FDS"));
	}
	set_listen(NULL, NULL, NULL);
}

/* In a child, where descriptors 3 and 4 can be arranged freely. Returns the line that failed. */
static int
child(void)
{
#define WANT(x) do { if (!(x)) return __LINE__ & 0x7f ? __LINE__ & 0x7f : 1; } while (0)
	char me[32];
	struct sbx_sd_fds fds;
	int l = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un a = { .sun_family = AF_UNIX }; /* autobind */
	WANT(l >= 0 && bind(l, (struct sockaddr *)&a, sizeof(sa_family_t)) == 0 && listen(l, 1) == 0);
	int d = fcntl(l, F_DUPFD, 10), plain = fcntl(socket(AF_UNIX, SOCK_STREAM, 0), F_DUPFD, 10);
	WANT(dup2(d, 3) == 3 && dup2(plain, 4) == 4);
	snprintf(me, sizeof me, "%d", (int)getpid());
	set_listen(me, "2", "agent:");
	WANT(sbx_sd_listen_fds(&fds) == 0 && fds.n == 2);
	WANT(fds.fd[0].fd == 3 && strcmp(fds.fd[0].name, "agent") == 0);
	WANT(fds.fd[1].fd == 4 && strcmp(fds.fd[1].name, "") == 0);
	WANT(fcntl(3, F_GETFD) == FD_CLOEXEC && fcntl(4, F_GETFD) == FD_CLOEXEC);
	WANT(!getenv("LISTEN_PID") && !getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES"));
	WANT(sbx_sd_is_unix_listener(3) && !sbx_sd_is_unix_listener(4) && !sbx_sd_is_unix_listener(-1));
	int tcp = socket(AF_INET, SOCK_STREAM, 0);
	WANT(listen(tcp, 1) == 0 && !sbx_sd_is_unix_listener(tcp));
	close(4);
	set_listen(me, "2", NULL); /* one that was promised is not there */
	WANT(sbx_sd_listen_fds(&fds) == -EBADF);
	return 0;
#undef WANT
}

static void
test_listen_fds(void **state)
{
	(void)state;
	int status = 0;
	pid_t pid = fork();
	if (pid == 0)
		_exit(child());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_notify), cmocka_unit_test(test_watchdog), cmocka_unit_test(test_listen_variables), cmocka_unit_test(test_listen_fds),
	};
	if (!mkdtemp(dir))
		return 1;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return rc;
}
