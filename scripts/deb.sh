#!/bin/sh
# Makes build/dealseal_VERSION_ARCH.deb from a binary and the renderer. The same commit gives the same package.
set -eu

binary=$1 # stripped, with its version
out=build/deb
rm -rf "$out"
mkdir -p "$out"

described=$(git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/; s/-/./g') || described=
: "${DEB_VERSION:=${described:-0~$(git log -1 --format=%cd --date=format:%Y%m%d%H%M%S).$(git log -1 --format=%h)}}"
: "${DEB_MAINTAINER:=dealseal maintainers <maintainers@dealseal.invalid>}"
DEB_ARCH=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) # of the files in the package
# The newest symbol version that the binary wants of the C library.
DEB_LIBC=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
export DEB_VERSION DEB_MAINTAINER DEB_ARCH DEB_LIBC SOURCE_DATE_EPOCH

cp "$binary" "$out/dealseal"
gzip -9nc deploy/dealseal.8 >"$out/dealseal.8.gz"
{
	printf 'dealseal (%s) stable; urgency=medium\n\n' "$DEB_VERSION"
	sed -n 's/^- /  * /p; s/^  \([^ ]\)/    \1/p' CHANGELOG.md | fold -s -w 76 | sed 's/ *$//; s/^\([^ ]\)/    \1/'
	printf '\n -- %s  %s\n' "$DEB_MAINTAINER" "$(git log -1 --format=%cD)"
} | gzip -9n >"$out/changelog.gz"

rm -f build/dealseal_*.deb
go tool -modfile=go.nfpm.mod nfpm package --config deploy/nfpm.yaml --packager deb --target build/ >&2
rm -rf "$out"
ls build/dealseal_*.deb
