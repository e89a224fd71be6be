#!/usr/bin/env bash
# Builds the stand-in: build.sh DIRECTORY puts iphlpapi.dll there, and beside it iphlpwine.dll, a copy of Wine's own that gets every call
# the stand-in does not answer itself. DIRECTORY is that of python.exe; WINEDLLOVERRIDES=iphlpapi=n makes Wine load it from there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
cc=x86_64-w64-mingw32-gcc
wine_dll=${WINE_IPHLPAPI:-}
for place in /usr/lib/x86_64-linux-gnu/wine /usr/lib/wine /usr/lib64/wine /opt/wine-stable/lib/wine; do
    [ -n "$wine_dll" ] || { [ -f "$place/x86_64-windows/iphlpapi.dll" ] && wine_dll=$place/x86_64-windows/iphlpapi.dll; } || true
done
[ -n "$wine_dll" ] || { echo "error: Wine's iphlpapi.dll is not where Wine usually is" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

own() { sed -nE 's/^(DWORD|ULONG|void|BOOL) WINAPI ([A-Za-z0-9]+)\(.*/\2/p' "$here/iphlpapi.c" "$here/state.c" | grep -v '^DllMain$' | sort -u; }
exports() { x86_64-w64-mingw32-objdump -p "$1" | sed -nE 's/^\s*\[ *[0-9]+\]\s+(\+base\[ *[0-9]+\]\s+[0-9a-f]+\s+)?([A-Za-z_][A-Za-z0-9_]*)$/\2/p' | sort -u; }

{
    echo "LIBRARY iphlpapi.dll"
    echo "EXPORTS"
    own | sed 's/^/    /'
    comm -13 <(own) <(exports "$wine_dll") | sed 's/.*/    & = iphlpwine.&/'
} >"$work/iphlpapi.def"
cp "$wine_dll" "$out/iphlpwine.dll"
"$cc" -O2 -Wall -Wextra -Werror -shared -o "$out/iphlpapi.dll" "$here/iphlpapi.c" "$here/state.c" "$work/iphlpapi.def" -lws2_32
