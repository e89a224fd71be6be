/* Prints what a C compiler makes of Windows' own headers: "name size offset" for fields, "name size" for structures, "name place" for
 * methods of COM interfaces. test_layout.py compares softlan's ctypes with it. Compiled only to be read: see LAYOUT below. */
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0A00
#endif
#define COBJMACROS
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <iphlpapi.h>
#include <netioapi.h>
#include <netlistmgr.h>
#include <cfgmgr32.h>
#include <winioctl.h>

/* A constant in the assembler's output, which needs no Windows to look at. */
#define LAYOUT(name, value) __asm__ volatile("\n@LAYOUT " name " %c0\n" : : "i"((long)(value)))
#define SIZE(type) LAYOUT(#type, sizeof(type))
#define FIELD(type, field) LAYOUT(#type "." #field, __builtin_offsetof(type, field))
#define METHOD(interface, method) LAYOUT(#interface "." #method, __builtin_offsetof(interface##Vtbl, method) / sizeof(void *))

void layout(void);
void layout(void) {
    SIZE(GUID);
    FIELD(GUID, Data1);
    FIELD(GUID, Data2);
    FIELD(GUID, Data3);
    FIELD(GUID, Data4);

    SIZE(SOCKADDR_INET);
    FIELD(SOCKADDR_INET, si_family);
    LAYOUT("SOCKADDR_INET.sin6_port", __builtin_offsetof(SOCKADDR_INET, Ipv6.sin6_port));
    LAYOUT("SOCKADDR_INET.sin6_flowinfo", __builtin_offsetof(SOCKADDR_INET, Ipv6.sin6_flowinfo));
    LAYOUT("SOCKADDR_INET.sin6_addr", __builtin_offsetof(SOCKADDR_INET, Ipv6.sin6_addr));
    LAYOUT("SOCKADDR_INET.sin6_scope_id", __builtin_offsetof(SOCKADDR_INET, Ipv6.sin6_scope_id));
    LAYOUT("ipv4-address", __builtin_offsetof(SOCKADDR_INET, Ipv4.sin_addr));

    SIZE(IP_ADDRESS_PREFIX);
    FIELD(IP_ADDRESS_PREFIX, Prefix);
    FIELD(IP_ADDRESS_PREFIX, PrefixLength);

    SIZE(MIB_IPINTERFACE_ROW);
    FIELD(MIB_IPINTERFACE_ROW, Family);
    FIELD(MIB_IPINTERFACE_ROW, InterfaceLuid);
    FIELD(MIB_IPINTERFACE_ROW, InterfaceIndex);
    FIELD(MIB_IPINTERFACE_ROW, MaxReassemblySize);
    FIELD(MIB_IPINTERFACE_ROW, InterfaceIdentifier);
    FIELD(MIB_IPINTERFACE_ROW, MinRouterAdvertisementInterval);
    FIELD(MIB_IPINTERFACE_ROW, MaxRouterAdvertisementInterval);
    FIELD(MIB_IPINTERFACE_ROW, AdvertisingEnabled);
    FIELD(MIB_IPINTERFACE_ROW, ForwardingEnabled);
    FIELD(MIB_IPINTERFACE_ROW, WeakHostSend);
    FIELD(MIB_IPINTERFACE_ROW, WeakHostReceive);
    FIELD(MIB_IPINTERFACE_ROW, UseAutomaticMetric);
    FIELD(MIB_IPINTERFACE_ROW, UseNeighborUnreachabilityDetection);
    FIELD(MIB_IPINTERFACE_ROW, ManagedAddressConfigurationSupported);
    FIELD(MIB_IPINTERFACE_ROW, OtherStatefulConfigurationSupported);
    FIELD(MIB_IPINTERFACE_ROW, AdvertiseDefaultRoute);
    FIELD(MIB_IPINTERFACE_ROW, RouterDiscoveryBehavior);
    FIELD(MIB_IPINTERFACE_ROW, DadTransmits);
    FIELD(MIB_IPINTERFACE_ROW, BaseReachableTime);
    FIELD(MIB_IPINTERFACE_ROW, RetransmitTime);
    FIELD(MIB_IPINTERFACE_ROW, PathMtuDiscoveryTimeout);
    FIELD(MIB_IPINTERFACE_ROW, LinkLocalAddressBehavior);
    FIELD(MIB_IPINTERFACE_ROW, LinkLocalAddressTimeout);
    FIELD(MIB_IPINTERFACE_ROW, ZoneIndices);
    FIELD(MIB_IPINTERFACE_ROW, SitePrefixLength);
    FIELD(MIB_IPINTERFACE_ROW, Metric);
    FIELD(MIB_IPINTERFACE_ROW, NlMtu);
    FIELD(MIB_IPINTERFACE_ROW, Connected);
    FIELD(MIB_IPINTERFACE_ROW, SupportsWakeUpPatterns);
    FIELD(MIB_IPINTERFACE_ROW, SupportsNeighborDiscovery);
    FIELD(MIB_IPINTERFACE_ROW, SupportsRouterDiscovery);
    FIELD(MIB_IPINTERFACE_ROW, ReachableTime);
    FIELD(MIB_IPINTERFACE_ROW, TransmitOffload);
    FIELD(MIB_IPINTERFACE_ROW, ReceiveOffload);
    FIELD(MIB_IPINTERFACE_ROW, DisableDefaultRoutes);

    SIZE(MIB_IPFORWARD_ROW2);
    FIELD(MIB_IPFORWARD_ROW2, InterfaceLuid);
    FIELD(MIB_IPFORWARD_ROW2, InterfaceIndex);
    FIELD(MIB_IPFORWARD_ROW2, DestinationPrefix);
    FIELD(MIB_IPFORWARD_ROW2, NextHop);
    FIELD(MIB_IPFORWARD_ROW2, SitePrefixLength);
    FIELD(MIB_IPFORWARD_ROW2, ValidLifetime);
    FIELD(MIB_IPFORWARD_ROW2, PreferredLifetime);
    FIELD(MIB_IPFORWARD_ROW2, Metric);
    FIELD(MIB_IPFORWARD_ROW2, Protocol);
    FIELD(MIB_IPFORWARD_ROW2, Loopback);
    FIELD(MIB_IPFORWARD_ROW2, AutoconfigureAddress);
    FIELD(MIB_IPFORWARD_ROW2, Publish);
    FIELD(MIB_IPFORWARD_ROW2, Immortal);
    FIELD(MIB_IPFORWARD_ROW2, Age);
    FIELD(MIB_IPFORWARD_ROW2, Origin);

    SIZE(MIB_IPFORWARD_TABLE2);
    FIELD(MIB_IPFORWARD_TABLE2, NumEntries);
    FIELD(MIB_IPFORWARD_TABLE2, Table);

    SIZE(WNDCLASSW);
    FIELD(WNDCLASSW, style);
    FIELD(WNDCLASSW, lpfnWndProc);
    FIELD(WNDCLASSW, cbClsExtra);
    FIELD(WNDCLASSW, cbWndExtra);
    FIELD(WNDCLASSW, hInstance);
    FIELD(WNDCLASSW, hIcon);
    FIELD(WNDCLASSW, hCursor);
    FIELD(WNDCLASSW, hbrBackground);
    FIELD(WNDCLASSW, lpszMenuName);
    FIELD(WNDCLASSW, lpszClassName);
    SIZE(MSG);

    METHOD(INetworkListManager, Release);
    METHOD(INetworkListManager, GetNetwork);
    METHOD(INetworkListManager, GetNetworkConnections);
    METHOD(IEnumNetworkConnections, Next);
    METHOD(INetworkConnection, GetNetwork);
    METHOD(INetworkConnection, GetAdapterId);
    METHOD(INetwork, GetNetworkId);
    METHOD(INetwork, GetCategory);
    METHOD(INetwork, SetCategory);

    LAYOUT("MIB_IPPROTO_NETMGMT", MIB_IPPROTO_NETMGMT);
    LAYOUT("AF_INET6", AF_INET6);
    LAYOUT("ERROR_FILE_NOT_FOUND", ERROR_FILE_NOT_FOUND);
    LAYOUT("ERROR_ACCESS_DENIED", ERROR_ACCESS_DENIED);
    LAYOUT("ERROR_GEN_FAILURE", ERROR_GEN_FAILURE);
    LAYOUT("ERROR_NOT_SUPPORTED", ERROR_NOT_SUPPORTED);
    LAYOUT("ERROR_INVALID_PARAMETER", ERROR_INVALID_PARAMETER);
    LAYOUT("ERROR_NOT_FOUND", ERROR_NOT_FOUND);
    LAYOUT("ERROR_NETWORK_UNREACHABLE", ERROR_NETWORK_UNREACHABLE);
    LAYOUT("ERROR_OBJECT_ALREADY_EXISTS", ERROR_OBJECT_ALREADY_EXISTS);
    LAYOUT("CTRL_CLOSE_EVENT", CTRL_CLOSE_EVENT);
    LAYOUT("CTRL_LOGOFF_EVENT", CTRL_LOGOFF_EVENT);
    LAYOUT("CTRL_SHUTDOWN_EVENT", CTRL_SHUTDOWN_EVENT);
    LAYOUT("WM_QUERYENDSESSION", WM_QUERYENDSESSION);
    LAYOUT("WM_ENDSESSION", WM_ENDSESSION);
    LAYOUT("CR_NO_SUCH_DEVNODE", CR_NO_SUCH_DEVNODE);
    LAYOUT("CR_INVALID_DEVNODE", CR_INVALID_DEVNODE);
    LAYOUT("CR_ACCESS_DENIED", CR_ACCESS_DENIED);
    LAYOUT("CM_DISABLE_UI_NOT_OK", CM_DISABLE_UI_NOT_OK);
    LAYOUT("TAP_WIN_IOCTL_GET_MAC", CTL_CODE(FILE_DEVICE_UNKNOWN, 1, METHOD_BUFFERED, FILE_ANY_ACCESS));
    LAYOUT("TAP_WIN_IOCTL_GET_VERSION", CTL_CODE(FILE_DEVICE_UNKNOWN, 2, METHOD_BUFFERED, FILE_ANY_ACCESS));
    LAYOUT("TAP_WIN_IOCTL_GET_MTU", CTL_CODE(FILE_DEVICE_UNKNOWN, 3, METHOD_BUFFERED, FILE_ANY_ACCESS));
    LAYOUT("TAP_WIN_IOCTL_SET_MEDIA_STATUS", CTL_CODE(FILE_DEVICE_UNKNOWN, 6, METHOD_BUFFERED, FILE_ANY_ACCESS));
}
