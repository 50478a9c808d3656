#!/bin/sh
# Nothing is enabled or started here: a new service has no configuration yet, and what seals contracts is started by a
# person. A daemon that runs already goes on with the new version.
set -e

if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
	if [ -n "$2" ]; then
		deb-systemd-invoke try-restart dealseal.service >/dev/null || true
	fi
fi
