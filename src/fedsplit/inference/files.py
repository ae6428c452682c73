"""What split inference leaves behind: every request, and what they come to."""

from collections.abc import Sequence
from pathlib import Path

from fedsplit.config.run_config import RunConfig
from fedsplit.files.whole import write_csv, write_json
from fedsplit.inference.request import COLUMNS, Request
from fedsplit.inference.summary import Summary
from fedsplit.recording.config_file import write_config


def write_results(
    directory: Path,
    config: RunConfig,
    cut: str,
    requests: Sequence[Request],
    summaries: Sequence[Summary],
) -> None:
    """Write `config.yaml`, `requests.csv`, `summary.csv`, `summary.json` and `results.json`.

    Args:
        requests: in the order in which they were made.
        summaries: of each precision; the others are compared with the first.
    """
    first = summaries[0]
    rows = [each.plain(first) for each in summaries]
    write_csv(directory / "requests.csv", COLUMNS, (each.row() for each in requests))
    write_csv(directory / "summary.csv", list(rows[0]), (list(row.values()) for row in rows))
    about = {
        "batch_size": config.training.batch_size,
        "threads": config.computation.threads,
        "device": config.computation.device,
        "run": config.origin.run,
        "model": config.choices.get("model"),
        "cut": cut,
        "transport": config.choice("transport"),
    }
    write_json(directory / "summary.json", {**about, "precisions": rows})
    write_config(directory, config.plain())
    write_json(
        directory / "results.json",
        {
            "final_accuracy": first.accuracy,
            "load": sum(each.bytes_up + each.bytes_down for each in requests if not each.warm_up),
            "seconds": sum(each.total_seconds for each in requests if not each.warm_up),
            "precisions": {row["precision"]: row for row in rows},
        },
    )
