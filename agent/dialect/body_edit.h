/* SPDX-License-Identifier: Apache-2.0 */
/*
 * body_edit.h -- a request's body with a few members changed, as pieces to be sent: the checked bytes are cut where something changes, and
 * other text is put there. All else goes out as it came: spelling of numbers, order of members, white space.
 *
 *     struct sbx_body_edits e;
 *     sbx_body_edit_begin(&e, ask, ret);
 *     sbx_body_edit_model(&e, model); sbx_body_edit_stream(&e, stream); ...
 *     sbx_body_edit_end(&e);
 */
#ifndef SBX_DIALECT_BODY_EDIT_H
#define SBX_DIALECT_BODY_EDIT_H

#include "agent/dialect/hub.h"

#define SBX_BODY_EDITS_MAX (5 + SBX_ASK_TAKEN_MAX) /* new members at the front, model, stream, stream_options (or a member of it), a cut, what is taken */
_Static_assert(2 * SBX_BODY_EDITS_MAX + 1 <= SBX_PIECES_MAX, "each edit is a piece, and what lies between two is one");

/* Other text in the place of some bytes of the body. */
struct sbx_body_edit {
	const char *at;          /* where in the body */
	size_t drop_bytes;
	struct sbx_span insert;
};

struct sbx_body_edits {
	const struct sbx_ask *ask;
	struct sbx_pieces *ret;
	struct sbx_body_edit edit[SBX_BODY_EDITS_MAX]; /* in order of place */
	size_t n;
	size_t text_n;           /* used of ret->text */
	size_t front;            /* from there on it holds new members, each with a comma behind it */
};

void sbx_body_edit_begin(struct sbx_body_edits *e, const struct sbx_ask *ask, struct sbx_pieces *ret);
/* First of all: the model's name, which is UTF-8, in the place of the body's or as a new member. */
void sbx_body_edit_model(struct sbx_body_edits *e, const char *model);
/* What `stream` says. */
void sbx_body_edit_stream(struct sbx_body_edits *e, bool stream);
/* The members and bytes that are for us alone, out of it. */
void sbx_body_edit_taken(struct sbx_body_edits *e);
/* At the same place the one added last comes first, which is the one that only inserts. */
void sbx_body_edit_add(struct sbx_body_edits *e, const char *at, size_t drop_bytes, struct sbx_span insert);
/* A member at the front, with a comma behind it; the needed one always follows. */
void sbx_body_edit_put_front(struct sbx_body_edits *e, struct sbx_span member);
/* A member out of the body, with its name and a comma. */
void sbx_body_edit_drop(struct sbx_body_edits *e, struct sbx_span value);
void sbx_body_edit_end(struct sbx_body_edits *e);

#endif
