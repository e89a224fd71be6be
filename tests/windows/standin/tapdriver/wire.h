/* The seam between the stand-in driver (tapdriver.c, kernel mode) and its wire (wire.c, a DLL with sockets). */
#ifndef SOFTLAN_STANDIN_WIRE_H
#define SOFTLAN_STANDIN_WIRE_H

#define ADAPTERS 2
#define FRAME_MAX 4096

#ifdef WIRE_IMPLEMENTATION
#define WIRE_API __declspec(dllexport)
#else
#define WIRE_API __declspec(dllimport)
#endif

/* A frame for adapter `index` came in from the wire. Called on the wire's thread. */
typedef void (*wire_frame_fn)(int index, const unsigned char *frame, unsigned int length);
/* A command came in: `text` is zero-terminated, `answer` has room for `room` bytes and wants a zero-terminated text. */
typedef void (*wire_command_fn)(const char *text, char *answer, unsigned int room);

/* Opens the sockets and starts the thread. 0: done; otherwise a Winsock error. */
WIRE_API int wire_start(wire_frame_fn on_frame, wire_command_fn on_command);
/* Sends a frame of adapter `index` to the other end of its wire. */
WIRE_API void wire_send(int index, const unsigned char *frame, unsigned int length);

#endif
