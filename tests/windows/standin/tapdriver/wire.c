/* The stand-in driver's wire: UDP on loopback, so that any process of the machine can be the other end of an adapter.
 *
 * Of the port P (value `Port` of the service's registry key, 47600 if there is none):
 *   P                   takes commands, a text a datagram, and answers each
 *   P + 1 + 2 i         adapter i's end: a datagram to it is a frame for the adapter's reader
 *   P + 2 + 2 i         the other end: where the frames go that were written to adapter i
 *
 * A DLL of its own, because Wine loads no driver that imports kernel32.
 */
#define WIRE_IMPLEMENTATION
#include <winsock2.h>
#include <windows.h>

#include "wire.h"

#define DEFAULT_PORT 47600

static SOCKET commands = INVALID_SOCKET, ends[ADAPTERS];
static unsigned short base_port = DEFAULT_PORT;
static wire_frame_fn frame_arrived;
static wire_command_fn command_arrived;

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {0};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)port);
    return address;
}

static SOCKET end_at(int port)
{
    struct sockaddr_in address = loopback(port);
    int buffer = 4 << 20;
    SOCKET end = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
    if (end == INVALID_SOCKET)
        return end;
    setsockopt(end, SOL_SOCKET, SO_RCVBUF, (char *)&buffer, sizeof buffer);
    if (bind(end, (struct sockaddr *)&address, sizeof address) != 0) {
        closesocket(end);
        return INVALID_SOCKET;
    }
    return end;
}

static void take_command(void)
{
    char text[256], answer[256] = "";
    struct sockaddr_in from;
    int from_length = sizeof from;
    int length = recvfrom(commands, text, sizeof text - 1, 0, (struct sockaddr *)&from, &from_length);
    if (length <= 0)
        return;
    text[length] = 0;
    command_arrived(text, answer, sizeof answer);
    sendto(commands, answer, (int)strlen(answer), 0, (struct sockaddr *)&from, from_length);
}

static DWORD WINAPI run(void *unused)
{
    static unsigned char frame[FRAME_MAX];
    (void)unused;
    for (;;) {
        fd_set readable;
        FD_ZERO(&readable);
        FD_SET(commands, &readable);
        for (int i = 0; i < ADAPTERS; i++)
            FD_SET(ends[i], &readable);
        if (select(0, &readable, NULL, NULL, NULL) <= 0)
            continue;
        if (FD_ISSET(commands, &readable))
            take_command();
        for (int i = 0; i < ADAPTERS; i++) {
            if (!FD_ISSET(ends[i], &readable))
                continue;
            int length = recv(ends[i], (char *)frame, sizeof frame, 0);
            if (length > 0)
                frame_arrived(i, frame, (unsigned int)length);
        }
    }
    return 0;
}

int wire_start(wire_frame_fn on_frame, wire_command_fn on_command)
{
    WSADATA data;
    DWORD port, size = sizeof port;
    int error = WSAStartup(MAKEWORD(2, 2), &data);
    if (error)
        return error;
    if (!RegGetValueA(HKEY_LOCAL_MACHINE, "System\\CurrentControlSet\\Services\\softlan-standin-tap", "Port", RRF_RT_REG_DWORD, NULL,
                      &port, &size))
        base_port = (unsigned short)port;
    frame_arrived = on_frame;
    command_arrived = on_command;
    commands = end_at(base_port);
    if (commands == INVALID_SOCKET)
        return WSAGetLastError();
    for (int i = 0; i < ADAPTERS; i++) {
        ends[i] = end_at(base_port + 1 + 2 * i);
        if (ends[i] == INVALID_SOCKET)
            return WSAGetLastError();
    }
    return CreateThread(NULL, 0, run, NULL, 0, NULL) ? 0 : (int)GetLastError();
}

void wire_send(int index, const unsigned char *frame, unsigned int length)
{
    struct sockaddr_in other = loopback(base_port + 2 + 2 * index);
    sendto(ends[index], (const char *)frame, (int)length, 0, (struct sockaddr *)&other, sizeof other);
}
