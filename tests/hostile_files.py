"""Run directories and deployed models as a stranger might write them: nothing that they try may happen.

A good run and good deployed models are made once. Each case is a copy in which something is replaced, and is
read by everything that reads one. A canary hears whatever would be code, a file or a variable of its own.
"""

import json
import os
import random
import re
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from fedsplit.building.trained import TrainedRun
from fedsplit.building.trained_start import TrainedStart
from fedsplit.deployment import storage
from fedsplit.deployment.precisions import Precision
from fedsplit.errors import RunFailed, UserError
from fedsplit.inference.subject import subject_of
from fedsplit.machine.allowance import allowing
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.drawing import StoredRuns, draw, image_files
from fedsplit.reports.experiments import FigureRequest, figure_type
from fedsplit.reports.notes import Notes
from fedsplit.reports.tables.table import TableRequest, table_of
from fedsplit.sweeps import record
from fedsplit.sweeps.status import progress_of
from fedsplit.tasks.infer import _of_the_run
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from tests.configurations import configuration

_MEMORY = 300e6
"""Bytes that files may ask for."""
SECRET = "FEDSPLIT_CANARY"
MARK = "fedsplit_canary"
TARGETS = (
    *("os.system", "os.popen", "os.getenv", "os.environ.get", "os.remove", "os.mkdir", "os.putenv"),
    *("subprocess.run", "subprocess.Popen", "subprocess.getoutput", "builtins.exec", "builtins.eval"),
    *("builtins.open", "builtins.__import__", "builtins.compile", "importlib.import_module"),
    *("runpy.run_path", "runpy.run_module", "pickle.loads", "pickle.load", "marshal.loads", "shutil.rmtree"),
    *("torch.load", "torch.hub.load", "torch.jit.load", "torch.save", "torch.utils.collect_env.run"),
    *("torch.utils.cpp_extension.load_inline", "torch.package.PackageImporter", "numpy.load"),
    *("pathlib.Path.write_text", "logging.FileHandler", "hydra.utils.instantiate", "hydra.utils.call"),
    *("functools.partial", "operator.methodcaller", f"{MARK}.Net", f"{MARK}.run", "antigravity", "this.s"),
    *(
        "fedsplit.config.component.component_of",
        "fedsplit.files.paths.new_directory",
        "nowhere.Net",
        "",
        ".",
        "os.",
    ),
)
"""Names that would execute, import, unpickle, write or read something if they were called."""
HEARD = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "os.startfile"),
    *("pickle.find_class", "socket.connect", "socket.bind", "urllib.Request", "os.putenv", "ctypes.dlopen"),
}
PLACES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"}
LIBRARIES = {
    *("fedsplit", "torch", "torchvision", "torchao", "numpy", "scipy", "sklearn", "PIL", "matplotlib"),
    *("mpl_toolkits", "safetensors", "zstandard", "rich", "hydra", "omegaconf", "yaml", "encodings", "wandb"),
}


class Canary:
    """Hears what the interpreter does while it watches; each kind of thing that no good run does is a hit.

    Args:
        allowed: folder in which files may be written.
    """

    def __init__(self, allowed: Path) -> None:
        self.allowed, self.hits = allowed.resolve(), Counter[str]()
        self._usual: set[str] | None = None
        self._watches = False
        self._hostile = {target.partition(".")[0] for target in TARGETS} - sys.modules.keys() - LIBRARIES
        self._paths = tuple(str(Path(p).resolve()) for p in (*sys.path, sys.prefix, sys.base_prefix) if p)
        sys.addaudithook(self._hear)
        kind, original = type(os.environ), type(os.environ).__getitem__

        def looked_up(environ: Any, key: Any) -> Any:
            if self._watches and key == SECRET:
                self.hits[f"environment: {key}"] += 1
            return original(environ, key)

        kind.__getitem__ = looked_up  # type: ignore[method-assign, assignment]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it does."""
        before = set(sys.modules)
        self._watches = True
        try:
            yield
        finally:
            self._watches = False
            new = {name.partition(".")[0] for name in sys.modules.keys() - before}
            self.hits.update(f"import {name}" for name in new & self._hostile)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """While what good runs do is taken for usual."""
        with self.watching():
            yield
        self._usual = set(self.hits)
        self.hits.clear()

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watches:
            return
        told = self._told(event, arguments)
        if told and (self._usual is None or told not in self._usual):
            self.hits[told] += 1

    def _told(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """What is to be told of an event; None of what anything may do."""
        first, told = arguments[0] if arguments else None, False
        if (
            event == "import"
        ):  # not heard of `importlib.import_module`, whose modules are looked at afterwards
            top = str(first).partition(".")[0]
            told = top in self._hostile or (top not in LIBRARIES and top not in sys.stdlib_module_names)
        elif event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not isinstance(first, int)
            told = bool(writes) and self._outside(first)
        elif event in PLACES:
            told = self._outside(first)
        elif event == "exec":
            first = re.sub(r"\d+", "0", str(getattr(first, "co_filename", "?")))
            known = (*self._paths, "<frozen", "<string>", "<eval_with_key>", "<annotation>", "<attrs")
            told = MARK in first or not first.startswith(known)
        elif event == "compile":
            told = MARK in str(first)
        else:
            told = event in HEARD
        return f"{event} {str(first)[:100]}" if told else None

    def _outside(self, path: Any) -> bool:
        found = os.path.realpath(os.fsdecode(path))
        return not found.startswith((f"{self.allowed}{os.sep}", os.devnull)) and found != str(self.allowed)


@dataclass
class Tally:
    """What became of the cases."""

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    tracebacks: list[str] = field(default_factory=list)
    long_errors: list[str] = field(default_factory=list)


class Files:
    """Good files, their hostile copies, and all that reads them.

    Args:
        folder: for all of them.
        seed: of what is drawn.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.draw, self.tally = folder, random.Random(seed), Tally()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{MARK}.py").write_text(
            f"import os\nos.environ.get('{SECRET}')\nclass Net: pass\ndef run(): pass\n"
        )
        sys.path.append(str(folder))  # as the directory of a command is
        self.good, self.deployed = folder / "good", folder / "deployed"
        config = configuration(
            "algorithm=fed_avg",
            "rounds=1",
            "num_clients=2",
            "dataset.max_train=60",
            "dataset.max_test=30",
            "progress=false",
            "engine=sequential",
            "batch_size=30",
        )
        Experiment(config).run(RunDirectory.new(self.good, "run"))
        self.infers = configuration("task=infer", "precision=[fp32]", f"run={folder / 'case'}", "device=cpu")
        self.trained = TrainedRun(self.good, device="cpu", threads=1)
        self.build = self.trained.architecture.build
        self.x = self.trained.parts.data.batch(2)[0]
        for name in ("fp32", "w4", "dynamic_int8"):
            backend = Precision.by_name(name).make_backend("precision", name)
            backend.prepare(Precision.by_name(name).model(self.trained.client, backend, name), self.x)
            backend.convert().save(self.deployed / name)
        _graph(self.deployed / "graph", _STEPS, {"t0": torch.ones(1, 8, 8)})
        self.canary = Canary(folder)
        with self.canary.learning():
            for read in (self._read_run, self._draw):
                read(self.good)
            for path in self.deployed.iterdir():
                self._read_deployed(path)

    # Readers

    def _read_run(self, path: Path) -> None:
        """Everything of `resume`, `compare` and `infer` up to the first round, latency or request."""
        for read in (self._resume, self._compare, self._infer, self._start, self._sweep):
            self._told(lambda read=read: read(path))  # type: ignore[misc]

    def _resume(self, path: Path) -> None:
        run = RunDirectory.existing(path)
        config, checkpoint = resumed_config(run, {"device": "cpu"}), run.latest_checkpoint()
        experiment = Experiment(config, None if checkpoint else TrainedStart.of(config.origin.run))
        if checkpoint is not None:
            experiment.restore(checkpoint)

    def _compare(self, path: Path) -> None:
        trained = TrainedRun(path, device="cpu", threads=1)
        trained.client(trained.parts.data.batch(2)[0])

    def _infer(self, path: Path) -> None:
        subject_of(_of_the_run(self.infers.with_changes({"run": str(path)})))

    def _start(self, path: Path) -> None:
        TrainedStart.of(str(path))

    def _sweep(self, path: Path) -> None:
        record.read(path)
        progress_of(path)

    def _draw(self, path: Path) -> None:
        """Figures of all types, and a table."""
        notes = Notes()
        figures = [
            ("curve", {}),
            ("confusion", {}),
            ("roc", {}),
            ("classes", {}),
            ("bars", {}),
            ("scatter", {}),
        ]
        for name, settings in figures:
            figure = FigureRequest(
                name, figure_type(name, settings, ""), name, "", (str(path),), {}, {}, ("png",)
            )

            def one(figure: FigureRequest = figure) -> None:
                runs = StoredRuns(notes).select_runs(figure)
                if not runs:
                    raise UserError("run", path, next(iter(notes.texts), "none"))
                image_files(draw(figure, runs, ("png",)))
                table_of(TableRequest(()), runs, name="t", title="t")

            self._told(one)

    def _read_deployed(self, path: Path) -> None:
        self._told(lambda: storage.load(path, self.build).run(self.x))

    def _told(self, read: Callable[[], object]) -> None:
        """Count how it ended."""
        try:
            with self.canary.watching(), allowing(_MEMORY, "here are"):
                read()
        except (UserError, RunFailed) as error:
            self.tally.refused += 1
            if "\n" in str(error) or len(str(error)) > 2000:
                self.tally.long_errors.append(str(error)[:300])
        except Exception:
            last = traceback.format_exc().strip().splitlines()
            self.tally.tracebacks.append(
                f"case {self.tally.cases}: {last[-1][:200]} ({'; '.join(last[-5:-1])[:300]})"
            )
        else:
            self.tally.accepted += 1

    # Cases

    def case(self) -> None:
        """Make one and have it read."""
        self.tally.cases += 1
        path = self.folder / "case"
        shutil.rmtree(path, ignore_errors=True)
        kind = self.draw.choice(
            (
                self._bad_config,
                self._bad_config,
                self._bad_text,
                self._bad_bytes,
                self._bad_tables,
                self._bad_checkpoint,
                self._bad_graph,
                self._bad_deployed,
            )
        )
        kind(path)
        torch.set_num_threads(1)

    def _copied(self, path: Path) -> None:
        shutil.copytree(self.good, path)

    def _bad_config(self, path: Path) -> None:
        self._copied(path)
        config = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
        for _ in range(self.draw.choice((1, 1, 2, 4))):
            self._change(config)
        if config.get("compile") is True:  # a plain value, by which torch starts compilers of its own
            config["compile"] = False
        (path / "config.yaml").write_text(json.dumps(config), "utf-8")
        self._read_run(path)
        if self.tally.cases % 4 == 0:
            self._draw(path)

    def _change(self, config: dict[str, Any]) -> None:
        """One value, or one key more or less, anywhere."""
        node: Any = config
        while True:
            key = self.draw.choice(list(node))
            if isinstance(node[key], dict) and node[key] and self.draw.random() < 0.8:
                node = node[key]
                continue
            break
        match self.draw.randrange(6):
            case 0:
                node.pop(key)
            case 1:
                node[
                    self.draw.choice(("_target_", "_args_", "_partial_", "_recursive_", "_convert_", "_new_"))
                ] = self._value()
            case 2:
                node[key] = self._node()
            case 3:
                holders = [each for each in config.values() if isinstance(each, dict) and "_target_" in each]
                if holders:
                    self.draw.choice(holders)["_target_"] = self.draw.choice(TARGETS)
            case 4:
                node[f"more_{self.draw.randrange(9)}"] = self._node()
            case _:
                node[key] = self._value()

    def _node(self, depth: int = 0) -> dict[str, Any]:
        """What Hydra would call."""
        node: dict[str, Any] = {"_target_": self.draw.choice(TARGETS)}
        command = f"touch {self.folder.parent / MARK}"
        for name in self.draw.sample(
            ("command", "_args_", "path", "name", "key", "args", "f", "code", "nested"), 3
        ):
            value: Any = self.draw.choice(
                (
                    command,
                    f"${{oc.env:{SECRET}}}",
                    SECRET,
                    f"import os; os.getenv('{SECRET}'); {MARK}",
                    str(self.good),
                )
            )
            node[name] = [value] if name == "_args_" else value
        if depth < 2 and self.draw.random() < 0.4:
            node["nested"] = self.draw.choice((self._node(depth + 1), [self._node(depth + 1)]))
        return node

    def _value(self) -> Any:
        return self.draw.choice(
            (
                *(
                    None,
                    True,
                    False,
                    0,
                    -1,
                    1,
                    3,
                    10**6,
                    2**31,
                    2**62,
                    10**400,
                    0.5,
                    -1e308,
                    float("nan"),
                    float("inf"),
                ),
                *(
                    "",
                    "x",
                    "x" * 3000,
                    "x" * 10**6,
                    "???",
                    f"${{oc.env:{SECRET}}}",
                    "${seed}",
                    "../../../etc/passwd",
                    "\0",
                    "a\nb",
                    "$\\frac$",
                    "<script>",
                ),
                *(
                    [],
                    {},
                    [[]],
                    [1, [2, {"a": 3}]],
                    {"_target_": "os.system", "command": f"touch {MARK}"},
                    {"a": {"b": {}}},
                ),
                *(
                    "auto",
                    "none",
                    "sequential",
                    "fp32",
                    "cpu",
                    "cuda:99",
                    "resnet18",
                    "mnist",
                    "grpc",
                    "train",
                    str(self.folder),
                ),
                self.draw.choice(TARGETS),
            )
        )

    def _bad_text(self, path: Path) -> None:
        self._copied(path)
        good = (path / "config.yaml").read_text("utf-8")
        texts = (
            f"choices: !!python/object/apply:os.system ['touch {MARK}']\n",
            f"!!python/object/new:subprocess.Popen [[touch, {MARK}]]\n",
            f"{good}\nmore: !!python/module:{MARK}\n",
            f"{good}\nmore: !!python/name:os.system\n",
            "a0: &a0 [x, x]\n"
            + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
            + good,
            "&a [*a]",
            f"{good}\n? [1, 2]\n: 3\n",
            "[" * self.draw.choice((30, 1000, 100_000)),
            f"{good}\nmore: {'9' * self.draw.choice((20, 400, 5000, 10**6))}\n",
            f"{good}\nmore: 0x{'f' * 5000}\n",
            f"{good}\nmore: {'x' * 10**6}\n",
            f"{good}\n{'y' * 10**5}: 1\n",
            f"{good}\nmore: 2020-99-99\n",
            f"{good}\n1: 2\n2020-01-01: 3\nnull: 4\n",
            good[: self.draw.randrange(len(good))],
            "\x00",
            "",
            "- 1",
            "x" * 2**21,
        )
        (path / "config.yaml").write_text(self.draw.choice(texts), "utf-8")
        (path / "sweep.yaml").write_text(self.draw.choice(texts), "utf-8")
        self._read_run(path)
        self._draw(path)

    def _bad_bytes(self, path: Path) -> None:
        """Any file, truncated or with bits turned."""
        self._copied(path)
        files = sorted(each for each in path.rglob("*") if each.is_file())
        for file in self.draw.sample(files, 2):
            file.write_bytes(self._turned(file.read_bytes()))
        self._read_run(path)
        if self.tally.cases % 4 == 0:
            self._draw(path)

    def _turned(self, content: bytes) -> bytes:
        changed = bytearray(content or b"x")
        match self.draw.randrange(5):
            case 0:
                return bytes(changed[: self.draw.randrange(len(changed))])
            case 1:
                return self.draw.randbytes(self.draw.randrange(100))
            case 2:  # the length of a header of safetensors
                return self.draw.choice((0, 1, 7, 2**20, 2**40, 2**63)).to_bytes(8, "little") + bytes(
                    changed[8:]
                )
            case _:
                for _ in range(self.draw.choice((1, 5, 50))):
                    place = self.draw.randrange(
                        min(len(changed), self.draw.choice((64, 1024, len(changed)))) or 1
                    )
                    changed[place] ^= 1 << self.draw.randrange(8)
        return bytes(changed)

    def _bad_tables(self, path: Path) -> None:
        self._copied(path)
        odd = (
            "",
            "x",
            "-1",
            "1e400",
            "nan",
            "inf",
            "-inf",
            "1e39",
            "9" * 400,
            "9" * 5000,
            "999999999",
            "1" * 18,
            "x" * 10**6,
            "\0",
            "$\\frac{",
            '"',
            "'",
            "a,b",
            "<b>",
            "1_0",
            "٣",
        )
        for name in ("metrics.csv", "class_counts.csv", "roc.csv", "confusion.csv"):
            lines = [line.split(",") for line in (path / name).read_text("utf-8").splitlines()]
            for _ in range(self.draw.choice((0, 1, 3))):
                row = lines[self.draw.randrange(len(lines))]
                row[self.draw.randrange(len(row))] = self.draw.choice(odd)
            (path / name).write_text("\n".join(map(",".join, lines)), "utf-8")
        results = json.loads((path / "results.json").read_text("utf-8"))
        if self.draw.random() < 0.5:
            self._change(results)
            (path / "results.json").write_text(json.dumps(results), "utf-8")
        self._draw(path)
        self._told(lambda: self._sweep(path))

    def _bad_checkpoint(self, path: Path) -> None:
        """With sums that are right, as who writes one can make them."""
        self._copied(path)
        folder = next((path / "checkpoint").iterdir())
        values = json.loads((folder / "state.json").read_text("utf-8"))
        for _ in range(self.draw.choice((0, 1, 3))):
            self._change(values)
        (folder / "state.json").write_text(json.dumps(values), "utf-8")
        if self.draw.random() < 0.5:
            tensors = {
                self.draw.choice(
                    ("a", "algorithm/client_weights/x", "algorithm", "/", "records/0", "", "clients/0/w")
                ): torch.zeros(
                    self.draw.choice(((), (0,), (3,), (2, 2))),
                    dtype=self.draw.choice((torch.float32, torch.int64, torch.bool, torch.bfloat16)),
                )
                for _ in range(3)
            }
            save_file(tensors, folder / "state.safetensors")
            save_file(
                tensors, path / "model" / self.draw.choice(("client.safetensors", "server.safetensors"))
            )
        sums = (
            f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
            for name in ("state.safetensors", "state.json")
        )
        (folder / "SHA256SUMS").write_text("".join(sums), "utf-8")
        self._read_run(path)

    def _bad_graph(self, path: Path) -> None:
        steps = json.loads(json.dumps(_STEPS))
        for _ in range(self.draw.choice((1, 1, 2))):
            self._change_steps(steps)
        shape = self.draw.choice(((1, 8, 8), (8,), (0,), (3, 1)))
        _graph(
            path,
            steps,
            {"t0": torch.ones(shape)},
            output=self.draw.choice((len(steps) - 1, 0, -1, 10**9, "1", None)),
            types=self.draw.choice((["float32"], ["int8"], ["complex64"], ["load"], [3], [])),
        )
        self._read_deployed(path)

    def _change_steps(self, steps: list[Any]) -> None:
        code = f'x"), getattr(__import__("os"), "system")("touch {MARK}")'
        names = (
            "aten.relu.default",
            "aten.save.default",
            "aten.from_file.default",
            "prims.convert.default",
            "os.system",
            "getitem",
            "aten.einsum.default",
            "aten.__import__",
            "aten.add.Tensor",
            "aten.empty.memory_format",
            "aten.full.default",
            "aten.repeat.default",
            "aten._linalg_det.default",
            code,
            3,
            None,
            "x" * 10**6,
        )
        values = (
            {"step": 0},
            {"step": -1},
            {"step": 10**9},
            {"step": "0"},
            {"dtype": "load"},
            {"dtype": "float32"},
            {"device": "cuda"},
            {"os": "system"},
            2**53,
            2**62,
            10**400,
            -1,
            0,
            1e308,
            True,
            None,
            code,
            [],
            [2**31, 2**31],
            [[[[[[1]]]]]],
            {},
            {"a": 1, "b": 2},
            [{"step": 0}] * 3,
        )
        step = self.draw.choice([each for each in steps if isinstance(each, list) and each] or [[""]])
        match self.draw.randrange(6):
            case 0:
                step[0] = self.draw.choice(names)
            case 1 if len(step) > 1 and isinstance(step[1], list):
                step[1] = [self.draw.choice(values) for _ in range(self.draw.randrange(4))]
            case 2 if len(step) > 2:
                step[2] = {
                    self.draw.choice(("out", "self", "dtype", "size", "filename", code)): self.draw.choice(
                        values
                    )
                }
            case 3:
                steps.append(
                    [
                        self.draw.choice(names),
                        [self.draw.choice(values) for _ in range(self.draw.randrange(4))],
                        {},
                    ]
                )
            case 4:
                steps[self.draw.randrange(len(steps))] = self.draw.choice(
                    ([], {}, None, 3, "input", ["input"], ["tensor"], ["tensor", 9], [[]])
                )
            case _:
                steps.insert(0, steps.pop())

    def _bad_deployed(self, path: Path) -> None:
        shutil.copytree(self.draw.choice(sorted(self.deployed.iterdir())), path)
        told = json.loads((path / storage.DESCRIPTION).read_text("utf-8"))
        for _ in range(self.draw.choice((0, 1, 2))):
            told[self.draw.choice([*told, "format", "dtype"])] = self.draw.choice(
                (
                    self._value(),
                    "floats",
                    "graph",
                    "packed_weights",
                    "quantize_dynamic",
                    "load",
                    [2**31, 2**31],
                    [1, 1, 8, 8],
                )
            )
        (path / storage.DESCRIPTION).write_text(json.dumps(told), "utf-8")
        if self.draw.random() < 0.6:
            file = self.draw.choice(sorted(each for each in path.iterdir()))
            file.write_bytes(self._turned(file.read_bytes()))
        self._read_deployed(path)


_STEPS: list[list[Any]] = [
    ["input"],
    ["tensor", 0],
    ["aten.mul.Tensor", [{"step": 0}, {"step": 1}], {}],
    ["aten.relu.default", [{"step": 2}], {}],
    ["aten.reshape.default", [{"step": 3}, [2, -1]], {}],
]


def _graph(path: Path, steps: object, tensors: dict[str, torch.Tensor], **graph: object) -> None:
    """A deployed model as its format has it, with a graph of anybody's."""
    storage.describe(path, "graph", {"compiled": False, "scale": None, "zero_point": 0})
    written = {"steps": steps, "output": len(_STEPS) - 1, "types": ["float32"]} | graph
    save_file(tensors, path / "client.safetensors", {"graph": json.dumps(written)})
