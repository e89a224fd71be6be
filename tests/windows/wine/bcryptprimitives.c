/* Stand-in for Windows' bcryptprimitives.dll, which Wine 8 lacks. Rust's standard library takes random bytes from it; nothing else does here.
 * The bytes come from RtlGenRandom, which Wine has: they are as good as the host's.
 */
#include <windows.h>

/* advapi32's export of RtlGenRandom (ntsecapi.h). */
extern BOOLEAN WINAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    while (length > 0) {
        ULONG part = length > 0x40000000 ? 0x40000000 : (ULONG)length;
        if (!SystemFunction036(data, part))
            return FALSE;
        data += part;
        length -= part;
    }
    return TRUE;
}
