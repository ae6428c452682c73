"""From experiments to files: runs are read and selected, figures drawn, tables made, and all written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import appearing
from fedsplit.recording.config_file import OtherFormat
from fedsplit.reports.experiments import FigureRequest
from fedsplit.reports.figures.figure_type import RenderedFigure
from fedsplit.reports.figures.style import encode_figure, house_style
from fedsplit.reports.notes import Notes
from fedsplit.reports.runs import Run, read_run, runs_at, without_repeats
from fedsplit.reports.selection import at_defaults, fits, missing, sweep, unknown_keys
from fedsplit.reports.tables.table import Table, table_of


class StoredRuns:
    """Runs on disk, each read once however many figures it is in; notes tell what is left out or missing."""

    def __init__(self, notes: Notes, out: Path | None = None) -> None:
        """Nothing is read yet; a folder `out` for figures may be among runs."""
        self._notes, self._out = notes, out
        self._read: dict[Path, Run | UserError] = {}
        self._missing: dict[str, list[str]] = {}

    def read_runs(self, places: Sequence[str], key: str) -> list[Run]:
        """Read all runs at these places, one of each setting and seed; those of another format are noted.

        Raises:
            UserError: a place holds no run, or a run is damaged, or all are of another format; `key` is what
                named the places.
        """
        found = [self._run(path) for path in self._paths(places, key, all_needed=True)]
        runs = [run for run in found if isinstance(run, Run)]
        for error in (each for each in found if isinstance(each, UserError)):
            if not isinstance(error, OtherFormat) or not runs:
                raise error
            self._tell_of(error)
        return self._once(runs)

    def select_runs(self, experiment: FigureRequest) -> list[Run]:
        """Select the runs of an experiment; runs that are damaged or cannot be drawn are noted."""
        everything = []
        for path in self._paths(experiment.runs, f"{experiment.name}.runs", all_needed=False):
            run = self._run(path)
            if isinstance(run, UserError):
                self._tell_of(run)
            else:
                everything.append(run)
        fitting = [run for run in everything if fits(run, experiment.where)]
        found = self._once(at_defaults(fitting, experiment.keys) if experiment.others_default else fitting)
        if not found:
            self._tell_of_none(experiment, everything)
            return []
        if experiment.expects:
            for command in missing(found, experiment.where, experiment.expects):
                self._missing.setdefault(command, []).append(experiment.name)
        return self._drawable(experiment, found)

    def tell_missing(self) -> None:
        """Tell what experiments expect beside the runs selected for them: each command once."""
        for command, names in self._missing.items():
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self._notes.add("missing", f"missing for {names[0]}{others}: {command}")

    def _tell_of_none(self, experiment: FigureRequest, everything: Sequence[Run]) -> None:
        message = f"{experiment.name}: not drawn, it has no run"
        if unknown := unknown_keys(everything, experiment.where):
            message += f" (none has the key {', '.join(unknown)})"
        if experiment.where or experiment.expects:
            message += f"; they come from: {sweep(experiment.where, experiment.expects)}"
        self._notes.add("empty", message)

    def _tell_of(self, error: UserError) -> None:
        self._notes.add("format" if isinstance(error, OtherFormat) else "damaged", f"not drawn: {error}")

    def _drawable(self, experiment: FigureRequest, runs: Sequence[Run]) -> list[Run]:
        drawable: list[Run] = []
        refused: dict[str, list[UserError]] = {}
        for run in runs:
            try:
                experiment.figure.check(run)
                drawable.append(run)
            except UserError as error:
                refused.setdefault(error.allowed, []).append(error)
        for errors in refused.values():
            others = f", as {len(errors) - 1} more" if len(errors) > 1 else ""
            self._notes.add("unfit", f"{experiment.name}: not drawn{others}: {errors[0]}")
        return drawable

    def _run(self, path: Path) -> Run | UserError:
        if path not in self._read:
            try:
                self._read[path] = read_run(path)
            except UserError as error:
                self._read[path] = error
        return self._read[path]

    def _paths(self, places: Sequence[str], key: str, *, all_needed: bool) -> list[Path]:
        paths: dict[Path, Path] = {}
        for place in places:
            found = runs_at(place, key)
            paths |= {path.resolve(): path for path in found.runs}
            for other in found.others:
                if self._out is not None and other.resolve() == self._out.resolve():
                    continue
                self._notes.add("foreign", f"{other}: not drawn, it is not the directory of a run")
            if not found.runs:
                gone = not Path(place).exists() and not set("*?[") & set(place)
                problem = "there is no such folder" if gone else "holds no run"
                allowed = "a run directory (with config.yaml and metrics.csv), a folder of such, or a glob"
                empty = UserError(key, place, f"{problem}; must be {allowed}")
                if all_needed:
                    raise empty
                self._notes.add("empty", str(empty))
        return list(paths.values())

    def _once(self, runs: Sequence[Run]) -> list[Run]:
        kept, repeats = without_repeats(runs)
        for path, by in repeats.items():
            self._notes.add("repeated", f"{path}: not drawn, {by} has the same settings and seed")
        for run in kept:
            if run.results is None:
                self._notes.add("unfinished", f"{run.path}: drawn as far as it went, it has not ended")
        return kept


def draw(experiment: FigureRequest, runs: Sequence[Run], formats: Sequence[str]) -> RenderedFigure:
    """Draw an experiment of runs that pass its figure's `check`.

    Raises:
        UserError: runs do not fit together, or are more than can be told apart.
    """
    data, left_out = experiment.figure.within_limits(experiment.figure.data(runs))
    with house_style():
        figure = experiment.figure.draw(data)
        images = {format: encode_figure(figure, format) for format in formats}
    message = f"Not drawn, because there is no room: {'; '.join(left_out)}." if left_out else ""
    description = " ".join(filter(None, (experiment.description, message)))
    return RenderedFigure(experiment.name, experiment.title, description, images, runs, left_out)


def image_files(drawn: RenderedFigure) -> dict[str, bytes]:
    """Contents of image files by name."""
    return {f"{drawn.name}.{format}": image for format, image in drawn.images.items()}


def tabulate(experiment: FigureRequest, runs: Sequence[Run]) -> list[Table]:
    """The table of an experiment, where it asks for one."""
    if experiment.table is None:
        return []
    return [table_of(experiment.table, runs, name=experiment.name, title=experiment.title)]


def write(files: Mapping[str, bytes], out: Path) -> list[Path]:
    """Write files, by name, each whole or not at all; `UserError` where one cannot be written."""
    with in_one_line("--out", out, "must be a directory to write to"):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with appearing(out / name) as partial:
                partial.write_bytes(content)
    return [out / name for name in files]
