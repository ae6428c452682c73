"""What pyproject.toml cannot say: what stands beside `src` in a checkout is inside the package in a wheel."""

from pathlib import Path
from shutil import copy2, copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    """Adds `hydra_config` and `exp_configs.yaml` to the package; `fedsplit.files.paths` finds them."""

    def run(self) -> None:
        """Build the package, then copy the configuration into it."""
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, "fedsplit")
            copytree("hydra_config", package / "hydra_config", dirs_exist_ok=True)
            copy2("exp_configs.yaml", package)


setup(cmdclass={"build_py": BuildWithConfiguration})
