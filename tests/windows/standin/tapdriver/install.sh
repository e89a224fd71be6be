#!/usr/bin/env bash
# Builds the stand-in TAP driver and registers it in a Wine prefix: `install.sh PREFIX [PORT]`. The prefix's services start it when its wineserver
# starts, which must not be running now. PORT is the first of its UDP ports (wire.c).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=$1 port=${2:-47600}
built=$prefix/standin-tap
mkdir -p "$built"
compiler=(x86_64-w64-mingw32-gcc -O2 -Wall -Wextra -Werror -Wno-unknown-pragmas)
"${compiler[@]}" -shared -o "$built/softlanwire.dll" "$here/wire.c" -Wl,--out-implib,"$built/libsoftlanwire.a" -lws2_32 -ladvapi32
# The .sys must import ntoskrnl and the wire alone, and be no DLL; otherwise Wine does not load it.
"${compiler[@]}" -I"$(x86_64-w64-mingw32-gcc -print-file-name=include)" -isystem "${MINGW_DDK:-/usr/share/mingw-w64/include/ddk}" \
    -ffreestanding -mno-stack-arg-probe -nostdlib -Wl,--subsystem,native -Wl,--entry,DriverEntry \
    -Wl,--dynamicbase -Wl,--enable-reloc-section -o "$built/softlantap.sys" "$here/tapdriver.c" -L"$built" -lsoftlanwire -lntoskrnl
cp "$built/softlanwire.dll" "$prefix/drive_c/windows/system32/"
mkdir -p "$prefix/drive_c/windows/system32/drivers"
cp "$built/softlantap.sys" "$prefix/drive_c/windows/system32/drivers/"
rm -rf "$built"
# What TAP-Windows6's INF leaves in the registry of an adapter. $1: its class key, $2: GUID, $3: connection name, $4: device number.
network_adapter() {
    cat <<REG

[HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Control\\Class\\{4D36E972-E325-11CE-BFC1-08002BE10318}\\$1]
"ComponentId"="tap0901"
"DeviceInstanceID"="ROOT\\\\NET\\\\$4"
"DriverDesc"="TAP-Windows Adapter V9"
"DriverVersion"="9.27.0.0"
"MatchingDeviceId"="tap0901"
"NetCfgInstanceId"="{$2}"
"ProviderName"="softlan stand-in"

[HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}\\{$2}\\Connection]
"Name"="$3"
"PnPInstanceID"="ROOT\\\\NET\\\\$4"
REG
}
cat >"$prefix/standin-tap.reg" <<REG
REGEDIT4

[HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Services\\softlan-standin-tap]
"DisplayName"="softlan stand-in for TAP-Windows6"
"ImagePath"="C:\\\\windows\\\\system32\\\\drivers\\\\softlantap.sys"
"Type"=dword:00000001
"Start"=dword:00000002
"ErrorControl"=dword:00000001
"Port"=dword:$(printf '%08x' "$port")
$(network_adapter 0041 5F7A0001-50F7-4A1A-9A00-000000000001 softlan 0000)
$(network_adapter 0042 5F7A0002-50F7-4A1A-9A00-000000000002 "Other TAP" 0001)
REG
echo | WINEPREFIX=$prefix "$here/../../wine/run" regedit "Z:${prefix//\//\\}\\standin-tap.reg" 2>&1 | cat >&2
rm "$prefix/standin-tap.reg"
