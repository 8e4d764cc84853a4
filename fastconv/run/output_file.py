"""The file that a run leaves: found finished, begun, or written from its parts."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from fastconv.run.fingerprint import require_equal
from fastconv.run.job import Job
from fastconv.run.loop import refuse_skipped
from fastconv.run.recording import Recording
from fastconv.run.thumbnails import thumbnails
from fastconv.store.parts import PartsFolder, remove_parts
from fastconv.store.reader import Run, open_run
from fastconv.store.writer import write_run


def finished(out: Path | str, job: Job) -> Run:
    """Open a file that exists, at a path or a URL, if it is of this job.

    Raises:
        FingerprintError: it is of another; the message names the differences.
    """
    run = open_run(out)
    require_equal(
        run.config["fingerprint"],
        job.identity,
        str(out),
        "choose another output, or overwrite it (overwrite=True, --overwrite)",
    )
    if not job.source.skip and run.samples is not None:
        refuse_skipped(run.samples.skipped, out)
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
        return
    folder.clear()
    folder.write_manifest(wanted)


def write(out: Path, job: Job, recording: Recording, started: str, *, overwrite: bool) -> None:
    """Write the finished file."""
    table = recording.sample_table(job.source.keys())
    table.thumbnails = thumbnails(job, recording.shown_samples())
    write_run(
        out,
        job.config(),
        recording.results(),
        samples=table,
        graph=job.edges,
        overwrite=overwrite,
        times={"start_time": started, "end_time": now()},
    )


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
