#!/bin/sh
# Runs every fuzz target in turn, each for the given time: fuzz.sh [TIME] [PACKAGE...]. A panic, a broken promise or an
# input that costs more than two seconds of processor time ends it with exit 1; the input is then in the package's
# testdata/fuzz, where it belongs in the repository together with the mending.
set -eu
time=${1:-20s}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- ./...
failed=0
for package in $(go list "$@"); do
	for target in $(go test -run '^$' -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		printf '%-70s ' "${package#*dealseal/dealseal/} $target"
		# An input is worth a few attempts to make it smaller, not the minute that is the default.
		if out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$package" 2>&1); then
			echo "$(echo "$out" | sed -n 's/.*execs: \([0-9]*\) .*/\1 inputs/p' | tail -n 1)"
		else
			echo FAILED
			echo "$out" | tail -n 40
			failed=1
		fi
	done
done
exit $failed
