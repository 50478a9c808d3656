#!/bin/sh
# Fetches the Typst compiler as WebAssembly, the one file of the renderer that is not in this repository.
#
#   scripts/renderer.sh FILE
#
# puts it at FILE. The archive and the file in it are pinned by their SHA-256; nothing else is ever put there. When the
# right file is already at FILE, nothing is fetched.
set -eu

package='@myriaddreamin/typst-ts-web-compiler@0.7.0'
archive_sha256=07aa4e9a92632eba4898df1e09c9b91456e3c0c6e0ac8d44375979f2375e4cca
member=package/pkg/typst_ts_web_compiler_bg.wasm
file_sha256=1fc968438a672366dfec39c96c842c26ed29caff4eb1bcaab19a6c60867de5fd

die() {
	echo "renderer: $*" >&2
	exit 1
}

sha256() {
	if command -v sha256sum >/dev/null 2>&1; then
		sha256sum "$1"
	else
		shasum -a 256 "$1"
	fi | cut -d ' ' -f 1
}

[ $# -eq 1 ] || die "usage: scripts/renderer.sh FILE"
target=$1

if [ -f "$target" ] && [ "$(sha256 "$target")" = "$file_sha256" ]; then
	echo "renderer: $target is there already"
	exit 0
fi
command -v npm >/dev/null 2>&1 || die "npm is needed to fetch $package: install it (Debian, Ubuntu: apt-get install npm)"

mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$(dirname "$target")/.renderer.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

echo "renderer: fetching $package (Typst 0.14.2, Apache-2.0) from the npm registry"
(cd "$work" && npm pack --silent "$package" >/dev/null) || die "npm could not fetch $package: is the registry reachable?"
set -- "$work"/*.tgz
[ $# -eq 1 ] && [ -f "$1" ] || die "npm left no archive"
got=$(sha256 "$1")
[ "$got" = "$archive_sha256" ] || die "the archive has SHA-256 $got, expected $archive_sha256: not used"
tar -xzf "$1" -C "$work" "$member"
got=$(sha256 "$work/$member")
[ "$got" = "$file_sha256" ] || die "the file in the archive has SHA-256 $got, expected $file_sha256: not used"
chmod 0644 "$work/$member"
touch "$work/$member"
mv "$work/$member" "$target"
echo "renderer: $target is ready, SHA-256 checked"
