"""The file that a run leaves: found finished, begun, or written from its parts."""

from __future__ import annotations

import warnings
from datetime import datetime, timezone
from pathlib import Path

from fastconv.run.fingerprint import require_equal
from fastconv.run.job import Job
from fastconv.run.loop import refuse_skipped
from fastconv.run.recording import Recording
from fastconv.store.parts import PartsFolder, remove_parts
from fastconv.store.reader import Run, open_run
from fastconv.store.writer import write_run


def finished(out: Path | str, job: Job) -> Run:
    """Open a file that exists, at a path or a URL, if it is of this job.

    Raises:
        FingerprintError: it is of another; the message names the differences.
    """
    run = open_run(out)
    remedy = "choose another output, or overwrite it (overwrite=True, --overwrite)"
    try:
        require_equal(run.config["fingerprint"], job.identity, str(out), remedy)
        if not job.source.skip and run.samples is not None:
            refuse_skipped(run.samples.skipped, out)
    except BaseException:
        run.close()
        raise
    if isinstance(out, Path):
        remove_parts(out)  # of a process that was killed between naming the file and removing them
    return run


def begin(folder: PartsFolder, job: Job, *, resume: bool) -> None:
    """Leave the folder with a manifest of this job, keeping only parts that belong to it."""
    wanted = {**job.identity, "made_by": job.made_by()}
    manifest = folder.manifest()
    if manifest is not None and resume:
        remedy = "run the same call as before, or start anew (resume=False, --no-resume)"
        require_equal(manifest, wanted, str(folder.path), remedy)
        job.units.learn_end(folder)
        return
    folder.clear()
    folder.write_manifest(wanted)


def write(out: Path, job: Job, recording: Recording, started: str, *, overwrite: bool) -> None:
    """Write the finished file."""
    _warn_of_missing_maps(job)
    table = recording.sample_table()
    write_run(
        out,
        job.config(),
        recording.results(),
        samples=table,
        graph=job.edges,
        overwrite=overwrite,
        times={"start_time": started, "end_time": now()},
    )


def _warn_of_missing_maps(job: Job) -> None:
    """Of a stream, that was not known before its end."""
    asked, length = job.options.maps, job.source.length
    if isinstance(asked, tuple) and length is not None and asked[-1] >= length:
        warnings.warn(
            f"maps: the stream ended after {length} samples; there is no sample {asked[-1]}",
            stacklevel=2,
        )


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
