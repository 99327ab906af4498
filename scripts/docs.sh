#!/bin/sh
# Builds the documentation site: build/docs/site/index.html, which a browser opens where it lies; its search wants a server,
# as in python3 -m http.server --directory build/docs/site. MkDocs and its theme come from PyPI, into build/docs/venv.
set -eu
cd "$(dirname "$0")/.."

venv=build/docs/venv
wanted="mkdocs==1.6.1 mkdocs-material==9.8.2"
if [ "$(cat $venv/installed 2>/dev/null)" != "$wanted" ]; then
  python3 -m venv "$venv" || { echo "docs.sh: no venv for Python (Debian: apt install python3-venv)" >&2; exit 1; }
  # shellcheck disable=SC2086
  "$venv/bin/pip" install --quiet --disable-pip-version-check $wanted
  echo "$wanted" > "$venv/installed"
fi

# All documents, and what they show and link to, in their places.
rm -rf build/docs/pages
mkdir -p build/docs/pages
find README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md docs benchmarks models cmake/packaging \
  \( -name '*.md' -o -name '*.svg' -o -name '*.jpg' -o -name '*.csv' -o -name '*.css' -o -name 'github-workflow.yml' \) | while read -r file; do
  mkdir -p "build/docs/pages/$(dirname "$file")"
  cp "$file" "build/docs/pages/$file"
done

NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --quiet --strict --clean --config-file docs/mkdocs.yml
if grep -rlE --include='*.html' '<(script|img|iframe)[^>]* src="?(https?:)?//|<link[^>]* rel="?(stylesheet|preconnect)[^>]* href="?(https?:)?//' \
    build/docs/site; then
  echo "docs.sh: these pages load something from elsewhere" >&2
  exit 1
fi
echo "build/docs/site/index.html"
