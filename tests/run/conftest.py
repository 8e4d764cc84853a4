import pytest
from helpers.patients import ASKED, Patients, model

import fastconv


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run of all that `ASKED` asks for; tests only read it."""
    out = tmp_path_factory.mktemp("whole") / "run.h5"
    fastconv.extract(model(), Patients(), out, **ASKED)
    return out
