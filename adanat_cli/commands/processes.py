"""``adanat --nproc N``: the same command in several processes of this machine, without ``torchrun`` on the path."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from adanat_cli.core.errors import AdaNATError, require

COMMANDS = ("tokenize", "pretrain-nat", "train-policy", "train-tokenizer", "evaluate", "reproduce", "stats")
"""Commands that share their work between processes."""
_SECONDS_TO_SAVE = "120"
_ALONE = {"--dry-run", "--print-config", "--help", "-h"}
"""Options that only print, for which one process is enough."""


class ProcessesLeft(SystemExit):
    """All processes have left; they themselves have said why. The code is theirs."""


def launch(num_processes: int, command: str, arguments: Sequence[str]) -> None:
    """Run ``adanat`` with these arguments in N processes, and leave with their exit code.

    What only prints runs here: a plan, which is that of N processes.

    Args:
        num_processes: N, processes on this machine; 1 returns, so that the command runs here.
        command: name of the command, such as "evaluate".
        arguments: the whole command line.

    Raises:
        AdaNATError: if N is below 1, or the command works in one process only.
        ProcessesLeft: when they are done.
    """
    from adanat_cli.jobs.runtime.group import num_processes as already

    require(num_processes >= 1, f"--nproc is {num_processes}; expected the number of processes to start, 1 or more.")
    require(
        num_processes == 1 or command in COMMANDS,
        f"adanat {command} works in one process; leave --nproc out. It is for {', '.join(COMMANDS)}.",
    )
    if num_processes == 1:
        return
    if _ALONE & set(arguments):
        if "--dry-run" in arguments:
            os.environ["WORLD_SIZE"] = str(num_processes)  # it plans for so many
        return
    require(
        already() == 1,
        "--nproc starts processes itself, but this is one of a group that torchrun or accelerate has started; leave "
        "one of the two out.",
    )
    # Before the command there are only numbers and options.
    raise ProcessesLeft(_run(num_processes, arguments[arguments.index(command) :]))


def _run(num_processes: int, arguments: Sequence[str]) -> int:
    """Start the processes and wait; returns the exit code of the first that failed, or 0."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    _prepare(num_processes)
    logging.disable(logging.ERROR)  # the launcher's own words on every signal and exit code
    signal.set_wakeup_fd(-1)  # this process ends when the others have saved
    group = ["--standalone", f"--nproc_per_node={num_processes}"]
    try:
        run.main([*group, "-m", "adanat_cli", *arguments])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return _exit_code(rank, int(failure.exitcode), num_processes)
    except SignalException as error:
        return 128 + int(error.sigval)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        raise AdaNATError(
            f"{num_processes} processes cannot be started: {error.strerror or error}; try fewer."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _prepare(num_processes: int) -> None:
    """Set the environment that the processes inherit."""
    # Each would take all cores for itself.
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # Ctrl-C reaches the processes through the launcher, which would end them after 30 seconds.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SECONDS_TO_SAVE)


def _exit_code(rank: int, code: int, num_processes: int) -> int:
    """The exit code for a process that failed; one that was ended by a signal, with a negative code, is reported."""
    from adanat_cli.jobs.runtime.interrupts import kept

    if code >= 0:
        return code
    print(
        f"Process {rank} of {num_processes} was ended by {signal.Signals(-code).name}"
        f"{', as the system does where memory runs out' if -code == signal.SIGKILL else ''}, and the others with it. "
        f"{kept(sys.argv[1:])}",
        file=sys.stderr,
    )
    return 128 - code  # as shells report it
