/* SPDX-License-Identifier: Apache-2.0 */
/* header_cxx.cc -- the public headers as C++ sees them. To be compiled (g++ -std=c++11 -fsyntax-only), not run. */
#include <signalbox.h>
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
