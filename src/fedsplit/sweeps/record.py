"""`sweep.yaml`: the jobs of a sweep, by which a later command finds out what is done already."""

import glob
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedsplit.errors import UserError
from fedsplit.files.bounded import MIB, yaml_in
from fedsplit.files.paths import user_path
from fedsplit.files.whole import write_yaml

RECORD = "sweep.yaml"
_WITHOUT_EFFECT = ("progress", "sweep", "trust")
"""Keys of a configuration that make no other job of it."""


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Args:
        number: number of the job; it keeps it when the sweep is gone on with.
        directory: directory of its run, below the sweep's.
        overrides: overrides that the job is composed from, without Hydra's own.
        configuration: fingerprint of its resolved configuration (see `fingerprint`).
    """

    number: int
    directory: str
    overrides: list[str]
    configuration: str


def fingerprint(config: Mapping[str, object]) -> str:
    """The same for the same resolved configuration, whatever the words it was asked for in."""
    own = {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]


def differing(jobs: Sequence[Job]) -> list[list[str]]:
    """Overrides of each job by which jobs differ; of several of one key the last, which counts."""
    last = [{each.partition("=")[0].lstrip("+"): each for each in job.overrides} for job in jobs]
    keys = dict.fromkeys(key for each in last for key in each)
    unequal = [key for key in keys if len({each.get(key) for each in last}) > 1]
    return [[each[key] for key in unequal if key in each] for each in last]


def read(directory: Path) -> list[Job]:
    """The jobs that were ever asked for in a sweep's directory; `UserError` where its record is damaged."""
    path = directory / RECORD
    if not path.exists():
        return []
    try:
        jobs = [Job(**job) for job in yaml_in(path, 16 * MIB, most_values=10_000_000)["jobs"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError("hydra.sweep.dir", directory, f"its {RECORD} is damaged ({error})") from error
    if not all(map(_is_job, jobs)):
        raise UserError("hydra.sweep.dir", directory, f"its {RECORD} is damaged: an entry is no job")
    return jobs


def _is_job(job: Job) -> bool:
    texts = isinstance(job.overrides, list) and all(isinstance(each, str) for each in job.overrides)
    below = isinstance(job.directory, str) and not {"..", "/"} & set(Path(job.directory).parts)
    return texts and below and type(job.number) is int and isinstance(job.configuration, str)


def write(directory: Path, overrides: Sequence[str], jobs: Sequence[Job]) -> None:
    """Record the jobs, and the overrides of the last command that asked for some; whole or not at all."""
    content = {"overrides": list(overrides), "jobs": [asdict(job) for job in jobs]}
    write_yaml(directory / RECORD, content)


def newest(unresolved: str, configurations: set[str]) -> Path | None:
    """The sweep that was worked at last and has a job in common with `configurations`; None if there is none.

    Args:
        unresolved: `hydra.sweep.dir` with its time not filled in.
        configurations: fingerprints.
    """
    pattern = re.sub(r"\$\{[^{}]*\}", "*", unresolved)
    records = [Path(path) for path in glob.glob(f"{user_path(pattern, 'hydra.sweep.dir')}/{RECORD}")]
    for path in sorted(records, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if any(job.configuration in configurations for job in read(path.parent)):
            return path.parent
    return None
