#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mutants.sh SEEDS SIM... -- each SIM is the simulation built around a bug put in on purpose. Succeeds if every one of them is
# caught within SEEDS seeds by an invariant; a mutant that survives means that the simulation has a blind spot.
set -u
if [ $# -lt 2 ]; then
	echo "usage: $0 SEEDS SIM..." >&2
	exit 2
fi
seeds=$1
shift
survivors=0
for sim in "$@"; do
	out=$("$sim" --seeds "$seeds" 2>&1)
	status=$?
	name=$(printf '%s\n' "$out" | sed -n 's/^simulating //p')
	case $name in
	"mutant "*) ;;
	*)
		echo "$sim is not a mutant" >&2
		exit 2
		;;
	esac
	verdict=$(printf '%s\n' "$out" | sed -n '/^seed [0-9]*: /{p;q;}')
	if [ "$status" -eq 1 ] && [ -n "$verdict" ]; then
		printf 'caught    %s\n          %s\n' "$name" "${verdict%, replay*}"
	else
		printf 'SURVIVES  %s (exit %s after %s seeds)\n' "$name" "$status" "$seeds"
		survivors=$((survivors + 1))
	fi
done
[ "$survivors" -eq 0 ]
