"""Lightning's notices: gone within, back after, and nobody else's with them."""

import logging
import warnings

import pytest

from hilbound.training.quiet import quiet_lightning

NOTICE = "The 'train_dataloader' does not have many workers which may be a bottleneck."


def test_lightnings_notices_are_gone_and_other_warnings_stay():
    with quiet_lightning():
        warnings.warn(NOTICE, UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="bottleneck"):
        warnings.warn(NOTICE, UserWarning, stacklevel=1)


def test_the_levels_of_the_loggers_are_put_back_even_after_an_error():
    logger = logging.getLogger("lightning.pytorch")
    before, filters = logger.level, list(warnings.filters)
    seen = []

    def fail():
        with quiet_lightning():
            seen.append(logger.isEnabledFor(logging.INFO))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert seen == [False]
    assert logger.level == before
    assert warnings.filters == filters
