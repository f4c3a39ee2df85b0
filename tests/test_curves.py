"""Twenty steps on the embedded world: the stored losses, and the same weights twice."""

import pytest
import torch
from curves import FAMILIES, STAGES, STEPS, STORED, run, world


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    return world(str(tmp_path_factory.mktemp("world")))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stage", STAGES)
def test_losses_are_the_stored_ones_and_a_second_run_ends_in_the_same_weights(family, stage, data_root, tmp_path):
    losses, weights = run(family, stage, data_root, str(tmp_path))
    stored = [float(line.split()[1]) for line in (STORED / f"{stage}_{family}.txt").read_text().splitlines()]
    assert len(losses) == STEPS
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(stored), atol=1e-4, rtol=1e-4)
    _, again = run(family, stage, data_root, str(tmp_path))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
