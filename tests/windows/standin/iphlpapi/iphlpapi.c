/* IP Helper's calls as softlan uses them, with the checks that MSDN documents for each. Everything else is forwarded to a copy of
 * Wine's own DLL (build.sh writes the list). What is not documented is decided here the strict way, and is no evidence of Windows. */
#include "standin.h"

#include "internal.h"

#define MAX_WATCHERS 8
static struct watcher {
    PIPFORWARD_CHANGE_CALLBACK callback;
    void *context;
} watchers[MAX_WATCHERS];

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, void *reserved) {
    (void)instance, (void)reserved;
    return reason == DLL_PROCESS_ATTACH ? standin_open() : TRUE;
}

static int family_index(ADDRESS_FAMILY family) { return family == AF_INET ? 0 : family == AF_INET6 ? 1 : -1; }

/* Finds the interface a row means: FILE_NOT_FOUND without one, NOT_FOUND when it lacks the family, or not yet has it. */
static DWORD locate(ULONG64 luid, ULONG index, int family, struct standin_interface **found) {
    if (family < 0 || (!luid && !index)) return ERROR_INVALID_PARAMETER;
    *found = standin_find(luid, index);
    if (*found == NULL) return ERROR_FILE_NOT_FOUND;
    if ((*found)->not_ready) {
        (*found)->not_ready--;
        return ERROR_NOT_FOUND;
    }
    return (*found)->family[family].present ? NO_ERROR : ERROR_NOT_FOUND;
}

static DWORD may_change(void) { return standin->unprivileged ? ERROR_ACCESS_DENIED : NO_ERROR; }

/* Interfaces -------------------------------------------------------------------------------------------------------------------- */

void WINAPI InitializeIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    memset(row, 0, sizeof(*row));
    /* "Unspecified" values, which Set takes for "leave as it is". */
    row->SitePrefixLength = row->Metric = row->NlMtu = 0xffffffff;
}

static DWORD get_interface(MIB_IPINTERFACE_ROW *row) {
    struct standin_interface *it;
    int f = family_index(row->Family);
    DWORD result = locate(row->InterfaceLuid.Value, row->InterfaceIndex, f, &it);
    if (result != NO_ERROR) return result;
    row->InterfaceLuid.Value = it->luid;
    row->InterfaceIndex = it->index;
    row->SitePrefixLength = 64; /* the trap: Set refuses this for IPv4 */
    row->UseAutomaticMetric = it->family[f].automatic != 0;
    row->Metric = it->family[f].automatic ? it->automatic_metric : it->family[f].metric;
    row->NlMtu = it->family[f].mtu;
    row->Connected = it->connected != 0;
    row->DisableDefaultRoutes = it->family[f].no_default != 0;
    return NO_ERROR;
}

static DWORD set_interface(MIB_IPINTERFACE_ROW *row) {
    struct standin_interface *it;
    int f = family_index(row->Family);
    DWORD result = may_change();
    if (result == NO_ERROR) result = locate(row->InterfaceLuid.Value, row->InterfaceIndex, f, &it);
    if (result != NO_ERROR) return result;
    if (f == 0 && row->SitePrefixLength != 0) return ERROR_INVALID_PARAMETER;
    if (f == 1 && row->SitePrefixLength > 128) return ERROR_INVALID_PARAMETER;
    /* RFC 791 and RFC 8200: the smallest MTU of a link. */
    if (row->NlMtu < (f ? 1280u : 576u) || row->NlMtu > 65535) return ERROR_INVALID_PARAMETER;
    it->family[f].mtu = row->NlMtu;
    it->family[f].automatic = row->UseAutomaticMetric != 0;
    it->family[f].metric = row->Metric;
    it->family[f].no_default = row->DisableDefaultRoutes != 0;
    return NO_ERROR;
}

DWORD WINAPI GetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    DWORD result;
    standin_lock();
    result = standin_count("GetIpInterfaceEntry", row->InterfaceLuid.Value, row->Family);
    if (result == NO_ERROR) result = get_interface(row);
    standin_unlock();
    return result;
}

DWORD WINAPI SetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    DWORD result;
    standin_lock();
    result = standin_count("SetIpInterfaceEntry", row->InterfaceLuid.Value, row->Family);
    if (result == NO_ERROR) result = set_interface(row);
    standin_unlock();
    return result;
}

DWORD WINAPI ConvertInterfaceGuidToLuid(const GUID *guid, NET_LUID *luid) {
    DWORD result;
    standin_lock();
    result = standin_count("ConvertInterfaceGuidToLuid", 0, 0);
    for (ULONG i = 0; result == NO_ERROR && i <= standin->interfaces; i++) {
        if (i == standin->interfaces) result = ERROR_INVALID_PARAMETER;
        else if (!memcmp(&standin->adapter[i].guid, guid, sizeof(*guid))) {
            luid->Value = standin->adapter[i].luid;
            break;
        }
    }
    standin_unlock();
    return result;
}

DWORD WINAPI ConvertInterfaceLuidToIndex(const NET_LUID *luid, NET_IFINDEX *index) {
    struct standin_interface *it;
    DWORD result;
    standin_lock();
    result = standin_count("ConvertInterfaceLuidToIndex", luid->Value, 0);
    if (result == NO_ERROR) {
        it = standin_find(luid->Value, 0);
        if (it && luid->Value) *index = it->index;
        else result = ERROR_INVALID_PARAMETER;
    }
    standin_unlock();
    return result;
}

/* Routes ------------------------------------------------------------------------------------------------------------------------ */

static ULONG address_bits(const SOCKADDR_INET *address, const BYTE **bytes) {
    *bytes = address->si_family == AF_INET ? (const BYTE *)&address->Ipv4.sin_addr : (const BYTE *)&address->Ipv6.sin6_addr;
    return address->si_family == AF_INET ? 32 : 128;
}

static BOOL same_address(const SOCKADDR_INET *a, const SOCKADDR_INET *b, ULONG bits) {
    const BYTE *first, *second;
    if (a->si_family != b->si_family) return FALSE;
    address_bits(a, &first);
    address_bits(b, &second);
    for (ULONG i = 0; i < bits; i++)
        if ((first[i / 8] ^ second[i / 8]) & (0x80 >> i % 8)) return FALSE;
    return TRUE;
}

static BOOL same_route(const MIB_IPFORWARD_ROW2 *a, const MIB_IPFORWARD_ROW2 *b) {
    const BYTE *unused;
    ULONG bits = address_bits(&a->NextHop, &unused);
    return a->InterfaceLuid.Value == b->InterfaceLuid.Value && a->DestinationPrefix.PrefixLength == b->DestinationPrefix.PrefixLength &&
           same_address(&a->DestinationPrefix.Prefix, &b->DestinationPrefix.Prefix, bits) && same_address(&a->NextHop, &b->NextHop, bits);
}

static DWORD check_route(const MIB_IPFORWARD_ROW2 *row, struct standin_interface **it) {
    const BYTE *bytes;
    int f = family_index(row->DestinationPrefix.Prefix.si_family);
    DWORD result = locate(row->InterfaceLuid.Value, row->InterfaceIndex, f, it);
    ULONG bits;
    if (result != NO_ERROR) return result == ERROR_FILE_NOT_FOUND ? ERROR_NOT_FOUND : result;
    bits = address_bits(&row->DestinationPrefix.Prefix, &bytes);
    if (row->NextHop.si_family != row->DestinationPrefix.Prefix.si_family) return ERROR_INVALID_PARAMETER;
    if (row->DestinationPrefix.PrefixLength > bits) return ERROR_INVALID_PARAMETER;
    for (ULONG i = row->DestinationPrefix.PrefixLength; i < bits; i++)
        if (bytes[i / 8] & (0x80 >> i % 8)) return ERROR_INVALID_PARAMETER;
    return NO_ERROR;
}

DWORD standin_add_route(const MIB_IPFORWARD_ROW2 *row) {
    struct standin_interface *it;
    DWORD result;
    standin_lock();
    result = check_route(row, &it);
    if (result == NO_ERROR && (row->SitePrefixLength > row->DestinationPrefix.PrefixLength || row->Metric == 0xffffffff ||
                               row->PreferredLifetime > row->ValidLifetime))
        result = ERROR_INVALID_PARAMETER;
    for (ULONG i = 0; result == NO_ERROR && i < standin->routes; i++)
        if (same_route(&standin->route[i], row)) result = ERROR_OBJECT_ALREADY_EXISTS;
    if (result == NO_ERROR && standin->routes == MAX_ROUTES) result = ERROR_NOT_ENOUGH_MEMORY;
    if (result == NO_ERROR) {
        MIB_IPFORWARD_ROW2 *made = &standin->route[standin->routes++];
        *made = *row;
        made->InterfaceLuid.Value = it->luid;
        made->InterfaceIndex = it->index;
    }
    standin_unlock();
    return result;
}

static DWORD WINAPI tell(void *argument) {
    struct watcher told = *(struct watcher *)argument;
    if (told.callback) told.callback(told.context, NULL, MibParameterNotification);
    return 0;
}

static void tell_watchers(void) {
    for (int i = 0; i < MAX_WATCHERS; i++)
        if (watchers[i].callback) CloseHandle(CreateThread(NULL, 0, tell, &watchers[i], 0, NULL));
}

void WINAPI InitializeIpForwardEntry(MIB_IPFORWARD_ROW2 *row) {
    memset(row, 0, sizeof(*row));
    row->ValidLifetime = row->PreferredLifetime = row->Metric = 0xffffffff;
    row->SitePrefixLength = 255;
    row->Protocol = MIB_IPPROTO_NETMGMT;
    row->Loopback = row->AutoconfigureAddress = row->Immortal = TRUE;
}

DWORD WINAPI CreateIpForwardEntry2(const MIB_IPFORWARD_ROW2 *row) {
    DWORD result;
    standin_lock();
    result = standin_count("CreateIpForwardEntry2", row->InterfaceLuid.Value, row->DestinationPrefix.PrefixLength);
    if (result == NO_ERROR) result = may_change();
    standin_unlock();
    if (result == NO_ERROR) result = standin_add_route(row);
    if (result == NO_ERROR) tell_watchers();
    return result;
}

DWORD WINAPI DeleteIpForwardEntry2(const MIB_IPFORWARD_ROW2 *row) {
    struct standin_interface *it;
    DWORD result;
    standin_lock();
    result = standin_count("DeleteIpForwardEntry2", row->InterfaceLuid.Value, row->DestinationPrefix.PrefixLength);
    if (result == NO_ERROR) result = may_change();
    if (result == NO_ERROR) result = check_route(row, &it);
    if (result == NO_ERROR) {
        result = ERROR_NOT_FOUND;
        for (ULONG i = 0; i < standin->routes; i++) {
            if (!same_route(&standin->route[i], row)) continue;
            standin->route[i] = standin->route[--standin->routes];
            result = NO_ERROR;
            break;
        }
    }
    standin_unlock();
    if (result == NO_ERROR) tell_watchers();
    return result;
}

DWORD WINAPI GetIpForwardTable2(ADDRESS_FAMILY family, MIB_IPFORWARD_TABLE2 **table) {
    DWORD result;
    standin_lock();
    result = standin_count("GetIpForwardTable2", 0, family);
    if (result == NO_ERROR) {
        *table = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, sizeof(**table) + MAX_ROUTES * sizeof(MIB_IPFORWARD_ROW2));
        for (ULONG i = 0; i < standin->routes; i++)
            if (family == AF_UNSPEC || standin->route[i].DestinationPrefix.Prefix.si_family == family)
                (*table)->Table[(*table)->NumEntries++] = standin->route[i];
        standin->tables++;
    }
    standin_unlock();
    return result;
}

void WINAPI FreeMibTable(void *table) {
    /* Wine's own tables come from the same heap. */
    if (HeapFree(GetProcessHeap(), 0, table)) {
        standin_lock();
        if (standin->tables) standin->tables--;
        standin_unlock();
    }
}

DWORD WINAPI GetBestRoute2(NET_LUID *luid, NET_IFINDEX index, const SOCKADDR_INET *source, const SOCKADDR_INET *destination, ULONG options,
                           MIB_IPFORWARD_ROW2 *best, SOCKADDR_INET *best_source) {
    const MIB_IPFORWARD_ROW2 *found = NULL;
    ULONG found_metric = 0;
    DWORD result;
    (void)source, (void)options;
    standin_lock();
    result = standin_count("GetBestRoute2", luid ? luid->Value : 0, destination->si_family);
    for (ULONG i = 0; result == NO_ERROR && i < standin->routes; i++) {
        const MIB_IPFORWARD_ROW2 *row = &standin->route[i];
        struct standin_interface *it = standin_find(row->InterfaceLuid.Value, 0);
        int f = family_index(row->DestinationPrefix.Prefix.si_family);
        ULONG metric;
        if (!it || !it->connected || (luid && luid->Value != it->luid) || (!luid && index && index != it->index)) continue;
        /* A default route of an interface that must have none is not followed. */
        if (!row->DestinationPrefix.PrefixLength && it->family[f].no_default) continue;
        if (!same_address(&row->DestinationPrefix.Prefix, destination, row->DestinationPrefix.PrefixLength)) continue;
        metric = row->Metric + (it->family[f].automatic ? it->automatic_metric : it->family[f].metric);
        if (found && (found->DestinationPrefix.PrefixLength > row->DestinationPrefix.PrefixLength ||
                      (found->DestinationPrefix.PrefixLength == row->DestinationPrefix.PrefixLength && found_metric <= metric)))
            continue;
        found = row;
        found_metric = metric;
    }
    if (result == NO_ERROR && !found) result = ERROR_NETWORK_UNREACHABLE;
    if (result == NO_ERROR) {
        *best = *found;
        memset(best_source, 0, sizeof(*best_source));
        best_source->si_family = destination->si_family;
        if (destination->si_family == AF_INET)
            best_source->Ipv4.sin_addr = standin_find(found->InterfaceLuid.Value, 0)->address;
    }
    standin_unlock();
    return result;
}

DWORD WINAPI NotifyRouteChange2(ADDRESS_FAMILY family, PIPFORWARD_CHANGE_CALLBACK callback, void *context, BOOLEAN initial, HANDLE *handle) {
    DWORD result;
    (void)family, (void)initial;
    standin_lock();
    result = standin_count("NotifyRouteChange2", 0, family);
    for (int i = 0; result == NO_ERROR && i <= MAX_WATCHERS; i++) {
        if (i == MAX_WATCHERS) result = ERROR_NOT_ENOUGH_MEMORY;
        else if (!watchers[i].callback) {
            watchers[i] = (struct watcher){callback, context};
            *handle = &watchers[i];
            break;
        }
    }
    standin_unlock();
    return result;
}

DWORD WINAPI CancelMibChangeNotify2(HANDLE handle) {
    struct watcher *watcher = handle;
    if (watcher < watchers || watcher >= watchers + MAX_WATCHERS) return ERROR_INVALID_PARAMETER;
    watcher->callback = NULL;
    return NO_ERROR;
}
