"""A training as a job: it ends with an exit code, and with status.json, because exit codes do not survive a launcher."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import torch

from attnrec_dist.checkpoints.checkpoint import Progress
from attnrec_dist.engine.announce import ended
from attnrec_dist.engine.config import RunConfig
from attnrec_dist.engine.preemption import StopRequest
from attnrec_dist.engine.run import Run, start, watchdog_of
from attnrec_dist.engine.train import train
from attnrec_dist.errors import ConfigError, ExitCode, StorageError, UserError, address_limit
from attnrec_dist.run_dir import RunDir, State
from attnrec_dist.strategies.launch import join
from attnrec_dist.terminal.hints import next_step
from attnrec_dist.terminal.interrupts import was_interrupted


def train_in(run_dir: RunDir, config: RunConfig) -> int:
    """Trains; what goes wrong is left in status.json too."""
    try:
        return run_training(config, run_dir)
    except BaseException as caught:
        error = in_our_words(caught, config)
        if run_dir.locked:
            leave_word(run_dir, error)
        if error is caught:
            raise
        raise error from caught
    finally:
        run_dir.unlock()


def leave_word(run_dir: RunDir, error: BaseException) -> None:
    """Of a training that failed, in status.json. A start that was refused leaves the directory as it was; only one that it made
    itself, under a launcher, where status.json has to tell the outcome, stays."""
    state: State = "user_error" if isinstance(error, UserError) else "fault"
    reason = str(error) or type(error).__name__
    if was_interrupted(error):
        state, reason = "stopped", "by the user, with Ctrl-C"
    if not run_dir.begun and not (run_dir.is_new and is_launched()):
        if not run_dir.discard():
            run_dir.leave()
        return
    with contextlib.suppress(StorageError):  # on a full disk the first error is the one to tell
        run_dir.write_status(state, int(run_dir.status()["step"]), reason)


def in_our_words(error: BaseException, config: RunConfig) -> BaseException:
    """What torch says where memory ran out, or an algorithm is missing, with what to type next."""
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        return ConfigError(f"train.deterministic: {str(error).partition(',')[0]}; leave it out, or train on CPUs")
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    if not (on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)):
        return error
    headline = str(error).partition("\n")[0] or "MemoryError"
    tokens, limit = config.train.micro_batch_tokens, address_limit()
    return ConfigError(
        f"out of memory ({headline}); {f'{limit}; or ' if limit else ''}"
        f"type --train.micro_batch_tokens {tokens // 2} (now {tokens}), "
        "--train.activation_checkpointing true, or launch with launch/fsdp2.yaml, which cuts the weights among processes"
    )


def run_training(config: RunConfig, run_dir: RunDir) -> int:
    """Trains to the end or to a stop request, and says so on rank 0; the file STOP, once obeyed, is removed."""
    job = join(config.train.precision, config.train.timeout, config.train.deterministic)
    with contextlib.ExitStack() as after:
        with watchdog_of(config, run_dir, job.world) as watchdog:
            stop = StopRequest(run_dir.stop, config.train.max_hours)
            stop.listen(but=signal.SIGINT)  # Ctrl-C ends a start at once
            run = start(config, run_dir, job, watchdog, stop)
            stop.listen()
            run.metrics.open_trackers(config)
            after.callback(run.metrics.close)
            code, progress = train(run)
            figures = run.figures.keep(run_dir.path / "figures.json") if run.figures.steps else None
        if run.world.is_main:
            tell_end(run, code, progress, figures)
    run.job.close()
    return ExitCode.DONE if is_launched() else code


def tell_end(run: Run, code: ExitCode, progress: Progress, figures: dict[str, Any] | None) -> None:
    """What the job came to, in status.json and in words; before the trackers are closed, which may take its time. Rank 0."""
    run_dir = run.run_dir
    with contextlib.suppress(OSError):
        run_dir.stop.unlink(missing_ok=True)
    if code == ExitCode.RUN_AGAIN:
        reason = run.stop.reason or "a stop request to another process"
        run_dir.write_status("stopped", progress.step, reason)
    else:
        run_dir.write_status("done", progress.step, progress.finished)
    if not run_dir.begun:
        run_dir.leave()
    if figures is not None:
        run.say(ended(run, progress, figures))
    if code == ExitCode.RUN_AGAIN:
        run.say(f"stopped at step {progress.step} ({reason}); the same command goes on from there")
    else:
        command = "evaluate" if run.data.manifest.counts.test_events else "plot"
        run.say(f"done at step {progress.step}; {next_step(command, run_dir.path)}")


def is_launched() -> bool:
    return "LOCAL_RANK" in os.environ
