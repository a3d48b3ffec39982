/* SPDX-License-Identifier: Apache-2.0 */
/* header_cxx.cc -- the public headers as C++ sees them. To be compiled (g++ -std=c++11 -fsyntax-only), not run. */
#include <signalbox.h>
#include <signalbox/board.h>
#include <signalbox/wire.h>

int header_cxx_submit(sbx_client *client);

int
header_cxx_submit(sbx_client *client)
{
	sbx_open_options open = SBX_OPEN_OPTIONS_INIT;
	sbx_request_options request = SBX_REQUEST_INIT;
	sbx_event event;
	uint64_t id;
	(void)open;
	if (sbx_submit(client, &request, &id) < 0 || sbx_next(client, -1, &event) < 0)
		return -SBX_EFAILED;
	return event.note == SBX_NOTE_DONE && sbx_reply_code(event.reply) == SBX_CODE_NONE;
}

uint64_t header_cxx_board(const sbx_board_hot *row);

/* The seqlock's inline functions, and a name that is both a struct and a function. */
uint64_t
header_cxx_board(const sbx_board_hot *row)
{
	sbx_need need = SBX_NEED_INIT;
	uint64_t seq, state = need.size;
	if (sbx_row_read_begin(&row->seq, &seq)) {
		state = sbx_word_load(&row->state);
		if (!sbx_row_read_end(&row->seq, seq))
			sbx_row_pause();
	}
	return state;
}
