"""What the process of one client builds of a run."""

from fedsplit.building.process import prepare_process
from fedsplit.building.run import build_clients
from fedsplit.building.transport import carried_run
from fedsplit.config.run_config import RunConfig
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.transport import Member, Run


def run_of_member(config: RunConfig, member: Member) -> Run:
    """What the process of one client needs of a run; the process is prepared for it."""
    prepare_process(config)
    return carried_run(build_clients(config, member=member), Ledger())
