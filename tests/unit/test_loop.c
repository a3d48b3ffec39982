/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_loop.c -- the event loop: streams, deadlines, memory, tearing down, and faults inside the ring. Every case runs over
 * io_uring (skipped where the kernel refuses it) and over epoll, except those about the ring itself.
 */
#include "tests/unit/loop_rig.h"

#include <malloc.h>

/* ---- streams ---- */

static void test_echo(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	static const size_t sizes[] = { 1, 2, 4000, 4095, 4096, 4097, 8192, 65536, 65537, 300000, 1024 * 1024 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		int fd[2];
		struct end client = { 0 }, server = { .echo = true };
		uint8_t *data = new_pattern(sizes[i]);
		pair(fd);
		open_end(loop, &client, fd[0]);
		open_end(loop, &server, fd[1]);
		assert_int_equal(sbx_stream_send(client.s, data, sizes[i], -1), 0);
		UNTIL(loop, client.got == sizes[i]);
		assert_false(client.wrong || server.wrong);
		sbx_stream_close(client.s, false, 0);
		UNTIL(loop, server.ends == 1);
		assert_int_equal(server.end_err, 0);
		assert_int_equal(sbx_stream_send(server.s, "x", 1, -1), -EPIPE);
		sbx_stream_close(server.s, true, 1000 * MS);
		free(data);
	}
	UNTIL(loop, loop->n_objects == 0);
}

static void test_reserve(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end peer = { 0 }, e = { 0 };
	pair(fd);
	open_end(loop, &e, fd[0]);
	open_end(loop, &peer, fd[1]);
	size_t sent = 0;
	for (size_t n = 1; n < 40000; n = n * 3 + 1) {
		assert_non_null(sbx_stream_reserve(e.s, 10)); /* and thought better of it */
		uint8_t *p = sbx_stream_reserve(e.s, n);
		assert_non_null(p);
		for (size_t i = 0; i < n; i++)
			p[i] = pattern(sent + i);
		sbx_stream_commit(e.s, n);
		sent += n;
	}
	assert_int_equal(sbx_stream_unsent_bytes(e.s), sent);
	UNTIL(loop, peer.got == sent);
	assert_false(peer.wrong);
	assert_int_equal(sbx_stream_unsent_bytes(e.s), 0);
	assert_null(sbx_stream_reserve(e.s, SBX_STREAM_UNSENT_MAX_BYTES + 1));
	sbx_stream_close(e.s, false, 0);
	sbx_stream_close(peer.s, false, 0);
}

static void test_many_streams(void **state)
{
	enum { N = 300, BYTES = 3000 };
	struct sbx_loop *loop = loop_of(state);
	struct end *e = calloc(2 * N, sizeof *e);
	uint8_t *data = new_pattern(BYTES);
	for (int i = 0; i < N; i++) {
		int fd[2];
		pair(fd);
		e[2 * i + 1].echo = true;
		open_end(loop, &e[2 * i], fd[0]);
		open_end(loop, &e[2 * i + 1], fd[1]);
		assert_int_equal(sbx_stream_send(e[2 * i].s, data, BYTES, -1), 0);
	}
	int done;
	do {
		done = 0;
		assert_int_equal(sbx_loop_turn(loop, sbx_loop_clock_ns() + 1000 * MS), 0);
		for (int i = 0; i < N; i++)
			done += e[2 * i].got == BYTES && !e[2 * i].wrong;
	} while (done < N);
	for (int i = 0; i < 2 * N; i++)
		sbx_stream_close(e[i].s, false, 0);
	UNTIL(loop, loop->n_objects == 0);
	free(data);
	free(e);
}

static void test_pause_and_resume(void **state)
{
	enum { BYTES = 700000 };
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end peer = { 0 }, e = { .pause_at_once = true };
	uint8_t *data = new_pattern(BYTES);
	pair(fd);
	open_end(loop, &e, fd[0]);
	open_end(loop, &peer, fd[1]);
	assert_int_equal(sbx_stream_send(peer.s, data, BYTES, -1), 0);
	while (e.got < BYTES) {
		int calls = e.calls;
		UNTIL(loop, e.calls == calls + 1);
		TURNS(loop, 3);
		assert_int_equal(e.calls, calls + 1); /* one call each time it is let go */
		sbx_stream_pause(e.s, false);
	}
	assert_false(e.wrong);
	sbx_stream_pause(e.s, true); /* there and back within a turn is nothing */
	sbx_stream_pause(e.s, false);
	e.pause_at_once = false;
	sbx_stream_close(peer.s, false, 0);
	UNTIL(loop, e.ends == 1);
	sbx_stream_close(e.s, false, 0);
	free(data);
}

static void test_end_while_paused(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	for (int unread = 0; unread < 2; unread++) {
		int fd[2];
		struct end e = { 0 };
		pair(fd);
		open_end(loop, &e, fd[0]);
		sbx_stream_pause(e.s, true);
		TURNS(loop, 2);
		assert_int_equal(e.ends, 0);
		if (unread)
			assert_int_equal(send(fd[1], "abc", 3, 0), 3);
		TURNS(loop, 2);
		assert_int_equal(e.ends, 0);
		uint64_t t0 = sbx_loop_clock_ns();
		close(fd[1]);
		UNTIL(loop, e.ends == 1);
		assert_true(sbx_loop_clock_ns() - t0 < 50 * MS);
		assert_int_equal(e.calls, 0);
		uint64_t turns = sbx_loop_stats(loop)->turns; /* told once, and no spinning on a dead peer */
		for (t0 = sbx_loop_clock_ns(); sbx_loop_clock_ns() < t0 + 30 * MS;)
			assert_int_equal(sbx_loop_turn(loop, t0 + 30 * MS), 0);
		assert_true(sbx_loop_stats(loop)->turns - turns < 6);
		assert_int_equal(e.ends, 1);
		sbx_stream_close(e.s, true, 1000 * MS);
	}
}

static void test_close_inside_callback(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { .close_at_once = true };
	pair(fd);
	open_end(loop, &e, fd[0]);
	assert_int_equal(send(fd[1], "x", 1, 0), 1);
	e.wrong = false;
	UNTIL(loop, loop->n_objects == 0);
	assert_int_equal(e.calls, 1);
	assert_int_equal(e.ends, 0);
	assert_int_equal(drain_fd(fd[1]), -1);
	close(fd[1]);
}

static void test_close_with_flush(void **state)
{
	enum { BYTES = 1024 * 1024 };
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { 0 };
	uint8_t *data = new_pattern(BYTES);
	pair(fd);
	open_end(loop, &e, fd[0]);
	assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
	sbx_stream_close(e.s, true, 5000 * MS);
	ssize_t got = 0, n = 0;
	for (int i = 0; n >= 0 && i < 10000; i++) {
		TURNS(loop, 1);
		n = drain_fd(fd[1]);
		got += n > 0 ? n : 0;
	}
	assert_int_equal(got, BYTES);
	assert_int_equal(e.ends + e.drains, 0);
	UNTIL(loop, loop->n_objects == 0);
	close(fd[1]);

	pair(fd); /* a peer that never reads */
	open_end(loop, &e, fd[0]);
	assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
	uint64_t t0 = sbx_loop_clock_ns();
	sbx_stream_close(e.s, true, 60 * MS);
	UNTIL(loop, loop->n_objects == 0);
	uint64_t took = sbx_loop_clock_ns() - t0;
	assert_true(took >= 60 * MS && took < 1000 * MS);
	assert_true(drain_fd(fd[1]) < BYTES);
	close(fd[1]);

	pair(fd); /* a peer that leaves meanwhile */
	open_end(loop, &e, fd[0]);
	assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
	sbx_stream_close(e.s, true, 60000 * MS);
	TURNS(loop, 2);
	close(fd[1]);
	UNTIL(loop, loop->n_objects == 0);
	free(data);
}

static void test_slow_reader(void **state)
{
	enum { BYTES = 1024 * 1024 };
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { 0 };
	uint8_t *data = new_pattern(BYTES);
	pair(fd);
	open_end(loop, &e, fd[0]);
	for (int i = 0; i < BYTES / 1024; i++)
		assert_int_equal(sbx_stream_send(e.s, data + i * 1024, 1024, -1), 0);
	TURNS(loop, 5);
	assert_int_equal(e.drains, 0);
	assert_true(sbx_stream_unsent_bytes(e.s) > 256 * 1024);
	uint64_t turns = sbx_loop_stats(loop)->turns, t0 = sbx_loop_clock_ns();
	while (sbx_loop_clock_ns() < t0 + 30 * MS) /* a peer that does not read costs no turns */
		assert_int_equal(sbx_loop_turn(loop, t0 + 30 * MS), 0);
	assert_true(sbx_loop_stats(loop)->turns - turns < 10);
	size_t got = 0;
	while (e.drains == 0) {
		static uint8_t buf[50000];
		ssize_t n = recv(fd[1], buf, sizeof buf, MSG_DONTWAIT);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(got + (size_t)i));
		got += n > 0 ? (size_t)n : 0;
		assert_true(sbx_stream_unsent_bytes(e.s) > 32 * 1024 || e.drains == 0);
		TURNS(loop, 1);
	}
	assert_true(sbx_stream_unsent_bytes(e.s) <= 32 * 1024);
	UNTIL(loop, (got += (size_t)drain_fd(fd[1])) == BYTES);
	assert_int_equal(e.drains, 1);
	sbx_stream_close(e.s, false, 0);
	close(fd[1]);
	free(data);
}

static void test_peer_gone_while_sending(void **state)
{
	enum { BYTES = 1024 * 1024 };
	struct sbx_loop *loop = loop_of(state);
	for (int paused = 0; paused < 2; paused++) {
		int fd[2];
		struct end e = { 0 };
		uint8_t *data = new_pattern(BYTES);
		pair(fd);
		open_end(loop, &e, fd[0]);
		sbx_stream_pause(e.s, paused);
		assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
		TURNS(loop, 2);
		close(fd[1]);
		UNTIL(loop, e.ends == 1);
		TURNS(loop, 3);
		assert_int_equal(e.ends, 1);
		sbx_stream_close(e.s, true, 1000 * MS);
		free(data);
	}
	UNTIL(loop, loop->n_objects == 0);
}

/* The peer has finished writing but still reads: what was queued before the end is still sent by a flushing close. */
static void test_half_close(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { .echo = true };
	uint8_t *data = new_pattern(100000);
	pair(fd);
	open_end(loop, &e, fd[0]);
	assert_int_equal(send(fd[1], data, 100000, 0), 100000);
	assert_int_equal(shutdown(fd[1], SHUT_WR), 0);
	UNTIL(loop, e.ends == 1);
	assert_int_equal(e.got, 100000);
	sbx_stream_close(e.s, true, 5000 * MS);
	ssize_t got = 0;
	UNTIL(loop, (got += drain_fd(fd[1])) == 100000);
	close(fd[1]);
	free(data);
}

/* ---- the loop ---- */

static void test_deadline(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	static const uint64_t want[] = { 0, 300000, 2 * MS, 20 * MS };
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		uint64_t t0 = sbx_loop_clock_ns();
		int turns = 0;
		do
			assert_int_equal(sbx_loop_turn(loop, want[i] ? t0 + want[i] : 0), 0);
		while (++turns < 4 && sbx_loop_clock_ns() < t0 + want[i]);
		uint64_t took = sbx_loop_clock_ns() - t0;
		assert_true(took >= want[i]);
		assert_true(took < want[i] + 100 * MS); /* wide: the machine may be busy; the bench looks closer */
		assert_true(sbx_loop_now_ns(loop) >= t0 + want[i]);
	}
	uint64_t t0 = sbx_loop_clock_ns();
	assert_int_equal(sbx_loop_turn(loop, t0 > MS ? t0 - MS : 1), 0); /* already over */
	assert_true(sbx_loop_clock_ns() - t0 < 100 * MS);
}

static size_t rss_bytes(void)
{
	long pages = 0, all = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld %ld", &all, &pages), 2);
	(void)fclose(f);
	return (size_t)pages * 4096;
}

static void test_idle_streams_are_small(void **state)
{
	enum { N = 2000, BURST = 20000 };
	struct sbx_loop *loop = loop_of(state);
	struct rlimit lim;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
	if (lim.rlim_cur < 2 * N + 100)
		skip();
	struct end *e = calloc(N, sizeof *e);
	int *peer = calloc(N, sizeof *peer), *mine = calloc(N, sizeof *mine);
	uint8_t *data = new_pattern(BURST);
	for (int i = 0; i < N; i++) {
		int fd[2];
		pair(fd);
		mine[i] = fd[0];
		peer[i] = fd[1];
	}
	size_t heap0 = mallinfo2().uordblks, rss0 = rss_bytes();
	for (int i = 0; i < N; i++)
		open_end(loop, &e[i], mine[i]);
	TURNS(loop, 3);
	size_t heap1 = mallinfo2().uordblks, rss1 = rss_bytes();
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < N; i++) {
			assert_int_equal(sbx_stream_send(e[i].s, data, BURST, -1), 0);
			size_t got = 0;
			if (i % 100 == 99) /* a hundred of them together */
				for (int k = i - 99; k <= i; k++, got = 0)
					UNTIL(loop, (got += (size_t)drain_fd(peer[k])) == BURST);
		}
	size_t heap2 = mallinfo2().uordblks, rss2 = rss_bytes();
	print_message("a stream: %zu bytes of heap, %zu of RSS; after bursts %zu and %zu\n", (heap1 - heap0) / N,
	              (rss1 - rss0) / N, (heap2 - heap0) / N, (rss2 - rss0) / N);
#ifndef __SANITIZE_ADDRESS__
	assert_true(heap1 - heap0 < 512 * N);
	assert_true(rss1 - rss0 < 1024 * N);
	assert_true(heap2 - heap1 < 512 * 1024); /* the spare chunks */
#endif
	for (int i = 0; i < N; i++) {
		sbx_stream_close(e[i].s, false, 0);
		close(peer[i]);
	}
	UNTIL(loop, loop->n_objects == 0);
	free(e);
	free(peer);
	free(mine);
	free(data);
}

/* Everything armed, sending, lingering, paused: sbx_loop_free() must bring it home. The sanitizer looks for the rest. */
static void test_free_in_flight(void **state)
{
	struct world *w = *state;
	struct sbx_loop *loop = loop_of(state);
	unsigned before = count_fds();
	uint8_t *data = new_pattern(1024 * 1024);
	struct sockaddr_un a;
	struct door d = { .loop = loop };
	struct end e[6] = { 0 };
	struct eye eye = { 0 };
	int fd[6][2], lfd = listen_on(&a);
	assert_int_equal(sbx_listener_new(loop, lfd, on_accept, &d, &d.l), 0);
	for (int i = 0; i < 6; i++) {
		pair(fd[i]);
		if (i < 5)
			open_end(loop, &e[i], fd[i][0]);
	}
	assert_int_equal(sbx_watch_new(loop, fd[5][0], SBX_WATCH_IN, on_watch, &eye, &eye.w), 0);
	sbx_stream_pause(e[1].s, true);
	assert_int_equal(sbx_stream_send(e[2].s, data, 1024 * 1024, lfd), 0);
	assert_int_equal(sbx_stream_send(e[3].s, data, 1024 * 1024, -1), 0);
	TURNS(loop, 3);
	sbx_stream_close(e[3].s, true, 30 * MS);
	sbx_stream_close(e[4].s, false, 0);
	int c = connect_to(&a);
	sbx_loop_free(loop);
	w->loop = NULL;
	assert_int_equal(e[0].ends + e[1].ends + e[2].ends + e[3].ends, 0);
	for (int i = 0; i < 6; i++)
		close(fd[i][1]);
	close(fd[5][0]);
	close(c);
	close(lfd);
	close_all(&d);
	free(data);
	assert_true(count_fds() < before); /* the loop's own are gone too */
}

/* ---- faults, io_uring only ---- */

struct fault {
	enum sbx_uring_op op;
	int err;        /* 0 = make it shorter */
	int every;      /* the n-th operation of that kind, and each n-th after it */
	int seen, done; /* operations; faults */
};

static int inject(void *arg, enum sbx_uring_op op, unsigned *bytes)
{
	struct fault *f = arg;
	if (op != f->op || ++f->seen % f->every != 0)
		return 0;
	f->done++;
	if (f->err == 0)
		*bytes = *bytes > 7 ? 7 : *bytes;
	return f->err;
}

static struct sbx_loop *ring_or_skip(void)
{
	char why[128];
	struct sbx_loop *loop;
	if (sbx_loop_new(SBX_LOOP_URING, why, sizeof why, &loop) < 0) {
		sbx_uring_test = NULL;
		print_message("%s\n", why);
		skip();
	}
	return loop;
}

/* Accept, echo half a megabyte with pauses, watch, close: all must come out right whatever fails on the way. */
static void everything(struct sbx_loop *loop)
{
	enum { BYTES = 500000 };
	struct sockaddr_un a;
	struct door d = { .loop = loop };
	struct end client = { .pause_at_once = true }, server = { .echo = true };
	struct eye eye = { 0 };
	int lfd = listen_on(&a), fd[2];
	uint8_t *data = new_pattern(BYTES);
	assert_int_equal(sbx_listener_new(loop, lfd, on_accept, &d, &d.l), 0);
	open_end(loop, &client, connect_to(&a));
	UNTIL(loop, d.n == 1);
	open_end(loop, &server, d.fds[0]);
	pair(fd);
	assert_int_equal(sbx_watch_new(loop, fd[0], SBX_WATCH_IN, on_watch, &eye, &eye.w), 0);
	assert_int_equal(sbx_stream_send(client.s, data, BYTES, -1), 0);
	TURNS(loop, 2);
	assert_int_equal(send(fd[1], "x", 1, 0), 1);
	while (client.got < BYTES) {
		int calls = client.calls;
		sbx_stream_pause(client.s, false);
		UNTIL(loop, client.calls > calls);
	}
	assert_false(client.wrong || server.wrong);
	UNTIL(loop, eye.calls > 3);
	sbx_stream_pause(server.s, true);
	TURNS(loop, 3);
	sbx_stream_close(client.s, true, 1000 * MS);
	UNTIL(loop, server.ends == 1);
	sbx_stream_close(server.s, false, 0);
	sbx_watch_free(eye.w);
	sbx_listener_free(d.l);
	UNTIL(loop, loop->n_objects == 0);
	close(fd[0]);
	close(fd[1]);
	close(lfd);
	free(data);
}

static void test_ring_faults(void **state)
{
	(void)state;
	static const struct { enum sbx_uring_op op; int err; int every; } cases[] = {
		{ SBX_UOP_ACCEPT, -EINTR, 2 },     { SBX_UOP_ACCEPT, -ECANCELED, 2 }, { SBX_UOP_ACCEPT, -EMFILE, 2 },
		{ SBX_UOP_RECV, -EINTR, 2 },       { SBX_UOP_RECV, -EAGAIN, 2 },      { SBX_UOP_RECV, -ECANCELED, 2 },
		{ SBX_UOP_RECV, -ENOBUFS, 2 },     { SBX_UOP_RECV, -ENOMEM, 40 },     { SBX_UOP_SEND, -EINTR, 2 },
		{ SBX_UOP_SEND, -EAGAIN, 2 },      { SBX_UOP_SEND, -ECANCELED, 2 },   { SBX_UOP_SEND, -ENOBUFS, 40 },
		{ SBX_UOP_SEND, 0, 2 },            { SBX_UOP_HUP, -EINTR, 2 },        { SBX_UOP_HUP, -ECANCELED, 2 },
		{ SBX_UOP_POLL, -EINTR, 2 },       { SBX_UOP_POLL, -ECANCELED, 2 },   { SBX_UOP_CANCEL, -EINTR, 2 },
		{ SBX_UOP_CANCEL, -EAGAIN, 2 },    { SBX_UOP_RECV, -ENOMEM, 1000000 },
	};
	struct fault f;
	const struct sbx_uring_test t = { .fault = inject, .arg = &f };
	sbx_uring_test = &t;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int first = 0; first < 2; first++) {
			/* the first one too: `seen` starts so that it is hit */
			f = (struct fault){ cases[i].op, cases[i].err, cases[i].every, 0, 0 };
			f.seen = first ? f.every - 1 : 0;
			struct sbx_loop *loop = ring_or_skip();
			everything(loop);
			sbx_loop_free(loop);
			if (first && f.done == 0)
				fail_msg("operation %d: never hit", f.op);
		}
	sbx_uring_test = NULL;
}

static void test_ring_fatal(void **state)
{
	(void)state;
	for (int sending = 0; sending < 2; sending++) {
		struct fault f = { sending ? SBX_UOP_SEND : SBX_UOP_RECV, -ECONNRESET, 2, 1, 0 };
		const struct sbx_uring_test t = { .fault = inject, .arg = &f };
		sbx_uring_test = &t;
		struct sbx_loop *loop = ring_or_skip();
		int fd[2];
		struct end e = { 0 };
		pair(fd);
		open_end(loop, &e, fd[0]);
		assert_int_equal(sbx_stream_send(e.s, "hello", 5, -1), 0);
		UNTIL(loop, e.ends == 1);
		assert_int_equal(e.end_err, -ECONNRESET);
		TURNS(loop, 3);
		assert_int_equal(e.ends, 1);
		sbx_stream_close(e.s, true, 100 * MS);
		sbx_loop_free(loop);
		close(fd[1]);
	}
	sbx_uring_test = NULL;
}

/* Rings far too small: the submission queue fills in the middle of a sync, completions overflow, buffers run out. */
static void test_tiny_ring(void **state)
{
	const struct sbx_uring_test t = { .sq_entries = 4, .cq_entries = 16, .n_buffers = 16, .buffer_bytes = 512 };
	sbx_uring_test = &t;
	struct world w = { SBX_LOOP_URING, ring_or_skip() };
	void *world = &w;
	(void)state;
	everything(w.loop);
	test_many_streams(&world);
	test_pause_and_resume(&world);
	test_close_with_flush(&world);
	assert_true(sbx_loop_stats(w.loop)->enobufs > 0);
	sbx_loop_free(w.loop);
	sbx_uring_test = NULL;
}

static void test_fallback(void **state)
{
	(void)state;
	static const struct { int err; const char *says; } cases[] = {
		{ -EPERM, "not permitted" }, { -ENOSYS, "kernel has none" }, { -ENOMEM, "RLIMIT_MEMLOCK" },
		{ -EINVAL, "older than 6.1" }, { -EMFILE, "descriptors" }, { -ENODEV, "No such device" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct sbx_uring_test t = { .setup_err = cases[i].err };
		struct sbx_loop *loop = NULL;
		char why[128];
		sbx_uring_test = &t;
		assert_int_equal(sbx_loop_new(SBX_LOOP_URING, why, sizeof why, &loop), cases[i].err);
		assert_null(loop);
		assert_non_null(strstr(why, cases[i].says));
		assert_int_equal(sbx_loop_new(SBX_LOOP_AUTO, why, sizeof why, &loop), 0);
		assert_int_equal(sbx_loop_kind(loop), SBX_LOOP_EPOLL);
		assert_non_null(strstr(why, "epoll, since io_uring"));
		assert_non_null(strstr(why, cases[i].says));
		sbx_uring_test = NULL;
		everything(loop);
		sbx_loop_free(loop);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_echo),
		BOTH(test_reserve),
		BOTH(test_many_streams),
		BOTH(test_pause_and_resume),
		BOTH(test_end_while_paused),
		BOTH(test_close_inside_callback),
		BOTH(test_close_with_flush),
		BOTH(test_slow_reader),
		BOTH(test_peer_gone_while_sending),
		BOTH(test_half_close),
		BOTH(test_deadline),
		BOTH(test_idle_streams_are_small),
		BOTH(test_free_in_flight),
		cmocka_unit_test(test_ring_faults),
		cmocka_unit_test(test_ring_fatal),
		cmocka_unit_test(test_tiny_ring),
		cmocka_unit_test(test_fallback),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
