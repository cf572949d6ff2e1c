"""Which of the processes of one run this is."""

import os


def is_first() -> bool:
    """Whether this is the first process of the run, not one that Lightning or a cluster started for another device."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))


def exit_code(code: int) -> int:
    """The exit code for what all processes agreed on: the first gives it, the others 0.

    Lightning kills the first process when it sees another end with anything else, and the code would be lost; and
    `srun` gives the largest of all codes.
    """
    return code if is_first() else 0
