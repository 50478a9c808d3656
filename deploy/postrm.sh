#!/bin/sh
# Not even a purge removes /var/lib/dealseal: sealed contracts and their evidence are kept by law for years.
set -e

if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ]; then
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge dealseal.service >/dev/null || true
	fi
	for dir in /etc/dealseal/tenants /etc/dealseal/templates /etc/dealseal; do
		if [ -d "$dir" ]; then rmdir --ignore-fail-on-non-empty "$dir"; fi
	done
	if [ -d /var/lib/private/dealseal ]; then
		echo "dealseal: /var/lib/dealseal holds sealed contracts and is kept"
	fi
fi
