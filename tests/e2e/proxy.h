/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy.h -- an egress proxy for tests: CONNECT, and requests in absolute form, to 127.0.0.1 only. It counts what it was asked for.
 *
 * It runs in threads of the test's own process, and serves until proxy_down(). Its threads assert nothing: a connection that goes
 * wrong is closed, and the test sees it by its effects.
 */
#ifndef SBX_TESTS_E2E_PROXY_H
#define SBX_TESTS_E2E_PROXY_H

#include <pthread.h>
#include <stdatomic.h>

#define PROXY_CONNECTIONS_MAX 64

struct proxy {
	int port, listener;
	int refuse_status;           /* > 0: every request is answered with it */
	pthread_t acceptor, worker[PROXY_CONNECTIONS_MAX];
	int n_workers;
	atomic_int n_connects, n_absolute, n_other; /* requests by form */
	atomic_bool down;
};

void proxy_up(struct proxy *p, int refuse_status);
void proxy_down(struct proxy *p);

#endif
