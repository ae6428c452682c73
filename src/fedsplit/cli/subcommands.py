"""The commands `ls`, `show` and `copy`: they look at what is there, and run nothing."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from typing_extensions import override

from fedsplit.config.choices import FLAG, directories, file_of, names_of
from fedsplit.config.commands import command
from fedsplit.errors import UserError
from fedsplit.files.paths import display_path, in_one_line, user_path
from fedsplit.reports.runs import Run, read_run, runs_at
from fedsplit.reports.shown_table import print_table
from fedsplit.reports.summary import list_table, print_summary


class _Parser(ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        raise UserError("arguments", " ".join(sys.argv[1:]), message)


def main() -> int:
    """Do what the command line asks for.

    Returns:
        The exit code: 0, or 2 for a mistake in what was asked.
    """
    try:
        arguments = _parse(sys.argv[1:])
        COMMANDS[arguments.command](arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parse(given: Sequence[str]) -> Namespace:
    parser = _Parser(prog=command(), allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("ls", help="list the runs below folders")
    listing.add_argument("folders", nargs="*", metavar="FOLDER", help="default: saves")
    showing = commands.add_parser("show", help="summarise one run")
    showing.add_argument("run", metavar="RUN", help="directory of a run")
    copying = commands.add_parser("copy", help="copy the file of a choice, to start one's own from")
    copying.add_argument("choice", metavar="GROUP/CHOICE", help="for instance experiment/paper_cifar10")
    copying.add_argument("file", metavar="FILE", help="a new file, for instance own/experiment/mine.yaml")
    return parser.parse_args(given)


def _list(arguments: Namespace) -> None:
    runs: list[Run] = []
    unreadable: list[UserError] = []
    for folder in arguments.folders or ["saves"]:
        there = runs_at(folder, "ls").runs
        if not there and arguments.folders and not user_path(folder, "ls").exists():
            raise UserError("ls", folder, "there is no such folder")
        for path in there:
            try:
                runs.append(read_run(path))
            except UserError as error:
                unreadable.append(error)
    if runs:
        print_table(list_table(runs))
    for each in unreadable:
        print(f"left out: {each}", file=sys.stderr)
    if not runs and not unreadable:
        print(f"no runs below {', '.join(arguments.folders or ['saves'])}")


def _show(arguments: Namespace) -> None:
    run = read_run(user_path(arguments.run, "show").absolute())
    print_summary(run)
    print(display_path(run.path))


def _copy(arguments: Namespace) -> None:
    group, _, choice = arguments.choice.rpartition("/")
    groups = {str(file.parent.relative_to(root)) for root in directories() for file in root.rglob("*/*.yaml")}
    if group not in groups:
        known = ", ".join(sorted(groups))
        raise UserError("copy", arguments.choice, f"must be GROUP/CHOICE with a group of {known}")
    source = file_of(group, choice)
    if source is None:
        known = ", ".join(names_of(group))
        raise UserError("copy", arguments.choice, f"the choices of {group} are {known}")
    target = user_path(arguments.file, "copy")
    if target.suffix != ".yaml":
        raise UserError("copy", arguments.file, "must be a file whose name ends with .yaml")
    with in_one_line("copy", arguments.file, "cannot be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text("utf-8"))
    print(display_path(target.absolute()))
    root = target.absolute().parents[len(Path(group).parts)]
    if target.absolute().parent == root / group:
        flag = f"{FLAG}={display_path(root)}"
        print(f"run it with: {command(flag, f'{group}={target.stem}')}")
    else:
        print(f"to run it, put it into OWN/{group}/ and add {FLAG}=OWN {group}={target.stem}")


COMMANDS: Mapping[str, Callable[[Namespace], None]] = {"ls": _list, "show": _show, "copy": _copy}
"""Functions of the commands, by name."""
