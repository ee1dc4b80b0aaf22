"""Starts jobs by forking: the imports, six seconds a process, are done once, here. forking.py asks, a line of JSON a job.

preloaded.py SOCKET: for each connection to the socket, reads {"script": [path, argument, ...], "world": ranks (0: no launcher),
"environment": {...}, "folder": where to run, "output": file}, answers with the pid of the job's first process and, when that has
ended, with its exit code as a shell tells it (-9: killed). Its ranks are torchrun's in what they see: the variables, a store that
outlives each of them, SIGTERM to the others where one fails. Ends when its standard input does.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

GRACE = 60.0  # seconds from SIGTERM to SIGKILL


def preload() -> None:
    """Everything that a training imports; nothing is computed, so that no thread is lost in a fork."""
    import datasets  # noqa: F401
    import deepspeed  # noqa: F401
    import torch._dynamo
    import torch.distributed.fsdp
    import torch.utils.data  # noqa: F401
    from accelerate import Accelerator  # noqa: F401

    gc.collect()
    gc.freeze()  # the collector leaves shared pages alone


def run(script: list[str], environment: dict[str, str]) -> NoReturn:
    """What `python SCRIPT ...` does, in this process."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = script
    sys.path.insert(0, str(Path(script[0]).parent))
    code: Any = 1
    try:
        runpy.run_path(script[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def lead(job: dict[str, Any]) -> NoReturn:
    """A launcher: starts the ranks, ends all where one fails, exits with 1 then."""
    from torch.distributed import TCPStore

    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        ranks = {start_rank(job, rank, place): rank for rank in range(job["world"])}
        port, patience = place.getsockname()[1], timedelta(seconds=300)
        store = TCPStore(  # after the forks: it has a thread
            "127.0.0.1", port, None, True, patience, wait_for_workers=False, master_listen_fd=place.detach()
        )
    failed, since = False, 0.0
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in ranks])
    while ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            ranks.pop(pid, None)
            if status and not failed:
                failed, since = True, time.monotonic()
                for other in ranks:
                    os.kill(other, signal.SIGTERM)
        elif failed and time.monotonic() - since > GRACE:
            for other in ranks:
                os.kill(other, signal.SIGKILL)
        else:
            time.sleep(0.01)
    del store
    os._exit(int(failed))


def start_rank(job: dict[str, Any], rank: int, place: socket.socket) -> int:
    """Its pid, which its notebook's folder names too: the environment that /proc shows of a fork is that of the first process."""
    port = place.getsockname()[1]
    pid = os.fork()
    if pid == 0:
        place.close()
        world = str(job["world"])
        Path(job["environment"]["RECORD_DIR"], f"rank-{rank}.pid").write_text(str(os.getpid()))
        given = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": "0"}
        agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"}
        run(job["script"], job["environment"] | given | agent | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    return pid


def start(job: dict[str, Any], inherited: list[socket.socket]) -> int:
    """The pid of a new job's first process, leader of a session of its own."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGQUIT):  # ignored under nohup, and in the background of a script
            signal.signal(number, signal.SIG_DFL)
        for each in inherited:
            each.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(job["folder"])
        if job["world"]:
            lead(job)
        run(job["script"], job["environment"])
    return pid


def serve(listening: socket.socket) -> None:
    waiting: dict[int, socket.socket] = {}  # first process of a job -> who asked for it
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [], 0.02)
        if sys.stdin in ready:  # nothing is ever written to it
            return
        if listening in ready:
            asking, _ = listening.accept()
            job = json.loads(asking.makefile().readline())
            pid = start(job, [listening, asking, *waiting.values()])
            waiting[pid] = asking
            asking.sendall(f"{pid}\n".encode())
        while waiting:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            with waiting.pop(pid) as asking:
                try:
                    asking.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                except OSError:  # nobody waits any more
                    pass


if __name__ == "__main__":
    preload()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        print("ready", flush=True)
        serve(listening)
