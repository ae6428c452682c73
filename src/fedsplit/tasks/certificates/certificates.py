"""Certificates for running over a network."""

from pathlib import Path

from typing_extensions import override

from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import NonNegativeInt, PositiveInt
from fedsplit.files.paths import user_path
from fedsplit.machine.extras import extra
from fedsplit.tasks.task import Task


class Certificates(Task):
    """Makes a certificate authority and what it issues, or adds what is missing to one made before.

    Args:
        hosts: names and IP addresses by which clients reach the server.
    """

    models_of_run = "refused"
    swept = False
    announces = "{task}"

    def __init__(self, *, hosts: list[str], clients: NonNegativeInt, days: PositiveInt, out: str) -> None:
        self.hosts, self.clients, self.days, self.out = hosts, clients, days, user_path(out, "task.out")

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Make certificates, and print for which machine each of them is."""
        with extra("task", "certificates"):
            from fedsplit.tasks.certificates.directories import CA, SERVER, make_certificates  # noqa: PLC0415
        made = make_certificates(self.out, hosts=self.hosts, clients=self.clients, days=self.days)
        clients = [name for name in made.new if name.startswith("client-")]
        if CA in made.new:
            print(f"{self.out / CA}: the authority; goes nowhere, and its key.pem is best kept offline")
        if SERVER in made.new:
            print(f"{self.out / SERVER}: to the server, {', '.join(self.hosts)}")
        if clients:
            others = f" ... {clients[-1]}" if len(clients) > 1 else ""
            print(f"{self.out / clients[0]}{others}: one to the machine of each client ({len(clients)} new)")
        if made.new:
            print(f"valid for {self.days} days; each machine needs its own directory and no other")
        if made.existing:
            print(f"{len(made.existing)} directories were there already and stay as they are")
