#!/bin/sh
# A removed daemon finishes the steps that it is in. An upgraded one is asked to once the new version is in place.
set -e

if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop dealseal.service >/dev/null || true
fi
