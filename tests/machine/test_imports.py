import gc

import pytest

from fedsplit.machine.imports import without_garbage_collection


def _fails_inside() -> None:
    with without_garbage_collection():
        assert not gc.isenabled()
        raise ImportError


@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_looked_for_afterwards_as_before_though_an_import_fails(before: bool) -> None:
    was = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        with pytest.raises(ImportError):
            _fails_inside()
        assert gc.isenabled() == before
    finally:
        (gc.enable if was else gc.disable)()
