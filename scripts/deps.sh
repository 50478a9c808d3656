#!/bin/sh
# Installs what building and testing need where a command or library is missing; does nothing when all is there.
# With arguments, only those needs: "build" (a C compiler), "renderer" (npm), "hsm" (a software HSM), "judges" (validators),
# "producers" (PDFs made by other programs), "browser" (the status page is tried in one), and those that are not installed
# without being asked for: "conformance" (validators in Java and Python), "contract" (a fuzzer of the API), "promtool", "deb" (the package), "service" (the package under systemd).
set -eu

needs=${*:-build renderer hsm judges producers browser}
missing=
optional=
why=

want() { # want <package> <why>
	missing="$missing $1"
	why="$why
  $1: $2"
}

have() { command -v "$1" >/dev/null 2>&1; }

# like is want for what this release of the distribution may not have.
like() {
	installed "$1" && return
	want "$1" "$2"
	optional="$optional $1 "
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

enough_producers() {
	n=0
	for p in fonts-sil-abyssinica fonts-sil-annapurna debian-policy python-reportlab-doc; do
		if installed "$p"; then n=$((n + 1)); fi
	done
	[ "$n" -ge 2 ]
}

softhsm() {
	for lib in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so /usr/lib64/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so; do
		[ -e "$lib" ] && return 0
	done
	return 1
}

for need in $needs; do
	case $need in
	build) have gcc || want gcc "the PKCS#11 module is loaded through cgo"
		[ -e /usr/include/stdio.h ] || want libc6-dev "C headers for cgo" ;;
	renderer) [ -e "${RENDERER:-build/typst.wasm}" ] || have npm || want npm "fetches the document renderer, once" ;;
	deb) have objdump || want binutils "tells which C library the binary needs" ;;
	service) have systemd-nspawn || want systemd-container "boots systemd in a container to try the service" ;;
	hsm)
		have softhsm2-util && softhsm || want softhsm2 "a software HSM to sign with"
		have pkcs11-tool || want opensc "makes keys inside the HSM"
		have p11-kit && [ -e /usr/libexec/p11-kit/p11-kit-server ] || want p11-kit "puts the HSM behind a socket that tests can cut" ;;
	judges)
		have pdfsig || want poppler-utils "pdfsig judges our signatures, pdftoppm draws pages"
		have qpdf || want qpdf "judges the structure of our PDFs"
		have openssl || want openssl "judges our CMS and time-stamps"
		have certutil || want libnss3-tools "gives pdfsig a root to trust" ;;
	browser) # Where the distribution has it under another name, the tests say that they skip.
		have chromium || have chromium-browser || have google-chrome || like chromium "opens the status page in tests" ;;
	producers) # Together 10 MB. Two will do, because a release may lack one; without apt the tests take the PDFs that are there.
		have apt-get && ! enough_producers || continue
		like fonts-sil-abyssinica "its manuals are PDFs of LibreOffice and Acrobat Distiller"
		like fonts-sil-annapurna "its manual is a PDF with a form"
		like debian-policy "its manuals are PDFs of xdvipdfmx and Apache FOP"
		like python-reportlab-doc "its manual is a PDF of ReportLab" ;;
	conformance)
		have java && have mvn || want maven "fetches and runs EU DSS and veraPDF, which are in Java"
		have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null || want python3-venv "runs pyHanko" ;;
	contract) have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null || want python3-venv "runs schemathesis" ;;
	promtool) have promtool || want prometheus "its promtool checks the alert rules" ;;
	*) echo "deps.sh: unknown need $need" >&2; exit 2 ;;
	esac
done

[ -n "$missing" ] || exit 0
echo "These Debian packages are missing:$why"
if ! have apt-get; then
	echo "This system has no apt-get: install the above (or what provides them) by hand and run the command again." >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	have sudo || { echo "Run as root, or install sudo:  apt-get install$missing" >&2; exit 1; }
	sudo=sudo
fi
echo "Installing them:  apt-get install --no-install-recommends$missing"
$sudo apt-get update -qq
there=
for package in $missing; do
	case $optional in *" $package "*) apt-cache show "$package" >/dev/null 2>&1 || continue ;; esac
	there="$there $package"
done
[ -n "$there" ] || exit 0
# Container images leave documentation out; the PDFs are what some packages are installed for.
# shellcheck disable=SC2086 # a list of packages
$sudo env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a apt-get install -y -qq --no-install-recommends -o 'Dpkg::Options::=--path-include=/usr/share/doc/*.pdf*' $there >/dev/null
