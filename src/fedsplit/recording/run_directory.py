"""The directory of a run: where each thing that it leaves is written, by one process alone."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedsplit.config.run_config import RunConfig
from fedsplit.config.stored import parse_stored
from fedsplit.config.values import Plain
from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line, new_directory, user_path
from fedsplit.files.whole import appearing, write_json
from fedsplit.recording import checkpoint
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.class_counts import CLASS_COUNTS, ClassCounts
from fedsplit.recording.config_file import own_choices_of, read_config, runs_below, write_config
from fedsplit.recording.metrics import Record, append_metrics, write_metrics
from fedsplit.recording.run_lock import RunLock
from fedsplit.state.weights import Weights, is_finite

_LOG = logging.getLogger("fedsplit")


class RunDirectory:
    """Directory of one run, with its files.

    They are `config.yaml`, `class_counts.csv`, `run.log`, `metrics.csv`, `results.json`, `confusion.csv`,
    `roc.csv`, `local_accuracy.csv`, and the folders `model/`, `texts/` and `checkpoint/`.

    While it is open, or once it is `claimed`, no other process can write to it.
    """

    def __init__(self, path: Path, key: str = "hydra.run.dir") -> None:
        self.path, self._key = path, key
        self._lock = RunLock(path, key)
        self._log: logging.Handler | None = None

    @classmethod
    def new(cls, path: Path, key: str) -> "RunDirectory":
        """A directory for a new run, made and claimed; `key` is what named it.

        Raises:
            UserError: there is a run in it already, another process begins one, or it cannot be made.
        """
        new_directory(path, key)
        directory = cls(path, key)
        directory.claim()
        try:
            new_directory(path, key)  # another process may have begun a run before the directory was claimed
        except UserError:
            directory.close()
            raise
        return directory

    @classmethod
    def existing(cls, path: Path | str, key: str = "resume") -> "RunDirectory":
        """The directory of a run that was started, which `key` named; `UserError` where there is none."""
        path = user_path(path, key)
        if not path.is_dir():
            raise UserError(key, path, "must be the directory of a run: there is no such directory")
        if not (path / "config.yaml").is_file():
            message = "must be the directory of a run: it holds no config.yaml"
            raise UserError(key, path, message + runs_below(path))
        return cls(path, key)

    def error(self, message: str) -> UserError:
        """Error to raise where the directory is not as it must be, under the key that named it."""
        return UserError(self._key, self.path, message)

    def claim(self) -> None:
        """Keep other processes from writing to it, until it is closed.

        Raises:
            UserError: another process writes to it, or it cannot be written.
        """
        with in_one_line(self._key, self.path, "cannot be written"):
            self._lock.take()

    def config(self) -> Plain:
        """The plain values that its configuration file holds; nothing of them is checked.

        Raises:
            UserError: the file is damaged, of another format, or not that of a run.
        """
        return read_config(self.path, self._key)

    def run_config(self, *, trust: bool) -> RunConfig:
        """The configuration of the run, for who runs what it says (see `parse_stored`).

        Raises:
            UserError: as `config`; or a value is not allowed, or names code of its own without `trust`.
        """
        own = own_choices_of(self.path)
        return parse_stored(self.config(), self.path, trust=trust, error=self.error, own_choices=own)

    def model(self, half: str) -> Weights:
        """The trained `client` or `server` model; `UserError` where it is missing, damaged or not finite."""
        name = f"model/{half}.safetensors"
        try:
            weights = load_file(self.path / name)
        except FileNotFoundError as error:
            raise self.error(f"holds no trained model, {name}: a run writes it at its end") from error
        except (SafetensorError, OSError) as error:
            raise self.error(f"{name} is damaged ({error})") from error
        if not is_finite(weights):
            raise self.error(f"{name} holds weights that are not finite: the run diverged")
        return weights

    def trained_weights(self, client: int | None = None) -> dict[str, Weights]:
        """Trained halves of the model, `client` and `server`.

        Args:
            client: number of the client, where clients have models of their own; None where they share one.

        Raises:
            UserError: as `model`; or clients have models of their own and none is named, or one is and they
                do not, or that one took no part.
        """
        halves = ("client", "server")
        own = {half: sorted(self._clients_with_half(half)) for half in halves}
        numbers = own["client"] or own["server"]
        if client is None and numbers:
            known = ", ".join(map(str, numbers))
            raise self.error(f"its clients have models of their own: task.client names one of {known}")
        if client is not None and client not in numbers:
            message = f"must be one of {', '.join(map(str, numbers))}, which took part in"
            message = message if numbers else "must be null: clients share the model of"
            raise UserError("task.client", client, f"{message} run={self.path}")
        return {half: self.model(f"{half}-{client}" if own[half] else half) for half in halves}

    def _clients_with_half(self, half: str) -> list[int]:
        """Clients whose own half was written."""
        names = (path.stem.removeprefix(f"{half}-") for path in (self.path / "model").glob(f"{half}-*"))
        return [int(name) for name in names if name.isdecimal()]

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; None where none was ever written."""
        return checkpoint.load_latest(self.path / "checkpoint")

    def open(
        self, config: Mapping[str, object], records: Sequence[Record], counts: ClassCounts | None = None
    ) -> None:
        """Make the directory, write what is known at the start, cut `metrics.csv` to `records`, and log.

        Args:
            counts: content of `class_counts.csv`; None writes none.

        Raises:
            UserError: it cannot be written, or another process writes to it.
        """
        with in_one_line("hydra.run.dir", self.path, "cannot be written"):
            self.path.mkdir(parents=True, exist_ok=True)
            self.claim()
            if not records:  # nothing that an earlier run left here is this run's to resume from
                checkpoint.clear(self.path / "checkpoint")
            write_config(self.path, config)
            if counts is not None:
                counts.write(self.path / CLASS_COUNTS)
            self.rewrite(records)
            log = logging.FileHandler(self.path / "run.log", encoding="utf-8", errors="surrogateescape")
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._end_log()
        self._log = log
        _LOG.addHandler(log)
        _LOG.setLevel(logging.INFO)

    def rewrite(self, records: Sequence[Record]) -> None:
        """Write `metrics.csv` anew from records."""
        write_metrics(self.path / "metrics.csv", records)

    def record(self, record: Record) -> None:
        """Add a round to `metrics.csv`."""
        assert self._log is not None, "the run directory is not open"
        append_metrics(self.path / "metrics.csv", record)

    def save_checkpoint(self, state: Checkpoint) -> None:
        """Write a checkpoint into the directory."""
        checkpoint.save(self.path / "checkpoint", state)

    def save_model(self, models: Mapping[str, Weights]) -> None:
        """Write `model/<name>.safetensors`; the same bytes for the same weights."""
        folder = self.path / "model"
        folder.mkdir(exist_ok=True)
        for name, weights in models.items():
            on_cpu = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
            with appearing(folder / f"{name}.safetensors") as partial:
                save_file(on_cpu, partial)

    def save_files(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write files, by name, into a folder of the directory."""
        (self.path / folder).mkdir(exist_ok=True)
        for name, content in files.items():
            with appearing(self.path / folder / name) as partial:
                partial.write_bytes(content)

    def save_texts(self, round: int, lines: bytes) -> None:
        """Write `texts/round-<round>.jsonl`, what a language model wrote after a round."""
        self.save_files("texts", {f"round-{round:06d}.jsonl": lines})

    def save_results(self, results: Mapping[str, object]) -> None:
        """Write `results.json` into the directory."""
        write_json(self.path / "results.json", results)

    def close(self) -> None:
        """Stop logging to `run.log`, and let other processes write here."""
        self._end_log()
        self._lock.release()

    def _end_log(self) -> None:
        if self._log is not None:
            _LOG.removeHandler(self._log)
            self._log.close()
            self._log = None
