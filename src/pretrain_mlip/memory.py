"""Memory that a process frees and wants again at once, and memory that it holds."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, instead of returning it and asking for it again.

    Networks fill and free hundreds of tensors of megabytes at each call. The allocator of Linux (glibc) gives each back
    to the system, which clears every page anew for the next: a call of M3GNet takes a tenth more time on 1,536 atoms,
    and three times as much on 17,496. The process then never shrinks from the largest size that it had. It affects the
    whole process, so nothing calls it but the command line; call it once, early, in scripts of yours.

    Returns:
        Whether the allocator can be told; elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * 2**20))
    accepted = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in options]
    return all(accepted)


class _Mallinfo2(ctypes.Structure):
    _fields_ = [  # as ctypes wants it; mallinfo(3)
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def allocated() -> int:
    """Bytes that the process has asked for and not freed; 0 where the allocator cannot be asked (other than glibc)."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform.startswith("linux") else None
    if ask is None:
        return 0
    ask.restype = _Mallinfo2
    said = ask()
    return int(said.uordblks + said.hblkhd)
