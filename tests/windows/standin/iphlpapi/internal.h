/* What the stand-in's two files share. All but the opening want the lock held, standin_add_route takes it. */
#ifndef SOFTLAN_STANDIN_INTERNAL_H
#define SOFTLAN_STANDIN_INTERNAL_H

#include "standin.h"

extern struct standin_state *standin;

BOOL standin_open(void);
void standin_lock(void);
void standin_unlock(void);
struct standin_interface *standin_find(ULONG64 luid, ULONG index);
/* Writes a call down, and says whether it is to fail. */
DWORD standin_count(const char *call, ULONG64 luid, ULONG extra);
DWORD standin_add_route(const MIB_IPFORWARD_ROW2 *row);

#endif
