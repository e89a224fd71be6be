/* The state: where it lies, and what a test does with it. */
#include "standin.h"

#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

struct standin_state *standin;
static HANDLE mutex;

void standin_lock(void) { WaitForSingleObject(mutex, INFINITE); }
void standin_unlock(void) { ReleaseMutex(mutex); }

BOOL standin_open(void) {
    char path[MAX_PATH];
    DWORD length = GetEnvironmentVariableA("SOFTLAN_STANDIN_STATE", path, sizeof(path));
    HANDLE file = INVALID_HANDLE_VALUE, mapping;

    if (length && length < sizeof(path))
        file = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_ALWAYS, 0, NULL);
    mapping = CreateFileMappingA(file, NULL, PAGE_READWRITE, 0, sizeof(*standin), NULL);
    if (mapping == NULL) return FALSE;
    standin = MapViewOfFile(mapping, FILE_MAP_ALL_ACCESS, 0, 0, sizeof(*standin));
    mutex = CreateMutexA(NULL, FALSE, file == INVALID_HANDLE_VALUE ? NULL : "softlan-standin-iphlpapi");
    if (standin == NULL || mutex == NULL) return FALSE;
    standin_lock();
    if (standin->magic != STANDIN_MAGIC) {
        memset(standin, 0, sizeof(*standin));
        standin->magic = STANDIN_MAGIC;
    }
    standin_unlock();
    return TRUE;
}

struct standin_interface *standin_find(ULONG64 luid, ULONG index) {
    for (ULONG i = 0; i < standin->interfaces; i++) {
        struct standin_interface *found = &standin->adapter[i];
        /* The LUID wins; the index counts only without one (MSDN). */
        if (luid ? found->luid == luid : found->index == index) return found;
    }
    return NULL;
}

DWORD standin_count(const char *call, ULONG64 luid, ULONG extra) {
    ULONG number;
    if (standin->paused) return NO_ERROR;
    number = ++standin->calls;
    if (standin->journalled < MAX_CALLS)
        snprintf(standin->journal[standin->journalled++], sizeof(standin->journal[0]), "%s %llx %lu", call, luid, extra);
    if (standin->fail_at && (number == standin->fail_at || (standin->fail_on && number > standin->fail_at)))
        return standin->fail_code;
    return NO_ERROR;
}

void WINAPI StandinReset(void) {
    standin_lock();
    memset(standin, 0, sizeof(*standin));
    standin->magic = STANDIN_MAGIC;
    standin_unlock();
}

DWORD WINAPI StandinAddInterface(const char *guid, ULONG64 luid, ULONG index, ULONG mtu, ULONG metric, BOOL ipv6, BOOL connected,
                                 const char *address) {
    struct standin_interface made = {.luid = luid, .index = index, .connected = connected, .automatic_metric = metric};
    unsigned int d[11];
    DWORD result = ERROR_INVALID_PARAMETER;

    if (sscanf(guid, "{%8x-%4x-%4x-%2x%2x-%2x%2x%2x%2x%2x%2x}", &d[0], &d[1], &d[2], &d[3], &d[4], &d[5], &d[6], &d[7], &d[8], &d[9],
               &d[10]) != 11)
        return result;
    made.guid.Data1 = d[0];
    made.guid.Data2 = (USHORT)d[1];
    made.guid.Data3 = (USHORT)d[2];
    for (int i = 0; i < 8; i++) made.guid.Data4[i] = (BYTE)d[3 + i];
    made.address.s_addr = inet_addr(address);
    for (int i = 0; i < 2; i++)
        made.family[i] = (struct standin_family){i == 0 || ipv6, mtu, metric, TRUE, FALSE};
    standin_lock();
    if (standin->interfaces < MAX_INTERFACES) {
        standin->adapter[standin->interfaces++] = made;
        result = NO_ERROR;
    }
    standin_unlock();
    return result;
}

DWORD WINAPI StandinSetInterface(ULONG64 luid, BOOL connected, ULONG not_ready, BOOL ipv6) {
    struct standin_interface *found;
    standin_lock();
    found = standin_find(luid, 0);
    if (found) {
        found->connected = connected;
        found->not_ready = not_ready;
        found->family[1].present = ipv6;
    }
    standin_unlock();
    return found ? NO_ERROR : ERROR_FILE_NOT_FOUND;
}

DWORD WINAPI StandinAddRoute(ULONG64 luid, const char *prefix, BYTE length, const char *next_hop, ULONG metric) {
    MIB_IPFORWARD_ROW2 row;
    memset(&row, 0, sizeof(row));
    row.InterfaceLuid.Value = luid;
    row.DestinationPrefix.Prefix.si_family = row.NextHop.si_family = AF_INET;
    row.DestinationPrefix.Prefix.Ipv4.sin_addr.s_addr = inet_addr(prefix);
    row.DestinationPrefix.PrefixLength = length;
    row.NextHop.Ipv4.sin_addr.s_addr = inet_addr(next_hop);
    row.Metric = metric;
    row.ValidLifetime = row.PreferredLifetime = 0xffffffff;
    return standin_add_route(&row);
}

void WINAPI StandinArm(ULONG fail_at, ULONG code, BOOL on) {
    standin_lock();
    standin->calls = 0;
    standin->journalled = 0;
    standin->fail_at = fail_at;
    standin->fail_code = code;
    standin->fail_on = on;
    standin_unlock();
}

void WINAPI StandinPause(BOOL paused) { standin->paused = paused; }
void WINAPI StandinUnprivileged(BOOL unprivileged) { standin->unprivileged = unprivileged; }
ULONG WINAPI StandinCalls(void) { return standin->calls; }

static void text_of(const SOCKADDR_INET *address, char *text, size_t size) {
    if (address->si_family == AF_INET) {
        const BYTE *b = (const BYTE *)&address->Ipv4.sin_addr;
        snprintf(text, size, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    } else {
        const BYTE *b = (const BYTE *)&address->Ipv6.sin6_addr;
        for (int i = 0; i < 8 && size > 5; i++, text += 5, size -= 5)
            snprintf(text, size, "%02x%02x%s", b[2 * i], b[2 * i + 1], i < 7 ? ":" : "");
    }
}

DWORD WINAPI StandinDump(char *json, ULONG size) {
    ULONG used = 0;
#define PUT(...) (used += used < size ? (ULONG)snprintf(json + used, size - used, __VA_ARGS__) : 0)
    standin_lock();
    PUT("{\"tables\": %lu, \"interfaces\": [", standin->tables);
    for (ULONG i = 0; i < standin->interfaces; i++) {
        struct standin_interface *it = &standin->adapter[i];
        PUT("%s{\"luid\": %llu, \"families\": [", i ? ", " : "", it->luid);
        for (int f = 0; f < 2; f++) {
            struct standin_family *family = &it->family[f];
            PUT("%s{\"present\": %d, \"mtu\": %lu, \"metric\": %lu, \"automatic\": %d, \"no_default\": %d}", f ? ", " : "",
                family->present, family->mtu, family->automatic ? it->automatic_metric : family->metric, family->automatic,
                family->no_default);
        }
        PUT("]}");
    }
    PUT("], \"routes\": [");
    for (ULONG i = 0; i < standin->routes; i++) {
        MIB_IPFORWARD_ROW2 *row = &standin->route[i];
        char prefix[48], hop[48];
        text_of(&row->DestinationPrefix.Prefix, prefix, sizeof(prefix));
        text_of(&row->NextHop, hop, sizeof(hop));
        PUT("%s{\"luid\": %llu, \"prefix\": \"%s/%u\", \"next_hop\": \"%s\", \"metric\": %lu}", i ? ", " : "",
            row->InterfaceLuid.Value, prefix, row->DestinationPrefix.PrefixLength, hop, row->Metric);
    }
    PUT("]}");
    standin_unlock();
    return used < size ? NO_ERROR : ERROR_INSUFFICIENT_BUFFER;
}

DWORD WINAPI StandinJournal(char *json, ULONG size) {
    ULONG used = 0;
    standin_lock();
    if (size) json[0] = 0;
    for (ULONG i = 0; i < standin->journalled; i++) PUT("%s\n", standin->journal[i]);
    standin_unlock();
    return used < size ? NO_ERROR : ERROR_INSUFFICIENT_BUFFER;
}
