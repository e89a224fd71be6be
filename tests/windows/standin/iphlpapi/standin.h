/* A stand-in for Windows' IP Helper: the state it keeps, and how a test sets it up and looks at it.
 *
 * The state is a page of plain memory. With SOFTLAN_STANDIN_STATE naming a file it is that file, mapped, so that it outlives a client
 * that is killed, as Windows' own tables do, and is shared by all processes that name it. */
#ifndef SOFTLAN_STANDIN_H
#define SOFTLAN_STANDIN_H

#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0A00
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <iphlpapi.h>
#include <netioapi.h>

#define STANDIN_MAGIC 0x534c4e35u /* changes with the layout below */
#define MAX_INTERFACES 8
#define MAX_ROUTES 64
#define MAX_CALLS 512

struct standin_family {
    BOOL present;       /* the adapter has this protocol */
    ULONG mtu;
    ULONG metric;       /* as set; counts while automatic is FALSE */
    BOOL automatic;
    BOOL no_default;    /* DisableDefaultRoutes */
};

struct standin_interface {
    ULONG64 luid;
    ULONG index;
    GUID guid;
    BOOL connected;
    ULONG automatic_metric; /* what Windows would choose */
    ULONG not_ready;        /* so many more calls answer ERROR_NOT_FOUND, as just after a restart */
    IN_ADDR address;        /* best source address */
    struct standin_family family[2]; /* IPv4, IPv6 */
};

struct standin_state {
    ULONG magic;
    BOOL paused;       /* calls are neither counted nor fail */
    BOOL unprivileged; /* changes answer ERROR_ACCESS_DENIED */
    ULONG calls;       /* since the last arming */
    ULONG fail_at;     /* this call fails, counted from 1; 0: none */
    BOOL fail_on;      /* all later ones as well */
    ULONG fail_code;
    ULONG tables;      /* tables given out and not freed */
    ULONG interfaces;
    ULONG routes;
    ULONG journalled;
    struct standin_interface adapter[MAX_INTERFACES];
    MIB_IPFORWARD_ROW2 route[MAX_ROUTES];
    char journal[MAX_CALLS][48];
};

/* For tests; not part of Windows. All return 0, or a Win32 error. */
void WINAPI StandinReset(void);
DWORD WINAPI StandinAddInterface(const char *guid, ULONG64 luid, ULONG index, ULONG mtu, ULONG metric, BOOL ipv6, BOOL connected,
                                 const char *address);
DWORD WINAPI StandinSetInterface(ULONG64 luid, BOOL connected, ULONG not_ready, BOOL ipv6);
DWORD WINAPI StandinAddRoute(ULONG64 luid, const char *prefix, BYTE length, const char *next_hop, ULONG metric);
void WINAPI StandinArm(ULONG fail_at, ULONG code, BOOL on);
void WINAPI StandinPause(BOOL paused);
void WINAPI StandinUnprivileged(BOOL unprivileged);
ULONG WINAPI StandinCalls(void);
DWORD WINAPI StandinDump(char *json, ULONG size); /* interfaces, routes, tables */
DWORD WINAPI StandinJournal(char *text, ULONG size); /* one call a line */

#endif
