"""Scripts of the documentation: the shell and YAML parse, and name keys and commands that there are."""

import shlex
import subprocess
from pathlib import Path

import yaml
from ray.scripts.symmetric_run import symmetric_run

from tests.conftest import Configure
from tests.test_documentation import blocks


def overrides_in(words: list[str]) -> list[str]:
    """What follows `main.py`, with a plain word for what the shell would put there."""
    return [word.replace("$head:$port", "node:20001") for word in words[words.index("main.py") + 1 :]]


def test_slurm_script_is_a_script_whose_commands_know_their_options(
    root: Path, configured: Configure
) -> None:
    (script,) = (text for text in blocks(root / "docs/cluster.md", "bash") if "#SBATCH" in text)
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    words = shlex.split(script[script.index("srun") :].replace("\\\n", " "))
    asked = words[words.index("symmetric-run") + 1 :]
    known = {option for parameter in symmetric_run.params for option in parameter.opts}
    assert {"--address", "--min-nodes"} <= known & set(asked)
    config = configured(*overrides_in(words))
    assert config.choice("cluster") == "ray"
    assert config.cluster.arguments["address"] == asked[asked.index("--address") + 1].replace(
        "$head:$port", "node:20001"
    )


def test_kubernetes_manifest_runs_a_command_that_composes_on_a_cluster_with_a_token(
    root: Path, configured: Configure
) -> None:
    (text,) = (text for text in blocks(root / "docs/cluster.md", "yaml") if "RayJob" in text)
    job = yaml.safe_load(text)
    spec = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert spec["authOptions"] == {"mode": "token"}
    overrides = overrides_in(shlex.split(job["spec"]["entrypoint"]))
    config = configured(*(each for each in overrides if not each.startswith("hydra.")))
    assert config.cluster.arguments["address"] == "auto"
    assert config.cluster.arguments["min_workers"] <= spec["workerGroupSpecs"][0]["replicas"] * 4
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for pod in (each["template"]["spec"] for each in pods):
        volumes = {each["name"] for each in pod["volumes"]}
        assert {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]} == volumes
