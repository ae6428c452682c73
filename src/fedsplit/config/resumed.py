"""The configuration of a run that goes on, with what is given anew."""

from collections.abc import Mapping

from fedsplit.config.chosen_names import chosen_name
from fedsplit.config.compose import composed, composing, plain
from fedsplit.config.run_config import RunConfig


def with_changes(config: RunConfig, changes: Mapping[str, object]) -> RunConfig:
    """The configuration with values given anew, by dotted key; `tracker` names another choice of the group.

    Raises:
        UserError: there is no such tracker, or a value is not allowed.
    """
    values, choices = config.plain(), dict(config.choices)
    if "tracker" in changes:
        choices["tracker"] = str(changes["tracker"])
        with composing():
            values["tracker"] = plain(composed([f"tracker={choices['tracker']}"]))["tracker"]
    for key, value in changes.items():
        if key != "tracker":
            group, _, name = key.partition(".")
            node = values.get(group)
            if isinstance(node, dict):
                node[name] = value
            else:
                values[key] = value
    if "tracker._target_" in changes:
        choices["tracker"] = chosen_name(values, "tracker", choices["tracker"])
    return RunConfig.parse({**values, "choices": choices})
