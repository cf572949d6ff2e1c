"""Memory that is used again and again, image after image, stays with the process."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1


def keep_memory() -> bool:
    """Have glibc keep freed memory for the next allocation; where there is no glibc, nothing happens.

    By default every large block goes back to the system when it is freed and comes again page by page, zeroed: 170,000
    page faults, a quarter of a second, for one image of 800 x 1216 pixels in a ResNet-50. The process then stays as
    large as it ever was. For commands only: it concerns all of the process.

    PyTorch's tensors also get pages of 2 MB where the system has them, if it is called before the first large one.

    Returns:
        whether it does.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
