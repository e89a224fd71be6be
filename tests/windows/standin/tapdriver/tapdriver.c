/* A stand-in for the TAP-Windows6 driver: a kernel-mode driver that Wine loads, with the device interface of the real one and UDP sockets in
 * place of NDIS (wire.c). It shows that softlan's Windows code speaks that interface; it is no evidence of how the real driver behaves.
 *
 * What it has of the real one (TAP-Windows6 9.27, its documented device interface): the device names, GET_MAC, GET_VERSION, GET_MTU,
 * SET_MEDIA_STATUS, one frame a read and a write, reads that wait in order, reads and writes that are cancelled while the media is disconnected,
 * a read buffer that is too small losing the frame, padding to 60 bytes, media disconnected when the handle closes, one handle at a time.
 *
 * What is Wine's: a second open gets a handle although IRP_MJ_CREATE failed; the requests on that handle are refused with STATUS_ACCESS_DENIED.
 * CloseHandle returns before the driver has been told.
 *
 * Commands on the wire's command port, for tests; I is an adapter's number:
 *   count I          "opens=.. reads=.. writes=.. longest=.. pending=.. held=.. media=.. lost=.. owned=.."
 *   mac I 12HEX      another MAC
 *   power I          a power change: what is under way is cancelled, and nothing works until the device is opened anew
 *   away I           the device's name is gone, as when the adapter is disabled; with a power change
 *   back I           the name is there again
 *   hold I           writes stay under way from now on
 *   release I        they end, and so do those held
 */
#include <ntddk.h>

#include "wire.h"

#define IOCTL_GET_MAC 0x220004
#define IOCTL_GET_VERSION 0x220008
#define IOCTL_GET_MTU 0x22000c
#define IOCTL_SET_MEDIA_STATUS 0x220018

#define RING 512 /* frames that wait for a reader */
#define TAG 0x6e616c53 /* "Slan", in pool dumps */
#define HEADER 14
#define SHORTEST 60

struct frame {
    unsigned int length;
    unsigned char data[FRAME_MAX];
};

struct adapter {
    KSPIN_LOCK lock; /* guards everything below */
    DEVICE_OBJECT *device;
    FILE_OBJECT *owner; /* the handle that may do something; NULL: free */
    BOOLEAN media, powered, holding, named;
    LIST_ENTRY reads, held; /* IRPs, by Tail.Overlay.ListEntry; each with a cancel routine */
    struct frame *ring;
    unsigned int first, count;
    unsigned char mac[6];
    unsigned int opens, done_reads, done_writes, longest, lost;
};

static struct adapter adapters[ADAPTERS];
static const WCHAR *device_names[ADAPTERS] = {
    L"\\Device\\{5F7A0001-50F7-4A1A-9A00-000000000001}.tap",
    L"\\Device\\{5F7A0002-50F7-4A1A-9A00-000000000002}.tap",
};
static const WCHAR *link_names[ADAPTERS] = {
    L"\\DosDevices\\Global\\{5F7A0001-50F7-4A1A-9A00-000000000001}.tap",
    L"\\DosDevices\\Global\\{5F7A0002-50F7-4A1A-9A00-000000000002}.tap",
};

static struct adapter *adapter_of(DEVICE_OBJECT *device)
{
    return *(struct adapter **)device->DeviceExtension;
}

static void complete(IRP *irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
}

static NTSTATUS finish(IRP *irp, NTSTATUS status, ULONG_PTR information)
{
    complete(irp, status, information);
    return status;
}

/* Cancelling ------------------------------------------------------------------------------------------------------------------------------ */

static void WINAPI cancel_waiting(DEVICE_OBJECT *device, IRP *irp)
{
    struct adapter *adapter = adapter_of(device);
    KIRQL irql;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&adapter->lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&adapter->lock, irql);
    complete(irp, STATUS_CANCELLED, 0);
}

/* Puts an IRP on a list, with the lock held. FALSE: it is cancelled already, and not on the list. */
static BOOLEAN wait_on(LIST_ENTRY *list, IRP *irp)
{
    IoMarkIrpPending(irp);
    InsertTailList(list, &irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(irp, cancel_waiting);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        return FALSE;
    }
    return TRUE;
}

/* Takes the first IRP off a list, with the lock held; NULL when there is none that is not being cancelled. */
static IRP *next_waiting(LIST_ENTRY *list)
{
    for (LIST_ENTRY *entry = list->Flink; entry != list; entry = entry->Flink) {
        IRP *irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(irp, NULL)) {
            RemoveEntryList(entry);
            return irp;
        }
    }
    return NULL;
}

static void end_all(struct adapter *adapter, LIST_ENTRY *list, NTSTATUS status)
{
    for (;;) {
        KIRQL irql;
        KeAcquireSpinLock(&adapter->lock, &irql);
        IRP *irp = next_waiting(list);
        KeReleaseSpinLock(&adapter->lock, irql);
        if (!irp)
            return;
        complete(irp, status, 0);
    }
}

static void cancel_all(struct adapter *adapter)
{
    adapter->count = 0;
    end_all(adapter, &adapter->reads, STATUS_CANCELLED);
    end_all(adapter, &adapter->held, STATUS_CANCELLED);
}

/* Frames ---------------------------------------------------------------------------------------------------------------------------------- */

/* Gives waiting frames to waiting reads, in order. */
static void pump(struct adapter *adapter)
{
    for (;;) {
        KIRQL irql;
        NTSTATUS status = STATUS_SUCCESS;
        ULONG_PTR length = 0;
        KeAcquireSpinLock(&adapter->lock, &irql);
        IRP *irp = adapter->count ? next_waiting(&adapter->reads) : NULL;
        if (irp) {
            struct frame *frame = &adapter->ring[adapter->first];
            if (IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length < frame->length) {
                status = STATUS_BUFFER_OVERFLOW;
            } else {
                length = frame->length;
                RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, frame->data, length);
            }
            adapter->first = (adapter->first + 1) % RING;
            adapter->count--;
            adapter->done_reads++;
        }
        KeReleaseSpinLock(&adapter->lock, irql);
        if (!irp)
            return;
        complete(irp, status, length);
    }
}

static void frame_arrived(int index, const unsigned char *data, unsigned int length)
{
    struct adapter *adapter = &adapters[index];
    KIRQL irql;
    KeAcquireSpinLock(&adapter->lock, &irql);
    if (adapter->media && adapter->count < RING) {
        struct frame *frame = &adapter->ring[(adapter->first + adapter->count) % RING];
        RtlCopyMemory(frame->data, data, length);
        frame->length = length;
        adapter->count++;
    } else {
        adapter->lost++;
    }
    KeReleaseSpinLock(&adapter->lock, irql);
    pump(adapter);
}

/* Requests -------------------------------------------------------------------------------------------------------------------------------- */

static BOOLEAN is_owner(struct adapter *adapter, IRP *irp)
{
    return adapter->owner == IoGetCurrentIrpStackLocation(irp)->FileObject;
}

static NTSTATUS WINAPI on_create(DEVICE_OBJECT *device, IRP *irp)
{
    struct adapter *adapter = adapter_of(device);
    KIRQL irql;
    NTSTATUS status = STATUS_UNSUCCESSFUL;
    KeAcquireSpinLock(&adapter->lock, &irql);
    if (!adapter->owner) {
        adapter->owner = IoGetCurrentIrpStackLocation(irp)->FileObject;
        adapter->powered = TRUE;
        adapter->opens++;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&adapter->lock, irql);
    return finish(irp, status, 0);
}

static NTSTATUS WINAPI on_close(DEVICE_OBJECT *device, IRP *irp)
{
    struct adapter *adapter = adapter_of(device);
    if (is_owner(adapter, irp)) {
        adapter->media = FALSE;
        cancel_all(adapter);
        adapter->owner = NULL;
    }
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS WINAPI on_read(DEVICE_OBJECT *device, IRP *irp)
{
    struct adapter *adapter = adapter_of(device);
    KIRQL irql;
    if (!is_owner(adapter, irp))
        return finish(irp, STATUS_ACCESS_DENIED, 0);
    KeAcquireSpinLock(&adapter->lock, &irql);
    BOOLEAN waits = adapter->media && adapter->powered && wait_on(&adapter->reads, irp);
    KeReleaseSpinLock(&adapter->lock, irql);
    if (!waits)
        return finish(irp, STATUS_CANCELLED, 0);
    pump(adapter);
    return STATUS_PENDING;
}

static NTSTATUS WINAPI on_write(DEVICE_OBJECT *device, IRP *irp)
{
    struct adapter *adapter = adapter_of(device);
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    unsigned char padded[SHORTEST] = {0};
    const unsigned char *frame = irp->AssociatedIrp.SystemBuffer;
    ULONG sent = length;
    KIRQL irql;
    if (!is_owner(adapter, irp))
        return finish(irp, STATUS_ACCESS_DENIED, 0);
    if (!adapter->media || !adapter->powered)
        return finish(irp, STATUS_CANCELLED, 0);
    if (length < HEADER)
        return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (length < SHORTEST) {
        RtlCopyMemory(padded, frame, length);
        frame = padded;
        sent = SHORTEST;
    }
    wire_send((int)(adapter - adapters), frame, sent);
    KeAcquireSpinLock(&adapter->lock, &irql);
    adapter->done_writes++;
    if (length > adapter->longest)
        adapter->longest = length;
    BOOLEAN holding = adapter->holding;
    BOOLEAN waits = holding && wait_on(&adapter->held, irp);
    KeReleaseSpinLock(&adapter->lock, irql);
    if (waits)
        return STATUS_PENDING;
    return finish(irp, holding ? STATUS_CANCELLED : STATUS_SUCCESS, holding ? 0 : length);
}

static NTSTATUS WINAPI on_control(DEVICE_OBJECT *device, IRP *irp)
{
    struct adapter *adapter = adapter_of(device);
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    void *buffer = irp->AssociatedIrp.SystemBuffer;
    static const ULONG version[3] = {9, 27, 0}, mtu = 1500;

    if (!is_owner(adapter, irp))
        return finish(irp, STATUS_ACCESS_DENIED, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GET_MAC:
        if (out < sizeof adapter->mac)
            return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlCopyMemory(buffer, adapter->mac, sizeof adapter->mac);
        return finish(irp, STATUS_SUCCESS, sizeof adapter->mac);
    case IOCTL_GET_VERSION:
        if (out < sizeof version)
            return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlCopyMemory(buffer, version, sizeof version);
        return finish(irp, STATUS_SUCCESS, sizeof version);
    case IOCTL_GET_MTU:
        if (out < sizeof mtu)
            return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlCopyMemory(buffer, &mtu, sizeof mtu);
        return finish(irp, STATUS_SUCCESS, sizeof mtu);
    case IOCTL_SET_MEDIA_STATUS: {
        ULONG wanted;
        if (in < sizeof wanted)
            return finish(irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&wanted, buffer, sizeof wanted);
        adapter->media = wanted != 0;
        if (!wanted)
            cancel_all(adapter);
        return finish(irp, STATUS_SUCCESS, out < sizeof wanted ? out : sizeof wanted);
    }
    default:
        return finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* Commands -------------------------------------------------------------------------------------------------------------------------------- */

static unsigned int put_text(char *to, unsigned int at, unsigned int room, const char *text)
{
    while (*text && at + 1 < room)
        to[at++] = *text++;
    to[at] = 0;
    return at;
}

static unsigned int put_number(char *to, unsigned int at, unsigned int room, const char *name, unsigned int value)
{
    char digits[12];
    int i = sizeof digits - 1;
    digits[i] = 0;
    do
        digits[--i] = (char)('0' + value % 10);
    while (value /= 10);
    if (at)
        at = put_text(to, at, room, " ");
    at = put_text(to, at, room, name);
    at = put_text(to, at, room, "=");
    return put_text(to, at, room, digits + i);
}

static unsigned int length_of(const LIST_ENTRY *list)
{
    unsigned int length = 0;
    for (const LIST_ENTRY *entry = list->Flink; entry != list; entry = entry->Flink)
        length++;
    return length;
}

static void set_name(struct adapter *adapter, BOOLEAN named)
{
    int index = (int)(adapter - adapters);
    UNICODE_STRING device, link;
    RtlInitUnicodeString(&device, device_names[index]);
    RtlInitUnicodeString(&link, link_names[index]);
    if (named && !adapter->named)
        IoCreateSymbolicLink(&link, &device);
    else if (!named && adapter->named)
        IoDeleteSymbolicLink(&link);
    adapter->named = named;
}

static void power_change(struct adapter *adapter)
{
    adapter->powered = FALSE;
    adapter->media = FALSE;
    cancel_all(adapter);
}

static int hex(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static BOOLEAN set_mac(struct adapter *adapter, const char *text)
{
    unsigned char mac[6];
    for (int i = 0; i < 6; i++) {
        int high = hex(text[2 * i]), low = high < 0 ? -1 : hex(text[2 * i + 1]);
        if (low < 0)
            return FALSE;
        mac[i] = (unsigned char)(high << 4 | low);
    }
    RtlCopyMemory(adapter->mac, mac, sizeof mac);
    return TRUE;
}

/* If `text` is `word`, a space and an adapter's number: what follows, and the adapter. */
static const char *match(const char *text, const char *word, struct adapter **adapter)
{
    while (*word)
        if (*text++ != *word++)
            return NULL;
    if (text[0] != ' ' || text[1] < '0' || text[1] >= '0' + ADAPTERS)
        return NULL;
    *adapter = &adapters[text[1] - '0'];
    return text[2] == ' ' ? text + 3 : text + 2;
}

static void command_arrived(const char *text, char *answer, unsigned int room)
{
    struct adapter *adapter;
    const char *rest;
    unsigned int at = 0;
    if (match(text, "count", &adapter)) {
        at = put_number(answer, at, room, "opens", adapter->opens);
        at = put_number(answer, at, room, "reads", adapter->done_reads);
        at = put_number(answer, at, room, "writes", adapter->done_writes);
        at = put_number(answer, at, room, "longest", adapter->longest);
        at = put_number(answer, at, room, "pending", length_of(&adapter->reads));
        at = put_number(answer, at, room, "held", length_of(&adapter->held));
        at = put_number(answer, at, room, "media", adapter->media);
        at = put_number(answer, at, room, "lost", adapter->lost);
        put_number(answer, at, room, "owned", adapter->owner != NULL);
        return;
    }
    if ((rest = match(text, "mac", &adapter)) != NULL) {
        put_text(answer, 0, room, set_mac(adapter, rest) ? "ok" : "error");
        return;
    }
    if (match(text, "power", &adapter)) {
        power_change(adapter);
    } else if (match(text, "away", &adapter)) {
        set_name(adapter, FALSE);
        power_change(adapter);
    } else if (match(text, "back", &adapter)) {
        set_name(adapter, TRUE);
    } else if (match(text, "hold", &adapter)) {
        adapter->holding = TRUE;
    } else if (match(text, "release", &adapter)) {
        adapter->holding = FALSE;
        end_all(adapter, &adapter->held, STATUS_SUCCESS);
    } else {
        put_text(answer, 0, room, "error");
        return;
    }
    put_text(answer, 0, room, "ok");
}

NTSTATUS WINAPI DriverEntry(DRIVER_OBJECT *driver, UNICODE_STRING *path)
{
    (void)path;
    driver->MajorFunction[IRP_MJ_CREATE] = on_create;
    driver->MajorFunction[IRP_MJ_CLOSE] = on_close;
    driver->MajorFunction[IRP_MJ_READ] = on_read;
    driver->MajorFunction[IRP_MJ_WRITE] = on_write;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = on_control;
    for (int i = 0; i < ADAPTERS; i++) {
        struct adapter *adapter = &adapters[i];
        static const unsigned char first_mac[6] = {0x02, 0xff, 0x5e, 0x00, 0x00, 0x01};
        UNICODE_STRING name;
        KeInitializeSpinLock(&adapter->lock);
        InitializeListHead(&adapter->reads);
        InitializeListHead(&adapter->held);
        RtlCopyMemory(adapter->mac, first_mac, sizeof first_mac);
        adapter->mac[5] = (unsigned char)(i + 1);
        adapter->ring = ExAllocatePoolWithTag(NonPagedPool, RING * sizeof *adapter->ring, TAG);
        if (!adapter->ring)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlInitUnicodeString(&name, device_names[i]);
        NTSTATUS status = IoCreateDevice(driver, sizeof adapter, &name, FILE_DEVICE_UNKNOWN, 0, FALSE, &adapter->device);
        if (!NT_SUCCESS(status))
            return status;
        *(struct adapter **)adapter->device->DeviceExtension = adapter;
        adapter->device->Flags |= DO_BUFFERED_IO;
        adapter->device->Flags &= ~DO_DEVICE_INITIALIZING;
        set_name(adapter, TRUE);
    }
    return wire_start(frame_arrived, command_arrived) ? STATUS_UNSUCCESSFUL : STATUS_SUCCESS;
}
