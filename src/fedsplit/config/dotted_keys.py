"""Keys of a configuration with dots between their levels, and values as on the command line."""

from collections.abc import Collection, Iterator, Mapping


def below(key: str, places: Collection[str]) -> bool:
    """True if a dotted key is one of these places, or below one."""
    return any(key == place or key.startswith(f"{place}.") for place in places)


def leaves(node: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values as they are, in alphabetical order."""
    if isinstance(node, Mapping):
        for key in sorted(node, key=str):
            yield from leaves(node[key], f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def flat(node: object) -> Iterator[tuple[str, str]]:
    """Dotted keys and values as on the command line, in alphabetical order."""
    return ((key, format_value(value)) for key, value in leaves(node))


def format_value(value: object) -> str:
    """Format a value of the configuration as on the command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case list():
            return f"[{','.join(format_value(item) for item in value)}]"
    return str(value)
