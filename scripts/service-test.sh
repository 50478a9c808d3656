#!/bin/sh
# Boots systemd in a container on a throw-away copy of this machine's file system, installs the package there and has
# cmd/dealseal/service_test.go try the service: service-test.sh PACKAGE.deb TEST-BINARY. Needs root and overlayfs; the
# container has no network but its loopback.
set -eu

deb=$(realpath "$1")
binary=$(realpath "$2")
here=$(pwd)

fail() {
	echo "service-test: $*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || fail "booting a container takes root: sudo make service-test"
command -v systemd-nspawn >/dev/null || fail "systemd-nspawn is missing: install systemd-container"
[ -e /lib/systemd/systemd ] || fail "this machine has no systemd to boot: install systemd"

dir=$(mktemp -d)
clean() {
	umount -q "$dir/memory/root" 2>/dev/null || true
	umount -q "$dir/memory" 2>/dev/null || true
	rmdir "$dir/memory" "$dir"
}
trap clean EXIT
mkdir "$dir/memory"
mount -t tmpfs -o size=3g dealseal-service-test "$dir/memory"
mkdir "$dir/memory/upper" "$dir/memory/work" "$dir/memory/root" "$dir/memory/source"
root=$dir/memory/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/memory/upper,workdir=$dir/memory/work" "$root"
rm -f "$root/usr/sbin/policy-rc.d" # with which images keep packages from starting anything
cp "$deb" "$root/srv/dealseal.deb"
cp "$binary" "$root/srv/service.test"

# What the container boots instead of the machine's own services.
cat >"$root/etc/systemd/system/service-test.target" <<UNIT
[Unit]
Requires=basic.target systemd-journald.service dbus.service service-test.service
After=basic.target dbus.service
AllowIsolate=yes
UNIT
cat >"$root/etc/systemd/system/service-test.service" <<UNIT
[Unit]
After=basic.target dbus.service
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
WorkingDirectory=/srv/source/cmd/dealseal
Environment=DEALSEAL_DEB=/srv/dealseal.deb TMPDIR=/srv HOME=/root
ExecStart=/bin/sh -c '/srv/service.test -test.run TestTheServiceUnderSystemd -test.timeout 8m >/srv/report 2>&1; echo \$? >/srv/status'
TimeoutStartSec=10min
UNIT

echo "booting systemd $(systemctl --version | awk 'NR == 1 { print $2 }') in a container"
# systemd-nspawn 252 does not know that Landlock's calls are harmless.
timeout 720 systemd-nspawn -q -b --register=no --keep-unit --private-network --console=pipe \
	--system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self" \
	--overlay="$here:$dir/memory/source:/srv/source" -D "$root" systemd.unit=service-test.target quiet >"$dir/memory/console" 2>&1 </dev/null || true
cat "$root/srv/report" 2>/dev/null || { tail -n 40 "$dir/memory/console"; fail "the container did not come to the test"; }
[ "$(cat "$root/srv/status")" = 0 ]
