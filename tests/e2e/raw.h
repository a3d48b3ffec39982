/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw.h -- a client of the agent without the library: it sends whatever bytes a test wants, and reads frames only when asked,
 * so that a test can be the client that is broken, hostile, slow, or gone.
 */
#ifndef SBX_TESTS_E2E_RAW_H
#define SBX_TESTS_E2E_RAW_H

#include "client/buf.h"
#include "client/wire.h"
#include "tests/e2e/harness.h"

struct raw {
	int fd;
	struct sbx_buf in;        /* received, not yet taken */
	size_t taken;             /* bytes of the frame that the last raw_next() gave; dropped by the next one */
	struct sbx_buf out;       /* where frames are built */
	uint64_t payload_bytes;   /* of all EVENTs so far, as CREDIT counts them */
};

enum raw_end { RAW_FRAME, RAW_CLOSED, RAW_NOTHING };

void raw_open(struct raw *r, struct world *w);            /* connected; nothing said */
void raw_up(struct raw *r, struct world *w);              /* connected and welcomed */
void raw_close(struct raw *r);
/* Bytes as they are. True when all of them were taken; false when the agent had closed by then. */
bool raw_send(struct raw *r, const void *bytes, size_t n);
/* The same with n_fds descriptors in a SCM_RIGHTS message beside the first byte. */
bool raw_send_fds(struct raw *r, const void *bytes, size_t n, const int *fds, int n_fds);
/* The next frame, checked; it is valid until the next call. */
enum raw_end raw_next(struct raw *r, int timeout_ms, struct sbx_frame *ret_frame);
/* Frames up to one of that kind and id (EVENTs are counted); the test fails when it does not come. */
void raw_expect(struct raw *r, enum sbx_frame_kind kind, uint64_t id, int timeout_ms, struct sbx_frame *ret_frame);
/* Wait for ERROR with this id and code word; its message, valid until the next call. */
const char *raw_expect_error(struct raw *r, uint64_t id, const char *code, int timeout_ms);
/* Wait for the end of the connection; what comes before is skipped. */
void raw_expect_close(struct raw *r, int timeout_ms);

/* ---- frames; sent at once ---- */
void raw_hello(struct raw *r);
void raw_submit(struct raw *r, uint64_t id, const char *model, bool stream, uint32_t deadline_ms);
void raw_credit(struct raw *r, uint64_t id, uint64_t bytes);
void raw_cancel(struct raw *r, uint64_t id);

#endif
